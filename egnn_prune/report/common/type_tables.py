"""Errors by type of structure, as ``metrics.json`` has them under ``errors_by_type``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from egnn_prune.report.common.files import Metrics, number
from egnn_prune.report.common.formatting import MISSING, si, significant
from egnn_prune.report.common.page import Block, Text
from egnn_prune.report.common.tables import Cell, Table

_SHOWN = {
    "force_rmse": "RMSE of the forces",
    "force_mae": "MAE of the forces",
    "energy_rmse": "RMSE of the {target}",
    "energy_mae": "MAE of the {target}",
}


def type_blocks(metrics: Metrics, labels: Mapping[str, str], target: str = "energy") -> list[Block]:
    """What the tables show, then one for each kind of error; nothing where there are no types.

    Args:
        metrics: Of a run.
        labels: Names of the models for readers, in the order of the columns.
        target: What ``energy`` is here.
    """
    found = _mapping(metrics.get("errors_by_type"))
    types = {str(k): _mapping(v) for k, v in _mapping(found.get("types")).items()}
    units, pair = _mapping(found.get("units")), found.get("compared")
    pair = [str(model) for model in pair] if isinstance(pair, list) else []
    tables: list[Block] = []
    for key, title in _SHOWN.items():
        rows = {name: _mapping(one.get(key)) for name, one in types.items()}
        models = [model for model in labels if any(model in row for row in rows.values())]
        if not models:
            continue
        compared = any("difference" in row for row in rows.values())
        header = ["type", "structures", *(labels[model] for model in models)]
        if compared:
            header.append(" less ".join(labels.get(model, model) for model in pair))
        body: list[list[str | Cell]] = []
        for name, row in rows.items():
            cells = [_value(row.get(model)) for model in models]
            changes = [_difference(row.get("difference"))] if compared else []
            body.append([name, si(number(types[name].get("structures"))), *cells, *changes])
        unit = units.get(key.partition("_")[0], "")
        tables.append(Table(f"{title.format(target=target)}, in {unit}", header, body))
    return [Text(_about(found), soft=True), *tables] if tables else []


def _about(found: Mapping[str, Any]) -> str:
    said = (
        "Errors on the test structures of each type that the file of structures names "
        "(config_type). Brackets are 95 % intervals over the structures of the type, of a "
        "difference over pairs on the same structures; one is coloured where its interval leaves "
        "out zero."
    )
    left = number(found.get("left_out"))
    more = f" {left:.0f} types with fewer structures are left out." if left > 0 else ""
    return said + more


def _value(found: object) -> Cell:
    value, low, high = _three(found)
    ends = f"[{significant(low)}, {significant(high)}]" if math.isfinite(low + high) else ""
    return Cell(significant(value), below=ends)


def _difference(found: object) -> Cell:
    value, low, high = _three(found)
    if not math.isfinite(value):
        return Cell(MISSING)
    if not math.isfinite(low + high):
        return Cell(f"{value:+.3g}")
    style = "bad" if low > 0 else "good" if high < 0 else ""
    return Cell(f"{value:+.3g}", style, below=f"[{low:+.3g}, {high:+.3g}]")


def _three(found: object) -> tuple[float, float, float]:
    numbers = [number(x) for x in found] if isinstance(found, list) else []
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else (math.nan,) * 3


def _mapping(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}
