"""Settings of the study of error bars of forces."""

from __future__ import annotations

from dataclasses import dataclass

from egnn_prune.configs.declaration import setting
from egnn_prune.configs.settings import COUNT, POSITIVE, SEED, SPARSITY, THREADS


@dataclass
class ForceCalibrationStudySettings:
    """Energies alone, forces at the end, or forces from the start: how true are error bars?"""

    out: str = setting("runs/force_calibration", "folder of the study")
    data: str = setting(
        "rmd17",
        "rmd17: ethanol; where that is not here, and xtb: molecules that are built in",
        choices=("rmd17", "xtb"),
    )
    networks: list[str] = setting(["egnn", "irreps"], "what is trained", choices=("egnn", "irreps"))
    seeds: list[int] = setting([0, 1, 2], "training structures and fits, one each per seed", **SEED)
    train: int = setting(500, "training structures", low=50)
    val: int = setting(50, "structures that error bars are calibrated on, at most", low=10)
    test: int = setting(500, "structures that they are judged on, at most", low=10)
    epochs: int = setting(20, "of the training", **COUNT)
    finetune_epochs: int = setting(6, "of the extra steps, which every network takes", **COUNT)
    batch_size: int = setting(10, "structures per step", **COUNT)
    hidden: int = setting(32, "width of the networks", **COUNT)
    members: int = setting(4, "read-outs that share the network", low=2)
    sparsity: float = setting(0.5, "fraction of channels that pruning removes", **SPARSITY)
    force_weight: float = setting(10.0, "weight of the forces beside the energy", **POSITIVE)
    threads: int | None = setting(1, "CPU threads; null: torch's default", **THREADS)
