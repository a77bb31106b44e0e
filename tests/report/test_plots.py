"""Plot primitives, looks and texts that all studies share."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from egnn_prune.report.common.plots import band, diagonal, line, square
from egnn_prune.report.common.statistics import interval_text, over_seeds, spread_text, summarise
from egnn_prune.report.common.style import LOOKS, house_style, looks, new_figure, png_bytes


@pytest.fixture(autouse=True)
def styled() -> Iterator[None]:
    """Figures begin in the house style only."""
    with house_style():
        yield


def test_looks_keep_the_order_and_unknown_ones_take_a_free_colour():
    found = looks(["mine", "dense", "uncertainty", "other"])
    assert list(found) == ["mine", "dense", "uncertainty", "other"]
    assert found["dense"] == LOOKS["dense"]
    assert len({colour for colour, _ in found.values()}) == 4
    many = looks([str(i) for i in range(20)])  # more than there are colours
    assert len(many) == 20 and len(set(many.values())) >= 6


def test_line_of_logarithms():
    """The mean is the geometric one, and the interval reaches up by the factor it reaches down."""
    found = [summarise(map(math.log, (1.0, 2.0, 4.0))), summarise([math.log(3.0)])]
    axes = new_figure(2).add_subplot()
    line(axes, [0, 1], found, ("red", "o"), "name", scale=np.exp)
    dots, _, (bars,) = axes.containers[0]
    assert dots.get_ydata() == pytest.approx([2.0, 3.0])
    low, high = bars.get_segments()[0][:, 1]
    assert 2 / low == pytest.approx(high / 2) and high == pytest.approx(math.exp(found[0].high))
    assert np.ptp(bars.get_segments()[1][:, 1]) == pytest.approx(0)


def test_one_seed_has_neither_bar_nor_band():
    axes = new_figure(2).add_subplot()
    one = [summarise([1.0]), summarise([2.0])]
    line(axes, [0, 1], one, ("red", "o"), "a")
    band(axes, [0, 1], one, ("red", "o"), "b")
    assert not axes.collections


@pytest.mark.parametrize(("points", "scale"), [([1.0, 3.9], "linear"), ([1.0, 4.1], "log")])
def test_square_axes_hold_all_points(points, scale):
    axes = new_figure(2).add_subplot()
    diagonal(axes)
    low, high, logarithmic = square([axes], np.array(points))
    assert axes.get_xscale() == axes.get_yscale() == scale and logarithmic == (scale == "log")
    assert axes.get_xlim() == axes.get_ylim() == pytest.approx((low, high))
    assert low < 1.0 and high > points[1]
    axes.figure.canvas.draw()  # the diagonal can be drawn on both


def test_texts_of_summaries():
    assert interval_text(summarise([]), 2) == "n/a"
    assert interval_text(summarise([-0.001]), 1, " %") == "+0.0 %"  # not -0.0
    assert interval_text(summarise([1.0, 1.0]), 1) == "+1.0 [+1.0, +1.0]"
    assert spread_text(summarise([0.01, 0.03])) == "0.0200 ± 0.0141"
    assert spread_text(summarise([0.01, 0.03]), 3) == "0.020 ± 0.014"
    assert spread_text(summarise([0.01])) == "0.0100"


def test_cells_leave_out_what_is_not_finite():
    rows = [{"seed": k, "arm": "a", "x": x} for k, x in enumerate([1.0, None, math.nan, 3.0])]
    assert over_seeds([*rows, {"seed": 9, "arm": "b", "x": 7.0}], "x", arm="a").mean == 2.0


def test_powers_of_ten_are_text_and_no_formulas() -> None:
    with house_style():
        figure = new_figure(2.0)
        left, middle, right = figure.subplots(1, 3)
        left.set(xscale="log", xlim=(1e-7, 1e-2))
        middle.set(yscale="log", ylim=(2, 7))
        right.set_yscale("symlog")
        right.set_ylim(-100, 100)
    png_bytes(figure)
    labels = [
        text.get_text()
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for text in axis.get_ticklabels(which="both")
    ]
    assert {"10⁻⁶", "3·10⁰", "-10¹", "0"} <= {*labels}
    assert not any("$" in label or "\\" in label for label in labels)
