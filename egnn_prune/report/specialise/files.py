"""What `specialise` left in its folder, read and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egnn_prune.errors import DataError
from egnn_prune.report.common.files import (
    SCHEMA_VERSION,
    Metrics,
    check_records,
    load_predictions,
    mapping,
    number,
)
from egnn_prune.system.files import read_json

Array = NDArray[np.float64]

KIND = "specialise"
"""What ``metrics.json`` of such a folder says under ``kind``."""

LABELS = {
    "teacher": "teacher",
    "finetuned": "fine-tuned",
    "specialised": "specialised",
    "scratch": "scratch",
}
"""The models in the order of every table and figure, with their names for readers."""

FORCE_RMSE, LATENCY = "force_rmse_mev_per_angstrom", "latency_ms"
_REQUIRED = ("teacher", "specialised")
PER_STRUCTURE = ("energy_std", "energy_std_calibrated")
PER_ATOM = ("forces_std", "forces_std_calibrated", "forces_distance")
"""What ``predictions.npz`` holds of a model with error bars, behind its name."""
MILLI = 1000.0
"""From eV to meV."""


def load_metrics(path: Path) -> Metrics:
    """Reads and checks ``metrics.json``.

    Raises:
        InputError: If the file is missing, is not JSON, or lacks what every part of the page needs;
            the message names the file and the part.
    """
    metrics = read_json(path)
    try:
        return check_metrics(metrics)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def check_metrics(metrics: Metrics) -> Metrics:
    """Checks the parts that every table and figure relies on, and hands them back.

    Raises:
        DataError: If a part is missing or has the wrong form; the message names it.
    """
    if not isinstance(metrics, Mapping) or metrics.get("kind") != KIND:
        raise DataError(f"metrics: kind must be {KIND!r}; this is the folder of another job")
    if metrics.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"metrics: schema_version must be {SCHEMA_VERSION}, "
            f"got {metrics.get('schema_version')!r}"
        )
    mapping(metrics, "dataset")
    models = mapping(metrics, "models")
    for name in models_present(metrics):
        model = mapping(models, name, "models.")
        _positive(model, LATENCY, name)
    for name in _REQUIRED:
        model = mapping(models, name, "models.")
        _positive(model, LATENCY, name)
        if not number(model.get(FORCE_RMSE)) >= 0:
            raise DataError(f"metrics: models.{name}.{FORCE_RMSE} must be a number from 0")
    check_records(metrics.get("curve"), "curve", "budget")
    for i, record in enumerate(metrics.get("curve") or []):
        if not number(record["budget"]) > 0:
            raise DataError(f"metrics: curve[{i}].budget must be a positive number")
    if metrics.get("cut") is not None:
        _check_cut(mapping(metrics, "cut"))
    return metrics


def _positive(model: Mapping[str, Any], key: str, name: str) -> None:
    value = number(model.get(key))
    if not (value > 0 and math.isfinite(value)):
        raise DataError(f"metrics: models.{name}.{key} must be a positive number")


def _check_cut(cut: Mapping[str, Any]) -> None:
    check_records(cut.get("layers"), "cut.layers", "conv")
    if cut.get("species") is not None:
        kept_of(cut["species"], "cut.species")
    for t, layer in enumerate(cut.get("layers") or []):
        for kind in ("conv", "stream"):
            if layer.get(kind) is not None:
                for irrep, pair in mapping(layer, kind, f"cut.layers[{t}].").items():
                    kept_of(pair, f"cut.layers[{t}].{kind}.{irrep}")
        for pair in layer.get("radial") or []:
            kept_of(pair, f"cut.layers[{t}].radial")
        check_records(layer.get("paths"), f"cut.layers[{t}].paths", "kept")
        for path in layer.get("paths") or []:
            ends = [str(path.get(key) or "") for key in ("source", "target")]
            if not (all(end[:-1].isdigit() for end in ends) and number(path.get("l")) >= 0):
                raise DataError(
                    f"metrics: cut.layers[{t}].paths needs source and target such as '1e' and a "
                    f"whole number l, got {dict(path)}"
                )


def kept_of(pair: object, where: str) -> tuple[int, int]:
    """Copies kept and in all, of a pair such as ``[32, 128]``.

    Raises:
        DataError: If it is no such pair; the message says `where`.
    """
    numbers = [number(value) for value in pair] if isinstance(pair, list | tuple) else []
    if len(numbers) != 2 or not 0 <= numbers[0] <= numbers[1]:
        raise DataError(f"metrics: {where} must be [kept, total], got {pair!r}")
    return int(numbers[0]), int(numbers[1])


def models_present(metrics: Metrics) -> list[str]:
    """Names of the models that were made, in display order."""
    return [name for name in LABELS if metrics["models"].get(name) is not None]


def made_the_labels(metrics: Metrics, name: str) -> bool:
    """Whether a model is compared with itself: the teacher, which cannot learn from itself."""
    return metrics.get("labels") == "teacher" and name in ("teacher", "finetuned")


def values(metrics: Metrics, key: str) -> dict[str, float]:
    """One number of every model; NaN where it was not measured."""
    return {name: number(metrics["models"][name].get(key)) for name in models_present(metrics)}


@dataclass(frozen=True)
class Structures:
    """The test structures with their labels, and what the models say of them.

    Attributes:
        atoms: ``[B]`` atoms of each structure.
        z: ``[N]`` atomic numbers, of all structures one after another.
        energy: ``[B]`` eV, the labels.
        forces: ``[N, 3]`` eV/Angstrom, the labels.
        energies: ``[B]`` by model.
        all_forces: ``[N, 3]`` by model.
        error_bars: What `PER_STRUCTURE` and `PER_ATOM` name, by model and name together, such as
            ``specialised_forces_std``: ``[B]`` eV, ``[N]`` eV/Angstrom or in units of the limit.
        pos: ``[N, 3]`` in Angstrom; None where the file has none.
        frame: ``[B]`` numbers in the user's data, from 0; None where the file does not say.
        cell: ``[B, 3, 3]`` lattice vectors in Angstrom, zero where a structure does not repeat;
            None where none does, or the file does not say.
    """

    atoms: NDArray[np.int64]
    z: NDArray[np.int64]
    energy: Array
    forces: Array
    energies: Mapping[str, Array]
    all_forces: Mapping[str, Array]
    error_bars: Mapping[str, Array] = field(default_factory=dict)
    pos: Array | None = None
    frame: Array | None = None
    cell: Array | None = None

    def __len__(self) -> int:
        return len(self.atoms)

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """``[N]`` the structure of each atom."""
        return np.repeat(np.arange(len(self)), self.atoms)

    def force_errors(self, name: str) -> Array:
        """``[N, 3]`` prediction minus label in meV/Angstrom."""
        return MILLI * (self.all_forces[name] - self.forces)

    def energy_errors(self, name: str) -> Array:
        """``[B]`` prediction minus label in meV per atom."""
        return MILLI * (self.energies[name] - self.energy) / self.atoms


def load_structures(path: Path, metrics: Metrics) -> Structures:
    """Reads ``predictions.npz``; models that it does not hold are left out.

    So are those that made the labels: panels would show nothing but rounding.

    Raises:
        DataError: If the file is missing or damaged, or arrays do not fit each other.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing; run the job again, which goes on where it stopped")
    arrays = load_predictions(path)
    for key in ("atoms", "energy_reference", "forces_reference", "z"):
        if key not in arrays:
            raise DataError(f"{path}: array {key!r} is missing")
    atoms = _counts(arrays["atoms"], "atoms", path)
    shapes: dict[str, tuple[int, ...]] = {
        "energy": (len(atoms),),
        "forces": (int(atoms.sum()), 3),
        "atom": (int(atoms.sum()),),
        "cell": (len(atoms), 3, 3),
    }

    def array(key: str, what: str) -> Array:
        if arrays[key].shape != shapes[what]:
            raise DataError(
                f"{path}: {key!r} has shape {arrays[key].shape}, but {len(atoms)} structures with "
                f"{atoms.sum()} atoms need {shapes[what]}"
            )
        return arrays[key]

    z = _counts(arrays["z"], "z", path)
    if len(z) != atoms.sum():
        raise DataError(f"{path}: 'z' must hold one number for each of the {atoms.sum()} atoms")
    names = [
        name
        for name in models_present(metrics)
        if f"{name}_energy" in arrays
        and f"{name}_forces" in arrays
        and not made_the_labels(metrics, name)
    ]
    return Structures(
        atoms,
        z,
        array("energy_reference", "energy"),
        array("forces_reference", "forces"),
        {name: array(f"{name}_energy", "energy") for name in names},
        {name: array(f"{name}_forces", "forces") for name in names},
        {
            f"{name}_{what}": array(f"{name}_{what}", shape)
            for name in names
            for known, shape in ((PER_STRUCTURE, "energy"), (PER_ATOM, "atom"))
            for what in known
            if f"{name}_{what}" in arrays
        },
        array("pos", "forces") if "pos" in arrays else None,
        array("frame", "energy") if "frame" in arrays else None,
        array("cell", "cell") if "cell" in arrays else None,
    )


def _counts(array: Array, key: str, path: Path) -> NDArray[np.int64]:
    """Whole numbers from 1; `load_predictions` hands out every array as floats."""
    if array.ndim != 1 or not array.size or not ((array >= 1) & (array % 1 == 0)).all():
        raise DataError(f"{path}: {key!r} must be a list of whole numbers from 1")
    return array.astype(np.int64)
