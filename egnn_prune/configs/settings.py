"""The settings of one job with their types, defaults and meanings, which ``--help`` prints."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from egnn_prune.configs.declaration import check as check
from egnn_prune.configs.declaration import described as described
from egnn_prune.configs.declaration import later_setting, setting

# Names of what stands in registries above this folder, which --help shall not import: tests compare
# them with the registries.
CRITERIA = (
    "taylor, uncertainty, fisher, snip, grasp, synflow, wanda, activation_norm, magnitude, "
    "magnitude_l1, group_norm, lamp, random"
).split(", ")
SCOPES = ("global", "layer", "kind", "group")
STRATEGIES = ("top, threshold, band, proportional, diverse, loss, prototype, random, least").split(
    ", "
)
#: Methods whose networks learn by the CRPS unless training.loss says otherwise.
POOLED = ("rigidity", "shallow")
#: Read-out dropout of Monte Carlo dropout, where nobody says how much.
READOUT_DROPOUT = 0.1
#: How the learning rate goes along a fit.
SCHEDULES = ("onecycle", "cosine", "constant")
METHODS = (
    "mean_variance, dropout, last_layer, rigidity, shallow, deep, snapshot, bootstrap"
).split(", ")

# Ranges that several settings share.
COUNT: dict[str, float] = {"low": 1}
SHARE: dict[str, float] = {"low": 0, "high": 1}
#: Beyond these a number is a slip of the finger: a day of computing where a minute is meant.
MOST_LAYERS, MOST_MEMBERS, MOST_SAMPLES = 200, 1_000, 1_000
SPARSITY: dict[str, float] = {"low": 0, "below": 1}
POSITIVE: dict[str, float] = {"above": 0}
SEED: dict[str, float] = {
    "low": 0,
    "high": 4_000_000,
}  # a stage's, 1000 times as large, has 32 bits
THREADS: dict[str, float] = {"low": 1, "high": 4 * (os.cpu_count() or 1)}
#: What the main job removes where neither pruning.sparsity nor pruning.latency says.
DEFAULT_SPARSITY = 0.54
WORKERS = "processes that work at the same time, one seed each"
STEPS = "optimiser steps of every fine-tuning"


@dataclass
class DataSettings:
    """Where the graphs come from (``data=NAME`` chooses the source, see data/)."""

    name: str = setting(
        "xtb",
        "source, set with data=NAME (also extxyz_forces: extxyz, and train on its forces)",
        choices=("xtb", "qm9", "rmd17", "md17", "extxyz", "npz", "nbody", "centroid"),
    )
    path: str | None = setting(None, "file to read; null: EGNN_PRUNE_DATA, where the source allows")
    test: str | None = setting(None, "extxyz: another file, with the test structures")
    ood: str | None = setting(None, "extxyz: another file, out of distribution")
    subset: str | None = setting(
        None, "rmd17, md17: the molecule; nbody: the number of particles; qm9: full or 12k"
    )
    target: str | None = setting(None, "what to predict; null: the source's default")
    limit: int | None = setting(None, "use at most this many training graphs; null: all")


@dataclass
class ModelSettings:
    """The network."""

    network: str = setting(
        "egnn", "egnn, or irreps (NequIP-style, with e3nn)", choices=("egnn", "irreps")
    )
    hidden: int = setting(
        64, "width of every part of the dense network (irreps: radial, read-out)", **COUNT
    )
    layers: int = setting(4, "message-passing layers", low=1, high=MOST_LAYERS)
    update_positions: bool = setting(True, "let nodes move between layers (EGNN Eq. 4)")
    attention: bool = setting(True, "gate every message (EGNN Eq. 8)")
    radial: int = setting(20, "Gaussian radial functions; 0: the squared distance", low=0)
    cutoff: float | None = setting(
        4.0, "interaction range in Angstrom; null: all pairs", **POSITIVE
    )
    normalise: bool = setting(True, "divide differences by their length; EGNN Eq. 4 does not")
    copies: int = setting(16, "irreps: copies of each irrep in each layer", **COUNT)
    lmax: int = setting(1, "irreps: highest order of the spherical harmonics", low=0, high=3)
    aggregation: str = setting(
        "sum", "how incoming messages are put together", choices=("sum", "mean")
    )
    dropout: float = setting(
        0.0, "channel dropout in every layer, for uncertainty.method=dropout", low=0, high=0.99
    )
    readout_dropout: float | None = setting(
        None,
        f"channel dropout in the read-out; null: {READOUT_DROPOUT} for uncertainty.method=dropout, "
        "0 for the others",
        low=0,
        high=0.99,
    )


@dataclass
class UncertaintySettings:
    """Where the error bars come from."""

    method: str = setting(
        "rigidity",
        "rigidity: the stated noise, and what the last layer was not trained on; shallow (heads "
        "share the trunk), deep, snapshot and bootstrap: ensembles",
        choices=METHODS,
    )
    samples: int = setting(
        20, "MC-dropout samples per prediction, for dropout", low=2, high=MOST_SAMPLES
    )
    members: int = setting(5, "members of an ensemble", low=2, high=MOST_MEMBERS)
    calibration: str = setting(
        "robust",
        "fitted on validation; variance, robust: one factor, monotone, power: a map",
        choices=("variance", "robust", "monotone", "power", "isotonic", "conformal", "none"),
    )


@dataclass
class SelectionSettings:
    """Which training graphs the pruned model is fine-tuned on."""

    strategy: str = setting(
        "top", "top: the most uncertain graphs, least: the least uncertain ones", choices=STRATEGIES
    )
    fraction: float = setting(0.3, "share of the training graphs that is selected", above=0, high=1)
    band: list[float] = setting(
        [0.5, 0.9], "for strategy=band: lowest and highest quantile", **SHARE
    )
    rounds: int = setting(1, "how often the selection is made anew while fine-tuning", **COUNT)
    threshold: float = setting(0.1, "for strategy=threshold: epistemic deviation, target's unit")
    replay: float = setting(
        0.5, "share of fine-tuning draws from graphs not selected", low=0, high=0.99
    )


@dataclass
class PruningSettings:
    """Which channels go."""

    sparsity: float | None = setting(
        None,
        f"fraction of channels removed; null: {DEFAULT_SPARSITY}, unless a latency is given",
        **SPARSITY,
    )
    latency: float | None = setting(
        None,
        "instead, the share of the dense network's time on a batch that may be left",
        above=0,
        high=1,
    )
    criterion: str = setting("taylor", "which channels go", choices=(*CRITERIA, "movement"))
    scope: str = setting("global", "what is ranked together", choices=SCOPES)
    schedule: str = setting(
        "iterative", "how sparsity grows", choices=("one_shot", "iterative", "linear", "cubic")
    )
    rounds: int = setting(4, "rounds of pruning; 1 is one-shot", **COUNT)
    round_to: int = setting(
        1,
        "make widths multiples of this, by keeping more channels; 0: of what is fastest here",
        low=0,
    )
    until: float = setting(
        0.3, "share of the fine-tuning after which the last round is over", **SHARE
    )
    freeze: str = setting(
        "pruned",
        "what no longer learns after the last round",
        choices=("pruned", "message_passing", "important", "none"),
    )
    freeze_fraction: float = setting(
        0.25, "for freeze=important: share of channels locked", **SHARE
    )

    @property
    def removed(self) -> float | None:
        """The fraction of channels that goes; ``None`` where a latency decides."""
        if self.sparsity is None and self.latency is None:
            return DEFAULT_SPARSITY
        return self.sparsity


@dataclass
class TrainingSettings:
    """How long and how fast; every arm gets the same optimiser steps, unless patience ends it."""

    max_epochs: int = setting(24, "epochs of dense training", **COUNT)
    finetune_epochs: int = setting(
        14, "extra steps for every arm, in epochs of the training set", **COUNT
    )
    batch_size: int = setting(32, "graphs per step", **COUNT)
    lr: float = setting(6e-3, "highest learning rate of the training", **POSITIVE)
    finetune_lr: float = setting(3e-3, "highest learning rate of the extra steps", **POSITIVE)
    weight_decay: float = setting(1e-2, "AdamW weight decay", low=0)
    clip: float = setting(5.0, "largest gradient norm", **POSITIVE)
    loss: str | None = setting(
        None,
        "faithful, squared: of members apart; nll, crps: of what they say together; null: crps for "
        "uncertainty.method=rigidity and shallow without forces, faithful for the others",
        choices=("faithful", "squared", "nll", "crps"),
    )
    force_weight: float = setting(
        0.0, "weight of the forces beside the energy; 0: energy only", low=0
    )
    monitor: str | None = setting(
        None,
        "end with the weights that are best on validation; null: the last",
        choices=("val_mae", "val_mse", "val_force_mae"),
    )
    schedule: str = later_setting(
        "onecycle",
        "learning rate along a fit: up and down, down along half a cosine, or as it is",
        choices=SCHEDULES,
    )
    average: str = later_setting(
        "none",
        "fits validate and end with an average of their weights; ema: an exponential moving one, "
        "swa: the plain one over the last quarter of the steps",
        choices=("none", "ema", "swa"),
    )
    mixed_precision: str = later_setting(
        "none",
        "bf16: steps multiply matrices in bfloat16, for GPUs; weights and errors stay float32",
        choices=("none", "bf16"),
    )
    patience: int = later_setting(
        0,
        "looks at validation without a better training.monitor after which a fit stops; 0: never",
        low=0,
    )
    recompute: bool = setting(
        False, "egnn: compute messages again on the way back, for less memory and more time"
    )
    scratch: bool = setting(True, "also train the compact shape from scratch")


@dataclass
class JobsSettings:
    """Where the seeds of a study are worked on, ``workers`` at the same time."""

    cluster: str = setting(
        "local", "processes of this machine, or jobs of SLURM", choices=("local", "slurm")
    )
    retries: int = setting(2, "times that a seed whose process was killed is begun again", low=0)
    partition: str | None = setting(None, "slurm: where jobs run; null: its default")
    minutes: int = setting(720, "slurm: the longest that a job may take", **COUNT)
    gpus: int = setting(0, "slurm: GPUs of each job", low=0)
    options: list[str] = setting([], 'slurm: others of sbatch, such as ["account=me","mem=8G"]')


@dataclass
class TrainerSettings:
    """How fits are run; they learn the same whatever this says."""

    save_minutes: float = setting(
        10.0,
        "minutes between saves of a fit, from which the same command goes on; 0: none",
        low=0.0,
    )
    logger: str = setting(
        "tensorboard",
        "what can be watched: tensorboard (and csv, in curves/), csv alone, wandb, or none",
        choices=("tensorboard", "csv", "wandb", "none"),
    )


@dataclass
class SharedTrainerSettings(TrainerSettings):
    """The same of a job that several processes can share."""

    devices: int = setting(
        1, "processes of each machine (on GPUs: one each) that share every batch", **COUNT
    )
    nodes: int = setting(1, "machines; more than one need torchrun or srun", **COUNT)


@dataclass
class Settings:
    """The whole job."""

    name: str = setting("main", "goes into the default name of the output folder")
    out: str | None = setting(None, "output folder; null: runs/<date>-<name>")
    seed: int = setting(0, "seeds everything", **SEED)
    device: str = setting("auto", "auto (CUDA when present), cpu, cuda or cuda:N")
    precision: str = setting("float32", "of weights and data", choices=("float32", "float64"))
    threads: int | None = setting(None, "CPU threads; null: torch's default", **THREADS)
    trainer: SharedTrainerSettings = field(default_factory=SharedTrainerSettings)
    reuse: list[str] = setting([], "other output folders whose equal stages may be copied")
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    uncertainty: UncertaintySettings = field(default_factory=UncertaintySettings)
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    pruning: PruningSettings = field(default_factory=PruningSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)


def readout_dropout(settings: Settings) -> float:
    """``model.readout_dropout``: unless it is set, only Monte Carlo dropout has any."""
    chosen = settings.model.readout_dropout
    if chosen is None:
        return READOUT_DROPOUT if settings.uncertainty.method == "dropout" else 0.0
    return chosen


def loss_name(settings: Settings) -> str:
    """``training.loss``: unless it is set, what suits the uncertainty method.

    The CRPS trains mean and noise together, so that the noise is worth reading; and members of a
    shallow ensemble, which nearly agree when they learn apart. Forces have a loss of their own.
    """
    t = settings.training
    pooled = settings.uncertainty.method in POOLED and not t.force_weight
    return t.loss or ("crps" if pooled else "faithful")
