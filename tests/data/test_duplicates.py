"""Structures that are there more than once: found whatever their order and place, and split."""

from __future__ import annotations

from functools import partial

import ase
import ase.io
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from egnn_prune import data
from egnn_prune.data.dataset import random_splits
from egnn_prune.data.duplicates import equal_structures, grouped_splits
from egnn_prune.data.local import data_folder, local_data
from egnn_prune.data.sources.trajectory import random_trajectory_splits
from egnn_prune.data.store import GraphStore
from egnn_prune.errors import DataError, SuspiciousDataWarning

Structures = list[tuple[np.ndarray, np.ndarray]]
Z = np.array([6, 8, 1, 1, 1, 1])


def molecules(n: int, seed: int = 0) -> Structures:
    random = np.random.default_rng(seed)
    return [(Z, 2 * random.normal(size=(6, 3))) for _ in range(n)]


def store_of(
    structures: Structures, y: np.ndarray | None = None, **graphs: np.ndarray
) -> GraphStore:
    sizes = [len(z) for z, _ in structures]
    return GraphStore(
        np.concatenate([[0], np.cumsum(sizes)]),
        {
            "z": np.concatenate([z for z, _ in structures]),
            "pos": np.concatenate([pos for _, pos in structures]),
        },
        {"y": np.zeros(len(sizes)) if y is None else y, **graphs},
    )


def groups(structures: Structures, **graphs: np.ndarray) -> list[int]:
    store = store_of(structures, **graphs)
    return equal_structures(store, np.arange(len(store))).tolist()


def changed(kind: str, z: np.ndarray, pos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(7)
    order = random.permutation(len(z))
    return {
        "same": (z, pos),
        "moved": (z, pos + [30.0, -2.0, 0.5]),
        "turned": (z, pos @ Rotation.random(random_state=3).as_matrix().T),
        "reflected": (z, pos * [-1, 1, 1]),
        "reordered": (z[order], pos[order]),
        "written with 8 digits": (
            z,
            np.round(pos @ Rotation.random(random_state=5).as_matrix(), 8),
        ),
        "one atom moved": (z, pos + 0.001 * np.eye(6, 3)),
        "another element": (np.array([6, 7, 1, 1, 1, 1]), pos),
        "two atoms swapped": (z[[1, 0, 2, 3, 4, 5]], pos),
    }[kind]


EQUAL = ["same", "moved", "turned", "reflected", "reordered", "written with 8 digits"]
OTHER = ["one atom moved", "another element", "two atoms swapped"]


@pytest.mark.parametrize("kind", EQUAL + OTHER)
def test_what_counts_as_equal(kind):
    structures = molecules(4)
    found = groups([*structures, changed(kind, *structures[2])])
    assert found == [0, 1, 2, 3, 2 if kind in EQUAL else 4]


def test_many_copies_in_any_order():
    structures = molecules(30)
    random = np.random.default_rng(0)
    which = random.integers(30, size=400)
    made = [changed(EQUAL[k % len(EQUAL)], *structures[i]) for k, i in enumerate(which)]
    found = np.array(groups(made))
    assert (found[:, None] == found).tolist() == (which[:, None] == which).tolist()
    first = np.sort(np.unique(found, return_index=True)[1])
    assert found[first].tolist() == list(range(30))  # in the order of appearance


def test_structures_with_equal_distances_from_the_centre_only():
    """A square and a twisted one: four equal radii, other distances."""
    angles = np.radians([[0, 90, 180, 270], [0, 60, 180, 240]])
    squares = [np.stack([np.cos(a), np.sin(a), 0 * a], axis=1) for a in angles]
    ring = np.ones(4, dtype=np.int64)
    assert groups([(ring, pos) for pos in squares]) == [0, 1]
    mixed = [squares[k % 2] * (1 + 1e-7 * k) for k in range(4)]  # no copy next to its original
    assert groups([(ring, pos) for pos in mixed]) == [0, 1, 0, 1]


def test_periodic_structures_with_the_same_numbers():
    structures = molecules(2)
    made = [structures[0], structures[0], structures[0], structures[0], structures[1]]
    cell = np.stack([np.eye(3) * a for a in (9.0, 9.0, 9.5, 9.0, 9.0)])
    pbc = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 0, 0], [1, 1, 1]], dtype=bool)
    assert groups(made, cell=cell, pbc=pbc) == [0, 0, 1, 2, 3]


def crossing(splits: dict[str, torch.Tensor], found: list[int]) -> int:
    parts = [{found[row] for row in rows.tolist()} for rows in splits.values()]
    return len(parts[0] & parts[1]) + len(parts[0] & parts[2]) + len(parts[1] & parts[2])


@pytest.mark.parametrize("seed", range(3))
def test_copies_stay_on_one_side(seed):
    structures = molecules(20)
    store = store_of([structures[k % 20] for k in range(70)])
    splits, notes = grouped_splits(store, partial(random_splits, seed=seed), "own")
    assert crossing(splits, [k % 20 for k in range(70)]) == 0
    assert sorted(torch.cat(list(splits.values())).tolist()) == list(range(70))
    expected = random_splits(20, seed)  # of the different ones
    assert {k: {r % 20 for r in v.tolist()} for k, v in splits.items()} == {
        k: set(v.tolist()) for k, v in expected.items()
    }
    assert notes == [
        "50 of 70 structures are copies of others; copies stay on one side of the split"
    ]


@pytest.mark.parametrize("split", [random_splits, random_trajectory_splits])
@pytest.mark.parametrize("count", [3, 41])
def test_a_split_without_copies_is_what_it_was(split, count):
    found, notes = grouped_splits(store_of(molecules(count)), partial(split, seed=2), "own")
    expected = split(count, seed=2)
    assert notes == [] and list(found) == list(expected)
    assert all(torch.equal(found[k], expected[k]) for k in expected)


def test_copies_that_a_split_leaves_out_change_nothing():
    structures = molecules(30)

    def half(count: int) -> dict[str, torch.Tensor]:
        return {
            "train": torch.arange(10),
            "val": torch.arange(10, 12),
            "test": torch.arange(12, 15),
        }

    found, notes = grouped_splits(store_of([*structures, structures[0]]), half, "own")
    assert notes == [] and found["train"].tolist() == list(range(10))


@pytest.mark.parametrize("different", [1, 2])
def test_nothing_but_copies(different):
    structures = molecules(different) * 6
    with pytest.warns(SuspiciousDataWarning, match=rf"only {different} different one\(s\); copies"):
        splits, _ = grouped_splits(store_of(structures), partial(random_splits, seed=0), "own")
    assert sum(map(len, splits.values())) == len(structures)


@pytest.mark.parametrize(("difference", "warns"), [(0.0, 0), (1e-9, 0), (0.1, 1)])
def test_copies_with_different_targets(difference, warns, recwarn):
    structures = molecules(10)
    y = np.arange(12) % 10 - 100.0
    y[10] += difference
    store = store_of([*structures, structures[0], structures[1]], y)
    grouped_splits(store, partial(random_splits, seed=0), "own.xyz")
    said = [str(w.message) for w in recwarn if w.category is SuspiciousDataWarning]
    assert len(said) == warns
    if warns:
        assert said[0].startswith("1 structure(s) of own.xyz are there more than once with differe")
        assert "copies of structure 0 have -100 and -99.9" in said[0]


def write(path, structures: Structures):
    frames = [ase.Atoms(z, pos) for z, pos in structures]
    for k, frame in enumerate(frames):
        frame.info["energy"] = float(np.square(frame.get_all_distances()).sum())
        frame.info["other"] = k
    ase.io.write(path, frames, format="extxyz")
    return path


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("further", [False, True])
def test_a_file_with_repeated_frames(tmp_path, seed, further):
    structures = molecules(20)
    path = write(tmp_path / "own.xyz", [*structures, *structures, *structures])
    test = write(tmp_path / "test.xyz", molecules(5, 1)) if further else None
    dataset = data.load("extxyz", path, seed=seed, test=test)
    names = ("train", "val") if further else ("train", "val", "test")
    parts = [{r % 20 for r in dataset.splits[name].tolist()} for name in names]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 20
    assert any(note.startswith("40 of 60 structures are copies") for note in dataset.notes)


@pytest.mark.parametrize("further", ["test", "ood"])
def test_turned_and_moved_copies_in_a_further_file_are_left_out(tmp_path, further):
    structures = molecules(20)
    turn = Rotation.from_rotvec([0.3, 1, -0.5])
    copies = [(z, turn.apply(pos) + [0.5, 1, -2]) for z, pos in structures[5:8]]
    path = write(tmp_path / "own.xyz", structures)
    other = write(tmp_path / "other.xyz", [*copies, *molecules(4, 1)])
    dataset = data.load("extxyz", path, **{further: other})
    assert dataset.splits[further].tolist() == [23, 24, 25, 26]
    said = "3 of 7 structures in other.xyz also are in own.xyz and left out"
    assert said in dataset.notes
    write(tmp_path / "other.xyz", copies)
    with pytest.raises(DataError, match=r"all structures of .*other.xyz also are in .*own.xyz"):
        data.load("extxyz", path, **{further: other})


def test_a_further_file_with_the_same_positions_in_another_cell_is_new(tmp_path):
    crystals = [ase.Atoms("Ne", cell=[3 + k / 10] * 3, pbc=True) for k in range(13)]
    for k, frame in enumerate(crystals):
        frame.info["energy"] = float(k)
    ase.io.write(tmp_path / "own.xyz", crystals[:10], format="extxyz")
    ase.io.write(tmp_path / "test.xyz", [crystals[3], *crystals[10:]], format="extxyz")
    dataset = data.load("extxyz", tmp_path / "own.xyz", test=tmp_path / "test.xyz")
    assert dataset.splits["test"].tolist() == [11, 12, 13]


def arrays(structures: Structures, **more: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "offset": 6 * np.arange(len(structures) + 1),
        "z": np.concatenate([z for z, _ in structures]),
        "pos": np.concatenate([pos for _, pos in structures]),
        "targets": np.zeros((len(structures), 1)),
        "target_names": np.array(["energy"]),
        **more,
    }


def test_an_npz_file(tmp_path):
    np.savez(tmp_path / "own.npz", **arrays(molecules(10) * 3))
    dataset = data.load("npz", tmp_path / "own.npz")
    assert (
        crossing(
            {k: dataset.splits[k] for k in ("train", "val", "test")}, [k % 10 for k in range(30)]
        )
        == 0
    )


def test_an_npz_file_with_a_split_that_leaks(tmp_path):
    split = np.array([0] * 8 + [1, 2])
    structures = molecules(10)
    np.savez(tmp_path / "own.npz", **arrays(structures, split=split))
    assert data.load("npz", tmp_path / "own.npz").splits["test"].tolist() == [9]
    structures[9] = changed("turned", *structures[1])
    np.savez(tmp_path / "own.npz", **arrays(structures, split=split))
    with pytest.warns(SuspiciousDataWarning, match="1 of 1 structures of the test split of own"):
        assert data.load("npz", tmp_path / "own.npz").splits["test"].tolist() == [9]


@pytest.mark.parametrize(
    "name", ["3bpa/train_300K.xyz.gz", "qm9_12k.npz", "rmd17/rmd17_uracil.npz"]
)
def test_real_data_have_no_copies(name):
    path = local_data(f"molecules/{name}")
    if path is None:
        pytest.skip(f"{name} is not in {data_folder()}; EGNN_PRUNE_DATA says where it is")
    source = "extxyz" if "3bpa" in name else "qm9" if "qm9" in name else "rmd17"
    graphs = data.load(source, path).graphs
    found = equal_structures(graphs, np.arange(len(graphs)))
    assert found.tolist() == list(range(len(graphs)))
