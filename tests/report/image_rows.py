"""Synthetic but realistic metrics of every kind of experiment on images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Metrics = dict[str, Any]

CIFAR = "plane car bird cat deer dog frog horse ship truck".split()
UNKNOWN = (
    "apple baby bear bed bicycle boy bridge bus cattle crab dolphin forest girl lion man oak_tree "
    "orange pickup_truck plain rocket shark snail sunflower tank tiger train tulip wolf woman worm"
).split()
ORIGINAL = (
    (0.0, 62006, 0.6079, 0.0033, 0.108, 1.227, 0.658),
    (0.2, 48654, 0.6176, 0.0045, 0.099, 1.206, 0.662),
    (0.4, 35987, 0.6073, 0.0107, 0.094, 1.208, 0.655),
    (0.6, 24136, 0.6174, 0.0086, 0.074, 1.152, 0.660),
    (0.8, 13101, 0.6054, 0.0127, 0.061, 1.179, 0.648),
)
PUBLISHED_RESNETS = (
    ("L1 norm, ResNet-56", 2.1, 0.9292),
    ("Torch-Pruning, ResNet-56", 2.1, 0.9346),
    ("Torch-Pruning + sparse learning, ResNet-56", 2.1, 0.9377),
    ("Torch-Pruning + sparse learning, ResNet-56", 2.57, 0.9364),
)


def about(experiment: str, rows: list[dict[str, Any]], **more: Any) -> Metrics:
    """The content of ``metrics.json``."""
    return {
        "schema_version": 1,
        "experiment": experiment,
        "title": f"A test of {experiment}",
        "command": f"python scripts/run_vision.py experiment={experiment}",
        "data": {
            "name": "CIFAR-10",
            "train": 45000,
            "val": 5000,
            "test": 10000,
            "ood": 3000,
            "classes": CIFAR,
            "ood_classes": UNKNOWN,
            "shape": [3, 32, 32],
        },
        "network": {"name": "LeNet", "parameters": 62006, "macs": 651720, "dropout": 0.3},
        "config_hash": "3f9a1c77d0e2",
        "git_commit": "0a1b2c3d",
        "device": "cpu",
        "threads": 1,
        "seeds": sorted({row["seed"] for row in rows}),
        "seconds": 5040.0,
        "rows": rows,
        **more,
    }


def reliability(gap: float, rng: np.random.Generator, bins: int = 15) -> dict[str, list[Any]]:
    """A diagram of an overconfident network; the first bin is empty."""
    middle = (np.arange(bins) + 0.5) / bins
    count = np.r_[0, rng.integers(50, 120, bins - 1) * (1 + 12 * middle[1:] ** 2)].astype(int)
    accuracy = np.clip(middle - gap * np.sin(math.pi * middle) + rng.normal(0, 0.01, bins), 0, 1)
    none = [None]
    return {
        "confidence": none + middle[1:].tolist(),
        "accuracy": none + accuracy[1:].tolist(),
        "count": count.tolist(),
    }


def ood_labels(sparsity: float, rng: np.random.Generator) -> list[list[int]]:
    """Counts of 100 images per OOD class; fewer men are called deer as sparsity grows."""
    base = np.random.default_rng(5).dirichlet(np.full(len(CIFAR), 0.7), len(UNKNOWN))
    drift = np.random.default_rng(6).dirichlet(np.full(len(CIFAR), 0.7), len(UNKNOWN))
    shares = (1 - 0.4 * sparsity) * base + 0.4 * sparsity * drift
    man, deer = UNKNOWN.index("man"), CIFAR.index("deer")
    shares[man] *= (0.72 + 0.15 * sparsity) / (1 - shares[man, deer])
    shares[man, deer] = 0.28 - 0.15 * sparsity
    return [rng.multinomial(100, share / share.sum()).tolist() for share in shares]


def lottery_row(
    rng: np.random.Generator, seed: int, structure: str, strategy: str, sparsity: float
) -> dict[str, Any]:
    """One network of S1."""
    harm = {"reinitialised": 0.012, "iterative": -0.004, "rewound": 0.004}.get(strategy, 0.0)
    fall = 0.03 * max(0.0, sparsity - 0.6) * (0.3 if structure == "unstructured" else 1)
    ece = 0.108 - 0.055 * sparsity + 0.004 * rng.normal()
    share = (1 - sparsity) ** (1.0 if structure == "unstructured" else 1.3)
    return {
        "seed": seed,
        "structure": structure,
        "strategy": strategy,
        "sparsity": sparsity,
        "parameters": int(62006 * share),
        "stored": 62006 if structure == "unstructured" else int(62006 * share),
        "macs": int(651720 * (1 - 0.4 * sparsity)),
        "epochs": int(9 + 8 * sparsity + rng.integers(0, 3)),
        "best_epoch": 8,
        "seconds": 300.0,
        "accuracy": 0.612 - harm - fall + 0.005 * rng.normal(),
        "nll": 1.22 - 0.06 * sparsity + harm + 0.01 * rng.normal(),
        "brier": 0.52,
        "ece": ece,
        "uce": ece - 0.01,
        "ece_scaled": 0.014 + 0.001 * rng.normal(),
        "temperature": 1.3,
        "dropout_accuracy": 0.61,
        "dropout_nll": 1.15 - 0.05 * sparsity + 0.01 * rng.normal(),
        "dropout_ece": 0.02 + 0.01 * sparsity + 0.002 * rng.normal(),
        "dropout_uce": 0.03 + 0.002 * rng.normal(),
        "auroc": 0.66 - 0.01 * sparsity + 0.004 * rng.normal(),
        "auroc_entropy": 0.67,
        "auroc_energy": 0.65,
        "dropout_auroc_max": 0.64 + 0.004 * rng.normal(),
        "reliability": reliability(0.25 - 0.15 * sparsity, rng),
        "ood_labels": ood_labels(sparsity, rng),
        "history": [{"epoch": 1, "val_accuracy": 0.5, "val_loss": 1.3}],
    }


def lottery(
    seeds: int = 3,
    structures: tuple[str, ...] = ("structured", "unstructured"),
    strategies: tuple[str, ...] = ("one_shot", "rewound", "reinitialised", "iterative"),
    sparsities: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8),
) -> Metrics:
    """S1, with the published table."""
    rng = np.random.default_rng(0)
    cells = [("dense", "dense", 0.0), ("dense", "trained_on", 0.0)]
    cells += [(a, b, c) for a in structures for b in strategies for c in sparsities]
    rows = [lottery_row(rng, seed, *cell) for seed in range(seeds) for cell in cells]
    keys = ("sparsity", "parameters", "accuracy", "accuracy_sd", "ece", "nll", "auroc")
    label = "original checkpoints, re-evaluated"
    published = [{"label": label, **dict(zip(keys, row, strict=True))} for row in ORIGINAL]
    return about("lottery", rows, published=published)


def history(start: float, end: float, epochs: int, rng: np.random.Generator) -> list[Any]:
    """Validation accuracy that approaches `end`."""
    rise = end - (end - start) * np.exp(-np.arange(1, epochs + 1) / (epochs / 4))
    noise = rng.normal(0, 0.002, epochs)
    return [
        {"epoch": e + 1, "val_accuracy": float(rise[e] + noise[e]), "val_loss": 0.4}
        for e in range(epochs)
    ]


def magnitude(seeds: int = 3) -> Metrics:
    """S2."""
    rng = np.random.default_rng(1)
    rows = []
    for seed in range(seeds):
        for arm, gain in (("dense", 0), ("dense_longer", 3), ("magnitude", 2), ("random", -9)):
            accuracy = 0.931 + 0.001 * gain + 0.0015 * rng.normal()
            pruned = arm in ("magnitude", "random")
            fine = history(0.928 if not pruned else 0.80 + 0.0 * gain, accuracy, 9 + seed, rng)
            rows.append(
                {
                    "seed": seed,
                    "arm": arm,
                    "sparsity": 0.2 if pruned else 0.0,
                    "accuracy": accuracy,
                    "nll": 0.25 + 0.01 * rng.normal(),
                    "ece": 0.035 + 0.002 * rng.normal(),
                    "val_accuracy": accuracy,
                    "epochs": 20 if arm == "dense" else 9 + seed,
                    "best_epoch": 7,
                    "seconds": 4000.0,
                    "seconds_per_epoch": 431.0 + 3 * rng.normal(),
                    "weights": 42_512_970,
                    "nonzero": 34_020_000 if pruned else 42_512_970,
                    "file_mb": 170.4,
                    "compressed_mb": 131.2 if pruned else 157.9,
                    "latency_ms": 812.0 + 9 * rng.normal(),
                    "history": history(0.6, accuracy, 20, rng) if arm == "dense" else fine,
                }
            )
    metrics = about("magnitude", rows)
    metrics["network"]["name"] = "ResNet-101"
    return metrics


def incremental(seeds: int = 3, epochs: int = 50) -> Metrics:
    """S3, on MNIST."""
    rng = np.random.default_rng(2)
    rows = []
    for seed in range(seeds):
        for arm, harm in (("baseline", 0.0), ("neurons", 0.001), ("connections", 0.0004)):
            left, total, records = 1.0, 0.0, []
            for epoch in range(1, epochs + 1):
                if epoch > 5 and epoch % 5 == 1 and arm != "baseline":
                    left *= 0.81 if arm == "neurons" else 0.9
                share = left if arm == "neurons" else 1.0
                total += (2.1 + 0.05 * rng.normal()) * (0.45 + 0.55 * share)
                accuracy = 0.982 - harm - 0.05 * math.exp(-epoch / 3) + 0.0006 * rng.normal()
                records.append(
                    {
                        "epoch": epoch,
                        "parameters": int(178_110 * left),
                        "macs": int(177_800 * share),
                        "cpu_seconds": total,
                        "val_accuracy": accuracy,
                        "val_loss": 0.1,
                    }
                )
            rows.append(
                {
                    "seed": seed,
                    "arm": arm,
                    "accuracy": 0.982 - harm + 0.0006 * rng.normal(),
                    "nll": 0.11 + 0.01 * rng.normal(),
                    "ece": 0.012 + 0.001 * rng.normal(),
                    "parameters": int(178_110 * left),
                    "stored": int(178_110 * share),
                    "macs": int(177_800 * share),
                    "train_seconds": total * 0.6,
                    "train_cpu_seconds": total,
                    "latency_ms": 0.8 * (0.3 + 0.7 * share) * math.exp(0.04 * rng.normal()),
                    "peak_bytes": int(60_000 * (0.4 + 0.6 * share)),
                    "resident_mb": 512.0 + 5 * rng.normal(),
                    "history": records,
                }
            )
    metrics = about("incremental", rows)
    metrics["network"]["name"] = "FCNN on MNIST"
    return metrics


def structured(seeds: int = 3) -> Metrics:
    """ResNet-20 with fewer MACs."""
    rng = np.random.default_rng(3)
    rows = []
    drops = {"magnitude": 0.004, "taylor": 0.003, "random": 0.009, "scratch": 0.007}
    for seed in range(seeds):
        cells = [("dense", 1.0), ("dense_longer", 1.0)]
        cells += [(arm, factor) for arm in drops for factor in (2.0, 2.5)]
        for arm, factor in cells:
            drop = drops.get(arm, 0.0) * (factor - 0.8)
            rows.append(
                {
                    "seed": seed,
                    "arm": arm,
                    "factor": factor,
                    "macs": int(40_800_000 / (factor * (1 + 0.01 * rng.random() * (factor > 1)))),
                    "parameters": int(272_474 / factor),
                    "accuracy": 0.917 - drop + 0.0012 * rng.normal(),
                    "nll": 0.31 + 0.01 * rng.normal(),
                    "ece": 0.04 + 0.002 * rng.normal(),
                    "latency_ms": 21.0 / factor**0.7,
                    "epochs": 60,
                    "seconds": 800.0,
                    "history": [],
                }
            )
    published = [
        {"label": a, "macs_factor": b, "dense_accuracy": 0.9353, "accuracy": c}
        for a, b, c in PUBLISHED_RESNETS
    ]
    metrics = about("structured", rows, published=published)
    metrics["network"]["name"] = "ResNet-20"
    return metrics


def selection(seeds: int = 5, sparsities: tuple[float, ...] = (0.6,)) -> Metrics:
    """Uncertain, random and certain images."""
    rng = np.random.default_rng(4)
    rows = []
    for seed in range(seeds):
        shared = 0.006 * rng.normal()
        for sparsity in sparsities:
            for strategy, gain in (
                ("top", -0.004),
                ("random", 0.0),
                ("least", -0.012),
                ("all", 0.005),
            ):
                rows.append(
                    {
                        "seed": seed,
                        "strategy": strategy,
                        "steps": 2000,
                        "sparsity": sparsity,
                        "accuracy": 0.60 + gain + shared + 0.002 * rng.normal(),
                        "nll": 1.18 - 2 * gain + 0.01 * rng.normal(),
                        "ece": 0.08 - 4 * gain + 0.004 * rng.normal(),
                        "auroc": 0.65 + 0.004 * rng.normal(),
                        "mean_uncertainty": 0.3,
                        "start_accuracy": 0.45 + shared,
                    }
                )
    return about("selection", rows)


MAKERS = {
    "lottery": lottery,
    "magnitude": magnitude,
    "incremental": incremental,
    "structured": structured,
    "selection": selection,
}
