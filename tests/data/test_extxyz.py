"""Files that ASE reads: energies and forces under many names, cells, further files, and 3BPA."""

from __future__ import annotations

import bz2
import gzip
import logging
from collections.abc import Callable
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from torch_geometric.data import Batch

from egnn_prune import data
from egnn_prune.data.local import data_folder, local_data
from egnn_prune.data.sources import extxyz
from egnn_prune.errors import DataError
from egnn_prune.models import EGNNOptions, PropertyModel
from egnn_prune.models.forces import energy_and_forces


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EGNN_PRUNE_CACHE", str(tmp_path / "cache"))


def bare(n: int, seed: int = 0) -> list[ase.Atoms]:
    random = np.random.default_rng(seed)
    symbols = ("OH2", "CH4")
    return [
        ase.Atoms(symbols[i % 2], positions=random.normal(size=(3 + 2 * (i % 2), 3)))
        for i in range(n)
    ]


def labelled(n: int = 12, seed: int = 0) -> list[ase.Atoms]:
    """Water and methane with energy, forces and another number."""
    random = np.random.default_rng(seed + 1)
    made = bare(n, seed)
    for i, atoms in enumerate(made):
        atoms.info["homo"] = -0.5 * i
        forces = random.normal(size=(len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=-10.0 * i, forces=forces)
    return made


def test_types_are_read_where_the_file_states_them(tmp_path):
    made = labelled(30)
    for k, atoms in enumerate(made[:20]):
        atoms.info["config_type"] = f"kind {k % 2}" if k else 7 * "long name "
    ase.io.write(tmp_path / "typed.xyz", made)
    dataset = data.load("extxyz", tmp_path / "typed.xyz")
    for split in ("train", "val", "test"):
        rows = dataset.splits[split].tolist()
        expected = [made[row].info.get("config_type", "") for row in rows]
        assert dataset.types_of(split) == [t.strip()[:64] for t in expected]
    assert dataset.limited(5).types_of("train") == [
        dataset.types[row] for row in dataset.limited(5).splits["train"]
    ]
    ase.io.write(tmp_path / "none.xyz", labelled(30))
    untyped = data.load("extxyz", tmp_path / "none.xyz")
    assert not untyped.types and untyped.types_of("test") == []


def named(energy: str | None, *forces: str, n: int = 6) -> list[ase.Atoms]:
    """Structures whose energy is i and whose k-th forces are all k + 1, under these names."""
    made = bare(n)
    for i, atoms in enumerate(made):
        if energy:
            atoms.info[energy] = float(i)
        for k, name in enumerate(forces):
            atoms.arrays[name] = np.full((len(atoms), 3), k + 1.0)
    return made


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    """``write(structures, name="own.xyz")``: their file."""

    def write(structures: list[ase.Atoms], name: str = "own.xyz") -> Path:
        ase.io.write(tmp_path / name, structures, format="extxyz")
        return tmp_path / name

    return write


def refused(path: Path, **options: object) -> str:
    """The message of the DataError: one sentence that names the file; nothing is kept of it."""
    with pytest.raises(DataError) as caught:
        data.load("extxyz", path, **options)
    message = str(caught.value)
    assert "\n" not in message and path.name in message
    assert not [file for file in (path.parent / "cache").rglob("*") if file.is_file()]
    return message


@pytest.mark.parametrize(
    "name", ["own.xyz", "own.extxyz", "own.xyz.gz", "own.xyz.bz2", "own.xyz.xz", "a@1.xyz"]
)
def test_round_trip(name, write, monkeypatch):
    monkeypatch.setattr(extxyz, "PIECE", 5)
    original = labelled()
    dataset = data.load("extxyz", write(original, name))
    assert (dataset.target, dataset.unit, dataset.extensive) == ("energy", "eV", True)
    assert dataset.name == name
    assert dataset.units == {"pos": "Angstrom", "y": "eV", "forces": "eV/Angstrom"}
    for k, (atoms, graph) in enumerate(zip(original, dataset.graphs, strict=True)):
        assert graph.z.tolist() == atoms.numbers.tolist()
        assert np.allclose(graph.pos, atoms.positions, atol=1e-7)
        assert np.allclose(graph.forces, atoms.get_forces(), atol=1e-7)
        assert graph.y.tolist() == [-10.0 * k]
        assert int(graph.row) == k
        assert graph.pos.dtype == graph.forces.dtype == graph.y.dtype == torch.float64
        assert "cell" not in graph and "pbc" not in graph
    assert sorted(torch.cat(list(dataset.splits.values())).tolist()) == list(range(12))


def test_it_is_parsed_once(write, monkeypatch):
    path = write(labelled())
    first = data.load("extxyz", path)
    monkeypatch.setattr(extxyz, "read_structures", None)
    again = data.load("extxyz", path)
    assert torch.equal(first.graphs[7].forces, again.graphs[7].forces)


def test_another_target_is_another_entry(write):
    path = write(labelled())
    assert data.load("extxyz", path).target == "energy"
    dataset = data.load("extxyz", path, "homo")
    assert [float(g.y) for g in dataset.graphs] == [-0.5 * k for k in range(12)]
    assert (dataset.unit, dataset.extensive) == ("data unit", False)
    assert "forces" not in dataset.graphs[0]  # they are not the gradient of this


def test_the_seed_chooses_the_split(write):
    path = write(labelled())
    first, again, other = (data.load("extxyz", path, seed=s) for s in (3, 3, 4))
    assert torch.equal(first.splits["train"], again.splits["train"])
    assert not torch.equal(first.splits["train"], other.splits["train"])


@pytest.mark.parametrize(
    ("energy", "forces"),
    [
        ("REF_energy", "REF_forces"),
        ("dft_energy", "dft_force"),
        ("Energy", "Forces"),
        ("TotEnergy", "force"),
        ("energy_dft", "forces_dft"),
    ],
)
def test_names_of_energies_and_forces(write, energy, forces):
    usual = energy != "energy_dft"
    dataset = data.load("extxyz", write(named(energy, forces)), None if usual else energy)
    assert (dataset.target, dataset.unit, dataset.extensive) == (energy, "eV", True)
    assert [float(g.y) for g in dataset.graphs] == list(range(6))
    assert all((g.forces == 1).all() for g in dataset.graphs)


def test_forces_are_those_of_the_energy(write):
    structures = named("REF_energy", "MACE_forces", "REF_forces")
    assert (data.load("extxyz", write(structures)).graphs[0].forces == 2).all()


def test_ambiguous_names_are_refused(write):
    path = write(named("own_energy", "a_forces", "b_force"))
    message = refused(path, target="own_energy")
    assert "more than one array of forces (a_forces, b_force), and none is called as" in message
    structures = labelled()
    for atoms in structures:
        atoms.info["REF_energy"] = 1.0
    message = refused(write(structures))
    assert "structure 0" in message
    assert "more than one energy (it has: REF_energy, energy); choose one with data.targ" in message
    assert data.load("extxyz", path.with_name("own.xyz"), "REF_energy").graphs[0].y == 1


def test_no_energy_lists_what_there_is(write):
    message = refused(write(named("homo")))
    assert "no energy of a usual name (it has: homo); choose one with data.target=KEY" in message
    assert "no energy of a usual name (it has: nothing)" in refused(write(named(None)))
    path = write(labelled())
    assert "has no number 'lumo' (it has: energy, forces, homo)" in refused(path, target="lumo")


@pytest.mark.parametrize(("first", "word"), [(True, "has no forces"), (False, "has forces")])
def test_forces_here_and_none_there(write, monkeypatch, first, word):
    monkeypatch.setattr(extxyz, "PIECE", 4)
    structures = labelled()
    for k, atoms in enumerate(structures):
        if (k >= 9) == first:
            atoms.calc = SinglePointCalculator(atoms, energy=1.0)
    message = refused(write(structures))
    assert "structure 9" in message and word in message and "to all of them or to none" in message


def test_isolated_atoms(write, dtype):
    atom = ase.Atoms("C", positions=[[1.0, 2, 3]])
    atom.info |= {"config_type": "IsolatedAtom"}
    atom.calc = SinglePointCalculator(atom, energy=-1000.0)
    dataset = data.load("extxyz", write([atom, *labelled(), atom])).with_cutoff(4.0)
    graph = dataset.graphs[0]
    assert float(graph.y) == -1000 and (graph.forces == 0).all()
    assert graph.edge_index.shape == (2, 0)
    model = PropertyModel.build((1, 6, 8), hidden=8, layers=2, options=EGNNOptions()).to(dtype)
    graph.pos = graph.pos.to(dtype)
    with torch.no_grad():
        assert model(graph).mean.isfinite().all()


def test_periodic_structures(write):
    cell = np.array([[4.0, 0, 0], [1, 5, 0], [0, 0, 6]])
    structures = labelled()
    for atoms in structures[4:]:
        atoms.cell, atoms.pbc = cell, (True, True, False)
    structures[0].cell = cell  # without boundaries it says nothing
    dataset = data.load("extxyz", write(structures))
    assert dataset.units["cell"] == "Angstrom"
    for k, graph in enumerate(dataset.graphs):
        assert graph.cell.shape == (1, 3, 3) and graph.cell.dtype == torch.float64
        assert graph.pbc.tolist() == [[k >= 4, k >= 4, False]]
        assert np.allclose(graph.cell[0], cell if k >= 4 else 0)
    assert dataset.with_cutoff(3.0).graphs[5].edge_shift.shape[1] == 3


@pytest.mark.parametrize(
    "cell",
    [np.zeros((3, 3)), np.diag([4.0, 4, 0]), [[1, 0, 0], [2, 0, 0], [0, 0, 1]]],
    ids=["zero", "flat", "parallel"],
)
def test_a_cell_without_volume(write, cell):
    structures = labelled()
    structures[7].cell, structures[7].pbc = cell, True
    message = refused(write(structures))
    assert "structure 7 of" in message and "no volume in the periodic directions" in message
    structures[7].pbc = False
    assert "pbc" not in data.load("extxyz", write(structures)).graphs[7]


def test_declared_units(write):
    structures = labelled()
    for atoms in structures:
        atoms.info |= {"energy_unit": "kcal/mol", "length_unit": "Bohr"}
    dataset = data.load("extxyz", write(structures))
    graph, atoms = dataset.graphs[5], structures[5]
    ev, angstrom = 0.0433641039, 0.5291772106
    assert float(graph.y) == pytest.approx(-50 * ev, rel=1e-8)
    assert np.allclose(graph.pos, atoms.positions * angstrom, atol=1e-7)
    assert np.allclose(graph.forces, atoms.get_forces() * ev / angstrom, atol=1e-7)


def test_mixed_units(write):
    structures = labelled()
    for atoms in structures:
        atoms.info["forces_unit"] = "kcal/mol/Angstrom"
    message = refused(write(structures))
    assert "declares forces in kcal/mol/Angstrom, but no unit of energies" in message
    structures = labelled()
    structures[3].info["energy_unit"] = "Hartree"
    message = refused(write(structures))
    assert "structure 3 of" in message and "declares other units than the structures" in message


def test_further_files(write, caplog):
    train, test, ood = labelled(20, 1), labelled(7, 2), labelled(9, 3)
    files = write(train), write(test, "test.xyz"), write([*ood, *train[4:7]], "ood.xyz.gz")
    with caplog.at_level(logging.INFO):
        dataset = data.load("extxyz", files[0], test=files[1], ood=files[2])
    assert {k: len(v) for k, v in dataset.splits.items()} == dict(train=18, val=2, test=7, ood=9)
    assert "3 of 12 structures in ood.xyz.gz also are in own.xyz and left out" in caplog.text
    assert sorted(torch.cat(list(dataset.splits.values())).tolist()) == list(range(36))
    for split, expected in (("test", test), ("ood", ood)):
        for graph, atoms in zip(dataset.split(split), expected, strict=True):
            assert np.allclose(graph.forces, atoms.get_forces(), atol=1e-7)
    write(labelled(8, 4), "test.xyz")  # a new file, for which there is no cached one
    dataset = data.load("extxyz", files[0], test=files[1], ood=files[2])
    assert len(dataset.splits["test"]) == 8


def test_a_file_out_of_distribution_alone(write):
    dataset = data.load("extxyz", write(labelled(20)), ood=write(labelled(5, 1), "ood.xyz"))
    assert {k: len(v) for k, v in dataset.splits.items()} == dict(train=16, val=2, test=2, ood=5)


def test_further_files_that_cannot_be_used(write, tmp_path):
    path = write(labelled())
    with pytest.raises(DataError, match=r"there is no file .*none.xyz; check data\.ood"):
        data.load("extxyz", path, ood=tmp_path / "none.xyz")
    without = write(bare(3), "test.xyz")
    with pytest.raises(DataError, match=r"structure 0 of .*test.xyz has no number 'energy'"):
        data.load("extxyz", path, test=without)


@pytest.fixture
def lines(write) -> list[str]:
    return write(labelled(10), "good.xyz").read_text().splitlines()


def spoilt(tmp_path: Path, lines: list[str]) -> Path:
    (tmp_path / "own.xyz").write_text("".join(f"{line}\n" for line in lines))
    return tmp_path / "own.xyz"


def test_a_missing_atom_line(tmp_path, lines):
    message = refused(spoilt(tmp_path, lines[:10] + lines[11:]))
    assert message.startswith("structure 1 of") and "the 5 atom lines that it announces" in message


def test_an_atom_line_too_many(tmp_path, lines):
    message = refused(spoilt(tmp_path, [*lines[:10], lines[9], *lines[10:]]))
    assert message.startswith("structure 1 of") and "the 5 atom lines that it announces" in message


def test_a_missing_atom_line_in_a_gzipped_file(tmp_path, lines):
    path = tmp_path / "own.xyz.gz"
    path.write_bytes(gzip.compress("\n".join([*lines[:20], *lines[21:], ""]).encode()))
    assert refused(path).startswith(f"structure 3 of {path} (see line 24) does not have the 5")


def test_a_truncated_file(tmp_path, lines):
    message = refused(spoilt(tmp_path, lines[:-1]))
    assert message.startswith("structure 9 of") and "the 5 atom lines that it announces" in message


@pytest.mark.parametrize(("column", "shown"), [(1, "pos"), (5, "forces")])
def test_not_a_number(tmp_path, lines, column, shown):
    words = lines[7].split()
    words[column] = "nan"
    message = refused(spoilt(tmp_path, [*lines[:7], " ".join(words), *lines[8:]]))
    assert message.startswith(f"record 1 of own.xyz has a NaN or infinite value in its {shown}")


def test_an_energy_that_is_not_a_number(tmp_path, lines):
    text = [line.replace("energy=-10.0", "energy=nan") for line in lines]
    message = refused(spoilt(tmp_path, text))
    assert message.startswith("record 1 of own.xyz has a NaN or infinite value in its y")


def test_an_empty_file(tmp_path):
    assert refused(spoilt(tmp_path, [])).endswith("own.xyz is empty")
    (tmp_path / "own.xyz.gz").write_bytes(gzip.compress(b""))
    assert refused(tmp_path / "own.xyz.gz").endswith("own.xyz.gz is empty")


def test_an_atom_that_is_no_element(tmp_path, lines):
    message = refused(spoilt(tmp_path, [*lines[:7], f"X{lines[7][1:]}", *lines[8:]]))
    assert message == "record 1 of own.xyz has the atomic number 0; elements are 1 to 118"


@pytest.mark.parametrize("setting", ["test", "ood"])
def test_a_further_file_with_another_element(write, setting):
    path = write(labelled())
    further = labelled(4, seed=5)
    further[2].numbers[0] = 9
    other = write(further, "other.xyz")
    with pytest.raises(DataError, match=r"structure 2 of .*other.xyz has the element F, which no"):
        data.load("extxyz", path, **{setting: other})


def test_a_further_file_with_nothing_new(write):
    path = write(labelled())
    same = write(labelled(), "same.xyz")
    with pytest.raises(DataError, match=r"all structures of .*same.xyz also are in .*own.xyz"):
        data.load("extxyz", path, test=same)


def test_a_further_file_that_changes_is_read_again(write):
    path, test = write(labelled()), write(labelled(4, seed=5), "test.xyz")
    first = data.load("extxyz", path, test=test)
    write(labelled(4, seed=6), "test.xyz")
    again = data.load("extxyz", path, test=test)
    assert not torch.equal(first.graphs[12].pos, again.graphs[12].pos)


@pytest.mark.parametrize("spread", [0, 100])
def test_atoms_without_neighbours(write, dtype, spread):
    """One far from the others, or all: they have their own energy and feel no force."""
    made = labelled()
    for atoms in made:
        atoms.positions = atoms.positions * spread if spread else atoms.positions
        atoms.positions[0] += 500
    dataset = data.load("extxyz", write(made)).with_cutoff(4.0)
    batch = Batch.from_data_list(list(dataset.graphs))
    assert (batch.edge_index.shape[1] == 0) == bool(spread)
    torch.manual_seed(0)
    model = PropertyModel.build(dataset.elements, hidden=8, layers=2, options=EGNNOptions(cutoff=4))
    _, forces = energy_and_forces(model.to(dtype), batch)
    assert forces.isfinite().all()
    assert (forces[..., batch.ptr[:-1], :] == 0).all()


def test_too_few_structures(write):
    with pytest.raises(DataError, match=r"own.xyz holds 2 structures; at least 3 are needed"):
        data.load("extxyz", write(labelled(2)))


@pytest.mark.parametrize(("pack", "suffix"), [(gzip.compress, "gz"), (bz2.compress, "bz2")])
def test_a_truncated_archive(tmp_path, lines, pack, suffix):
    path = tmp_path / f"own.xyz.{suffix}"
    path.write_bytes(pack("\n".join(lines).encode())[:-9])
    assert refused(path).startswith(f"ASE cannot read {path}: ")
    path.write_bytes(b"plain")
    assert refused(path).startswith(f"ASE cannot read {path}: ")


@pytest.fixture(scope="session")
def bpa(tmp_path_factory) -> data.GraphDataset:
    """3BPA: trained on 300 K, tested at 300 K, mixed temperatures out of distribution."""
    names = ("train_300K", "test_300K", "train_mixedT")
    files = [local_data(f"molecules/3bpa/{name}.xyz.gz") for name in names]
    if None in files:
        pytest.skip(f"3BPA is not in {data_folder()}; EGNN_PRUNE_DATA says where it is")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EGNN_PRUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return data.load("extxyz", files[0], test=files[1], ood=files[2])


def test_3bpa_counts(bpa):
    assert {k: len(v) for k, v in bpa.splits.items()} == dict(train=450, val=50, test=1669, ood=469)
    assert len(bpa.graphs) == 500 + 1669 + 500
    assert bpa.elements == [1, 6, 7, 8]
    assert "pbc" not in bpa.graphs[0]  # some have a box of 50 Angstrom without boundaries


def test_3bpa_numbers(bpa):
    for split in ("train", "test", "ood"):
        energies = bpa.targets(split)
        assert (energies / 27 + 654.1).abs().max() < 0.2  # eV per atom
        forces = torch.stack([g.forces for g in bpa.split(split)])
        assert forces.shape[1:] == (27, 3)
        assert forces.mean(1).abs().max() < 1e-2  # nothing outside pulls at the molecule
    spread = [bpa.targets(split).std() for split in ("test", "ood")]
    assert spread[1] > 2 * spread[0]  # up to 1,200 K


def test_3bpa_has_no_structure_twice(bpa):
    seen = {s: {g.pos.numpy().tobytes() for g in bpa.split(s)} for s in bpa.splits}
    known = seen["train"] | seen["val"]
    assert not known & seen["test"] and not known & seen["ood"]
