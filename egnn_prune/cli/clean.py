"""What can be removed from a folder of runs without loss; with --yes, remove it.

Half-written files of killed processes, saved states of fits whose run is finished, and runs that
were stopped before they had anything to go on from. Results stay, and so does every run in which a
process works now.

    egnn-prune clean             say what could go from runs/
    egnn-prune clean runs --yes  remove it
"""

from __future__ import annotations

import argparse
from pathlib import Path

from egnn_prune.cli.arguments import Parser, Tool
from egnn_prune.cli.status import existing, printable


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
    parser.add_argument("--yes", action="store_true", help="remove it, instead of saying so")
    return parser


def work(arguments: argparse.Namespace) -> None:
    """Do it."""
    from tqdm import tqdm

    from egnn_prune.errors import InputError
    from egnn_prune.report.common.formatting import si
    from egnn_prune.runs.leftovers import leftovers

    folder = existing(arguments.folder)
    found = list(tqdm(leftovers(folder), unit=" found", delay=2, leave=False))
    if not found:
        print(f"There is nothing to remove from {printable(folder)}.")
        return
    freed, kept = 0, 0
    for leftover in found:
        print(f"{printable(leftover.path)}: {leftover.why}, {si(leftover.bytes, 'B')}")
        if not arguments.yes:
            freed += leftover.bytes
            continue
        try:
            leftover.remove()
        except InputError as error:
            kept += 1
            print(f"  kept: {printable(error)}")
        else:
            freed += leftover.bytes
    total = si(freed, "B")
    print(f"Removed {total}." if arguments.yes else f"--yes removes these {total}.")
    if kept:
        raise InputError(f"{kept} of {len(found)} could not be removed; the reasons are above")


main = Tool(parser, work)
