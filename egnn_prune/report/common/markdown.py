"""Tables in Markdown, for pages of the documentation; and back, for a page of HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence

from egnn_prune.report.common.formatting import MISSING
from egnn_prune.report.common.page import Block, Printed, Section, Text
from egnn_prune.report.common.tables import Table

RULE = "---"


def markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [header, [RULE] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def chance(p: float) -> str:
    """A p-value."""
    if math.isnan(p):
        return MISSING
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def sections(text: str, title: str) -> list[Section]:
    """What a study prints: Markdown's headings, tables and paragraphs; other text as it is.

    Args:
        text: parts with an empty line between them.
        title: of what stands before the first heading, or of all that has no heading.
    """
    if f"| {RULE} |" not in text:
        return [Section(title, [Printed(text)])] if text else []
    found: list[tuple[str, list[Block]]] = [(title, [])]
    for part in text.split("\n\n"):
        if part.startswith("## "):
            found.append((part.removeprefix("## "), []))
        elif part.startswith("| "):
            header, _, *body = ([c.strip() for c in x[1:-1].split("|")] for x in part.splitlines())
            plain = [[c.replace("**", "") for c in row] for row in body]
            # names on the left, up to the first column that has a number
            numbers = [k for k, column in enumerate(zip(*plain, strict=True)) if _number(column)]
            found[-1][1].append(Table("", header, plain, left=max(1, min(numbers, default=1))))
        else:
            found[-1][1].append(Text(part))
    return [Section(name, blocks) for name, blocks in found]


def _number(column: Sequence[str]) -> bool:
    return any(cell[:1] in "+-<.0123456789" for cell in column if cell)
