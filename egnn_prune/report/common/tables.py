"""A table that is shown as plain text in the terminal and as HTML on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from egnn_prune.report.common.formatting import text_table


class Cell(NamedTuple):
    """A cell of a page's table that is more than text.

    Attributes:
        text: What it says.
        style: ``good``, ``bad``, ``soft`` or empty.
        unit: Shown behind the text, softly.
        below: A second line, soft and small, such as an interval.
    """

    text: str
    style: str = ""
    unit: str = ""
    below: str = ""


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        title: What it shows, with how the numbers are summarised; may be empty.
        header: Column titles.
        body: Rows with one cell per column.
        left: How many leading columns are names.
        note: A sentence below it; may be empty.
        total: Whether the last row sums the others.
        sortable: Whether a page offers to sort the rows; not where each is of another quantity.
    """

    kind: ClassVar[str] = "table"
    title: str
    header: Sequence[str]
    body: Sequence[Sequence[str | Cell]]
    left: int = 1
    note: str = ""
    total: bool = False
    sortable: bool = True

    def text(self) -> str:
        """Plain text without a trailing newline."""
        plain = [[_plain(cell) for cell in row] for row in self.body]
        lines = [self.title, text_table(list(self.header), plain, self.left)]
        return "\n".join([*lines, self.note] if self.note else lines)


def _plain(cell: str | Cell) -> str:
    return cell if isinstance(cell, str) else f"{cell.text} {cell.below}".rstrip()


def without_empty(header: Sequence[str], body: Sequence[Sequence[str]]) -> tuple[list, list]:
    """Leaves out the columns in which no row has anything."""
    kept = [i for i in range(len(header)) if any(row[i] for row in body)]
    return [header[i] for i in kept], [[row[i] for i in kept] for row in body]


def joined(tables: Sequence[Table]) -> str:
    """Tables below each other."""
    return "\n\n".join(table.text() for table in tables)
