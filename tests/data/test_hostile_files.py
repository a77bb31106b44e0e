"""Damaged and odd files: read right, or refused in one sentence and at once; by both ways in."""

from __future__ import annotations

import bz2
import gzip
import io
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units

from egnn_prune import data
from egnn_prune.ase.structures import graph_of, problem, read_structures
from egnn_prune.data import array_files, ase_files
from egnn_prune.errors import DataError

HARTREE_PER_BOHR = units.Hartree / units.Bohr

# How a line is spelt does not depend on how many different structures a file has.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*different one:egnn_prune.errors.SuspiciousDataWarning"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EGNN_PRUNE_CACHE", str(tmp_path / "cache"))


def frame(k: int, comment: str = "", columns: str = ":forces:R:3") -> list[str]:
    force = f" 0 0 {k / 10}" if columns else ""
    return [
        "2",
        f"Properties=species:S:1:pos:R:3{columns} energy={-1 - k} {comment}".strip(),
        f"O 0 0 0{force}",
        f"H 0 0 {0.9 + k / 1000}{force.replace('0 0 ', '0 0 -')}",
    ]


@pytest.fixture
def put(tmp_path) -> Callable[..., Path]:
    """``put(lines, name="own.xyz")``: a file with these lines."""

    def put(lines: list[str], name: str = "own.xyz", encoding: str = "utf-8") -> Path:
        content = "".join(f"{line}\n" for line in lines).encode(encoding)
        pack = {".gz": gzip.compress, ".bz2": bz2.compress}.get(Path(name).suffix, bytes)
        (tmp_path / name).write_bytes(pack(content))
        return tmp_path / name

    return put


def refused(path: Path, source: str = "extxyz") -> str:
    """The sentence with which both ways in refuse a file, after less than 2 s of computing."""
    start = time.process_time()
    with pytest.raises(DataError) as caught:
        data.load(source, path)
    if source == "extxyz":
        with pytest.raises(DataError) as again:
            for k, atoms in enumerate(read_structures(path)):
                if reason := problem(atoms, [1, 8]):
                    raise DataError(f"structure {k} of {path} {reason}")
        assert str(again.value) == str(caught.value)
    assert time.process_time() - start < 2
    message = str(caught.value)
    assert "\n" not in message and path.name in message and "Error" not in message
    return message


# --------------------------------------------------------------- every line of an XYZ file


@pytest.mark.parametrize("name", ["own.xyz", "own.extxyz", "own.xyz.gz", "own.xyz.bz2"])
@pytest.mark.parametrize("blank", [[""], ["   "], ["", "\t", ""]])
def test_blank_lines_between_structures(put, name, blank):
    lines = [line for k in range(8) for line in (frame(k) + blank * (k in (2, 7)))]
    path = put(blank + lines, name)
    assert [float(g.y) for g in data.load("extxyz", path).graphs] == [-1.0 - k for k in range(8)]
    assert len(read_structures(path)) == 8


GOOD = [line for k in range(4) for line in frame(k)]  # structure 2 has the lines 9 to 12


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({1: "999999999"}, "structure 0 of {} (see line 1) does not have the 999999999 atom lines"),
        ({9: "1" + "0" * 22}, "structure 2 of {} (see line 9) does not have the 1000000000"),
        ({9: "1"}, "structure 2 of {} (see line 12) does not have the 1 atom lines"),
        ({9: "3"}, "structure 2 of {} (see line 13) does not have the 3 atom lines"),
        ({9: "-2"}, "structure 1 of {} (see line 9) does not have the 2 atom lines"),
        ({9: ""}, "structure 1 of {} (see line 10) does not have the 2 atom lines"),
        ({1: "two"}, "line 1 of {} must be the number of atoms of structure 0, not 'two'"),
        ({11: ""}, "structure 2 of {} (see line 11) does not have the 2 atom lines"),
        ({11: "O 0 0 0 0 0"}, "line 11 of {} (structure 2) has 6 columns, not 7 as Properties"),
        ({11: "O 0 0 0 0 0 0 '"}, "line 11 of {} (structure 2) has 8 columns, not 7 as Prop"),
        ({10: "energy=1"}, "structure 2 of {}"),  # nothing says that its columns are forces
        ({10: "Properties=species:S:1:pos:R:3:R:2"}, "line 10 of {} declares Properties="),
        ({10: "Properties=species:S:1::-1"}, "line 10 of {} declares Properties=species:S:1::-1"),
        ({10: "Properties=species:S:1:forces:R:6"}, "line 10 of {} declares Properties="),
        ({10: "Properties=pos:R:3:forces:R:4"}, "line 10 of {} declares Properties="),
        ({11: "O 0 0 1e5 0 0 0"}, "structure 2 of {} has an atom at 1e+05 Angstrom"),
        ({11: "O 0 0 1e308 0 0 0"}, "structure 2 of {} has an atom at 1e+308 Angstrom"),
        ({11: "O5' 0 0 0 0 0 0"}, 'line 11 of {} has the atom label "O5\'", which is no element'),
        ({11: "CA1 0 0 0 0 0 0"}, "line 11 of {} has the atom label 'CA1', which is no element"),
        ({11: "119 0 0 0 0 0 0"}, "line 11 of {} has the atom label '119', which is no element"),
    ],
)
def test_damaged_lines(put, change, complaint):
    path = put([change.get(number, line) for number, line in enumerate(GOOD, 1)])
    if "energy=1" in change.values():  # of no matter to predictions
        with pytest.raises(DataError) as caught:
            data.load("extxyz", path)
        assert "structure 2 of" in str(caught.value) and "forces" in str(caught.value)
        return
    assert refused(path).startswith(complaint.format(path))


@pytest.mark.parametrize(
    ("lattice", "complaint"),
    [
        ("0.001 0 0 0 5 0 0 0 5", "has a cell that is 0.001 Angstrom high"),
        ("5 0 0 5 0.01 0 0 0 5", "has a cell that is 0.01 Angstrom high"),
        ("5 0 0 0 5 0 0 0 1e6", "has a cell vector of 1e+06 Angstrom"),
    ],
)
def test_cells_that_cannot_be(put, lattice, complaint):
    cells = [f'lattice="{lattice if k == 2 else "5 0 0 0 5 0 0 0 5"}"' for k in range(4)]
    path = put([line for k in range(4) for line in frame(k, cells[k])])
    assert refused(path).startswith(f"structure 2 of {path} {complaint}")


def test_bounds_are_in_angstrom(put):
    """A cell of 0.05 nm is one of 0.5 Angstrom; atoms at 5,000 nm are too far away."""
    cell = 'length_unit=nm energy_unit=eV Lattice="0.05 0 0 0 5 0 0 0 5"'
    lines = [line for k in range(4) for line in frame(k, cell)]
    assert float(data.load("extxyz", put(lines)).graphs[0].cell[0, 0, 0]) == pytest.approx(0.5)
    lines[2] = "O 0 0 5000 0 0 0"
    assert "has an atom at 5e+04 Angstrom" in refused(put(lines))


# ------------------------------------------------------------------------- odd spellings


def test_vectors_in_the_manner_of_adf(put):
    lines = ["1", "a comment", "Cu 0 0 0", "VEC1 4 0 0", "VEC2 0 4 0", "", *frame(1)]
    first, second = read_structures(put(lines))
    assert first.pbc.tolist() == [True, True, False] and first.cell[1, 1] == 4
    assert len(second) == 2


@pytest.mark.parametrize("spelling", ["lattice", "LATTICE", "Lattice"])
def test_the_cell_in_any_case(put, spelling):
    lines = [line for k in range(4) for line in frame(k, f'{spelling}="5 0 0 0 6 0 0 0 7"')]
    graph = data.load("extxyz", put(lines)).graphs[2]
    assert graph.cell[0].diag().tolist() == [5, 6, 7] and graph.pbc.all()


def odd(first: str, *, energy: str = "-10", species: str = "species:S:1", extra: str = "") -> list:
    comment = f"Properties={species}:pos:R:3:forces:R:3 energy={energy} {extra}"
    return ["2", comment, f"{first} 0 0 0 0 0 0.1", "H 0 0 0.9 0 0 -0.1"] * 4


@pytest.mark.parametrize(
    ("lines", "z"),
    [
        (odd("D"), 1),
        (odd("T"), 1),
        (odd("O1"), 8),
        (odd("Fe12"), 26),
        (odd("8"), 8),
        (odd("o"), 8),
        (odd("8", species="Z:I:1")[:2] + ["8 0 0 0 0 0 0.1", "1 0 0 0.9 0 0 -0.1"], 8),
        (odd("O", energy="-1.0D+01"), 8),
        (odd("O", energy="-1d1"), None),
        (odd("O", energy='"-10.0 eV"'), 8),
        (odd("O", extra='virial="0.0D+00 0 0 0 0 0 0 0 0"'), 8),
        (["﻿2", *odd("O")[1:]], 8),
        ([line.replace("0.1", "1.0D-1") for line in odd("O")], 8),
        ([line.replace("0.1", "1.0d-01") for line in odd("O1")], 8),
        ([line.replace("forces:", "frc:") for line in odd("O")], 8),
        (["2", "-10 is in the comment", *odd("O")[2:4]], 8),
    ],
)
def test_odd_spellings(put, lines, z):
    path = put([*lines, *odd("H")])
    if z is None:  # a name, to all that we know
        assert "has energy='-1d1', which is not one number" in message_of(path)
        return
    graph = graph_of(read_structures(path)[0])
    assert graph.z.tolist() == [z, 1] and float(graph.pos[1, 2]) == 0.9
    if "comment" in lines[1]:
        return
    loaded = data.load("extxyz", path).graphs[0]
    assert loaded.z.tolist() == [z, 1] and float(loaded.y) == -10
    assert loaded.forces[:, 2].tolist() == [0.1, -0.1]


def message_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        data.load("extxyz", path)
    return str(caught.value)


def test_isotopes_keep_their_masses(put):
    masses = read_structures(put([*odd("D"), *odd("H")]))[0].get_masses()
    assert masses == pytest.approx([2.0141, 1.008], abs=1e-3)


@pytest.mark.parametrize(
    ("energy", "complaint"),
    [
        ("None", "has energy='None', which is not one number; write the number alone"),
        ('"-10.0 furlong"', "has energy='-10.0 furlong', which is not one number"),
        ('"-10.0 eV" REF_energy="-1 kcal/mol"', "has energy='-10.0 eV', which is not one"),
        ('"1 2"', "has energy='[1 2]', which is not one number"),
    ],
)
def test_energies_that_are_no_number(put, energy, complaint):
    path = put([*odd("O"), *odd("O", energy=energy)])
    assert f"structure 4 of {path} {complaint}" in message_of(path)


def test_an_energy_in_its_own_unit(put):
    first = data.load("extxyz", put(odd("O", energy='"-10.0 kcal/mol"'))).graphs[0]
    assert float(first.y) == pytest.approx(-0.433641, rel=1e-5)


@pytest.mark.parametrize("name", ["gradient", "grad", "F", "dft_gradients"])
def test_gradients_are_not_passed_over(put, name):
    path = put([line.replace("forces:", f"{name}:") for line in odd("O")])
    assert f"structure 0 of {path} has no forces, but an array {name!r}; if" in message_of(path)
    assert len(read_structures(path)) == 4  # which needs neither


# --------------------------------------------------- other formats that ASE reads in part


def trajectory() -> list[Atoms]:
    return [
        Atoms("OH", [(0, 0, 0), (0, 0, 0.9 + k / 100)], cell=[5, 5, 5], pbc=True) for k in range(6)
    ]


LAMMPS = """ITEM: TIMESTEP
{k}
ITEM: NUMBER OF ATOMS
1
ITEM: BOX BOUNDS pp pp pp
0 5
0 5
0 5
ITEM: ATOMS id type element x y z
1 1 O 0 0 {k}
"""
SDF = """made

 comment
  1  0  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 O   0  0  0  0  0  0  0  0  0  0  0  0
M  END
$$$$
"""


def test_vasp_trajectories_that_break_off(tmp_path):
    path = tmp_path / "XDATCAR"
    ase.io.write(path, trajectory(), format="vasp-xdatcar")
    assert len(read_structures(path)) == 6
    lines = path.read_text().splitlines()
    fourth = [k for k, line in enumerate(lines) if "Direct" in line][3]
    path.write_text("\n".join([*lines[: fourth - 7], "", *lines[fourth - 7 :], ""]))
    with pytest.raises(DataError, match=r"XDATCAR holds 6 structures, but ASE reads 3 of them"):
        read_structures(path)


def test_structures_of_which_ase_reads_one(tmp_path):
    path = tmp_path / "own.sdf"
    path.write_text(SDF)
    assert len(read_structures(path)) == 1
    path.write_text(SDF * 3)
    with pytest.raises(DataError, match=r"own\.sdf holds 3 structures, but ASE reads 1 of them"):
        read_structures(path)
    path = tmp_path / "own.mol"  # which needs no dollars
    path.write_text(SDF.replace("$$$$\n", ""))
    assert len(read_structures(path)) == 1
    path.write_text(SDF.replace("$$$$\n", "") * 3)
    with pytest.raises(DataError, match=r"own\.mol holds 3 structures, but ASE reads 1 of them"):
        read_structures(path)


def test_lammps_and_protein_files(tmp_path):
    path = tmp_path / "own.lammpstrj"
    path.write_text("".join(LAMMPS.format(k=k) for k in range(4)))
    assert len(read_structures(path)) == 4
    path = tmp_path / "own.pdb"
    ase.io.write(path, trajectory())
    assert len(read_structures(path)) == 6


def test_an_archive_that_grows_without_end(put, monkeypatch):
    monkeypatch.setattr(ase_files, "BOMB_BYTES", 1 << 20)
    path = put([*frame(0), *[" " * 1000] * 4000], "own.xyz.gz")
    assert "own.xyz.gz grows to more than" in refused(path)


# ------------------------------------------------------------------------------- arrays

ARRAYS = {
    "offset": np.arange(0, 13, 2),
    "z": np.ones(12, dtype=np.int64),
    "pos": np.random.default_rng(0).normal(size=(12, 3)),
    "targets": np.arange(6.0)[:, None],
    "target_names": np.array(["energy"]),
}


@pytest.fixture
def pack(tmp_path) -> Callable[..., Path]:
    """``pack(key=array or bytes)``: an ``.npz`` with these members replaced."""

    def pack(path: str = "own.npz", **changes: np.ndarray | bytes) -> Path:
        with zipfile.ZipFile(tmp_path / path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, values in {**ARRAYS, **changes}.items():
                content = values
                if isinstance(values, np.ndarray):
                    buffer = io.BytesIO()
                    np.save(buffer, values)
                    content = buffer.getvalue()
                archive.writestr(f"{name}.npy", content)
        return tmp_path / path

    return pack


def claims(shape: object, dtype: str = "'<f8'") -> bytes:
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


@pytest.mark.parametrize(
    ("pos", "complaint"),
    [
        (claims((10**18, 3)), "pos: its shape (1000000000000000000, 3) needs"),
        (claims((10**11,)), "pos: its shape (100000000000,) needs 800,000,000,000 bytes"),
        (claims((10**15, 0)), "pos: its shape (1000000000000000, 0) has rows with nothing"),
        (claims((-3, 3)), "pos: it says that its shape is (-3, 3)"),
        (claims("(True, 3)"), "pos: it says that its shape is (True, 3)"),
        (claims((1,) * 64), "pos: "),
        (
            claims((3,), "[('x', '<f8'), ('y', '<f8')]"),
            "pos: its shape (3,) needs 48 bytes, but it has 0",
        ),
        (np.zeros(12, dtype=[("x", "f8"), ("y", "f8")]), "pos of own.npz must hold numbers, not"),
        (np.zeros((12, 3), dtype="M8[D]"), "pos of own.npz must hold numbers, not datetime64"),
        (np.array(3, dtype="m8[s]"), "pos of own.npz must hold numbers, not timedelta64"),
    ],
)
def test_arrays_that_cannot_be(pack, pos, complaint):
    assert complaint in refused(pack(pos=pos), "npz")


def test_claims_in_trajectories(pack):
    configurations = {"nuclear_charges": np.array([8, 1]), "coords": claims((10**11, 2, 3))}
    path = pack("rmd17_own.npz", energies=np.zeros(9), forces=np.zeros((9, 2, 3)), **configurations)
    assert "coords: its shape (100000000000, 2, 3) needs" in refused(path, "rmd17")


def test_arrays_that_nobody_asked_for(pack):
    odd = {"when": np.array(["2020-01-01"], dtype="M8[D]"), "../../../tmp/x": np.zeros(3)}
    odd["pickled"] = np.array([{}], dtype=object)  # stays as it is
    assert len(data.load("npz", pack(**odd)).graphs) == 6


def test_an_array_that_grows_without_end(pack, monkeypatch):
    monkeypatch.setattr(array_files, "BOMB_BYTES", 1 << 20)
    path = pack(pos=np.zeros((10**6, 3)))
    assert "pos would grow from" in refused(path, "npz")


def test_an_array_that_is_there_twice(pack):
    path = pack()
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("z.npy", archive.read("z.npy"))
    assert "it has two arrays called z" in refused(path, "npz")


# --------------------------------------------------------------------- units that are declared


@pytest.mark.parametrize(
    ("key", "factor"),
    [
        ("Energy_Unit", units.kcal / units.mol),
        ("energy_units", units.kcal / units.mol),
        ("ENERGY_UNIT", units.kcal / units.mol),
        ("energyUnit", units.kcal / units.mol),
        ("energy-unit", units.kcal / units.mol),
    ],
)
def test_keys_of_units_in_any_case(put, key, factor):
    path = put(odd("O", extra=f'{key}="KCAL/mol" Pos_Unit=angstrom'))
    graph = data.load("extxyz", path).graphs[0]
    assert float(graph.y) == pytest.approx(-10 * factor, rel=1e-12)
    assert float(graph.forces[0, 2]) == pytest.approx(0.1 * factor, rel=1e-12)


@pytest.mark.parametrize("key", ["REF_energy_unit", "units", "energy_unit_name", "unit_style"])
def test_units_under_keys_that_nobody_knows(put, key):
    path = put(odd("O", extra=f"{key}=kcal/mol"))
    said = rf"structure 0 of .* may declare a unit by '{key}', which is not one of energy_unit, "
    with pytest.raises(DataError, match=said):
        data.load("extxyz", path)
    with pytest.raises(DataError, match=said):  # as for predictions
        read_structures(path)


@pytest.mark.parametrize(
    "extra",
    ["unit=kcal/mol", "stress_unit=GPa", "dipole_units=Debye", "unit_cell=fcc", "formula_units=4"],
)
def test_words_about_other_units(put, extra):
    path = put(odd("O", extra=extra))
    assert float(data.load("extxyz", path).graphs[0].y) == -10
    assert len(read_structures(path))


def test_the_unit_before_what_it_is_of(put):
    path = put(odd("O", extra="unit_energy=Hartree unit_length=Bohr unit_forces=eV/Angstrom"))
    graph = data.load("extxyz", path).graphs[0]
    assert float(graph.y) == pytest.approx(-10 * units.Hartree, rel=1e-12)
    assert float(graph.pos[1, 2]) == pytest.approx(0.9 * units.Bohr, rel=1e-12)
    assert float(graph.forces[0, 2]) == pytest.approx(0.1, rel=1e-12)


def test_length_units_in_any_case(put):
    path = put(odd("O", extra="Length_Unit=BOHR"))
    for graph in (data.load("extxyz", path).graphs[0], graph_of(read_structures(path)[0])):
        assert float(graph.pos[1, 2]) == pytest.approx(0.9 * units.Bohr, rel=1e-12)


@pytest.mark.parametrize(
    ("energy", "length", "forces", "ev"),
    [
        ("Hartree", "Angstrom", "Hartree/Bohr", HARTREE_PER_BOHR),
        ("kcal/mol", "Angstrom", "kcal/mol/A", units.kcal / units.mol),
        ("kJ/mol", "Angstrom", "kJ/mol/nm", units.kJ / units.mol / 10),
        ("Rydberg", "Angstrom", "Ry/Bohr", units.Rydberg / units.Bohr),
        ("eV", "Angstrom", "eV/Bohr", 1 / units.Bohr),
        ("Ha", "bohr", "eV/A", 1.0),
        ("kcal/mol", "Angstrom", "Hartree/Bohr", HARTREE_PER_BOHR),
    ],
)
def test_forces_in_a_unit_of_their_own(put, pack, energy, length, forces, ev):
    declared = f'energy_unit="{energy}" length_unit={length} Forces_Unit="{forces}"'
    path = put(odd("O", extra=declared))
    assert float(data.load("extxyz", path).graphs[0].forces[0, 2]) == pytest.approx(0.1 * ev)
    strings = {"Pos_Unit": np.array(length), "FORCES_UNIT": np.array(forces)}
    strings["target_units"] = np.array([energy])
    path = pack(forces=np.full((12, 3), 0.1), **strings)
    assert float(data.load("npz", path).graphs[0].forces[0, 2]) == pytest.approx(0.1 * ev)
    names = {"nuclear_charges": np.array([8, 1]), "coords": np.ones((9, 2, 3))}
    names |= {"energies": np.ones(9), "forces": np.full((9, 2, 3), 0.1)}
    strings = {"E_unit": np.array(energy), "r_unit": np.array(length), "F_unit": np.array(forces)}
    graph = data.load("rmd17", pack("rmd17_own.npz", **names, **strings)).graphs[0]
    assert float(graph.forces[0, 2]) == pytest.approx(0.1 * ev)


def test_units_that_contradict_each_other(put):
    path = put(odd("O", extra='energy_unit=eV Energy_Units="kcal/mol"'))
    assert "declares the unit of energy twice, as eV and as kcal/mol" in refused(path)


def test_forces_whose_unit_tells_another_energy(put):
    """Energies are not taken for eV where forces are in Hartree/Bohr."""
    path = put(odd("O", extra='forces_unit="Hartree/Bohr"'))
    assert "declares forces in Hartree/Bohr, but no unit of energies; add energy_" in refused(path)
    assert len(data.load("extxyz", put(odd("O", extra="forces_unit=eV/Bohr"))).graphs) == 4


def test_units_that_an_array_file_has_no_use_for(pack):
    message = refused(pack(length_unit=np.array("Bohr")), "npz")
    assert message.startswith("own.npz has the array(s) length_unit, but units are declared by")
