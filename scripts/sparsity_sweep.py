"""Error against sparsity for several criteria, over seeds."""

from egnn_prune.cli.hydra_app import command
from egnn_prune.configs.settings import SweepSettings

PURPOSE = """\
Trains the dense model of the main job once per seed, prunes it in one shot to every sparsity by
every criterion, fine-tunes each and writes sweep.csv, sweep.png and tables of mean, spread and
paired differences. Interrupted, the same command goes on where it stopped. Settings that are not
listed first are those of the main job."""


def main(settings: SweepSettings) -> None:
    from egnn_prune.studies.criteria import run_sweep

    run_sweep(settings)


if __name__ == "__main__":
    command(main, SweepSettings, "sweep", PURPOSE)
