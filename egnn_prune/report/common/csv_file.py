"""Rows of results as a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from egnn_prune.report.common.files import write_atomic


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path, columns: Sequence[str] = ()) -> Path:
    """Writes rows as CSV, atomically; missing and NaN values become empty cells.

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
    writer.writeheader()
    for row in rows:
        writer.writerow({key: value for key, value in row.items() if value == value})
    return write_atomic(Path(path), buffer.getvalue().encode("utf-8"))
