"""A pruned model as an ASE calculator, and a guard for dynamics that leaves what was learned."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import ase
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from egnn_prune.data.labels import declared
from egnn_prune.data.units import to_angstrom
from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.structures import graph_of, problem
from egnn_prune.trained import TrainedModel
from egnn_prune.uncertainty import Estimator

REACTIONS = ("warn", "raise", "ignore")


class UncertaintyWarning(UserWarning):
    """The model is less sure of a structure than of nearly all it was validated on."""


class UncertaintyExceeded(InputError):
    """The same, where it was to be an error."""


class PrunedCalculator(Calculator):
    r"""Energy, forces, stress and their error bars from a trained model, in ASE's units.

    Results: ``energy`` (= ``free_energy``), the mean of the members, in eV; ``forces``, its exact
    negative gradient, in eV/Angstrom; ``stress`` (structures that are periodic in three
    directions), its derivative by the strain, in eV/Angstrom^3; ``energy_uncertainty``, the
    standard deviation of the recalibrated prediction; ``energy_doubt``, its epistemic part (all of
    it where the method does not split it), which ``threshold`` is compared with;
    ``forces_uncertainty [N, 3]``, the standard deviation of the members' forces, not recalibrated
    (nothing was fitted on forces; absent for a single member); ``in_distribution``, whether the
    doubt is within the threshold (absent without one).

    Thinned networks of Monte Carlo dropout are the same in every call, so the energy is a smooth
    function of the positions and dynamics conserves it.

    Args:
        model: the folder of a run, a ``.safetensors`` file, or an estimator.
        threshold: largest doubt in eV; by default the one that 99 % of the validation structures
            stayed below, where the file holds it.
        on_uncertain: beyond the threshold ``"warn"`` (the first time), ``"raise"``, or
            ``"ignore"``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        which: ``"pruned"`` or ``"dense"``, of a run's folder.
        force_uncertainty: leave it out for speed: it takes one pass back per member.
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
        >>> atoms.get_potential_energy(), atoms.calc.results["energy_uncertainty"]
    """

    implemented_properties = [  # noqa: RUF012 (ASE declares an instance variable)
        "energy",
        "free_energy",
        "forces",
        "stress",
        "energy_uncertainty",
        "energy_doubt",
        "forces_uncertainty",
        "in_distribution",
    ]
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def __init__(
        self,
        model: str | Path | Estimator,
        threshold: float | None = None,
        on_uncertain: str = "warn",
        device: str = "auto",
        *,
        which: str = "pruned",
        force_uncertainty: bool = True,
        unit: str | None = None,
    ) -> None:
        super().__init__()
        if on_uncertain not in REACTIONS:
            raise ConfigError(f"on_uncertain must be one of {', '.join(REACTIONS)}")
        self.model = TrainedModel.load(model, which, device, unit)
        self.electronvolts = self.model.electronvolts()
        limit = self.model.doubt_limit
        self.threshold = checked_threshold(
            threshold if threshold is not None or limit is None else limit * self.electronvolts
        )
        self.on_uncertain, self.force_uncertainty = on_uncertain, force_uncertainty
        self._warned = False

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute all properties: a pass back for forces costs about as much as one forth."""
        super().calculate(atoms, list(properties), list(system_changes))
        structure: Any = self.atoms
        wrong = problem(structure, self.model.elements)
        if wrong:
            formula = structure.get_chemical_formula()
            raise DataError(" ".join(["the structure", *formula.split(), wrong]))
        length = declared(structure).length
        if to_angstrom(length) != 1:  # forces by other positions than ASE moves would be no slope
            raise DataError(
                f"the structure declares positions in {length}, but ASE's are in Angstrom; read it "
                "with egnn_prune.structures.read_structures, which converts them"
            )
        graph = graph_of(structure).to(self.model.device)
        scale = self.electronvolts
        found = self.model.evaluate(graph, forces=True, stress=bool(structure.pbc.all()))
        energy, prediction = float(found.stated.mean[0]) * scale, found.calibrated
        assert found.forces is not None
        results: dict[str, Any] = {
            "energy": energy,
            "free_energy": energy,
            "forces": scale * found.forces.double().cpu().numpy(),
            "energy_uncertainty": float(prediction.variance[0].sqrt()) * scale,
            "energy_doubt": float(prediction.doubt[0].sqrt()) * scale,
        }
        if found.stress is not None:
            stress = scale * found.stress[0].double().cpu().numpy()
            results["stress"] = full_3x3_to_voigt_6_stress(stress)
        if self.force_uncertainty and (members := self.model.member_forces(graph)) is not None:
            spread = members.epistemic.sqrt().double().cpu().numpy()
            results["forces_uncertainty"] = scale * spread
        if self.threshold is not None:
            results["in_distribution"] = results["energy_doubt"] <= self.threshold
        self.results = results
        if not results.get("in_distribution", True):
            self._react(doubtful(results["energy_doubt"], self.threshold))

    def _react(self, message: str) -> None:
        if self.on_uncertain == "raise":
            self.results = {}
            raise UncertaintyExceeded(message)
        if self.on_uncertain == "warn" and not self._warned:
            self._warned = True
            warnings.warn(f"{message} (said once)", UncertaintyWarning, stacklevel=4)


class UncertaintyGuard:
    """Stops or warns when a simulation reaches what its model is not sure of.

    Attach it to any dynamics or optimiser of ASE; the calculator must be a
    :class:`PrunedCalculator` (with ``on_uncertain="ignore"``, or both will speak):

        >>> dynamics.attach(UncertaintyGuard(atoms), interval=10)

    A stop is an exception out of ``dynamics.run``; the atoms stay where they are then. One in a
    hundred *validation* structures is beyond the default threshold, so where a rare excursion
    should not end a long simulation, set a higher one.

    Args:
        atoms: what is simulated.
        threshold: largest doubt in eV; by default the calculator's.
        action: ``"stop"`` or ``"warn"`` (the first time).

    Attributes:
        exceeded: how often the threshold was exceeded.

    Raises:
        ConfigError: there is no threshold, or the calculator states no uncertainty.
            (Also when it is called, if the atoms have got another calculator since.)
        UncertaintyExceeded: (when it is called) the threshold is exceeded.
    """

    def __init__(
        self, atoms: ase.Atoms, threshold: float | None = None, action: str = "stop"
    ) -> None:
        if action not in ("stop", "warn"):
            raise ConfigError(f"action must be 'stop' or 'warn', not {action!r}")
        limit = _calculator(atoms).threshold
        self.threshold = checked_threshold(limit if threshold is None else threshold)
        if self.threshold is None:
            raise ConfigError(
                "the model's file holds no validation_doubt (it was written by an older version); "
                "give the guard a threshold in eV"
            )
        self.atoms, self.action, self.exceeded = atoms, action, 0

    def __call__(self) -> None:
        """Look at the structure as it is now."""
        assert self.threshold is not None
        doubt = _calculator(self.atoms).get_property("energy_doubt", self.atoms)
        if doubt <= self.threshold:
            return
        self.exceeded += 1
        if self.action == "stop":
            raise UncertaintyExceeded(doubtful(doubt, self.threshold))
        if self.exceeded == 1:
            message = f"{doubtful(doubt, self.threshold)} (said once)"
            warnings.warn(message, UncertaintyWarning, stacklevel=2)


def _calculator(atoms: ase.Atoms) -> PrunedCalculator:
    if not isinstance(atoms.calc, PrunedCalculator):
        raise ConfigError("the guard needs atoms whose calculator is a PrunedCalculator")
    return atoms.calc


def doubtful(doubt: float, threshold: float | None) -> str:
    """One sentence that says by how much the model is unsure."""
    return (
        f"the model's epistemic uncertainty of this structure, {doubt:.3g} eV, is beyond the "
        f"threshold of {threshold:.3g} eV: the structure is unlike the training data, so do not "
        "rely on its energy and forces"
    )


def checked_threshold(threshold: float | None) -> float | None:
    """The threshold, unless it is no positive number.

    Raises:
        ConfigError: it is not.
    """
    if threshold is not None and not (isinstance(threshold, Real) and threshold > 0):
        raise ConfigError(f"threshold must be a positive energy in eV, not {threshold!r}")
    return threshold
