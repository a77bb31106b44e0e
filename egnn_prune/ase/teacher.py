"""Who is asked where the small network is not sure: a large potential, or quantum chemistry."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import BaseCalculator, PropertyNotImplementedError
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import nn
from torch_geometric.data import Data

from egnn_prune.ase.calculator import PrunedCalculator
from egnn_prune.ase.sampling import atoms_of
from egnn_prune.ase.structures import has_stress
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.uncertainty import Estimator, SinglePass

Array = NDArray[np.float64]

#: Validation structures on which teacher and labels are compared, evenly spread over the split.
COMPARED = 8
#: A teacher whose forces are so many times as far from the labels as the small network's speaks of
#: another energy surface: on most steps its answer would be worse than the one it replaces, and
#: what is learned from it would pull the network away from its labels. Up to this, beyond the
#: domain (where the network's error grows and the teacher's does not) it is the better of the two.
OTHER_LEVEL = 2.0
#: Differences in eV/Angstrom, and eV/atom, that are those of rounding.
SAME = 1e-5


class TeacherFailed(InputError):
    """The teacher could not compute a structure."""


@dataclass(frozen=True)
class Labels:
    """What a teacher says of a structure.

    Attributes:
        energy: in eV, with the teacher's own zero.
        forces: ``[N, 3]`` in eV/Angstrom.
        stress: ``[6]`` in eV/Angstrom^3 (Voigt's order), of crystals where the teacher has one.
    """

    energy: float
    forces: Array
    stress: Array | None = None


class Teacher:
    """A calculator that is asked for energy, forces and stress, and whose failures are sentences.

    Args:
        teacher: any calculator of ASE (such as one of a DFT program); a potential of
            :func:`egnn_prune.adapters.load`, its name (``"7net-0"``) or its file; or a
            ``.safetensors`` file or an estimator of this package, such as the
            ``finetuned.safetensors`` of a run of ``specialise``.
        device: where a potential runs.

    Raises:
        ConfigError: it is a folder.
        InputError: there is no such potential, or it predicts no energies.
    """

    def __init__(
        self, teacher: BaseCalculator | nn.Module | str | Path, device: str = "auto"
    ) -> None:
        self.name = str(teacher) if isinstance(teacher, (str, Path)) else type(teacher).__name__
        if isinstance(teacher, BaseCalculator):
            self.calculator: Any = teacher
        else:
            if isinstance(teacher, (str, Path)) and str(teacher) and Path(teacher).is_dir():
                raise ConfigError(
                    f"the teacher {teacher} is a folder; name a file, such as a run's "
                    "finetuned.safetensors, or a potential, such as 7net-0"
                )
            if isinstance(teacher, (str, Path)) and Path(teacher).suffix != ".safetensors":
                from egnn_prune import adapters

                teacher = adapters.load(teacher)
            if isinstance(teacher, nn.Module) and not isinstance(teacher, Estimator):
                teacher = SinglePass(teacher)
            how: dict[str, Any] = {"device": device, "force_uncertainty": False}
            if isinstance(teacher, Estimator):
                how["unit"] = "eV"
            self.calculator = PrunedCalculator(teacher, None, "ignore", **how)

    @property
    def elements(self) -> tuple[int, ...] | None:
        """Atomic numbers that it knows; ``None`` where it does not say."""
        known = isinstance(self.calculator, PrunedCalculator)
        return self.calculator.model.elements if known else None

    def refuse_unknown(self, numbers: Sequence[int]) -> None:
        """Refuse elements that the teacher was not trained on.

        Raises:
            ConfigError: there is one.
        """
        unknown = sorted(set(map(int, numbers)) - set(self.elements or map(int, numbers)))
        if unknown:
            raise ConfigError(
                f"the teacher {self.name} does not know the element "
                f"{chemical_symbols[unknown[0]]}; take another teacher, or go without "
                "(on_uncertain=warn or stop)"
            )

    def __call__(self, atoms: ase.Atoms) -> Labels:
        """Labels of a structure, whose constraints play no part.

        Raises:
            TeacherFailed: it raises anything, or a number is NaN or infinite.
        """
        asked = atoms.copy()
        asked.set_constraint()
        asked.info = {}
        asked.calc = self.calculator
        try:
            energy = float(asked.get_potential_energy())
            forces = np.array(asked.get_forces(), dtype=np.float64)
            stress = self._stress(asked)
        except Exception as error:  # a program of others raises whatever it raises
            reason = " ".join(str(error).split()) or type(error).__name__
            raise TeacherFailed(
                f"the teacher {self.name} could not compute "
                f"{asked.get_chemical_formula()} ({reason[:300]}); mend it, and go on from the "
                "last frame"
            ) from error
        if not all(np.isfinite(x).all() for x in (energy, forces, stress) if x is not None):
            raise TeacherFailed(
                f"the teacher {self.name} gave an energy, force or stress of "
                f"{asked.get_chemical_formula()} that is NaN or infinite; look at the last frame"
            )
        return Labels(energy, forces, stress)

    def _stress(self, atoms: ase.Atoms) -> Array | None:
        if not has_stress(atoms):
            return None
        try:
            return np.array(atoms.get_stress(), dtype=np.float64)
        except PropertyNotImplementedError:
            return None


class EnergyOffset:
    r"""What is added to a teacher's energies so that they have the small network's zero.

    Two methods differ by thousands of eV in the energies of atoms. Where labelled structures are
    given, a shift for each element is fitted to labels less the teacher's energies,

    .. math:: \delta = \arg\min_\delta \sum_b
        \Big(E_b^\text{label} - E_b^\text{teacher} - \sum_{a \in b} \delta_{z_a}\Big)^2,

    which says the offset of every composition that is a linear combination of theirs. For others,
    and without labels, the offset is a constant: the network's energy less the teacher's at the
    first structure of that composition, where a simulation starts. Either way it is constant along
    a simulation, so that forces stay the gradient of the energy between switches.
    """

    def __init__(self) -> None:
        self.elements: tuple[int, ...] = ()
        self._shifts, self._span = np.zeros(0), np.zeros((0, 0))
        self._constants: dict[tuple[int, ...], float] = {}

    def fit(self, numbers: Sequence[Sequence[int]], differences: Sequence[float]) -> None:
        """Fit shifts to structures' elements, and labels less the teacher's energies in eV."""
        self.elements = tuple(sorted({int(z) for one in numbers for z in one}))
        counts = np.stack([self._counts(one) for one in numbers])
        inverse = np.linalg.pinv(counts)
        self._shifts, self._span = inverse @ np.asarray(differences), inverse @ counts

    def knows(self, numbers: Sequence[int]) -> bool:
        """Whether the offset of such a structure is settled."""
        return self._fitted(numbers) or _composition(numbers) in self._constants

    def settle(self, numbers: Sequence[int], difference: float) -> None:
        """The offset of this composition is the network's energy less the teacher's, in eV."""
        self._constants[_composition(numbers)] = difference

    def __call__(self, numbers: Sequence[int]) -> float:
        """The offset in eV of a structure with these elements."""
        if self._fitted(numbers):
            return float(self._counts(numbers) @ self._shifts)
        return self._constants[_composition(numbers)]

    def _fitted(self, numbers: Sequence[int]) -> bool:
        if not set(map(int, numbers)) <= set(self.elements):
            return False
        counts = self._counts(numbers)
        return bool(np.allclose(counts @ self._span, counts, atol=1e-6 * max(len(numbers), 1)))

    def _counts(self, numbers: Sequence[int]) -> Array:
        return np.array([float(np.sum(np.asarray(numbers) == z)) for z in self.elements])


def _composition(numbers: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(int(z) for z in numbers))


@dataclass(frozen=True)
class Agreement:
    """How far a teacher is from the labels that a network was trained on.

    Attributes:
        structures: how many were compared.
        teacher_rmse: of the teacher's force components from the labels, in eV/Angstrom.
        network_rmse: of the small network's.
        energy_offset: mean of labels less the teacher's energies, in eV per atom.
    """

    structures: int
    teacher_rmse: float
    network_rmse: float
    energy_offset: float

    @property
    def same_level(self) -> bool:
        """Whether the teacher can stand in for the labels, see :data:`OTHER_LEVEL`."""
        return self.teacher_rmse <= OTHER_LEVEL * self.network_rmse

    def text(self) -> str:
        """Both errors and the offset, for people."""
        near = self.teacher_rmse < SAME
        teacher = "those" if near else f"{1000 * self.teacher_rmse:.3g} meV/Angstrom from those"
        said = (
            f"on {self.structures} validation structures the teacher's forces are {teacher} of the "
            f"labels, the small network's {1000 * self.network_rmse:.3g}"
            f"{' meV/Angstrom from them' if near else ''}"
        )
        if abs(self.energy_offset) < SAME:
            return said
        return (
            f"{said}; {self.energy_offset:+.4g} eV/atom (fitted per element) bring its energies to "
            "the labels' zero"
        )


def compare_with_labels(
    teacher: Teacher, model: TrainedModel, val: Sequence[Data], offset: EnergyOffset
) -> Agreement:
    """Compare on some validation structures, and fit the offset of energies to them.

    Args:
        teacher: who is compared.
        model: the small network.
        val: structures with ``y`` in eV and ``forces`` in eV/Angstrom; the network was not trained
            on them.
        offset: is fitted.

    Raises:
        DataError: a structure has no labels.
        TeacherFailed: the teacher cannot compute one of them.
    """
    rows = np.unique(np.linspace(0, len(val) - 1, min(COMPARED, len(val))).astype(int))
    numbers, differences, wrong, own = [], [], [], []
    for graph in (val[int(i)] for i in rows):
        if graph.get("forces") is None or graph.get("y") is None:
            raise DataError("a teacher is compared with structures that have energies and forces")
        atoms, truth = atoms_of(graph), graph.forces.double().cpu().numpy()
        labels = teacher(atoms)
        (found,) = model.predict([graph], forces=True)
        assert found.forces is not None
        numbers.append(atoms.numbers.tolist())
        differences.append(float(graph.y) - labels.energy)
        wrong.append((labels.forces - truth).ravel())
        own.append((found.forces - truth).ravel())
    offset.fit(numbers, differences)
    sizes = np.array([len(one) for one in numbers])
    return Agreement(
        len(rows),
        float(np.sqrt(np.mean(np.concatenate(wrong) ** 2))),
        float(np.sqrt(np.mean(np.concatenate(own) ** 2))),
        float(np.mean(np.array(differences) / sizes)),
    )


def refuse_other_level(found: Agreement, teacher: Teacher, action: str) -> None:
    """Refuse a teacher of another level of theory where it would answer or teach; else warn.

    Raises:
        ConfigError: ``ask`` or ``learn``, and its forces are too far from the labels.
    """
    if found.same_level:
        return
    said = (
        f"the teacher {teacher.name} is of another level of theory than the labels: {found.text()}"
    )
    if action in ("ask", "learn"):
        raise ConfigError(
            f"{said}; specialise with labels=teacher, take a teacher of the labels' level (such as "
            "the run's finetuned.safetensors), or use on_uncertain=warn or stop"
        )
    warnings.warn(f"{said}; errors at checks measure that, too", UserWarning, stacklevel=3)
