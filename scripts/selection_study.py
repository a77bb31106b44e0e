"""Selection strategies compared after equally many fine-tuning steps, over seeds."""

from egnn_prune.cli.hydra_app import command
from egnn_prune.configs.settings import SelectionStudySettings

PURPOSE = """\
From the dense network of every seed: each strategy selects training graphs, the network is pruned
in one shot on them and fine-tuned on them, with every share of replay. Writes selection.csv, a
table of errors and of their differences to random selection, paired by seed, and a forest plot.
Interrupted, the same command goes on where it stopped. Settings that are not listed first are those
of the main job."""


def main(settings: SelectionStudySettings) -> None:
    from egnn_prune.studies.selection import run_selection_study

    run_selection_study(settings)


if __name__ == "__main__":
    command(main, SelectionStudySettings, "selection_study", PURPOSE)
