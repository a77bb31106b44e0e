"""Errors of forces, element by element and model by model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from egnn_prune.report.common.files import number
from egnn_prune.report.common.formatting import si, significant
from egnn_prune.report.common.tables import Table


def element_table(models: Mapping[str, object], title: str) -> Table | None:
    """A row for each element; None where no model has such errors, as in older runs.

    Args:
        models: By the name that is shown: by symbol mappings with ``atoms``, ``mae``, ``rmse``.
        title: What it shows, with the unit.
    """
    known = {name: _by_element(found) for name, found in models.items()}
    known = {name: found for name, found in known.items() if found}
    elements = list(dict.fromkeys(symbol for found in known.values() for symbol in found))
    if not elements:
        return None
    body = []
    for symbol in elements:
        here = [found.get(symbol, {}) for found in known.values()]
        atoms = next(number(one.get("atoms")) for one in here if one)
        errors = [significant(number(one.get(key))) for key in ("rmse", "mae") for one in here]
        body.append([symbol, si(atoms), *errors])
    header = [f"{name} {key}" for key in ("RMSE", "MAE") for name in known]
    return Table(title, ["element", "atoms", *header], body)


def _by_element(found: object) -> dict[str, Mapping[str, Any]]:
    items = found.items() if isinstance(found, Mapping) else ()
    return {str(symbol): one for symbol, one in items if isinstance(one, Mapping) and one}
