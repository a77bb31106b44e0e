"""Read-outs drawn from the last layer's posterior: their mean, their spread, their forces."""

from __future__ import annotations

import pytest
import torch
import trained_models
from small_adopted import potential, structures
from torch import nn
from torch_geometric.data import Batch

from egnn_prune import load_estimator, save
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.models import energies_and_member_forces, energy_and_forces
from egnn_prune.uncertainty import PredictionRigidity, ReadoutEnsemble, calibrate

NETWORKS = {"adopted": potential, "egnn": lambda: trained_models.network(members=2)}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]()


@pytest.fixture
def train() -> list[Batch]:
    return [structures(4, 5, 6), structures(7, 3)]


def test_the_mean_is_the_networks_own(network, train):
    batch = structures(6, 3)
    found = ReadoutEnsemble(network, 5).fit(train).predict(batch)
    plain = network.eval()(batch)
    assert torch.equal(found.mean, plain.mean)
    assert found.members.shape == (5, 2)
    torch.testing.assert_close(found.members.mean(0), plain.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.epistemic, found.members.var(0), rtol=1e-5, atol=0)
    assert not found.aleatoric.any() and not found.member_variance.any()


def test_the_variance_is_that_of_the_rigidity(network, train, monkeypatch):
    batch = structures(6, 3)
    rigidity = PredictionRigidity(network).fit(train)
    exact = rigidity.predict(batch).epistemic
    many = ReadoutEnsemble(network, 4000).fit(train).predict(batch).epistemic
    torch.testing.assert_close(many, exact, rtol=0.1, atol=0)
    monkeypatch.setattr(PredictionRigidity, "fit", lambda *_: rigidity)  # the same, 500 times
    with torch.no_grad():
        features = network.last_layer(batch)[0]
    draws = [ReadoutEnsemble(network, 3, seed).fit(train).deviations for seed in range(500)]
    spread = torch.stack(draws) @ features.T
    few = spread.var(1).mean(0)  # unbiased for three members, too
    torch.testing.assert_close(few, exact, rtol=0.2, atol=0)


def test_every_member_has_its_own_exact_forces(network, train):
    method = ReadoutEnsemble(network, 3).fit(train)
    batch = structures(5)
    energies, members = energies_and_member_forces(method, batch)
    assert torch.equal(energies.mean, network.eval()(batch).mean)
    torch.testing.assert_close(members.mean, energy_and_forces(network, batch)[1])
    assert bool((members.epistemic > 0).any())
    step = 1e-4
    for atom, axis in ((0, 0), (3, 2)):
        ends = []
        for sign in (1, -1):
            moved = batch.clone()
            moved.pos[atom, axis] += sign * step
            ends.append(method.predict(moved).members[:, 0])
        slope = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(members.members[:, atom, axis], -slope, rtol=1e-3, atol=1e-5)


def test_one_pass_forth_and_one_back_for_each_member(train):
    network = potential()
    method = ReadoutEnsemble(network, 4).fit(train)
    forth, back = [], []

    def count(_, __, output):
        forth.append(1)
        output.register_hook(lambda _: back.append(1))

    network.network.register_forward_hook(count)
    energies_and_member_forces(method, structures(5))
    assert (len(forth), len(back)) == (1, 4)


def test_the_seed_decides_and_the_file_holds_the_draws(network, train, tmp_path):
    batch = structures(6, 3)
    method = ReadoutEnsemble(network, 4, seed=2).fit(train)
    again = ReadoutEnsemble(network, 4, seed=2).fit(train)
    other = ReadoutEnsemble(network, 4, seed=3).fit(train)
    assert torch.equal(method.deviations, again.deviations)
    assert not torch.equal(method.deviations, other.deviations)
    graphs = [graph for part in train for graph in part.to_data_list()] * 2
    calibrated = calibrate(method, [Batch.from_data_list(graphs)], targets=targets)
    save(calibrated, tmp_path / "m.safetensors")
    loaded = load_estimator(tmp_path / "m.safetensors")
    assert loaded.estimator.settings() == {"members": 4, "seed": 2}
    before, after = calibrated.predict(batch), loaded.predict(batch)
    assert all(torch.equal(value, getattr(after, name)) for name, value in vars(before).items())


def targets(batch: Batch) -> torch.Tensor:
    return torch.arange(batch.num_graphs, dtype=torch.float64)


def test_what_it_cannot_be_made_of(network, tmp_path):
    with pytest.raises(ConfigError, match="at least 2 members, not 1"):
        ReadoutEnsemble(network, 1)
    with pytest.raises(ConfigError, match="does not say what its last layer reads"):
        ReadoutEnsemble(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="fit an ensemble of read-outs"):
        ReadoutEnsemble(network).predict(structures(3))
    with pytest.raises(ConfigError, match="fitted on training batches"):
        ReadoutEnsemble(network).fit([])
    with pytest.raises(InputError, match="cannot be saved"):
        save(type("Mine", (ReadoutEnsemble,), {})(network), tmp_path / "m.safetensors")
