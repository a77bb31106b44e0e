"""A small network with force error bars and a teacher whose calls are counted, for tests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from torch_geometric.data import Data
from trained_models import calibrated, ethanol, last_layer, network

from egnn_prune.ase import PrunedCalculator
from egnn_prune.ase.structures import graph_of
from egnn_prune.evaluation.atom_error_bars import fit_atom_error_bars
from egnn_prune.uncertainty import Estimator, SinglePass

#: What the teacher's energies are off by, in eV per atom: another method's zero.
ZERO = 250.0


class CountingTeacher(Calculator):
    """Another untrained network, with another zero of energy; fails from a given call on."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        self.inner = PrunedCalculator(
            SinglePass(network(seed=1)), None, "ignore", "cpu", unit="eV", force_uncertainty=False
        )
        self.calls, self.fails_at = 0, fails_at

    def calculate(
        self, atoms: Atoms, properties: Any = ("energy",), changes: Any = tuple(all_changes)
    ) -> None:
        super().calculate(atoms, properties, changes)
        self.calls += 1
        if self.fails_at is not None and self.calls >= self.fails_at:
            raise RuntimeError("SCF did\nnot converge")
        copied = atoms.copy()
        copied.calc = self.inner
        energy = copied.get_potential_energy() + ZERO * len(atoms)
        self.results = {"energy": energy, "forces": copied.get_forces()}


def labelled(count: int, first: int = 0, shake: float = 0.05) -> list[Data]:
    """Shaken ethanol with the teacher's labels at the small network's zero."""
    teacher, graphs = CountingTeacher(), []
    for seed in range(first, first + count):
        atoms = ethanol(shake, seed)
        atoms.calc = teacher
        graph = graph_of(atoms)
        energy = atoms.get_potential_energy() - ZERO * len(atoms)
        graph.y = torch.tensor([energy], dtype=torch.float64)
        graph.forces = torch.from_numpy(atoms.get_forces())
        graphs.append(graph)
    return graphs


def specialist(shake: float = 0.05) -> Estimator:
    """A network with error bars of energies and forces, sure of ethanol that is shaken so."""
    found = calibrated(last_layer(torch.float64))
    fit_atom_error_bars(found, labelled(12, 100, shake), labelled(12, 200, shake))
    return found


def improvement(estimator: Estimator, accepted: bool, new: int) -> SimpleNamespace:
    """What a stand-in for ``improved`` gives."""
    errors = {"new": 100.0, "old": 50.0}
    return SimpleNamespace(
        estimator=estimator,
        accepted=accepted,
        before=errors,
        after={k: v / 2 for k, v in errors.items()},
        trained_on=new - 1,
        held_out=1,
        seconds=0.1,
        reason="" if accepted else "no better",
    )
