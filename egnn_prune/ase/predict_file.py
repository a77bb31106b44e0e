"""Predictions for a file of structures: a table, and the structures with their results.

On the way: :mod:`egnn_prune.ase.structures` reads and checks them, ``TrainedModel.predict``
(:mod:`egnn_prune.deployment.trained_model`) runs the estimator of :mod:`egnn_prune.uncertainty` on
the network of :mod:`egnn_prune.models` and calibrates, and each result is a
:class:`~egnn_prune.deployment.structure_prediction.StructurePrediction`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from tqdm import tqdm

from egnn_prune.ase.structures import graph_of, in_ase_units, problem, read_structures
from egnn_prune.deployment.structure_prediction import StructurePrediction
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.report.common.csv_file import write_rows
from egnn_prune.system.files import atomic

COVERAGE = 0.9
#: Of the structures that are predicted together: a few GB with most networks.
ATOMS_AT_ONCE = 20_000
COLUMNS = (
    "structure",
    "formula",
    "value",
    "std",
    "epistemic_std",
    "lower_90",
    "upper_90",
    "in_distribution",
    "unit",
)


@dataclass(frozen=True)
class Predicted:
    """What :func:`predict_structures` made.

    Attributes:
        rows: one mapping per structure, see :data:`COLUMNS` (``max_force_std`` in eV/Angstrom and
            ``max_distance`` where a potential has error bars of forces, and ``reason`` where one
            was skipped or is out of distribution), as in the CSV file.
        structures: those that were not skipped, with their results, as in the extended XYZ file.
        limit: the epistemic deviation beyond which a structure counts as out of distribution, in
            the target's unit, or ``None``.
    """

    rows: list[dict[str, Any]]
    structures: list[Atoms]
    limit: float | None

    def summary(self) -> str:
        """One line."""
        skipped = len(self.rows) - len(self.structures)
        outside = sum(row.get("in_distribution") == "no" for row in self.rows)
        known = (
            f"{outside} of them unlike the training data"
            if any(row.get("in_distribution") for row in self.rows)
            else "in or out of distribution unknown (the model has no uncertainty threshold)"
        )
        return f"{len(self.structures)} structures predicted, {known}; {skipped} skipped"


def predict_structures(
    model: TrainedModel,
    path: str | Path,
    *,
    skip_bad: bool = False,
    threshold: float | None = None,
    batch_size: int = 64,
) -> Predicted:
    """Predict every structure of a file.

    A structure is in distribution when its epistemic standard deviation is at most ``threshold``,
    and it looks like the training structures (see
    :class:`~egnn_prune.deployment.training_domain.TrainingDomain`), where the model's
    file says what these look like. ``reason`` says why one is not.

    Args:
        model: from :meth:`TrainedModel.load`.
        path: structures in any format that ASE reads, gzipped or not; declared units are
            converted, see :func:`~egnn_prune.ase.structures.in_ase_units`.
        skip_bad: go on after a structure that cannot be predicted, and say why in its row.
        threshold: in the target's unit; by default the 99 % quantile of the validation split,
            where the model's file holds it.
        batch_size: structures that are predicted at once.

    Raises:
        DataError: the file cannot be read; without ``skip_bad`` also: a structure cannot be used.
        ConfigError: the threshold or the batch size is not positive.
    """
    if batch_size < 1:
        raise ConfigError(f"the batch size must be at least 1, not {batch_size}")
    if threshold is not None and not (isinstance(threshold, Real) and threshold > 0):
        raise ConfigError(f"the threshold must be positive ({model.unit}), not {threshold}")
    limit = model.checked_threshold(model.ood_threshold if threshold is None else threshold)
    structures = read_structures(path)
    rows, good = [], []
    for k, atoms in enumerate(structures):
        row: dict[str, Any] = {"structure": k, "formula": atoms.get_chemical_formula()}
        reason = problem(atoms, model.elements)
        if reason and not skip_bad:
            raise DataError(f"structure {k} of {path} {reason}; --skip-bad leaves such out")
        if reason:
            row |= {"in_distribution": "", "unit": model.unit, "reason": reason}
        else:
            good.append(k)
        rows.append(row)
    if not good:
        raise DataError(f"no structure of {path} can be predicted: structure 0 {rows[0]['reason']}")
    results: list[Atoms] = []
    with tqdm(total=len(good), desc="predicting", leave=False) as bar:
        for part in at_once(good, [len(structures[k]) for k in good], batch_size):
            predictions = model.predict(
                [graph_of(structures[k]) for k in part],
                forces=model.is_potential,
                coverage=COVERAGE,
                threshold=threshold,
                forces_std=model.is_potential,
            )
            for k, found in zip(part, predictions, strict=True):
                rows[k] |= columns(found) | force_columns(found, model)
                results.append(with_results(structures[k], k, found, model))
            bar.update(len(part))
    return Predicted(rows, results, limit)


def at_once(rows: list[int], atoms: list[int], most: int) -> Iterator[list[int]]:
    """Consecutive rows, at most so many and :data:`ATOMS_AT_ONCE` atoms; a larger one is alone."""
    part: list[int] = []
    total = 0
    for row, size in zip(rows, atoms, strict=True):
        if part and (len(part) == most or total + size > ATOMS_AT_ONCE):
            yield part
            part, total = [], 0
        part.append(row)
        total += size
    yield part


def columns(found: StructurePrediction) -> dict[str, Any]:
    """The part of a row that comes from the model."""
    lower, upper = found.interval or (None, None)
    return {
        "value": found.mean,
        "std": found.std,
        "epistemic_std": found.epistemic_std,
        "lower_90": lower,
        "upper_90": upper,
        "in_distribution": {True: "yes", False: "no", None: ""}[found.in_distribution],
        **({"reason": found.reason} if found.reason else {}),
        "unit": found.unit,
    }


def force_columns(found: StructurePrediction, model: TrainedModel) -> dict[str, float]:
    """How sure a potential is of the forces, in eV/Angstrom; nothing where it does not say.

    Infinite where no training structure held the element of an atom.
    """
    if not model.is_potential:
        return {}
    there = found.converted(model.electronvolts(), "eV")
    numbers = {"max_force_std": there.max_force_std, "max_distance": there.max_distance}
    return {name: number for name, number in numbers.items() if number is not None}


def with_results(
    atoms: Atoms, number: int, found: StructurePrediction, model: TrainedModel
) -> Atoms:
    """A copy of a structure with its prediction as extended XYZ holds it.

    Potentials become ``energy`` (eV) and ``forces`` (eV/Angstrom) with ``energy_std`` and
    ``energy_epistemic_std``, and per atom ``forces_std`` (eV/Angstrom) and ``atoms_distance`` (in
    units of the limit) where the model has error bars of forces; other targets stand under their
    own name, in their own unit.
    """
    # in the units of the numbers to come, and without a calculator: its numbers are not ours
    out = in_ase_units(atoms).copy()
    out.set_constraint()
    name, there = model.target or "value", found
    if model.is_potential:
        name, there = "energy", found.converted(model.electronvolts(), "eV")
        for key in ("energy", "free_energy", "stress", "virial"):
            out.info.pop(key, None)
        out.arrays.pop("forces", None)
        out.calc = SinglePointCalculator(out, energy=there.mean, forces=there.forces)
        if there.forces_std is not None:
            out.arrays["forces_std"] = there.forces_std
        if there.distances is not None:
            out.arrays["atoms_distance"] = there.distances
    else:
        out.info["unit"] = model.unit
    out.info |= {
        "structure": number,
        **({} if model.is_potential else {name: there.mean}),
    }
    if there.std is not None:
        out.info |= {f"{name}_std": there.std, f"{name}_epistemic_std": there.epistemic_std}
    if found.in_distribution is not None:
        out.info["in_distribution"] = found.in_distribution
    if found.reason:
        out.info["reason"] = found.reason
    if found.atoms_in_distribution is not None:
        out.arrays["atoms_in_distribution"] = found.atoms_in_distribution
    return out


def write_predictions(found: Predicted, folder: str | Path) -> list[Path]:
    """Write ``predictions.csv`` and ``predictions.extxyz`` atomically; returns their paths.

    Raises:
        InputError: the folder cannot be written to.
    """
    folder = checked_folder(folder)
    table, geometry = folder / "predictions.csv", folder / "predictions.extxyz"
    with atomic(geometry) as temporary:
        ase.io.write(temporary, found.structures, format="extxyz")
    write_rows(found.rows, table, COLUMNS)
    return [table, geometry]


def checked_folder(folder: str | Path) -> Path:
    """The folder for results, unless a file is in its place: to be asked before the work.

    Raises:
        ConfigError: it, or a folder above it, is a file.
    """
    folder = Path(folder)
    there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    if there.exists() and not there.is_dir():
        raise ConfigError(f"cannot write to {folder}: {there} is a file; choose another folder")
    return folder
