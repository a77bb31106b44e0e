"""The study of what to label on a tiny teacher: pools, equal numbers, paired tables, resuming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule
from tiny_teacher import structures, tiny_teacher

from egnn_prune.ase.structures import graph_of
from egnn_prune.configs.what_to_label_study import WhatToLabelSettings
from egnn_prune.errors import ConfigError
from egnn_prune.report.studies.what_to_label import what_to_label_plot, what_to_label_table
from egnn_prune.studies import specialisation
from egnn_prune.studies import what_to_label as study
from egnn_prune.studies import what_to_label_pools as pooling
from egnn_prune.studies.specialisation import Bench
from egnn_prune.studies.specialisation_systems import System
from egnn_prune.studies.what_to_label import run_seed, run_what_to_label
from egnn_prune.studies.what_to_label_pools import bridges, place, pools, stretched


def frames(name: str) -> list:
    """Water and methanol; energies above 10 eV are hot, and the first frames are known ones."""
    count, start = {"train_300K": (40, 0), "train_mixedT": (60, 0), "test_300K": (30, 7)}[name]
    graphs = [graph_of(atoms) for atoms in structures(count, start)]
    generator = torch.Generator().manual_seed(start)
    for k, graph in enumerate(graphs):
        hot = name == "train_mixedT" and k >= 20
        graph.y = torch.full((1,), 20.0 if hot else 0.01 * k, dtype=torch.float64)
        graph.forces = torch.randn(graph.pos.shape, generator=generator, dtype=torch.float64)
    if name == "train_300K":
        graphs[39].y += 10.0
    return graphs


def cold(name: str, teacher: torch.nn.Module, train: int, seed: int) -> System:
    graphs, test = frames("train_300K"), frames("test_300K")
    return System(name, graphs[:10], graphs[10:20], test[:8], "data")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(pooling, "frames_of_3bpa", frames)
    monkeypatch.setattr(pooling, "system", cold)
    monkeypatch.setattr(study, "load", lambda name: tiny_teacher())
    monkeypatch.setattr(specialisation, "load", lambda name: tiny_teacher())
    monkeypatch.setattr(Bench, "small", lambda self, shape: tiny_teacher(seed=1))


@pytest.mark.parametrize("kind", ["hot", "bond"])
def test_parts_share_no_structure_and_tests_are_those_of_all_seeds(kind):
    one, other = (pools(kind, tiny_teacher(), 10, 5, seed) for seed in (0, 1))
    names = ("train", "val", "common", "rare", "test_common", "test_rare")
    places = [{place(graph) for graph in getattr(one, name)} for name in names]
    assert len(set.union(*places)) == sum(len(getattr(one, name)) for name in names)
    for name in ("test_common", "test_rare"):
        assert list(map(place, getattr(one, name))) == list(map(place, getattr(other, name)))
    assert list(map(place, one.rare)) != list(map(place, other.rare))
    assert one.labels == ("data" if kind == "hot" else "teacher")
    if kind == "hot":
        # of 40 hot ones, 20 are in train_300K, too
        assert len(one.rare) == 20 - 5 and all(float(g.y) == 20.0 for g in one.rare)


def test_pools_are_nested_and_hold_the_share():
    found = pools("hot", tiny_teacher(), 10, 5, 0)
    (small, few), (large, many) = found.pool(0.1, 20), found.pool(0.5, 20)
    assert (few, many) == (2, 10) and len(small) == len(large) == 20
    assert list(map(place, large[:2])) == list(map(place, small[:2]))
    assert all(float(g.y) == 20.0 for g in large[:10]) and float(large[10].y) < 20.0
    with pytest.raises(ConfigError, match="lower pool or shares"):
        found.pool(0.5, 100)


def test_one_bond_is_stretched_and_both_sides_stay_as_they_are():
    graph = graph_of(molecule("CH3OH"))
    found = bridges(graph)
    assert len(found) == 5  # three C-H, C-O, O-H
    for i, j, side in found:
        assert side[j] and not side[i] and side.sum() <= 3
    out = stretched(graph, 4)
    before, after = (torch.cdist(g.pos, g.pos) for g in (graph, out))
    bonds = [(i, j) for i, j, _ in found]
    ratios = np.array([float(after[i, j] / before[i, j]) for i, j in bonds])
    changed = np.abs(ratios - 1) > 1e-9
    assert changed.sum() == 1 and 1.15 <= ratios[changed][0] <= 1.4
    assert out.get("y") is None and torch.equal(graph.pos, graph_of(molecule("CH3OH")).pos)
    assert len(bridges(graph_of(molecule("C6H6")))) == 6  # none of the ring


def asked(out: Path, **changes) -> WhatToLabelSettings:
    settings = {"seeds": [0, 1], "kinds": ["hot"], "shares": [0.1, 0.5], "train": 50, "test": 5}
    settings |= {"pool": 12, "label": 3, "start_steps": 2, "steps": 2}
    return WhatToLabelSettings(out=str(out), **(settings | changes))


def test_equal_numbers_are_labelled_and_nothing_is_computed_twice(tmp_path, monkeypatch):
    seen = []
    trained = study.fine_tuned

    def fine_tuned(network, new, train, val, how, *, seed):
        seen.append((len(new), len(train), how.steps, seed))
        return trained(network, new, train, val, how, seed=seed)

    monkeypatch.setattr(study, "fine_tuned", fine_tuned)
    settings = asked(tmp_path, seeds=[0], strategies=["uncertain", "random"])
    run_what_to_label(settings)
    assert seen == [(3, 10, 2, 0)] * 4
    before = (tmp_path / "what_to_label.csv").read_bytes()
    assert (tmp_path / "what_to_label.png").stat().st_size > 10_000
    assert "hot frames" in (tmp_path / "what_to_label.txt").read_text()
    monkeypatch.setattr(study, "fine_tuned", None)
    run_what_to_label(settings)
    assert (tmp_path / "what_to_label.csv").read_bytes() == before


def test_the_teacher_labels_stretched_bonds_only_where_they_are_chosen(tmp_path, monkeypatch):
    calls = []

    def label(teacher, graphs, **options):
        calls.append(len(graphs))
        return made(teacher, graphs, **options)

    made = study.label
    monkeypatch.setattr(study, "label", label)
    rows = run_seed(asked(tmp_path, kinds=["bond"], shares=[0.5], strategies=["diverse"]), 0)
    assert calls == [3]
    none, diverse = rows
    assert none["strategy"] == "none" and diverse["rare_in_pool"] == 6
    assert none["rare_force_rmse"] != diverse["rare_force_rmse"]


def made_up() -> list[dict]:
    rows = []
    for seed in range(3):
        cell = {"kind": "hot", "seed": seed}
        errors = {"rare_force_rmse": 200.0 + seed, "common_force_rmse": 70.0}
        rows.append({**cell, "share": 0.0, "strategy": "none", **errors})
        for share in (0.02, 0.6):
            for strategy, change in (("uncertain", -20.0 + seed), ("random", 0.0)):
                errors = {"rare_force_rmse": 180.0 + change, "common_force_rmse": 75.0 - change / 4}
                chosen = {"rare_chosen": 4, "rare_in_pool": 4}
                rows.append({**cell, "share": share, "strategy": strategy, **chosen, **errors})
    return rows


def test_differences_are_paired_by_seed():
    lines = [" ".join(line.split()) for line in what_to_label_table(made_up()).splitlines()]
    # differences -20, -19, -18: t(2) = 4.303, half width 4.303 / sqrt(3) = 2.5
    (uncertain,) = (line for line in lines if "2% uncertain" in line)
    assert "3 4.0 161 ± 1 -19.0 (-10.6 %) [-21.5, -16.5]" in uncertain
    assert any("before 3 201 ± 1" in line for line in lines)
    figure = what_to_label_plot(made_up(), 15)
    assert len(figure.axes) == 2 and "15 labelled" in figure.get_suptitle()
    assert what_to_label_plot([]) and what_to_label_table([])
