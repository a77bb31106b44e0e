"""Table and figure of the study of specialised potentials."""

from __future__ import annotations
from typing import Any
from matplotlib.figure import Figure


def specialisation_table(rows: list[dict[str, Any]]) -> str:
    return ""


def specialisation_plot(rows: list[dict[str, Any]]) -> Figure:
    return Figure()
