"""One pass over atoms: what is in it, what it costs, and that it turns with the structure."""

from __future__ import annotations

import copy
from contextlib import contextmanager

import pytest
import torch
from small_adopted import masked, potential, structures
from torch import nn
from torch_geometric.data import Batch, Data
from trained_models import METHODS, irreps, network

from egnn_prune.deployment.atom_pass import atom_pass, has_atom_features, need_atom_features
from egnn_prune.errors import ConfigError
from egnn_prune.models import PropertyModel, energy_and_forces, energy_forces_stress
from egnn_prune.prediction import members_of
from egnn_prune.pruning import apply_masks, compact
from egnn_prune.uncertainty import (
    AtomErrorBars,
    AtomEvidence,
    DeepEnsemble,
    PredictionRigidity,
    ReadoutEnsemble,
    SinglePass,
)


def halved(model: PropertyModel) -> PropertyModel:
    """Half of the channels of every group held at zero."""
    apply_masks(model, {g.name: torch.arange(g.n) % 2 == 0 for g in model.channel_groups()})
    return model


MEMBERS = {"read-out dropout": 5, "dropout": 4, "shallow": 3, "deep": 3, "irreps": 2}
NETWORKS = {
    "adopted": potential,
    "masked": lambda dtype: masked(potential(dtype)),
    "compact": lambda dtype: compact(masked(potential(dtype))),
    "egnn": network,
    "compact egnn": lambda dtype: compact(halved(network(dtype))),
    "irreps": irreps,
    "compact irreps": lambda dtype: compact(halved(irreps(dtype))),
}


@contextmanager
def counted(module: nn.Module):
    """How often a submodule runs, forth and back."""
    passes = {"forth": 0, "back": 0}

    def forth(_, __, output):
        passes["forth"] += 1
        if output.requires_grad:
            output.register_hook(back)

    def back(_):
        passes["back"] += 1

    hook = module.register_forward_hook(forth)
    try:
        yield passes
    finally:
        hook.remove()


def evidence(method, batch: Batch, wrong: float = 0.1, members: bool = False) -> AtomEvidence:
    """Of every atom, with errors that are drawn."""
    found = atom_pass(method, batch, members=members)
    generator = torch.Generator().manual_seed(0)
    errors = wrong * torch.randn(found.forces.shape, generator=generator)
    return AtomEvidence(found.features, batch.z, batch.batch, errors.double(), found.spread)


def fitted(method, source: str = "distance", periodic: bool = False) -> AtomErrorBars:
    members = source == "members"
    train, val = (structures(*[6] * n, periodic=periodic) for n in (17, 16))
    return AtomErrorBars(source).fit(
        evidence(method, train, members=members), evidence(method, val, members=members)
    )


@pytest.mark.parametrize("kind", METHODS)
def test_without_members_it_is_the_plain_pass(kind):
    method, batch = METHODS[kind](torch.float64), structures(5, 4)
    energies, forces = energy_and_forces(method, batch)
    found = atom_pass(method, batch)
    assert torch.equal(found.prediction.mean, energies.mean)
    assert torch.equal(found.prediction.variance, energies.variance)
    assert torch.equal(found.forces, forces)
    assert found.stress is None and found.spread is None
    assert found.features.shape[0] == 9 and not found.features.requires_grad
    only = atom_pass(method, batch, forces=False)
    assert only.forces is None and torch.equal(only.prediction.mean, method.predict(batch).mean)
    torch.testing.assert_close(only.features, found.features)


@pytest.mark.parametrize("kind", MEMBERS)
def test_members_change_neither_energies_nor_forces(kind):
    method, batch = METHODS[kind](torch.float64), structures(5, 4)
    plain, found = atom_pass(method, batch), atom_pass(method, batch, members=True)
    assert len(found.prediction.members) == MEMBERS[kind]
    for name, value in vars(plain.prediction).items():
        torch.testing.assert_close(getattr(found.prediction, name), value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.forces, plain.forces, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found.features, plain.features)
    assert found.spread.shape == (9,) and bool((found.spread > 0).all())


@pytest.mark.parametrize("kind", ["deep", "shallow", "irreps"])
def test_stress_from_the_members_passes(kind):
    method, batch = METHODS[kind](torch.float64), structures(4, 3, periodic=True)
    _, forces, stress = energy_forces_stress(method, batch)
    alone = atom_pass(method, batch, members=True)
    with counted(members_of(method.network)[0].head.lin_in) as passes:
        found = atom_pass(method, batch, members=True, stress=True)
    torch.testing.assert_close(found.stress, stress, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found.forces, forces, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found.spread, alone.spread)
    assert passes == {"forth": 1, "back": 1 if kind == "deep" else MEMBERS[kind]}


def test_a_committees_spread_costs_no_pass_more():
    committee = DeepEnsemble([potential(seed=seed) for seed in range(4)])
    method, batch = SinglePass(committee), structures(5, 4)
    for members in (False, True):
        passes = []
        for member in committee.members:
            with counted(member.network) as found:
                atom_pass(method, batch, members=members)
            passes.append((found["forth"], found["back"]))
        assert passes == [(1, 1)] * 4


@pytest.mark.parametrize("kind", ["shallow", "read-out dropout"])
def test_members_of_one_network_take_one_pass_back_each(kind):
    method, batch = METHODS[kind](torch.float64), structures(5, 4)
    lin = method.network.head.lin_in
    for members, back in ((False, 1), (True, MEMBERS[kind])):
        with counted(lin) as found:
            atom_pass(method, batch, members=members)
        assert found == {"forth": 1, "back": back}


def test_read_outs_that_were_drawn_are_members():
    method = ReadoutEnsemble(potential(), 4).fit([structures(5, 4, 6)])
    batch = structures(5, 4)
    found = atom_pass(method, batch, members=True)
    torch.testing.assert_close(found.forces, energy_and_forces(method.network, batch)[1])
    assert torch.equal(found.prediction.mean, method.network(batch).mean)
    assert bool((found.spread > 0).all())


def test_one_network_has_no_members():
    with pytest.raises(ConfigError, match="at least two members"):
        atom_pass(SinglePass(potential()), structures(3), members=True)


@pytest.mark.parametrize("pbc", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", NETWORKS)
def test_error_bars_turn_with_the_structure(kind, dtype, pbc):
    method = SinglePass(NETWORKS[kind](dtype))
    bars, batch = fitted(method, periodic=pbc), structures(6, 7, periodic=pbc)
    std, distance = atom_pass(method, batch).error_bars(bars, batch.z)
    assert bool((std > 0).all()) and std.dtype == distance.dtype == torch.float64
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    turn = turn * turn.det()
    graphs = []
    for k, graph in enumerate(batch.to_data_list()):
        order = torch.randperm(len(graph.pos), generator=torch.Generator().manual_seed(k))
        moved = Data(pos=graph.pos[order] @ turn.T + torch.tensor([1.0, -2.0, 0.5]), order=order)
        moved.z = graph.z[order]
        if pbc:
            moved.cell, moved.pbc = graph.cell @ turn.T, graph.pbc
        graphs.append(moved)
    other = Batch.from_data_list(graphs)
    seen = atom_pass(method, other).error_bars(bars, other.z)
    parts = [column.split([6, 7]) for column in (std, distance)]
    precise = 1e-8 if dtype == torch.float64 else 2e-3
    for column, found in zip(parts, seen, strict=True):
        expected = torch.cat([p[g.order] for p, g in zip(column, graphs, strict=True)])
        torch.testing.assert_close(found, expected, rtol=precise, atol=0)


def test_compacting_changes_no_error_bar():
    """Held channels are removed: the rest of the network, and what it reads, stays."""
    model = masked(potential())
    batch = structures(6, 7)
    bars = fitted(SinglePass(model))
    before = atom_pass(SinglePass(model), batch).error_bars(bars, batch.z)
    small = SinglePass(compact(copy.deepcopy(model)))
    after = atom_pass(small, batch).error_bars(bars, batch.z)
    for a, b in zip(after, before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=0)


def test_members_spread_as_error_bars():
    method = METHODS["deep"](torch.float64)
    bars, batch = fitted(method, "members"), structures(6)
    std, distance = atom_pass(method, batch, members=True).error_bars(bars, batch.z)
    assert std.shape == distance.shape == (6,)
    unknown, same = atom_pass(method, batch).error_bars(bars, batch.z)  # not asked for
    assert unknown is None and torch.equal(same, distance)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_single_atom(kind):
    method = SinglePass(NETWORKS[kind](torch.float64))
    batch = structures(1)
    found = atom_pass(method, batch)
    assert not found.forces.any()
    std, distance = found.error_bars(fitted(method), batch.z)
    assert bool(std.isfinite().all() & distance.isfinite().all())


def test_energies_with_rigidity_come_from_the_same_pass():
    method = PredictionRigidity(potential()).fit([structures(5, 4, 6)])
    batch = structures(5, 4)
    with counted(method.network.network) as passes:
        found = atom_pass(method, batch)
    assert passes == {"forth": 1, "back": 1}
    assert torch.equal(found.prediction.epistemic, method.predict(batch).epistemic)


def test_networks_that_do_not_say_what_they_see():
    class Plain(nn.Module):
        def forward(self, batch):
            return None

    assert has_atom_features(potential()) and not has_atom_features(Plain())
    with pytest.raises(ConfigError, match="Plain does not name its atom_layer"):
        need_atom_features(Plain())
