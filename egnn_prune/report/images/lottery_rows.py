"""Which structures, strategies and sparsities the rows of a lottery experiment have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from egnn_prune.report.images.rows import Row

DENSE, TRAINED_ON = "dense", "trained_on"
STRUCTURES = {"structured": "neurons or filters", "unstructured": "single weights"}
"""What is removed, per structure."""


def structures(rows: Sequence[Row]) -> list[str]:
    """The structures that were pruned, structured first."""
    found = {row["structure"] for row in rows if row["strategy"] not in (DENSE, TRAINED_ON)}
    return [structure for structure in STRUCTURES if structure in found]


def strategies(rows: Sequence[Row], structure: str) -> list[str]:
    """The strategies of a structure in order of appearance."""
    inside = (row for row in rows if row["structure"] == structure)
    names = dict.fromkeys(str(row["strategy"]) for row in inside)
    return [strategy for strategy in names if strategy not in (DENSE, TRAINED_ON)]


def sparsities(rows: Sequence[Row], structure: str, strategy: str) -> list[float]:
    """The sparsities of a strategy, ascending."""
    cell = {"structure": structure, "strategy": strategy}
    return sorted({float(row["sparsity"]) for row in rows if cell.items() <= row.items()})


def path_of_one(rows: Sequence[Row], key: str) -> list[tuple[float, dict[str, Any]]]:
    """Sparsities with the cells of one strategy, dense first, where the rows hold `key`.

    The strategy is structured one-shot pruning, or else the first there is: what is shown for one
    strategy only is shown for the plainest.
    """
    having = [row for row in rows if row.get(key) is not None]
    found: list[tuple[float, dict[str, Any]]] = []
    if any(row["strategy"] == DENSE for row in having):
        found.append((0.0, {"strategy": DENSE}))
    for structure in structures(having):
        order = sorted(strategies(having, structure), key=lambda strategy: strategy != "one_shot")
        cell = {"structure": structure, "strategy": order[0]}
        at = sparsities(having, structure, order[0])
        return [*found, *((s, {**cell, "sparsity": s}) for s in at)]
    return found


def described(path: Sequence[tuple[float, Row]]) -> str:
    """Structure and strategy of such a path in words; empty for the dense network alone."""
    cell = path[-1][1]
    strategy = str(cell["strategy"]).replace("_", "-")
    return "" if strategy == DENSE else f"{cell['structure']}, {strategy}"
