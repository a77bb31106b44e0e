"""The page and the figure of the study's results, drawn anew from the rows that are stored."""

import argparse
from pathlib import Path

from egnn_prune.cli.script import one_sentence
from egnn_prune.report.common.files import write_atomic
from egnn_prune.report.common.style import png_bytes
from egnn_prune.report.studies.questions.figure import questions_plot
from egnn_prune.report.studies.questions.page import results_page, stored_rows
from egnn_prune.system.files import read_json

ROOT = Path(__file__).parents[1]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    rows = ROOT / "docs" / "study"
    parser.add_argument("--rows", type=Path, default=rows, help="folder of rows (docs/study)")
    return parser.parse_args()


def main() -> None:
    """Write docs/study-results.md and figures/study.png."""
    folder = parse().rows
    rows, origins = stored_rows(folder), read_json(folder / "origins.json")
    write_atomic(ROOT / "docs" / "study-results.md", results_page(rows, origins).encode())
    write_atomic(ROOT / "figures" / "study.png", png_bytes(questions_plot(rows)))
    print(f"Written: docs/study-results.md and figures/study.png, from {len(rows)} rows")


if __name__ == "__main__":
    with one_sentence():
        main()
