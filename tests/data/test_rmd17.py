"""Trajectories of single molecules: rMD17 with its splits, and MD17."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from egnn_prune import data
from egnn_prune.data.dataset import split_hash
from egnn_prune.data.local import data_folder, local_data
from egnn_prune.data.sources.trajectory import random_trajectory_splits
from egnn_prune.errors import ConfigError, DataError

COUNT, ATOMS = 40, 3
KCAL = 0.043364104


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EGNN_PRUNE_CACHE", str(tmp_path / "cache"))


def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "nuclear_charges": np.array([8, 1, 1], dtype=np.uint8),
        "coords": random.normal(size=(COUNT, ATOMS, 3)),
        "energies": -97000 + random.normal(size=COUNT),
        "forces": random.normal(size=(COUNT, ATOMS, 3)),
        "old_indices": np.arange(COUNT) * 7,
    }


@pytest.fixture
def written(tmp_path):
    """``written(key=array)``: a file with these arrays replaced (or left out, where None)."""

    def write(name: str = "rmd17_ethanol.npz", **changes: np.ndarray | None) -> Path:
        content = {k: v for k, v in (arrays() | changes).items() if v is not None}
        np.savez(tmp_path / name, **content)
        return tmp_path / name

    return write


def refused(source: str, path: Path, **options: str) -> str:
    """The message of the DataError: one sentence that names the file; nothing is kept of it."""
    with pytest.raises(DataError) as caught:
        data.load(source, path, **options)
    message = str(caught.value)
    assert "\n" not in message and path.stem in message
    cache = path.parent / "cache"
    assert not [file for file in cache.rglob("*") if file.is_file()]
    return message


def test_numbers_come_out_in_ev_and_angstrom(written):
    content = arrays()
    dataset = data.load("rmd17", written())
    assert (dataset.target, dataset.unit, dataset.extensive) == ("energy", "eV", True)
    assert dataset.units == {"pos": "Angstrom", "y": "eV", "forces": "eV/Angstrom"}
    assert len(dataset.graphs) == COUNT and dataset.elements == [1, 8]
    for k, graph in enumerate(dataset.graphs):
        assert graph.z.tolist() == [8, 1, 1]
        assert np.array_equal(graph.pos, content["coords"][k])
        assert np.allclose(graph.forces, content["forces"][k] * KCAL, rtol=1e-7)
        assert float(graph.y) == pytest.approx(content["energies"][k] * KCAL, rel=1e-7)
        assert int(graph.row) == k
        assert graph.pos.dtype == graph.y.dtype == graph.forces.dtype == torch.float64


def test_graphs_make_batches(written):
    batch = Batch.from_data_list(data.load("rmd17", written()).split("train")[:4])
    assert batch.pos.shape == (12, 3) and batch.y.shape == (4,) and batch.ptr.tolist()[-1] == 12


TRAIN, TEST = np.arange(30, 10, -1), np.arange(0, 10)


def test_the_official_split_beside_the_file(written, tmp_path):
    path = written()
    np.savez(tmp_path / "split_01_ethanol.npz", train=TRAIN, test=TEST)
    dataset = data.load("rmd17", path)
    assert dataset.name == "rmd17-ethanol"
    assert dataset.splits["test"].tolist() == TEST.tolist()
    assert len(dataset.splits["val"]) == 1  # as 50 of 1,000
    both = torch.cat([dataset.splits["train"], dataset.splits["val"]])
    assert sorted(both.tolist()) == sorted(TRAIN.tolist())


@pytest.mark.parametrize("folder", [".", "../splits"])
def test_the_official_split_as_released(written, tmp_path, folder):
    (tmp_path / "npz_data").mkdir()
    path = written("npz_data/rmd17_ethanol.npz")
    place = (path.parent / folder).resolve()
    place.mkdir(exist_ok=True)
    for name, rows in (("train", TRAIN), ("test", TEST)):
        np.savetxt(place / f"index_{name}_01.csv", rows, fmt="%d")
    dataset = data.load("rmd17", path)
    assert dataset.name == "rmd17-ethanol"
    assert dataset.splits["test"].tolist() == TEST.tolist()


def test_the_seed_chooses_validation_only(written, tmp_path):
    path = written()
    np.savez(tmp_path / "split_01_ethanol.npz", train=TRAIN, test=TEST)
    seeds = [data.load("rmd17", path, seed=s) for s in range(6)]
    assert len({int(d.splits["val"]) for d in seeds}) > 1
    assert len({split_hash({"test": d.splits["test"]}) for d in seeds}) == 1
    assert split_hash(data.load("rmd17", path, seed=3).splits) == split_hash(seeds[3].splits)


def test_without_a_split_it_is_random_and_says_so(written):
    dataset = data.load("rmd17", written())
    assert dataset.name == "rmd17-ethanol-random"
    rows = torch.cat([dataset.splits[k] for k in ("train", "val", "test")])
    assert sorted(rows.tolist()) == list(range(COUNT))
    other = data.load("rmd17", written(), seed=1)
    assert not torch.equal(dataset.splits["test"], other.splits["test"])


@pytest.mark.parametrize(
    ("train", "test", "complaint"),
    [
        ([1, 2, 40], [3], "names row 40, but rmd17_ethanol.npz has 40 configurations"),
        ([1, 2, -1], [3], "has 40 configurations"),
        ([1, 2, 3], [3], "names a row twice"),
        ([1.0, 2], [3.0], "must hold row numbers"),
    ],
)
def test_a_split_that_does_not_fit(written, tmp_path, train, test, complaint):
    path = written()
    np.savez(tmp_path / "split_01_ethanol.npz", train=np.array(train), test=np.array(test))
    with pytest.raises(DataError, match=complaint) as caught:
        data.load("rmd17", path)
    assert "split_01_ethanol.npz" in str(caught.value)


def test_a_damaged_split(written, tmp_path):
    path = written()
    (tmp_path / "split_01_ethanol.npz").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(DataError, match=r"split_01_ethanol.npz cannot be read; get a fresh copy"):
        data.load("rmd17", path)


def test_the_hash_names_the_rows_and_not_their_order():
    split = {"train": torch.tensor([3, 1]), "test": torch.tensor([2])}
    same = {"test": torch.tensor([2]), "train": torch.tensor([1, 3]), "ood": torch.tensor([])}
    other = {"train": torch.tensor([1, 2]), "test": torch.tensor([3])}
    assert split_hash(split) == split_hash(same) != split_hash(other)
    assert len(split_hash(split)) == 64


@pytest.mark.parametrize(
    ("count", "sizes"), [(100_000, (950, 50, 1000)), (2000, (950, 50, 1000)), (100, (86, 4, 10))]
)
def test_sizes_of_a_random_split(count, sizes):
    splits = random_trajectory_splits(count, 0)
    assert tuple(len(splits[k]) for k in ("train", "val", "test")) == sizes
    rows = torch.cat(list(splits.values()))
    assert len(rows.unique()) == len(rows) and rows.max() < count


def test_md17_has_other_names(written, tmp_path):
    content = arrays()
    np.savez(
        tmp_path / "md17_ethanol.npz",
        z=content["nuclear_charges"],
        R=content["coords"],
        E=content["energies"][:, None],
        F=content["forces"],
        name=np.array(b"ethanol"),
        perms=np.array([None, 1], dtype=object),  # nothing that is not needed is unpickled
    )
    first = data.load("md17", tmp_path / "md17_ethanol.npz")
    second = data.load("rmd17", written())
    assert first.name == "md17-ethanol"
    for a, b in zip(first.graphs, second.graphs, strict=True):
        assert torch.equal(a.y, b.y) and torch.equal(a.forces, b.forces)
    assert {k: len(v) for k, v in first.splits.items()} == dict(train=35, val=1, test=4, ood=0)


def test_md17_in_the_units_that_it_declares(written):
    names = {"z": "nuclear_charges", "R": "coords", "E": "energies", "F": "forces"}
    content = {new: arrays()[old] for new, old in names.items()}
    path = written("md17_ethanol.npz", **content, e_unit=np.array("eV"), r_unit=np.array("Bohr"))
    graph = data.load("md17", path).graphs[5]
    assert np.allclose(graph.pos, content["R"][5] * 0.52917721, rtol=1e-7)
    assert float(graph.y) == content["E"][5]
    assert np.allclose(graph.forces, content["F"][5] / 0.52917721, rtol=1e-7)
    path = written("md17_ethanol.npz", **content, e_unit=np.array("furlong"))
    with pytest.raises(DataError, match=r"md17_ethanol.npz: the unit of energy 'furlong' is not"):
        data.load("md17", path)


@pytest.mark.parametrize("key", ["nuclear_charges", "coords", "energies", "forces"])
def test_a_missing_array(written, key):
    assert f"lacks the array(s) {key}; it has" in refused("rmd17", written(**{key: None}))


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        (
            "coords",
            np.zeros((COUNT, 4, 3)),
            "coords of rmd17_ethanol.npz has shape (40, 4, 3), not",
        ),
        ("forces", np.zeros((39, 3, 3)), "forces of rmd17_ethanol.npz has shape (39, 3, 3), not"),
        ("energies", np.zeros(39), "coords of rmd17_ethanol.npz has shape (40, 3, 3), not (39,"),
        ("energies", np.zeros(0), "holds no configurations"),
        ("energies", np.array(["a"] * COUNT), "energies of rmd17_ethanol.npz must hold numbers"),
        ("nuclear_charges", np.ones(3), "must be a flat array of atomic numbers"),
        ("forces", np.array([None] * 3), "is not a readable .npz"),
    ],
)
def test_arrays_that_do_not_fit(written, key, value, complaint):
    assert complaint in refused("rmd17", written(**{key: value}))


@pytest.mark.parametrize(
    ("key", "shown"), [("coords", "pos"), ("energies", "y"), ("forces", "forces")]
)
def test_not_a_number(written, key, shown):
    values = arrays()[key]
    values[7] = np.nan
    message = refused("rmd17", written(**{key: values}))
    assert message.startswith(
        f"record 7 of rmd17_ethanol.npz has a NaN or infinite value in its {shown}"
    )


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_truncated_file(written, share):
    path = written()
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "is not a readable .npz" in refused("rmd17", path)


def test_too_few_configurations(written):
    few = {k: v[:2] for k, v in arrays().items() if k != "nuclear_charges"}
    with pytest.raises(DataError, match="2 configurations cannot be split"):
        data.load("rmd17", written(**few))


@pytest.mark.parametrize("source", ["rmd17", "md17"])
def test_a_file_that_nobody_has_yet(source, tmp_path, monkeypatch):
    monkeypatch.setenv("EGNN_PRUNE_DATA", str(tmp_path))
    with pytest.raises(DataError) as caught:
        data.load(source, subset="aspirin")
    message = str(caught.value)
    assert f"{source}_aspirin.npz was not found" in message and "http" in message
    assert "EGNN_PRUNE_DATA" in message and "data.path=FILE" in message


@pytest.mark.parametrize("place", ["molecules/rmd17", "rmd17", "rmd17/npz_data"])
def test_places_in_the_data_folder(written, tmp_path, monkeypatch, place):
    (tmp_path / place).mkdir(parents=True)
    written(f"{place}/rmd17_toluene.npz")
    monkeypatch.setenv("EGNN_PRUNE_DATA", str(tmp_path))
    assert data.load("rmd17", subset="toluene").name == "rmd17-toluene-random"
    assert data.load("rmd17", tmp_path / place, subset="toluene").name == "rmd17-toluene-random"


def test_requests_that_no_file_can_answer(written, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.subset must be one of aspirin, .*, not 'ethan'"):
        data.load("rmd17", subset="ethan")
    with pytest.raises(ConfigError, match=r"is not the file of data\.subset=toluene; give one"):
        data.load("rmd17", written(), subset="toluene")
    with pytest.raises(ConfigError, match="has the target energy only, not 'gap'"):
        data.load("md17", target="gap")
    with pytest.raises(DataError, match=r"there is no file .*nothing.npz"):
        data.load("rmd17", tmp_path / "nothing.npz")


@pytest.mark.parametrize(("molecule", "atoms"), [("ethanol", 9), ("aspirin", 21)])
def test_the_published_file(molecule, atoms):
    if local_data(f"molecules/rmd17/rmd17_{molecule}.npz") is None:
        pytest.skip(f"rMD17 is not in {data_folder()}; EGNN_PRUNE_DATA says where it is")
    dataset = data.load("rmd17", subset=molecule)
    assert dataset.name == f"rmd17-{molecule}"
    assert {k: len(v) for k, v in dataset.splits.items()} == dict(
        train=950, val=50, test=1000, ood=0
    )
    rows = torch.cat([dataset.splits[k] for k in ("train", "val", "test")])
    assert len(rows.unique()) == 2000
    energies = dataset.targets("train")
    assert 0.1 < energies.std() < 0.4  # of a molecule at 500 K, in eV
    forces = torch.stack([g.forces for g in dataset.split("test")[:100]])
    assert forces.shape == (100, atoms, 3)
    assert 0.7 < forces.abs().mean() < 1.5
    assert forces.sum(1).abs().max() < 0.01  # nothing outside pulls at the molecule
