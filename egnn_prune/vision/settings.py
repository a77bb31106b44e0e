"""Every setting of the image experiments; ``run_vision.py --help`` prints them."""

# ruff: noqa: RUF009 - setting() returns a dataclass field, as field() does

from __future__ import annotations

from dataclasses import dataclass, field

from egnn_prune.configs.settings import CRITERIA, setting


@dataclass
class ImageDataSettings:
    """Which images."""

    name: str = setting("digits", "moons, digits, mnist, cifar10, cifar100 or folder")
    path: str | None = setting(
        None, "folder of the hub's parquet files, or of images; null: EGNN_PRUNE_DATA, or the hub"
    )
    ood: str | None = setting(None, "another source, as images unlike the training data")
    ood_path: str | None = setting(None, "the same as path, for data.ood")
    validation: float | None = setting(
        None, "validation images, or below 1 their share; null: 5000 of the hub's sets, else 0.15"
    )
    limit: int | None = setting(None, "use at most this many training images; null: all")
    size: int | None = setting(None, "folder: height and width to which images are brought")
    augmentation: str = setting("none", "of the training images: none, flip, crop or flip_crop")


@dataclass
class ImageNetworkSettings:
    """The network that gets pruned."""

    name: str = setting(
        "mlp",
        "mlp, lenet, cnn, small_cnn, resnet20, resnet32, resnet56 (CIFAR), resnet18, resnet50 or "
        "resnet101",
    )
    widths: list[int] = setting([], "mlp, small_cnn: hidden widths; empty: the network's own")
    dropout: float = setting(0.0, "probability in its dropout layers, for Monte Carlo dropout")
    shortcut: str | None = setting(
        None, "resnet20, resnet32, resnet56: A (zero padding) or B (1x1); null: A"
    )
    stem: str | None = setting(
        None, "resnet18, resnet50, resnet101: imagenet or cifar; null: imagenet"
    )
    pretrained: bool = setting(
        False, "resnet18, resnet50, resnet101: begin with ImageNet weights (downloaded)"
    )


@dataclass
class FitSettings:
    """How long and how fast."""

    optimizer: str = setting("adam", "sgd, adam or adamw")
    lr: float = setting(1e-3, "learning rate; with schedule=onecycle the highest")
    momentum: float = setting(0.9, "sgd: momentum")
    weight_decay: float = setting(0.0, "of the optimiser")
    schedule: str = setting("constant", "of the learning rate: constant, cosine or onecycle")
    batch_size: int = setting(64, "images a step, at most as many as there are")
    epochs: int = setting(20, "at most this many passes over the training images")
    patience: int | None = setting(
        None, "stop early after this many epochs without a better one; null: never"
    )
    best_by: str | None = setting(
        None, "end with the weights best by val_loss or val_error; null: the last (needs no look)"
    )


@dataclass
class ImagePruningSettings:
    """Which neurons, feature maps or single weights go, and what follows."""

    structures: list[str] = setting(
        ["structured"], "lottery: structured (whole neurons), unstructured (single weights)"
    )
    strategies: list[str] = setting(
        ["one_shot"], "lottery: one_shot, shuffled, rewound, reinitialised, iterative"
    )
    sparsities: list[float] = setting([0.5], "fractions removed (magnitude, selection: one)")
    criterion: str = setting("magnitude_l1", f"which neurons go: {CRITERIA}")
    weight_criterion: str = setting(
        "magnitude",
        "which single weights go: taylor, fisher, snip, grasp, synflow, wanda, magnitude, lamp or "
        "random",
    )
    scope: str = setting("group", "rank neurons by group (of a layer), layer, kind or global")
    weight_scope: str = setting("tensor", "rank single weights by tensor, or global")
    ignored: list[str] = setting([], "layers whose neurons and weights all stay")
    rounds: int = setting(3, "lottery: rounds of the iterative strategy")
    every: int = setting(5, "incremental: epochs between two rounds")
    rate: float = setting(0.1, "incremental: share of what is left that each round removes")
    factors: list[float] = setting([2.0, 2.5], "structured: how many times fewer MACs")
    criteria: list[str] = setting(
        ["group_norm"],
        f"structured: one arm for each of {CRITERIA}; shuffled and scratch: the first's widths",
    )
    batches: int = setting(10, "batches that criteria which need data look at")


@dataclass
class ImageSelectionSettings:
    """On which training images the pruned network is fine-tuned (experiment kind selection)."""

    strategies: list[str] = setting(
        ["top", "random", "least", "all"],
        "arms: top, random, least, band, proportional; all: every image",
    )
    fraction: float = setting(0.3, "share of the training images that is selected")
    replay: float = setting(0.0, "share of the draws that goes to images not selected")


@dataclass
class ImageUncertaintySettings:
    """Error bars."""

    samples: int = setting(20, "passes of Monte Carlo dropout")
    bins: int = setting(15, "of ECE, UCE and reliability diagrams")


@dataclass
class VisionSettings:
    """An experiment on images."""

    name: str = setting("vision", "goes into the default name of the output folder")
    title: str = setting("", "heading of the report")
    kind: str = setting("lottery", "lottery, magnitude, incremental, structured or selection")
    out: str | None = setting(None, "output folder; null: runs/<date>-<name>")
    seeds: list[int] = setting([0], "one dense network each")
    device: str = setting("auto", "auto (CUDA when present), cpu, cuda or cuda:N")
    workers: int = setting(1, "processes that work at the same time, one seed each")
    threads: int | None = setting(None, "CPU threads of each; null: torch's default")
    data: ImageDataSettings = field(default_factory=ImageDataSettings)
    network: ImageNetworkSettings = field(default_factory=ImageNetworkSettings)
    training: FitSettings = field(default_factory=FitSettings)
    finetuning: FitSettings = field(default_factory=FitSettings)
    pruning: ImagePruningSettings = field(default_factory=ImagePruningSettings)
    selection: ImageSelectionSettings = field(default_factory=ImageSelectionSettings)
    uncertainty: ImageUncertaintySettings = field(default_factory=ImageUncertaintySettings)
