"""Error against speed: budgets before and after a short fit, and the models of the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from egnn_prune.report.common.files import Metrics, number
from egnn_prune.report.common.formatting import significant, times
from egnn_prune.report.common.plots import plain_log
from egnn_prune.report.common.style import GREY, LOOKS, house_style, light_grid, new_figure
from egnn_prune.report.specialise.files import FORCE_RMSE, LABELS, LATENCY, values

BEFORE = "force_rmse_before_mev_per_angstrom"
_EXACT = 0.02
"""A model with less than this share of the specialised one's error is not shown: the teacher, where
it made the labels, errs by rounding only, which would stretch the axis over decades."""
_APART = 0.045
"""Share of the axis by which two budgets must differ to be named both."""


def speed_up(metrics: Metrics, record: Mapping[str, object]) -> float:
    """How many times faster than the teacher a budget of the curve is."""
    share = number(record.get("latency_share"))
    if math.isfinite(share) and share > 0:
        return 1 / share
    latency = number(record.get(LATENCY))
    return number(metrics["models"]["teacher"][LATENCY]) / latency if latency > 0 else math.nan


def curve_of(metrics: Metrics) -> list[tuple[float, Mapping[str, object]]]:
    """Speed-ups with their records, the slowest first; none where the run has no curve."""
    found = [(speed_up(metrics, record), record) for record in metrics.get("curve") or []]
    return sorted((pair for pair in found if math.isfinite(pair[0])), key=lambda pair: pair[0])


@house_style()
def error_against_speed(metrics: Metrics) -> Figure | None:
    """Force RMSE against the speed-up, both logarithmic; None where no error is above zero."""
    curve, latency, errors = (
        curve_of(metrics),
        values(metrics, LATENCY),
        values(metrics, FORCE_RMSE),
    )
    models = {
        name: (latency["teacher"] / latency[name], error)
        for name, error in errors.items()
        if error > _EXACT * errors["specialised"] and math.isfinite(error)
    }
    if not models:
        return None
    figure = new_figure(4.3)
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log")
    colour = LOOKS["specialised"][0]
    for key, label, style in (
        (BEFORE, "budgets: cut, not yet trained (validation)", "--"),
        (FORCE_RMSE, "budgets: after a short fit (validation)", "-"),
    ):
        known = [(x, number(r.get(key))) for x, r in curve if number(r.get(key)) > 0]
        if known:
            face = colour if style == "-" else "white"
            axes.plot(
                *zip(*known, strict=True),
                style,
                color=colour,
                marker="o",
                markerfacecolor=face,
                markersize=6,
                label=label,
            )
    for name, (x, y) in models.items():
        look = LOOKS[name]
        axes.plot(x, y, look[1], color=look[0], markersize=11, markeredgecolor="white", zorder=4)
    _limits(axes, [x for x, _ in models.values()] + [x for x, _ in curve])
    _name_models(axes, models)
    _name_budgets(axes, curve)
    axes.set_xlabel("times faster than the teacher")
    axes.set_ylabel("force RMSE (meV/Å)")
    plain_log(axes.xaxis, (1, 1.5, 2, 3, 4, 5, 7))
    plain_log(axes.yaxis, (1, 1.5, 2, 3, 5, 7))
    light_grid(axes)
    if curve:
        figure.legend(loc="outside lower center", ncols=2)
    figure.suptitle(_title(metrics))
    return figure


def _title(metrics: Metrics) -> str:
    latency = values(metrics, LATENCY)
    faster = times(latency["specialised"], latency["teacher"], "faster", "slower")
    error = significant(values(metrics, FORCE_RMSE)["specialised"])
    return f"Error against speed: {faster} at {error} meV/Å"


def _limits(axes: Axes, x: Sequence[float]) -> None:
    """Room for names around the markers and above the lines."""
    low, high = min(x), max(x)
    side = max(1.15, (high / low) ** 0.07)
    axes.set_xlim(low / side, high * side)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom / (top / bottom) ** 0.08, top * (top / bottom) ** 0.12)


def _name_models(axes: Axes, models: Mapping[str, tuple[float, float]]) -> None:
    """Names above and below: of two models as fast as each other, the worse one's is above."""
    for pair in (("teacher", "finetuned"), ("scratch", "specialised")):
        present = sorted((n for n in pair if n in models), key=lambda n: -models[n][1])
        for name, above in zip(present, (len(present) == 2, False), strict=False):
            axes.annotate(
                *(LABELS[name], models[name], (0, 9 if above else -9)),
                textcoords="offset points",
                ha="center",
                va="bottom" if above else "top",
                color=LOOKS[name][0],
                fontweight="bold",
                zorder=5,
                bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.5},
            )


def _name_budgets(axes: Axes, curve: Sequence[tuple[float, Mapping[str, object]]]) -> None:
    """The budgets as dotted lines, named at the top where there is room."""
    low, high = np.log(axes.get_xlim())
    last = -math.inf
    for x, record in curve:
        axes.axvline(x, color=GREY, linestyle=":", linewidth=0.8, zorder=0)
        at = (math.log(x) - low) / (high - low)
        if at - last >= _APART:
            first = "budget " if last < 0 else ""
            text, last = f"{first}{100 * number(record['budget']):.0f} %", at
            axes.text(
                *(x, 0.985, text),
                transform=axes.get_xaxis_transform(),
                ha="center",
                va="top",
                fontsize=8.5,
                color=GREY,
                bbox={"facecolor": "white", "linewidth": 0, "pad": 1},
            )
