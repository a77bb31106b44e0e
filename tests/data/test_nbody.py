"""Charged particles: the simulator against physics and a plain loop, and its data set."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from egnn_prune.data.sources import nbody, particles
from egnn_prune.data.sources.particles import ChargedParticles, energy, forces, simulate
from egnn_prune.errors import ConfigError
from egnn_prune.graphs import complete_edges
from egnn_prune.models import EGNN


def draw(count=20, n=5, seed=0):
    return ChargedParticles(n).draw(count, np.random.default_rng(seed))


def same_time(system, pos, recorded, charge):
    """Velocities at the time of the positions; recorded ones are half a step behind."""
    return recorded + system.dt / 2 * forces(system, pos, charge)


def plain_loop(system, pos, vel, charge, steps):
    """One system, particle by particle, as the equations stand."""
    pos, vel = [list(p) for p in pos.tolist()], [list(v) for v in vel.tolist()]
    n, limit = len(pos), 0.1 / system.dt
    for _ in range(steps):
        pull = [[0.0] * 3 for _ in range(n)]
        for i, j in itertools.permutations(range(n), 2):
            r = [pos[i][d] - pos[j][d] for d in range(3)]
            strength = system.strength * charge[i] * charge[j] / math.hypot(*r) ** 3
            for d in range(3):
                pull[i][d] += strength * r[d]
        for i, d in itertools.product(range(n), range(3)):
            vel[i][d] += system.dt * min(max(pull[i][d], -limit), limit)
            pos[i][d] += system.dt * vel[i][d]
    return np.array(pos), np.array(vel)


@pytest.mark.parametrize("n", [2, 5, 7])
def test_many_systems_at_once_equal_a_plain_loop(n, monkeypatch):
    monkeypatch.setattr(particles, "CHUNK_NUMBERS", 1)
    monkeypatch.setattr(particles, "CHUNK_SYSTEMS", 3)  # several chunks, the last one smaller
    system, state = ChargedParticles(n), draw(4, n)
    seen = simulate(system, *state, [1, 60])
    for k in range(4):
        for time, steps in enumerate((1, 60)):
            pos, vel = plain_loop(system, *(part[k] for part in state), steps)
            np.testing.assert_allclose(seen.pos[time, k], pos, rtol=0, atol=1e-12)
            np.testing.assert_allclose(seen.vel[time, k], vel, rtol=0, atol=1e-10)


def test_forces_are_clipped_component_by_component():
    system = ChargedParticles(2)
    pos = np.array([[[0.0, 0, 0], [0.05, 0.001, 0]]])  # 400 along x, 8 along y
    vel, charge = np.zeros_like(pos), np.array([[1.0, 1.0]])
    seen = simulate(system, pos, vel, charge, [1])
    np.testing.assert_allclose(seen.vel[0, 0, 0], [-0.1, -0.001 / 0.05**3 * 1e-3, 0], rtol=1e-2)
    assert seen.vel[0, 0, 1, 0] == 0.1
    assert seen.clipped.tolist() == [True]
    assert not simulate(system, 10 * pos, vel, charge, [1]).clipped.any()


def test_opposite_charges_circle_with_the_known_period():
    # two unit masses at distance d: v^2 / (d/2) = 1 / d^2, so T = pi d / v = 2 pi sqrt(d^3 / 2)
    system, d = ChargedParticles(2), 0.5
    speed = math.sqrt(1 / (2 * d))
    pos = np.array([[[d / 2, 0, 0], [-d / 2, 0, 0]]])
    vel = np.array([[[0, speed, 0], [0, -speed, 0]]])
    charge = np.array([[1.0, -1.0]])
    vel -= system.dt / 2 * forces(system, pos, charge)  # so that the whole first kick is half a one
    period = round(2 * math.pi * math.sqrt(d**3 / 2) / system.dt)
    seen = simulate(system, pos, vel, charge, [period // 2, period])
    assert np.abs(seen.pos[1] - pos).max() < 2e-3
    assert np.abs(seen.pos[0] + pos).max() < 2e-3  # half-way they have changed places


def test_energy_is_conserved_where_no_force_was_clipped():
    system, (pos, vel, charge) = ChargedParticles(), draw(60)
    before = energy(system, pos, vel + system.dt / 2 * forces(system, pos, charge), charge)
    seen = simulate(system, pos, vel, charge, [1000])
    after = energy(system, seen.pos[0], same_time(system, seen.pos[0], seen.vel[0], charge), charge)
    calm = ~seen.clipped
    assert 20 < calm.sum() < 60
    drift = np.abs(after - before)
    assert np.median(drift[calm]) < 1e-5
    assert drift[calm].max() < 0.05
    assert drift[~calm].max() > 0.05


def test_energy_by_hand():
    system = ChargedParticles(3, strength=2.0)
    pos = np.array([[[0.0, 0, 0], [2, 0, 0], [0, 0, 4]]])
    vel = np.array([[[1.0, 0, 0], [0, 2, 0], [0, 0, 0]]])
    expected = 0.5 + 2 + 2 * (-1 / 2 + 1 / 4 - 1 / math.sqrt(20))
    assert energy(system, pos, vel, np.array([[1.0, -1, 1]]))[0] == pytest.approx(expected)


def test_momentum_is_conserved_where_no_force_was_clipped():
    system, (pos, vel, charge) = ChargedParticles(), draw(40)
    seen = simulate(system, pos, vel, charge, [500])
    change = np.abs(seen.vel[0].sum(1) - vel.sum(1)).max(1)
    assert change[~seen.clipped].max() < 1e-10


def test_rotating_the_start_rotates_the_end():
    system, (pos, vel, charge) = ChargedParticles(), draw(20)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    shift = np.array([3.0, -2.0, 1.0])
    seen = simulate(system, pos, vel, charge, [300])
    turned = simulate(system, pos @ rotation.T + shift, vel @ rotation.T, charge, [300])
    calm = ~(seen.clipped | turned.clipped)  # a clipped component belongs to an axis
    error = np.abs(turned.pos[0] - (seen.pos[0] @ rotation.T + shift)).max((1, 2))
    assert calm.sum() >= 10
    assert error[calm].max() < 1e-8


def test_initial_states_are_distributed_as_described():
    for n in (5, 20):
        pos, vel, charge = draw(4000 // n, n)
        assert pos.std() == pytest.approx((n / 5) ** (1 / 3), rel=0.03)
        assert np.linalg.norm(vel, axis=-1) == pytest.approx(0.5)
        assert set(np.unique(charge)) == {-1, 1}
        assert abs(charge.mean()) < 0.06 and np.abs(vel.mean((0, 1))).max() < 0.02


@pytest.mark.parametrize("steps", [[], [0, 3], [3, 3], [5, 2]])
def test_steps_that_cannot_be_recorded_are_refused(steps):
    with pytest.raises(ConfigError, match="must be increasing numbers from 1 on"):
        simulate(ChargedParticles(), *draw(2), steps)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The data set with few systems and short frames; returns the folder of its cache."""
    monkeypatch.setenv("EGNN_PRUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(nbody, "SIZES", {5: (6, 4, 4), 20: (3, 2, 2)})
    monkeypatch.setattr(nbody, "FRAME", 2)
    return tmp_path


@pytest.mark.parametrize("subset", [None, "5", 20])
def test_graphs_hold_what_the_docstring_says(small, subset):
    dataset, n = nbody.load_nbody(subset=subset), int(subset or 5)
    assert (dataset.outputs, dataset.unit) == ("positions", "length unit")
    assert [len(dataset.splits[s]) for s in ("train", "val", "test", "ood")] == [*nbody.SIZES[n], 0]
    for k, graph in enumerate(dataset.graphs):
        source, target = graph.edge_index
        assert torch.equal(graph.edge_index, complete_edges(torch.tensor([0, n])))
        assert torch.equal(graph.edge_attr, graph.charge[source] * graph.charge[target])
        assert torch.equal(graph.x, graph.vel.norm(dim=1, keepdim=True))
        assert graph.pos.shape == graph.vel.shape == graph.y.shape == (n, 3)
        assert {graph[key].dtype for key in ("x", "pos", "vel", "y")} == {torch.float64}
        assert graph.row.tolist() == [k]


def test_positions_are_those_of_frames_30_and_40(small):
    dataset = nbody.load_nbody(seed=3)
    system = ChargedParticles()
    pos, vel, charge = system.draw(4, np.random.default_rng([3, 1]))  # the second split
    seen = simulate(system, pos, vel, charge, [62, 82])  # frame k is step FRAME (k + 1)
    for k, graph in enumerate(dataset.split("val")):
        assert np.array_equal(graph.pos.numpy(), seen.pos[0, k])
        assert np.array_equal(graph.vel.numpy(), seen.vel[0, k])
        assert np.array_equal(graph.y.numpy(), seen.pos[1, k])


def test_seeds_are_reproducible_and_systems_all_differ(small, monkeypatch):
    first, other = nbody.load_nbody(seed=1), nbody.load_nbody(seed=2)
    for path in small.glob("*.npz"):
        path.unlink()
    again = nbody.load_nbody(seed=1)
    everything = torch.stack([g.pos for g in [*first.graphs, *other.graphs]]).flatten(1)
    assert torch.equal(everything[:14], torch.stack([g.pos for g in again.graphs]).flatten(1))
    assert len(everything.unique(dim=0)) == len(everything)


def test_systems_are_simulated_once_by_their_parameters(small, monkeypatch):
    first = nbody.load_nbody()
    monkeypatch.setattr(nbody, "simulate", None)
    kept = nbody.load_nbody()
    assert all(torch.equal(a.y, b.y) for a, b in zip(first.graphs, kept.graphs, strict=True))
    with pytest.raises(TypeError):
        nbody.load_nbody(seed=1)


def test_a_damaged_or_unwritable_cache_does_no_harm(small, monkeypatch):
    first = nbody.load_nbody()
    (path,) = small.glob("*.npz")
    path.write_bytes(path.read_bytes()[:500])
    again = nbody.load_nbody()
    assert torch.equal(first.graphs[3].y, again.graphs[3].y)
    content = path.read_bytes()
    for place in range(0, len(content), len(content) // 40):  # simulated again, or the same
        flipped = bytearray(content)
        flipped[place] ^= 16
        path.write_bytes(flipped)
        again = nbody.load_nbody()
        assert all(
            torch.equal(a.pos, b.pos) for a, b in zip(first.graphs, again.graphs, strict=True)
        )
        assert all(torch.equal(a.y, b.y) for a, b in zip(first.graphs, again.graphs, strict=True))
    path.unlink()
    path.with_suffix("").write_text("a file")
    monkeypatch.setenv("EGNN_PRUNE_CACHE", str(path.with_suffix("")))  # no folder can be made there
    assert torch.equal(nbody.load_nbody().graphs[3].y, first.graphs[3].y)


def test_another_number_of_particles_is_refused():
    with pytest.raises(ConfigError, match=r"nbody has 5, 20, 100 particles, not data.subset='7'"):
        nbody.load_nbody(subset="7")
    with pytest.raises(ConfigError, match="at least 2 particles"):
        ChargedParticles(1)


def test_an_egnn_reads_the_graphs(small, dtype):
    batch = Batch.from_data_list(list(nbody.load_nbody().graphs[:3]))
    batch.x, batch.vel, batch.edge_attr = (
        batch[name].to(dtype) for name in ("x", "vel", "edge_attr")
    )
    model = EGNN(1, 8, 2, velocity=True, edge_features=1).to(dtype)
    assert model(batch).pos.shape == (15, 3)
