"""MACE's network in our own parts, without mace: products, groups, symmetry, cells, files."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from mace_helpers import CUTOFF, ELEMENTS, ORDERS, couplings, potential
from torch_geometric.data import Batch, Data

from egnn_prune.adapters import AdoptedPotential, drop_species, from_scratch
from egnn_prune.adapters.mace_contraction import Species, SymmetricContraction
from egnn_prune.adapters.mace_writing import native_settings
from egnn_prune.adapters.trial import trial_structure
from egnn_prune.errors import ConfigError
from egnn_prune.models import energy_and_forces, energy_forces_stress
from egnn_prune.pruning import apply_masks, compact
from egnn_prune.testing import assert_equivariant, assert_prunable

KINDS = ("conv", "hidden", "message", "path", "radial", "stream")


@pytest.fixture(params=[True, False], ids=["residual", "inner"])
def model(request, dtype) -> AdoptedPotential:
    return potential(dtype, residual=request.param)


@pytest.fixture
def batch(make_batch) -> Batch:
    return make_batch(1, 4, 6)


def cell(dtype: torch.dtype) -> Data:
    graph = trial_structure(ELEMENTS, CUTOFF)
    graph.pos, graph.cell = graph.pos.to(dtype), graph.cell.to(dtype)
    return graph


def all_kinds(model: AdoptedPotential) -> tuple[str, ...]:
    return tuple(sorted({g.kind for g in model.network.channel_groups()}))


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_products_are_those_of_the_paper(degree):
    """Eqs. 10 and 11 written down with one index after another."""
    z = torch.tensor([0, 2, 2, 0])  # element 1 does not occur
    x = torch.randn(4, 4, 3, dtype=torch.float64)
    for ir, order in (("0e", 0), ("1o", 1)):
        us = [couplings(ORDERS, ir, nu) for nu in range(1, degree + 1)]
        module = SymmetricContraction(3, 3, 4, order, [u.shape[-1] for u in us]).double()
        module.couple(us)
        expected = torch.zeros(4, 2 * order + 1, 3, dtype=torch.float64)
        for u, w in zip(us, module.weights, strict=True):
            letters = "ijl"[: u.dim() - 2]
            factors = ",".join(f"n{i}k" for i in letters)
            formula = f"m{letters}e,nek,{factors}->nmk"
            expected += torch.einsum(formula, u, w[z], *[x] * len(letters))
        found = module(x, Species.of(z, 3, x.dtype))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_degrees_that_are_not_known():
    with pytest.raises(ConfigError, match="one to three factors, not 4"):
        SymmetricContraction(1, 1, 1, 0, (1, 1, 1, 1))


def test_offered_by_default(model):
    assert {g.kind for g in model.channel_groups()} == {"conv", "message", "path"}
    groups = {g.name: g for g in model.channel_groups()}
    assert groups["network.layers.1.message"].n == 4
    assert groups["network.layers.1.conv.1o"].n == 4


@pytest.mark.parametrize("dtype", [torch.float64], indirect=True)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_pruned(batch, dtype, kind):
    assert_prunable(potential(dtype).offering(kind), batch, sparsities=(0.5,), equivariance=False)


def test_all_kinds_together(model, batch):
    kinds = all_kinds(model)
    assert set(kinds) >= set(KINDS)
    assert_prunable(model.offering(*kinds), batch, sparsities=(0.25, 0.75))


# paths 0 and 1 lead to scalars, 2 and 3 to vectors, from either
@pytest.mark.parametrize("gone", ["conv.1o", "conv.0e", "path.2 path.3", "path.1 path.2 path.3"])
def test_whole_irreps_and_targets_may_go(model, batch, assert_close, gone):
    names = [f"network.layers.1.{name}" for name in gone.split()]
    masked = model.offering(*all_kinds(model))
    before = sum(p.numel() for p in model.parameters())
    keep = {g.name: torch.full((g.n,), g.name not in names) for g in masked.channel_groups()}
    assert sum(not k.any() for k in keep.values()) == len(names)
    apply_masks(masked, keep)
    small = compact(masked)
    (found, forces), (expected, slopes) = (energy_and_forces(m, batch) for m in (small, masked))
    assert_close(found.mean, expected.mean)
    assert_close(forces, slopes)
    assert sum(p.numel() for p in small.parameters()) < before


def test_symmetric_in_every_view(model, batch, tolerance):
    def seen(graphs: Batch) -> Data:
        prediction, forces = energy_and_forces(model, graphs)
        return Data(x=prediction.mean[:, None], vel=forces)

    assert_equivariant(seen, batch, tolerance=10 * tolerance, transforms=3)
    kinds = all_kinds(model)
    assert_equivariant(model.offering(*kinds), batch, tolerance=tolerance, transforms=3)


def test_smooth_at_the_cutoff(model, dtype):
    far = torch.tensor([[0.0, 0, 0], [CUTOFF * 0.9999, 0, 0]], dtype=dtype)
    alone = Data(z=torch.tensor([6, 8]), pos=far * 2)
    close = Data(z=torch.tensor([6, 8]), pos=far)
    difference = (model(alone).mean - model(close).mean).abs().detach()
    assert float(difference) < 1e-6


def test_cells_with_stress(model, dtype, tolerance):
    graph = cell(dtype)
    _, _, stress = energy_forces_stress(model, graph)
    step = 1e-4
    strain = torch.zeros(3, 3, dtype=dtype)
    strain[0, 1] = strain[1, 0] = step / 2
    energies = []
    for sign in (1, -1):
        turned = torch.eye(3, dtype=dtype) + sign * strain
        moved = Data(z=graph.z, pos=graph.pos @ turned, cell=graph.cell @ turned, pbc=graph.pbc)
        energies.append(model(moved).mean.detach())
    slope = float(energies[0] - energies[1]) / (2 * step) / float(torch.linalg.det(graph.cell[0]))
    scale = float(stress.abs().max())
    allowed = 2e-2 if dtype == torch.float32 else 1e-6
    assert abs(slope - float(stress[0, 0, 1])) < allowed * scale


def test_large_crystals_are_repeated_cells(model, dtype, assert_close):
    graph = cell(dtype)
    shifts = torch.tensor([[0.0, 0, 0], [1, 0, 0]], dtype=dtype) @ graph.cell[0]
    double = Data(
        z=graph.z.repeat(2),
        pos=torch.cat([graph.pos + s for s in shifts]),
        cell=graph.cell * torch.tensor([[[2.0], [1], [1]]], dtype=dtype),
        pbc=graph.pbc,
    )
    small, large = (energy_and_forces(model, g)[1] for g in (graph, double))
    assert_close(large, small.repeat(2, 1))


def test_files(model, batch):
    spec = json.loads(json.dumps(model.config()))
    again = AdoptedPotential.from_config(spec).to(next(model.parameters()).dtype).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(batch).mean, model(batch).mean)
    assert again.config() == model.config()


def test_elements_that_are_not_needed_go(model, assert_close):
    water = Data(
        z=torch.tensor([8, 1, 1]),
        pos=torch.tensor([[0.0, 0, 0.1], [0, 0.8, -0.5], [0.1, -0.8, -0.5]]).to(model.atom_scale),
    )
    small = drop_species(model, ["O", "H"])
    assert small.elements == (1, 8)
    before, after = energy_and_forces(model, water), energy_and_forces(small, water)
    assert_close(after[0].mean, before[0].mean)
    assert_close(after[1], before[1])
    assert small.network.layers[0].product["0e"].weights[0].shape[0] == 2


def test_from_scratch_is_a_network_of_the_same_kind(batch, dtype, tolerance):
    model = potential(dtype)
    fresh = from_scratch(model, neighbours=9.0, seed=1)
    assert_equivariant(fresh, batch, tolerance=tolerance, transforms=2)
    (found, *_), (old, *_) = (m.network.layers[0].product.values() for m in (fresh, model))
    assert torch.equal(found.coupling, old.coupling)
    assert not torch.equal(found.weights[0], old.weights[0])


def test_last_layer(model, batch, assert_close):
    features, prediction = model.last_layer(batch)
    energies = features @ model.last_layer_weights() + model.reference(batch)
    assert_close(energies, prediction.mean)
    assert_close(prediction.mean, model(batch).mean)


def test_shapes_that_mace_cannot_express():
    model = potential()
    settings = native_settings(model)
    assert settings["hidden_irreps"] == "4x0e+4x1o"
    assert settings["atomic_inter_scale"] == pytest.approx(0.7)
    for kind, what in (("path", "whole paths"), ("message", "equally many copies")):
        masked = copy.deepcopy(model).offering(kind)
        groups = masked.channel_groups()
        keep = {g.name: torch.ones(g.n, dtype=torch.bool) for g in groups}
        keep[groups[0].name][0] = False
        apply_masks(masked, keep)
        with pytest.raises(ConfigError, match=what):
            native_settings(compact(masked))
