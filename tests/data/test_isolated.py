"""Isolated atoms of a file: energies of reference, never data."""

from __future__ import annotations

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator

from egnn_prune import data
from egnn_prune.configs.settings import Settings
from egnn_prune.data.local import data_folder, local_data
from egnn_prune.errors import DataError
from egnn_prune.models import PropertyModel, TargetScale
from egnn_prune.pipeline.build import build_model, target_scale

REFERENCES = {1: -13.5, 8: -2041.0}


def atom(symbol: str, energy: float | None, mark: str | None = None, box: float = 0) -> ase.Atoms:
    made = ase.Atoms(symbol, cell=[box] * 3, pbc=bool(box))
    if mark:
        made.info["config_type"] = mark
    if energy is not None:
        made.info["REF_energy"] = energy
    return made


def waters(n: int = 20) -> list[ase.Atoms]:
    random = np.random.default_rng(0)
    water = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    made = []
    for _ in range(n):
        frame = ase.Atoms("OH2", positions=water + random.normal(scale=0.1, size=(3, 3)))
        frame.info |= {"REF_energy": -2080.0 + random.normal(), "gap": 1.0}
        frame.arrays["REF_forces"] = random.normal(size=(3, 3))
        made.append(frame)
    return made


@pytest.fixture
def load(tmp_path):
    """``load(structures, **settings)``: written to a file and loaded."""

    def load(structures: list[ase.Atoms], **settings: object) -> data.GraphDataset:
        ase.io.write(tmp_path / "own.xyz", structures, format="extxyz")
        return data.load("extxyz", tmp_path / "own.xyz", **settings)

    return load


MARKED = [atom("H", -13.5, "IsolatedAtom"), atom("O", -2041.0, "isolated_atom")]
BOXED = [atom("H", -13.5, "IsolatedAtom", 20.0), atom("O", -2041.0, "IsolatedAtom", 20.0)]
UNMARKED = [atom("H", -13.5), atom("O", -2041.0)]


@pytest.mark.parametrize("atoms", [MARKED, BOXED, UNMARKED], ids=["marked", "boxed", "unmarked"])
@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_they_are_references_and_in_no_split(load, atoms, last):
    for seed in range(3):
        dataset = load([*waters(), *atoms] if last else [*atoms, *waters()], seed=seed)
        assert dataset.references == REFERENCES
        assert {k: len(v) for k, v in dataset.splits.items()} == dict(
            train=16, val=2, test=2, ood=0
        )
        assert all(
            len(dataset.graphs[r].z) == 3 for v in dataset.splits.values() for r in v.tolist()
        )
        assert "cell" not in dataset.graphs[2]  # a box around an atom makes no molecule periodic
    assert dataset.notes[-1].startswith("2 structures are isolated atoms and in no split; ener")


def test_the_rest_is_split_as_without_them(load):
    alone = load(waters(), seed=4)
    together = load([*UNMARKED, *waters()], seed=4)
    for split in ("train", "val", "test"):
        assert (together.splits[split] - 2).tolist() == alone.splits[split].tolist()


def test_in_further_files(tmp_path, load):
    ase.io.write(tmp_path / "test.xyz", [atom("F", -2700.0), *waters(5)[3:]], format="extxyz")
    structures = waters()
    for frame in structures:
        frame.rattle(0.1)
    dataset = load([*UNMARKED, *structures], test=tmp_path / "test.xyz")
    assert dataset.splits["test"].tolist() == [23, 24]
    assert dataset.references == REFERENCES  # fluorine is another file's
    ase.io.write(tmp_path / "test.xyz", UNMARKED, format="extxyz")
    with pytest.raises(DataError, match=r"test.xyz holds isolated atoms only; give others with"):
        load(structures, test=tmp_path / "test.xyz")


def test_one_that_has_not_the_number(load):
    dataset = load([*MARKED, *waters()], target="gap")
    assert dataset.references == {}
    assert sorted(torch.cat(list(dataset.splits.values())).tolist()) == list(range(2, 22))


def test_an_orbital_energy_of_an_atom_is_data(load):
    atoms = [atom("H", None), atom("O", None)]
    for frame in atoms:
        frame.info["gap"] = 3.0
    assert load([*atoms, *waters()], target="gap").splits["train"].max() < 22
    assert sum(map(len, load([*atoms, *waters()], target="gap").splits.values())) == 22


def test_a_crystal_of_one_atom_is_data(load):
    crystals = [ase.Atoms("Ne", cell=[3 + k / 10] * 3, pbc=True) for k in range(10)]
    for k, frame in enumerate(crystals):
        frame.calc = SinglePointCalculator(frame, energy=float(k), forces=np.zeros((1, 3)))
    assert sum(map(len, load(crystals).splits.values())) == 10


def test_two_energies_of_one_element_are_refused(load):
    with pytest.raises(DataError, match=r"structures 1 and 2 of own.xyz are isolated atoms of O w"):
        load([*UNMARKED, atom("O", -2040.0), *waters()])
    assert load([*UNMARKED, UNMARKED[1], *waters()]).references == REFERENCES


def test_nothing_but_isolated_atoms(load):
    with pytest.raises(DataError, match=r"own.xyz holds 0 structures; at least 3 are needed"):
        load([*UNMARKED, *MARKED])


def scale_of(dataset: data.GraphDataset) -> TargetScale:
    return target_scale(PropertyModel.build(dataset.elements, hidden=4, layers=1), dataset, False)


def test_elements_have_the_energies_of_their_atoms_where_the_formula_leaves_them_open(load):
    y = torch.tensor([f.info["REF_energy"] for f in waters()], dtype=torch.float64)
    with_atoms, without = scale_of(load([*UNMARKED, *waters()])), scale_of(load(waters()))
    counts = torch.tensor([[2.0, 1.0]])
    for scale in (with_atoms, without):  # of the molecule both say the same
        assert float(scale.reference(counts)) == pytest.approx(float(y.mean()), abs=1)
    assert with_atoms.per_element == pytest.approx([-13.5, -2041.0], abs=10)
    assert abs(without.per_element[0] + 13.5) > 500


def test_one_lacks_its_atom(load):
    dataset = load([UNMARKED[0], *waters()])
    assert dataset.references == {1: -13.5}
    assert "not used as energies of reference, as there is none for O" in dataset.notes[-1]
    assert scale_of(dataset) == scale_of(load(waters()))


def test_a_fit_that_the_data_decide_does_not_change():
    counts = torch.tensor([[2.0, 1], [0, 2], [2, 0], [2, 2]], dtype=torch.float64)
    y = counts @ torch.tensor([-15.0, -2040.0], dtype=torch.float64)
    for references in (None, torch.tensor([-13.5, -2041.0], dtype=torch.float64)):
        scale = TargetScale.fit(counts, y, references)
        assert scale.per_element == pytest.approx([-15, -2040], rel=1e-10)


@pytest.mark.parametrize("method", ["mean_variance", "deep"])
def test_the_model_has_them(load, method):
    settings = Settings()
    settings.model.hidden, settings.model.layers = 4, 1
    settings.uncertainty.method, settings.uncertainty.members = method, 2
    built = build_model(settings, load([*UNMARKED, *waters()]))
    for model in getattr(built, "members", [built]):
        assert model.scale.per_element == pytest.approx([-13.5, -2041.0], abs=10)


def test_3bpa_with_its_isolated_atoms_in_front(tmp_path, monkeypatch):
    """Carbon, alone, once was tested on."""
    files = [local_data(f"molecules/3bpa/{n}") for n in ("iso_atoms.xyz", "train_300K.xyz.gz")]
    if None in files:
        pytest.skip(f"3BPA is not in {data_folder()}; EGNN_PRUNE_DATA says where it is")
    frames = [frame for file in files for frame in ase.io.read(file, ":")]
    ase.io.write(tmp_path / "own.xyz", frames, format="extxyz")
    dataset = data.load("extxyz", tmp_path / "own.xyz")
    assert {k: len(v) for k, v in dataset.splits.items()} == dict(train=400, val=50, test=50, ood=0)
    assert all(len(g.z) == 27 for split in dataset.splits for g in dataset.split(split))
    assert dataset.references == pytest.approx(
        {1: -13.58722, 6: -1029.489, 7: -1484.98146, 8: -2041.9816}, abs=1e-4
    )
    scale = scale_of(dataset)
    binding = np.subtract(scale.per_element, list(dataset.references.values()))
    assert (binding < 0).all() and (binding > -15).all()
