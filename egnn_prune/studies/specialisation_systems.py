"""The systems on which pretrained potentials are made small, with splits of their own."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import ase
import ase.io
import ase.units
import numpy as np
import torch
from ase.build import molecule
from torch import nn
from torch_geometric.data import Data

from egnn_prune.ase.sampling import dynamics_frames
from egnn_prune.ase.structures import graph_of
from egnn_prune.data.local import VARIABLE, local_data
from egnn_prune.errors import ConfigError
from egnn_prune.training.distillation import label

#: kcal/mol in eV.
KCAL_MOL = ase.units.kcal / ase.units.mol
#: Of a box of water: molecules on each edge, and the volume of one in Angstrom^3.
EDGE, VOLUME = 2, 29.9


@dataclass(frozen=True)
class System:
    """Structures with energies in eV and forces, in three parts.

    Attributes:
        name: of the system.
        train: for fits, scores and compensation.
        val: for every choice.
        test: for what is reported.
        labels: ``"data"``, or ``"teacher"`` where they are the teacher's own.
    """

    name: str
    train: list[Data]
    val: list[Data]
    test: list[Data]
    labels: str


def system(name: str, teacher: nn.Module, train: int, seed: int) -> System:
    """One of the systems: ``ethanol``, ``3bpa`` (both with DFT labels), ``water``.

    Args:
        name: which.
        teacher: labels water.
        train: training structures.
        seed: of the draw.

    Raises:
        ConfigError: there is no such system, or its data are not here.
    """
    if name == "water":
        return _water(teacher, train, seed)
    readers = {"ethanol": _ethanol, "3bpa": _3bpa}
    if name not in readers:
        raise ConfigError(f"systems are ethanol, 3bpa and water, not {name!r}")
    graphs, held_out = readers[name]()
    rows = np.random.default_rng(seed).permutation(len(graphs))
    first = [graphs[i] for i in rows[: train + 50]]
    rows = np.random.default_rng(0).permutation(len(held_out))  # one test split for all seeds
    return System(name, first[:train], first[train:], [held_out[i] for i in rows[:150]], "data")


def _folder() -> Path:
    folder = local_data("molecules")
    if folder is None:
        raise ConfigError(
            f"the molecules are not here; set {VARIABLE} to the folder that holds them, or study "
            "systems=[water]"
        )
    return folder


def _ethanol() -> tuple[list[Data], list[Data]]:
    """rMD17's official split 01."""
    graphs, split = _rmd17_ethanol()
    train, test = ([graphs[row] for row in split[part]] for part in ("train", "test"))
    return train, test


def all_of_ethanol() -> tuple[list[Data], list[Data]]:
    """All configurations of rMD17's ethanol but those of split 01's test, and these.

    Raises:
        ConfigError: the data are not here.
    """
    graphs, split = _rmd17_ethanol()
    held_out = set(split["test"])
    rest = [graph for row, graph in enumerate(graphs) if row not in held_out]
    return rest, [graphs[row] for row in split["test"]]


def _rmd17_ethanol() -> tuple[list[Data], dict[str, list[int]]]:
    """All configurations, and the rows of split 01's parts."""
    folder = _folder() / "rmd17"
    with np.load(folder / "rmd17_ethanol.npz", allow_pickle=False) as data:
        z = torch.from_numpy(data["nuclear_charges"]).long()
        pos, energy, forces = data["coords"], data["energies"], data["forces"]
    with np.load(folder / "split_01_ethanol.npz", allow_pickle=False) as split:
        rows = {part: [int(row) for row in split[part]] for part in ("train", "test")}

    def graph(row: int) -> Data:
        return Data(
            z=z,
            pos=torch.from_numpy(pos[row]).double(),
            y=torch.tensor([energy[row] * KCAL_MOL], dtype=torch.float64),
            forces=torch.from_numpy(forces[row] * KCAL_MOL).double(),
        )

    return [graph(row) for row in range(len(pos))], rows


def _3bpa() -> tuple[list[Data], list[Data]]:
    """The frames at 300 K."""
    return frames_of_3bpa("train_300K"), frames_of_3bpa("test_300K")


def frames_of_3bpa(name: str) -> list[Data]:
    """Frames of 3BPA with DFT labels: ``train_300K``, ``train_mixedT`` or ``test_300K``.

    Raises:
        ConfigError: the data are not here.
    """
    with gzip.open(_folder() / "3bpa" / f"{name}.xyz.gz", "rt") as file:
        frames = ase.io.read(io.StringIO(file.read()), ":", format="extxyz")
    return [_labelled(atoms) for atoms in frames]


def _labelled(atoms: ase.Atoms) -> Data:
    graph = graph_of(atoms)
    graph.y = torch.tensor([atoms.get_potential_energy()], dtype=torch.float64)
    graph.forces = torch.from_numpy(atoms.get_forces()).double()
    return graph


def water_box(edge: int = EDGE, seed: int = 0) -> ase.Atoms:
    """A periodic box of ``2 edge^3`` water molecules, turned at random, at liquid density."""
    draws = np.random.default_rng(seed)
    length = (2 * edge**3 * VOLUME) ** (1 / 3)
    box = ase.Atoms(cell=[length] * 3, pbc=True)
    one, spacing = molecule("H2O"), length / edge
    for i, j, k in np.ndindex(edge, edge, edge):
        for corner in ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5)):  # body-centred: far from each other
            turned = one.copy()
            turned.rotate(draws.uniform(0, 360), draws.normal(size=3))
            turned.translate((np.array([i, j, k]) + corner) * spacing)
            box += turned
    return box


def _water(teacher: nn.Module, train: int, seed: int) -> System:
    """Frames of the teacher's dynamics at 300 K to 600 K, from boxes with other molecules."""
    part: dict[str, list[Data]] = {}
    for number, (name, count) in enumerate({"train": train, "val": 15, "test": 30}.items()):
        # the test frames are those of one trajectory for all seeds, the others of each seed's own
        draw = 1000 + number if name == "test" else 10 * seed + number
        start = [graph_of(water_box(seed=draw))]
        frames: list[Data] = []
        for kelvin in (300.0, 600.0):
            settled = dynamics_frames(
                teacher, start, kelvin=[kelvin], steps=100, interval=100, seed=draw
            )
            frames += dynamics_frames(
                teacher,
                settled or start,
                kelvin=[kelvin],
                steps=8 * -(-count // 2),
                interval=8,
                seed=draw,
            )
        order = np.random.default_rng(draw).permutation(len(frames))
        part[name] = label(teacher, [frames[i] for i in order[:count]])
    return System("water", part["train"], part["val"], part["test"], "teacher")
