"""Rows of results as a CSV file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from egnn_prune.report.common.files import write_atomic

#: What makes a spreadsheet take a text for a formula, and run it.
FORMULA = ("=", "+", "-", "@", "\t")
#: What is no formula although it begins like one.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def cell(value: Any) -> Any:
    """A value as a cell: text that a spreadsheet would run as a formula begins with a ``'``.

    A number stays one, also as text: ``"-0.5"``. Names of structures and files come from strangers.
    Source: OWASP, CSV Injection.
    """
    if not isinstance(value, str):
        return value
    value = value.replace("\r", " ")  # Python's writer leaves it bare, and it ends a row
    return f"'{value}" if value.startswith(FORMULA) and not NUMBER.fullmatch(value) else value


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path, columns: Sequence[str] = ()) -> Path:
    """Writes rows as CSV, atomically; missing and NaN values become empty cells, see :func:`cell`.

    Args:
        rows: One mapping per row. Keys beyond `columns` become further columns.
        path: Where to write.
        columns: The first columns, in order.

    Returns:
        `path`.
    """
    names = list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writerow({name: cell(name) for name in names})
    for row in rows:
        writer.writerow({key: cell(value) for key, value in row.items() if value == value})
    return write_atomic(Path(path), buffer.getvalue().encode("utf-8"))
