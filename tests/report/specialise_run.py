"""A folder as `specialise` leaves it: random but plausible, of 40 structures of 9 and 27 atoms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import force_arrays
import numpy as np
from numpy.typing import NDArray

SMALL = [6, 6, 8] + 6 * [1]
LARGE = 12 * [6] + 2 * [7] + [8] + 12 * [1]
SCALE = {"teacher": 0.338, "finetuned": 0.060, "specialised": 0.071, "scratch": 0.156}
IRREPS = ("0e", "1e", "2e")


def predictions(seed: int = 0) -> dict[str, NDArray[Any]]:
    """Forces of about 1 eV/Angstrom with errors of `SCALE`; hydrogen has smaller ones."""
    random = np.random.default_rng(seed)
    structures = 20 * [SMALL, LARGE]
    z = np.concatenate(structures)
    atoms = np.array([len(each) for each in structures])
    size = np.where(z == 1, 0.7, 1.4)[:, None]
    forces = size * random.normal(size=(len(z), 3))
    energy = -4.2 * atoms + random.normal(0, 0.4, len(atoms))
    hard = np.repeat(np.exp(random.normal(0, 0.25, len(atoms))), atoms)[:, None]
    hard = hard / np.sqrt((size**2 * hard**2).mean())
    arrays: dict[str, NDArray[Any]] = {
        "atoms": atoms,
        "z": z,
        "energy_reference": energy,
        "forces_reference": forces,
    }
    common = random.normal(size=forces.shape)  # what is hard for one model is hard for all
    for name, scale in SCALE.items():
        noise = 0.6 * common + 0.8 * random.normal(size=forces.shape)
        arrays[f"{name}_forces"] = forces + scale * size * hard * noise
        shift = 3.1 if name == "teacher" else 0.0
        arrays[f"{name}_energy"] = energy + atoms * (
            shift + 0.08 * scale * random.normal(size=len(atoms))
        )
    return arrays


def _errors(arrays: dict[str, NDArray[Any]], name: str) -> dict[str, float]:
    force = 1e3 * (arrays[f"{name}_forces"] - arrays["forces_reference"])
    energy = 1e3 * (arrays[f"{name}_energy"] - arrays["energy_reference"]) / arrays["atoms"]
    return {
        "force_rmse_mev_per_angstrom": float(np.sqrt((force**2).mean())),
        "force_mae_mev_per_angstrom": float(np.abs(force).mean()),
        "energy_mae_mev_per_atom": float(np.abs(energy).mean()),
        "energy_rmse_mev_per_atom": float(np.sqrt((energy**2).mean())),
    }


def _cost(small: bool) -> dict[str, float | None]:
    return {
        "stress_rmse_mev_per_angstrom3": 1.31 if small else 1.12,
        "latency_ms": 65.2 if small else 261.0,
        "latency_single_ms": 21.4 if small else 58.3,
        "params": 231_400 if small else 842_623,
        "memory_mb": 118.0 if small else 611.0,
        "checkpoint_bytes": 960_000 if small else 3_420_000,
        "md_steps_per_second": 14.9 if small else 3.8,
        "train_seconds": 14.0 if small else 39.0,
    }


def _paths(seed: int, first: bool, last: bool) -> list[dict[str, Any]]:
    """All couplings up to l = 2 without parity; odd ones and some others are cut."""
    random = np.random.default_rng(seed)
    return [
        {
            "source": f"{a}e",
            "l": b,
            "target": f"{c}e",
            "kept": bool((a + b + c) % 2 == 0 and (random.random() > 0.35 or a == 0)),
        }
        for a in ([0] if first else [0, 1, 2])
        for b in (0, 1, 2)
        for c in ([0] if last else [0, 1, 2])
        if abs(a - b) <= c <= a + b
    ]


def _layers() -> list[dict[str, Any]]:
    total = {"0e": 128, "1e": 64, "2e": 32}
    random = np.random.default_rng(3)
    layers = []
    for t in range(5):
        irreps = IRREPS[:1] if t == 0 else IRREPS
        layers.append(
            {
                "conv": {
                    ir: [int(total[ir] * random.uniform(0.12, 0.4)), total[ir]] for ir in irreps
                },
                "stream": {ir: [total[ir], total[ir]] for ir in irreps},
                "radial": [[64, 64], [64, 64]],
                "paths": _paths(t, t == 0, t == 4),
            }
        )
    return layers


def _curve() -> list[dict[str, Any]]:
    found = []
    for budget, conv, path, before, after in (
        (0.75, 0.1, 0.25, 88.0, 66.0),
        (0.5, 0.3, 0.35, 105.0, 69.0),
        (0.35, 0.55, 0.4, 141.0, 75.0),
        (0.25, 0.75, 0.5, 232.0, 84.0),
        (0.15, 0.88, 0.6, 391.0, 121.0),
    ):
        share = 0.97 * budget
        found.append(
            {
                "budget": budget,
                "conv_sparsity": conv,
                "path_sparsity": path,
                "latency_ms": 261.0 * share,
                "latency_share": share,
                "params": int(842_623 * (0.1 + 0.8 * budget)),
                "compensated": budget > 0.2,
                "force_rmse_before_mev_per_angstrom": before,
                "force_rmse_mev_per_angstrom": after,
            }
        )
    return found


def metrics(arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Of the predictions, by the contract between the job and the page."""
    mirror = {"teacher": 0.03, "finetuned": 0.028, "specialised": 6e-7, "scratch": 5e-7}
    return {
        "schema_version": 1,
        "kind": "specialise",
        "config_hash": "3f9a1c77d0e2",
        "git_commit": "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567",
        "seed": 0,
        "device": "cpu",
        "threads": 1,
        "teacher": "7net-0",
        "labels": "data",
        "budget": 0.25,
        "steps": 300,
        "dataset": {
            "name": "structures.xyz",
            "train": 320,
            "val": 40,
            "test": 40,
            "elements": ["H", "C", "N", "O"],
            "atoms": [9, 27],
            "periodic": False,
        },
        "latency_atoms": 108,
        "latency_structures": 4,
        "latency_single_atoms": 27,
        "models": {
            name: {
                **_errors(arrays, name),
                **_cost(name in ("specialised", "scratch")),
                "equivariance_error": 4.1e-7 if name == "teacher" else 2.7e-7,
                "reflection_error": mirror[name],
                **({"train_seconds": None} if name == "teacher" else {}),
            }
            for name in SCALE
        },
        "curve": _curve(),
        "cut": {
            "layers": _layers(),
            "species": [4, 89],
            "odd_paths": 12,
            "odd_paths_force_change_mev_per_angstrom": 4.1,
            "compensation": {
                "used": True,
                "force_rmse_without_mev_per_angstrom": 318.0,
                "force_rmse_with_mev_per_angstrom": 232.0,
            },
        },
    }


def write_run(folder: Path) -> dict[str, Any]:
    """Fills a folder with all that the page can show; hands back the metrics."""
    (folder / "curves").mkdir(parents=True)
    arrays = predictions()
    found = metrics(arrays)
    (folder / "metrics.json").write_text(json.dumps(found), encoding="utf-8")
    np.savez(folder / "predictions.npz", **arrays)  # type: ignore[arg-type]
    (folder / "config.yaml").write_text("teacher: 7net-0\nnote: <script>\n", encoding="utf-8")
    for name, start, end in (
        ("finetuned", 150, 57.0),
        ("specialised", 232, 68.0),
        ("scratch", 800, 151.0),
    ):
        steps = np.arange(0, 301, 20)
        errors = end + (start - end) * np.exp(-steps / 60)
        rows = [f"{step},{0.1 * step},{error}" for step, error in zip(steps, errors, strict=True)]
        text = "\n".join(["step,seconds,val_force_rmse", *rows]) + "\n"
        (folder / "curves" / f"{name}.csv").write_text(text, encoding="utf-8")
    return found


def add_error_bars(found: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Gives all models but the teacher error bars: true ones, raw ones of half their length."""
    random = np.random.default_rng(5)
    atoms = arrays["atoms"]
    arrays["pos"] = _positions(arrays["z"], atoms)
    for seed, name in enumerate(("finetuned", "specialised", "scratch")):
        wrong, raw, std, distance = force_arrays.bars(atoms, SCALE[name], seed)
        energy = 0.08 * SCALE[name] * atoms * np.exp(random.normal(0, 0.4, len(atoms)))
        off = energy * random.normal(size=len(atoms))
        arrays |= {
            f"{name}_forces": arrays["forces_reference"] + wrong,
            f"{name}_forces_std": raw,
            f"{name}_forces_std_calibrated": std,
            f"{name}_forces_distance": distance,
            f"{name}_energy": arrays["energy_reference"] + off,
            f"{name}_energy_std": 0.5 * energy,
            f"{name}_energy_std_calibrated": energy,
        }
        model = found["models"][name]
        model |= _errors(arrays, name) | force_arrays.scores(wrong, raw, std)
        model |= _energy_scores(off, 0.5 * energy, "") | _energy_scores(off, energy, "_calibrated")
        model["latency_with_error_bars_ms"] = 1.07 * model["latency_ms"]
    found["uncertainty"] = {
        "method": "last_layer",
        "members": 4,
        "source": "distance",
        "calibration": "variance",
        "fitted_on": "val",
        "points": 40,
        "atoms": 720,
    }


def _energy_scores(off: NDArray[Any], std: NDArray[Any], suffix: str) -> dict[str, float]:
    ratio = np.abs(off) / std
    found = {
        f"energy_coverage_{percent}{suffix}": float((ratio <= limit).mean())
        for percent, limit in ((50, 0.674), (80, 1.282), (90, 1.645), (95, 1.960))
    }
    found |= {f"energy_ence{suffix}": 0.11 if suffix else 1.02, f"energy_nll{suffix}": -0.3}
    return found | {f"energy_spearman_error_uncertainty{suffix}": 0.44}


def _positions(z: NDArray[Any], atoms: NDArray[Any]) -> NDArray[Any]:
    """Carbon skeletons in a zigzag, other atoms on a wider one."""
    found = []
    for own in np.split(z, np.cumsum(atoms)[:-1]):
        heavy = own > 1
        i = np.where(heavy, np.cumsum(heavy) - 1, np.cumsum(~heavy) - 1).astype(float)
        up = np.where(i % 2, 0.45, -0.45) * np.where(heavy, 1.0, 3.2)
        found.append(np.stack([np.where(heavy, 1.25, 1.1) * i, up, 0.3 * np.sin(i)], axis=1))
    return np.concatenate(found)


def write_run_with_error_bars(folder: Path) -> dict[str, Any]:
    """The same folder, of a job that measured error bars."""
    write_run(folder)
    arrays = predictions()
    found = metrics(arrays)
    add_error_bars(found, arrays)
    (folder / "metrics.json").write_text(json.dumps(found), encoding="utf-8")
    np.savez(folder / "predictions.npz", **arrays)  # type: ignore[arg-type]
    return found
