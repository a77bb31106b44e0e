"""What a calculator says of a structure: properties of ASE, and what goes beyond them."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.stress import full_3x3_to_voigt_6_stress

from egnn_prune.deployment.structure_prediction import StructurePrediction

REASON = "out_of_distribution_reason"


class Results(dict[str, Any]):
    """The ``results`` of a calculator: names that ASE knows, and no others.

    Tools of ASE that take results apart or freeze them know no other names, such as
    ``SinglePointCalculator(atoms, **results)``. So ours lie in :attr:`extras`; asked for by name,
    they are still found here, and what was not asked for before is computed:
    ``results["forces_uncertainty"]``.
    """

    def __init__(self, calculator: Calculator) -> None:
        super().__init__()
        self.extras: dict[str, Any] = {}
        self.prediction: StructurePrediction | None = None
        self._calculator = calculator

    def __missing__(self, name: str) -> Any:
        if self._calculator.results is self and name in self._calculator.implemented_properties:
            with contextlib.suppress(PropertyNotImplementedError):
                return self._calculator.get_property(name)
        raise KeyError(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Like :meth:`dict.get`; accepts this package's result names, too."""
        try:
            return self[name]
        except KeyError:
            return default


#: What this calculator says beyond the properties of ASE.
EXTRAS = (
    "energy_uncertainty",
    "energy_epistemic_std",
    "energy_doubt",  # its name before, which people's files hold
    "forces_uncertainty",
    "atoms_distance",
    "in_distribution",
    "atoms_in_distribution",
    REASON,
)


def ase_properties(found: StructurePrediction) -> dict[str, Any]:
    """What a prediction in eV says of ASE's properties."""
    results: dict[str, Any] = {"energy": found.mean, "free_energy": found.mean}
    if found.forces is not None:
        results["forces"] = found.forces
    if found.stress is not None:
        results["stress"] = full_3x3_to_voigt_6_stress(found.stress)
    return results


def error_bars(found: StructurePrediction) -> dict[str, Any]:
    """What it says of its uncertainty, by the names in :data:`EXTRAS`."""
    extras: dict[str, Any] = {}
    if found.forces_std is not None:
        extras["forces_uncertainty"] = np.repeat(found.forces_std[:, None], 3, 1)
    if found.distances is not None:
        extras["atoms_distance"] = found.distances
    if found.std is not None:
        extras["energy_uncertainty"] = found.std
    if found.ood_score is not None:
        extras |= dict.fromkeys(("energy_epistemic_std", "energy_doubt"), found.ood_score)
    return extras


def judgement(found: StructurePrediction) -> dict[str, Any]:
    """Whether it is to be believed, by the names in :data:`EXTRAS`; nothing where nobody knows."""
    extras: dict[str, Any] = {}
    if found.atoms_in_distribution is not None:
        extras["atoms_in_distribution"] = found.atoms_in_distribution
    if found.in_distribution is not None:
        reason = "; ".join(complaints(found))
        extras |= {"in_distribution": found.in_distribution, REASON: reason}
    return extras


def complaints(found: StructurePrediction) -> list[str]:
    """Why a structure is out of distribution, in a sentence each; none where it is not."""
    said = []
    if found.beyond_threshold:
        said.append(
            f"the model's epistemic uncertainty of this structure, {found.ood_score:.3g} eV, is "
            f"beyond the threshold of {found.threshold:.3g} eV: the structure is unlike the "
            "training data, so do not rely on its energy and forces"
        )
    if found.forces_beyond_threshold and found.max_force_std != np.inf:  # else the element says why
        assert found.forces_std is not None
        atom = found.named(int(found.forces_std.argmax()))
        said.append(
            f"the standard deviation of the force on {atom}, {found.max_force_std:.3g} "
            f"eV/Angstrom, is beyond the threshold of {found.forces_threshold:.3g} eV/Angstrom: do "
            "not rely on the forces"
        )
    if reason := replace(found, threshold=None, forces_threshold=None).reason:
        said.append(
            f"the structure is unlike the training data: {reason}; do not rely on its energy and "
            "forces"
        )
    return said
