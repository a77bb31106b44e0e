"""What was read, in a few lines that are printed before anything is trained on it."""

from __future__ import annotations

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from egnn_prune.data.dataset import SPLITS, GraphDataset

#: Graphs that ranges of forces are taken over, at most.
LOOKED_AT = 2000


def summary(dataset: GraphDataset) -> list[str]:
    """Counts, elements, ranges of target and forces, units, splits, and the source's own notes."""
    rows = torch.cat([dataset.splits[split] for split in SPLITS if split in dataset.splits])
    looked = rows[torch.linspace(0, len(rows) - 1, min(len(rows), LOOKED_AT)).long()]
    graphs = [dataset.graphs[row] for row in looked.tolist()]
    sizes = torch.tensor([graph.pos.shape[0] for graph in graphs])
    about = f" (of {len(graphs):,} of them)" if len(graphs) < len(rows) else ""
    what = "graphs" if dataset.outputs == "positions" else "structures"
    lines = [f"{len(rows):,} {what} of {_range(sizes, 'd')} nodes{about}"]
    if dataset.outputs == "graph":
        lines[0] = lines[0].replace("nodes", "atoms")
        symbols = [chemical_symbols[z] for z in dataset.elements]
        lines[0] += f"; elements {' '.join(symbols)}"
        lines.append(_target(dataset, torch.cat([g.y.flatten()[:1] for g in graphs]), sizes))
    if "forces" in dataset.units:
        size = torch.cat([graph.forces for graph in graphs]).double().norm(dim=1)
        typical, largest = float((size.square().mean() / 3).sqrt()), float(size.max())
        lines.append(
            f"forces in {dataset.units['forces']}: root mean square of a component {typical:.4g}, "
            f"largest {largest:.4g}{about}"
        )
    counts = ", ".join(f"{len(dataset.splits[k]):,} {k}" for k in SPLITS if k in dataset.splits)
    return [*lines, f"splits: {counts}", *dataset.notes]


def _target(dataset: GraphDataset, y: Tensor, sizes: Tensor) -> str:
    text = f"{dataset.target} in {dataset.unit}: {_range(y)}"
    if dataset.extensive:
        return f"{text}, {_range(y / sizes)} per atom; grows with the number of atoms"
    return f"{text}; does not grow with the number of atoms"


def _range(values: Tensor, form: str = ".7g") -> str:
    low, high = (np.asarray(v).item() for v in (values.min(), values.max()))
    return f"{low:{form}}" if low == high else f"{low:{form}} to {high:{form}}"
