"""Colours, sizes and the deterministic PNG writer that every figure shares."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterMathtext, LogFormatterSciNotation

# Okabe-Ito: distinguishable with all common forms of colour blindness.
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE, BLACK = "#0072B2", "#D55E00", "#CC79A7", "#000000"
GREY = "#595959"
LIGHT_TO_DARK = LinearSegmentedColormap.from_list("light_to_dark", ["#bcd9f0", BLUE, "#001d36"])
"""Little to much, so that it reads without colour."""

MODEL_COLOURS = {"dense": BLUE, "pruned": VERMILION, "scratch": GREEN}
MODEL_MARKERS = {"dense": "o", "pruned": "s", "scratch": "^"}
LOOKS = {
    "dense": (BLUE, "o"),
    "scratch": (GREEN, "^"),
    # networks of others, see `specialise`
    "teacher": (GREY, "D"),
    "finetuned": (BLUE, "o"),
    "specialised": (VERMILION, "s"),
    # criteria
    "uncertainty": (VERMILION, "s"),
    "taylor": (PURPLE, "D"),
    "fisher": (BLACK, "P"),
    "magnitude": (ORANGE, "^"),
    "activation_norm": (GREEN, "v"),
    # strategies of selection
    "random": (SKY, "D"),
    "uncertain": (VERMILION, "s"),
    "top": (VERMILION, "s"),
    "diverse": (BLUE, "o"),
    "proportional": (PURPLE, "v"),
    "band": (GREEN, "P"),
}
"""Colour and marker of what studies compare: the same in every figure."""
SPARE_LOOKS = (
    *((BLUE, "o"), (VERMILION, "s"), (GREEN, "h"), (PURPLE, "p"), (ORANGE, "*"), (BLACK, "X")),
    (GREY, ">"),
)

SPLIT_COLOURS = {"test": BLUE, "ood": ORANGE}
SPLIT_LABELS = {"test": "test", "ood": "OOD"}


WIDTH = 9.0
"""Figure width in inches; at 100 px per inch it fills the 900 px of a README."""
DPI = 200
TITLE_CHARACTERS = 88
"""Of a figure's title in one line; longer ones are cut off at both ends."""

RC: dict[str, Any] = {
    "text.parse_math": False,  # names come from strangers: a $ is a $, and never a program
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.07,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def looks(keys: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each key; unknown ones get a colour that the known ones leave free."""
    taken = {LOOKS[key][0] for key in keys if key in LOOKS}
    spare = [look for look in SPARE_LOOKS if look[0] not in taken] or SPARE_LOOKS
    unknown = [key for key in keys if key not in LOOKS]
    return {k: LOOKS.get(k) or spare[unknown.index(k) % len(spare)] for k in keys}


@contextmanager
def house_style() -> Iterator[None]:
    """Applies the package's style, and only it, for the duration of a ``with`` block.

    Starting from matplotlib's defaults keeps a user's ``matplotlibrc`` out of the figures; the
    settings found are restored at the end.
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)  # type: ignore[arg-type]  # keys are plain strings here
        yield


def new_figure(height: float) -> Figure:
    """An empty figure `WIDTH` by `height` inches with an Agg canvas, outside of pyplot.

    Called within :func:`house_style`: text made elsewhere may be parsed as mathematics.
    """
    assert not mpl.rcParams["text.parse_math"], "figures are drawn within house_style()"
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def light_grid(axes: Axes, axis: str = "both") -> None:
    """Draws a faint grid along `axis` (``x``, ``y`` or ``both``)."""
    axes.grid(True, axis=axis, color="#DDDDDD", linewidth=0.6)  # type: ignore[arg-type]


_POWER = re.compile(r"\$\\mathdefault\{(-?)(?:([\d.]+)\\times)?10\^\{(-?\d+)\}\}\$")
_NUMBER = re.compile(r"\$\\mathdefault\{(.*)\}\$")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class _PlainPowers(LogFormatterSciNotation):
    """Powers of ten as text: matplotlib writes formulas, which we do not parse."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return _plain(super().__call__(x, pos))


def _plain(text: str) -> str:
    found = _POWER.fullmatch(text)
    if found is None:
        return _NUMBER.sub(r"\1", text)
    sign, times, power = found.groups()
    return f"{sign}{f'{times}·' if times else ''}10{power.translate(_RAISED)}"


def png_bytes(figure: Figure) -> bytes:
    """Renders to PNG without date or program version, so equal input gives equal bytes."""
    buffer = io.BytesIO()
    with house_style():
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
                    axis.set_major_formatter(_PlainPowers())
                if isinstance(axis.get_minor_formatter(), LogFormatterMathtext):
                    axis.set_minor_formatter(_PlainPowers())
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
