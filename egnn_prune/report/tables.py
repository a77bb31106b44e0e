"""The comparison of dense, pruned and scratch, as data and as a terminal table."""

from __future__ import annotations

import math
from functools import partial

from egnn_prune.report.files import Metrics, check_metrics, models_present, number
from egnn_prune.report.formatting import (
    MISSING,
    lower_or_higher,
    percent_change,
    si,
    significant,
    text_table,
    times,
)
from egnn_prune.report.rows import Row, Spec, calibration_specs, difference, ood_specs, rows_of
from egnn_prune.report.wording import words


def _nll() -> Spec:
    return Spec("nll", "NLL, test", "nats", significant, difference, -1)


def _specs(unit: str, batch: float) -> list[Spec]:
    shorter = partial(times, less="shorter", more="longer")
    fewer = partial(times, less="fewer", more="more")
    force = f"{unit}/Angstrom"
    latency = f"Latency, batch of {batch:.0f}" if math.isfinite(batch) else "Latency"
    return [
        Spec("test_mae", "Test MAE", unit, significant, percent_change, -1),
        Spec("test_rmse", "Test RMSE", unit, significant, percent_change, -1),
        Spec("test_mse", "Test MSE", f"{unit}^2", significant, percent_change, -1),
        Spec("test_force_mae", "Test force MAE", force, significant, percent_change, -1),
        Spec("test_force_rmse", "Test force RMSE", force, significant, percent_change, -1),
        Spec("ood_mae", "OOD MAE", unit, significant, percent_change, -1),
        Spec("ood_force_mae", "OOD force MAE", force, significant, percent_change, -1),
        _nll(),
        Spec(
            "spearman_error_uncertainty",
            "Spearman |error|, std",
            "",
            significant,
            difference,
            1,
        ),
        *calibration_specs(unit),
        Spec("equivariance_error", "Equivariance error", "", significant, lambda _n, _o: "", 0),
        Spec("params", "Parameters", "", si, fewer, -1),
        Spec("macs_per_graph", "MACs per graph", "", si, fewer, -1),
        Spec(
            "latency_ms",
            latency,
            "ms",
            significant,
            partial(times, less="faster", more="slower"),
            -1,
        ),
        Spec("train_seconds", "Training time", "s", significant, shorter, 0),
        Spec(
            "checkpoint_bytes",
            "Checkpoint",
            "",
            partial(si, unit="B"),
            partial(times, less="smaller", more="larger"),
            -1,
        ),
    ]


def comparison_rows(metrics: Metrics) -> list[Row]:
    """The comparison as data, used by the terminal table and by the HTML page.

    Quantities that no model has (for example OOD error without an OOD split) are left out.

    Args:
        metrics: The content of ``metrics.json``; errors are in ``dataset.unit``.

    Returns:
        One row per quantity; ``values`` and ``texts`` have a key per model present. Qualities of
        the error bar stand as ``before → after`` recalibration.

    Raises:
        ValueError: If `metrics` is malformed.
    """
    check_metrics(metrics)
    batch = number(metrics["models"]["dense"].get("latency_batch"))
    return rows_of(_specs(metrics["dataset"]["unit"], batch), metrics)


def calibration_rows(metrics: Metrics) -> list[Row]:
    """Quality of the error bars on test and OOD, for the calibration section of the page.

    Raises:
        ValueError: If `metrics` is malformed.
    """
    check_metrics(metrics)
    unit = metrics["dataset"]["unit"]
    return rows_of([_nll(), *calibration_specs(unit), *ood_specs()], metrics)


def headline(metrics: Metrics) -> str:
    """What pruning did in one phrase: ``37 % of the MACs, 2.6x faster, error +2.1 %``."""
    check_metrics(metrics)
    dense, pruned = metrics["models"]["dense"], metrics["models"]["pruned"]

    def pair(key: str) -> tuple[float, float]:
        return number(pruned.get(key)), number(dense.get(key))

    new_macs, old_macs = pair("macs_per_graph")
    parts = []
    if old_macs > 0:
        parts.append(f"{100 * new_macs / old_macs:.0f} % of the MACs")
    speed = times(*pair("latency_ms"), less="faster", more="slower")
    if speed != MISSING:
        parts.append("same latency" if speed == "same" else speed)
    parts.append(f"test error {percent_change(*pair('test_mae'))}")
    return ", ".join(parts)


def notes(metrics: Metrics) -> list[str]:
    """Sentences that put the comparison in perspective: same shape from scratch, no network."""
    check_metrics(metrics)
    models, dataset = metrics["models"], metrics["dataset"]
    sentences = []
    pruned = number(models["pruned"].get("test_mae"))
    scratch = number((models.get("scratch") or {}).get("test_mae"))
    if math.isfinite(scratch):
        sentences.append(
            f"The pruned model's test MAE is {lower_or_higher(pruned, scratch)} that of the same "
            f"shape trained from scratch."
        )
    baseline = number(dataset.get("mean_predictor_mae"))
    if math.isfinite(baseline):
        sentences.append(
            f"{words(metrics).simplest} has a test MAE of {significant(baseline)} "
            f"{dataset['unit']}."
        )
    return sentences


def comparison_table(metrics: Metrics) -> str:
    """The comparison as a terminal table with one line per quantity.

    Args:
        metrics: The content of ``metrics.json``.

    Returns:
        Several lines of plain text without a trailing newline.

    Raises:
        ValueError: If `metrics` is malformed.
    """
    rows = comparison_rows(metrics)
    names = models_present(metrics)
    body = [[row.label, row.unit, *(row.texts[name] for name in names), row.change] for row in rows]
    table = text_table(["", "unit", *names, "pruned vs dense"], body, left=2)
    return "\n".join([table, *([""] if notes(metrics) else []), *notes(metrics)])


LEDGER_COUNTS = ("total", "pruned", "frozen", "trainable", "macs_dense", "macs_pruned")
LEDGER_HEADER = (
    "layer",
    "parameters",
    "pruned",
    "frozen",
    "trainable",
    "MACs dense",
    "MACs pruned",
    "MACs kept",
)


def ledger_rows(metrics: Metrics) -> list[list[str]]:
    """The ledger as text cells under `LEDGER_HEADER`; the last row holds the sums."""
    check_metrics(metrics)
    ledger = metrics.get("ledger") or []
    counts = [[number(entry.get(key)) for key in LEDGER_COUNTS] for entry in ledger]
    names = [str(entry["layer"]) for entry in ledger]
    if counts:
        names.append("all")
        counts.append([math.fsum(column) for column in zip(*counts, strict=True)])
    body = []
    for name, values in zip(names, counts, strict=True):
        old, new = values[-2:]
        kept = f"{100 * new / old:.0f} %" if old > 0 and math.isfinite(new) else ""
        body.append([name, *(si(value) for value in values), kept])
    return body


def ledger_table(metrics: Metrics) -> str:
    """Where parameters and MACs went, layer by layer, as a terminal table.

    Raises:
        ValueError: If `metrics` is malformed.
    """
    return text_table(list(LEDGER_HEADER), ledger_rows(metrics))
