"""Every setting with its type, default and meaning; ``--help`` prints this file's contents."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any


def setting(default: Any, meaning: str) -> Any:
    """A dataclass field with its meaning attached."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": meaning})
    return field(default=default, metadata={"help": meaning})


#: As egnn_prune.pruning.CRITERIA, which --help shall not import; a test compares the two.
CRITERIA = (
    "taylor, uncertainty, fisher, snip, grasp, synflow, wanda, activation_norm, magnitude, "
    "magnitude_l1, group_norm, lamp, random"
)


@dataclass
class DataSettings:
    """Where the graphs come from (``data=NAME`` chooses the source, see data/)."""

    name: str = setting(
        "xtb",
        "source, set with data=NAME: xtb, qm9, rmd17, md17, extxyz (extxyz_forces: also train on "
        "them), npz, nbody or centroid",
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

    network: str = setting("egnn", "egnn, or irreps (NequIP-style, e3nn)")
    hidden: int = setting(64, "width of every part of the dense network (irreps: radial, read-out)")
    layers: int = setting(4, "message-passing layers")
    update_positions: bool = setting(True, "let nodes move between layers (EGNN Eq. 4)")
    attention: bool = setting(True, "gate every message (EGNN Eq. 8)")
    radial: int = setting(20, "Gaussian radial functions; 0: the squared distance")
    cutoff: float | None = setting(4.0, "interaction range in Angstrom; null: all pairs")
    normalise: bool = setting(True, "divide differences by their length; EGNN Eq. 4 does not")
    copies: int = setting(16, "irreps: copies of each irrep in each layer")
    lmax: int = setting(1, "irreps: highest order of the spherical harmonics, 0 to 3")
    aggregation: str = setting("sum", "sum or mean of the incoming messages")
    dropout: float = setting(0.0, "channel dropout in every layer, for uncertainty.method=dropout")
    readout_dropout: float = setting(0.1, "channel dropout in the read-out, likewise")


@dataclass
class UncertaintySettings:
    """Where the error bars come from."""

    method: str = setting(
        "dropout",
        "mean_variance, dropout, last_layer, shallow (heads share the trunk), deep, snapshot or "
        "bootstrap ensemble",
    )
    samples: int = setting(20, "thinned networks per prediction, for dropout")
    members: int = setting(5, "members of an ensemble")
    calibration: str = setting(
        "robust",
        "fitted on validation: variance or robust (one factor), monotone (a map), isotonic, "
        "conformal or none",
    )


@dataclass
class SelectionSettings:
    """Which training graphs the pruned model is fine-tuned on."""

    strategy: str = setting(
        "top",
        "top, threshold, band, proportional, diverse, loss, prototype, random or least (uncertain)",
    )
    fraction: float = setting(0.3, "share of the training graphs that is selected")
    band: list[float] = setting([0.5, 0.9], "for strategy=band: lowest and highest quantile")
    rounds: int = setting(1, "how often the selection is made anew while fine-tuning")
    threshold: float = setting(0.1, "for strategy=threshold: epistemic deviation, target's unit")
    replay: float = setting(0.5, "share of fine-tuning draws from graphs not selected")


@dataclass
class PruningSettings:
    """Which channels go."""

    sparsity: float = setting(0.54, "fraction of channels removed, in [0, 1)")
    criterion: str = setting("taylor", f"which channels go: {CRITERIA} or movement")
    scope: str = setting("global", "what is ranked together: global, layer, kind or group")
    schedule: str = setting("iterative", "how sparsity grows: one_shot, iterative, linear, cubic")
    rounds: int = setting(4, "rounds of pruning; 1 is one-shot")
    round_to: int = setting(1, "make widths multiples of this, by keeping more channels")
    until: float = setting(0.3, "share of the fine-tuning after which the last round is over")
    freeze: str = setting("pruned", "pruned, message_passing, important or none")
    freeze_fraction: float = setting(0.25, "for freeze=important: share of channels locked")


@dataclass
class TrainingSettings:
    """How long and how fast; every arm gets the same optimiser steps."""

    max_epochs: int = setting(24, "epochs of dense training")
    finetune_epochs: int = setting(14, "extra steps for every arm, in epochs of the training set")
    batch_size: int = setting(32, "graphs per step")
    lr: float = setting(6e-3, "highest learning rate of the training")
    finetune_lr: float = setting(3e-3, "highest learning rate of the extra steps")
    weight_decay: float = setting(1e-2, "AdamW weight decay")
    clip: float = setting(5.0, "largest gradient norm")
    loss: str = setting("faithful", "faithful, squared (members apart), nll or crps (pooled)")
    force_weight: float = setting(0.0, "weight of the forces beside the energy; 0: energy only")
    best_by: str | None = setting(
        None, "end with the weights best by val_mae, val_mse or val_force_mae; null: the last"
    )
    scratch: bool = setting(True, "also train the compact shape from scratch")


@dataclass
class Settings:
    """The whole job."""

    name: str = setting("main", "goes into the default name of the output folder")
    out: str | None = setting(None, "output folder; null: runs/<date>-<name>")
    seed: int = setting(0, "seeds everything")
    device: str = setting("auto", "auto (CUDA when present), cpu, cuda or cuda:N")
    precision: str = setting("float32", "float32 or float64")
    threads: int | None = setting(None, "CPU threads; null: torch's default")
    reuse: list[str] = setting([], "other output folders whose equal stages may be copied")
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    uncertainty: UncertaintySettings = field(default_factory=UncertaintySettings)
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    pruning: PruningSettings = field(default_factory=PruningSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)


@dataclass
class ComparisonSettings(Settings):
    """Main jobs over seeds, arms and sparsities; the rest is set as for one job."""

    out: str | None = setting("runs/comparison", "folder of all runs and of the comparison")
    seeds: list[int] = setting([0, 1, 2], "one dense model per seed, shared by its arms")
    arms: list[str] = setting(
        ["uncertainty", "magnitude", "random"],
        "uncertainty, magnitude, random; random_graphs, least_uncertain (see comparison.py)",
    )
    sparsities: list[float] = setting([0.54], "fractions of channels removed")
    workers: int = setting(1, "processes that work at the same time, one seed each")


@dataclass
class SweepSettings(Settings):
    """Every criterion at every sparsity, from one dense model per seed."""

    out: str | None = setting("runs/sweep", "folder of the dense models and of the sweep")
    seeds: list[int] = setting([0, 1, 2], "one dense model per seed")
    criteria: list[str] = setting(
        ["uncertainty", "taylor", "fisher", "magnitude", "activation_norm", "random"],
        f"some of {CRITERIA}",
    )
    sparsities: list[float] = setting([0.3, 0.45, 0.6, 0.75, 0.9], "fractions of channels removed")
    steps: int = setting(400, "optimiser steps of every fine-tuning")
    workers: int = setting(1, "processes that work at the same time, one seed each")


@dataclass
class SanitySettings(Settings):
    """Does the choice of channels matter, and do the weights that they keep?"""

    out: str | None = setting("runs/sanity", "folder of the models and of the table")
    seeds: list[int] = setting([0, 1, 2], "one dense model per seed")


@dataclass
class CalibrationStudySettings(Settings):
    """Does pruning harm calibration more than accuracy, and does recalibration mend it?"""

    out: str | None = setting("runs/calibration", "folder of the networks and of the study")
    seeds: list[int] = setting([0, 1, 2, 3, 4], "one network of each recipe per seed")
    recipes: list[str] = setting(
        ["single", "shallow"], "how networks are trained: single, shallow (five read-outs)"
    )
    sparsities: list[float] = setting([0.5, 0.75, 0.9], "fractions of channels removed")
    steps: int = setting(300, "optimiser steps of every fine-tuning")
    deep_members: int = setting(3, "networks of a deep ensemble (more seeds are trained); 0: none")
    workers: int = setting(1, "processes that work at the same time, one seed each")


@dataclass
class SelectionStudySettings(Settings):
    """Which graphs to fine-tune a pruned network on, after equally many steps?"""

    out: str | None = setting("runs/selection", "folder of the study")
    networks: str | None = setting(
        None, "folder of the calibration study's trained networks; null: train them in out"
    )
    seeds: list[int] = setting([0, 1, 2, 3, 4], "one dense network per seed")
    strategies: list[str] = setting(
        ["random", "top", "least", "band", "proportional", "diverse", "loss", "prototype", "all"],
        "as selection.strategy: top, threshold, band, proportional, diverse, loss, prototype, "
        "random, least; all: select nothing, draw every graph equally often",
    )
    replays: list[float] = setting([0.5, 0.0], "as selection.replay")
    steps: int = setting(300, "optimiser steps of every fine-tuning")
    workers: int = setting(1, "processes that work at the same time, one seed each")


@dataclass
class AcquisitionSettings(Settings):
    """Does labelling the most uncertain graphs beat labelling random ones?"""

    out: str | None = setting("runs/acquisition", "folder of the study")
    seeds: list[int] = setting([0, 1, 2, 3, 4], "one set of first labels per seed")
    strategies: list[str] = setting(
        ["random", "top", "diverse"], "top, band, proportional, diverse, prototype, random or least"
    )
    initial: int = setting(300, "random training graphs that are labelled first")
    added: int = setting(300, "graphs of the pool that each round labels")
    rounds: int = setting(4, "rounds of labelling after the first training")
    first_steps: int = setting(1200, "optimiser steps of the first training, which all share")
    steps: int = setting(400, "further optimiser steps of every round, on all labels so far")
    workers: int = setting(1, "processes that work at the same time, one seed each")


@dataclass
class CentroidStudySettings:
    """Pruned and trained on uncertain graphs, against equally many ordinary steps."""

    out: str = setting("runs/centroid", "folder of the study")
    seeds: list[int] = setting(list(range(10)), "data and network, one of each per seed")
    steps: list[int] = setting([100, 2000], "optimiser steps of each half of a training")
    sparsities: list[float] = setting([0.0, 0.25, 0.5, 0.75], "share of the channels removed")
    fraction: float = setting(0.25, "share of the training graphs that the second half sees")
    criterion: str = setting("taylor", "which channels go")
    samples: int = setting(10, "thinned networks whose spread is the uncertainty")
    workers: int = setting(1, "processes that work at the same time, one seed each")
    threads: int | None = setting(1, "CPU threads of each; null: torch's default")


def main_job(settings: Settings) -> Settings:
    """A copy of the settings that are the main job's, without those of a sweep or comparison."""
    return Settings(**{f.name: copy.deepcopy(getattr(settings, f.name)) for f in fields(Settings)})


def described(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """``(name, default, meaning)`` of every setting, depth first."""
    for item in fields(node):
        value = getattr(node, item.name)
        if is_dataclass(value):
            yield from described(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", value, item.metadata.get("help", "")
