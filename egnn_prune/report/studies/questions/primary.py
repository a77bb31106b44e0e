"""The primary comparisons of each question, as the protocol named them before the runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from egnn_prune.report.common.answers import Comparison
from egnn_prune.report.common.statistics import Rows, by_seed, differences, values

LOSSES = ("calibration_loss", "accuracy_loss")
POINTS = ("right after", "old calibration", "recalibrated")
BySeed = Mapping[Any, float]
#: The share of the copies at which questions 3 to 5 are asked.
SHARE = 0.75
#: The share of rare structures that question 5 is asked at.
RARE = 0.05


def log_ratio(new: BySeed, old: BySeed) -> dict[Any, float]:
    """Of the seeds that both have."""
    return {seed: math.log(new[seed] / old[seed]) for seed in new if seed in old}


def at_best_rate(rows: Rows) -> list[Mapping[str, Any]]:
    """Of the rows that differ only in the learning rate the one that validation chose."""
    best: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("seed", "size", "steps", "arm"))
        if key not in best or row["val"] < best[key]["val"]:
            best[key] = row
    return list(best.values())


def scratch(rows: Rows) -> list[Comparison]:
    """Question 1: inherited against scratch."""
    rows = at_best_rate(rows)
    sizes, steps = values(rows, "size"), values(rows, "steps")

    def compared(size: int, short: int, long: int) -> Comparison:
        inherited = by_seed(rows, "force_rmse", arm="inherited", size=size, steps=short)
        control = by_seed(rows, "force_rmse", arm="scratch", size=size, steps=long)
        against = f"{long:,}" if short == long else f"{short:,} steps against {long:,}"
        label = f"inherited against scratch, {size:,} structures, {against} steps"
        return Comparison(label, log_ratio(inherited, control), -1, 0.05, ratio=True)

    middle, few, many = sizes[0], min(sizes), max(sizes)
    short, long = min(steps), max(steps)
    cells = [(few, short, short), (middle, long, long), (many, long, long), (middle, short, long)]
    return [compared(*cell) for cell in dict.fromkeys(cells)]


def budgets(rows: Rows, shares: Sequence[float] | None = None) -> list[Comparison]:
    """Question 2: scores at equal measured time, mean over budgets, by default all of them."""
    rows = [row for row in rows if row["part"] == "fit"]
    steps = shares or values(rows, "budget")

    def mean_log(score: str, helped: bool) -> dict[Any, float]:
        parts = [
            by_seed(rows, "force_rmse", score=score, compensated=helped, budget=b) for b in steps
        ]
        seeds = [seed for seed in parts[0] if all(seed in part for part in parts)]
        return {seed: sum(math.log(part[seed]) for part in parts) / len(parts) for seed in seeds}

    force = mean_log("force", True)
    others = {f"force against {s}": mean_log(s, True) for s in ("taylor", "magnitude", "random")}
    others["compensated against not (force)"] = mean_log("force", False)
    return [
        Comparison(label, differences(force, other), -1, 0.03, ratio=True)
        for label, other in others.items()
    ]


def calibration_loss(row: Mapping[str, Any]) -> float:
    r"""What miscalibration costs, :math:`\tfrac12 (m - 1 - \ln m)`, in nats a component."""
    return 0.5 * (float(row["m"]) - 1 - math.log(row["m"]))


def best_nll(row: Mapping[str, Any]) -> float:
    r"""What is left with the best factor, :math:`\ln \sigma + \tfrac12 \ln m` and a constant."""
    return float(row["log_std"]) + 0.5 * math.log(row["m"])


def losses(rows: Rows) -> list[dict[str, Any]]:
    """Rows with ``calibration_loss``, and ``accuracy_loss`` against the full network's."""
    full = {(r["system"], r["seed"]): best_nll(r) for r in rows if r["point"] == "before"}
    return [
        {
            **row,
            "calibration_loss": calibration_loss(row),
            "accuracy_loss": best_nll(row) - full.get((row["system"], row["seed"]), math.nan),
            "energy_loss": calibration_loss({"m": row.get("energy_m", math.nan)}),
        }
        for row in rows
    ]


def calibration(rows: Rows, share: float = SHARE) -> list[Comparison]:
    """Question 3: calibration loss minus accuracy loss, mean over systems, at a share."""
    made = []
    for point in POINTS:
        lost = differences(*(_lost(rows, key, share, point) for key in LOSSES))
        label = f"calibration loss minus accuracy loss, {point}"
        made.append(Comparison(label, lost, 1, 0.02, unit="nats"))
    covered = differences(
        _lost(rows, "coverage_90", share, "recalibrated"),
        _lost(rows, "coverage_90", 0.0, "before"),
    )
    label = "coverage of 90 % intervals, recalibrated minus before"
    return [*made, Comparison(label, covered, -1, 0.02)]  # harm is to cover less


def losses_at(rows: Rows, share: float) -> list[Comparison]:
    """Either loss at a share, mean over systems."""
    return [
        Comparison(f"{key.replace('_', ' ')}, {point}", _lost(rows, key, share, point), 1, 0.02)
        for key in LOSSES
        for point in POINTS
    ]


def _lost(rows: Rows, key: str, share: float, point: str) -> dict[Any, float]:
    """Mean over the systems, by seed."""
    found = losses([row for row in rows if row["method"] == "last_layer"])
    cells = [
        {"system": system, "share": share, "point": point} for system in values(found, "system")
    ]
    parts = [by_seed(found, key, **cell) for cell in cells]
    seeds = [seed for seed in parts[0] if all(seed in part for part in parts)]
    return {seed: sum(part[seed] for part in parts) / len(parts) for seed in seeds}


def forgetting(rows: Rows) -> list[Comparison]:
    """Question 4: what damage goes with, and whether it sits in a tail."""
    cell = {"part": "damage", "network": "small"}
    made = [
        Comparison(f"rank correlation of damage and {name}", by_seed(rows, key, **cell), 1, 0.1)
        for name, key in (
            ("error bar", "error_bar"),
            ("distance", "distance"),
            ("strain", "strain"),
        )
    ]
    tail = differences(by_seed(rows, "tail", **cell), by_seed(rows, "tail_of_full", **cell))
    label = "share in the worst tenth: of damage minus of the full network's error"
    return [*made, Comparison(label, tail, 1, 0.1)]


def uncertainty(rows: Rows) -> list[Comparison]:
    """Question 5: what choosing by error bars gains over chance."""
    removed = differences(
        by_seed(rows, "error_bar", part="ask"), by_seed(rows, "random", part="ask")
    )
    label = "when to ask: share of the error removed, by error bar minus at random"
    asked = Comparison(label, removed, 1, 0.02)
    rare = min(values(rows, "rare", part="tune"), default=RARE)
    return [*_chosen(rows, "rare_force_rmse", [RARE], "force_rmse", [rare]), asked]


def on_the_rest(rows: Rows) -> list[Comparison]:
    """What the choices of question 5 cost on ordinary frames."""
    rare = min(values(rows, "rare", part="tune"), default=RARE)
    return _chosen(rows, "common_force_rmse", [RARE], "cold", [rare])


def by_share(rows: Rows) -> list[Comparison]:
    """What choosing by error bars gains at the shares of the rare part that are not primary."""
    labelled = {row["rare"] for row in rows if row["part"] == "label" and row["rare"]} - {RARE}
    tuned = sorted(values(rows, "rare", part="tune"))[1:]
    return _chosen(rows, "rare_force_rmse", sorted(labelled), "force_rmse", tuned)


def _chosen(
    rows: Rows,
    judged: str,
    labelled: Sequence[float],
    error: str,
    tuned: Sequence[float],
) -> list[Comparison]:
    """Uncertain against random, where ``labelled`` and ``tuned`` shares are rare."""
    made = []
    cells: list[tuple[str, str, dict[str, Any]]] = [
        (f"what to label, {100 * rare:.0f} % {name}", judged, {"kind": kind, "rare": rare})
        for kind, name in (("hot", "hot frames"), ("bond", "stretched bonds"))
        for rare in labelled
        if any((row.get("kind"), row.get("rare")) == (kind, rare) for row in rows)
    ]
    cells = [(text, key, {**cell, "part": "label"}) for text, key, cell in cells]
    cells += [
        (f"what to fine-tune on, {100 * rare:.0f} % hot", error, {"part": "tune", "rare": rare})
        for rare in tuned
    ]
    for text, key, cell in cells:
        pair = [by_seed(rows, key, choice=choice, **cell) for choice in ("uncertain", "random")]
        label = f"{text}: uncertain against random"
        made.append(Comparison(label, log_ratio(*pair), -1, 0.02, ratio=True))
    return made


def freezing(rows: Rows) -> list[Comparison]:
    """Question 6: some weights held against none."""
    sizes = values(rows, "size")
    made = []
    for arm in ("message passing", "important"):
        for size in dict.fromkeys((min(sizes), max(sizes))):
            pair = [by_seed(rows, "force_rmse", size=size, frozen=f) for f in (arm, "nothing")]
            label = f"{arm} frozen against nothing, {size:,} structures"
            made.append(Comparison(label, log_ratio(*pair), -1, 0.02, ratio=True))
    return made


PRIMARY: dict[str, Callable[[Rows], Sequence[Comparison]]] = {
    "scratch": scratch,
    "budgets": budgets,
    "calibration": calibration,
    "forgetting": forgetting,
    "uncertainty": uncertainty,
    "freezing": freezing,
}
