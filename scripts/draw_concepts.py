"""Draw the two figures of docs/concepts.md: what a channel is, and what a copy of an irrep is."""

from __future__ import annotations

from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

FIGURES = Path(__file__).resolve().parents[1] / "figures"
KEPT, GONE, EDGE = "#c9d6f0", "#d1495b", "white"


def matrix(
    axes: Axes, left: float, rows: int, columns: int, gone: tuple[set[int], set[int]], name: str
) -> None:
    """Cells of a matrix, centred on zero; those in removed rows or columns are red."""
    for i in range(rows):
        for j in range(columns):
            colour = GONE if i in gone[0] or j in gone[1] else KEPT
            place = (left + j, rows / 2 - 1 - i)
            axes.add_patch(Rectangle(place, 1, 1, facecolor=colour, edgecolor=EDGE))
    axes.text(left + columns / 2, rows / 2 + 0.4, name, ha="center", va="bottom", fontsize=9)


def canvas(width: float, left: float, right: float, bottom: float, top: float) -> Axes:
    """Axes without a frame in which a unit is as long in both directions."""
    height = width * (top - bottom) / (right - left)
    axes = plt.figure(figsize=(width, height), layout="constrained").add_subplot()
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    axes.axis("off")
    return axes


def channels() -> None:
    """Row, bias and columns of one channel, in two layers that read it."""
    axes = canvas(7.2, -0.3, 24.5, -4.8, 4.6)
    matrix(axes, 0, 6, 4, ({2}, set()), "makes it:\nrows of a weight")
    matrix(axes, 5.5, 6, 1, ({2}, set()), "bias")
    matrix(axes, 9, 6, 1, ({2}, set()), "6 channels,\nin all atoms")
    matrix(axes, 12.5, 3, 6, (set(), {2}), "reads it:\ncolumns of a weight")
    matrix(axes, 20, 5, 4, (set(), {2}), "reads it, in\nanother layer")
    for x in (7.6, 11.2, 18.9):
        axes.annotate("", (x + 0.9, 0), (x, 0), arrowprops={"arrowstyle": "->", "color": "grey"})
    text = "red: one channel. All of it goes at once, and every tensor gets smaller."
    axes.text(12, -4.2, text, ha="center", fontsize=9)
    save(axes, "concept_channels.png")


def irreps() -> None:
    """Copies of three orders; a whole copy may go, a component may not."""
    axes = canvas(7.2, -4.6, 21.5, -5.6, 3.6)
    rows = (("l = 0\nnumbers", 1, 6), ("l = 1\nvectors", 3, 4), ("l = 2", 5, 2))
    for k, (name, size, copies) in enumerate(rows):
        y = 2 - 2.2 * k
        axes.text(-1, y + 0.5, name, ha="right", va="center", fontsize=9)
        for copy in range(copies):
            for part in range(size):
                colour = GONE if copy == 1 else KEPT
                place = (copy * (size + 0.7) + part, y)
                axes.add_patch(Rectangle(place, 1, 1, facecolor=colour, edgecolor=EDGE))
    text = "red: what may be removed is a whole copy, never one of its 2l + 1 components,\n"
    axes.text(8.5, -5.2, f"{text}which mix when the molecule turns.", ha="center", fontsize=9)
    save(axes, "concept_irreps.png")


def save(axes: Axes, name: str) -> None:
    """Write a figure and close it."""
    axes.figure.savefig(FIGURES / name, dpi=130)
    plt.close()


def main() -> None:
    """Draw both."""
    plt.switch_backend("agg")
    channels()
    irreps()


if __name__ == "__main__":
    main()
