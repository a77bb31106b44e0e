"""Every setting of the image experiments; ``run_vision.py --help`` prints them."""

# ruff: noqa: RUF009 - setting() returns a dataclass field, as field() does

from __future__ import annotations

from dataclasses import dataclass, field

from egnn_prune.configs.settings import COUNT, CRITERIA, SCOPES, WORKERS, JobsSettings, setting

SOURCES = ("moons", "digits", "mnist", "cifar10", "cifar100", "folder")
#: Criteria that score single weights.
WEIGHT_CRITERIA = ("taylor, fisher, snip, grasp, synflow, wanda, magnitude, lamp, random").split(
    ", "
)


@dataclass
class ImageDataSettings:
    """Which images."""

    name: str = setting("digits", "the source", choices=SOURCES)
    path: str | None = setting(
        None, "folder of the hub's parquet files, or of images; null: EGNN_PRUNE_DATA, or the hub"
    )
    ood: str | None = setting(None, "another source, as images unlike the training data")
    ood_path: str | None = setting(None, "the same as path, for data.ood")
    validation: float | None = setting(
        None, "validation images, or below 1 their share; null: 5000 of the hub's sets, else 0.15"
    )
    limit: int | None = setting(None, "use at most this many training images; null: all", **COUNT)
    size: int | None = setting(
        None, "folder: height and width to which images are brought", **COUNT
    )
    augmentation: str = setting(
        "none", "of the training images", choices=("none", "flip", "crop", "flip_crop")
    )


@dataclass
class ImageNetworkSettings:
    """The network that gets pruned."""

    name: str = setting(
        "mlp",
        "resnet20, resnet32, resnet56: those for CIFAR",
        choices=(
            *("mlp", "lenet", "cnn", "small_cnn", "resnet20", "resnet32", "resnet56"),
            *("resnet18", "resnet50", "resnet101"),
        ),
    )
    widths: list[int] = setting(
        [], "mlp, small_cnn: hidden widths; empty: the network's own", **COUNT
    )
    dropout: float = setting(
        0.0, "probability in its dropout layers, for Monte Carlo dropout", low=0, below=1
    )
    shortcut: str | None = setting(
        None,
        "resnet20, resnet32, resnet56: A (zero padding) or B (1x1); null: A",
        choices=("A", "B"),
    )
    stem: str | None = setting(
        None,
        "resnet18, resnet50, resnet101: for which images; null: imagenet",
        choices=("imagenet", "cifar"),
    )
    pretrained: bool = setting(
        False, "resnet18, resnet50, resnet101: begin with ImageNet weights (downloaded)"
    )


@dataclass
class ImageFitSettings:
    """How long and how fast."""

    optimizer: str = setting("adam", "the algorithm", choices=("sgd", "adam", "adamw"))
    lr: float = setting(1e-3, "learning rate; with schedule=onecycle the highest", above=0)
    momentum: float = setting(0.9, "sgd: momentum", low=0, below=1)
    weight_decay: float = setting(0.0, "of the optimiser", low=0)
    schedule: str = setting(
        "constant", "of the learning rate", choices=("constant", "cosine", "onecycle")
    )
    batch_size: int = setting(64, "images a step, at most as many as there are", **COUNT)
    epochs: int = setting(20, "at most this many passes over the training images", **COUNT)
    patience: int | None = setting(
        None, "stop early after this many epochs without a better one; null: never", **COUNT
    )
    monitor: str | None = setting(
        None,
        "end with the weights that are best on validation; null: the last (needs no look)",
        choices=("val_loss", "val_error"),
    )


@dataclass
class ImagePruningSettings:
    """Which neurons, feature maps or single weights go, and what follows."""

    structures: list[str] = setting(
        ["structured"],
        "lottery: whole neurons, or single weights",
        choices=("structured", "unstructured"),
    )
    strategies: list[str] = setting(
        ["one_shot"],
        "lottery: how a ticket is found, and with which weights it begins",
        choices=("one_shot", "shuffled", "rewound", "reinitialised", "iterative"),
    )
    sparsities: list[float] = setting(
        [0.5], "fractions removed (magnitude, selection: one)", low=0, below=1
    )
    criterion: str = setting("magnitude_l1", "which neurons go", choices=CRITERIA)
    weight_criterion: str = setting("magnitude", "which single weights go", choices=WEIGHT_CRITERIA)
    scope: str = setting(
        "group", "among which neurons are ranked (group: of a layer)", choices=SCOPES
    )
    weight_scope: str = setting(
        "tensor", "among which single weights are ranked", choices=("tensor", "global")
    )
    ignored: list[str] = setting([], "layers whose neurons and weights all stay")
    rounds: int = setting(3, "lottery: rounds of the iterative strategy", **COUNT)
    every: int = setting(5, "incremental: epochs between two rounds", **COUNT)
    rate: float = setting(
        0.1, "incremental: share of what is left that each round removes", low=0, below=1
    )
    factors: list[float] = setting([2.0, 2.5], "structured: how many times fewer MACs", above=1)
    criteria: list[str] = setting(
        ["group_norm"],
        "structured: an arm each; shuffled and scratch: the first's widths",
        choices=(*CRITERIA, "shuffled", "scratch"),
    )
    batches: int = setting(10, "batches that criteria which need data look at", **COUNT)


@dataclass
class ImageSelectionSettings:
    """On which training images the pruned network is fine-tuned (experiment kind selection)."""

    strategies: list[str] = setting(
        ["top", "random", "least", "all"],
        "an arm each; all: every image",
        choices=("top", "random", "least", "band", "proportional", "all"),
    )
    fraction: float = setting(0.3, "share of the training images that is selected", above=0, high=1)
    replay: float = setting(
        0.0, "share of the draws that goes to images not selected", low=0, below=1
    )


@dataclass
class ImageUncertaintySettings:
    """Error bars."""

    samples: int = setting(20, "passes of Monte Carlo dropout", low=2)
    bins: int = setting(15, "of ECE, UCE and reliability diagrams", **COUNT)


@dataclass
class VisionSettings:
    """An experiment on images."""

    name: str = setting("vision", "goes into the default name of the output folder")
    title: str = setting("", "heading of the report")
    kind: str = setting(
        "lottery",
        "of experiment",
        choices=("lottery", "magnitude", "incremental", "structured", "selection"),
    )
    out: str | None = setting(None, "output folder; null: runs/<date>-<name>")
    seeds: list[int] = setting([0], "one dense network each", low=0)
    device: str = setting("auto", "auto (CUDA when present), cpu, cuda or cuda:N")
    workers: int = setting(1, WORKERS, **COUNT)
    jobs: JobsSettings = field(default_factory=JobsSettings)
    threads: int | None = setting(None, "CPU threads of each; null: torch's default", **COUNT)
    data: ImageDataSettings = field(default_factory=ImageDataSettings)
    network: ImageNetworkSettings = field(default_factory=ImageNetworkSettings)
    training: ImageFitSettings = field(default_factory=ImageFitSettings)
    finetuning: ImageFitSettings = field(default_factory=ImageFitSettings)
    pruning: ImagePruningSettings = field(default_factory=ImagePruningSettings)
    selection: ImageSelectionSettings = field(default_factory=ImageSelectionSettings)
    uncertainty: ImageUncertaintySettings = field(default_factory=ImageUncertaintySettings)
