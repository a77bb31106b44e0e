"""The embedded molecules: what the data card promises, and the checksum that guards the file."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from egnn_prune import data
from egnn_prune.data.sources import xtb
from egnn_prune.errors import DataError

UNITS = {"energy": "eV", "atomisation_energy": "eV", "gap": "eV", "dipole_norm": "D"}


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    with np.load(xtb.embedded_file(), allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


@pytest.fixture(scope="module")
def dataset() -> data.GraphDataset:
    return data.load("xtb")


def heavy_atoms(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.add.reduceat(arrays["z"] > 1, arrays["offset"][:-1])


def test_sizes(dataset):
    sizes = {name: len(rows) for name, rows in dataset.splits.items()}
    assert sizes == {"train": 4200, "val": 500, "test": 600, "ood": 700}
    assert len(dataset.graphs) == 6000
    assert dataset.elements == [1, 6, 7, 8, 9]


def test_splits_share_no_molecule(dataset):
    smiles = {k: {dataset.smiles[i] for i in rows} for k, rows in dataset.splits.items()}
    assert len(set.union(*smiles.values())) == sum(map(len, dataset.splits.values()))


def test_in_distribution_is_small_and_has_no_nitrile(arrays):
    heavy, nitrile = heavy_atoms(arrays), np.char.find(arrays["smiles"], "C#N") >= 0
    nitrile |= np.char.find(arrays["smiles"], "N#C") >= 0
    seen = arrays["split"] < 3
    assert heavy[seen].min() == 3 and heavy[seen].max() == 7
    assert not nitrile[seen].any()
    assert (nitrile | (heavy == 8))[~seen].all()
    assert nitrile[~seen].sum() == (arrays["ood_reason"] == 2).sum() == 350


def test_forces_sum_to_zero(arrays):
    total = np.add.reduceat(arrays["forces"].astype(float), arrays["offset"][:-1])
    assert np.abs(total).max() < 1e-4  # eV/Angstrom, of forces of about 1


def test_atomisation_energy_is_energy_minus_free_atoms(arrays):
    free = dict(zip(arrays["atom_z"].tolist(), arrays["atom_energies"].tolist(), strict=True))
    names = arrays["target_names"].tolist()
    energy = arrays["targets"][:, names.index("energy")]
    atomisation = arrays["targets"][:, names.index("atomisation_energy")]
    atoms = np.add.reduceat(np.array([free[z] for z in arrays["z"]]), arrays["offset"][:-1])
    assert np.abs(energy - atoms - atomisation).max() < 1e-9
    assert (atomisation < 0).all()


def test_dipole_norm_is_the_length_of_the_dipole(arrays):
    norm = arrays["targets"][:, arrays["target_names"].tolist().index("dipole_norm")]
    assert np.abs(np.linalg.norm(arrays["dipole"], axis=1) - norm).max() < 1e-5


@pytest.mark.parametrize("target", UNITS)
def test_targets_and_units(target, arrays):
    found = data.load("xtb", target=target)
    column = arrays["target_names"].tolist().index(target)
    assert (found.target, found.unit) == (target, UNITS[target])
    assert found.extensive == ("energy" in target)
    assert torch.equal(
        torch.cat([g.y for g in found.graphs]), torch.from_numpy(arrays["targets"][:, column])
    )


def test_the_default_is_the_atomisation_energy(dataset):
    assert (dataset.target, dataset.unit, dataset.name) == ("atomisation_energy", "eV", "xtb")


def test_graphs_are_the_rows_of_the_file(dataset, arrays):
    for k in (0, 4242, 5999):
        atoms, graph = slice(*arrays["offset"][k : k + 2]), dataset.graphs[k]
        assert graph.z.tolist() == arrays["z"][atoms].tolist()
        assert np.array_equal(graph.pos.numpy(), arrays["pos"][atoms])
        assert np.array_equal(graph.forces.numpy(), arrays["forces"][atoms])
        assert int(graph.row) == k
        assert graph.y.dtype == torch.float64


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the data where an installed wheel has it; returns its path."""
    folder = tmp_path / "data" / "embedded"
    folder.mkdir(parents=True)
    original = xtb.embedded_file()
    for suffix in (".npz", ".sha256"):
        shutil.copy(original.with_suffix(suffix), folder)
    monkeypatch.setattr(xtb, "__file__", str(tmp_path / "data" / "sources" / "xtb.py"))
    return folder / original.name


def test_an_installed_wheel_finds_its_copy(copied):
    assert xtb.embedded_file() == copied


def test_a_flipped_byte_is_noticed(copied):
    content = bytearray(copied.read_bytes())
    content[len(content) // 2] ^= 1
    copied.write_bytes(content)
    with pytest.raises(DataError, match=r"xtb_molecules\.npz is damaged \(its checksum is wrong\)"):
        data.load("xtb")


def test_a_missing_file_is_named(copied):
    copied.unlink()
    with pytest.raises(DataError, match=r"xtb_molecules\.npz is missing from this installation"):
        data.load("xtb")
