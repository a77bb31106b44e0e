"""What was measured after every epoch, over the seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from egnn_prune.errors import InputError
from egnn_prune.report.common.files import number
from egnn_prune.report.common.statistics import Summary, summarise
from egnn_prune.report.images.rows import Row


def epochs(row: Row, key: str) -> dict[int, float]:
    """A number by epoch, where it was measured.

    Raises:
        InputError: If the history is not a list of mappings with an ``epoch``.
    """
    history = row.get("history") or []
    try:
        found = {int(entry["epoch"]): number(entry.get(key)) for entry in history}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(
            f"metrics: the history of seed {row['seed']} must be a list of mappings with an 'epoch'"
        ) from None
    return {epoch: value for epoch, value in sorted(found.items()) if math.isfinite(value)}


def curve(rows: Sequence[Row], key: str, scale: float = 1.0) -> dict[int, Summary]:
    """Mean and spread by epoch over the rows that came so far."""
    return over_seeds([epochs(row, key) for row in rows], scale)


def rate(rows: Sequence[Row], key: str) -> dict[int, Summary]:
    """Mean and spread by epoch of what a running total gained in that epoch."""
    gained = []
    for row in rows:
        before, last, found = 0.0, 0, {}
        for epoch, total in epochs(row, key).items():
            if epoch > last:
                found[epoch] = (total - before) / (epoch - last)
            before, last = total, epoch
        gained.append(found)
    return over_seeds(gained)


def over_seeds(found: Sequence[dict[int, float]], scale: float = 1.0) -> dict[int, Summary]:
    """Summaries by epoch of several curves."""
    every = sorted({epoch for one in found for epoch in one})
    return {
        epoch: summarise([scale * one[epoch] for one in found if epoch in one]) for epoch in every
    }
