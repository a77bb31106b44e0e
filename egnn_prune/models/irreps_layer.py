"""One interaction block of a NequIP-style network: options, widths, channel groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from e3nn.math import normalize2mom
from torch import Tensor, nn
from torch.nn import functional as F

from egnn_prune.channels import ChannelGate, ChannelGroup, Member, gate_members, linear_members
from egnn_prune.errors import ConfigError
from egnn_prune.models.irreps_edges import IrrepsEdges
from egnn_prune.models.irreps_linear import CopyLinear
from egnn_prune.models.irreps_paths import Path, dimension, format_irreps, parse_irreps, paths
from egnn_prune.models.irreps_terms import Terms


@dataclass(frozen=True)
class IrrepsOptions:
    """What an :class:`IrrepsNet` computes, apart from its widths.

    Attributes:
        cutoff: length beyond which nodes do not interact, in the unit of the positions.
        lmax: the highest order of spherical harmonics and features, 0 to 3.
        parity: also features of the other parity (pseudo-scalars, axial vectors ...). The network
            is equivariant under reflections with and without them.
        bessel: number of radial functions.
        neighbours: average number of neighbours of a node; sums over neighbours are divided by its
            square root, a constant.
        vectors: number of vectors per node that the network returns in ``batch.vec``.
        dropout: probability that a channel is dropped, in every layer.
        eps: smoothing length: at distances below it, the orders l > 0 fade like :math:`r^l`.
    """

    cutoff: float = 5.0
    lmax: int = 2
    parity: bool = True
    bessel: int = 8
    neighbours: float = 16.0
    vectors: int = 0
    dropout: float = 0.0
    eps: float = 1e-3

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("cutoff", "neighbours", "eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be a positive number, not {getattr(self, name)}")
        if self.lmax not in (0, 1, 2, 3):
            raise ConfigError(f"lmax must be 0, 1, 2 or 3, not {self.lmax}")
        if self.bessel < 1 or self.vectors < 0:
            raise ConfigError("an IrrepsNet needs at least 1 Bessel function and 0 vectors")
        if self.vectors and self.lmax == 0:
            raise ConfigError("vectors need lmax of at least 1")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must lie in [0, 1), not {self.dropout}")


@dataclass(frozen=True)
class IrrepsWidths:
    """The number of channels of each kind in one layer.

    Attributes:
        irreps: the features that the layer makes, such as ``"32x0e+16x1o"``. An order that went
            is written ``0x2e``: its gate stays, so that the same MC-dropout samples are drawn.
        radial_in: channels of the radial network's first hidden layer.
        radial_mid: channels of its second.
    """

    irreps: str
    radial_in: int = 64
    radial_mid: int = 64

    def resized(self, keep: dict[str, Tensor]) -> IrrepsWidths:
        """As many channels as there are indices in ``keep[irrep, "radial_in", "radial_mid"]``."""
        copies = {ir: len(keep.get(ir, range(n))) for ir, n in parse_irreps(self.irreps).items()}
        radial = [len(keep.get(k, range(getattr(self, k)))) for k in ("radial_in", "radial_mid")]
        return IrrepsWidths(format_irreps(copies), *radial)


class IrrepsLayer(nn.Module):
    r"""One interaction block (Batzner et al. 2022, NequIP, Fig. 1 and Eqs. 4-6).

    .. math::
        m_i^{(p)} &= \frac{1}{\sqrt{n}} \sum_j R_p(r_{ij}) \odot
            \left( x_j^{l_1} \otimes f_c(r_{ij}) Y^{l_2}(\hat r_{ij}) \right)^{l_3} \\
        y_i &= W (m_i \oplus x_i), \qquad
        x_i' = \phi(y_i^{0}) \;\oplus\; \text{SiLU}(g_i) \odot y_i^{l}

    A path p leads from a feature irrep over a spherical harmonic to an irrep; its weights
    :math:`R_p`, one per copy, come from the radial network, a function of the distance. Scalars go
    through SiLU (pseudo-scalars through tanh), and every copy of a higher order is multiplied by a
    scalar g of its own, which belongs to the same channel. The tensor product is e3nn's
    ``TensorProduct`` in ``uvu`` mode with ``path_normalization="none"``, but with the copies on
    the last axis: one batched matrix product for each order that comes in.

    Args:
        copies: the features that come in, ``{irrep: copies}``.
        widths: widths inside the layer, and the features that it makes.
        options: what is computed.

    Shapes:
        features ``{irrep: [N, 2l+1, copies]}`` in and out.
    """

    def __init__(
        self, copies: dict[str, int], widths: IrrepsWidths, options: IrrepsOptions
    ) -> None:
        super().__init__()
        self.copies, self.options = copies, options
        self.silu, self.tanh = _unit(F.silu), _unit(torch.tanh)
        listed = parse_irreps(widths.irreps)
        self.made = {ir: n for ir, n in listed.items() if n}
        self.gated = [ir for ir in self.made if dimension(ir) > 1]
        wanted = list(self.made) + ["0e"] * bool(self.gated and "0e" not in self.made)
        self.wanted = wanted
        self.paths = paths(copies, wanted, options.lmax)
        self.terms = Terms.of(self.paths, copies)
        arriving = {ir: [p for p in self.paths if p.target == ir] for ir in wanted}

        self.radial_in = nn.Linear(options.bessel, widths.radial_in)
        self.radial_mid = nn.Linear(widths.radial_in, widths.radial_mid)
        self.radial_out = nn.ModuleDict(
            {
                ir: nn.Linear(widths.radial_mid, sum(copies[p.source] for p in found), bias=False)
                for ir, found in arriving.items()
                if found
            }
        )
        for linear in (self.radial_in, self.radial_mid, *self.radial_out.values()):
            assert isinstance(linear, nn.Linear)
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
        self.radial_in_gate = ChannelGate(widths.radial_in, options.dropout)
        self.radial_mid_gate = ChannelGate(widths.radial_mid, options.dropout)

        def mixer(ir: str, n: int) -> CopyLinear:
            messages = sum(copies[p.source] for p in arriving[ir])
            return CopyLinear(n, [messages, copies.get(ir, 0)], bias=ir == "0e")

        self.mix = nn.ModuleDict({ir: mixer(ir, n) for ir, n in self.made.items()})
        self.mix_gate = nn.ModuleDict({ir: mixer("0e", self.made[ir]) for ir in self.gated})
        self.gate = nn.ModuleDict({ir: ChannelGate(n, options.dropout) for ir, n in listed.items()})

    def forward(self, x: dict[str, Tensor], edges: IrrepsEdges, graph: Tensor) -> dict[str, Tensor]:
        """Pass messages once.

        Args:
            x: ``{irrep: [N, 2l+1, copies]}``.
            edges: the edges, sorted by target.
            graph: ``[N]``, the graph of each node.
        """
        nodes = graph.shape[0]  # not len(), which torch.export would freeze
        received = self._messages(x, edges)

        def inputs(ir: str) -> Tensor:
            parts = [received[path] for path in self.paths if path.target == ir]
            parts += [x[ir]] if ir in x else []
            none = edges.radial.new_zeros(nodes, dimension(ir), 0)
            return torch.cat([*parts, none], dim=-1)

        scalars = inputs("0e")
        out = {}
        for ir, mix in self.mix.items():
            y = mix(scalars if ir == "0e" else inputs(ir))
            if ir in self.gated:
                y = y * self.silu(self.mix_gate[ir](scalars))
            else:
                y = self.silu(y) if ir == "0e" else self.tanh(y)
            out[ir] = self.gate[ir](y.transpose(1, 2), graph).transpose(1, 2)
        return out

    def _messages(self, x: dict[str, Tensor], edges: IrrepsEdges) -> dict[Path, Tensor]:
        """Each path's sum over neighbours, ``[N, 2 l3 + 1, copies]``."""
        hidden = self.radial_in_gate(self.silu(self.radial_in(edges.radial)), edges.graph)
        hidden = self.radial_mid_gate(self.silu(self.radial_mid(hidden)), edges.graph)
        rows = self._radial_rows()
        weight = torch.cat([rows[path] for path in self.terms.paths])
        return edges.summed(self.terms, hidden, weight, x, self.training)

    def _radial_rows(self) -> dict[Path, Tensor]:
        """The rows ``[copies, radial_mid]`` of the radial network's last layer, for each path."""
        rows: dict[Path, Tensor] = {}
        for target, linear in self.radial_out.items():
            assert isinstance(linear, nn.Linear)
            found = [path for path in self.paths if path.target == target]
            parts = linear.weight.split([self.copies[path.source] for path in found])
            rows |= zip(found, parts, strict=True)
        return rows

    def channel_groups(self) -> list[ChannelGroup]:
        """The radial channels (copies belong to two layers: the network joins their members)."""
        w_in, w_mid = self.radial_in.out_features, self.radial_mid.out_features
        inner = (
            *linear_members("radial_in", w_in, rows=True),
            *linear_members("radial_mid", w_in),
            *gate_members("radial_in_gate", w_in),
        )
        middle = [
            *linear_members("radial_mid", w_mid, rows=True),
            *gate_members("radial_mid_gate", w_mid),
        ]
        for ir in self.radial_out:
            middle += linear_members(f"radial_out.{ir}", w_mid)
        return [
            ChannelGroup("radial_in", "radial", w_in, inner, "radial_in_gate"),
            ChannelGroup("radial_mid", "radial", w_mid, tuple(middle), "radial_mid_gate"),
        ]

    def output_members(self, ir: str) -> list[Member]:
        """What makes the copies of an irrep: their rows, their gate scalars', their gate."""
        members = [
            *_mixer(self.mix, ir).output_members(f"mix.{ir}"),
            *gate_members(f"gate.{ir}", self.made[ir]),
        ]
        if ir in self.gated:
            members += _mixer(self.mix_gate, ir).output_members(f"mix_gate.{ir}")
        return members

    def input_members(self, ir: str) -> list[Member]:
        """What takes the copies of an irrep in: path weights, and columns of the linear maps."""
        members: list[Member] = []
        n = self.copies[ir]
        for target in self.wanted:
            offset, offsets = 0, []
            for path in self.paths:
                if path.target == target:
                    offsets += [offset] * (path.source == ir)
                    offset += self.copies[path.source]
            if offsets:
                name = f"radial_out.{target}.weight"
                members.append(Member.span(name, 0, n, *offsets, reads=True))
            if target == ir:  # its own features come after the messages
                offsets.append(offset)
            readers = [f"mix.{target}"] * (target in self.made)
            readers += [f"mix_gate.{g}" for g in self.gated] * (target == "0e")
            for name in readers if offsets else []:
                holder, key = name.split(".")
                mixer = _mixer(getattr(self, holder), key)
                members += mixer.input_members(name, n, offsets)
        return members


def _mixer(holder: nn.Module, key: str) -> CopyLinear:
    assert isinstance(holder, nn.ModuleDict)
    mixer = holder[key]
    assert isinstance(mixer, CopyLinear)
    return mixer


@cache
def _unit(activation: Callable[[Tensor], Tensor]) -> nn.Module:
    """e3nn's activation of unit mean square for normal input; it has no parameters: one for all."""
    return normalize2mom(activation)
