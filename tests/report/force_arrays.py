"""Errors and error bars of forces as a run leaves them: random but plausible."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


def bars(
    atoms: NDArray[Any], size: float, seed: int, sharp: float = 0.5
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Errors ``[N, 3]`` with true error bars, raw ones of half the length, and distances."""
    random = np.random.default_rng(seed)
    total = int(atoms.sum())
    structure = np.repeat(np.exp(random.normal(0, 0.4, len(atoms))), atoms)
    std = size * structure * np.exp(random.normal(0, sharp, total))
    wrong = std[:, None] * random.standard_t(8, size=(total, 3)) * np.sqrt(6 / 8)
    return wrong, 0.5 * std, std, std / np.quantile(std, 0.99)


def scores(
    wrong: NDArray[Any], raw: NDArray[Any], std: NDArray[Any], prefix: str = "force_"
) -> dict[str, float]:
    """Of the kind that ``metrics.json`` holds; calibrated intervals are quantiles."""
    found: dict[str, float] = {}
    for suffix, deviation in (("", raw), ("_calibrated", std)):
        ratio = np.abs(wrong) / deviation[:, None]
        for percent, gaussian in ((50, 0.674), (80, 1.282), (90, 1.645), (95, 1.960)):
            limit = np.quantile(ratio, percent / 100) if suffix else gaussian
            found[f"coverage_{percent}{suffix}"] = float((ratio <= limit).mean())
        found |= {
            f"ence{suffix}": 0.06 if suffix else 0.97,
            f"nll{suffix}": -1.2 if suffix else 0.4,
            f"spearman_atoms{suffix}": 0.62,
            f"spearman_structures{suffix}": 0.91,
            f"auroc_wrong{suffix}": 0.83,
        }
    return {prefix + key: value for key, value in found.items()}


def add_force_bars(metrics: dict[str, Any], predictions: Arrays, structures: int = 120) -> None:
    """Gives a main run of synthetic numbers error bars of forces, on both splits."""
    for split, worse in (("test", 1.0), ("ood", 1.8)):
        random = np.random.default_rng(len(split))
        atoms = random.integers(5, 20, structures)
        for row, count in zip(
            *(predictions.get(f"gallery_{split}_{key}", ()) for key in ("row", "atoms")),
            strict=True,
        ):
            if row < structures:
                atoms[row] = count
        reference = random.normal(size=(atoms.sum(), 3))
        predictions |= {
            f"{split}_forces_atoms": atoms,
            f"{split}_forces_z": random.choice([1, 6, 8], atoms.sum()),
            f"{split}_forces_reference": reference,
        }
        for seed, (name, size) in enumerate((("dense", 0.05), ("pruned", 0.06))):
            wrong, raw, std, distance = bars(atoms, worse * size, seed)
            predictions |= {
                f"{split}_{name}_forces": reference + wrong,
                f"{split}_{name}_forces_std": raw,
                f"{split}_{name}_forces_std_calibrated": std,
                f"{split}_{name}_forces_distance": distance,
            }
            prefix = "force_" if split == "test" else "ood_force_"
            metrics["models"][name] |= scores(wrong, raw, std, prefix)
            if split == "test":
                metrics["models"][name] |= {"force_ood_auroc": 0.8, "test_force_mae": 0.03}
    metrics["force_uncertainty"] = {"source": "distance", "fitted_on": "val", "atoms": 1234}
