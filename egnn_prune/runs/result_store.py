"""Rows of a study: kept in a file as they are found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from egnn_prune.errors import ConfigError, InputError
from egnn_prune.system.files import read_json, write_json

Row = dict[str, Any]


class Rows:
    """Rows in a JSON file, written after each, so that an interrupted study goes on.

    Args:
        path: the file; read if it exists.
        asked: the settings that all rows must share.
        shared: values that every new row begins with.

    Raises:
        ConfigError: the file holds rows that were found with other settings.
        InputError: the file is damaged.
    """

    def __init__(self, path: Path, asked: Row, **shared: Any) -> None:
        self.path, self.asked, self.shared = path, asked, shared
        self.rows: list[Row] = []
        if path.exists():
            found = read_json(path)
            if not isinstance(found, dict) or not isinstance(found.get("rows"), list):
                raise InputError(
                    f"{path} is damaged or of an earlier version; delete it to start this seed anew"
                )
            if found.get("asked") != asked:
                raise ConfigError(
                    f"{path} holds rows found with {found.get('asked')}, not {asked}; choose "
                    "another out, or delete that file"
                )
            self.rows = found["rows"]

    def find(self, **cell: Any) -> Row | None:
        """The row with these values, if it was found already."""
        return next((r for r in self.rows if cell.items() <= r.items()), None)

    def add(self, row: Row) -> Row:
        """Keep a row, in memory and on disk."""
        self.rows.append({**self.shared, **row})
        write_json(self.path, {"asked": self.asked, "rows": self.rows})
        return self.rows[-1]

    def fill(self, cells: Iterable[Row], find_out: Callable[..., Row]) -> list[Row]:
        """The rows of these cells; what is missing is found out, one after another, and kept.

        Args:
            cells: values that tell rows apart.
            find_out: called with the values of a cell, gives the rest of its row.
        """
        return [self.find(**c) or self.add({**c, **find_out(**c)}) for c in cells]
