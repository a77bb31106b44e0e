"""Tables and figure of the study of specialised potentials.

Every row has ``part``, ``system`` and ``seed``. Of ``fits`` it describes one fit: ``arm``,
``weights``, ``times`` (of the steps), ``rate``, errors, ``params``, ``val_force_rmse``, ``curve``
(``[step, val_force_rmse]``); of ``scores`` a cut without training: ``arm`` (the score), ``conv``
(share that goes), ``compensated``, ``change``; of ``odd paths``: ``change``; of ``speed``:
``arm``, ``atoms``, ``compiled``, ``latency_ms``. Errors and changes of forces are in meV/Angstrom.
Any of them may be missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from egnn_prune.report.common.formatting import text_table
from egnn_prune.report.common.plots import interval_note, line, plain_log
from egnn_prune.report.common.statistics import (
    BySeed,
    Rows,
    by_seed,
    over_seeds,
    paired,
    spread_text,
    summarise,
    values,
)
from egnn_prune.report.common.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILION,
    house_style,
    light_grid,
    looks,
    new_figure,
)

ARM = ("system", "arm", "weights", "times")
FORCE = "force_rmse_mev_per_angstrom"
#: Below it a network reproduces its labels because it made them (meV/Angstrom).
OWN_LABELS = 1.0
LOOKS = {
    "full": (BLUE, "o"),
    "dense": (BLUE, "o"),
    "conv": (ORANGE, "D"),
    "conv+paths": (VERMILION, "s"),
    "scratch": (GREEN, "^"),
    "own code": (GREY, "v"),
    "odd paths dropped": (PURPLE, "P"),
}


def best_rates(rows: Rows) -> list[dict[str, Any]]:
    """Of each trained arm and seed, the rate with the lowest validation error."""
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        if row["part"] == "fits":
            key = (*(row[name] for name in ARM), row["seed"])
            if key not in best or row["val_force_rmse"] < best[key]["val_force_rmse"]:
                best[key] = dict(row)
    return list(best.values())


def specialisation_table(rows: Rows) -> str:
    """Trained arms, cuts without training, odd paths, and times: those that there are rows of.

    Args:
        rows: see the module's description.

    Returns:
        Several lines of plain text without a trailing newline.
    """
    tables = {"fits": _fits, "scores": _cuts, "odd paths": _odd, "speed": _speed}
    found = {part: [row for row in rows if row["part"] == part] for part in tables}
    return "\n\n".join(tables[part](inside) for part, inside in found.items() if inside)


def _fits(rows: Rows) -> str:
    """Test errors; ratios at equal steps, paired by seed."""
    fits, body = best_rates(rows), []
    for key in sorted({tuple(row[name] for name in ARM) for row in fits}, key=_order(fits)):
        cell = dict(zip(ARM, key, strict=True))
        force = by_seed(fits, FORCE, **cell)
        full = by_seed(fits, FORCE, **cell | {"arm": "full", "weights": "inherited"})
        scratch = by_seed(fits, FORCE, **cell | {"weights": "scratch"})
        trained = full and min(full.values()) >= OWN_LABELS
        body.append(
            [
                *map(str, key),
                ", ".join(f"{rate:g}" for rate in values(fits, "rate", **cell)),
                spread_text(summarise(force.values())),
                spread_text(over_seeds(fits, "energy_mae_mev_per_atom", **cell)),
                f"{over_seeds(fits, 'params', **cell).mean:,.0f}",
                str(len(force)),
                _ratio(force, full) if trained and cell["arm"] != "full" else "",
                _ratio(force, scratch) if cell["weights"] != "scratch" else "",
            ]
        )
    header = [*ARM, "rate", "force RMSE meV/A", "energy MAE meV/atom", "params", "seeds"]
    title = "Trained: test errors, mean ± sd over seeds; ratios of the force RMSE at equal steps"
    return f"{title} [95 %]\n" + text_table([*header, "/ full", "/ scratch"], body, left=3)


def _order(rows: Rows) -> Callable[[tuple[Any, ...]], tuple[int, ...]]:
    """Arms as they first appeared, systems together, more steps last."""
    seen = [values(rows, name) for name in ARM[:3]]

    def place(key: tuple[Any, ...]) -> tuple[int, ...]:
        system, arm, weights = (s.index(k) for s, k in zip(seen, key, strict=False))
        return system, key[3], arm, weights

    return place


def _ratio(new: BySeed, old: BySeed) -> str:
    """Geometric mean of the ratio, and its 95 % t-interval where there are two seeds."""
    logs = [{seed: math.log(value) for seed, value in each.items()} for each in (new, old)]
    found = paired(*logs)
    if not found.n:
        return ""
    ends = "" if found.n < 2 else f" [{math.exp(found.low):.2f}, {math.exp(found.high):.2f}]"
    return f"{math.exp(found.mean):.2f}{ends}"


def _cuts(rows: Rows) -> str:
    sizes = sorted(values(rows, "conv"))
    body = [
        [
            *(system, score, "yes" if compensated else "no"),
            *(
                spread_text(over_seeds(rows, "change", **cell, conv=conv))
                if values(rows, "change", **cell, conv=conv)
                else ""
                for conv in sizes
            ),
        ]
        for system in values(rows, "system")
        for score in values(rows, "arm", system=system)
        for compensated in values(rows, "compensated", system=system, arm=score)
        for cell in [{"system": system, "arm": score, "compensated": compensated}]
    ]
    header = ["system", "score", "compensated", *(f"{100 * conv:.0f} %" for conv in sizes)]
    title = "Cut, not trained: change of the forces (meV/A) by share of the copies that goes"
    return f"{title}\n" + text_table(header, body, left=3)


def _odd(rows: Rows) -> str:
    body = [
        [system, spread_text(over_seeds(rows, "change", system=system))]
        for system in values(rows, "system")
    ]
    return "Odd paths dropped\n" + text_table(["system", "change of the forces meV/A"], body)


def _speed(rows: Rows) -> str:
    body = []
    for compiled in values(rows, "compiled"):
        for atoms in sorted(values(rows, "atoms", compiled=compiled)):
            for arm in values(rows, "arm", atoms=atoms, compiled=compiled):
                cell = {"arm": arm, "atoms": atoms, "compiled": compiled}
                ups = [
                    over_seeds(_speed_ups(rows, reference), "speed_up", **cell).mean
                    for reference in ("own code", "dense")
                ]
                body.append(
                    [
                        "compiled" if compiled else "eager",
                        str(atoms),
                        arm,
                        spread_text(over_seeds(rows, "latency_ms", **cell)),
                        *("" if math.isnan(up) else f"{up:.2f}x" for up in ups),
                    ]
                )
    header = ["", "atoms", "arm", "ms", "speed-up to own code", "to dense"]
    title = "Energy and forces of one structure (own code: the eager one; dense: as the arm)"
    return f"{title}\n" + text_table(header, body, left=3)


def _speed_ups(rows: Rows, reference: str) -> list[dict[str, Any]]:
    """How many times as fast as ``own code``, never compiled, or ``dense``, as the arm itself is.

    Arms that have the reference at their number of atoms, without the reference itself.
    """
    own = reference == "own code"
    times = {
        (r["seed"], r["atoms"], r["compiled"]): r["latency_ms"]
        for r in rows
        if r["arm"] == reference
    }
    found = []
    for r in rows:
        key = (r["seed"], r["atoms"], not own and r["compiled"])
        if r["arm"] != reference and key in times:
            found.append({**r, "speed_up": times[key] / r["latency_ms"]})
    return found


@house_style()
def specialisation_plot(rows: Rows) -> Figure:
    """One row of panels each for trained arms, learning curves, cuts and speed-ups.

    Args:
        rows: see the module's description.

    Returns:
        A figure; bars are 95 % t-intervals over the seeds. What has no rows has no panels.
    """
    fits = best_rates(rows)
    arms = sorted(
        values([{"arm": _arm(r)} for r in fits], "arm"), key=lambda a: (a[2], a[1] == "scratch")
    )
    parts: dict[str, tuple[Rows, Callable[[Axes, Rows], None], str]] = {
        "Trained: test error of the forces": (fits, partial(_draw_fits, arms=arms), "system"),
        "Five times the steps": ([r for r in fits if r["times"] == 5], _draw_curves, "system"),
        "Cut, not trained (solid: compensated, dashed: not)": (
            [r for r in rows if r["part"] == "scores"],
            _draw_cuts,
            "system",
        ),
        "Speed-up": ([r for r in rows if r["part"] == "speed"], _draw_speed, "reference"),
    }
    drawn = {title: part for title, part in parts.items() if part[0]}
    figure = new_figure(height=0.4 + 2.9 * max(1, len(drawn)))
    if not drawn:
        return figure
    places = figure.subfigures(len(drawn), 1, squeeze=False).flat
    for place, (title, (inside, draw, by)) in zip(places, drawn.items(), strict=True):
        panels: dict[str, Rows] = {
            s: [r for r in inside if r["system"] == s] for s in values(inside, "system")
        }
        if by == "reference":
            panels = {f"against {name}": _speed_ups(inside, name) for name in ("own code", "dense")}
        same = draw is not _draw_curves  # systems differ in steps
        grid = place.subplots(1, len(panels), squeeze=False, sharex=same, sharey=True)[0]
        for axes, (name, shown) in zip(grid, panels.items(), strict=True):
            draw(axes, shown)
            axes.set_title(name, fontweight="normal")
        for axes in grid[1:]:
            axes.set_ylabel("")
        place.suptitle(title, x=0.01, ha="left", fontsize=10.5)
        _legend(place, grid)
    figure.suptitle(f"Small for one system ({interval_note(rows, 'bars')})")
    return figure


def _legend(place: SubFigure, panels: Sequence[Axes]) -> None:
    """One legend right of a row, each name once."""
    named: dict[str, Any] = {}
    for axes in panels:
        named |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if named:
        place.legend(named.values(), named.keys(), loc="outside right center")


def _arm(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ARM[1:])


def _draw_fits(axes: Axes, rows: Rows, arms: Sequence[tuple[Any, ...]]) -> None:
    """Arms below each other, logarithms of errors along x."""
    logs = [{**r, "log": math.log(r[FORCE])} for r in rows if r[FORCE] >= OWN_LABELS]
    names = []
    for height, (arm, weights, times) in enumerate(arms):
        scratch = weights == "scratch"
        more = "" if times == 1 else f", {times}x steps"
        names.append(f"{arm}{', scratch' if scratch else ''}{more}")
        found = over_seeds(logs, "log", arm=arm, weights=weights, times=times)
        if found.n:
            look = LOOKS["scratch" if scratch else arm]
            line(axes, [height], [found], look, "", "none", np.exp, horizontal=True)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    plain_log(axes.xaxis, (1, 2, 5))
    axes.set_xlabel("force RMSE (meV/Å)")
    light_grid(axes, "x")


def _draw_curves(axes: Axes, rows: Rows) -> None:
    for row in rows:
        scratch = row["weights"] == "scratch"
        steps, errors = zip(*row["curve"], strict=True)
        name = "scratch" if scratch else row["arm"]
        label = "from scratch" if scratch else "inherited"
        axes.plot(steps, errors, color=LOOKS[name][0], label=label)
    axes.set_yscale("log")
    plain_log(axes.yaxis, (1, 2, 5))
    axes.set(xlabel="step", ylabel="validation force RMSE (meV/Å)")
    light_grid(axes)


def _draw_cuts(axes: Axes, rows: Rows) -> None:
    for score, look in looks(values(rows, "arm")).items():
        for compensated in values(rows, "compensated", arm=score):
            cell = {"arm": score, "compensated": compensated}
            logs = [{**r, "log": math.log(r["change"])} for r in rows if cell.items() <= r.items()]
            sizes = sorted(values(logs, "conv"))
            found = [over_seeds(logs, "log", conv=size) for size in sizes]
            style, label = ("-", score) if compensated else ("--", "")
            x = [100 * size for size in sizes]
            line(axes, x, found, look, label, style, np.exp)
    axes.set_yscale("log")
    plain_log(axes.yaxis, (1, 2, 5))
    axes.set(xlabel="copies removed (%)", ylabel="change of the forces (meV/Å)")
    light_grid(axes)


def _draw_speed(axes: Axes, rows: Rows) -> None:
    for arm in values(rows, "arm"):
        for compiled in values(rows, "compiled", arm=arm):
            cell = {"arm": arm, "compiled": compiled}
            atoms = sorted(values(rows, "atoms", **cell))
            found = [over_seeds(rows, "speed_up", **cell, atoms=n) for n in atoms]
            label = f"{arm}, compiled" if compiled else arm
            line(axes, atoms, found, LOOKS[arm], label, "--" if compiled else "-")
    axes.set_xscale("log")
    axes.axhline(1, color=GREY, linestyle=":", linewidth=1)
    plain_log(axes.xaxis, (1, 3))
    axes.set(xlabel="atoms", ylabel="times as fast")
    axes.set_ylim(bottom=0)
    light_grid(axes)
