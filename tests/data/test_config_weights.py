"""Weights of structures, read from files: ``config_weight``."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
import torch
from tiny_specialise import tiny
from tiny_teacher import structures, write_labelled

from egnn_prune import data
from egnn_prune.data.collation import collate
from egnn_prune.errors import DataError
from egnn_prune.pipeline.specialise_data import read_labelled


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EGNN_PRUNE_CACHE", str(tmp_path / "cache"))


def written(folder: Path, *weights: object, key: str = "config_weight") -> Path:
    """Twelve structures, the first of which have these weights."""
    random = np.random.default_rng(0)
    frames = []
    for k in range(12):
        atoms = ase.Atoms("OH2", positions=random.normal(size=(3, 3)))
        atoms.info["energy"] = -1.0 * k
        if k < len(weights) and weights[k] is not None:
            atoms.info[key] = weights[k]
        frames.append(atoms)
    ase.io.write(folder / "own.xyz", frames, format="extxyz")
    return folder / "own.xyz"


def npz(folder: Path, **arrays: np.ndarray) -> Path:
    random = np.random.default_rng(0)
    np.savez(
        folder / "own.npz",
        offset=np.arange(13) * 3,
        z=np.tile([8, 1, 1], 12),
        pos=random.normal(size=(36, 3)),
        targets=random.normal(size=(12, 1)),
        target_names=np.array(["energy"]),
        **arrays,
    )
    return folder / "own.npz"


def test_weights_travel_with_the_structures(tmp_path):
    dataset = data.load("extxyz", written(tmp_path, 2, 0.5, None, 0))
    found = [float(graph.config_weight) for graph in dataset.graphs]
    assert found == [2.0, 0.5, 1.0, 0.0] + [1.0] * 8
    batch = collate(dataset.graphs[:3])
    assert batch.config_weight.tolist() == [2.0, 0.5, 1.0]
    assert batch.config_weight.dtype == torch.float64
    kept = [float(g.config_weight) for g in dataset.limited(4).split("train")]
    assert kept == [found[row] for row in dataset.limited(4).splits["train"].tolist()]
    train = np.array(found)[dataset.splits["train"].numpy()]
    (said,) = [note for note in dataset.notes if note.startswith("config_weight")]
    assert f"{train.min():g} to {train.max():g} in training" in said


@pytest.mark.parametrize("weights", [(), (1.0,) * 12], ids=["none", "ones"])
def test_without_weights_graphs_are_as_before(weights, tmp_path):
    dataset = data.load("extxyz", written(tmp_path, *weights))
    assert "config_weight" not in dataset.graphs[0]
    assert not [note for note in dataset.notes if "weight" in note]


@pytest.mark.parametrize("wrong", [-0.5, float("nan"), float("inf"), "heavy", True, [1.0, 2.0]])
def test_what_is_no_weight_is_refused(wrong, tmp_path):
    with pytest.raises(DataError) as caught:
        data.load("extxyz", written(tmp_path, 1.0, wrong))
    message = str(caught.value)
    assert "structure 1 of" in message and "config_weight=" in message and "\n" not in message
    assert "finite number of at least 0" in message


def test_training_needs_a_weight_above_zero(tmp_path):
    with pytest.raises(DataError, match=r"all training structures of own.xyz have config_weight=0"):
        data.load("extxyz", written(tmp_path, *[0] * 12))


def test_weights_of_single_quantities_are_named(tmp_path):
    path = written(tmp_path, *[2.0] * 12, key="config_forces_weight")
    (said,) = [n for n in data.load("extxyz", path).notes if "config_forces_weight" in n]
    assert said.startswith("not used: config_forces_weight")


def test_weights_in_an_npz(tmp_path):
    weights = np.linspace(0, 2.2, 12, dtype=np.float32)
    dataset = data.load("npz", npz(tmp_path, config_weight=weights))
    assert [float(g.config_weight) for g in dataset.graphs] == weights.tolist()
    assert any(note.startswith("config_weight: ") for note in dataset.notes)
    assert "config_weight" not in data.load("npz", npz(tmp_path)).graphs[0]


@pytest.mark.parametrize(
    ("weights", "what"),
    [
        (np.array([1.0] * 11 + [-1.0]), "molecule 11 of own.npz has config_weight=-1.0"),
        (np.array([np.nan] + [1.0] * 11), "molecule 0 of own.npz has config_weight=nan"),
        (np.ones(11), "config_weight of own.npz has shape"),
        (np.array(["1"] * 12), "config_weight of own.npz must hold numbers"),
    ],
)
def test_an_npz_with_wrong_weights_is_refused(weights, what, tmp_path):
    with pytest.raises(DataError, match=what):
        data.load("npz", npz(tmp_path, config_weight=weights))


def test_specialise_does_not_say_that_weights_count(tmp_path):
    """Its networks learn from all structures alike."""
    made = structures(20)
    for k, atoms in enumerate(made):
        atoms.info["config_weight"] = 0.1 + k
    path = write_labelled(tmp_path / "mine.xyz", made)
    found = read_labelled(tiny(tmp_path / "run", path).data, 0)
    said = [note for note in found.notes if "config_weight" in note]
    assert said == ["not used: config_weight; all structures count alike here"]
