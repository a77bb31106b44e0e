"""Tables, figures and the self-contained HTML page made from the files of one run.

The package reads what the training job left (``metrics.json``, ``predictions.npz``,
``config.yaml``) and imports little else of ``egnn_prune``, so a report can be redrawn on
a machine without PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from egnn_prune.system.lazy_imports import lazy_names

if TYPE_CHECKING:
    from egnn_prune.report.run.calibration_figure import calibration_figure
    from egnn_prune.report.run.figures import pruned_vs_baseline, write_figures
    from egnn_prune.report.run.gallery import gallery_figure
    from egnn_prune.report.run.html import write_report
    from egnn_prune.report.run.parity import parity
    from egnn_prune.report.run.tables import comparison_table, ledger_table
else:  # matplotlib, which tables and CSV files do not need
    __getattr__ = lazy_names(
        __name__,
        {
            "run.calibration_figure": ("calibration_figure",),
            "run.figures": ("pruned_vs_baseline", "write_figures"),
            "run.gallery": ("gallery_figure",),
            "run.html": ("write_report",),
            "run.parity": ("parity",),
            "run.tables": ("comparison_table", "ledger_table"),
        },
    )

__all__ = [
    "calibration_figure",
    "comparison_table",
    "gallery_figure",
    "ledger_table",
    "parity",
    "pruned_vs_baseline",
    "write_figures",
    "write_report",
]
