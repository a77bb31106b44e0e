"""Settings of the study of error bars of specialised potentials."""

from __future__ import annotations

from dataclasses import dataclass

from egnn_prune.configs.declaration import setting
from egnn_prune.configs.settings import COUNT, SEED, THREADS

SYSTEMS = ("3bpa", "ethanol", "silicon", "water")
METHODS = ("last_layer", "committee")
PARTS = ("calibration", "flag", "cost")


@dataclass
class SpecialistErrorBarsStudySettings:
    """Error bars through pruning and fine-tuning, and structures unlike the training ones."""

    out: str = setting("runs/error_bars", "folder of the study")
    models: str | None = setting(
        None, "folder of its networks, read and added to; null: models in out"
    )
    teacher: str = setting("7net-0", "the pretrained potential")
    systems: list[str] = setting(
        list(SYSTEMS),
        "what it is made small for; silicon and water are labelled by the teacher, the others "
        "need data",
        choices=SYSTEMS,
    )
    seeds: list[int] = setting([0, 1, 2], "training structures and fits, one each per seed", **SEED)
    parts: list[str] = setting(
        list(PARTS), "calibration, structures unlike the training ones, times", choices=PARTS
    )
    methods: list[str] = setting(
        list(METHODS),
        "of uncertainty; a committee takes fits of its own, and is for systems with data",
        choices=METHODS,
    )
    train: int = setting(200, "training structures of molecules with data", low=50)
    labelled: int = setting(60, "training structures that the teacher labels", low=4)
    steps: int = setting(
        300,
        "optimiser steps of a specialist; the full network takes half of them, and specialists of "
        "a system that the teacher labels a third",
        **COUNT,
    )
    members: int = setting(3, "networks of a committee, of molecules with data", low=2)
    structures: int = setting(50, "structures of every kind unlike the training ones", low=2)
    threads: int | None = setting(1, "CPU threads; null: torch's default", **THREADS)
