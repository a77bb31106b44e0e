"""The main job: train, select uncertain graphs, prune, freeze, fine-tune, compact, compare."""

from egnn_prune.cli.hydra_app import command
from egnn_prune.configs.settings import Settings

PURPOSE = """\
Trains an E(n)-equivariant network, selects the training graphs that it is least sure about, prunes
message-passing channels by their importance on those graphs, fine-tunes, makes the network
physically smaller, and compares it with a dense baseline that got the same number of optimiser
steps and with the small network trained from scratch. The output folder receives metrics.json,
figures, report.html, and both models as safetensors (load them with egnn_prune.load)."""


def main(settings: Settings) -> None:
    from egnn_prune.pipeline.main_job import run  # after --help: torch takes seconds to import

    run(settings)


if __name__ == "__main__":
    command(main, Settings, "train", PURPOSE)
