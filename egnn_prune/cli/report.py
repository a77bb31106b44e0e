"""Draw the tables, figures and the page of a finished run again, without torch.

FOLDER is the out=DIR of a finished main job or image experiment; its metrics.json (and
predictions.npz) are read, its figures and report.html are written anew. Tables and figures of a
study are drawn again by the study's own command, which computes nothing twice.

    egnn-prune report runs/demo
"""

from __future__ import annotations

import argparse
from pathlib import Path

from egnn_prune.cli.arguments import Parser, Tool


def parser() -> Parser:
    """What can be asked for."""
    parser = Parser(__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder of a finished run")
    return parser


def work(arguments: argparse.Namespace) -> None:
    """Do it."""
    from egnn_prune.errors import InputError
    from egnn_prune.report import comparison_table, write_report
    from egnn_prune.report.images import image_table, write_image_report
    from egnn_prune.system.files import read_json

    folder = arguments.folder.expanduser()
    if not (folder / "metrics.json").is_file():
        raise InputError(
            f"{folder} holds no metrics.json; give the folder of a finished run (its out=DIR)"
        )
    metrics = read_json(folder / "metrics.json")
    images = isinstance(metrics, dict) and "experiment" in metrics
    try:
        page = (write_image_report if images else write_report)(folder)
        table = (image_table if images else comparison_table)(metrics)
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
    print(f"{table}\nReport: {page}")


main = Tool(parser, work)
