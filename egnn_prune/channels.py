"""The vocabulary that models and the pruning engine share: channels, their groups, their gates.

A *channel* is the smallest thing that can be removed from a network. A *group* is a set of
channels that live on one axis: take channel 3 away, and entry 3 must go from every tensor of the
group at once. Models declare their groups; the engine never needs to know what a channel means.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from egnn_prune.errors import ConfigError


@dataclass(frozen=True)
class Member:
    """One tensor that shrinks with its group.

    Attributes:
        name: dotted name of a parameter or buffer, such as ``"layers.0.edge_in.weight"``.
        axis: the axis of ``view`` along which the channels lie.
        index: ``[n, block]``, the entries on that axis that belong to each channel.
        view: shape in which the axis can be seen, ``None`` for the tensor's own shape.
        reads: whether the entries take the channel in (input columns) or make it (output rows).
        shared: whether channels of other groups may own the same entries: what a copy sends along
            a path goes with the copy, and with the path.
    """

    name: str
    axis: int
    index: Tensor
    view: tuple[int, ...] | None = None
    reads: bool = False
    shared: bool = False

    @classmethod
    def span(cls, name: str, axis: int, n: int, *offsets: int, reads: bool = False) -> Member:
        """A member whose channel ``c`` owns the entries ``offset + c``, one per offset (or 0)."""
        starts = torch.tensor(offsets or (0,))
        return cls(name, axis, torch.arange(n)[:, None] + starts[None, :], reads=reads)

    def prefixed(self, prefix: str) -> Member:
        """The same member, seen from a module that holds its owner as ``prefix``."""
        return replace(self, name=f"{prefix}.{self.name}")


@dataclass(frozen=True)
class ChannelGroup:
    """``n`` channels and everything that must shrink with them.

    Attributes:
        name: unique within the model, such as ``"layers.0.message"``.
        kind: what the channels are (``"stream"``, ``"edge"``, ``"message"``, ``"position"`` ...).
        n: the number of channels.
        members: the tensors that lose entries when a channel goes.
        gate: dotted name of the :class:`ChannelGate` that the channels flow through, if any.
        family: groups of one family may each lose all of their channels as long as the family
            keeps one, such as the orders l of a layer; a group without one always keeps a channel.
    """

    name: str
    kind: str
    n: int
    members: tuple[Member, ...] = field(repr=False)
    gate: str | None = None
    family: str | None = None

    def __post_init__(self) -> None:
        """Refuse a group of nothing."""
        if self.n < 1 or not self.members:
            raise ConfigError(
                f"group {self.name} has {self.n} channels and {len(self.members)} members; "
                "leave a group without channels or tensors out of channel_groups()"
            )

    def prefixed(self, prefix: str) -> ChannelGroup:
        """The same group, seen from a module that holds its owner as ``prefix``."""
        return replace(
            self,
            name=f"{prefix}.{self.name}",
            members=tuple(m.prefixed(prefix) for m in self.members),
            gate=f"{prefix}.{self.gate}" if self.gate else None,
            family=f"{prefix}.{self.family}" if self.family else None,
        )


class Prunable(nn.Module):
    """A module that the pruning engine can make smaller.

    Deriving from it is for type checkers: any module with these methods will do.
    """

    def channel_groups(self) -> list[ChannelGroup]:
        """Every group of channels that may be removed."""
        raise NotImplementedError

    def resized(self, keep: dict[str, Tensor]) -> Prunable:
        """A new module of this kind with only the channels ``keep[group name]`` (indices)."""
        raise NotImplementedError


class ChannelGate(nn.Module):
    r"""A point that all channels of a group flow through, :math:`y_{rc} = x_{rc} t_{sc} g_{bc}`.

    A channel may be a number, the 2l+1 components of an irrep, or a whole feature map: axes after
    the second belong to it.

    Normally the identity. It thins the network for Monte Carlo dropout (:math:`t`, one value per
    channel, shared by every node, edge and graph of a sample :math:`s`, so that a sample is one
    network: equivariant, with conservative forces), and it carries the differentiable gates
    :math:`g` (one per graph :math:`b` and channel) from which importances are read.

    Thinning masks are drawn at the *dense* width and then indexed with ``kept``, so that a masked
    model and its compact copy draw the same networks from the same generator.

    Args:
        width: number of channels now.
        p: probability that a channel is dropped, in [0, 1).
        inplace: whether a thinned pass without gradients may overwrite its input, as
            ``nn.ReLU(inplace=True)`` does; only for inputs that nothing else reads.

    Shapes:
        input ``[S * rows, width, ...]`` with S samples one after another, output the same.
    """

    kept: Tensor
    dense_width: Tensor

    def __init__(self, width: int, p: float = 0.0, inplace: bool = False) -> None:
        super().__init__()
        self.p, self.inplace = p, inplace
        self.register_buffer("kept", torch.arange(width))
        self.register_buffer("dense_width", torch.tensor(width))
        self.opened: Tensor | None = None  # [graphs, width]

    @property
    def dropout_mask(self) -> Tensor | None:
        """The masks ``[S, width]`` of the call that is under way, see :func:`dropout_masks`."""
        return _CALL.masks.get(self)

    @property
    def idle(self) -> bool:
        """Whether it passes everything on as it is."""
        thins = self.training and self.p > 0
        return not thins and self.opened is None and self.dropout_mask is None

    def draw(self, samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``samples`` thinning masks ``[samples, width]``; kept channels carry 1/(1-p)."""
        uniform = torch.rand(samples, int(self.dense_width), generator=generator)
        mask = (uniform >= self.p).float() / (1.0 - self.p)
        return mask.to(self.kept.device)[:, self.kept]

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        """Pass the channels on.

        Args:
            x: ``[S * rows, width, ...]``.
            graph: ``[S * rows]``, the graph that each row belongs to, counted on over the samples.
        """
        dropout_mask = self.dropout_mask
        if dropout_mask is None and self.training and self.p > 0:
            dropout_mask = self.draw(1)
        rest = (1,) * (x.dim() - 2)
        if dropout_mask is not None and len(dropout_mask) == 1:
            mask = dropout_mask.to(x.dtype).unflatten(-1, (-1, *rest))
            x = x.mul_(mask) if self.inplace and not torch.is_grad_enabled() else x * mask
        elif dropout_mask is not None:
            rows = x.unflatten(0, (len(dropout_mask), len(x) // len(dropout_mask)))
            x = (rows * dropout_mask.to(x.dtype)[:, None].unflatten(-1, (-1, *rest))).flatten(0, 1)
        if self.opened is not None:
            # the samples of a graph share its gates
            opened = self.opened.index_select(0, graph % len(self.opened))
            x = x * opened.unflatten(-1, (-1, *rest))
        return x

    def extra_repr(self) -> str:
        """Width and dropout probability, for ``print(model)``."""
        return f"{len(self.kept)} of {int(self.dense_width)}, p={self.p}"


def gates(model: nn.Module) -> Iterator[tuple[str, ChannelGate]]:
    """The gates of a model with their names, in the order in which they were built."""
    for name, module in model.named_modules():
        if isinstance(module, ChannelGate):
            yield name, module


class _Call(threading.local):
    """What the call that is under way in a thread has drawn.

    Masks travel with the call, not in the module: other threads that use the same network see none
    of them. (``torch.compile`` follows thread-local state, but context variables only since 2.14.)
    """

    def __init__(self) -> None:
        self.masks: Mapping[ChannelGate, Tensor] = {}


_CALL = _Call()


@contextmanager
def dropout_masks(masks: Mapping[ChannelGate, Tensor | None]) -> Iterator[None]:
    """Within this context, and this thread, gates are thinned by masks ``[S, width]``.

    Args:
        masks: for some gates their masks, or ``None`` for a gate that shall not be thinned; all
            other gates stay as they are.
    """
    before = _CALL.masks
    changed = {**before, **masks}
    _CALL.masks = {gate: mask for gate, mask in changed.items() if mask is not None}
    try:
        yield
    finally:
        _CALL.masks = before


#: Modules that were in training mode before :func:`evaluating`, and how many calls evaluate them.
_EVALUATED: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
_EVALUATED_LOCK = threading.Lock()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every module is in the mode that it was in.

    Calls may overlap, in one thread or several: modes come back when the last of them ends.
    """
    with _EVALUATED_LOCK:
        # molecular dynamics does this in every step: one walk through the tree
        mine = [m for m in model.modules() if m.training or (_EVALUATED and m in _EVALUATED)]
        for module in mine:
            _EVALUATED[module] = _EVALUATED.get(module, 0) + 1
            module.training = False
    try:
        yield
    finally:
        with _EVALUATED_LOCK:
            for module in mine:
                _EVALUATED[module] -= 1
                if not _EVALUATED[module]:
                    del _EVALUATED[module]
                    module.training = True


def linear_members(
    name: str, n: int, *, rows: bool = False, columns: Sequence[int] = (), bias: bool = True
) -> list[Member]:
    """Members of an ``nn.Linear``: its output rows (with bias), or input columns at offsets."""
    if rows:
        members = [Member.span(f"{name}.weight", 0, n)]
        return members + ([Member.span(f"{name}.bias", 0, n)] if bias else [])
    return [Member.span(f"{name}.weight", 1, n, *columns, reads=True)]


def gate_members(name: str, n: int) -> list[Member]:
    """Members of a :class:`ChannelGate`: only ``kept``; the dense width never shrinks."""
    return [Member.span(f"{name}.kept", 0, n)]
