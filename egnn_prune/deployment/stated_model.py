"""What a model says it predicts, and in which unit."""

from __future__ import annotations

from pathlib import Path

from egnn_prune.data.quantities import is_total_energy
from egnn_prune.data.sources.npz import UNDECLARED
from egnn_prune.data.units import ENERGY, to_ev
from egnn_prune.errors import ConfigError, DataError


class StatedModel:
    """A model of which it is known what it predicts.

    Attributes:
        target: what is predicted, or ``""`` where nobody said.
        unit: of the target, or ``""``.
        source: the file, for messages.
    """

    target: str
    unit: str
    source: str

    @property
    def names_an_energy(self) -> bool:
        """Whether the target's name is that of a potential energy (or nobody gave one)."""
        return not self.target or is_total_energy(self.target)

    @property
    def is_potential(self) -> bool:
        """Whether the target is a potential energy in a known unit: its gradient is a force."""
        try:
            return self.electronvolts() > 0
        except ConfigError:
            return False

    def electronvolts(self) -> float:
        """How many eV one unit of the target is.

        Raises:
            ConfigError: the target is no potential energy, or its unit is unknown.
        """
        if not self.names_an_energy:
            raise ConfigError(
                f"{self.source} predicts {self.target!r}, which is no potential energy and has no "
                "forces; a calculator needs a model of an energy, others go through "
                "scripts/predict.py"
            )
        try:
            return to_ev(self.unit)
        except DataError:
            raise ConfigError(
                f"{self.source} does not say in which unit its energies are, or in one that is "
                f"not known ({self.unit or 'none'}); give unit= as one of {', '.join(ENERGY)}"
            ) from None


def agreed_unit(of_file: str, given: str, path: str | Path) -> str:
    """The unit that the file states; where it does not know (``"data unit"``), the given one."""
    if not given or of_file == given:
        return of_file
    if of_file in ("", UNDECLARED):
        return given
    try:
        same = to_ev(of_file) == to_ev(given)
    except DataError:
        same = False
    if not same:
        raise ConfigError(
            f"{path} says that its target is in {of_file}, which unit={given!r} contradicts; leave "
            "unit= away"
        )
    return of_file
