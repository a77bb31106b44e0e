"""The rows of an image experiment: checked, and summarised over seeds.

A row describes one trained network: ``seed``, what identifies it (``arm``, or ``strategy`` and
``sparsity``) and what was measured. Values that are missing or not finite are left out.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from egnn_prune.errors import InputError
from egnn_prune.report.common.files import SCHEMA_VERSION, number
from egnn_prune.report.common.formatting import times
from egnn_prune.report.common.statistics import Summary, by_seed, paired, summarise

Row = Mapping[str, Any]
Metrics = Mapping[str, Any]
BySeed = Mapping[Any, float]


@dataclass(frozen=True)
class Quantity:
    """A measured number and how it is shown.

    Attributes:
        key: Its name in a row.
        name: Its name for readers, with the unit.
        better: ``lower``, ``higher``, or empty where neither is better.
        scale: Factor from the row's number to the one shown.
        places: Decimals shown.
    """

    key: str
    name: str
    better: str = ""
    scale: float = 1.0
    places: int = 3

    def title(self, prefix: str = "") -> str:
        """Name and direction, as the title of a panel."""
        arrow = {"lower": "  ↓ lower is better", "higher": "  ↑ higher is better"}
        text = f"{prefix}{self.name}{arrow.get(self.better, '')}"
        return text[0].upper() + text[1:]


ACCURACY = Quantity("accuracy", "accuracy (%)", "higher", 100, 2)
NLL = Quantity("nll", "NLL", "lower")
ECE = Quantity("ece", "ECE", "lower")
UCE = Quantity("uce", "UCE", "lower")
AUROC = Quantity("auroc", "OOD AUROC", "higher")
EPOCHS = Quantity("epochs", "epochs of the last fit", places=1)
PARAMETERS = Quantity("parameters", "parameters", places=0)


def check(metrics: object, required: Sequence[str], cell: Sequence[str]) -> list[Row]:
    """The rows, after checking what every table and figure relies on.

    Args:
        metrics: The content of ``metrics.json``.
        required: Keys that every row needs beside ``seed`` and `cell`; their values are numbers.
        cell: Keys that, with ``seed``, identify a row.

    Raises:
        InputError: If something is missing, has the wrong form or is there twice.
    """
    if not isinstance(metrics, Mapping) or metrics.get("schema_version") != SCHEMA_VERSION:
        found = metrics.get("schema_version") if isinstance(metrics, Mapping) else metrics
        raise InputError(f"metrics: schema_version must be {SCHEMA_VERSION}, got {found!r}")
    for key in ("data", "network"):
        if not isinstance(metrics.get(key, {}), Mapping):
            raise InputError(f"metrics: {key} must be a mapping, got {metrics[key]!r}")
    rows = metrics.get("rows")
    if not isinstance(rows, list) or not rows:
        raise InputError("metrics: rows must be a list of at least one mapping per trained network")
    seen = set()
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(f"metrics: rows[{i}] must be a mapping, got {type(row).__name__}")
        missing = [key for key in ("seed", *cell, *required) if row.get(key) is None]
        if missing:
            raise InputError(f"metrics: rows[{i}] lacks {', '.join(missing)}")
        for key in ("sparsity", "factor", *required):
            if row.get(key) is not None and not math.isfinite(number(row[key])):
                raise InputError(
                    f"metrics: rows[{i}] has {key}={row[key]!r}; it must be a finite number"
                )
        name = tuple(str(row[key]) for key in ("seed", *cell))
        if name in seen:
            what = ", ".join(f"{k} {v}" for k, v in zip(("seed", *cell), name, strict=True))
            raise InputError(f"metrics: rows[{i}] is there twice: {what}")
        seen.add(name)
    return rows


def values(rows: Sequence[Row], key: str) -> list[Any]:
    """The different values of a key, in order of appearance."""
    return list(dict.fromkeys(row[key] for row in rows))


def present(rows: Sequence[Row], quantities: Sequence[Quantity]) -> list[Quantity]:
    """The quantities that at least one row has."""
    return [q for q in quantities if any(math.isfinite(number(row.get(q.key))) for row in rows)]


def measured(rows: Sequence[Row], quantity: Quantity, **cell: Hashable) -> dict[Any, float]:
    """One number per seed in the unit shown, of the rows that have the values in `cell`."""
    found = by_seed(rows, quantity.key, **cell)
    return {seed: quantity.scale * value for seed, value in found.items()}


def summary(rows: Sequence[Row], quantity: Quantity, **cell: Hashable) -> Summary:
    """Mean and spread over the seeds of one quantity in the unit shown."""
    return summarise([*measured(rows, quantity, **cell).values()])


def ratio(new: BySeed, old: BySeed) -> Summary:
    """Natural logarithms of ``new / old`` of the seeds that both have, summarised.

    ``exp`` of the mean is the geometric mean of the ratios, and ``exp`` of ``mean ± half`` its
    95 % interval.
    """
    both = [(new[seed], old[seed]) for seed in new if seed in old]
    return summarise([math.log(a / b) for a, b in both if a > 0 and b > 0])


def spread_text(found: Summary, places: int) -> str:
    """``mean ± standard deviation``; the mean alone for one seed; empty if nothing was measured."""
    if found.n == 0:
        return ""
    text = f"{found.mean:,.{places}f}"
    if not found.sd > 1e-9 * abs(found.mean):  # one seed, or the same for all of them
        return text
    return f"{text} ± {found.sd:,.{places}f}"


def difference_text(found: Summary, places: int) -> str:
    """``difference [95 % interval]``; without an interval for one seed."""
    if found.n == 0:
        return ""
    text = f"{found.mean:+z.{places}f}"
    if math.isnan(found.half):
        return text
    low, high = found.mean - found.half, found.mean + found.half
    return f"{text} [{low:+z.{places}f}, {high:+z.{places}f}]"


def ratio_text(found: Summary) -> str:
    """``0.32x [0.30, 0.34]`` of a summary of logarithms, as `ratio` returns it."""
    if found.n == 0:
        return ""
    text = f"{math.exp(found.mean):.2f}x"
    if math.isnan(found.half):
        return text
    return f"{text} [{bounded(found.mean - found.half)}, {bounded(found.mean + found.half)}]"


ONE_SEED = " (one seed: cannot be told)"


def untold(found: Summary) -> str:
    """A remark behind a difference that has no interval; empty behind one that has."""
    return ONE_SEED if found.n == 1 else ""


def ratio_words(found: Summary, less: str, more: str, *, measured: bool = False) -> str:
    """``2.9x faster [2.7, 3.1]``, or ``not measurably faster``.

    The latter where the interval holds 1 or the difference is under 2 %.

    Args:
        found: Of logarithms, as `ratio` returns it.
        less: Word for a ratio under 1.
        more: Word for a ratio above 1.
        measured: Whether another run could give another number, as for times and unlike for
            counts: one seed then cannot tell.
    """
    if abs(found.mean) < math.log(1.02) or (found.n > 1 and sign(found) == 0):
        return f"not measurably {less}"
    text = times(math.exp(found.mean), 1.0, less, more)
    if found.n == 1:
        return text + (ONE_SEED if measured else "")
    size = abs(found.mean)  # how many times, whether less or more
    ends = [bounded(size - found.half), bounded(size + found.half)]
    return text if found.half < 0.005 else f"{text} [{', '.join(ends)}]"


def bounded(logarithm: float) -> str:
    """``exp`` of an end of an interval; two seeds may give one that no number of digits holds."""
    return f"{math.exp(logarithm):.2f}" if logarithm < math.log(1000) else ">1000"


def means_note(rows: Sequence[Row]) -> str:
    """How the numbers of a table are summarised."""
    seeds = len(values(rows, "seed"))
    return f"mean ± sd over {seeds} seeds" if seeds > 1 else "one seed: no spread, no intervals"


def seeds_note(rows: Sequence[Row]) -> str:
    """How many seeds there are, for the title of a figure or a table."""
    seeds = len(values(rows, "seed"))
    return f"95 % intervals over {seeds} seeds" if seeds > 1 else "one seed: no intervals"


def sign(found: Summary) -> int:
    """1 or -1 where the 95 % interval lies on one side of 0, else 0 (also for one seed)."""
    if math.isnan(found.half) or abs(found.mean) <= found.half:
        return 0
    return 1 if found.mean > 0 else -1


def difference(
    rows: Sequence[Row], quantity: Quantity, new: Row, old: Row, ratios: bool = False
) -> Summary:
    """Paired by seed: the quantity in the cell `new` minus (or over) that in the cell `old`."""
    pair = measured(rows, quantity, **new), measured(rows, quantity, **old)
    return ratio(*pair) if ratios else paired(*pair)


def fraction(value: object) -> float:
    """A published accuracy as a fraction, whether it is written as one or in percent."""
    found = number(value)
    return found / 100 if found > 1 else found
