"""The molecules that the pruned model is least sure about, as drawings with their error bars."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from egnn_prune.errors import DataError
from egnn_prune.report.common.files import Metrics, Predictions, has_split
from egnn_prune.report.common.style import (
    BLUE,
    SPLIT_LABELS,
    VERMILION,
    house_style,
)
from egnn_prune.report.run.error_bars import ErrorBars, error_bars, splits_present
from egnn_prune.report.run.hanging import STRANGE, AtomColours, hang
from egnn_prune.report.run.molecule import draw_molecule, facing, formula

Array = NDArray[np.float64]

MODEL = "pruned"
"""Whose uncertainty orders the gallery."""

SIGMAS = 2.0
"""A truth within this many error bars is as expected; for a Gaussian 95 % are."""

_GAUGE = 1.1
"""Height of the strip for the gauge, in Angstrom of the drawing above."""

_LABEL = 22
"""Longest SMILES, in characters, that fits above a drawing."""


@dataclass(frozen=True)
class Exhibit:
    """One molecule of the gallery.

    Attributes:
        label: SMILES or, where the run has none, the formula.
        z: ``[n]`` atomic numbers.
        pos: ``[n, 3]`` in Angstrom, turned to face the viewer.
        given: ``[n, 3]`` the same as in the data.
        row: Its number in the split, from 0.
        target: True value, in the unit of the data set.
        mean: Predicted value.
        std: Its error bar, calibrated where the run has that.
        forces_std: ``[n]`` calibrated error bars of the forces on its atoms; None: there are none.
        distance: ``[n]`` of its atoms from training atoms, in units of the limit; None: unknown.
        frame: Its number in the data set, from 0; None where the run does not say.
        cell: ``[3, 3]`` lattice vectors in Angstrom, zero where it does not repeat; or None.
    """

    label: str
    z: NDArray[np.int64]
    pos: Array
    given: Array
    row: int
    target: float
    mean: float
    std: float
    forces_std: Array | None = None
    distance: Array | None = None
    frame: int | None = None
    cell: Array | None = None

    @property
    def off(self) -> float:
        """Error over the predicted standard deviation."""
        return abs(self.mean - self.target) / self.std if self.std > 0 else math.inf


def exhibits(predictions: Predictions, split: str) -> list[Exhibit]:
    """The gallery of one split, most uncertain first; empty if the run has none.

    Raises:
        DataError: If the arrays do not fit together; the message names the array.
    """
    prefix = f"gallery_{split}"
    if f"{prefix}_row" not in predictions or not has_split(predictions, split):
        return []
    for key in ("atoms", "z", "pos"):
        if f"{prefix}_{key}" not in predictions:
            raise DataError(f"predictions: array '{prefix}_{key}' is missing")
    rows, atoms, z = (
        np.asarray(predictions[f"{prefix}_{key}"]).astype(np.int64) for key in ("row", "atoms", "z")
    )
    pos = np.asarray(predictions[f"{prefix}_pos"], dtype=np.float64)
    target = np.asarray(predictions[f"{split}_target"])
    if rows.ndim != 1 or atoms.shape != rows.shape or not (atoms > 0).all():
        raise DataError(f"predictions: '{prefix}_atoms' needs a positive number per row")
    if z.shape != (atoms.sum(),) or pos.shape != (atoms.sum(), 3):
        raise DataError(
            f"predictions: '{prefix}_atoms' counts {atoms.sum()} atoms, but '{prefix}_z' has shape "
            f"{z.shape} and '{prefix}_pos' {pos.shape}"
        )
    if ((rows < 0) | (rows >= target.size)).any():
        raise DataError(
            f"predictions: '{prefix}_row' points outside of the {target.size} molecules of {split}"
        )
    smiles = np.asarray(predictions.get(f"{prefix}_smiles", ()))
    labels = smiles.tolist() if smiles.shape == rows.shape else [""] * rows.size
    per_atom = {
        key: np.asarray(predictions[f"{prefix}_{key}"], dtype=np.float64)
        for key in ("forces_std", "distance")
        if f"{prefix}_{key}" in predictions
    }
    for key, values in per_atom.items():
        if values.shape != z.shape:
            raise DataError(
                f"predictions: '{prefix}_{key}' has shape {values.shape}, '{prefix}_z' {z.shape}"
            )
    per_graph = {
        key: np.asarray(predictions[f"{prefix}_{key}"])
        for key in ("frame", "cell")
        if f"{prefix}_{key}" in predictions
    }
    for key, values in per_graph.items():
        if values.shape != rows.shape + (() if key == "frame" else (3, 3)):
            raise DataError(
                f"predictions: '{prefix}_{key}' has shape {values.shape} for {rows.size} molecules"
            )
    bars = error_bars(predictions, split, MODEL)
    ends = np.cumsum(atoms)
    found = []
    for i, (row, start, end, label) in enumerate(
        zip(rows, ends - atoms, ends, labels, strict=True)
    ):
        numbers = z[start:end]
        found.append(
            Exhibit(
                label=str(label) or formula(numbers),
                z=numbers,
                pos=facing(pos[start:end]),
                given=pos[start:end],
                row=int(row),
                target=float(target[row]),
                mean=float(target[row] + bars.error[row]),
                std=float(bars.final[row]),
                **{key: values[start:end] for key, values in per_atom.items()},
                frame=int(per_graph["frame"][i]) if "frame" in per_graph else None,
                cell=per_graph["cell"][i] if "cell" in per_graph else None,
            )
        )
    return sorted(found, key=lambda each: -each.std)


def summary(shown: list[Exhibit], bars: ErrorBars, split: str, unit: str) -> str:
    """One sentence: are the most uncertain molecules the wrong ones, and do their bars hold?"""
    inside = sum(each.off <= SIGMAS for each in shown)
    own = math.sqrt(np.mean([(each.mean - each.target) ** 2 for each in shown]))
    everyone = math.sqrt(np.nanmean(bars.error**2))
    times = f", {own / everyone:.1f} times that of the whole split" if everyone > 0 else ""
    return (
        f"{SPLIT_LABELS[split]}: for {inside} of the {len(shown)} most uncertain molecules the "
        f"truth lies within {SIGMAS:g} error bars (expected: {0.954 * len(shown):.0f}); "
        f"their RMS error is {own:.3g} {unit}{times}."
    )


def gallery_notes(metrics: Metrics, predictions: Predictions) -> list[str]:
    """A sentence on every gallery; empty if the run has none."""
    unit = metrics["dataset"]["unit"]
    return [
        summary(shown, error_bars(predictions, split, MODEL), split, unit)
        for split in splits_present(predictions)
        if (shown := exhibits(predictions, split))
    ]


def _decimals(std: float) -> int:
    """Decimals that show two significant digits of the error bar."""
    return min(6, max(0, 1 - math.floor(math.log10(std)))) if std > 0 else 3


def _shortened(text: str) -> str:
    return text if len(text) <= _LABEL else text[: _LABEL - 1] + "…"


def _gauge(axes: Axes, each: Exhibit, reach: float, bottom: float, half: float) -> None:
    """Error bar and truth on a line under the drawing; `reach` in units of the data is `half`."""
    scale = half / reach
    axes.plot([-half, half], [bottom, bottom], color="#D0D0D0", linewidth=0.8, zorder=1)
    for sigmas, width in ((SIGMAS, 2.0), (1.0, 5.0)):
        end = min(sigmas * each.std * scale, half)
        axes.plot(
            [-end, end], [bottom, bottom], color="#9A9A9A", linewidth=width, solid_capstyle="butt"
        )
    place = (each.target - each.mean) * scale
    marker = "o" if each.off <= SIGMAS else "X"
    if abs(place) > half:
        marker = ">" if place > 0 else "<"
    axes.plot(
        np.clip(place, -half, half),
        bottom,
        marker=marker,
        color=_colour(each),
        markeredgecolor="white",
        markeredgewidth=0.6,
        markersize=7,
        clip_on=False,
        zorder=4,
    )


def _panel(
    axes: Axes,
    each: Exhibit,
    unit: str,
    reach: float,
    inches: float,
    colours: AtomColours | None,
) -> None:
    """One molecule with three lines of text above and the gauge below."""
    (left, right), bottom = axes.get_xlim(), axes.get_ylim()[0]
    axes.set_axis_off()
    draw_molecule(
        *(axes, each.z, each.pos, 72 * inches / (right - left)),
        colours(each.forces_std) if colours and each.forces_std is not None else None,
        None if each.distance is None else each.distance > STRANGE,
    )
    _gauge(axes, each, reach, bottom + _GAUGE / 2, 0.86 * right)
    digits = _decimals(each.std)
    number = f".{digits}f"
    lines = (
        (f"true {each.target:{number}}, {_sigmas(each.off)}", "normal", _colour(each)),
        (f"{each.mean:{number}} ± {each.std:{number}} {unit}", "normal", "black"),
        (_shortened(each.label), "bold", "black"),
    )
    for i, (text, weight, colour) in enumerate(lines):
        axes.annotate(
            text,
            (0.5, 1.0),
            xycoords="axes fraction",
            xytext=(0, 2 + 11.5 * i),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            fontweight=weight,
            color=colour,
            parse_math=False,
            annotation_clip=False,
        )


def _colour(each: Exhibit) -> str:
    """Of the true value: another one where it is not as expected."""
    return BLUE if each.off <= SIGMAS else VERMILION


def _sigmas(off: float) -> str:
    if not math.isfinite(off):
        return "no error bar"
    return f"{off:.1f}σ off " + ("✓" if off <= SIGMAS else "✗")


@house_style()
def gallery_figure(metrics: Metrics, predictions: Predictions) -> Figure | None:
    """Drawings of the molecules that the pruned model is least sure about, test above OOD.

    All drawings have one scale, and all gauges one scale. A molecule faces the viewer with its
    principal axes; what lies farther back is smaller and paler.

    Args:
        metrics: The checked content of ``metrics.json``.
        predictions: The arrays of ``predictions.npz`` in ``dataset.unit``.

    Returns:
        The figure; None if the run has no gallery.

    Raises:
        DataError: If the arrays of the gallery do not fit together.
    """
    unit = metrics["dataset"]["unit"]
    halls = {split: exhibits(predictions, split) for split in splits_present(predictions)}
    halls = {split: shown for split, shown in halls.items() if shown}
    everyone = [each for shown in halls.values() for each in shown]
    if not everyone:
        return None
    reach = 1.05 * SIGMAS * max(each.std for each in everyone) or 1.0
    known = [each.forces_std for each in everyone if each.forces_std is not None]
    colours = AtomColours.of(known, f"{unit}/Å") if known else None
    return hang(
        {
            f"{SPLIT_LABELS[split]}: the {len(shown)} molecules with the longest error bars": shown
            for split, shown in halls.items()
        },
        lambda axes, each, inches: _panel(axes, each, unit, reach, inches, colours),
        f"Line under a molecule: prediction ± 1 and ± {SIGMAS:g} error bars, same scale "
        f"everywhere; mark: the true value, ✓ within {SIGMAS:g} error bars.",
        below=_GAUGE,
        colours=colours,
    )
