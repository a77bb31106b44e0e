"""Tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from egnn_prune.report.common.formatting import MISSING


def markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def chance(p: float) -> str:
    """A p-value."""
    if math.isnan(p):
        return MISSING
    return "<0.001" if p < 0.0005 else f"{p:.3f}"
