"""What a model says of one structure, and whether to believe it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch_geometric.data import Data

from egnn_prune.deployment.training_domain import TrainingDomain, Unlike

Array = NDArray[np.float64]


@dataclass(frozen=True)
class StructurePrediction:
    """What a model says of one structure, in ``unit`` (forces, stress: per Angstrom, Angstrom^3).

    Attributes:
        unit: of the target, or ``""``.
        mean: mean of the members.
        std: standard deviation after calibration; like the next two, ``None`` where the model
            states none.
        epistemic_std: its epistemic part; 0 where the method does not split it.
        ood_score: what the threshold is compared with: the epistemic part, or all of it
            where the method does not split it.
        threshold: the largest score that counts as in distribution, or ``None``.
        interval: the limits of the calibrated interval, where a coverage was asked for.
        forces: ``[N, 3]``, the exact negative gradient of the mean, where asked for.
        forces_std: ``[N]``, calibrated standard deviation of each component of the force on an
            atom, where the model's file holds error bars of forces; infinite where no training
            structure held its element.
        forces_threshold: what the atoms of 99 % of the validation structures stayed below.
        distances: ``[N]``, of the atoms' features from those of training atoms, in units of
            ``distance_limit``: above 1 an atom is unlike them; infinite likewise.
        stress: ``[3, 3]`` with ASE's sign, where asked for.
        graph: the structure.
        domain: what the training structures looked like, or ``None``.
    """

    unit: str
    mean: float
    std: float | None
    epistemic_std: float | None
    ood_score: float | None
    threshold: float | None
    interval: tuple[float, float] | None
    forces: Array | None
    stress: Array | None
    graph: Data
    domain: TrainingDomain | None
    forces_std: Array | None = None
    forces_threshold: float | None = None
    distances: Array | None = None

    @cached_property
    def unlike(self) -> Unlike | None:
        """How it is unlike the training structures; computed when first asked for."""
        return self.domain.unlike(self.graph) if self.domain else None

    @property
    def beyond_threshold(self) -> bool:
        """Whether the score is beyond the threshold (NaN is)."""
        if self.threshold is None or self.ood_score is None:
            return False
        return not self.ood_score <= self.threshold

    @property
    def forces_beyond_threshold(self) -> bool:
        """Whether the error bar of an atom's force is beyond the threshold (NaN is)."""
        if self.forces_threshold is None or self.forces_std is None:
            return False
        return not bool((self.forces_std <= self.forces_threshold).all())

    @property
    def max_force_std(self) -> float | None:
        """The largest standard deviation of a force, where there are error bars of forces."""
        return None if self.forces_std is None else float(self.forces_std.max())

    @property
    def max_distance(self) -> float | None:
        """The distance of the strangest atom in units of the limit, where it is known."""
        return None if self.distances is None else float(self.distances.max())

    @property
    def strange_atoms(self) -> NDArray[np.bool_] | None:
        """``[N]``, whose features lie away from those of all training atoms."""
        return None if self.distances is None else ~(self.distances <= 1)

    @property
    def in_distribution(self) -> bool | None:
        """Within the thresholds, and like the training structures; ``None`` where nobody knows."""
        strange = self.strange_atoms
        if self.beyond_threshold or self.forces_beyond_threshold:
            return False
        if self.unlike and self.unlike.reason:
            return False
        if strange is not None and strange.any():
            return False
        return None if self.threshold is None and strange is None else True

    @property
    def atoms_in_distribution(self) -> NDArray[np.bool_] | None:
        """``[N]``, which atoms look like training atoms, where the model's file says so."""
        known = [~self.unlike.atoms.numpy()] if self.unlike else []
        if self.strange_atoms is not None:
            known.append(~self.strange_atoms)
        return np.logical_and.reduce(known) if known else None

    @property
    def reason(self) -> str:
        """Why it is out of distribution, in a clause or two; ``""`` where it is not."""
        said = []
        if self.beyond_threshold:
            said.append(f"its epistemic deviation is beyond {self.threshold:.3g} {self.unit}")
        std = self.max_force_std
        if self.forces_beyond_threshold and std != np.inf:  # else its element says why
            atom = self.named(int(np.argmax(self.forces_std)))
            limit = f"{self.forces_threshold:.3g} {self.unit}/Angstrom"
            said.append(f"the standard deviation of the force on {atom} is beyond {limit}")
        if self.unlike and self.unlike.reason:
            said.append(self.unlike.reason)
        strange = self.strange_atoms
        if strange is not None and strange.any():
            said.append(self._strangest(int(strange.sum()) - 1))
        return "; ".join(clause.rstrip() for clause in said)

    def _strangest(self, others: int) -> str:
        """What is known of the atom that lies farthest from the training atoms."""
        assert self.distances is not None
        atom = int(np.argmax(self.distances))
        more = f" (and {others} more atom{'s' * (others > 1)} beyond the limit)" if others else ""
        distance = self.distances[atom]
        if not np.isfinite(distance):
            return f"no training structure holds the element of {self.named(atom)}{more}"
        return (
            f"the network sees {self.named(atom)} {distance:.1f} times as far from its training "
            f"atoms as the limit{more}"
        )

    def named(self, atom: int) -> str:
        """An atom by its place and element, such as ``atom 3 (C)``."""
        return f"atom {atom} ({chemical_symbols[int(self.graph.z[atom])]})"

    def converted(self, factor: float, unit: str) -> StructurePrediction:
        """The same in another unit, of which the present one is ``factor``."""
        names = ("mean", "std", "epistemic_std", "ood_score", "threshold", "forces", "stress")
        names += ("forces_std", "forces_threshold")
        found = {name: getattr(self, name) for name in names}
        numbers = {name: factor * value for name, value in found.items() if value is not None}
        limits = self.interval and (factor * self.interval[0], factor * self.interval[1])
        return replace(self, unit=unit, interval=limits, **numbers)
