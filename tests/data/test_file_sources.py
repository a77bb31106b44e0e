"""A user's own files: extended XYZ through ASE, flat arrays in npz, and the shared data."""

from __future__ import annotations

import os
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator

from egnn_prune import data
from egnn_prune.errors import ConfigError, DataError


def structures(n: int = 12) -> list[ase.Atoms]:
    random = np.random.default_rng(0)
    made = []
    for i in range(n):
        atoms = ase.Atoms(
            "CH4" if i % 2 else "OH2", positions=random.normal(size=(5 - 2 * (1 - i % 2), 3))
        )
        atoms.info["homo"] = -0.5 * i
        forces = random.normal(size=(len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=-10.0 * i, forces=forces)
        made.append(atoms)
    return made


@pytest.mark.parametrize("name", ["own.xyz", "own.extxyz", "own.xyz.gz"])
def test_extxyz_round_trip(name, tmp_path):
    original = structures()
    ase.io.write(tmp_path / name, original, format="extxyz")
    dataset = data.load("extxyz", tmp_path / name)
    assert (dataset.target, dataset.unit, dataset.extensive) == ("energy", "eV", True)
    assert dataset.name == name
    for k, (atoms, graph) in enumerate(zip(original, dataset.graphs, strict=True)):
        assert graph.z.tolist() == atoms.numbers.tolist()
        assert np.allclose(graph.pos, atoms.positions, atol=1e-6)
        assert np.allclose(graph.forces, atoms.get_forces(), atol=1e-6)
        assert graph.y.tolist() == [-10.0 * k]
        assert int(graph.row) == k
    assert sorted(torch.cat(list(dataset.splits.values())).tolist()) == list(range(12))


def test_periodic_structures_are_refused(tmp_path):
    atoms = ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.7]], cell=[3, 3, 3], pbc=True)
    atoms.info["energy"] = 1.0
    ase.io.write(tmp_path / "box.xyz", [atoms] * 3)
    with pytest.raises(DataError, match=r"structure 0 of .*box.xyz is periodic"):
        data.load("extxyz", tmp_path / "box.xyz")


def test_extxyz_other_target(tmp_path):
    ase.io.write(tmp_path / "own.xyz", structures(), format="extxyz")
    dataset = data.load("extxyz", tmp_path / "own.xyz", "homo")
    assert [float(g.y) for g in dataset.graphs] == [-0.5 * k for k in range(12)]
    assert not dataset.extensive and dataset.unit == "data unit"


def test_the_seed_chooses_the_split(tmp_path):
    ase.io.write(tmp_path / "own.xyz", structures(), format="extxyz")
    first, again, other = (data.load("extxyz", tmp_path / "own.xyz", seed=s) for s in (3, 3, 4))
    assert torch.equal(first.splits["train"], again.splits["train"])
    assert not torch.equal(first.splits["train"], other.splits["train"])


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
    assert (dataset.name, dataset.unit, dataset.extensive) == ("own", "Hartree", True)
    assert [len(g.z) for g in dataset.graphs] == [2, 3, 1, 4]
    assert dataset.graphs[1].z.tolist() == [8, 1, 1]
    assert np.allclose(dataset.graphs[3].pos, content["pos"][6:], atol=1e-6)
    assert [float(g.y) for g in dataset.graphs] == [10, 20, 30, 40]


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
    with pytest.raises(ConfigError, match="data must be one of xtb, extxyz, npz, not 'qm7'"):
        data.load("qm7")


@pytest.fixture(scope="session")
def shared() -> Path:
    named = os.environ.get("EGNN_PRUNE_DATA")
    folder = Path(named) if named else Path(__file__).parents[3] / "shared" / "data"
    if not (folder / "molecules" / "qm9_12k.npz").is_file():
        pytest.skip(f"the shared data is not in {folder}; EGNN_PRUNE_DATA says where it is")
    return folder / "molecules"


@pytest.mark.parametrize(
    ("target", "extensive", "low", "high"),
    [("gap", False, 0.02, 0.7), ("u0", True, -800, -40), ("mu", False, 0, 30)],
)
def test_qm9(shared, target, extensive, low, high):
    dataset = data.load("npz", shared / "qm9_12k.npz", target)
    y = torch.cat([g.y for g in dataset.graphs])
    assert len(dataset.graphs) == 12176
    assert dataset.elements == [1, 6, 7, 8]
    assert dataset.extensive == extensive
    assert low <= float(y.min()) < float(y.max()) <= high  # Hartree, Hartree, Debye


def test_3bpa_gzipped(shared):
    dataset = data.load("extxyz", shared / "3bpa" / "train_300K.xyz.gz")
    assert len(dataset.graphs) == 500
    assert all(len(g.z) == 27 and g.forces.shape == (27, 3) for g in dataset.graphs)
