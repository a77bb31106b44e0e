"""Files that cannot be used: one sentence that names the file and, where it is one, the record."""

from __future__ import annotations

import gzip
import pickle
import shutil

import ase
import ase.io
import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from egnn_prune import data
from egnn_prune.data.dataset import check_records
from egnn_prune.errors import DataError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EGNN_PRUNE_CACHE", str(tmp_path / "cache"))


def cached_files(folder) -> list:
    return [path for path in (folder / "cache").rglob("*") if path.is_file()]


#: What is wrong with files whose arrays are good, and kept: one target, or how they are used.
READABLE = ("value in its y", "in its val split", "has no target")


def refused(source: str, path, target: str | None = None) -> str:
    """The message of the DataError, after checking that it is one sentence naming the file."""
    with pytest.raises(DataError) as caught:
        data.load(source, path, target)
    message = str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in message
    assert path.stem in message
    if not any(words in message for words in READABLE):
        assert cached_files(path.parent) == []
    return message


def molecules() -> dict[str, np.ndarray]:
    return {
        "offset": np.arange(0, 41, 4),
        "z": np.ones(40, dtype=np.uint8),
        "pos": np.random.default_rng(0).normal(size=(40, 3)),
        "targets": np.random.default_rng(1).normal(size=(10, 2)),
        "target_names": np.array(["energy", "gap"]),
    }


@pytest.fixture
def written(tmp_path):
    """``written(key=array)``: a file with these arrays replaced (or left out, where None)."""

    def write(**changes: np.ndarray | None):
        content = {k: v for k, v in (molecules() | changes).items() if v is not None}
        np.savez_compressed(tmp_path / "own.npz", **content)
        return tmp_path / "own.npz"

    return write


def test_the_unchanged_file_loads(written):
    assert len(data.load("npz", written()).graphs) == 10


@pytest.mark.parametrize("key", molecules())
def test_missing_array(written, key):
    message = refused("npz", written(**{key: None}))
    assert f"lacks the array(s) {key}; it has " in message


@pytest.mark.parametrize("z", [0, -1, 119])
def test_an_atomic_number_that_there_is_not(written, z):
    elements = np.ones(40, dtype=np.int64)
    elements[[17, 30]] = z
    message = refused("npz", written(z=elements))
    assert message == f"record 4 of own.npz has the atomic number {z}; elements are 1 to 118"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("key", "shown", "row"), [("pos", "pos", 13), ("forces", "forces", 12), ("targets", "y", 3)]
)
def test_not_a_number(written, key, shown, row, bad):
    values = (molecules() | {"forces": np.zeros((40, 3))})[key]
    values[row, 0] = bad
    message = refused("npz", written(**{key: values}))
    assert f"record 3 of own.npz has a NaN or infinite value in its {shown}" in message


def test_a_column_with_gaps_spoils_no_other(written):
    values = molecules()["targets"]
    values[3, 0] = np.nan
    path = written(targets=values)
    assert "record 3 of own.npz" in refused("npz", path)
    assert len(data.load("npz", path, "gap").graphs) == 10


EV, KCAL = "eV", "kcal/mol"


@pytest.mark.parametrize(
    ("units", "complaint"),
    [
        ({"target_units": [EV, EV], "pos_unit": "Bohr"}, "forces in an unknown unit; add forces_u"),
        ({"target_units": [KCAL, EV]}, "energy is in kcal/mol, positions in Angstrom, and forces"),
        ({"forces_unit": "eV/Angstrom"}, "their energy has none; add target_units"),
        ({"target_units": ["furlong", EV]}, "unit of energy 'furlong' is not one of eV, meV"),
        ({"target_units": [EV, EV], "pos_unit": "inch"}, "unit of length 'inch' is not one of"),
        ({"target_units": [EV, EV], "forces_unit": "N"}, "own.npz: the unit of force 'N'"),
        ({"target_units": [EV, EV], "pos_unit": ["Bohr"]}, "pos_unit of own.npz must be one str"),
    ],
)
def test_units_that_do_not_fit_together(written, units, complaint):
    units = {key: np.array(value) for key, value in units.items()}
    with pytest.raises(DataError) as caught:
        data.load("npz", written(forces=np.zeros((40, 3)), **units))
    assert complaint in str(caught.value) and "own.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("offset", "complaint"),
    [
        (np.arange(0, 45, 4), "must run from 0 to its 40 atoms"),
        (np.arange(0, 37, 4), "must run from 0 to its 40 atoms"),
        (np.array([3, *range(4, 41, 4)]), "must run from 0 to its 40 atoms"),
        (np.array([0, 4, 4, *range(12, 41, 4)]), "leave no atoms to molecule 1"),
        (np.array([0, 8, 4, *range(12, 41, 4)], dtype=np.uint64), "leave no atoms to molecule 1"),
        (np.zeros(0, dtype=int), "must run from 0"),
        (np.array(4), "flat array of integers"),
        (np.arange(0, 41, 4.0), "flat array of integers"),
    ],
    ids=["long", "short", "late", "empty", "backwards", "none", "number", "floats"],
)
def test_wrong_offsets(written, offset, complaint):
    assert complaint in refused("npz", written(offset=offset))


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("z", np.array(["H"] * 40), "z of own.npz must be a flat array of integers"),
        ("pos", np.zeros(40), "pos of own.npz has shape (40,)"),
        ("pos", np.zeros((39, 3)), "pos of own.npz has shape (39, 3), not (40, 3)"),
        ("targets", np.zeros(10), "targets of own.npz has shape (10,), not (10, 2)"),
        ("targets", np.array([["a", "b"]] * 10), "targets of own.npz must hold numbers"),
        ("target_names", np.array("gap"), "target_names of own.npz must be a flat array of str"),
        ("target_units", np.array(["eV"]), "target_units of own.npz has shape (1,), not (2,)"),
        ("forces", np.zeros((30, 3)), "forces of own.npz has shape (30, 3), not (40, 3)"),
        ("split", np.zeros(5, int), "split of own.npz has shape (5,), not (10,)"),
        ("split", np.full(10, 7), "split of own.npz must hold 0 train, 1 val, 2 test or 3 ood"),
        ("split", np.zeros(10, int), "own has no graphs in its val split"),
    ],
)
def test_arrays_that_do_not_fit(written, key, value, complaint):
    assert complaint in refused("npz", written(**{key: value}))


def test_unknown_target_lists_the_known_ones(written):
    assert refused("npz", written(), "homo") == "own.npz has no target 'homo'; it has energy, gap"


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_truncated_npz(written, share):
    path = written()
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "is not a readable .npz" in refused("npz", path)


def test_flipped_bytes_never_get_past_as_another_error(written):
    path = written()
    content = path.read_bytes()
    outcomes = set()
    for position in range(0, len(content), 41):
        damaged = bytearray(content)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        shutil.rmtree(path.parent / "cache", ignore_errors=True)
        try:
            data.load("npz", path)
            outcomes.add("harmless")
        except DataError:
            outcomes.add("refused")
            assert cached_files(path.parent) == []
    assert "refused" in outcomes


def test_pickled_objects_are_not_unpickled(written):
    assert "without pickled objects" in refused("npz", written(z=np.array([None] * 40)))


@pytest.mark.parametrize("write", ["pickle", "npy"])
def test_other_file_under_the_name_of_an_npz(tmp_path, write):
    path = tmp_path / "own.npz"
    with path.open("wb") as handle:
        pickle.dump([1, 2], handle) if write == "pickle" else np.save(handle, np.zeros(3))
    assert "is not a readable .npz" in refused("npz", path)


@pytest.mark.parametrize("source", ["npz", "extxyz"])
def test_missing_file(tmp_path, source):
    assert "there is no file" in refused(source, tmp_path / "own.npz")


@pytest.fixture
def lines(tmp_path) -> list[str]:
    random = np.random.default_rng(0)
    frames = [ase.Atoms("CH4", positions=random.normal(size=(5, 3))) for _ in range(10)]
    for k, frame in enumerate(frames):
        frame.info["energy"] = float(k)
    ase.io.write(tmp_path / "good.xyz", frames, format="extxyz")
    return (tmp_path / "good.xyz").read_text().splitlines()


def xyz(folder, lines: list[str]):
    (folder / "own.xyz").write_text("".join(f"{line}\n" for line in lines))
    return folder / "own.xyz"


def test_the_unchanged_xyz_loads(tmp_path, lines):
    assert len(data.load("extxyz", xyz(tmp_path, lines)).graphs) == 10


def test_xyz_with_a_missing_atom_line(tmp_path, lines):
    message = refused("extxyz", xyz(tmp_path, lines[:10] + lines[11:]))
    assert message.startswith("structure 1 of") and message.endswith("it announces; repair it")


def test_truncated_xyz(tmp_path, lines):
    assert "structure 9 of" in refused("extxyz", xyz(tmp_path, lines[:-1]))


def test_xyz_with_a_word_for_a_number(tmp_path, lines):
    lines[16] = lines[16].replace(lines[16].split()[1], "x")
    assert "ASE cannot read structure 2" in refused("extxyz", xyz(tmp_path, lines))


def test_xyz_with_nan(tmp_path, lines):
    lines[16] = lines[16].replace(lines[16].split()[1], "nan")
    message = refused("extxyz", xyz(tmp_path, lines))
    assert "record 2 of own.xyz has a NaN or infinite value in its pos" in message


@pytest.mark.parametrize("value", ["abc", '"1 2 3"'])
def test_xyz_whose_target_is_no_number(tmp_path, lines, value):
    lines[8] = lines[8].replace("energy=1.0", f"energy={value}")
    assert "structure 1" in refused("extxyz", xyz(tmp_path, lines))


def test_xyz_without_the_target(tmp_path, lines):
    message = refused("extxyz", xyz(tmp_path, lines), "homo")
    assert message.endswith("has no number 'homo' (it has: energy)")


def test_empty_xyz(tmp_path):
    assert refused("extxyz", xyz(tmp_path, [])).endswith("own.xyz is empty")


@pytest.mark.parametrize(
    "content",
    [b"plain", gzip.compress(b"5\n" * 400, mtime=0)[:-9]],
    # Without names the bytes would be the tests' names, and two collectors might disagree on them.
    ids=["plain", "truncated"],
)
def test_damaged_gzip(tmp_path, content):
    (tmp_path / "own.xyz.gz").write_bytes(content)
    assert "ASE cannot read" in refused("extxyz", tmp_path / "own.xyz.gz")


def good() -> Data:
    return Data(z=torch.ones(3, dtype=torch.long), pos=torch.zeros(3, 3), y=torch.zeros(1))


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("pos", torch.zeros(0, 3), "record 1 of made needs positions"),
        ("pos", torch.zeros(9), "record 1 of made needs positions"),
        ("pos", None, "record 1 of made needs positions"),
        ("z", torch.ones(2, dtype=torch.long), "record 1 of made has 2 elements for 3 positions"),
        ("y", torch.tensor([torch.inf]), "record 1 of made has a NaN or infinite value in its y"),
        ("forces", torch.full((3, 3), torch.nan), "NaN or infinite value in its forces"),
    ],
)
def test_bad_records(key, value, complaint):
    wrong = good()
    setattr(wrong, key, value)
    check_records([good(), good()], "made")
    with pytest.raises(DataError, match=complaint):
        check_records([good(), wrong], "made")


def test_no_records():
    with pytest.raises(DataError, match="made holds no graphs"):
        check_records([], "made")
