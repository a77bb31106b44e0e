"""Figures of error bars: shares held, sizes, ranks, single atoms, and the least certain ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from egnn_prune.report.common.files import Metrics
from egnn_prune.report.common.formatting import significant
from egnn_prune.report.common.plots import diagonal, square
from egnn_prune.report.common.style import (
    BLACK,
    GREY,
    VERMILION,
    house_style,
    light_grid,
    new_figure,
)
from egnn_prune.report.run.calibration import reliability, sparsification
from egnn_prune.report.run.calibration_panels import REFERENCE, Bars, draw_curves, style_legend
from egnn_prune.report.run.error_bars import ErrorBars
from egnn_prune.report.run.force_bars import coverages, final_coverages, thinned
from egnn_prune.report.run.force_panels import atom_errors, held_against_promised
from egnn_prune.report.run.hanging import ATOM_COLOURS, STRANGE, AtomColours, hang
from egnn_prune.report.run.molecule import draw_molecule, facing, formula
from egnn_prune.report.specialise.error_bars import (
    KINDS,
    energy_bars,
    force_bars,
    halves,
    with_error_bars,
)
from egnn_prune.report.specialise.files import LABELS, Structures

Array = NDArray[np.float64]

SHOWN = ("finetuned", "specialised", "scratch")
"""The models that figures compare; the untouched teacher is not of the user's zero of energy."""
MODEL = "specialised"
"""Whose uncertainty orders the drawings."""
_DRAWN, _MOST_ATOMS = 8, 120
"""Structures drawn, and how many atoms can be told apart in one."""


def _names(metrics: Metrics) -> list[str]:
    return [name for name in with_error_bars(metrics) if name in SHOWN]


@house_style()
def held_shares(metrics: Metrics, test: Structures) -> Figure | None:
    """Share that intervals hold against the share that they promise, of energies and forces."""
    models = {name: metrics["models"][name] for name in _names(metrics)}
    kinds = {
        prefix: what
        for prefix, what in KINDS.items()
        if any(final_coverages(model, prefix) for model in models.values())
    }
    if not kinds:
        return None
    figure = new_figure(3.9)
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axes, (prefix, what) in zip(panels, kinds.items(), strict=True):
        half = {name: halves(test, name, prefix) for name in models}
        held_against_promised(axes, models, prefix, half)
        axes.set_title(what.capitalize())
        axes.set_xlabel("promised share (%)")
    panels[0].set_ylabel("observed share (%)")
    both = any(coverages(m, prefix, "_calibrated") for m in models.values() for prefix in kinds)
    _legend(figure, list(models), both, "as promised")
    figure.suptitle("Do intervals hold the truth as often as they say?")
    return figure


def _bars(metrics: Metrics, test: Structures) -> dict[str, dict[str, ErrorBars]]:
    """By ``energies`` and ``forces``, then by model; of forces one an atom."""
    found: dict[str, dict[str, ErrorBars]] = {what: {} for what in KINDS.values()}
    for name in _names(metrics):
        energy, force = energy_bars(test, name), force_bars(test, name)
        if energy is not None:
            found["energies"][name] = energy
        if force is not None:
            found["forces"][name] = force.atoms
    return {what: models for what, models in found.items() if models}


_UNITS = {"energies": "meV", "forces": "meV/Å"}


@house_style()
def bar_sizes(metrics: Metrics, test: Structures) -> Figure | None:
    """Observed against predicted deviation in bins of equal count; None without error bars."""
    bars = _bars(metrics, test)
    if not bars:
        return None
    figure, panels = _row(bars, "Are the error bars as long as the errors?")
    for axes, (what, models) in zip(panels, bars.items(), strict=True):
        points = draw_curves([axes], {what: models}, reliability, markers=True)
        values = np.concatenate([each for curve in points for each in curve])
        if (values > 0).any():
            square([axes], values[values > 0])
        diagonal(axes, "-")
        axes.set_xlabel(f"error bar, root mean square of a bin ({_UNITS[what]})")
        axes.set_ylabel(f"RMS error of the bin ({_UNITS[what]})")
    _legend(figure, _models(bars), _calibrated(bars), "as long as the error")
    return figure


@house_style()
def bar_ranks(metrics: Metrics, test: Structures) -> Figure | None:
    """RMSE left once the most uncertain ones are out; None without error bars."""
    bars = _bars(metrics, test)
    if not bars:
        return None
    figure, panels = _row(bars, "Are the uncertain ones the wrong ones?")
    for axes, (what, models) in zip(panels, bars.items(), strict=True):
        oracle = MODEL if MODEL in models else next(iter(models))
        curves = draw_curves(
            *([axes], {what: models}, lambda e, std: thinned(sparsification(e, std))),
            oracles=[oracle],
        )
        axes.axhline(1, **REFERENCE)
        top = max(1.2, *(1.05 * left[out <= 0.9].max(initial=1.0) for out, left in curves))
        axes.set(xlim=(0, 0.9), ylim=(0, top), xticks=(0, 0.3, 0.6, 0.9), yticks=(0, 0.5, 1))
        one = {"energies": "structures", "forces": "atoms"}[what]
        axes.set_xlabel(f"most uncertain {one} taken out (share)")
        axes.set_ylabel("RMSE left (relative)")
    _legend(figure, _models(bars), _calibrated(bars), "no information", oracle=True)
    return figure


def _row(bars: Bars, title: str) -> tuple[Figure, list[Axes]]:
    """A panel each for energies and forces, side by side."""
    figure = new_figure(3.9)
    panels = figure.subplots(1, len(bars), squeeze=False)[0].tolist()
    for axes, what in zip(panels, bars, strict=True):
        axes.set_title(what.capitalize())
        light_grid(axes)
    figure.suptitle(title)
    return figure, panels


def _models(bars: Bars) -> list[str]:
    return [name for name in SHOWN if any(name in models for models in bars.values())]


def _calibrated(bars: Bars) -> bool:
    return any(e.calibrated is not None for models in bars.values() for e in models.values())


def _legend(
    figure: Figure, names: list[str], calibrated: bool, reference: str, oracle: bool = False
) -> None:
    labels = {name: LABELS[name] for name in names}
    style_legend(figure, labels, calibrated, oracle, reference)


def single_atoms(metrics: Metrics, test: Structures) -> Figure | None:
    """Errors of the forces on single atoms against their error bars, a panel a model."""
    found = {name: force_bars(test, name) for name in _names(metrics)}
    bars = {name: each for name, each in found.items() if each is not None}
    return atom_errors(bars, LABELS, "meV/Å") if bars else None


@dataclass(frozen=True)
class Uncertain:
    """A structure to draw, with its atoms' error bars.

    Attributes:
        z: ``[n]`` atomic numbers.
        pos: ``[n, 3]`` in Angstrom, facing the viewer.
        std: ``[n]`` error bars of forces, meV/Angstrom.
        error: ``[n]`` their errors, root mean square of the components.
        strange: ``[n]`` whether an atom is unlike those of the training.
    """

    z: NDArray[np.int64]
    pos: Array
    std: Array
    error: Array
    strange: NDArray[np.bool_]


def most_uncertain(test: Structures) -> list[Uncertain]:
    """Structures with the longest error bar on an atom, the longest first; empty without any."""
    bars = force_bars(test, MODEL) if MODEL in test.all_forces else None
    if bars is None or test.pos is None:
        return []
    std = np.where(np.isnan(bars.atoms.final), 0.0, bars.atoms.final)
    strange = np.zeros(len(std), bool) if bars.distance is None else bars.distance > STRANGE
    ends = np.cumsum(test.atoms)
    longest = np.maximum.reduceat(std, ends - test.atoms)
    order = [b for b in np.argsort(-longest, kind="stable") if test.atoms[b] <= _MOST_ATOMS]
    found = []
    for b in order[:_DRAWN]:
        own = slice(ends[b] - test.atoms[b], ends[b])
        pos = facing(test.pos[own])
        found.append(Uncertain(test.z[own], pos, std[own], bars.size[own], strange[own]))
    return found


@house_style()
def uncertain_structures(test: Structures) -> Figure | None:
    """Drawings of the test structures with the longest error bars of forces; None without any."""
    shown = most_uncertain(test)
    if not shown:
        return None
    colours = AtomColours.of([each.std for each in shown], "meV/Å")
    return hang(
        {f"The {len(shown)} test structures with the longest error bars of forces": shown},
        partial(_panel, colours=colours),
        "Below the formula: the longest error bar of a force on an atom, and the error on this "
        "atom (RMS of the components).",
        colours=colours,
    )


def _panel(axes: Axes, each: Uncertain, inches: float, colours: AtomColours) -> None:
    left, right = axes.get_xlim()
    axes.set_axis_off()
    points = 72 * inches / (right - left)
    draw_molecule(axes, each.z, each.pos, points, colours(each.std), each.strange)
    worst = int(np.argmax(each.std))
    count = int(each.strange.sum())
    strange = f"{count} strange atom{'s' if count != 1 else ''}" if count else "no strange atom"
    error, std = (significant(v[worst], 2) for v in (each.error, each.std))
    lines = (
        (strange, "normal", VERMILION if count else GREY),
        (f"± {std}, error {error} meV/Å", "normal", BLACK),
        (formula(each.z), "bold", BLACK),
    )
    for i, (text, weight, colour) in enumerate(lines):
        axes.annotate(
            *(text, (0.5, 1.0)),
            xycoords="axes fraction",
            xytext=(0, 2 + 11.5 * i),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            fontweight=weight,
            color=colour,
            annotation_clip=False,
        )


def figures(metrics: Metrics, test: Structures) -> Mapping[str, Figure | None]:
    """All of them by name, in the order of the page."""
    if not with_error_bars(metrics):
        return {}
    return {
        "error_bar_coverage": held_shares(metrics, test),
        "error_bar_size": bar_sizes(metrics, test),
        "error_bar_ranks": bar_ranks(metrics, test),
        "single_atoms": single_atoms(metrics, test),
        "uncertain_structures": uncertain_structures(test),
    }


CAPTIONS = {
    "error_bar_coverage": (
        "On the diagonal, intervals hold as much as they promise; below it, error bars are too "
        "short. Bars: 95 % interval over the test structures. Intervals of calibrated forces are "
        "as wide as the errors of validation atoms were, whose tails are longer than a Gaussian's."
    ),
    "error_bar_size": (
        "Structures, and atoms, in bins of equal count by the length of their error bars. Above "
        "the diagonal, errors are larger than the error bars say."
    ),
    "error_bar_ranks": (
        "The RMSE of what is left once the most uncertain are taken out. Curves should fall "
        "towards the dotted oracle, which knows the errors; a flat one knows nothing of them."
    ),
    "single_atoms": (
        "Darker is more atoms. The longer the error bar, the larger errors should be: both lines "
        "have to rise along the dashed one. An error bar says how far an atom may be off, not that "
        "it is."
    ),
    "uncertain_structures": ATOM_COLOURS,
}
"""What to look for in each figure."""

ALTS = {
    "error_bar_coverage": "Share that intervals of energies and forces hold against the promise",
    "error_bar_size": "Observed error against error bar in bins, of energies and forces",
    "error_bar_ranks": "Error left when the most uncertain structures and atoms are taken out",
    "single_atoms": "Density of force errors of single atoms against their error bars",
    "uncertain_structures": "Drawings of the least certain test structures, atoms coloured",
}
