"""Errors of energies and forces by the type of structure that a file states (``config_type``)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from egnn_prune.evaluation.element_errors import Sums
from egnn_prune.report.common.intervals import Statistic, difference, ratio
from egnn_prune.report.common.statistics import bootstrap_interval

#: Types that are told apart, those with most structures: a file may give each structure its own.
MOST_TYPES = 40


def errors_by_type(
    types: Sequence[str],
    models: Mapping[str, Mapping[str, Sums]],
    units: Mapping[str, str],
    pair: tuple[str, str] | None,
) -> dict[str, Any]:
    """Errors of every type of structure, with 95 % intervals (bootstrap over its structures).

    Args:
        types: what each structure is, ``[n]``; empty where it is of none.
        models: by model and quantity (``energy``, ``force``) sums over each structure, ``[n]``.
        units: of the quantities.
        pair: two models whose difference, the first less the second, is wanted on the same
            structures.

    Returns:
        ``units``, ``compared`` (the pair), ``left_out`` (types beyond the :data:`MOST_TYPES` with
        most structures) and ``types``: by name, the most frequent first, ``structures``, and for
        ``energy_mae``, ``energy_rmse``, ``force_mae`` and ``force_rmse`` by model ``[value, low,
        high]``, as well as the ``difference`` of the pair, paired. ``None`` where an end cannot be
        told. Nothing at all where no structure has a type.
    """
    counts = Counter(filter(None, types))
    column, found = np.array(types), {}
    for name, count in counts.most_common(MOST_TYPES):
        own = np.flatnonzero(column == name)
        errors: dict[str, dict[str, Statistic]] = {}
        for model, quantities in models.items():
            for what, sums in quantities.items():
                absolute, square, number = (part[own] for part in sums)
                errors.setdefault(f"{what}_mae", {})[model] = ratio(absolute, number)
                errors.setdefault(f"{what}_rmse", {})[model] = ratio(square, number, root=True)
        for of in errors.values():
            if pair and all(model in of for model in pair):
                of["difference"] = difference(of[pair[0]], of[pair[1]])
        found[name] = {"structures": count} | {
            key: {who: _with_interval(statistic, count) for who, statistic in of.items()}
            for key, of in errors.items()
        }
    if not found:
        return {}
    return {
        "units": dict(units),
        "compared": list(pair) if pair else None,
        "left_out": len(counts) - len(found),
        "types": found,
    }


def _with_interval(statistic: Statistic, count: int) -> list[float | None]:
    value = float(statistic(np.ones((1, count)))[0])
    ends = bootstrap_interval(statistic, count)
    return [x if math.isfinite(x) else None for x in (value, *ends)]
