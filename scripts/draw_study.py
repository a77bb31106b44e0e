"""The page and the figure of the study's results, drawn anew from the rows in docs/study."""

from pathlib import Path

from egnn_prune.cli.script import one_sentence
from egnn_prune.report.common.files import write_atomic
from egnn_prune.report.common.style import png_bytes
from egnn_prune.report.studies.questions.figure import questions_plot
from egnn_prune.report.studies.questions.page import results_page, stored_rows

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Write docs/study-results.md and figures/study.png."""
    rows = stored_rows(ROOT / "docs" / "study")
    write_atomic(ROOT / "docs" / "study-results.md", results_page(rows).encode())
    write_atomic(ROOT / "figures" / "study.png", png_bytes(questions_plot(rows)))
    print(f"Written: docs/study-results.md and figures/study.png, from {len(rows)} rows")


if __name__ == "__main__":
    with one_sentence():
        main()
