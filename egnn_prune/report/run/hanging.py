"""Drawings of molecules at one scale, in rows under headings, with a bar for their colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from egnn_prune.report.common.style import BLUE, GREY, VERMILION, WIDTH, new_figure
from egnn_prune.report.run.molecule import room_for

Array = NDArray[np.float64]

_COLUMNS = 4
LITTLE_TO_MUCH = ("#f2f8fd", "#7ab8e0", BLUE, "#001d36")
_SURE_TO_UNSURE = LinearSegmentedColormap.from_list("sure_to_unsure", LITTLE_TO_MUCH)
"""Nearly white to nearly black; rings have another colour."""
ATOM_COLOURS = (
    "The darker an atom, the longer the calibrated error bar of the force on it, on one scale for "
    "all drawings; letters name the elements but hydrogen. A ring marks atoms whose surroundings "
    "are farther from those of the training than any of 99 % of the validation structures."
)
"""What colours and rings mean, for captions."""
STRANGE = 1.0
"""Distance, in units of the limit, beyond which an atom is unlike those of the training."""


class Drawn(Protocol):
    """What can be hung: it has positions ``[n, 3]`` in Angstrom that face the viewer."""

    @property
    def z(self) -> NDArray[np.int64]:
        """Atomic numbers."""

    @property
    def pos(self) -> Array:
        """Right, up, towards the viewer."""


Each = TypeVar("Each", bound=Drawn)


@dataclass(frozen=True)
class AtomColours:
    """Colours that mean error bars of forces, the same in every drawing of a figure.

    Attributes:
        most: The error bar of the darkest atom.
        unit: Of error bars.
    """

    most: float
    unit: str

    @classmethod
    def of(cls, stds: Sequence[Array], unit: str) -> AtomColours:
        """From nothing to the longest finite error bar."""
        every = np.concatenate([np.ravel(std) for std in stds])
        return cls(float(every.max(where=np.isfinite(every), initial=0.0)) or 1.0, unit)

    def __call__(self, std: Array) -> Array:
        """``[n, 3]`` colours; an infinite error bar is as dark as the longest."""
        return _SURE_TO_UNSURE(np.nan_to_num(std / self.most, nan=0.0, posinf=1.0))[:, :3]


def hang(
    halls: Mapping[str, Sequence[Each]],
    panel: Callable[[Axes, Each, float], None],
    foot: str,
    below: float = 0.0,
    colours: AtomColours | None = None,
) -> Figure:
    """Places headings and rows of panels by hand: one scale, in inches per Angstrom, for all.

    A row is as high as its highest molecule, which saves a third of the page.

    Args:
        halls: What to show under each heading.
        panel: Draws one of them into axes in Angstrom that are so many inches wide.
        foot: A line of explanation at the bottom.
        below: Height of what `panel` draws under a molecule, in Angstrom.
        colours: What colours of atoms mean; a bar explains them.
    """
    margin, gap, words, heading, bar = 0.1, 0.12, 0.52, 0.4, 0.55 if colours else 0.0
    end = 0.4 + bar
    cell = (WIDTH - 2 * margin - (_COLUMNS - 1) * gap) / _COLUMNS
    everyone = [each for shown in halls.values() for each in shown]
    right = max(1.5, *(_extent(each)[0] for each in everyone))
    scale = cell / (2 * right)
    lines = {
        title: [shown[i : i + _COLUMNS] for i in range(0, len(shown), _COLUMNS)]
        for title, shown in halls.items()
    }
    ups = {
        title: [max(1.0, *(_extent(each)[1] for each in line)) for line in rows]
        for title, rows in lines.items()
    }
    heights = {title: [(2 * up + below) * scale for up in rows] for title, rows in ups.items()}
    height = end + sum(heading + sum(words + gap + h for h in rows) for rows in heights.values())
    figure = new_figure(height=height)
    figure.set_layout_engine("none")
    top = height
    for title, rows in lines.items():
        figure.text(*(margin / WIDTH, (top - 0.25) / height, title), fontsize=12, fontweight="bold")
        top -= heading
        for line, up, drawn in zip(rows, ups[title], heights[title], strict=True):
            top -= words + drawn
            for column, each in enumerate(line):
                left = margin + column * (cell + gap)
                axes = figure.add_axes(
                    (left / WIDTH, top / height, cell / WIDTH, drawn / height),
                    xlim=(-right, right),
                    ylim=(-up - below, up),
                )
                panel(axes, each, cell)
            top -= gap
    figure.text(0.5, (0.12 + bar) / height, foot, ha="center", fontsize=9, color=GREY)
    if colours:
        _colour_bar(figure, colours, height)
    return figure


def _colour_bar(figure: Figure, colours: AtomColours, height: float) -> None:
    """What colours and rings mean, at the bottom."""
    axes = figure.add_axes((0.08, 0.42 / height, 0.34, 0.12 / height), label="colours")
    mappable = ScalarMappable(Normalize(0, colours.most), _SURE_TO_UNSURE)
    figure.colorbar(mappable, cax=axes, orientation="horizontal")
    axes.locator_params(axis="x", nbins=6)
    axes.tick_params(labelsize=8.5)
    texts = (
        (0.435, "black", f"error bar of the force on an atom ({colours.unit})"),
        (0.79, VERMILION, "◯ unlike training atoms"),
    )
    for x, colour, text in texts:
        figure.text(x, 0.42 / height, text, fontsize=9, color=colour)


def _extent(each: Drawn) -> tuple[float, float]:
    """Half width and half height of a drawing in Angstrom, with room for the outer atoms."""
    room = np.maximum(0.5, room_for(each.z))
    right, up = (np.abs(each.pos[:, :2]) + room[:, None]).max(axis=0)
    return float(right), float(up)
