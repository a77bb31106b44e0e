"""What the runs in a folder are doing: finished, working, stopped or failed, and how far they are.

    egnn-prune status            all runs below runs/
    egnn-prune status runs/demo  one of them

A stopped run goes on when its command is given again. The time left is that of the fit it works
on, from the last time that it was saved (trainer.save_minutes).
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

from egnn_prune.cli.arguments import Parser, Tool


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
    from egnn_prune.report.common.formatting import text_table
    from egnn_prune.runs.status import runs_below, status_of

    folder = existing(arguments.folder)
    found = [status_of(run) for run in runs_below(folder)]
    if not found:
        print(f"There are no runs in {folder}.")
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
                str(path),
                status.state,
                str(status.done),
                status.stage,
                far,
                left,
                span(time.time() - status.changed),
                status.error or numbers(status.metrics or {}),
            ]
        )
    header = ["run", "state", "stages done", "stage", "in its fit", "left", "last change", ""]
    print(text_table(header, body, left=8))


def existing(folder: Path) -> Path:
    """The folder.

    Raises:
        InputError: there is none.
    """
    from egnn_prune.errors import InputError

    folder = folder.expanduser()
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give the folder that holds your runs")
    return folder


def span(seconds: float) -> str:
    """A time in its largest unit, such as ``"3 min"``."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def numbers(metrics: dict) -> str:
    """What a finished run found, in a few words."""
    models = metrics.get("models")
    if not isinstance(models, dict):
        return ""
    unit = str((metrics.get("dataset") or {}).get("unit") or "")
    parts = []
    for name in ("dense", "pruned"):
        error = (models.get(name) or {}).get("test_mae")
        if isinstance(error, float):
            parts.append(f"{name} {error:.4g}")
    return f"test MAE {', '.join(parts)} {unit}".rstrip() if parts else ""


main = Tool(parser, work)
