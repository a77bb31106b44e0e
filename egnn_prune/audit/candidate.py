"""A calculator that is audited: found by a name or a file, asked, and refused in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import (
    BaseCalculator,
    Calculator,
    PropertyNotImplementedError,
    all_changes,
    get_calculator_class,
)
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from egnn_prune.adapters.loading import PRETRAINED, load
from egnn_prune.ase.calculator import PrunedCalculator
from egnn_prune.ase.specialist_folder import FILE
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.system.device import choose_device
from egnn_prune.system.files import read_json
from egnn_prune.uncertainty import SinglePass

Array = NDArray[np.float64]

#: Calculators of ASE that go by their name. They read no file and start no program; others are
#: handed over in Python: a name from a stranger is never imported.
BY_NAME = ("emt", "lj", "morse")


@dataclass(frozen=True)
class Answer:
    """What a calculator says of a structure.

    Attributes:
        energy: in eV.
        forces: ``[N, 3]`` in eV/Angstrom.
        stress: ``[6]`` in eV/Angstrom^3 (Voigt's order), of crystals where there is one.
        energy_std: standard deviation of the energy in eV, where it is stated.
        forces_std: ``[N]`` of each component of the force on an atom in eV/Angstrom.
    """

    energy: float
    forces: Array
    stress: Array | None = None
    energy_std: float | None = None
    forces_std: Array | None = None


def calculator_of(name: str, device: str = "auto") -> BaseCalculator:
    """The calculator that a name or a file stands for. What is not known is refused.

    Args:
        name: one of :data:`BY_NAME`; a ``.safetensors`` file, the folder of a run or of a learning
            specialist; or what :func:`egnn_prune.adapters.load` takes, whose files may be pickles:
            name those that you trust.
        device: where a network runs.

    Raises:
        InputError: there is no such calculator, or it cannot be read.
    """
    if name in BY_NAME:
        return get_calculator_class(name)()
    path = Path(name).expanduser()
    if path.is_dir() and (path / FILE).is_file():
        current = read_json(path / FILE).get("model")
        if not isinstance(current, str):
            raise InputError(
                f"{path} holds no network that was learned there yet; name the one it began from"
            )
        path = path / Path(current).name
    known: dict[str, Any] = {"threshold": None, "on_uncertain": "ignore", "device": device}
    if path.is_dir() or path.suffix == ".safetensors":
        return PrunedCalculator(path, **known)
    if not path.exists() and not path.suffix and name.lower() not in PRETRAINED:
        names = (*BY_NAME, *PRETRAINED)
        near = get_close_matches(name.lower(), names, 1, 0.5)
        guess = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(
            f"there is no file, folder or calculator {name!r}{guess}; known by name are "
            f"{', '.join(names)}"
        )
    return PrunedCalculator(SinglePass(load(name)).to(choose_device(device)), **known, unit="eV")


class Candidate(Calculator):
    """One of the two: asks a calculator for what is compared, and says in words why it cannot.

    In dynamics it is a calculator itself, of energies and forces.

    Args:
        calculator: any one of ASE that computes energies and forces.
        title: what it is called in messages.

    Raises:
        ConfigError: it is no calculator, or computes no forces.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 (ASE declares an instance variable)

    def __init__(self, calculator: BaseCalculator, title: str) -> None:
        super().__init__()
        self.title = title
        if not isinstance(calculator, BaseCalculator):
            raise ConfigError(
                f"{title} must be a calculator of ASE, not {type(calculator).__name__}"
            )
        self.inner: Any = calculator
        for quantity in self.implemented_properties:
            if quantity not in calculator.implemented_properties:
                raise ConfigError(
                    f"{title} computes no {quantity}, and an audit compares energies and forces; "
                    "take a calculator that has both"
                )

    def refuse_unknown(self, structures: Sequence[ase.Atoms]) -> None:
        """Refuse elements that a network never saw, before anything is computed.

        Raises:
            InputError: names the element, and the structure.
        """
        if not isinstance(self.inner, PrunedCalculator):
            return  # others say so when they are asked
        known = set(self.inner.model.elements)
        for k, atoms in enumerate(structures):
            for z in sorted({*map(int, atoms.numbers)} - known):
                raise InputError(
                    f"{self.title} does not know the element {chemical_symbols[z]} of structure "
                    f"{k}; leave such structures out, or take another calculator"
                )

    def answer(self, atoms: ase.Atoms, where: str, *, error_bars: bool = False) -> Answer:
        """Energy, forces and stress, without constraints.

        Args:
            atoms: the structure.
            where: which one it is, for messages.
            error_bars: whether to ask for them, too.

        Raises:
            InputError: it fails, or a number is NaN or infinite.
        """
        asked = atoms.copy()
        asked.set_constraint()
        asked.calc = self.inner
        try:
            # the energy comes with the forces, but not the other way round
            forces = np.array(asked.get_forces(), dtype=np.float64)
            energy = float(asked.get_potential_energy())
            stress = self._optional("stress", asked) if atoms.pbc.all() else None
            bars = [
                self._optional(f"{kind}_uncertainty", asked) if error_bars else None
                for kind in ("energy", "forces")
            ]
        except Exception as error:  # a program of others raises whatever it raises
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(
                f"{self.title} cannot compute {where} ({atoms.get_chemical_formula()}): "
                f"{reason[:300]}"
            ) from error
        if stress is not None and stress.size == 9:
            stress = full_3x3_to_voigt_6_stress(stress.reshape(3, 3))
        if not all(np.isfinite(x).all() for x in (energy, forces, stress) if x is not None):
            raise InputError(
                f"{self.title} gives an energy, force or stress of {where} "
                f"({atoms.get_chemical_formula()}) that is NaN or infinite; leave it out, or mend "
                "the calculator"
            )
        energy_std = None if bars[0] is None else float(bars[0])
        forces_std = None if bars[1] is None else np.sqrt((bars[1] ** 2).mean(-1))
        return Answer(energy, forces, stress, energy_std, forces_std)

    def _optional(self, name: str, atoms: ase.Atoms) -> Array | None:
        known = self.inner.implemented_properties
        if name not in known:
            return None
        try:
            found = self.inner.get_property(name, atoms)
        except PropertyNotImplementedError:  # not of this structure, or this model
            return None
        return None if found is None else np.array(found, dtype=np.float64)

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Energy and forces of a structure of dynamics."""
        super().calculate(atoms, list(properties), list(system_changes))
        assert self.atoms is not None
        found = self.answer(self.atoms, "the structure")
        self.results = {"energy": found.energy, "forces": found.forces}
