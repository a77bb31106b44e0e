"""A simulation with a teacher behind it: when was the small network unsure, and was it right?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from egnn_prune.errors import DataError
from egnn_prune.report.common.files import number
from egnn_prune.report.common.formatting import significant
from egnn_prune.report.common.plots import plain_log
from egnn_prune.report.common.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    VERMILION,
    house_style,
    light_grid,
    new_figure,
)

Array = NDArray[np.float64]
Rows = Sequence[Mapping[str, Any]]

_WINDOWS = 20
"""Parts of the simulation, one of which the running mean goes over."""
_WIDE_RANGE = 20.0
"""Ratio of largest to smallest error bar from which their axis is logarithmic."""


@house_style()
def watched_dynamics_plot(
    rows: Rows, forces_threshold: float | None = None, title: str = ""
) -> Figure:
    """Error bars with the steps that the teacher answered, how many these were, random checks.

    Args:
        rows: One mapping per recorded step with ``time_fs``, ``max_force_std`` (eV/Angstrom, the
            longest error bar of an atom), ``asked`` (whether the teacher answered) and, where
            known, ``temperature_K``, ``max_distance`` (in units of the limit), ``threshold``
            (eV/Angstrom, in force at this step), ``checked_error`` (eV/Angstrom, root mean square
            difference from the teacher's forces at random checks, else NaN), ``checked_inside``
            (share of the components within the 90 % interval there), ``learned`` (whether the
            network was trained further here) and ``reason`` (why the network was not sure). What no
            row has is not drawn.
        forces_threshold: eV/Angstrom, where rows state no ``threshold``; None: there is none.
        title: What was simulated.

    Raises:
        DataError: There are no rows, or one lacks its time.
    """
    time = _column(rows, "time_fs") / 1000
    if not len(rows) or not np.isfinite(time).all():
        raise DataError("a figure of a simulation needs steps, each with its time_fs")
    std, checked = _column(rows, "max_force_std"), _column(rows, "checked_error")
    asked, learned = (np.array([bool(row.get(key)) for row in rows]) for key in _FLAGS)
    threshold = _column(
        rows, "threshold", math.nan if forces_threshold is None else forces_threshold
    )
    context: list[tuple[Callable[[Axes, Array, Array], None], Array]] = [
        (_temperature, _column(rows, "temperature_K")),
        (_distance, _column(rows, "max_distance")),
    ]
    shown = [(draw, values) for draw, values in context if np.isfinite(values).any()]
    checks = np.isfinite(checked).any()
    heights = [1.6, 0.8, *(0.8 for _ in shown), *([1.4] if checks else [])]
    figure = new_figure(1.2 + 1.65 * sum(heights))
    figure.suptitle(title or "Dynamics with a teacher behind the network")
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    _error_bars(panels[0], time, std, threshold, asked)
    unsure = np.array([bool(row.get("reason")) for row in rows])
    _share(panels[1], time, asked, unsure)
    for axes, (draw, values) in zip(panels[2:], shown, strict=False):
        draw(axes, time, values)
    if checks:
        _checks(panels[-1], time, std, checked, _column(rows, "checked_inside"))
    for axes in panels:
        light_grid(axes)
        axes.margins(x=0.01)
        for i, moment in enumerate(time[learned]):
            label = "learned" if axes is panels[0] and i == 0 else None
            axes.axvline(moment, color=GREEN, linewidth=1.3, zorder=1.5, label=label)
    for axes in (panels[0], *([panels[-1]] if checks else [])):
        axes.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=5, borderpad=0.1)
    panels[-1].set_xlabel("time (ps)")
    figure.align_ylabels()
    return figure


_FLAGS = ("asked", "learned")


def _column(rows: Rows, key: str, missing: float = math.nan) -> Array:
    """One number of every row; `missing` where it has none."""
    found = np.array([number(row.get(key)) for row in rows], dtype=np.float64)
    return np.where(np.isnan(found), missing, found)


def _error_bars(axes: Axes, time: Array, std: Array, threshold: Array, asked: Any) -> None:
    """The longest error bar of each step against what is allowed."""
    drawn = np.where(np.isfinite(std), std, np.nan)  # infinite: an element that it does not know
    axes.plot(time, drawn, color=PURPLE, linewidth=0.8, label="longest error bar")
    if asked.any():
        top = float(std.max(where=np.isfinite(std), initial=0.0)) or 1.0
        height = np.where(np.isfinite(std), std, top)
        axes.plot(
            *(time[asked], height[asked], "o"),
            color=VERMILION,
            markersize=3,
            markeredgewidth=0,
            label="teacher answered",
        )
    if np.isfinite(threshold).any():
        axes.plot(
            *(time, threshold, "--"),
            color=BLACK,
            linewidth=1.1,
            drawstyle="steps-post",
            label="threshold",
        )
    _positive_axis(axes, np.concatenate([drawn, threshold]))
    axes.set_ylabel("error bar of a\nforce (eV/Å)")
    axes.set_title("How unsure it is")


def _share(axes: Axes, time: Array, asked: Any, unsure: Any) -> None:
    """Running mean of the steps that the teacher answered, or else should have."""
    said, label = "The teacher answered", "steps of\nthe teacher"
    if unsure.any() and not asked.any():
        asked, said, label = unsure, "Not sure of", "uncertain\nsteps"
    window = max(1, len(asked) // _WINDOWS)
    ones = np.ones(window)
    share = np.convolve(asked, ones, "same") / np.convolve(np.ones(len(asked)), ones, "same")
    axes.plot(time, share, color=VERMILION, linewidth=1.3)
    axes.fill_between(time, 0, share, color=VERMILION, alpha=0.15, linewidth=0)
    axes.set_ylim(0, 1.05 * max(0.1, float(share.max())))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.locator_params(axis="y", nbins=3)
    axes.set_ylabel(label)
    mean = f"; running mean over {window} steps" if window > 1 else ""
    axes.set_title(
        f"{said} {asked.sum():,} of {len(asked):,} steps ({100 * asked.mean():.1f} %){mean}"
    )


def _distance(axes: Axes, time: Array, distance: Array) -> None:
    """The strangest atom; beyond 1 the structure is out of distribution."""
    axes.plot(time, np.where(np.isfinite(distance), distance, np.nan), color=BLUE, linewidth=0.8)
    axes.axhline(1, color=BLACK, linestyle="--", linewidth=1.1)
    _positive_axis(axes, np.append(distance, 1.0))
    beyond = 100 * float((distance > 1).mean())
    axes.set_ylabel("distance\n(limits)")
    axes.set_title(f"Strangest atom: beyond the limit {beyond:.1f} % of the time")


def _temperature(axes: Axes, time: Array, kelvin: Array) -> None:
    axes.plot(time, kelvin, color=ORANGE, linewidth=0.8)
    axes.set_ylim(0, 1.05 * float(np.nanmax(kelvin)) or 1.0)
    axes.locator_params(axis="y", nbins=3)
    axes.set_ylabel("T (K)")
    axes.set_title("How hot it is")


def _checks(axes: Axes, time: Array, std: Array, checked: Array, inside: Array) -> None:
    """Errors found at steps picked at random, with the longest error bar stated there."""
    there = np.isfinite(checked)
    when, error, stated = time[there], checked[there], std[there]
    stated = np.where(np.isfinite(stated), stated, np.nan)
    axes.vlines(when, error, stated, color="#C8C8C8", linewidth=0.9, zorder=1)
    axes.plot(when, stated, "_", color=PURPLE, markersize=8, label="longest error bar")
    axes.plot(when, error, "o", color=BLUE, markersize=4, label="error (RMS of all atoms)")
    _positive_axis(axes, np.concatenate([error, stated]))
    rms = significant(1000 * math.sqrt(np.mean(error**2)))
    title = f"{len(error)} random checks: RMS error {rms} meV/Å"
    if np.isfinite(inside).any():  # of all components, which the longest error bar says little of
        title += f", {100 * np.nanmean(inside):.0f} % of components in the 90 % interval"
    axes.set_ylabel("force error\n(eV/Å)")
    axes.set_title(title, pad=20)


def _positive_axis(axes: Axes, values: Array) -> None:
    """From zero, or logarithmic where a few large values would press the others flat."""
    positive = values[np.isfinite(values) & (values > 0)]
    if positive.size and positive.max() / np.percentile(positive, 5) > _WIDE_RANGE:
        axes.set_yscale("log")
        axes.set_ylim(0.8 * np.percentile(positive, 1), 1.3 * positive.max())
        plain_log(axes.yaxis, (1, 3) if positive.max() / positive.min() < 1000 else (1,))
    else:
        axes.set_ylim(0, 1.1 * float(positive.max(initial=0.0)) or 1.0)
        axes.locator_params(axis="y", nbins=4)
