"""Table and figure of the benchmark, from its rows (``benchmark.json``)."""

from __future__ import annotations

from pathlib import Path

from egnn_prune.report.benchmark.tables import Found, markdown, text
from egnn_prune.system.files import atomic

TABLE, FIGURE = "benchmark.md", "benchmark.png"


def write_report(found: Found, out: Path) -> str:
    """Write ``benchmark.md`` and ``benchmark.png``.

    Args:
        found: the content of ``benchmark.json``.
        out: the folder.

    Returns:
        The table as plain text.
    """
    from egnn_prune.report.benchmark.figure import benchmark_figure
    from egnn_prune.report.common.style import png_bytes

    with atomic(out / TABLE) as path:
        path.write_text(markdown(found))
    figure = benchmark_figure(found["rows"])
    if figure is not None:
        with atomic(out / FIGURE) as path:
            path.write_bytes(png_bytes(figure))
    return text(found)


__all__ = ["FIGURE", "TABLE", "write_report"]
