"""The report of an image experiment: figures, tables and one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from matplotlib.figure import Figure

from egnn_prune.errors import InputError
from egnn_prune.report.common import page
from egnn_prune.report.common.csv_file import write_rows
from egnn_prune.report.common.files import number, write_atomic
from egnn_prune.report.common.page import Block, Pairs, Picture, Section, Text, pairs
from egnn_prune.report.common.style import png_bytes
from egnn_prune.report.common.tables import Table, joined
from egnn_prune.report.images import incremental, lottery, magnitude, selection, structured
from egnn_prune.report.images.rows import Metrics, Row, check, seeds_note
from egnn_prune.system.files import read_json

REPORT_NAME, TABLE_NAME, ROWS_NAME = "report.html", "table.txt", "rows.csv"


class Kind(Protocol):
    """What the module of one kind of experiment holds.

    Attributes:
        REQUIRED: Numbers that every row needs.
        CELL: What identifies a row beside its seed.
    """

    REQUIRED: tuple[str, ...]
    CELL: tuple[str, ...]

    def figures(self, metrics: Metrics) -> dict[str, tuple[Figure, str]]:
        """Figures by file name, each with its caption."""

    def tables(self, metrics: Metrics) -> list[Table]:
        """The tables of the page."""

    def headline(self, metrics: Metrics) -> str:
        """One sentence."""


KINDS: dict[str, Any] = {
    "lottery": lottery,
    "magnitude": magnitude,
    "incremental": incremental,
    "structured": structured,
    "selection": selection,
}


def kind_of(metrics: object) -> Kind:
    """The module that shows these metrics, which are checked.

    Raises:
        InputError: If the kind of experiment is unknown or the rows are malformed.
    """
    name = metrics.get("experiment") if isinstance(metrics, Mapping) else None
    if not isinstance(name, str) or name not in KINDS:
        raise InputError(
            f"metrics: experiment is {name!r}; the report knows {', '.join(sorted(KINDS))}"
        )
    kind: Kind = KINDS[name]
    rows = check(metrics, kind.REQUIRED, kind.CELL)
    if name == "lottery":
        lottery.check_structures(rows)
    return kind


def image_table(metrics: Metrics) -> str:
    """The results of an image experiment as plain text: mean ± sd over the seeds.

    Args:
        metrics: The content of ``metrics.json``.

    Returns:
        Several lines without a trailing newline.

    Raises:
        InputError: If the kind of experiment is unknown or the rows are malformed.
    """
    return joined(kind_of(metrics).tables(metrics))


def write_image_report(folder: Path) -> Path:
    """Writes ``rows.csv``, ``table.txt``, the figures as PNG and ``report.html``.

    All is made before the first file is written, and every file is written atomically.

    Args:
        folder: Of one experiment, with ``metrics.json`` and, to be shown, ``config.yaml``.

    Returns:
        Path of the page.

    Raises:
        InputError: If ``metrics.json`` is missing or malformed.
    """
    folder = Path(folder)
    metrics = read_json(folder / "metrics.json")
    try:
        kind = kind_of(metrics)
        text = joined(kind.tables(metrics))
        drawn = {
            name: (png_bytes(figure), caption)
            for name, (figure, caption) in kind.figures(metrics).items()
        }
        config = folder / "config.yaml"
        settings = config.read_text(encoding="utf-8") if config.exists() else ""
        html = render(metrics, kind, drawn, settings)
    except InputError as error:
        raise InputError(f"{folder / 'metrics.json'}: {error}") from None
    write_rows([_scalars(row) for row in metrics["rows"]], folder / ROWS_NAME)
    write_atomic(folder / TABLE_NAME, (text + "\n").encode("utf-8"))
    for name, (png, _) in drawn.items():
        write_atomic(folder / f"{name}.png", png)
    return write_atomic(folder / REPORT_NAME, html.encode("utf-8"))


def render(
    metrics: Metrics, kind: Kind, drawn: Mapping[str, tuple[bytes, str]], config: str
) -> str:
    """The HTML document.

    Args:
        metrics: The checked content of ``metrics.json``.
        kind: Of the experiment.
        drawn: PNG and caption by name of the figure.
        config: The text of ``config.yaml``, shown as it is.
    """
    pictures = [Picture(png, caption, [("", caption)]) for png, caption in drawn.values()]
    seeds = seeds_note(metrics["rows"])
    sections: dict[str, Sequence[Block]] = {
        "Figures": pictures,
        "Numbers": kind.tables(metrics),
        "Data set": _listed(_data(metrics.get("data") or {})),
        "Network": _listed(pairs(metrics.get("network"), compact=True)),
        "Provenance": [Pairs(_provenance(metrics), single=True)],
    }
    title = str(metrics.get("title") or f"{metrics['experiment']} experiment")
    return page.render(
        title,
        kind.headline(metrics),
        [Section(heading, blocks) for heading, blocks in sections.items()],
        config=config,
        terms=page.glossary(metrics["experiment"]),
        above=title,
        below=[Text(f"{seeds[0].upper()}{seeds[1:]}.", soft=True)],
    )


def _listed(items: Sequence[tuple[str, str]]) -> list[Pairs]:
    return [Pairs(items, single=True)] if items else []


def _scalars(row: Row) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not isinstance(value, list | dict)}


def _data(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = {
        "train": "training images",
        "val": "validation images",
        "test": "test images",
        "ood": "OOD images",
        "ood_classes": "OOD classes",
    }
    shape = data.get("shape")
    shown = {
        **data,
        "shape": " × ".join(map(str, shape)) if isinstance(shape, Sequence) else shape,
    }
    return pairs({names.get(key, key): value for key, value in shown.items()}, compact=True)


def _provenance(metrics: Metrics) -> list[tuple[str, str]]:
    seconds = number(metrics.get("seconds"))
    shown = {
        "command": metrics.get("command"),
        "seeds": ", ".join(map(str, metrics.get("seeds") or [])) or None,
        "configuration hash": metrics.get("config_hash"),
        "git commit": metrics.get("git_commit"),
        "device": metrics.get("device"),
        "threads": metrics.get("threads"),
        "time": None if math.isnan(seconds) else _duration(seconds),
        "schema version": metrics.get("schema_version"),
    }
    return pairs(shown, compact=True)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
