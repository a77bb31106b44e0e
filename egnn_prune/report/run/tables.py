"""The comparison of dense, pruned and scratch, as data and as a terminal table."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from egnn_prune.report.common.files import (
    REQUIRED_MODELS,
    Metrics,
    check_metrics,
    models_present,
    number,
)
from egnn_prune.report.common.formatting import (
    MISSING,
    factor_ends,
    lower_or_higher,
    percent_change,
    percent_ends,
    si,
    significant,
    text_table,
    times,
)
from egnn_prune.report.common.intervals import SCRATCH, certain, interval
from egnn_prune.report.common.rows import (
    Row,
    Spec,
    calibration_specs,
    force_specs,
    main_force_specs,
    ood_force_specs,
    ood_specs,
    rows_of,
    score,
)
from egnn_prune.report.common.wording import unequal_steps, words
from egnn_prune.system.break_even import BreakEven


def _specs(unit: str, batch: float, forces: bool) -> list[Spec]:
    def error(key: str, label: str, unit: str) -> Spec:
        return Spec(key, label, unit, significant, percent_change, -1, ends=percent_ends)

    def compared(less: str, more: str) -> Callable[[float, float], str]:
        return partial(times, less=less, more=more)

    force, energy = f"{unit}/Angstrom", "energy " if forces else ""
    latency = f"Latency, batch of {batch:.0f}" if math.isfinite(batch) else "Latency"
    speed, fewer = compared("faster", "slower"), compared("fewer", "more")
    return [
        # what a potential is for: forces before energies
        error("test_force_mae", "Test force MAE", force),
        error("test_force_rmse", "Test force RMSE", force),
        error("ood_force_mae", "OOD force MAE", force),
        error("test_mae", f"Test {energy}MAE", unit),
        error("test_rmse", f"Test {energy}RMSE", unit),
        error("test_mse", "Test MSE", f"{unit}^2"),
        error("ood_mae", f"OOD {energy}MAE", unit),
        score("nll", "NLL, test", "nats"),
        score("spearman_error_uncertainty", "Spearman |error|, std", sign=1),
        *calibration_specs(unit),
        *main_force_specs(force),
        Spec("equivariance_error", "Equivariance error", "", significant, lambda _n, _o: "", 0),
        Spec("latency_ms", latency, "ms", significant, speed, -1, ends=factor_ends),
        Spec("params", "Parameters", "", si, fewer, -1),
        Spec("macs_per_graph", "MACs per graph", "", si, fewer, -1),
        Spec("train_seconds", "Training time", "s", significant, compared("shorter", "longer"), 0),
        Spec(
            *("checkpoint_bytes", "Checkpoint", "", partial(si, unit="B")),
            *(compared("smaller", "larger"), -1),
        ),
    ]


def comparison_rows(metrics: Metrics) -> list[Row]:
    """The comparison as data, used by the terminal table and by the HTML page.

    Quantities that no model has (for example OOD error without an OOD split) are left out.

    Args:
        metrics: The content of ``metrics.json``; errors are in ``dataset.unit``.

    Returns:
        One row per quantity; ``texts`` has a key per model present. Qualities of
        the error bar stand as ``before → after`` calibration.
    """
    check_metrics(metrics)
    batch = number(metrics["models"]["dense"].get("latency_batch"))
    return rows_of(_specs(metrics["dataset"]["unit"], batch, has_forces(metrics)), metrics)


def calibration_rows(metrics: Metrics) -> list[Row]:
    """Quality of the error bars on test and OOD, for the calibration section of the page."""
    check_metrics(metrics)
    unit = metrics["dataset"]["unit"]
    return rows_of(
        [score("nll", "NLL, test", "nats"), *calibration_specs(unit), *ood_specs()], metrics
    )


def force_calibration_rows(metrics: Metrics) -> list[Row]:
    """Quality of the error bars of forces, for their section of the page."""
    check_metrics(metrics)
    unit = f"{metrics['dataset']['unit']}/Angstrom"
    return rows_of([*force_specs(unit), *ood_force_specs()], metrics)


def has_forces(metrics: Metrics) -> bool:
    """Whether the run measured forces, which then matter more than energies."""
    models = metrics["models"]
    return all(
        math.isfinite(number(models[name].get("test_force_mae"))) for name in REQUIRED_MODELS
    )


def headline(metrics: Metrics, intervals: bool = True) -> str:
    """What pruning did in one phrase: ``2.6x faster [2.5, 2.7], 37 % of the MACs, ...``.

    Time comes first, where it was measured: multiplications are no use by themselves. Errors are
    those of one deterministic pass: of forces first, where the run has them.

    Args:
        metrics: The content of ``metrics.json``.
        intervals: Whether the 95 % intervals are named; a number without one says so.
    """
    check_metrics(metrics)
    dense, pruned = metrics["models"]["dense"], metrics["models"]["pruned"]

    def pair(key: str) -> tuple[float, float]:
        return number(pruned.get(key)), number(dense.get(key))

    def error(key: str) -> str:
        change = percent_change(*pair(key))
        known = intervals and change != MISSING
        return f"{change} {percent_ends(*interval(metrics, key))}" if known else change

    parts = []
    speed = times(*pair("latency_ms"), less="faster", more="slower")
    if speed != MISSING:
        ends = interval(metrics, "latency_ms")
        untold = math.isfinite(sum(ends)) and not certain(ends)
        text = "same latency" if untold or speed == "same" else speed
        parts.append(f"{text} {factor_ends(*ends)}" if intervals else text)
    new_macs, old_macs = pair("macs_per_graph")
    if old_macs > 0:
        parts.append(f"{100 * new_macs / old_macs:.0f} % of the MACs")
    parts += [f"{name.removesuffix('MAE')}error {error(key)}" for key, name in _maes(metrics)]
    said = ", ".join(parts)
    return f"hardly trained: {said}" if hardly_trained(metrics) else said


HARDLY = 0.8
"""Share of the error without any network above which the dense network has learned too little."""


def hardly_trained(metrics: Metrics) -> bool:
    """Whether the dense network is little better than none, so that nothing can be compared yet.

    Runs that measured forces are not judged: they may have been trained on these alone.
    """
    dense = number(metrics["models"]["dense"].get("test_mae"))
    return not has_forces(metrics) and dense > HARDLY * number(
        metrics["dataset"].get("mean_predictor_mae")
    )


def _maes(metrics: Metrics) -> list[tuple[str, str]]:
    """Key and name of the errors that matter most, the first one first."""
    if has_forces(metrics):
        return [("test_force_mae", "test force MAE"), ("test_mae", "test energy MAE")]
    return [("test_mae", "test MAE")]


def notes(metrics: Metrics) -> list[str]:
    """Sentences on what the comparison leaves open: time, same shape from scratch, no network."""
    check_metrics(metrics)
    models, dataset = metrics["models"], metrics["dataset"]
    sentences = []
    if hardly_trained(metrics):
        sentences.append(
            "The dense network has hardly learned anything yet: its test MAE is "
            f"{significant(number(models['dense']['test_mae']))} {dataset['unit']}, without any "
            f"network it is {significant(number(dataset['mean_predictor_mae']))}. What pruning "
            "costs cannot be seen from this run: train longer (training.max_epochs), on more data, "
            "or with another seed."
        )
    sentences += [said for said in (break_even(metrics), unequal_steps(metrics)) if said]
    for key, name in _maes(metrics):
        pruned = number(models["pruned"].get(key))
        scratch = number((models.get("scratch") or {}).get(key))
        if not math.isfinite(scratch):
            continue
        ends = interval(metrics, key + SCRATCH)
        if certain(ends):
            verdict = f"is {lower_or_higher(pruned, scratch)} that"
        else:
            verdict = f"cannot be told from that ({percent_change(pruned, scratch)})"
        sentences.append(
            f"The pruned model's {name} {verdict} of the same shape trained from scratch"
            f"{f' {percent_ends(*ends)}' if math.isfinite(sum(ends)) else ''}."
        )
    baseline = number(dataset.get("mean_predictor_mae"))
    if math.isfinite(baseline):
        sentences.append(
            f"{words(metrics).simplest} has a test MAE of {significant(baseline)} "
            f"{dataset['unit']}."
        )
    return sentences


def break_even(metrics: Metrics) -> str:
    """What there is to say where the pruned model is not certainly faster; else nothing."""
    dense, pruned = metrics["models"]["dense"], metrics["models"]["pruned"]
    low, high = interval(metrics, "latency_ms")

    def left(key: str) -> float:
        before = number(dense.get(key))
        return number(pruned.get(key)) / before if before > 0 else math.nan

    share, macs = left("latency_ms"), left("macs_per_graph")
    if not math.isfinite(share) or (share < 1 and not math.isfinite(high)):
        return ""  # no times, or nothing is known of their spread
    pruning = metrics.get("pruning") or {}
    total, gone = (number(pruning.get(f"channels_{key}")) for key in ("total", "removed"))
    batch = number(dense.get("latency_batch"))
    return BreakEven(share, 1 + low, 1 + high).sentence(
        channels=gone / total if total > 0 else None,
        macs=1 - macs,
        what=f"a batch of {batch:.0f}" if math.isfinite(batch) else "a pass",
    )


GLOSSARY = "at the end of report.html"
"""Where the words of the table are explained."""


def comparison_table(metrics: Metrics) -> str:
    """The comparison as a terminal table with one line per quantity.

    Args:
        metrics: The content of ``metrics.json``.

    Returns:
        Several lines of plain text without a trailing newline.
    """
    rows = comparison_rows(metrics)
    names = models_present(metrics)
    body = [
        [row.label, row.unit, *(row.texts[name] for name in names), row.change, row.interval]
        for row in rows
    ]
    table = text_table(["", "unit", *names, "pruned vs dense", "95 % interval"], body, left=2)
    arrows = "a → b: before and after calibration" if " → " in table else ""
    reading = [part for part in (arrows, "[a, b]: 95 % interval") if part]
    key = f"{'; '.join(reading)}. What the words mean: {GLOSSARY}."
    return "\n".join([table, "", key, *notes(metrics)])


LEDGER_COUNTS = ("total", "pruned", "frozen", "trainable", "macs_dense", "macs_pruned")
LEDGER_HEADER = (
    *("layer", "parameters", "pruned", "frozen", "trainable"),
    *("MACs dense", "MACs pruned", "MACs kept"),
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
    """Where parameters and MACs went, layer by layer, as a terminal table."""
    return text_table(list(LEDGER_HEADER), ledger_rows(metrics))
