"""Which energies are a whole structure's, and which forces are theirs: by their names."""

from __future__ import annotations

import ase
import ase.io
import numpy as np
import pytest

from egnn_prune import data
from egnn_prune.data.quantities import is_extensive, is_total_energy, matching_forces
from egnn_prune.errors import DataError

WHOLE = """
energy REF_energy dft_energy energy_dft TotEnergy total_energy free_energy potential_energy
dispersion_energy formation_energy atomization_energy atomisation_energy zero_point_energy
own_energy pbe_d3_energy binding_energy delta_energy energy_difference kin_energy triplet_energy
singlet_energy
""".split()
NOT_WHOLE = """
fermi_energy EFermiEnergy homo_energy HOMO_energy lumo_energy energy_gap band_gap_energy
energy_above_hull hull_energy energy_per_atom formation_energy_per_atom energyPerAtom
energy_peratom energy/atom energy_per_formula_unit ionization_energy adsorption_energy
excitation_energy chemical_potential_energy surface_energy activation_energy energy_std
energy_uncertainty energy_weight HOMOenergy LUMOenergy HomoEnergy bandgap_energy BandgapEnergy
ehull_energy EFERMIenergy reaction_energy transition_energy vertical_energy redox_energy
normalized_energy normalised_energy energy_norm energy_pa energy_var energyErr
energy_cutoff homo gap band_gap chemical_potential
""".split()


@pytest.mark.parametrize("name", WHOLE)
def test_energies_of_a_whole_structure(name):
    assert is_total_energy(name) and is_extensive(name)


@pytest.mark.parametrize("name", NOT_WHOLE)
def test_energies_of_something_else(name):
    assert not is_total_energy(name) and not is_extensive(name)


@pytest.mark.parametrize("name", ["zpve", "u0", "G298", "u0_atom", "cv", "alpha"])
def test_other_quantities_that_grow(name):
    assert is_extensive(name) and not is_total_energy(name)


@pytest.mark.parametrize(
    ("target", "forces", "energies", "found"),
    [
        ("energy", ["forces"], ["energy", "fermi_energy"], "forces"),
        ("REF_energy", ["forces", "ref_forces"], ["energy", "REF_energy"], "ref_forces"),
        ("dft_energy", ["dft_force"], ["dft_energy"], "dft_force"),
        ("free_energy", ["forces"], ["energy", "free_energy"], "forces"),
        ("REF_free_energy", ["REF_forces", "forces"], ["REF_free_energy"], "REF_forces"),
        ("formation_energy", ["formation_energy_forces"], ["formation_energy"], "form..."),
        ("dispersion_energy", ["dispersion_forces", "forces"], ["energy"], "dispersion_forces"),
        ("total_energy", ["forces"], ["total_energy"], "forces"),
        ("pbe_energy", ["forces"], ["pbe_energy", "homo_energy"], "forces"),
        # those of another energy, or of nobody known
        ("pbe_energy", ["forces"], ["energy", "pbe_energy"], None),
        ("total_energy", ["forces"], ["energy", "total_energy"], None),
        ("energy", ["dft_forces"], ["energy", "dft_energy"], None),
        ("energy", ["MACE_forces"], ["energy"], None),
        ("dispersion_energy", ["forces"], ["dispersion_energy"], None),
        ("formation_energy", ["forces"], ["formation_energy"], None),
        ("gibbs_free_energy", ["forces"], ["gibbs_free_energy"], None),
        ("delta_energy", ["forces"], ["delta_energy"], None),
        ("delta_energy", ["delta_forces", "forces"], ["delta_energy"], "delta_forces"),
        ("fermi_energy", ["forces"], ["fermi_energy"], None),
        ("HOMOenergy", ["forces"], ["HOMOenergy"], None),
        ("bandgap_energy", ["forces"], ["bandgap_energy"], None),
        ("fermi_energy", ["fermi_forces"], ["fermi_energy"], None),
        ("energy_per_atom", ["forces"], ["energy_per_atom"], None),
    ],
)
def test_forces_belong_to_an_energy_by_its_name(target, forces, energies, found):
    if found == "form...":
        found = forces[0]
    assert matching_forces(target, forces, energies) == found
    assert matching_forces(target, forces[::-1], energies[::-1]) == found


ENERGIES = ("energy", "dispersion_energy", "fermi_energy", "homo_energy", "energy_above_hull")


@pytest.fixture
def file(tmp_path):
    """Ten structures with five energies and the forces of the first."""
    random = np.random.default_rng(0)
    frames = []
    for _ in range(10):
        frame = ase.Atoms("OH", positions=random.normal(size=(2, 3)))
        frame.arrays["forces"] = random.normal(size=(2, 3))
        frame.info |= {name: float(random.normal()) for name in (*ENERGIES, "energy_per_atom")}
        frames.append(frame)
    ase.io.write(tmp_path / "own.xyz", frames)
    return tmp_path / "own.xyz"


@pytest.mark.parametrize(
    ("target", "forces", "extensive"),
    [
        ("energy", True, True),
        ("dispersion_energy", False, True),
        ("fermi_energy", False, False),
        ("homo_energy", False, False),
        ("energy_above_hull", False, False),
        ("energy_per_atom", False, False),
    ],
)
def test_a_file_with_other_energies(file, target, forces, extensive):
    dataset = data.load("extxyz", file, target)
    assert ("forces" in dataset.graphs[0]) == ("forces" in dataset.units) == forces
    assert dataset.extensive == extensive and dataset.unit == "eV"
    unused = [note for note in dataset.notes if note.startswith("not used: forces")]
    assert len(unused) == (not forces)


def test_forces_with_other_names_are_said_to_be_unused(tmp_path):
    frames = [ase.Atoms("OH", positions=[[0, 0, 0], [0, 0, 1 + k / 10]]) for k in range(5)]
    for k, frame in enumerate(frames):
        frame.info["dft_energy"] = float(k)
        frame.arrays["pull"] = np.ones((2, 3))
    ase.io.write(tmp_path / "own.xyz", frames)
    assert data.load("extxyz", tmp_path / "own.xyz").notes[-1].startswith("not used: pull; if")


def test_charges_are_said_to_be_unused(tmp_path):
    frames = [ase.Atoms("OH", positions=[[0, 0, 0], [0, 0, 1 + k / 10]]) for k in range(5)]
    for k, frame in enumerate(frames):
        frame.info |= {"dft_energy": float(k), "charge": k % 2, "Spin": 1}
    ase.io.write(tmp_path / "own.xyz", frames)
    notes = data.load("extxyz", tmp_path / "own.xyz").notes
    assert [note for note in notes if note.startswith("not used: Spin, charge; networks")]


def test_one_of_several_unclaimed_forces_is_not_guessed(tmp_path):
    frames = [ase.Atoms("OH", positions=[[0, 0, 0], [0, 0, 1 + k / 10]]) for k in range(5)]
    for frame in frames:
        frame.info["own_energy"] = 1.0
        frame.arrays |= {"a_forces": np.ones((2, 3)), "b_forces": np.ones((2, 3))}
    ase.io.write(tmp_path / "own.xyz", frames)
    with pytest.raises(DataError, match=r"more than one array of forces \(a_forces, b_forces\)"):
        data.load("extxyz", tmp_path / "own.xyz", "own_energy")


@pytest.mark.parametrize(
    ("target", "extensive", "forces"),
    [
        ("energy", True, True),
        ("free_energy", True, True),
        ("atomization_energy", True, True),
        ("u0_atom", True, True),
        ("formation_energy", True, False),
        ("energy_per_atom", False, False),
        ("formation_energy_per_atom", False, False),
        ("fermi_energy", False, False),
        ("energy_above_hull", False, False),
        ("zpve", True, False),
        ("gap", False, False),
    ],
)
def test_an_npz_file_likewise(tmp_path, target, extensive, forces):
    random = np.random.default_rng(0)
    np.savez(
        tmp_path / "own.npz",
        offset=np.arange(0, 21, 2),
        z=np.tile([8, 1], 10),
        pos=random.normal(size=(20, 3)),
        forces=random.normal(size=(20, 3)),
        targets=random.normal(size=(10, 1)),
        target_names=np.array([target]),
        target_units=np.array(["eV"]),
    )
    dataset = data.load("npz", tmp_path / "own.npz")
    assert dataset.extensive == extensive
    assert ("forces" in dataset.graphs[0]) == forces
