"""The page of a study: the tables that it prints, its figure, all its rows and its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from egnn_prune.report.common import page
from egnn_prune.report.common.page import Block, Picture, Printed, Section, Text, as_text
from egnn_prune.report.common.tables import Table

MOST_ROWS = 1000
"""Rows that the page shows; the CSV file holds all."""


def study_page(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    text: str,
    *,
    png: bytes | None = None,
    columns: Sequence[str] = (),
    config: str = "",
) -> str:
    """The HTML document.

    Args:
        name: Of the study, as its files are called.
        rows: One mapping per result, as in the CSV file.
        text: The tables, as printed.
        png: The figure.
        columns: The first columns of the rows, in their order.
        config: The settings as YAML.
    """
    title = name.replace("_", " ").capitalize()
    seeds = list(dict.fromkeys(str(row["seed"]) for row in rows if "seed" in row))
    over = f" over seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}" if seeds else ""
    alt = f"The results of the study {name}, which the tables hold as numbers"
    figure: list[Block] = [Picture(png, alt, [])] if png else []
    return page.render(
        title,
        f"{title}: {len(rows):,} result{'' if len(rows) == 1 else 's'}{over}",
        [
            Section("Tables", [Printed(text)] if text else []),
            Section("Figure", figure),
            Section("Rows", _rows(name, rows, columns)),
        ],
        config=config,
        terms=(),
    )


def _rows(name: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Sequence[Block]:
    header = list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
    header = [key for key in header if any(row.get(key) is not None for row in rows)]
    if not header:
        return []
    shown = rows[:MOST_ROWS]
    body = [[_cell(row.get(key)) for key in header] for row in shown]
    said = f"The first {len(shown):,} of {len(rows):,} rows" if len(shown) < len(rows) else "Rows"
    note = Text(f"{said} of {name}.csv, a row for each result.", soft=True)
    return [note, Table("", [key.replace("_", " ") for key in header], body)]


def _cell(value: object) -> str:
    return "" if value is None else as_text(value, compact=True)
