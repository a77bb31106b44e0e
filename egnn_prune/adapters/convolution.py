"""A convolution over neighbours whose copies and paths can go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from egnn_prune.adapters.activations import Activation
from egnn_prune.adapters.element_linear import ElementLinear
from egnn_prune.channels import ChannelGate, ChannelGroup, Member, gate_members
from egnn_prune.models.irreps_edges import IrrepsEdges as Edges
from egnn_prune.models.irreps_linear import CopyLinear
from egnn_prune.models.irreps_paths import Path, dimension
from egnn_prune.models.irreps_terms import Terms


class Convolution(nn.Module):
    r"""What arrives at an atom over every path, before it is mixed.

    .. math:: h_j = U x_j, \qquad m_i^{(p)} = \frac1n \sum_j R_p(r_{ij}) \odot
        \left( h_j^{l_1} \otimes Y^{l_2}(\hat r_{ij}) \right)^{l_3}

    A layer derives from it and says which of its linear maps read the messages, see
    :meth:`readers`. Their inputs are the copies of all paths to an irrep, in the paths' order.

    Args:
        copies: the features that come in, ``{irrep: copies}``.
        conv: copies of each irrep that enter the convolution.
        radial: widths of the radial network, from its inputs to its last hidden layer.
        paths: ``(source, l, target, kept)`` of every path, sorted by target.
        activation: of the radial network.
        bias: whether scalars that enter have a bias.
    """

    denominator: Tensor

    def __init__(
        self,
        copies: dict[str, int],
        conv: dict[str, int],
        radial: Sequence[int],
        paths: Sequence[tuple[str, int, str, bool]],
        activation: Activation,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.copies, self.conv, self.radial_activation = copies, conv, activation
        self.all_paths = [Path(*path[:3]) for path in paths]
        self.paths = [
            path
            for path, (*_, kept) in zip(self.all_paths, paths, strict=True)
            if kept and conv.get(path.source)
        ]
        self.terms = Terms.of(self.paths, conv)
        self.register_buffer("denominator", torch.ones(()))
        self.up = nn.ModuleDict(
            {
                ir: CopyLinear(n, [copies[ir]], bias and ir == "0e")
                for ir, n in conv.items()
                if copies.get(ir)
            }
        )
        self.radial = nn.ModuleList(CopyLinear(b, [a]) for a, b in pairwise(radial))
        targets = dict.fromkeys(path.target for path in self.all_paths)
        self.radial_out = nn.ModuleDict(
            {ir: CopyLinear(self.arriving(ir), radial[-1:]) for ir in targets}
        )
        self.conv_gate = nn.ModuleDict({ir: ChannelGate(n) for ir, n in conv.items()})
        self.radial_gate = nn.ModuleList(ChannelGate(n) for n in radial[1:])
        self.path_gate = nn.ModuleList(ChannelGate(int(path[3])) for path in paths)

    def readers(self, target: str) -> list[str]:
        """Names of the linear maps that read what arrives at an irrep."""
        raise NotImplementedError

    def arriving(self, ir: str) -> int:
        """The copies of all paths to an irrep."""
        return sum(self.conv[path.source] for path in self.paths if path.target == ir)

    def arrived(self, received: dict[Path, Tensor], ir: str, nodes: int) -> Tensor:
        """The messages of all paths to an irrep side by side, ``[N, 2l+1, arriving]``."""
        parts = [received[path] for path in self.paths if path.target == ir]
        if len(parts) == 1:
            return parts[0]
        return torch.cat([*parts, self.denominator.new_zeros(nodes, dimension(ir), 0)], dim=-1)

    def received(self, x: dict[str, Tensor], edges: Edges, graph: Tensor) -> dict[Path, Tensor]:
        """Each path's sum over neighbours, ``[N, 2 l3 + 1, copies]``."""
        nodes = graph.shape[0]  # not len(), which torch.export would freeze
        hidden = edges.radial
        for linear, gate in zip(self.radial, self.radial_gate, strict=True):
            hidden = gate(self.radial_activation(linear(hidden)), edges.graph)
        # the weights are linear in these, so here the division is cheap
        hidden = hidden / self.denominator
        wires = {
            ir: gated(self.conv_gate[ir], self.up[ir](x[ir]), graph)
            if ir in self.up
            else hidden.new_zeros(nodes, dimension(ir), self.conv[ir])  # the stream lost the irrep
            for ir in dict.fromkeys(path.source for path in self.paths)
        }
        if edges.rows is None or not self._nothing_watches():
            weights = self._weights(hidden, edges.graph)
            parts = [weights[path] for path in self.terms.paths]
            joined = torch.cat(parts, -1) if parts else hidden.new_zeros(len(hidden), 0)
            return edges.coupled(self.terms, joined, wires)
        rows = self._radial_rows()
        weight = torch.cat([rows[path] for path in self.terms.paths]) if rows else hidden
        return edges.summed(self.terms, hidden, weight, wires, self.training)

    def _nothing_watches(self) -> bool:
        """Whether every path's weights are what its linear map makes, seen by nobody."""
        parts = [*self.radial_out.values(), *self.path_gate]
        if any(part._forward_hooks or part._forward_pre_hooks for part in parts):
            return False
        return all(isinstance(gate, ChannelGate) and gate.idle for gate in self.path_gate)

    def _radial_rows(self) -> dict[Path, Tensor]:
        """The rows ``[copies, hidden]`` of the radial network's last layer, for each path."""
        rows: dict[Path, Tensor] = {}
        for target, linear in self.radial_out.items():
            found = [path for path in self.paths if path.target == target]
            if found:
                parts = weight_of(linear).split([self.conv[path.source] for path in found])
                rows |= zip(found, parts, strict=True)
        return rows

    def _weights(self, hidden: Tensor, graph: Tensor) -> dict[Path, Tensor]:
        """Each path's weights ``[E, copies]``, a function of the distance."""
        weights: dict[Path, Tensor] = {}
        for target, linear in self.radial_out.items():
            found = [path for path in self.paths if path.target == target]
            if found:
                parts = linear(hidden).split([self.conv[path.source] for path in found], dim=-1)
                weights |= zip(found, parts, strict=True)
        for k, path in enumerate(self.all_paths):
            if path in weights:
                weights[path] = self.path_gate[k](weights[path][:, None], graph)[:, 0]
        return weights

    def channel_groups(self) -> list[ChannelGroup]:
        """Copies into the convolution, paths, radial channels."""
        groups = []
        for ir, n in self.conv.items():
            if n:
                wire, gate = self._wire(ir), f"conv_gate.{ir}"
                groups.append(ChannelGroup(f"conv.{ir}", "conv", n, wire, gate, family="conv"))
        for k, path in enumerate(self.all_paths):
            if path in self.paths:
                entries = torch.arange(self.conv[path.source])[None] + self._offset(path)
                gate = f"path_gate.{k}"
                members = (*self._reading(path.target, entries), *gate_members(gate, 1))
                groups.append(ChannelGroup(f"path.{k}", "path", 1, members, gate, family="path"))
        for i, made in enumerate(self.radial):
            n, gate = linear_of(made).copies, f"radial_gate.{i}"
            inner = [*linear_of(made).output_members(f"radial.{i}"), *gate_members(gate, n)]
            if i + 1 < len(self.radial):
                inner += linear_of(self.radial[i + 1]).input_members(f"radial.{i + 1}", n, [0])
            else:
                for ir, linear in self.radial_out.items():
                    inner += linear_of(linear).input_members(f"radial_out.{ir}", n, [0])
            groups.append(ChannelGroup(f"radial.{i}", "radial", n, tuple(inner), gate))
        return groups

    def _wire(self, ir: str) -> tuple[Member, ...]:
        """What belongs to the copies of an irrep that enter the convolution."""
        members = gate_members(f"conv_gate.{ir}", self.conv[ir])
        if ir in self.up:
            members += linear_of(self.up[ir]).output_members(f"up.{ir}")
        for target in self.radial_out:
            found = [p for p in self.paths if (p.source, p.target) == (ir, target)]
            if found:
                starts = torch.tensor([self._offset(path) for path in found])
                entries = torch.arange(self.conv[ir])[:, None] + starts[None]
                members += self._reading(target, entries)
        return tuple(members)

    def places(self) -> dict[Path, slice]:
        """Where each path's copies lie among those that arrive at its target."""
        starts = {path: self._offset(path) for path in self.paths}
        return {p: slice(start, start + self.conv[p.source]) for p, start in starts.items()}

    def _offset(self, path: Path) -> int:
        """Where a path's copies begin among those that arrive at its target."""
        before = self.paths[: self.paths.index(path)]
        return sum(self.conv[p.source] for p in before if p.target == path.target)

    def _reading(self, target: str, entries: Tensor) -> list[Member]:
        """What belongs to some of the copies ``[n, block]`` that arrive at a target.

        A copy of the wire and a whole path share entries, so both say so.
        """
        made = Member(f"radial_out.{target}.weight", 0, entries, shared=True)
        read = [
            replace(made, name=f"{name}.{leaf}", axis=axis, reads=True)
            for name in self.readers(target)
            for leaf, axis in (("weight", 1), ("coefficient", 0))
        ]
        return [made, *read]


def gated(gate: nn.Module, x: Tensor, graph: Tensor) -> Tensor:
    """Let ``x [N, 2l+1, copies]`` flow through a gate of its copies."""
    through: Tensor = gate(x.transpose(1, 2), graph)
    return through.transpose(1, 2)


def linear_of(module: nn.Module) -> CopyLinear:
    """What a module list or dictionary of linear maps holds, for type checkers."""
    assert isinstance(module, CopyLinear)
    return module


def weight_of(linear: nn.Module) -> Tensor:
    """The matrix ``[..., out, in]`` of a linear map with its coefficients."""
    assert isinstance(linear, CopyLinear | ElementLinear) and linear.weight is not None
    return linear.weight * linear.coefficient
