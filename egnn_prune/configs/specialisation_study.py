"""Settings of the study of specialised potentials."""

from __future__ import annotations

from dataclasses import dataclass

from egnn_prune.configs.declaration import setting
from egnn_prune.configs.settings import COUNT, SEED, THREADS


@dataclass
class SpecialisationStudySettings:
    """A pretrained potential, cut, trained further, and against the same shape from scratch."""

    out: str = setting("runs/specialisation", "folder of the study")
    teacher: str = setting("7net-0", "the pretrained potential")
    systems: list[str] = setting(
        ["ethanol", "3bpa", "water"],
        "what it is made small for",
        choices=("ethanol", "3bpa", "water"),
    )
    seeds: list[int] = setting([0, 1, 2], "training structures and fits, one each per seed", **SEED)
    parts: list[str] = setting(
        ["fits", "scores", "speed"],
        "trained arms, cuts without training, times",
        choices=("fits", "scores", "speed"),
    )
    train: int = setting(200, "training structures", low=50)
    steps: int = setting(200, "optimiser steps of every arm", **COUNT)
    batch_size: int = setting(5, "structures per step", **COUNT)
    rates: list[float] = setting(
        [3e-3, 1e-2, 3e-2], "learning rates, of which validation chooses for every arm", above=0
    )
    threads: int | None = setting(1, "CPU threads; null: torch's default", **THREADS)
