"""Draw the tables, figures and the page of a finished run again, without torch.

FOLDER is the out=DIR of a finished main job, specialised potential or image experiment; its
metrics.json (and predictions.npz) are read, its figures and report.html are written anew. Tables
and figures of a study are drawn again by the study's own command, which computes nothing twice.

    egnn-prune report runs/demo
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from egnn_prune.cli.arguments import Parser, Tool


def parser() -> Parser:
    """What can be asked for."""
    parser = Parser(__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder of a finished run")
    return parser


def work(arguments: argparse.Namespace) -> None:
    """Do it."""
    from egnn_prune.errors import InputError
    from egnn_prune.system.files import read_json

    folder = Path(os.path.expanduser(arguments.folder))
    if not (folder / "metrics.json").is_file():
        raise InputError(
            f"{folder} holds no metrics.json; give the folder of a finished run (its out=DIR)"
        )
    try:
        page, table = _drawn(folder, read_json(folder / "metrics.json"))
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
    print(f"{table}\nReport: {page}")


def _drawn(folder: Path, metrics: Any) -> tuple[Path, str]:
    """The page and the table of a run, by the kind of job that its metrics are of."""
    from egnn_prune.report import comparison_table, write_report
    from egnn_prune.report.images import image_table, write_image_report
    from egnn_prune.report.specialise import report_table
    from egnn_prune.report.specialise import write_report as write_specialise_report

    about = metrics if isinstance(metrics, dict) else {}
    if about.get("kind") == "specialise":
        return write_specialise_report(folder), report_table(folder)
    if "experiment" in about:
        return write_image_report(folder), image_table(metrics)
    return write_report(folder), comparison_table(metrics)


main = Tool(parser, work)
