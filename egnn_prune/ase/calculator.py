"""A pruned model as an ASE calculator."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from numpy.typing import NDArray

from egnn_prune.ase.results import (
    EXTRAS,
    REASON,
    Results,
    ase_properties,
    error_bars,
    judgement,
)
from egnn_prune.ase.structures import graph_of, has_stress, moved_too_far, problem
from egnn_prune.data.labels import declared
from egnn_prune.data.units import to_angstrom
from egnn_prune.deployment.moving_structure import MovingStructure
from egnn_prune.deployment.structure_prediction import StructurePrediction
from egnn_prune.deployment.trained_model import NUMBERS, TrainedModel
from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.uncertainty import Estimator

REACTIONS = ("warn", "raise", "ignore")


class UncertaintyWarning(UserWarning):
    """The model is less sure of a structure than of nearly all it was validated on."""


class UncertaintyExceeded(InputError):
    """Raised instead of the warning where ``on_uncertain="raise"``."""


class PrunedCalculator(Calculator):
    r"""Energy, forces, stress and their error bars from a trained model, in ASE's units.

    Only what is asked for is computed: an energy takes one pass forth, forces or stress one forth
    and one back, and what one of them brings along is kept until the atoms change. An energy alone
    takes a third to a half of the time of both (``scripts/benchmark_calculators.py``), so asking
    for it before the forces would cost that much more. Therefore a calculator that was asked in
    this order once computes forces with every energy from then on; one that is asked for energies
    alone never does.

    ASE's ``results``: ``energy`` (= ``free_energy``), the mean of the members, in eV; ``forces``,
    its exact negative gradient, in eV/Angstrom; ``stress`` (structures that are periodic and whose
    cell has a volume), its derivative by the strain, in eV/Angstrom^3: of a slab that is per volume
    of the cell, its vacuum included; ``energies [N]`` (``atoms.get_potential_energies()``), the
    parts of which the energy is the sum, in eV, for one more pass.

    ``extras``, by name also from ``results[name]`` and ``get_property(name)``:
    ``energy_uncertainty``, the standard deviation of the calibrated prediction (like the next,
    absent where the model states none, such as a single potential of others);
    ``energy_epistemic_std``, its epistemic part (all of it where the method does not split it),
    which ``threshold`` is compared with; ``forces_uncertainty [N, 3]``, the calibrated
    standard deviation of each component of the force, the same for the three of an atom, where the
    model has error bars of forces; else that of the members' forces, not calibrated (absent for a
    single member; one pass back per member); ``atoms_distance [N]``, how far the network sees each
    atom from its training atoms, in units of the limit; ``in_distribution``, whether all of these
    are within their limits and the structure looks like the training structures (absent where
    nothing is known of them);
    ``atoms_in_distribution [N]``, which atoms do; ``out_of_distribution_reason``, a clause.

    Thinned networks of Monte Carlo dropout are the same in every call, so the energy is a smooth
    function of the positions and dynamics conserves it.

    Args:
        model: the folder of a run, a ``.safetensors`` file, an estimator, or what
            :func:`egnn_prune.hub.from_pretrained` loaded.
        threshold: largest epistemic deviation in eV; by default the one that 99 % of the
            validation structures stayed below, where the file holds it.
        forces_threshold: largest standard deviation of a force in eV/Angstrom, which flags where
            forces are computed; by default likewise.
        on_uncertain: beyond the threshold, or for structures unlike the training structures,
            ``"warn"`` (the first time), ``"raise"``, or ``"ignore"``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        which: ``"pruned"`` or ``"dense"``, of a run's folder.
        compiled: whether ``torch.compile`` makes one program of energy and forces, at the first
            structure of a composition and whenever that gets much denser. It takes minutes,
            therefore it is for long simulations of one structure. Where it cannot be done, a
            warning says why and the model runs as it is.
        force_uncertainty: whether ``forces_uncertainty`` may be asked for.
        unit: of the model's energies where it does not say (an estimator in memory never does).

    Raises:
        ConfigError: the model predicts no potential energy, or an argument cannot be used.
        InputError: the model cannot be read.
        DataError: (when it computes) the structure cannot be used: no atoms, NaN positions, an
            element that the model never saw, a periodic cell without volume, or ``atoms.info``
            declares another unit of length than ASE's Angstrom.
        UncertaintyExceeded: (when it computes) see ``on_uncertain``.

    Example:
        >>> atoms.calc = PrunedCalculator("runs/demo")
        >>> energy, bar = atoms.get_potential_energy(), atoms.calc.results["energy_uncertainty"]
    """

    implemented_properties = [  # noqa: RUF012 (ASE declares an instance variable)
        "energy",
        "free_energy",
        "forces",
        "stress",
        "energies",
        *EXTRAS,
    ]
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def __init__(
        self,
        model: str | Path | Estimator | TrainedModel,
        threshold: float | None = None,
        on_uncertain: str = "warn",
        device: str = "auto",
        *,
        which: str = "pruned",
        compiled: bool = False,
        force_uncertainty: bool = True,
        forces_threshold: float | None = None,
        unit: str | None = None,
    ) -> None:
        super().__init__()
        if on_uncertain not in REACTIONS:
            raise ConfigError(f"on_uncertain must be one of {', '.join(REACTIONS)}")
        self.model = self._loaded(model, which, device, unit)
        self.electronvolts = self.model.electronvolts()
        limit = self.model.ood_threshold
        self.threshold = checked_threshold(
            self.model.checked_threshold(threshold)
            if threshold is not None or limit is None
            else limit * self.electronvolts
        )
        stated = self.model.forces_threshold
        self.forces_threshold = checked_threshold(
            forces_threshold
            if forces_threshold is not None or stated is None
            else stated * self.electronvolts,
            "forces_threshold must be a positive deviation in eV/Angstrom",
        )
        if forces_threshold is not None and stated is None:
            raise ConfigError(
                f"{self.model.source} holds no error bars of forces, so there is nothing to "
                "compare forces_threshold with; leave it out, or fit them with "
                "egnn_prune.evaluation.atom_error_bars.fit_atom_error_bars"
            )
        self.on_uncertain, self.force_uncertainty = on_uncertain, force_uncertainty
        self.compiled, self._warned = compiled, False
        self._forces_follow = False  # whether forces were asked for after an energy
        self._moving: tuple[TrainedModel, MovingStructure] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles record passes of their own."""
        return {**self.__dict__, "_moving": None}

    @staticmethod
    def _loaded(model: Any, which: str, device: str, unit: str | None) -> TrainedModel:
        """What answers. Subclasses may have something else that answers the same questions."""
        return TrainedModel.load(model, which, device, unit)

    @property
    def extras(self) -> dict[str, Any]:
        """What was computed beyond ASE's properties, see :data:`EXTRAS`."""
        return self.results.extras if isinstance(self.results, Results) else {}

    def check_state(self, atoms: ase.Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation: as ASE finds it, but in less time."""
        known = self.atoms
        if known is not None and known.positions.shape == atoms.positions.shape:
            same = (
                np.array_equal(known.numbers, atoms.numbers)
                and np.array_equal(known.cell.array, atoms.cell.array)
                and np.array_equal(known.pbc, atoms.pbc)
            )
            if same and np.array_equal(known.positions, atoms.positions):
                return []
            if same and np.abs(known.positions - atoms.positions).max() > 1e-6:  # not NaN
                return ["positions"]
        return super().check_state(atoms, tol)

    def get_property(
        self, name: str, atoms: ase.Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """A property of ASE, or one of ours; computed unless it is there already."""
        if name not in EXTRAS:
            return super().get_property(name, atoms, allow_calculation)
        changes = [] if atoms is None else self.check_state(atoms)
        if changes:
            self.reset()
        if name not in self.extras and allow_calculation:
            self.calculate(atoms, [name], changes)
        if name in self.extras:
            return copy.copy(self.extras[name])
        if allow_calculation:
            raise PropertyNotImplementedError(f"{name} not present in this calculation")
        return None

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute what is asked for, and keep what is there of the same structure."""
        super().calculate(atoms, list(properties), list(system_changes))
        if self.atoms is None:
            raise ConfigError("there is no structure yet; call this with atoms")
        fresh = bool(system_changes) or not isinstance(self.results, Results)
        if fresh:
            self.results = {}  # nothing stale is left if the structure cannot be used
        structure = self._structure()
        if fresh:
            self.results = Results(self)
        results: Any = self.results
        asked = set(properties) - set(results) - set(results.extras)
        spread = "forces_uncertainty" in asked and self.force_uncertainty
        fitted = spread and self.model.force_error_bars is not None
        slopes = fitted or bool(asked & {"forces", "stress"})
        self._forces_follow |= slopes and not fresh and "forces" not in results
        if slopes or "energy" not in results:
            self._predict(structure, slopes or self.compiled or self._forces_follow, fitted)
        if "energies" in asked:
            results["energies"] = self._atom_energies(structure)
        if spread and not fitted:
            members = self.model.member_forces(structure.graph)
            if members is not None:
                std = members.epistemic.sqrt().double().cpu().numpy()
                results.extras["forces_uncertainty"] = self.electronvolts * std
        watching = self.on_uncertain == "raise" or (
            self.on_uncertain == "warn" and not self._warned
        )
        if "in_distribution" not in results.extras and (
            watching or asked & {"in_distribution", "atoms_in_distribution", REASON}
        ):
            self._flag(results)

    def _structure(self) -> MovingStructure:
        """The structure as the model reads it; what stayed since the last call stays.

        Raises:
            DataError: it cannot be used.
        """
        structure: Any = self.atoms
        moving = self._moving[1] if self._moving and self._moving[0] is self.model else None
        if moving is not None and not moving.is_of(structure.numbers, structure.pbc):
            moving = None
        if moving is not None and moving.has_cell(structure.cell.array):
            wrong = moved_too_far(structure)
        else:
            wrong = problem(structure, self.model.elements)
        if wrong:
            formula = structure.get_chemical_formula()
            raise DataError(" ".join(["the structure", *formula.split(), wrong]))
        length = declared(structure).length
        if to_angstrom(length) != 1:  # forces by other positions than ASE moves would be no slope
            raise DataError(
                f"the structure declares positions in {length}, but ASE's are in Angstrom; read it "
                "with egnn_prune.ase.structures.read_structures, which converts them"
            )
        if moving is None:
            moving = self.model.moving(graph_of(structure), compiled=self.compiled)
            self._moving = (self.model, moving)
        moving.move(structure.positions, structure.cell.array)
        return moving

    def _predict(self, moving: MovingStructure, slopes: bool, forces_std: bool = False) -> None:
        """One pass forth, and one back for forces and stress; what is there already stays."""
        structure, results = self.atoms, self.results
        assert structure is not None and isinstance(results, Results)
        stress = slopes and has_stress(structure)  # it comes with the forces' pass back
        forces_std = forces_std or (slopes and self.model.force_error_bars_are_free)
        found = self.model.predict_moved(
            moving, forces=slopes, stress=stress, forces_std=forces_std
        )
        found = found.converted(self.electronvolts, "eV")
        earlier = results.prediction or found
        results.prediction = replace(earlier, forces_std=found.forces_std)
        if found.forces_std is not None:
            results.extras.pop("in_distribution", None)  # more is known now
        known = {name: getattr(earlier, name) for name in NUMBERS}  # to the last digit
        results.extras |= error_bars(replace(found, **known))
        results |= ase_properties(replace(found, **known))

    def _atom_energies(self, moving: MovingStructure) -> NDArray[np.float64]:
        try:
            return self.electronvolts * self.model.atom_energies(moving.graph)
        except ConfigError as error:
            raise PropertyNotImplementedError(str(error)) from None

    def _flag(self, results: Results) -> None:
        """Put what is known of the distribution into the extras, and react to it."""
        assert results.prediction is not None
        results.extras |= judgement(self.judged(results.prediction))
        if reason := results.extras.get(REASON, ""):
            self._react(reason)

    def judged(self, found: StructurePrediction) -> StructurePrediction:
        """A prediction with the thresholds of this calculator."""
        return replace(found, threshold=self.threshold, forces_threshold=self.forces_threshold)

    def _react(self, message: str) -> None:
        if self.on_uncertain == "raise":
            self.results = {}
            raise UncertaintyExceeded(message)
        if self.on_uncertain == "warn" and not self._warned:
            self._warned = True
            warnings.warn(f"{message} (said once)", UncertaintyWarning, stacklevel=5)


def checked_threshold(
    threshold: float | None, rule: str = "threshold must be a positive energy in eV"
) -> float | None:
    """The threshold, unless it is no positive number.

    Raises:
        ConfigError: it is not.
    """
    if threshold is not None and not (isinstance(threshold, Real) and threshold > 0):
        raise ConfigError(f"{rule}, not {threshold!r}")
    return threshold
