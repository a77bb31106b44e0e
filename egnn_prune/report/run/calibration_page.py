"""The calibration section of the page: what to look for in each panel and what the run says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from egnn_prune.report.common.files import CALIBRATED, Metrics, Predictions, number
from egnn_prune.report.common.formatting import MISSING, percent_change, percent_ends, significant
from egnn_prune.report.common.intervals import (
    FACTOR,
    HARM,
    MENDED,
    certain,
    interval,
    with_intervals,
)
from egnn_prune.report.common.rows import Row, arrow
from egnn_prune.report.common.style import SPLIT_LABELS
from egnn_prune.report.common.wording import words
from egnn_prune.report.run.calibration import (
    coverage,
    left_after,
    overconfidence,
    sparsification,
)
from egnn_prune.report.run.error_bars import (
    COMPARED,
    ErrorBars,
    error_bars,
    splits_present,
    why_no_calibration,
)
from egnn_prune.report.run.tables import calibration_rows

_TAKEN_OUT = 0.2
"""Share of predictions that the sparsification sentence takes out."""

_LEVEL = 0.9
"""Nominal coverage that the coverage sentence speaks of."""


@dataclass(frozen=True)
class CalibrationSection:
    """Content of the section.

    Attributes:
        missing: Why there is none, in one sentence; the rest is then empty.
        verdict: What pruning and calibration did, in numbers.
        panels: Name and text of each column of the figure.
        rows: The table of numbers.
    """

    missing: str | None
    verdict: tuple[str, ...] = ()
    panels: tuple[tuple[str, str], ...] = ()
    rows: tuple[Row, ...] = ()


def calibration_section(metrics: Metrics, predictions: Predictions) -> CalibrationSection:
    """Everything but the figure.

    Args:
        metrics: The checked content of ``metrics.json``.
        predictions: The arrays of ``predictions.npz`` in ``dataset.unit``.

    Raises:
        ValueError: If an array is missing or has the wrong length.
    """
    missing = why_no_calibration(metrics, predictions)
    metrics = with_intervals(metrics, predictions)
    if missing is not None:
        return CalibrationSection(missing)
    bars = {
        split: {name: error_bars(predictions, split, name) for name in COMPARED}
        for split in splits_present(predictions)
    }
    return CalibrationSection(
        missing=None,
        verdict=(*_question(metrics), *_source(metrics, bars["test"])),
        panels=(
            ("Reliability", _reliability(bars)),
            ("Coverage", _coverage(bars)),
            ("Sparsification", _sparsification(metrics, bars)),
        ),
        rows=tuple(calibration_rows(metrics)),
    )


def _per_model(
    bars: Mapping[str, Mapping[str, ErrorBars]],
    value: Callable[[ErrorBars, np.ndarray], float],
    text: Callable[[float], str],
) -> str:
    """``On test: dense 1.3 → 1.0, pruned 1.6 → 1.0. On OOD: …`` before and after calibration."""
    sentences = []
    for split, models in bars.items():
        parts = []
        for name, each in models.items():
            before = text(value(each, each.std))
            parts.append(f"{name} {arrow(before, text(value(each, each.final)))}")
        sentences.append(f"On {SPLIT_LABELS[split]}: {', '.join(parts)}.")
    return " ".join(sentences)


def _reliability(bars: Mapping[str, Mapping[str, ErrorBars]]) -> str:
    ratio = _per_model(
        bars,
        lambda each, std: overconfidence(each.error, std),
        lambda value: f"{significant(value, 2)}x" if math.isfinite(value) else MISSING,
    )
    return (
        "Look for points on the diagonal; above it the errors are larger than the error bars say. "
        f"Over a whole split, errors are this many times the predicted std. {ratio}"
    )


def _coverage(bars: Mapping[str, Mapping[str, ErrorBars]]) -> str:
    share = _per_model(
        bars,
        lambda each, std: float(coverage(each.error, std, np.array([_LEVEL]))[0]),
        lambda value: f"{100 * value:.0f} %" if math.isfinite(value) else MISSING,
    )
    return (
        "Look for curves on the diagonal; below it the intervals miss the truth too often. "
        f"Intervals meant to hold {100 * _LEVEL:.0f} % of the true values hold this share. {share}"
    )


def _sparsification(metrics: Metrics, bars: Mapping[str, Mapping[str, ErrorBars]]) -> str:
    sentences = []
    for split, models in bars.items():
        parts = []
        for name, each in models.items():
            drop, best = (
                100 * (left_after(_TAKEN_OUT, sparsification(each.error, score)) - 1)
                for score in (each.final, np.abs(each.error))
            )
            if math.isfinite(drop):
                parts.append(f"{name} {drop:+.0f} % (oracle {best:+.0f} %)")
        if parts:
            sentences.append(f"On {SPLIT_LABELS[split]}: {', '.join(parts)}.")
    auroc = [number(metrics["models"][name].get("ood_auroc")) for name in COMPARED]
    if all(map(math.isfinite, auroc)):
        graph = words(metrics).graph
        texts = ", ".join(f"{n} {v:.2f}" for n, v in zip(COMPARED, auroc, strict=True))
        sentences.append(
            f"The uncertainty ranks an OOD {graph} above a test {graph} with probability {texts} "
            "(0.5 is chance)."
        )
    return (
        "Look for curves that fall towards the dotted oracle, which knows the errors; a flat curve "
        "means that the uncertainty says nothing about them. Without the most uncertain "
        f"{100 * _TAKEN_OUT:.0f} % of the {words(metrics).value}s the RMSE changes by this much. "
        f"{' '.join(sentences)}"
    )


def _question(metrics: Metrics) -> list[str]:
    """Did pruning harm calibration more than accuracy, and did calibration mend it?"""
    dense, pruned = (metrics["models"][name] for name in COMPARED)

    def change(key: str, ends: str, of: str | None = None) -> str:
        text = percent_change(number(pruned.get(key)), number(dense.get(of or key)))
        return text if text == MISSING else f"{text} {percent_ends(*interval(metrics, ends))}"

    error, harm = change("test_mae", "test_mae"), change("ence", f"ence{FACTOR}")
    mended = change("ence" + CALIBRATED, f"ence{CALIBRATED}{FACTOR}")
    if MISSING in (error, harm):
        return []
    forces = change("test_force_mae", "test_force_mae")
    kind = "" if forces == MISSING else "energy "
    sentences = [
        f"Pruning changed the calibration error (test ENCE) by {harm} and the test {kind}MAE by "
        f"{error}: {_more_harmed(metrics)}."
    ]
    if kind:
        verdict = {1: "forces are less accurate", -1: "forces are more accurate"}.get(
            certain(interval(metrics, "test_force_mae")),
            "whether forces became more or less accurate cannot be told",
        )
        sentences.insert(0, f"Pruning changed the test force MAE by {forces}: {verdict}.")
    if mended != MISSING:
        left = change("ence" + CALIBRATED, MENDED, "ence")
        sentences.append(
            f"Calibrated, the pruned model's ENCE differs by {mended} from that of the "
            f"calibrated dense model, and by {left} from that of the dense model as trained."
        )
    graphs = f"{words(metrics).graph}s"
    return [
        *sentences,
        f"Brackets are 95 % intervals over the test {graphs} (paired bootstrap): other {graphs} "
        "could have changed the number so much. Training again could change it more: one run is "
        "one draw.",
    ]


def _more_harmed(metrics: Metrics) -> str:
    """Calibration or accuracy, where the intervals of this run say so."""
    accuracy, calibration, more = (
        certain(interval(metrics, key)) for key in ("test_mae", f"ence{FACTOR}", HARM)
    )
    if more > 0 and calibration > 0:
        return "in this run calibration suffered more than accuracy"
    if more < 0 and accuracy > 0:
        return "in this run accuracy suffered more than calibration"
    if accuracy < 0 and calibration < 0:
        return "in this run neither suffered"
    return "which of the two suffered more cannot be told from this run"


def _source(metrics: Metrics, test: Mapping[str, ErrorBars]) -> list[str]:
    """Where the error bars come from and what calibrated them."""
    about = metrics.get("uncertainty")
    about = about if isinstance(about, Mapping) else {}
    method = about.get("method")
    sentences = [f"The error bars come from the method “{method}”."] if method else []
    if all(each.calibrated is None for each in test.values()):
        return [*sentences, "The run has no calibrated error bars, so one line per model."]
    if about.get("calibration") == "none":
        return [*sentences, "The run was asked not to calibrate them."]
    points, split = number(about.get("points")), about.get("fitted_on")
    where = f" on {points:.0f} {words(metrics).graph}s" if math.isfinite(points) else ""
    where += f" of the split “{split}”" if split else ""
    kind = f" by “{about['calibration']}”" if about.get("calibration") else ""
    fitted = f", fitted{where}" if where else ""
    return [*sentences, f"They were calibrated{kind}{fitted}; an arrow means before → after."]
