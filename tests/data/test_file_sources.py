"""A user's own flat arrays in an npz, and the names of sources (see test_extxyz.py)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from egnn_prune import data
from egnn_prune.errors import ConfigError


def arrays() -> dict[str, np.ndarray]:
    return {
        "offset": np.array([0, 2, 5, 6, 10]),
        "z": np.array([1, 1, 8, 1, 1, 2, 6, 1, 1, 1], dtype=np.uint8),
        "pos": np.random.default_rng(0).normal(size=(10, 3)),
        "targets": np.array([[1.0, 10], [2, 20], [3, 30], [4, 40]]),
        "target_names": np.array(["gap", "energy"]),
        "target_units": np.array(["eV", "Hartree"]),
    }


def test_npz_slices_molecules(tmp_path):
    content = arrays()
    np.savez(tmp_path / "own.npz", **content)
    dataset = data.load("npz", tmp_path / "own.npz", "energy")
    assert (dataset.name, dataset.unit, dataset.extensive) == ("own", "eV", True)
    assert [len(g.z) for g in dataset.graphs] == [2, 3, 1, 4]
    assert dataset.graphs[1].z.tolist() == [8, 1, 1]
    assert np.allclose(dataset.graphs[3].pos, content["pos"][6:], atol=1e-6)
    y = (
        dataset.targets("train").sum()
        + dataset.targets("val").sum()
        + dataset.targets("test").sum()
    )
    assert float(y) == pytest.approx(100 * 27.211386, rel=1e-7)  # declared in Hartree
    assert all(g.pos.dtype == g.y.dtype == torch.float64 for g in dataset.graphs)


def test_npz_in_atomic_units_comes_out_in_ev_and_angstrom(tmp_path):
    content = arrays() | {"forces": np.ones((10, 3))}
    units = {"pos_unit": np.array("Bohr"), "forces_unit": np.array("Hartree/Bohr")}
    np.savez(tmp_path / "own.npz", **content, **units)
    dataset = data.load("npz", tmp_path / "own.npz", "energy")
    assert np.allclose(dataset.graphs[1].pos, content["pos"][2:5] * 0.529177211, rtol=1e-8)
    assert np.allclose(dataset.graphs[1].forces, 27.211386 / 0.529177211, rtol=1e-7)
    assert dataset.units == {"pos": "Angstrom", "y": "eV", "forces": "eV/Angstrom"}


def test_forces_belong_to_the_energy_only(tmp_path):
    np.savez(tmp_path / "own.npz", **arrays(), forces=np.ones((10, 3)))
    assert "forces" not in data.load("npz", tmp_path / "own.npz", "gap").graphs[0]


@pytest.mark.parametrize(("unit", "kept", "factor"), [("D", "D", 1), ("meV", "eV", 1e-3)])
def test_npz_keeps_units_of_other_quantities(tmp_path, unit, kept, factor):
    content = arrays() | {"target_names": np.array(["own", "energy"])}
    content["target_units"] = np.array([unit, "eV"])
    np.savez(tmp_path / "own.npz", **content)
    dataset = data.load("npz", tmp_path / "own.npz", "own")
    assert dataset.unit == kept
    assert float(dataset.graphs[2].y) == pytest.approx(3 * factor, rel=1e-12)


def test_npz_takes_the_first_target_and_the_split_of_the_file(tmp_path):
    np.savez(tmp_path / "own.npz", **arrays(), split=np.array([2, 0, 1, 3]))
    dataset = data.load("npz", tmp_path / "own.npz")
    assert (dataset.target, dataset.unit, dataset.extensive) == ("gap", "eV", False)
    assert {k: v.tolist() for k, v in dataset.splits.items()} == {
        "train": [1],
        "val": [2],
        "test": [0],
        "ood": [3],
    }


@pytest.mark.parametrize("name", ["extxyz", "npz"])
def test_a_file_source_needs_a_path(name):
    with pytest.raises(ConfigError, match=r"data\.path=FILE"):
        data.load(name)


def test_unknown_source():
    with pytest.raises(ConfigError, match=r"data must be one of xtb, qm9, .*, not 'qm7'"):
        data.load("qm7")
