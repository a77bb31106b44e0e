"""Which known classes the images of unknown (OOD) classes fall into, as sparsity grows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from egnn_prune.errors import InputError
from egnn_prune.report.common.statistics import Summary, summarise
from egnn_prune.report.common.style import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    VERMILION,
    house_style,
    light_grid,
    new_figure,
)
from egnn_prune.report.images import drawing
from egnn_prune.report.images.drawing import end_labels, line
from egnn_prune.report.images.lottery_rows import DENSE, described, path_of_one
from egnn_prune.report.images.rows import Metrics, Row, seeds_note

ALWAYS = ("man", "deer")
"""The pair that the original experiment speaks of: images of men called deer."""

_CLASSES, _PAIRS = 12, 5
_LOOKS = ((VERMILION, "s"), (BLUE, "o"), (GREEN, "D"), (ORANGE, "^"), (PURPLE, "v"))


def figures(metrics: Metrics) -> dict[str, tuple[Figure, str]]:
    """``ood_classes``, where rows count the predictions of OOD images by class."""
    rows = metrics["rows"]
    path = path_of_one(rows, "ood_labels")
    if len(path) < 2 or path[0][1]["strategy"] != DENSE:
        return {}
    known, unknown = _names(metrics)
    found = [shares(rows, cell, len(unknown), len(known)) for _, cell in path]
    change = 100 * (found[-1].mean(0) - found[0].mean(0))
    there = np.flatnonzero(np.isfinite(change).all(1))  # the classes with images
    if not len(there):
        return {}
    found, change = [one[:, there] for one in found], change[there]
    unknown = [unknown[i] for i in there]
    moved = np.argsort(-np.abs(change).sum(1), kind="stable")[:_CLASSES]
    pairs = _pairs(change, known, unknown)
    largest = f"{100 * path[-1][0]:g} %"
    with house_style():
        figure = new_figure(height=2.6 + 0.27 * len(moved) + 2.2)
        upper, lower = figure.subplots(2, 1, height_ratios=(0.8 + 0.27 * len(moved), 2.6))
        _heat_map(figure, upper, change[moved], known, [unknown[i] for i in moved])
        upper.set_title(
            f"At {largest} sparsity: points more (+) or fewer (-) of an OOD class (left) "
            "called a known class (below)"
        )
        x = [100 * sparsity for sparsity, _ in path]
        ends = []
        for k, (look, (i, j)) in enumerate(zip(_LOOKS, pairs, strict=False)):
            share = [summarise((100 * one[:, i, j]).tolist()) for one in found]
            shift = 0.006 * x[-1] * (k - (len(pairs) - 1) / 2)
            line(lower, [at + shift for at in x], share, look, f"{unknown[i]} called {known[j]}")
            ends.append(share)
        _limits(lower, ends)
        lower.set_title("Share of the images of an OOD class called a known class, as it is pruned")
        lower.set_xlabel("sparsity (%; 0: the dense network)")
        lower.set_ylabel("share (%)")
        light_grid(lower)
        end_labels(
            lower,
            [share[-1].mean for share in ends],
            [f"{unknown[i]} → {known[j]}" for i, j in pairs],
            [look[0] for look in _LOOKS],
        )
        about = described(path), seeds_note(rows)
        drawing.title(figure, "What unknown images are taken for", *about)
    return {
        "ood_classes": (
            figure,
            f"The {len(moved)} OOD classes whose predictions moved most from dense to {largest} "
            "sparsity (mean over the seeds; orange: more, purple: fewer of its images), and "
            "the share over sparsity for the pairs that changed most"
            + (f", with {ALWAYS[0]} → {ALWAYS[1]}." if _position(known, unknown) else "."),
        )
    }


def shares(rows: Sequence[Row], cell: Row, unknown: int, known: int) -> NDArray[Any]:
    """Share of the images of an OOD class that is given a known class, [seeds, unknown, known].

    NaN for classes without images; lists that are missing at the end are such classes.

    Raises:
        InputError: If counts do not fit the names of the classes.
    """
    found = []
    for row in rows:
        if not (cell.items() <= row.items()) or row.get("ood_labels") is None:
            continue
        try:
            counts = np.array(row["ood_labels"], dtype=float)
        except (TypeError, ValueError):
            counts = np.zeros(0)
        fits = counts.ndim == 2 and counts.shape[1] == known and len(counts) <= unknown
        if not fits or not (counts >= 0).all():
            raise InputError(
                f"metrics: ood_labels of seed {row['seed']} must hold {unknown} lists of {known} "
                "counts, one list per data.ood_classes, one count per data.classes"
            )
        counts = np.concatenate([counts, np.zeros((unknown - len(counts), known))])
        total = counts.sum(1, keepdims=True)
        found.append(np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0))
    return np.stack(found)


def _names(metrics: Metrics) -> tuple[list[str], list[str]]:
    data = metrics.get("data") or {}
    known, unknown = data.get("classes"), data.get("ood_classes")
    if not known or not unknown:
        raise InputError("metrics: rows with ood_labels need data.classes and data.ood_classes")
    return [_word(c) for c in known], [_word(c) for c in unknown]


def _word(label: object) -> str:
    return str(label).replace("_", " ")


def _position(known: Sequence[str], unknown: Sequence[str]) -> tuple[int, int] | None:
    if ALWAYS[0] in unknown and ALWAYS[1] in known:
        return unknown.index(ALWAYS[0]), known.index(ALWAYS[1])
    return None


def _pairs(
    change: NDArray[Any], known: Sequence[str], unknown: Sequence[str]
) -> list[tuple[int, int]]:
    """The pair that is always shown, then those that grew and shrank most, in turns."""
    always = _position(known, unknown)
    order = np.argsort(change, axis=None, kind="stable").tolist()
    mixed = [i for both in zip(order, reversed(order), strict=True) for i in both]
    wanted = [divmod(i, change.shape[1]) for i in mixed]
    wanted = [*([always] if always else []), *wanted]
    return list(dict.fromkeys(wanted))[: min(_PAIRS, change.size)]


def _heat_map(
    figure: Figure, axes: Axes, change: NDArray[Any], known: Sequence[str], names: Sequence[str]
) -> None:
    most = max(1.0, float(np.abs(change).max()))
    axes.imshow(change, cmap="PuOr_r", vmin=-most, vmax=most, aspect="auto")
    axes.set_xticks(range(len(known)), known, rotation=30 if len(known) > 6 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (i, j), value in np.ndenumerate(change):
        dark = abs(value) > 0.6 * most
        axes.text(
            j,
            i,
            f"{value:+.0f}" if round(value) else "0",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if dark else "black",
        )


def _limits(axes: Axes, ends: Sequence[Sequence[Summary]]) -> None:
    tops = [s.mean + (0 if math.isnan(s.half) else s.half) for share in ends for s in share]
    means = [s.mean for share in ends for s in share]
    axes.set_ylim(0, min(100.0, 1.05 * min(max(tops), 1.6 * max(means) + 2)))
