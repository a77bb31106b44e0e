"""The settings of comparisons, sweeps and studies: main jobs over seeds."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, fields

from egnn_prune.configs.declaration import setting
from egnn_prune.configs.settings import (
    COUNT,
    CRITERIA,
    SEED,
    SPARSITY,
    STEPS,
    STRATEGIES,
    THREADS,
    WORKERS,
    JobsSettings,
    Settings,
)


@dataclass
class ComparisonSettings(Settings):
    """Main jobs over seeds, arms and sparsities; the rest is set as for one job."""

    out: str | None = setting("runs/comparison", "folder of all runs and of the comparison")
    seeds: list[int] = setting([0, 1, 2], "one dense model per seed, shared by its arms", **SEED)
    arms: list[str] = setting(
        ["uncertainty", "magnitude", "random"],
        "what is compared (see comparison.py)",
        choices=("uncertainty", "magnitude", "random", "random_graphs", "least_uncertain"),
    )
    sparsities: list[float] = setting([0.54], "fractions of channels removed", **SPARSITY)
    workers: int = setting(1, WORKERS, **COUNT)
    jobs: JobsSettings = field(default_factory=JobsSettings)


@dataclass
class SweepSettings(Settings):
    """Every criterion at every sparsity, from one dense model per seed."""

    out: str | None = setting("runs/sweep", "folder of the dense models and of the sweep")
    seeds: list[int] = setting([0, 1, 2], "one dense model per seed", **SEED)
    criteria: list[str] = setting(
        ["uncertainty", "taylor", "fisher", "magnitude", "activation_norm", "random"],
        "which channels go",
        choices=CRITERIA,
    )
    sparsities: list[float] = setting(
        [0.3, 0.45, 0.6, 0.75, 0.9], "fractions of channels removed", **SPARSITY
    )
    steps: int = setting(400, STEPS, low=0)
    workers: int = setting(1, WORKERS, **COUNT)
    jobs: JobsSettings = field(default_factory=JobsSettings)


@dataclass
class SanitySettings(Settings):
    """Does the choice of channels matter, and do the weights that they keep?"""

    out: str | None = setting("runs/sanity", "folder of the models and of the table")
    seeds: list[int] = setting([0, 1, 2], "one dense model per seed", **SEED)


@dataclass
class CalibrationStudySettings(Settings):
    """Does pruning harm calibration more than accuracy, and does calibration mend it?"""

    out: str | None = setting("runs/calibration", "folder of the networks and of the study")
    seeds: list[int] = setting([0, 1, 2, 3, 4], "one network of each recipe per seed", **SEED)
    recipes: list[str] = setting(
        ["single", "shallow"],
        "how networks are trained; shallow: five read-outs",
        choices=("single", "shallow"),
    )
    sparsities: list[float] = setting(
        [0.5, 0.75, 0.9], "fractions of channels removed", above=0, below=1
    )
    steps: int = setting(300, STEPS, **COUNT)
    deep_members: int = setting(
        3, "networks of a deep ensemble (more seeds are trained); 0: none", low=0
    )
    workers: int = setting(1, WORKERS, **COUNT)
    jobs: JobsSettings = field(default_factory=JobsSettings)


@dataclass
class SelectionStudySettings(Settings):
    """Which graphs to fine-tune a pruned network on, after equally many steps?"""

    out: str | None = setting("runs/selection", "folder of the study")
    networks: str | None = setting(
        None, "folder of the calibration study's trained networks; null: train them in out"
    )
    seeds: list[int] = setting([0, 1, 2, 3, 4], "one dense network per seed", **SEED)
    strategies: list[str] = setting(
        ["random", "top", "least", "band", "proportional", "diverse", "loss", "prototype", "all"],
        "as selection.strategy; all: select nothing, draw every graph equally often",
        choices=(*STRATEGIES, "all"),
    )
    replays: list[float] = setting([0.5, 0.0], "as selection.replay", low=0, high=0.99)
    steps: int = setting(300, STEPS, **COUNT)
    workers: int = setting(1, WORKERS, **COUNT)
    jobs: JobsSettings = field(default_factory=JobsSettings)


@dataclass
class AcquisitionSettings(Settings):
    """Does labelling the most uncertain graphs beat labelling random ones?"""

    out: str | None = setting("runs/acquisition", "folder of the study")
    seeds: list[int] = setting([0, 1, 2, 3, 4], "one set of first labels per seed", **SEED)
    strategies: list[str] = setting(
        ["random", "top", "diverse"],
        "as selection.strategy, but for those that need labels",
        choices=[name for name in STRATEGIES if name not in ("loss", "threshold")],
    )
    initial: int = setting(300, "random training graphs that are labelled first", low=2)
    added: int = setting(300, "graphs of the pool that each round labels", **COUNT)
    rounds: int = setting(4, "rounds of labelling after the first training", **COUNT)
    first_steps: int = setting(
        1200, "optimiser steps of the first training, which all share", **COUNT
    )
    steps: int = setting(
        400, "further optimiser steps of every round, on all labels so far", **COUNT
    )
    workers: int = setting(1, WORKERS, **COUNT)
    jobs: JobsSettings = field(default_factory=JobsSettings)


@dataclass
class CentroidStudySettings:
    """Pruned and trained on uncertain graphs, against equally many ordinary steps."""

    out: str = setting("runs/centroid", "folder of the study")
    seeds: list[int] = setting(list(range(10)), "data and network, one of each per seed", **SEED)
    steps: list[int] = setting([100, 2000], "optimiser steps of each half of a training", **COUNT)
    sparsities: list[float] = setting(
        [0.0, 0.25, 0.5, 0.75], "share of the channels removed", **SPARSITY
    )
    fraction: float = setting(
        0.25, "share of the training graphs that the second half sees", above=0, high=1
    )
    criterion: str = setting("taylor", "which channels go", choices=CRITERIA)
    samples: int = setting(10, "MC-dropout samples whose spread is the uncertainty", **COUNT)
    workers: int = setting(1, WORKERS, **COUNT)
    jobs: JobsSettings = field(default_factory=JobsSettings)
    threads: int | None = setting(1, "CPU threads of each; null: torch's default", **THREADS)


def main_job(settings: Settings) -> Settings:
    """A copy of the settings that are the main job's, without those of a sweep or comparison."""
    return Settings(**{f.name: copy.deepcopy(getattr(settings, f.name)) for f in fields(Settings)})


def register() -> None:
    """Tell Hydra about the typed settings; the YAML files refer to them."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(name="base_train", node=Settings)
    store.store(name="base_compare", node=ComparisonSettings)
    store.store(name="base_sweep", node=SweepSettings)
    store.store(name="base_sanity", node=SanitySettings)
    store.store(name="base_calibration", node=CalibrationStudySettings)
    store.store(name="base_selection_study", node=SelectionStudySettings)
    store.store(name="base_acquisition", node=AcquisitionSettings)
