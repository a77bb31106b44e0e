"""What is said of the data before anything is trained on them."""

from __future__ import annotations

import ase
import ase.io
import numpy as np

from egnn_prune import data
from egnn_prune.data.summary import summary


def waters(n: int, **info: object) -> list[ase.Atoms]:
    random = np.random.default_rng(0)
    made = []
    for k in range(n):
        frame = ase.Atoms("OH2", positions=random.normal(size=(3, 3)))
        frame.info |= {"dft_energy": -30.0 - 3 * k, "gap": 1.0 + k, **info}
        frame.arrays["dft_forces"] = np.full((3, 3), 0.5 * (-1) ** k)
        made.append(frame)
    return made


def test_of_energies_and_forces(tmp_path):
    frames = waters(10)
    ase.io.write(
        tmp_path / "own.xyz", [ase.Atoms("H", info={"dft_energy": -1.0}), *frames, frames[3]]
    )
    assert summary(data.load("extxyz", tmp_path / "own.xyz")) == [
        "11 structures of 3 atoms; elements H O",
        "dft_energy in eV: -57 to -30, -19 to -10 per atom; grows with the number of atoms",
        "forces in eV/Angstrom: root mean square of a component 0.5, largest 0.866",
        f"splits: {', '.join(_sizes(tmp_path))}",
        "read: target: dft_energy, forces: dft_forces; units of the file: eV, Angstrom (assumed, "
        "nothing is declared)",
        "1 of 11 structures are copies of others; copies stay on one side of the split",
        "1 structure is an isolated atom and in no split; not used as energies of reference, as "
        "there is none for O",
    ]


def _sizes(folder) -> list[str]:
    splits = data.load("extxyz", folder / "own.xyz").splits
    return [f"{len(splits[k])} {k}" for k in ("train", "val", "test", "ood")]


def test_of_another_target_in_declared_units(tmp_path):
    ase.io.write(tmp_path / "own.xyz", waters(10, energy_unit="Hartree", length_unit="Bohr"))
    said = summary(data.load("extxyz", tmp_path / "own.xyz", "gap"))
    assert "gap in data unit: 1 to 10; does not grow with the number of atoms" in said
    assert not any(line.startswith("forces in") for line in said)
    assert said[-2:] == [
        "read: target: gap, forces: none; units of the file: Bohr (declared by energy_unit, "
        "length_unit)",
        "not used: dft_forces; they are the gradient of another quantity",
    ]
    energies = summary(data.load("extxyz", tmp_path / "own.xyz"))
    assert energies[1].startswith(f"dft_energy in eV: {-57 * 27.211386:.4f}"[:-3])
    assert "units of the file: Hartree, Bohr (declared by energy_unit, length_unit)" in energies[-1]


def test_of_arrays(tmp_path):
    random = np.random.default_rng(0)
    np.savez(
        tmp_path / "own.npz",
        offset=np.array([0, 2, 5, 6, 10]),
        z=np.array([1, 1, 8, 1, 1, 2, 6, 1, 1, 1]),
        pos=random.normal(size=(10, 3)),
        forces=np.ones((10, 3)),
        targets=np.array([[1.0, 10], [2, 20], [3, 30], [4, 40]]),
        target_names=np.array(["energy", "gap"]),
        target_units=np.array(["eV", ""]),
    )
    said = summary(data.load("npz", tmp_path / "own.npz"))
    assert said[0].startswith("4 structures of 1 to 4 atoms; elements ")
    assert said[-1] == (
        "read: energy in eV, pos in Angstrom (assumed, none is declared), "
        "forces in eV/Angstrom (assumed, none is declared)"
    )
    said = summary(data.load("npz", tmp_path / "own.npz", "gap"))
    assert said[-1] == "not used: forces, which gap has none of"
    assert (
        said[-2] == "read: gap in a unit not declared, pos in Angstrom (assumed, none is declared)"
    )


def test_of_other_graphs():
    assert summary(data.load("centroid"))[0].endswith("nodes (of 2,000 of them)")
    said = summary(data.load("xtb"))
    assert said[0] == "6,000 structures of 5 to 26 atoms (of 2,000 of them); elements H C N O F"
    assert said[3] == "splits: 4,200 train, 500 val, 600 test, 700 ood"
