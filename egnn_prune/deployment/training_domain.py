"""What the training structures looked like, and what is unlike them whatever the model says.

The members of an ensemble may agree on a molecule that none of them has seen anything like. So a
model's file also holds ranges over its training structures: the size of molecules, the share of
each element, and what atoms of each element are bonded to. They need no network and say why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols, covalent_radii
from torch import Tensor
from torch_geometric.data import Data

from egnn_prune.errors import InputError
from egnn_prune.graphs import edge_vectors, neighbours

#: A pair counts as bonded up to the first of these times the sum of its covalent radii, then less
#: and less, and not at all from the second.
BONDED, APART = 1.2, 1.6
#: How far beyond a range still counts as inside, as a share of its width: the next structure of the
#: same kind is now and then a little beyond all of those before it.
MARGIN = 0.2
#: The least such margin of a number of bonds, and of a shortest bond as a share of its length.
BONDS_MARGIN, LENGTH_MARGIN = 0.25, 0.05
#: More training structures than these do not move the ranges.
MOST = 20_000

Range = tuple[float, float]


@dataclass(frozen=True)
class Unlike:
    """How a structure is unlike the training structures.

    Attributes:
        reason: one clause for people, ``""`` where it is not unlike them.
        atoms: ``[N]``, bool: the atoms that are bonded as no training atom was.
    """

    reason: str
    atoms: Tensor


@dataclass(frozen=True)
class TrainingDomain:
    """Ranges over training structures, by the elements' symbols.

    Attributes:
        size: atoms of a molecule, or ``None`` where all were periodic: a larger cell is no other
            structure.
        shares: share of the atoms of a structure that are of an element.
        bonds: for atoms of an element, how many atoms of each element, and of ``"any"``, are bonded
            to one; a bond that is being broken counts in part.
        shortest: shortest bond in Angstrom of two elements, such as ``"C-H"``.
    """

    size: Range | None
    shares: dict[str, Range]
    bonds: dict[str, dict[str, Range]]
    shortest: dict[str, float]

    @classmethod
    def of(cls, graphs: Sequence[Data]) -> TrainingDomain | None:
        """The ranges of training graphs with ``z [N]`` and ``pos [N, 3]`` in Angstrom.

        Of more than :data:`MOST` graphs as many are looked at, evenly spread.

        Returns:
            ``None`` where there are no such graphs.
        """
        graphs = [graphs[i] for i in range(0, len(graphs), max(-(-len(graphs) // MOST), 1))]
        if not graphs or any(g.get("z") is None or g.pos.shape[1] != 3 for g in graphs):
            return None
        elements = sorted(set(torch.cat([graph.z for graph in graphs]).tolist()))
        names = [chemical_symbols[z] for z in elements]
        kind, bonds, shortest = _bonding(graphs, elements)
        kinds = kind.split([len(graph.z) for graph in graphs])
        share = torch.stack([k.bincount(minlength=len(names)).double() / len(k) for k in kinds])
        sizes = [len(graph.z) for graph in graphs if not _periodic(graph)]
        return cls(
            size=(min(sizes), max(sizes)) if sizes else None,
            shares=dict(zip(names, _ranges(share), strict=True)),
            bonds={
                name: dict(zip([*names, "any"], _ranges(bonds[kind == k]), strict=True))
                for k, name in enumerate(names)
            },
            shortest={
                f"{a}-{b}": length
                for i, a in enumerate(names)
                for j, b in enumerate(names[i:], i)
                if (length := float(shortest[kind == i, j].min())) < float("inf")
            },
        )

    @classmethod
    def from_json(cls, stored: Any) -> TrainingDomain:
        """What :meth:`to_json` gave.

        Raises:
            InputError: it is something else.
        """
        try:
            return cls(
                size=None if stored["size"] is None else _range(stored["size"]),
                shares={str(k): _range(v) for k, v in stored["shares"].items()},
                bonds={
                    str(k): {str(b): _range(v) for b, v in bonds.items()}
                    for k, bonds in stored["bonds"].items()
                },
                shortest={str(k): float(v) for k, v in stored["shortest"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"what the model's file says about its training structures is damaged ({error!r})"
            ) from None

    def to_json(self) -> dict[str, Any]:
        """The ranges as plain JSON, rounded to what matters."""
        return {
            "size": self.size,
            "shares": {name: _rounded(r) for name, r in self.shares.items()},
            "bonds": {a: {b: _rounded(r) for b, r in row.items()} for a, row in self.bonds.items()},
            "shortest": {pair: round(length, 4) for pair, length in self.shortest.items()},
        }

    def unlike(self, graph: Data) -> Unlike:
        """How one graph with ``z [N]`` and ``pos [N, 3]`` is unlike the training structures."""
        elements = sorted(set(graph.z.tolist()))
        names = [chemical_symbols[z] for z in elements]
        kind, bonds, shortest = _bonding([graph], elements)
        reasons = []
        if self.size and not _periodic(graph) and not _within(len(kind), self.size):
            reasons.append(f"it has {len(kind)} atoms, in training {_said(self.size, '{:.0f}')}")
        for name in sorted({*names, *self.shares}):
            share = int((kind == names.index(name)).sum()) / len(kind) if name in names else 0.0
            low, high = self.shares.get(name, (0.0, 0.0))
            if not _within(100 * share, (100 * low, 100 * high), 0.1):
                known = _said((100 * low, 100 * high), "{:.0f}")
                reasons.append(f"{100 * share:.0f} % of its atoms are {name}, in training {known}")
        none: dict[str, Range] = {}
        limits = [
            [self.bonds.get(a, none).get(b, (0.0, 0.0)) for b in (*names, "any")] for a in names
        ]
        least = [[self.shortest.get("-".join(_pair(a, b)), 0.0) for b in names] for a in names]
        least_bonds, most_bonds = torch.tensor(limits, dtype=torch.float64)[kind].unbind(-1)
        margin = (MARGIN * (most_bonds - least_bonds)).clamp(min=BONDS_MARGIN)
        odd = (bonds < least_bonds - margin) | (bonds > most_bonds + margin)
        short = shortest < (1 - LENGTH_MARGIN) * torch.tensor(least, dtype=torch.float64)[kind]
        atoms = odd.any(1) | short.any(1)
        if bool(atoms.any()):
            atom = int(atoms.nonzero()[0])
            k, reason = int(kind[atom]), ""
            if bool(odd[atom].any()):
                b = int(odd[atom].nonzero()[0])
                what = f"bonds to {names[b]}" if b < len(names) else "bonds"
                reason = (
                    f"has {float(bonds[atom, b]):.1f} {what}, in training "
                    f"{_said(limits[k][b], '{:.1f}')}"
                )
            else:
                b = int(short[atom].nonzero()[0])
                reason = (
                    f"is {float(shortest[atom, b]):.2f} Angstrom from an atom {names[b]}, in "
                    f"training at least {least[k][b]:.2f}"
                )
            others = int(atoms.sum()) - 1
            more = f", and {others} more atoms" if others else ""
            reasons.append(f"atom {atom} ({names[k]}) {reason}{more}")
        return Unlike("; ".join(reasons), atoms)


def _bonding(graphs: Sequence[Data], elements: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Place of each atom's element ``[N]``, its bonds ``[N, E + 1]``, its shortest ones ``[N, E]``.

    Of the atoms of all graphs, one after another. The last column of the bonds is their sum.
    """
    kind = torch.searchsorted(torch.tensor(elements), torch.cat([g.z.cpu() for g in graphs]))
    radius = torch.tensor([covalent_radii[z] for z in elements], dtype=torch.float64)
    edges, lengths, first = [], [], 0
    for graph in graphs:
        pos = graph.pos.detach().cpu().double()
        cell, pbc = (graph.get(name) if _periodic(graph) else None for name in ("cell", "pbc"))
        pairs, shift = neighbours(pos, APART * 2 * float(radius.max()), cell, pbc)
        edges.append(pairs + first)
        lengths.append(edge_vectors(pos, pairs, shift).norm(dim=1))
        first += len(pos)
    (source, target), length = torch.cat(edges, 1), torch.cat(lengths)
    ratio = length / (radius[kind[source]] + radius[kind[target]])
    near = ratio < APART
    place = target[near] * len(elements) + kind[source[near]]
    beyond = ((ratio[near] - BONDED) / (APART - BONDED)).clamp(0, 1)
    bond = (1 + torch.cos(torch.pi * beyond)) / 2
    flat = torch.zeros(len(kind) * len(elements), dtype=torch.float64)
    bonds = flat.index_add(0, place, bond).view(-1, len(elements))
    shortest = torch.full_like(flat, torch.inf)
    np.minimum.at(shortest.numpy(), place.numpy(), length[near].numpy())  # writes into the tensor
    return kind, torch.cat([bonds, bonds.sum(1, keepdim=True)], 1), shortest.view_as(bonds)


def _pair(a: str, b: str) -> list[str]:
    """Two symbols, the lighter element first."""
    return sorted((a, b), key=chemical_symbols.index)


def _periodic(graph: Data) -> bool:
    pbc = graph.get("pbc")
    return graph.get("cell") is not None if pbc is None else bool(pbc.any())


def _ranges(columns: Tensor) -> list[Range]:
    """Least and largest of every column ``[R, C]``."""
    return [
        (float(low), float(high))
        for low, high in zip(columns.amin(0), columns.amax(0), strict=True)
    ]


def _range(stored: Any) -> Range:
    low, high = (float(value) for value in stored)
    if not low <= high:
        raise ValueError(f"{low} to {high} is no range")
    return low, high


def _rounded(limits: Range) -> Range:
    return round(limits[0], 4), round(limits[1], 4)


def _within(value: float, limits: Range, least: float = 0.0) -> bool:
    low, high = limits
    margin = max(MARGIN * (high - low), least)
    return low - margin <= value <= high + margin


def _said(limits: Range, form: str) -> str:
    low, high = (form.format(value) for value in limits)
    return low if low == high else f"{low} to {high}"
