"""Draw the tables, figures and the page of a finished run, study or audit again.

FOLDER is the out=DIR of a finished main job, specialised potential, image experiment or study, or
the --out of an audit. What it holds (metrics.json and predictions.npz, study.json, audit.json) is
read, and its figures and page are written anew; nothing is computed again. A study imports torch,
the others do not.

    egnn-prune report runs/demo
"""

from __future__ import annotations

import argparse
import os
from contextlib import suppress
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

    folder = Path(os.path.expanduser(arguments.folder))
    known = {"metrics.json": _run, "study.json": _study, "audit.json": _audit}
    there = [name for name in known if os.path.isfile(folder / name)]
    if not there:
        raise InputError(_nothing(folder))
    try:
        for name in there:
            page, text = known[name](folder)
            print(f"{text}\nReport: {page}" if text else f"Report: {page}")
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error


def _nothing(folder: Path) -> str:
    """What to say of a folder without results."""
    tables: list[Path] = []
    with suppress(OSError):  # a name that is too long, a folder where we may not look
        tables = [path for path in folder.glob("*.csv") if path.with_suffix(".txt").is_file()]
    if tables:
        return (
            f"{folder} has a study's tables, but no study.json, which earlier versions did not "
            "write; give the study's own command again, which computes nothing twice"
        )
    return (
        f"{folder} holds no metrics.json, study.json or audit.json; give the folder of a finished "
        "run, study or audit (its out=DIR or --out DIR)"
    )


def _run(folder: Path) -> tuple[Path, str]:
    """The page and the table of a run, by the kind of job that its metrics are of."""
    from egnn_prune.report import comparison_table, write_report
    from egnn_prune.report.images import image_table, write_image_report
    from egnn_prune.report.specialise import report_table
    from egnn_prune.report.specialise import write_report as write_specialise_report
    from egnn_prune.system.files import read_json

    metrics: Any = read_json(folder / "metrics.json")
    if metrics.get("kind") == "specialise":
        return write_specialise_report(folder), report_table(folder)
    if "experiment" in metrics:
        return write_image_report(folder), image_table(metrics)
    return write_report(folder), comparison_table(metrics)


def _study(folder: Path) -> tuple[Path, str]:
    """The page of a study, which prints its own tables."""
    from egnn_prune.studies.frame import PAGE, redraw

    redraw(folder, studies())
    return folder / PAGE, ""


def studies() -> dict[str, type]:
    """By the module of each study the dataclass of its settings."""
    from egnn_prune.cli import jobs

    found = (job for job in vars(jobs).values() if isinstance(job, jobs.Job))
    return {
        f"egnn_prune.{job.work.partition(':')[0]}": job.schema
        for job in found
        if job.work.startswith("studies.")
    }


def _audit(folder: Path) -> tuple[Path, str]:
    """The page of an audit and what it found."""
    from egnn_prune.errors import InputError
    from egnn_prune.report.audit import write_report
    from egnn_prune.system.files import read_json

    try:
        page = write_report(folder)
        found = read_json(folder / "audit.json")["findings"]
    except (LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder / 'audit.json'} is damaged ({type(error).__name__}: {error}); audit again"
        ) from None
    return page, "\n".join(f"- {sentence}" for sentence in found)


main = Tool(parser, work)
