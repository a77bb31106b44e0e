"""Figures of bars: force error by element, symmetry, and what the models cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from ase.data import chemical_symbols
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from egnn_prune.report.common.files import Metrics, number
from egnn_prune.report.common.formatting import si, significant
from egnn_prune.report.common.style import GREY, house_style, new_figure
from egnn_prune.report.run.molecule import known
from egnn_prune.report.specialise.drawing import named_bars
from egnn_prune.report.specialise.files import LATENCY, Structures, values
from egnn_prune.report.specialise.intervals import force_rmse, number_of, rmse_interval

_MOST_ELEMENTS = 8
_PER_ROW = 4
_ROUNDING = 2.0**-23
"""Relative rounding of single precision."""


def elements_shown(test: Structures) -> list[int]:
    """Atomic numbers with a panel: those with most atoms, by number."""
    found, counts = np.unique(test.z, return_counts=True)
    return sorted(int(z) for z in found[np.argsort(-counts, kind="stable")][:_MOST_ELEMENTS])


@house_style()
def force_error_by_element(test: Structures) -> Figure | None:
    """Force RMSE of the atoms of each element, with 95 % intervals; None without predictions."""
    if not test.all_forces:
        return None
    elements = elements_shown(test)
    rows = math.ceil(len(elements) / _PER_ROW)
    columns = min(len(elements), _PER_ROW)
    figure = new_figure(0.75 + 1.55 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    reach = 0.0
    for axes, z in zip(panels, elements, strict=False):
        lengths = {n: number_of(force_rmse(test, n, z), test) for n in test.all_forces}
        ends = {name: rmse_interval(test, name, z) for name in lengths}
        texts = {name: significant(value) for name, value in lengths.items()}
        reach = max(reach, named_bars(axes, lengths, texts, ends))
        axes.set_title(_element(test, z))
    for axes in panels[len(elements) :]:
        axes.set_visible(False)
    panels[0].set_xlim(0, (1.22 + 0.06 * columns) * reach or 1.0)
    figure.supxlabel("force RMSE (meV/Å), black: 95 % interval", fontsize=9.5)
    figure.suptitle("Force error by element")
    return figure


def _element(test: Structures, z: int) -> str:
    symbol = chemical_symbols[int(known(np.array([z]))[0])]
    return f"{symbol} ({(test.z == z).sum():,} atoms)"


@house_style()
def symmetry(metrics: Metrics) -> Figure | None:
    """Errors under rotations and under mirroring, logarithmic; None where neither was measured."""
    shown = {
        "equivariance_error": "Turned: equivariance error",
        "reflection_error": "Mirrored: reflection error",
    }
    found = {key: values(metrics, key) for key in shown}
    positive = [v for model in found.values() for v in model.values() if 0 < v < math.inf]
    if not positive:
        return None
    low, high = min([*positive, _ROUNDING]) / 10, max(*positive, 10 * _ROUNDING)
    figure = new_figure(2.25)
    for axes, key in zip(figure.subplots(1, 2, sharey=True), shown, strict=True):
        axes.set_xscale("log")
        texts = {name: significant(value, 2) for name, value in found[key].items()}
        named_bars(axes, found[key], texts, start=low)
        axes.set(xlim=(low, high * (high / low) ** 0.17), title=shown[key])
        axes.set_xlabel("relative error, logarithmic")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.axvline(_ROUNDING, color=GREY, linestyle="--", linewidth=1, zorder=4)
    figure.suptitle("Symmetry (dashed: rounding of single precision)")
    return figure


def _quantities(metrics: Metrics) -> list[tuple[str, str, Callable[[float], str]]]:
    many, one = (number(metrics.get(key)) for key in ("latency_atoms", "latency_single_atoms"))
    atoms = [f" of {n:.0f} atoms" if math.isfinite(n) else "" for n in (many, one)]
    milliseconds, megabytes = (partial(_with_unit, unit=unit) for unit in ("ms", "MB"))
    return [
        (LATENCY, f"Time{atoms[0]}", milliseconds),
        ("latency_single_ms", f"Time of one{atoms[1]}", milliseconds),
        ("md_steps_per_second", "MD steps a second", significant),
        ("memory_mb", "Memory", megabytes),
        ("params", "Parameters", si),
        ("checkpoint_bytes", "File size", partial(si, unit="B")),
    ]


def _with_unit(value: float, unit: str) -> str:
    return f"{significant(value)} {unit}"


@house_style()
def cost(metrics: Metrics) -> Figure:
    """Time, memory and size of every model, each with an axis of its own from zero."""
    quantities = [q for q in _quantities(metrics) if _measured(metrics, q[0])]
    rows = math.ceil(len(quantities) / 3)
    figure = new_figure(0.5 + 1.5 * rows)
    columns = min(3, len(quantities))
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes, (key, title, text) in zip(panels, quantities, strict=False):
        found = values(metrics, key)
        reach = named_bars(axes, found, {name: text(value) for name, value in found.items()})
        axes.set(xlim=(0, 1.4 * reach or 1.0), title=title)
        axes.set_xticks([])
        axes.spines.bottom.set_visible(False)
    for axes in panels[len(quantities) :]:
        axes.set_visible(False)
    figure.suptitle("What the models cost")
    return figure


def _measured(metrics: Metrics, key: str) -> bool:
    return any(value > 0 for value in values(metrics, key).values())
