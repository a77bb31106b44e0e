"""A committee of potentials: pooled in eV, pruned and saved like any network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_adopted import SHIFTS, masked, potential, structures
from torch import nn
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from egnn_prune.adapters import Committee
from egnn_prune.ase import PrunedCalculator
from egnn_prune.deployment import checkpoint
from egnn_prune.errors import ConfigError
from egnn_prune.evaluation.equivariance import PROPER, equivariance_error
from egnn_prune.models import energies_and_member_forces, energy_and_forces, energy_forces_stress
from egnn_prune.pruning import compact
from egnn_prune.testing import assert_prunable
from egnn_prune.training import PotentialSettings, fit_potential, refit_shifts
from egnn_prune.uncertainty import SinglePass


def committee(dtype: torch.dtype = torch.float64, members: int = 3) -> Committee:
    """Members with shifts of their own."""
    made = [potential(dtype, seed) for seed in range(members)]
    for k, member in enumerate(made):
        change_shifts(member, [c + 0.1 * k for c in SHIFTS])
    return Committee(made).eval()


def change_shifts(member: Any, shifts: list[float]) -> None:
    member.scale = type(member.scale)(**{**vars(member.scale), "per_element": tuple(shifts)})


def test_energies_and_forces_are_means_of_the_members():
    model, batch = committee(), structures(4, 6)
    energies, forces = energy_and_forces(model, batch)
    single = [energy_and_forces(member, batch) for member in model.members]
    assert torch.allclose(energies.members, torch.stack([e.mean for e, _ in single]))
    assert torch.allclose(forces, torch.stack([f for _, f in single]).mean(0), atol=1e-12)
    assert (energies.epistemic > 0).all() and not energies.aleatoric.any()
    pooled, spread = energies_and_member_forces(model, batch)
    assert torch.allclose(pooled.mean, energies.mean)
    assert torch.allclose(spread.mean, forces, atol=1e-12) and (spread.epistemic > 0).any()


def test_stress_is_the_mean_of_the_members():
    model, batch = committee(), structures(3, 4, periodic=True)
    stress = energy_forces_stress(model, batch)[2]
    single = torch.stack([energy_forces_stress(m, batch)[2] for m in model.members])
    assert torch.allclose(stress, single.mean(0), atol=1e-12)


def test_normalised_energies_are_in_units_of_the_first_member():
    model, batch = committee(), structures(4, 6)
    means, variances = model.normalised(batch)
    energies = means * model.scale.scale + model.reference(batch)
    assert torch.allclose(energies, model(batch).members) and not variances.any()
    assert torch.allclose(model.normalise(batch, model(batch).members[1]), means[1])


def test_pruned_like_its_members(dtype, tolerance):
    model, batch = committee(dtype), structures(4, 6)
    for member in model.members:
        masked(member)
    small = compact(model)
    assert isinstance(small, Committee)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    for found, expected in zip(
        energy_and_forces(small, batch), energy_and_forces(model, batch), strict=True
    ):
        one, other = (getattr(x, "members", x) for x in (found, expected))
        assert torch.allclose(one.double(), other.double(), rtol=tolerance, atol=100 * tolerance)


def test_every_group_can_go():
    assert_prunable(committee(members=2), structures(4, 6), sparsities=(0.5,))


def test_turns_with_the_structure():
    error = equivariance_error(committee(), structures(4, 6), symmetry=PROPER)
    assert error < 1e-10


def test_saved_and_loaded(tmp_path, dtype):
    model, batch = committee(dtype), structures(4, 6)
    checkpoint.save(SinglePass(model), tmp_path / "committee.safetensors")
    again = checkpoint.load(tmp_path / "committee.safetensors")
    assert isinstance(again, Committee)
    assert torch.equal(again(batch).members, model(batch).members)
    assert [m.scale for m in again.members] == [m.scale for m in model.members]


def test_a_calculator_tells_the_spread_of_the_energies(tmp_path):
    from ase.build import molecule

    checkpoint.save(SinglePass(committee()), tmp_path / "c.safetensors", target="energy", unit="eV")
    atoms = molecule("CH3OH")
    atoms.calc = PrunedCalculator(tmp_path / "c.safetensors")
    atoms.get_potential_energy()
    assert atoms.calc.results["energy_uncertainty"] > 0


def labelled() -> list[Any]:
    teacher = potential(seed=9)
    graphs = structures(3, 4, 5, 6, 4, 3).to_data_list()
    for graph in graphs:
        energies, forces = energy_and_forces(teacher, Batch.from_data_list([graph]))
        graph.y, graph.forces = energies.mean + 7.0 * len(graph.pos), forces
    return graphs


def test_shifts_are_refitted_together():
    model, graphs = committee(), labelled()
    apart = [b - a for a, b in zip(*(m.scale.per_element for m in model.members[:2]), strict=True)]
    refit_shifts(model, graphs)
    batch = next(iter(DataLoader(graphs, len(graphs))))
    left = batch.y - model(batch).mean  # no change of the shifts makes it smaller
    assert (model.first.element_counts(batch).T @ left).abs().max() < 1e-6
    after = [b - a for a, b in zip(*(m.scale.per_element for m in model.members[:2]), strict=True)]
    assert after == pytest.approx(apart)


def test_trained_as_one():
    model, graphs = committee(members=2), labelled()
    refit_shifts(model, graphs)
    before = [m.state_dict()["network.embedding.weight"].clone() for m in model.members]
    found = fit_potential(
        model, graphs, graphs, PotentialSettings(5, lr=3e-3, ema=0.0, validations=1)
    )
    assert found.best_step > 0
    for member, weight in zip(model.members, before, strict=True):
        assert not torch.equal(member.state_dict()["network.embedding.weight"], weight)


def test_what_cannot_be_pooled():
    with pytest.raises(ConfigError, match="at least 2"):
        Committee([potential()])
    with pytest.raises(ConfigError, match="adopted potentials, not Linear"):
        Committee([potential(), nn.Linear(1, 1)])
    other = potential()
    other.elements = (1, 6, 8)
    with pytest.raises(ConfigError, match="the same elements"):
        Committee([potential(), other])
