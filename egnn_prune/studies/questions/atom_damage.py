"""Question 4, atom by atom: which atoms' forces a pruned network gets wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from ase.neighborlist import natural_cutoffs, neighbor_list
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch_geometric.data import Data

from egnn_prune.adapters import AdoptedPotential
from egnn_prune.audit.tail import BONDED
from egnn_prune.evaluation.potential_errors import potential_errors
from egnn_prune.runs.result_store import Row
from egnn_prune.studies.questions.error_bars import ErrorBars
from egnn_prune.studies.questions.networks import Networks


def atom_damage(
    full: nn.Module, model: AdoptedPotential, networks: Networks, test: Sequence[Data]
) -> Row:
    """What the damage of atoms goes with: the growth of the length of their force errors.

    Returns:
        ``error_bar`` and ``distance``: rank correlations over all atoms; ``within``: that with the
        error bar within each element; ``bonds``: by element and number of bonds ("C 4") the root
        mean square force error of a component under both, in meV/Angstrom, and how many atoms.
    """
    truth = torch.cat([graph.forces.double() for graph in test])
    was, now = (
        (torch.from_numpy(potential_errors(network, test)[1]["forces"]) - truth).square().sum(1)
        for network in (full, model)
    )
    worse = now.sqrt() - was.sqrt()
    bars = ErrorBars.fitted(networks, [model], "last_layer")
    seen = bars.look(test)
    std, distance = bars.laws.forces_std(seen), bars.laws.distance(seen)
    z = torch.cat([graph.z for graph in test])
    kinds = 100 * z + bonds(test)
    return {
        "error_bar": rank(std, worse),
        "distance": rank(distance, worse),
        "within": {chemical_symbols[int(k)]: rank(std[z == k], worse[z == k]) for k in z.unique()},
        "bonds": {
            f"{chemical_symbols[int(k) // 100]} {int(k) % 100}": [
                *(1000 * float((e[kinds == k].mean() / 3).sqrt()) for e in (was, now)),
                int((kinds == k).sum()),
            ]
            for k in kinds.unique()
        },
    }


def rank(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation."""
    return float(spearmanr(a.numpy(), b.numpy()).statistic)


def bonds(graphs: Sequence[Data]) -> Tensor:
    """How many atoms each atom of molecules is bonded to, ``[N]``."""
    counts = []
    for graph in graphs:
        atoms = Atoms(graph.z.numpy(), graph.pos.double().numpy())
        ends = neighbor_list("i", atoms, [BONDED * r for r in natural_cutoffs(atoms)])
        counts.append(np.bincount(ends, minlength=len(atoms)))
    return torch.from_numpy(np.concatenate(counts))
