"""A guard for dynamics that leaves what was learned."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import ase

from egnn_prune.ase.calculator import (
    PrunedCalculator,
    UncertaintyExceeded,
    UncertaintyWarning,
    checked_threshold,
)
from egnn_prune.ase.results import complaints
from egnn_prune.errors import ConfigError


class UncertaintyGuard:
    """Stops or warns when a simulation reaches what its model is not sure of.

    That is an epistemic deviation of the energy or an error bar of a force beyond its threshold, or
    a structure unlike all training structures
    (:class:`~egnn_prune.deployment.training_domain.TrainingDomain`). Attach it to any
    dynamics or optimiser of ASE; the calculator must be a :class:`PrunedCalculator` (with
    ``on_uncertain="ignore"``, or both will speak):

        >>> dynamics.attach(UncertaintyGuard(atoms), interval=10)

    A stop is an exception out of ``dynamics.run``; the atoms stay where they are then. One in a
    hundred *validation* structures is beyond the default threshold, so where a rare excursion
    should not end a long simulation, set a higher one.

    Args:
        atoms: what is simulated.
        threshold: largest epistemic deviation in eV; by default the calculator's.
        action: ``"stop"`` or ``"warn"`` (the first time).

    Attributes:
        exceeded: how often that was the case.

    Raises:
        ConfigError: there is no threshold, or the calculator states no uncertainty.
            (Also when it is called, if the atoms have got another calculator since.)
        UncertaintyExceeded: (when it is called) the simulation has got there.
    """

    def __init__(
        self, atoms: ase.Atoms, threshold: float | None = None, action: str = "stop"
    ) -> None:
        if action not in ("stop", "warn"):
            raise ConfigError(f"action must be 'stop' or 'warn', not {action!r}")
        calculator = _calculator(atoms)
        known = calculator.model.has_error_bars
        if not known and calculator.forces_threshold is None:
            raise ConfigError(
                f"{calculator.model.source} states no uncertainty, so a guard has nothing to watch"
            )
        limit = calculator.threshold
        self.threshold = checked_threshold(limit if threshold is None else threshold)
        if self.threshold is None and calculator.forces_threshold is None:
            raise ConfigError(
                "the model's file holds no validation_epistemic_std (it was written by an older "
                "version); give the guard a threshold in eV"
            )
        self._property = "energy_epistemic_std" if known else "atoms_distance"
        self.atoms, self.action, self.exceeded = atoms, action, 0

    def __call__(self) -> None:
        """Look at the structure as it is now."""
        calculator = _calculator(self.atoms)
        calculator.get_property(self._property, self.atoms)
        results: Any = calculator.results
        judged = calculator.judged(results.prediction)
        said = complaints(replace(judged, threshold=self.threshold))
        if not said:
            return
        self.exceeded += 1
        if self.action == "stop":
            raise UncertaintyExceeded(said[0])
        if self.exceeded == 1:
            warnings.warn(f"{said[0]} (said once)", UncertaintyWarning, stacklevel=2)


def _calculator(atoms: ase.Atoms) -> PrunedCalculator:
    if not isinstance(atoms.calc, PrunedCalculator):
        raise ConfigError("the guard needs atoms whose calculator is a PrunedCalculator")
    return atoms.calc
