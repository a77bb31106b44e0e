"""How far energies and forces are from turning, mirroring, moving and renumbering with atoms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ase
import numpy as np
import torch
from ase.stress import voigt_6_to_full_3x3_stress
from torch_geometric.data import Batch, Data
from tqdm import tqdm

from egnn_prune.ase.structures import graph_of
from egnn_prune.audit.candidate import Candidate
from egnn_prune.evaluation.equivariance import symmetry_errors

SYMMETRIES = ("rotation", "reflection", "translation", "permutation")
#: Changes of view of each structure under each symmetry.
TRANSFORMS = 3
#: A symmetry is broken beyond these: float32 of a potential leaves ten times less.
FORCE_LIMIT, ENERGY_LIMIT = 1.0, 0.1


def symmetry(
    candidates: Mapping[str, Candidate], structures: Sequence[ase.Atoms], seed: int
) -> list[dict[str, Any]]:
    """The largest deviations over structures and changes of view.

    Returns:
        For every calculator and symmetry ``who``, ``symmetry``, ``energy`` in meV/atom, ``forces``
        in meV/Angstrom (a component), ``stress`` in meV/Angstrom^3 or None, and ``kept``.
    """
    found = []
    with tqdm(total=2 * 4 * len(structures), desc="symmetry", leave=False) as bar:
        for who, candidate in candidates.items():
            for name in SYMMETRIES:
                largest: dict[str, float] = {}
                for k, atoms in enumerate(structures):
                    one = _errors(candidate, atoms, name, seed + k)
                    largest = {key: max(one[key], largest.get(key, 0.0)) for key in one}
                    bar.update()
                kept = largest["forces"] <= FORCE_LIMIT and largest["x"] <= ENERGY_LIMIT
                found.append(
                    {
                        "who": who,
                        "symmetry": name,
                        "energy": largest["x"],
                        "forces": largest["forces"],
                        "stress": largest.get("stress"),
                        "kept": kept,
                    }
                )
    return found


def _errors(candidate: Candidate, atoms: ase.Atoms, name: str, seed: int) -> dict[str, float]:
    """Of one structure, in thousandths of eV and Angstrom, by the names of graphs' outputs."""
    graph = graph_of(atoms)
    graph.atom = torch.arange(len(atoms))  # renumbered with the nodes: it says who is who

    def outputs(view: Batch) -> Data:
        seen = atoms[view.atom.numpy()]
        seen.positions = view.pos.numpy()
        if view.get("cell") is not None:
            seen.cell[:] = view.cell[0].numpy()
        found = candidate.answer(seen, f"a structure after a {name}")
        out = Data(forces=torch.from_numpy(found.forces))
        out.x = torch.tensor([found.energy / len(atoms)], dtype=torch.float64)
        if found.stress is not None:
            stress = np.asarray(voigt_6_to_full_3x3_stress(found.stress))
            out.stress = torch.from_numpy(stress)[None]
        return out

    return symmetry_errors(outputs, Batch.from_data_list([graph]), name, 1e-3, TRANSFORMS, seed)
