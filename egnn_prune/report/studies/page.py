"""The page of a study: the tables that it prints, its figure, all its rows and its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from egnn_prune.report.common import page
from egnn_prune.report.common.markdown import sections
from egnn_prune.report.common.page import MOST_ITEMS, Block, Picture, Section, Text, as_text
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
    apart: Sequence[str] = (),
    config: str = "",
) -> str:
    """The HTML document.

    Args:
        name: Of the study, as its files are called.
        rows: One mapping per result, as in the CSV file.
        text: The tables, as printed; those in Markdown become tables.
        png: The figure.
        columns: The first columns of the rows, in their order.
        apart: Columns whose values get a table each.
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
            *sections(text, "Tables"),
            Section("Figure", figure),
            Section("Rows", _rows(name, rows, columns, apart)),
        ],
        config=config,
        terms=(),
    )


def _rows(
    name: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], apart: Sequence[str]
) -> Sequence[Block]:
    """Tables of rows, one for each of the values that stand apart; long values are in the file."""
    shown = rows[:MOST_ROWS]
    kinds = list(dict.fromkeys(tuple(row.get(key) for key in apart) for row in shown))
    tables = []
    for kind in kinds:
        inside = [row for row in shown if tuple(row.get(key) for key in apart) == kind]
        header = list(dict.fromkeys([*columns, *(key for row in inside for key in row)]))
        header = [key for key in header if _fits([row.get(key) for row in inside])]
        if header:
            title = ", ".join(str(value) for value in kind if value is not None)
            body = [[_cell(row.get(key)) for key in header] for row in inside]
            tables.append(Table(title, [key.replace("_", " ") for key in header], body))
    if not tables:
        return []
    said = f"The first {len(shown):,} of {len(rows):,} rows" if len(shown) < len(rows) else "Rows"
    long = " Columns with long values are in the file alone." if _has_long(shown) else ""
    note = Text(f"{said} of {name}.csv, a row for each result.{long}", soft=True)
    return [note, *tables]


def _has_long(rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(_is_long(value) for row in rows for value in row.values())


def _fits(found: Sequence[object]) -> bool:
    """Whether a column has anything, and nothing that is longer than a cell."""
    return any(value is not None for value in found) and not any(map(_is_long, found))


def _is_long(value: object) -> bool:
    if isinstance(value, list):
        return len(value) > MOST_ITEMS or any(isinstance(x, Mapping | list) for x in value)
    return isinstance(value, Mapping)


def _cell(value: object) -> str:
    return "" if value is None else as_text(value, compact=True)
