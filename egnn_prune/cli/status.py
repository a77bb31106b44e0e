"""What the runs in a folder are doing: finished, working, stopped or failed, and how far they are.

    egnn-prune status            all runs below runs/
    egnn-prune status runs/demo  one of them

Studies, sweeps and comparisons are listed, too, and their runs by themselves.

A stopped run goes on when its command is given again. The time left is that of the fit it works
on, from the last time that it was saved (trainer.save_minutes).
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path

from egnn_prune.cli.arguments import Parser, Tool

#: Characters of what went wrong, in a table.
WIDEST = 120


def parser() -> Parser:
    """What can be asked for."""
    parser = Parser(__doc__)
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        type=Path,
        nargs="?",
        default=Path("runs"),
        help="a folder of runs, or of one (default: runs)",
    )
    return parser


def work(arguments: argparse.Namespace) -> None:
    """Do it."""
    from tqdm import tqdm

    from egnn_prune.report.common.formatting import text_table
    from egnn_prune.runs.status import runs_below, status_of, studies_below, study_of

    folder = existing(arguments.folder)
    with tqdm(unit=" runs", delay=2, leave=False) as bar:
        found = []
        for look, paths in ((status_of, runs_below), (study_of, studies_below)):
            for path in paths(folder):
                found.append(look(path))
                bar.update()
    if not found:
        print(f"There are no runs in {printable(folder)}.")
        return
    body = []
    for status in sorted(found, key=lambda s: s.changed, reverse=True):
        path = status.path if status.path == folder else status.path.relative_to(folder)
        far, left = "", ""
        if status.progress is not None:
            far = f"{status.progress.step:,} of {status.progress.steps:,} steps"
            if status.state == "working" and not math.isnan(status.progress.left):
                left = span(status.progress.left)
        body.append(
            [
                printable(path),
                status.state,
                str(status.done or ""),
                status.stage,
                far,
                left,
                f"{span(time.time() - status.changed)} ago",
                printable(status.error, WIDEST) or numbers(status.metrics or {}),
            ]
        )
    header = ["run", "state", "stages done", "stage", "in its fit", "left", "last change", ""]
    used = [k for k in range(len(header)) if any(row[k] for row in body)]
    print(text_table([header[k] for k in used], [[r[k] for k in used] for r in body], len(used)))


def printable(text: object, widest: int | None = None) -> str:
    """A text on one line; bytes that are none, and orders to the terminal, are spelled out."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))
    return shown if widest is None or len(shown) <= widest else f"{shown[:widest]}..."


def existing(folder: Path) -> Path:
    """The folder.

    Raises:
        InputError: there is none.
    """
    from egnn_prune.errors import InputError

    folder = Path(os.path.expanduser(folder))  # Path's own raises where there is no such user
    if not os.path.isdir(folder):  # Path.is_dir raises where a name is too long
        raise InputError(
            f"there is no folder {printable(folder, WIDEST)}; give the folder that holds your runs"
        )
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"{printable(folder)} may not be read; ask its owner")
    return folder


def span(seconds: float) -> str:
    """A time in its largest unit, such as ``"3 min"``."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def numbers(metrics: dict) -> str:
    """What a finished run found, in a few words; of any file, whoever wrote it."""
    if isinstance(experiment := metrics.get("experiment"), str):
        return printable(f"experiment {experiment}", WIDEST)
    about, models = metrics.get("dataset"), metrics.get("models")
    if metrics.get("kind") == "specialise":
        what, key, unit = "force RMSE", "force_rmse_mev_per_angstrom", "meV/Angstrom"
        names = ("teacher", "specialised")
    else:
        what, key, names = "test MAE", "test_mae", ("dense", "pruned")
        unit = str(about["unit"]) if isinstance(about, dict) and "unit" in about else ""
    parts = []
    for name in names:
        model = models.get(name) if isinstance(models, dict) else None
        error = model.get(key) if isinstance(model, dict) else None
        if isinstance(error, float):
            parts.append(f"{name} {error:.4g}")
    return printable(f"{what} {', '.join(parts)} {unit}".rstrip(), WIDEST) if parts else ""


main = Tool(parser, work)
