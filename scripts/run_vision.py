"""Experiments on images: the same pruning engine and error bars on CNNs, ResNets and MLPs."""

from hydra.core.config_store import ConfigStore

from egnn_prune.cli.hydra_app import command
from egnn_prune.vision.settings import VisionSettings

PURPOSE = """\
Prunes image networks and asks what happens to accuracy, calibration and images of unknown classes.
Choose with experiment=NAME: digits (under a minute, needs no data), lottery_moons, lottery (LeNet,
CIFAR-10), lottery_cnn, lottery_mnist, incremental_mnist, incremental_cifar10, resnet101_magnitude,
resnet_structured, selection. Writes metrics.json, rows.csv, figures and report.html into a folder;
interrupted, the same command goes on where it stopped. With images of your own: data.name=folder
data.path=DIR."""


def main(settings: VisionSettings) -> None:
    from egnn_prune.vision.experiments.run import run_experiment  # torch takes seconds to import

    run_experiment(settings)


if __name__ == "__main__":
    ConfigStore.instance().store(name="base_vision", node=VisionSettings)
    command(main, VisionSettings, "vision", PURPOSE)
