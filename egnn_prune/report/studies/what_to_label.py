"""Which structures to label: errors of what learned from them, against random choice.

A row describes one network: ``kind`` (of the rare part), ``seed``, ``share`` (of the pool that is
rare), ``strategy``, ``rare_chosen`` (labelled structures that are rare), and ``rare_force_rmse``
and ``common_force_rmse`` on test structures, in meV/Angstrom. The strategy ``none`` is the network
before.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from egnn_prune.report.common.formatting import text_table
from egnn_prune.report.common.plots import interval_note, legend_below, line, zero
from egnn_prune.report.common.statistics import (
    Rows,
    by_seed,
    over_seeds,
    paired,
    paired_text,
    spread_text,
    values,
)
from egnn_prune.report.common.style import house_style, light_grid, looks, new_figure

RANDOM, BEFORE = "random", "none"
TESTS = {"rare_force_rmse": "rare ones", "common_force_rmse": "300 K"}
KINDS = {"hot": "hot frames", "bond": "a stretched bond"}


def what_to_label_table(rows: Rows) -> str:
    """Mean ± standard deviation over seeds, and the paired difference to random [95 %].

    A negative difference says that the strategy beats random choice; an interval that holds 0 says
    that these seeds cannot tell.
    """
    body = []
    for kind in values(rows, "kind"):
        for share in values(rows, "share", kind=kind):
            for strategy in values(rows, "strategy", kind=kind, share=share):
                cell = {"kind": kind, "share": share, "strategy": strategy}
                chosen = over_seeds(rows, "rare_chosen", **cell)
                before = strategy == BEFORE
                row = ["" if before else f"{share:.0%}", "before" if before else strategy]
                row += [str(len(by_seed(rows, "rare_force_rmse", **cell)))]
                row += ["" if before else f"{chosen.mean:.1f}"]
                for key in TESTS:
                    found = by_seed(rows, key, **cell)
                    random = by_seed(rows, key, **cell | {"strategy": RANDOM})
                    row.append(spread_text(over_seeds(rows, key, **cell)))
                    alone = strategy in (RANDOM, BEFORE) or not random
                    row.append("" if alone else paired_text(found, random))
                body.append([KINDS.get(kind, kind), *row])
    header = ["rare part", "of the pool", "choice", "seeds", "rare labelled"]
    for name in TESTS.values():
        header += [f"force RMSE, {name} (meV/A)", "difference to random [95 %]"]
    return text_table(header, body, left=3)


@house_style()
def what_to_label_plot(rows: Rows, labelled: int = 0) -> Figure:
    """Differences to random choice against the share of the rare part.

    Args:
        rows: see the module's description.
        labelled: structures that were labelled, for the title.

    Returns:
        A figure with a row for each kind of rare part, rare test structures beside ordinary ones;
        dots are means over the seeds, bars 95 % t-intervals.
    """
    kinds = values(rows, "kind")
    figure = new_figure(height=1.3 + 2.6 * max(1, len(kinds)))
    panels = figure.subplots(max(1, len(kinds)), 2, squeeze=False)
    for kind, pair in zip(kinds, panels, strict=False):  # an empty figure has a row, too
        inside = [r for r in rows if r["kind"] == kind and r["strategy"] != BEFORE]
        shares = sorted(values(inside, "share"))
        names = [s for s in values(rows, "strategy") if s not in (RANDOM, BEFORE)]
        for axes, (key, title) in zip(pair, TESTS.items(), strict=True):
            for k, (name, look) in enumerate(looks(names).items()):
                found = [
                    paired(
                        by_seed(inside, key, share=share, strategy=name),
                        by_seed(inside, key, share=share, strategy=RANDOM),
                    )
                    for share in shares
                ]
                places = np.arange(len(shares)) + 0.18 * (k - (len(names) - 1) / 2)
                line(axes, places, found, look, name, style="none")
            zero(axes)
            axes.set_xticks(range(len(shares)), [f"{share:.0%}" for share in shares])
            axes.set_xlabel(f"share of the pool: {KINDS.get(kind, kind)}")
            axes.set_ylabel("RMSE minus random's (meV/Å)")
            axes.set_title(f"Tested on {title}: below 0 beats random")
            light_grid(axes, "y")
    if kinds:
        legend_below(figure, panels[0][0])
    after = f"{labelled} labelled; " if labelled else ""
    figure.suptitle(f"What to label?  ({after}{interval_note(rows, 'bars')})")
    return figure
