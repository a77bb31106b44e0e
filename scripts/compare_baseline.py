"""Compare ways of choosing channels with the dense baseline, over seeds."""

from egnn_prune.cli.hydra_app import command
from egnn_prune.configs.settings import ComparisonSettings

PURPOSE = """\
Runs the main job for every seed and arm (finished runs are re-used, the dense model is trained once
per seed) and writes comparison.csv, comparison.png and a table: test error against the work that a
prediction takes, with 95 % intervals over the seeds. Settings that are not listed first are those
of the main job and hold for every arm."""


def main(settings: ComparisonSettings) -> None:
    from egnn_prune.studies.comparison import compare

    compare(settings)


if __name__ == "__main__":
    command(main, ComparisonSettings, "compare", PURPOSE)
