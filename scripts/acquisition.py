"""Learning curves of pool-based acquisition, over seeds."""

from egnn_prune.cli.hydra_app import command
from egnn_prune.configs.settings import AcquisitionSettings

PURPOSE = """\
Trains on a few random graphs, labels those graphs of the pool that a strategy chooses, trains
further on all labels so far, and so on. Writes acquisition.csv, tables of errors and of their
differences to random choice, paired by seed, and the learning curves. Interrupted, the same command
goes on where it stopped. Settings that are not listed first are those of the main job."""


def main(settings: AcquisitionSettings) -> None:
    from egnn_prune.studies.acquisition import run_acquisition

    run_acquisition(settings)


if __name__ == "__main__":
    command(main, AcquisitionSettings, "acquisition", PURPOSE)
