"""Controls that a pruning method has to beat: shuffled masks, other weights, the bare shape."""

from egnn_prune.cli.hydra_app import command
from egnn_prune.configs.settings import SanitySettings

PURPOSE = """\
Trains the dense model of the main job once per seed, prunes it in one shot and trains six networks
of the same size: the pruned one (keep); one whose masks are shuffled within every group, with the
trained weights of the channels that they hit (shuffled); the chosen channels rewound to their
initial weights (rewound), and shuffled and rewound (both); the chosen channels with new random
weights (reinitialised), and the compact shape built afresh (scratch). The first two are fine-tuned;
the others start over and get the dense model's steps as well. Prints and writes a table."""


def main(settings: SanitySettings) -> None:
    from egnn_prune.studies.sanity_checks import run_checks

    run_checks(settings)


if __name__ == "__main__":
    command(main, SanitySettings, "sanity", PURPOSE)
