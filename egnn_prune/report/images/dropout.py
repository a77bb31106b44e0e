"""One forward pass against the mean of many with dropout (Gal and Ghahramani 2016), by sparsity."""

from __future__ import annotations

from matplotlib.figure import Figure

from egnn_prune.report.common.style import BLUE, VERMILION, house_style, light_grid, new_figure
from egnn_prune.report.images import drawing
from egnn_prune.report.images.drawing import frame, line
from egnn_prune.report.images.lottery_rows import described, path_of_one
from egnn_prune.report.images.rows import (
    AUROC,
    ECE,
    NLL,
    UCE,
    Metrics,
    Quantity,
    present,
    seeds_note,
    summary,
)

_PAIRS = (
    *((single, Quantity(f"dropout_{single.key}", single.name)) for single in (ECE, UCE, NLL)),
    (AUROC, Quantity("dropout_auroc_max", AUROC.name)),
)


def figures(metrics: Metrics) -> dict[str, tuple[Figure, str]]:
    """``dropout``, where rows hold numbers of Monte Carlo dropout."""
    rows = metrics["rows"]
    pairs = [(one, many) for one, many in _PAIRS if present(rows, [many])]
    if not pairs:
        return {}
    path = path_of_one(rows, pairs[0][1].key)
    x = [100 * sparsity for sparsity, _ in path]
    with house_style():
        down = -(-len(pairs) // 2)
        figure = new_figure(height=1.0 + 2.2 * down)
        grid = figure.subplots(down, 2, squeeze=False, sharex=True)
        for axes in grid.flat[len(pairs) :]:
            axes.set_visible(False)
        for axes, (one, many) in zip(grid.flat, pairs, strict=False):
            single = [summary(rows, one, **cell) for _, cell in path]
            mean = [summary(rows, many, **cell) for _, cell in path]
            line(axes, x, single, (VERMILION, "s"), "single pass")
            line(axes, x, mean, (BLUE, "o"), "Monte Carlo dropout", "--")
            frame(axes, [*single, *mean])
            axes.set_title(one.title())
            light_grid(axes)
        for k, axes in enumerate(grid.flat[: len(pairs)]):
            if k + 2 >= len(pairs):
                axes.xaxis.set_tick_params(labelbottom=True)
                axes.set_xlabel("sparsity (%; 0: the dense network)")
        drawing.legend(figure, [grid[0, 0]], 2)
        drawing.title(figure, "Does Monte Carlo dropout help?", described(path), seeds_note(rows))
    return {
        "dropout": (
            figure,
            "The same networks evaluated once, and as the mean prediction of many passes with "
            "dropout. OOD AUROC is that of the largest probability.",
        )
    }
