"""Error bars of forces on the page of a run: what they promise, what they hold, what they rank."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from egnn_prune.report.common.files import CALIBRATED, Metrics, Predictions, number
from egnn_prune.report.common.formatting import MISSING, significant
from egnn_prune.report.common.rows import Row, arrow
from egnn_prune.report.common.style import SPLIT_LABELS
from egnn_prune.report.run.calibration import left_after, overconfidence, sparsification
from egnn_prune.report.run.error_bars import COMPARED
from egnn_prune.report.run.force_bars import (
    SOURCES,
    ForceBars,
    coverages,
    final_coverages,
    force_bars_of,
    force_halves,
    has_force_bars,
    promise,
)
from egnn_prune.report.run.tables import force_calibration_rows

_TAKEN_OUT = 0.2
"""Share of atoms that the sparsification sentence takes out."""

ATOM_ERRORS = (
    "Darker is more atoms, all of the test split; the error is the root mean square of the three "
    "components. The longer the error bar, the larger errors should be: both lines have to rise "
    "along the dashed one. No error bar says which of its atoms will be wrong, only how far."
)


@dataclass(frozen=True)
class ForceSection:
    """Content of the section.

    Attributes:
        verdict: Whether intervals keep their promise, in numbers.
        panels: Name and text of each column of the figure.
        rows: The table of numbers.
    """

    verdict: tuple[str, ...]
    panels: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]


def force_section(metrics: Metrics, predictions: Predictions) -> ForceSection | None:
    """Everything but the figures; None where the run has no error bars of forces.

    Args:
        metrics: The checked content of ``metrics.json``.
        predictions: The arrays of ``predictions.npz`` in ``dataset.unit``.

    Raises:
        DataError: If arrays do not fit together.
    """
    if not has_force_bars(metrics, predictions):
        return None
    found = force_bars_of(predictions)
    return ForceSection(
        verdict=(*_promises(metrics, found["test"]), *_source(metrics)),
        panels=(
            ("Size", _sizes(found)),
            ("Coverage", _coverage(metrics)),
            ("Sparsification", _ranking(metrics, found)),
        ),
        rows=tuple(force_calibration_rows(metrics)),
    )


def _promises(metrics: Metrics, test: Mapping[str, ForceBars]) -> list[str]:
    """A sentence for each model."""
    sentences = []
    for name, bars in test.items():
        model = metrics["models"][name]
        observed = final_coverages(model, "force_")
        if observed:
            before = coverages(model, "force_") if coverages(model, "force_", CALIBRATED) else {}
            structures = int(bars.structure.max()) + 1
            said = promise("force components", observed, before, force_halves(bars), structures)
            sentences.append(f"{name.capitalize()}: {said[0].lower()}{said[1:]}")
    return sentences


def _source(metrics: Metrics) -> list[str]:
    about = metrics.get("force_uncertainty")
    return [source_sentence(about)] if isinstance(about, Mapping) else []


def source_sentence(about: Mapping[str, object]) -> str:
    """Where error bars of forces come from and what they were fitted on."""
    each = about.get("sources")
    each = each if isinstance(each, Mapping) else {}
    split, atoms = about.get("fitted_on"), number(about.get("atoms"))
    where = f" on {atoms:,.0f} atoms" if math.isfinite(atoms) else ""
    where += f" of the split “{split}”" if split else ""
    named = {source: [n for n in each if each[n] == source] for source in each.values()}
    if len(named) > 1:
        source = " and ".join(f"{_words(s)} ({', '.join(n)})" for s, n in named.items())
    else:
        source = _words(about.get("source"))
    return (
        f"An atom has one error bar for all components of its force, from {source}, with a law "
        f"for each element{f' that was fitted{where}' if where else ''}."
    )


def _words(source: object) -> str:
    return SOURCES.get(str(source), f"“{source}”")


def _sizes(found: Mapping[str, Mapping[str, ForceBars]]) -> str:
    sentences = []
    for split, models in found.items():
        parts = []
        for name, bars in models.items():
            before, after = (overconfidence(bars.size, std) for std in (bars.std, bars.atoms.final))
            parts.append(f"{name} {arrow(*map(_times, (before, after)))}")
        sentences.append(f"On {SPLIT_LABELS[split]}: {', '.join(parts)}.")
    return (
        "Atoms in bins of equal count by the length of their error bars. Look for points on the "
        "diagonal; above it, errors are larger than the error bars say. Over a whole split, errors "
        f"of forces are this many times the predicted std. {' '.join(sentences)}"
    )


def _times(value: float) -> str:
    return f"{significant(value, 2)}x" if math.isfinite(value) else MISSING


def _coverage(metrics: Metrics) -> str:
    sentences = []
    for split, prefix in (("test", ""), ("ood", "ood_")):
        parts = [
            f"{name} {arrow(*(_percent(number(model.get(key))) for key in keys))}"
            for name in COMPARED
            for model in (metrics["models"][name],)
            for keys in (_before_and_after(f"{prefix}force_coverage_90"),)
            if math.isfinite(number(model.get(keys[0])))
        ]
        if parts:
            sentences.append(f"On {SPLIT_LABELS[split]}: {', '.join(parts)}.")
    return (
        "Share of the force components that intervals hold against the share that they promise, "
        "with the 95 % interval over structures. Below the diagonal, error bars are too short. "
        "Intervals before calibration are those of a Gaussian; calibrated ones are as wide as the "
        "errors of validation atoms were, whose tails are longer. Intervals that promise 90 % hold "
        f"this share. {' '.join(sentences)}"
    )


def _before_and_after(key: str) -> tuple[str, str]:
    return key, key + CALIBRATED


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if math.isfinite(share) else MISSING


def _ranking(metrics: Metrics, found: Mapping[str, Mapping[str, ForceBars]]) -> str:
    sentences = []
    for split, models in found.items():
        parts = []
        for name, bars in models.items():
            drop, best = (
                100 * (left_after(_TAKEN_OUT, sparsification(bars.size, score)) - 1)
                for score in (bars.atoms.final, bars.size)
            )
            if math.isfinite(drop):
                parts.append(f"{name} {drop:+.0f} % (oracle {best:+.0f} %)")
        if parts:
            sentences.append(f"On {SPLIT_LABELS[split]}: {', '.join(parts)}.")
    for key, text in (
        ("force_auroc_wrong", "An atom whose error is among the largest tenth has the longer error "
         "bar than another with probability"),
        ("force_ood_auroc", "An atom of an OOD structure has the longer error bar than a test atom "
         "with probability"),
    ):  # fmt: skip
        known = {name: _final(metrics, name, key) for name in COMPARED}
        if all(map(math.isfinite, known.values())):
            shown = ", ".join(f"{name} {value:.2f}" for name, value in known.items())
            sentences.append(f"{text} {shown} (0.5 is chance).")
    return (
        "Look for curves that fall towards the dotted oracle, which knows the errors. Without the "
        f"most uncertain {100 * _TAKEN_OUT:.0f} % of the atoms the force RMSE changes by this "
        f"much. {' '.join(sentences)}"
    )


def _final(metrics: Metrics, name: str, key: str) -> float:
    """Calibrated where it is."""
    model = metrics["models"][name]
    calibrated = number(model.get(key + CALIBRATED))
    return calibrated if math.isfinite(calibrated) else number(model.get(key))
