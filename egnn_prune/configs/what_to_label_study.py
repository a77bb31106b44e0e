"""Settings of the study of which structures a specialised potential should learn from."""

from __future__ import annotations

from dataclasses import dataclass

from egnn_prune.configs.declaration import setting
from egnn_prune.configs.settings import COUNT, SEED, THREADS

CHOICES = ("uncertain", "diverse", "proportional", "random")


@dataclass
class WhatToLabelSettings:
    """Pools with a rare part, and ways to choose of them what is labelled."""

    out: str = setting("runs/what_to_label", "folder of the study")
    teacher: str = setting("7net-0", "the pretrained potential that is made small")
    seeds: list[int] = setting([0, 1, 2, 3, 4], "structures, pools and fits, one each", **SEED)
    kinds: list[str] = setting(
        ["hot", "bond"],
        "the rare part: frames hotter than 300 K, or with a stretched bond",
        choices=("hot", "bond"),
    )
    shares: list[float] = setting(
        [0.02, 0.05, 0.2, 0.6], "share of the pool that is rare", above=0, below=1
    )
    strategies: list[str] = setting(
        ["uncertain", "diverse", "proportional", "random"],
        "how structures are chosen",
        choices=CHOICES,
    )
    pool: int = setting(200, "structures to choose from", low=2)
    label: int = setting(15, "structures that are chosen and labelled", low=1)
    train: int = setting(200, "training structures before", low=50)
    test: int = setting(100, "rare structures to test on, and ordinary ones", low=1)
    start_steps: int = setting(300, "optimiser steps of the fit before", **COUNT)
    steps: int = setting(100, "optimiser steps on what was labelled", **COUNT)
    threads: int | None = setting(1, "CPU threads; null: torch's default", **THREADS)
