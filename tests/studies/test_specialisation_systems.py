"""The systems on which potentials are made small: units, splits, and a sane box of water."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_teacher import tiny_teacher

from egnn_prune.errors import ConfigError
from egnn_prune.studies import specialisation_systems as systems
from egnn_prune.studies.specialisation_systems import system, water_box


@pytest.fixture(params=["ethanol", "3bpa"])
def name(request):
    try:
        systems._folder()
    except ConfigError as error:
        pytest.skip(str(error))
    return request.param


def rows(graphs):
    return {tuple(graph.pos.flatten().tolist()) for graph in graphs}


def test_splits_are_disjoint_and_the_test_split_is_that_of_all_seeds(name):
    one, other = (system(name, torch.nn.Identity(), 60, seed) for seed in (0, 1))
    assert [len(part) for part in (one.train, one.val, one.test)] == [60, 50, 150]
    parts = [rows(part) for part in (one.train, one.val, one.test)]
    assert len(set.union(*parts)) == 260
    assert not rows(one.test) & (rows(other.train) | rows(other.val))
    assert rows(one.test) == rows(other.test) and rows(one.train) != rows(other.train)
    assert one.labels == "data"


def test_ethanol_is_in_electronvolt(name):
    if name != "ethanol":
        pytest.skip("3BPA comes in eV")
    graph = system("ethanol", torch.nn.Identity(), 50, 0).train[0]
    path = systems._folder() / "rmd17" / "rmd17_ethanol.npz"
    with np.load(path, allow_pickle=False) as data:
        (row,) = np.flatnonzero(np.abs(data["coords"] - graph.pos.numpy()).max((1, 2)) < 1e-9)
        energy, forces = data["energies"][row], data["forces"][row]
    # 1 kcal/mol = 4184 J/mol; e N_A = 96485.33 C/mol
    factor = 4184 / 96485.33212
    assert float(graph.y) == pytest.approx(factor * energy, rel=1e-6)
    assert graph.forces.numpy() == pytest.approx(factor * forces, rel=1e-6)
    assert -4300 < float(graph.y) < -4100  # C2H6O: -155 Hartree


def test_unknown_systems_and_missing_data_are_said(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="not 'benzene'"):
        system("benzene", torch.nn.Identity(), 50, 0)
    monkeypatch.setenv("EGNN_PRUNE_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match="set EGNN_PRUNE_DATA"):
        system("ethanol", torch.nn.Identity(), 50, 0)


@pytest.mark.parametrize("edge", [1, 2, 3])
def test_a_box_of_water_is_as_dense_as_water_and_no_molecules_touch(edge):
    box = water_box(edge, seed=edge)
    assert len(box) == 6 * edge**3 and box.pbc.all()
    grams = box.get_masses().sum() * 1.66053907e-24
    assert grams / (box.get_volume() * 1e-24) == pytest.approx(1.0, abs=0.01)
    near = box.get_all_distances(mic=True)
    other = np.arange(len(box))[:, None] // 3 != np.arange(len(box)) // 3
    assert near[other].min() > 1.2  # no atoms of different molecules nearer than a long bond
    assert (water_box(edge, seed=9).positions != box.positions).any()


def test_water_is_labelled_by_the_teacher_and_frames_are_its_own(monkeypatch):
    monkeypatch.setattr(systems, "EDGE", 1)
    teacher, calls = tiny_teacher(), []

    def frames(model, start, *, kelvin, steps, interval, seed):
        calls.append(seed)
        generator = torch.Generator().manual_seed(seed * 1000 + int(kelvin[0]) + steps)
        made = []
        for _ in range(steps // interval):
            graph = start[0].clone()
            graph.pos = graph.pos + 0.02 * torch.randn(graph.pos.shape, generator=generator)
            made.append(graph)
        return made

    monkeypatch.setattr(systems, "dynamics_frames", frames)
    one, other = (system("water", teacher, 6, seed) for seed in (0, 1))
    assert one.labels == "teacher"
    assert [len(part) for part in (one.train, one.val, one.test)] == [6, 15, 30]
    parts = [rows(part) for part in (one.train, one.val, one.test)]
    assert len(set.union(*parts)) == 51
    assert rows(one.test) == rows(other.test) and not rows(one.train) & rows(other.train)
    assert all(graph.y.isfinite().all() and graph.forces.shape == graph.pos.shape
               for graph in one.test)  # fmt: skip
