"""Somebody else's potential, made small or not, as an ASE calculator."""

from __future__ import annotations

from typing import Any

from torch import nn

from egnn_prune.adapters.potential import AdoptedPotential
from egnn_prune.ase.calculator import PrunedCalculator
from egnn_prune.errors import ConfigError
from egnn_prune.prediction import members_of
from egnn_prune.uncertainty import Estimator, SinglePass


def calculator(model: nn.Module, **options: Any) -> PrunedCalculator:
    """An ASE calculator of energies, forces and stress (eV, Angstrom) of a potential.

    A potential alone states no error bars, so the calculator has none either; of an estimator it
    has that estimator's.

    Args:
        model: an :class:`~egnn_prune.adapters.AdoptedPotential`, an ensemble of them, or an
            :class:`~egnn_prune.uncertainty.Estimator` of either.
        options: what else :class:`~egnn_prune.ase.PrunedCalculator` takes.

    Raises:
        ConfigError: it is none of these, or an option cannot be used.

    Example:
        >>> atoms.calc = calculator(drop_odd_paths(load("7net-0")))
        >>> forces, energy = atoms.get_forces(), atoms.get_potential_energy()
    """
    network: Any = model.network if isinstance(model, Estimator) else model
    strange = [m for m in members_of(network) if not isinstance(m, AdoptedPotential)]
    if strange:
        raise ConfigError(
            "a calculator is made here of a potential that egnn_prune.adapters.load gave, or of an "
            f"estimator of one, not of {type(strange[0]).__name__}; "
            "egnn_prune.ase.PrunedCalculator takes other models"
        )
    return PrunedCalculator(model if isinstance(model, Estimator) else SinglePass(model), **options)
