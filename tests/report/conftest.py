"""Synthetic but realistic content of a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from molecules import MOLECULES
from numpy.typing import NDArray

SIZES = {"test": 600, "ood": 700}


def _model(scale: float, cost: float) -> dict[str, Any]:
    return {
        "test_mae": 0.0523 * scale,
        "test_rmse": 0.0781 * scale,
        "ood_mae": 0.0912 * scale,
        "unit": "eV",
        "params": int(312456 * cost),
        "macs_per_graph": int(41_250_000 * cost),
        "latency_ms": 12.4 * (0.1 + 0.9 * cost),
        "latency_batch": 64,
        "nll": -1.31 + 0.4 * (scale - 1),
        "spearman_error_uncertainty": 0.43 - 0.3 * (scale - 1),
        "equivariance_error": 3.1e-07,
        "train_seconds": 612.0 * cost,
        "checkpoint_bytes": int(1_270_000 * cost),
    }


@pytest.fixture
def metrics() -> dict[str, Any]:
    """Metrics of a run in which pruning costs 2.1 % of error."""
    layers = [f"layers.{i}" for i in range(4)]
    names = ["embedding", *layers, "readout"]
    totals = [1024, 74_000, 74_000, 74_000, 74_000, 15_432]
    ledger = [
        {
            "layer": name,
            "total": total,
            "pruned": int(0.6 * total) if name in layers else 0,
            "frozen": int(0.1 * total) if name == "embedding" else 0,
            "trainable": total - int(0.6 * total) if name in layers else total,
            "macs_dense": 140 * total,
            "macs_pruned": int(140 * total * (0.36 if name in layers else 1.0)),
        }
        for name, total in zip(names, totals, strict=True)
    ]
    groups = [
        {"name": f"{layer}.{kind}", "kind": kind, "total": 64, "kept": kept}
        for i, layer in enumerate(layers)
        for kind, kept in (("edge", 30 - 4 * i), ("node", 36 + i))
    ]
    return {
        "schema_version": 1,
        "config_hash": "3f9a1c77d0e2",
        "git_commit": "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567",
        "seed": 0,
        "device": "cpu",
        "threads": 2,
        "dataset": {
            "name": "xtb",
            "target": "atomisation_energy",
            "unit": "eV",
            "train": 4200,
            "val": 500,
            "test": 600,
            "ood": 700,
            "mean_predictor_mae": 0.61,
        },
        "models": {
            "dense": _model(1.0, 1.0),
            "pruned": _model(1.021, 0.37),
            "scratch": _model(1.13, 0.37),
        },
        "intervals": {
            "test_mae": [0.004, 0.038],
            "test_mae_scratch": [-0.12, -0.07],
            "latency_ms": [-0.58, -0.55],
        },
        "selection": {
            "strategy": "top",
            "selected": 1260,
            "replay": 500,
            "uncertainty": "dropout",
        },
        "ledger": ledger,
        "pruning": {
            "criterion": "taylor",
            "sparsity": 0.5,
            "channels_total": 512,
            "channels_removed": 260,
            "groups": groups,
        },
    }


@pytest.fixture
def predictions(metrics: dict[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Predictions whose error grows with the predicted standard deviation."""
    rng = np.random.default_rng(0)
    arrays: dict[str, NDArray[np.float64]] = {}
    for split, size in SIZES.items():
        reference = rng.normal(-70, 12, size)
        target = reference + rng.normal(0, 0.75, size)
        arrays[f"{split}_target"], arrays[f"{split}_reference"] = target, reference
        std = 0.065 * np.exp(rng.normal(0, 0.55, size)) * (1.7 if split == "ood" else 1.0)
        for name, scale in (("dense", 1.0), ("pruned", 1.02), ("scratch", 1.13)):
            arrays[f"{split}_{name}_mean"] = target + scale * 1.1 * std * rng.normal(size=size)
            arrays[f"{split}_{name}_std"] = std * scale
            arrays[f"{split}_{name}_epistemic_std"] = 0.6 * std
    return arrays


@pytest.fixture
def run_folder(
    tmp_path: Path, metrics: dict[str, Any], predictions: dict[str, NDArray[np.float64]]
) -> Path:
    """A run folder with the three files the training job leaves."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    np.savez(run / "predictions.npz", **predictions)  # type: ignore[arg-type]
    (run / "config.yaml").write_text(
        "seed: 0\nmodel:\n  layers: 4\n  hidden: 64\nnote: <script>alert(1)</script>\n",
        encoding="utf-8",
    )
    return run


@pytest.fixture
def comparison() -> list[dict[str, Any]]:
    """Three seeds, three criteria, three sparsities and the dense model."""
    rng = np.random.default_rng(1)
    rows = []
    for seed in range(3):
        base = 0.052 + 0.002 * rng.normal()
        cells = [("dense", 0.0, 0.0)] + [
            (arm, sparsity, harm)
            for arm, harm in (("uncertainty", 0.04), ("magnitude", 0.08), ("random", 0.15))
            for sparsity in (0.3, 0.5, 0.7)
        ]
        for arm, sparsity, harm in cells:
            error = base * (1 + harm * (1 + 3 * sparsity) * (arm != "dense"))
            error += 0.0006 * rng.normal()
            rows.append(
                {
                    "seed": seed,
                    "arm": arm,
                    "sparsity": sparsity,
                    "test_mae": error,
                    "ood_mae": 1.8 * error,
                    "unit": "eV",
                    "macs_per_graph": 41e6 * (1 - sparsity) ** 1.4,
                    "params": int(312456 * (1 - sparsity) ** 1.5),
                    "latency_ms": 12.4 * (1 - 0.9 * sparsity),
                    "nll": -1.3 + 9 * (error - 0.052),
                    "spearman_error_uncertainty": 0.4 + 0.02 * rng.normal(),
                }
            )
    return rows


def _scores(name: str, prefix: str, worse: float) -> dict[str, float]:
    """Qualities of the error bars; the pruned model's are worse until they are calibrated."""
    harm = {"dense": 1.0, "pruned": 1.6, "scratch": 1.2}[name] * worse
    before = {
        "nll": -1.31 + 0.4 * (harm - 1),
        "ence": 0.2 * harm,
        "miscalibration_area": 0.05 * harm,
        "coverage_90": 0.9 - 0.06 * harm,
    }
    after = {"nll": -1.4, "ence": 0.1 * worse, "miscalibration_area": 0.02, "coverage_90": 0.895}
    if not prefix:
        same = {"ause": 0.4, "ood_auroc": 0.8}  # their order does not change
        before |= {"crps": 0.041 * harm, **same}
        after |= {"crps": 0.039, **same}
    found = {prefix + key: value for key, value in before.items()}
    return found | {f"{prefix}{key}_calibrated": value for key, value in after.items()}


@pytest.fixture
def calibrated_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics of a run whose error bars were measured before and after calibration."""
    for name, model in metrics["models"].items():
        model |= _scores(name, "", 1.0) | _scores(name, "ood_", 1.5)
    metrics["intervals"] |= {
        "ence": [0.05, 0.19],
        "ence_calibrated": [-0.02, 0.02],
        "ence_factor": [0.3, 0.9],
        "ence_calibrated_factor": [-0.2, 0.2],
        "ence_mended": [-0.7, -0.3],
        "calibration_harm": [0.2, 0.6],
    }
    metrics["uncertainty"] = {
        "method": "dropout",
        "calibration": "variance",
        "fitted_on": "val",
        "points": 500,
    }
    return metrics


@pytest.fixture
def calibrated_predictions(predictions: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The predictions with error bars half as long as they should be, mended, and a gallery."""
    for split in SIZES:
        for name in ("dense", "pruned", "scratch"):
            std = predictions[f"{split}_{name}_std"]
            predictions[f"{split}_{name}_std_calibrated"] = 1.1 * std
            predictions[f"{split}_{name}_std"] = 0.55 * std
        prefix = f"gallery_{split}"
        # Least uncertain first: the report has to sort.
        longest = np.argsort(predictions[f"{split}_pruned_std"])[-len(MOLECULES) :]
        predictions[f"{prefix}_row"] = longest
        predictions[f"{prefix}_atoms"] = np.array([len(z) for z, _ in MOLECULES.values()])
        predictions[f"{prefix}_z"] = np.concatenate([z for z, _ in MOLECULES.values()])
        predictions[f"{prefix}_pos"] = np.concatenate([pos for _, pos in MOLECULES.values()])
        predictions[f"{prefix}_smiles"] = np.array(list(MOLECULES))
    return predictions


@pytest.fixture
def calibrated_run(
    run_folder: Path,
    calibrated_metrics: dict[str, Any],
    calibrated_predictions: dict[str, NDArray[Any]],
) -> Path:
    """A run folder with all that the report can show."""
    (run_folder / "metrics.json").write_text(json.dumps(calibrated_metrics), encoding="utf-8")
    np.savez(run_folder / "predictions.npz", **calibrated_predictions)
    return run_folder
