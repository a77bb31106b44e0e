"""Errors of both calculators where labels exist, and how far they are from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from egnn_prune.ase.teacher import EnergyOffset
from egnn_prune.audit.intervals import Compared, Statistic, compared, mean_of, value_of
from egnn_prune.audit.observations import LABEL, A, B, Observations

Array = NDArray[np.float64]


def errors(seen: Observations) -> list[Compared]:
    """Errors of energies, forces and stresses, of those that have labels; units in their names."""
    found: list[Compared] = []
    if LABEL in seen.energy:
        wrong = {who: per_atom(seen, who, LABEL) for who in (A, B)}
        found.append(_two("energy MAE", "meV/atom", [mean_of(abs(wrong[w])) for w in wrong], seen))
        if can_align(seen):
            aligned = {who: without_offsets(seen, who, LABEL) for who in wrong}
            two = [mean_of(aligned[w] ** 2, root=True) for w in wrong]
            found.append(_two("energy RMSE, zeros aligned", "meV/atom", two, seen))
    if LABEL in seen.forces:
        off = {who: seen.force_errors(who) for who in (A, B)}
        two = [_of_atoms(seen, (off[w] ** 2).sum(1), root=True) for w in off]
        found.append(_two("force RMSE", "meV/Å", two, seen))
        two = [_of_atoms(seen, abs(off[w]).sum(1)) for w in off]
        found.append(_two("force MAE", "meV/Å", two, seen))
    squares = {who: ((seen.stress[who] - seen.stress[LABEL]) ** 2).mean(1) for who in (A, B)}
    both = np.isfinite(squares[A]) & np.isfinite(squares[B])
    if both.any():
        a, b = (mean_of(1e6 * squares[w][both], root=True) for w in squares)
        found.append(compared("stress RMSE", "meV/Å³", a, b, int(both.sum())))
    return found


def differences(seen: Observations) -> list[Mapping[str, object]]:
    """B less A, whatever the labels are: ``name``, ``unit``, ``value``, ``low``, ``high``."""
    shift, count = per_atom(seen, B, A), len(seen.structures)
    force = 1000 * (seen.forces[B] - seen.forces[A])
    wanted: list[tuple[str, str, Statistic]] = [
        ("mean energy, B less A", "meV/atom", mean_of(shift)),
        ("force, RMS of B less A", "meV/Å", _of_atoms(seen, (force**2).sum(1), root=True)),
    ]
    if can_align(seen):
        apart = without_offsets(seen, B, A)
        wanted.insert(
            1, ("energy, RMS with zeros aligned", "meV/atom", mean_of(apart**2, root=True))
        )
    stress = ((seen.stress[B] - seen.stress[A]) ** 2).mean(1)
    found: list[Mapping[str, object]] = []
    for name, unit, statistic in wanted:
        found.append(_row(name, unit, *value_of(statistic, count)))
    if (both := np.isfinite(stress)).any():
        statistic = mean_of(1e6 * stress[both], root=True)
        found.append(
            _row("stress, RMS of B less A", "meV/Å³", *value_of(statistic, int(both.sum())))
        )
    found.append(_row("largest force component, B less A", "meV/Å", float(abs(force).max())))
    return found


def _row(
    name: str, unit: str, value: float, low: float = np.nan, high: float = np.nan
) -> dict[str, object]:
    return {"name": name, "unit": unit, "value": value, "low": low, "high": high}


def _two(name: str, unit: str, two: Sequence[Statistic], seen: Observations) -> Compared:
    return compared(name, unit, two[0], two[1], len(seen.structures))


def _of_atoms(seen: Observations, sums: Array, *, root: bool = False) -> Statistic:
    """Mean over three components of every atom of the drawn structures, of ``[N]`` sums."""
    return mean_of(seen.summed(sums), 3 * seen.atoms.astype(np.float64), root=root)


def per_atom(seen: Observations, who: str, reference: str) -> Array:
    """``[S]`` energies less those of a reference, in meV per atom."""
    return np.asarray(1000 * (seen.energy[who] - seen.energy[reference]) / seen.atoms)


def can_align(seen: Observations) -> bool:
    """Whether there are clearly more structures than elements, whose zeros are fitted."""
    return len(seen.structures) >= 2 * len(np.unique(seen.numbers)) + 2


def without_offsets(seen: Observations, who: str, reference: str) -> Array:
    """The same after a shift for each element was fitted and taken out, by least squares.

    Two methods have other zeros of energy; no force and no reaction in a simulation depends on
    them.
    """
    offset, numbers = EnergyOffset(), [atoms.numbers.tolist() for atoms in seen.structures]
    offset.fit(numbers, (seen.energy[who] - seen.energy[reference]).tolist())
    left = per_atom(seen, who, reference)
    return left - 1000 * np.array([offset(one) for one in numbers]) / seen.atoms
