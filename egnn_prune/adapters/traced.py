"""Somebody else's network made prunable: its channel groups come from its own graph."""

from __future__ import annotations

import copy
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils import _pytree as pytree

from egnn_prune.adapters.dependency import derive
from egnn_prune.adapters.refitting import cut, refit
from egnn_prune.channels import ChannelGate, ChannelGroup, Member, Prunable, gate_members, gates
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.calling import call, doubled, rows
from egnn_prune.pruning.masks import remove_masks
from egnn_prune.pruning.tensors import get_tensor, owner_of, set_tensor, spread, weight_members


class TracedNetwork(Prunable):
    r"""Wraps a convolutional, fully connected or graph network so that the engine can prune it.

    Groups are derived with Torch-Pruning (Fang et al. 2023) from one run on example inputs, and
    then *tried*: on a copy with random weights, half of the channels are masked and removed, and
    groups for which the two results differ (because an operation mixes channels, or because a
    width is written down in the code) are left out. See :attr:`skipped`.

    The gates of a group sit where its channels are *read*: before each layer that takes them in,
    :math:`x_{rc} \to x_{rc} g_{bc}`. A closed gate is then exactly a removed channel, whatever
    activation, batch norm or depthwise convolution lies in between. Gates act during calls of this
    wrapper only; :attr:`network` itself stays free of hooks.

    Args:
        network: the module; it is not copied, and not changed.
        example_inputs: a tensor or a PyG batch, or a tuple of what ``network`` is called with.
            Samples lie on the first axis of the first tensor. Two or more of them are best.
        ignored: dotted names of modules whose output channels all stay.
        dropout: probability with which the gates thin channels out (Monte Carlo dropout).

    Attributes:
        network: the wrapped module; after :func:`egnn_prune.pruning.compact` a plain, smaller one
            of the same class.
        skipped: for each group that cannot be pruned, why.
        kinds: for each group with a gate, whether its readers see ``samples``, ``nodes`` or
            ``edges``; one word for each reader, with commas between them, where they differ: a
            message may be read along edges, and summed at nodes.

    Shapes:
        as ``network``.

    Raises:
        ConfigError: the package ``torch_pruning`` is missing, or nothing can be pruned: no
            convolution or linear layer, a run or a trace that fails, only mixed channels.

    Example:
        >>> model = TracedNetwork(torchvision.models.resnet18(), torch.randn(2, 3, 64, 64))
        >>> apply_masks(model, choose(scores, 0.5))
        >>> small = egnn_prune.pruning.compact(model).network
    """

    #: ``resized`` returns copies of these weights, not fresh draws.
    resized_copies = True

    def __init__(
        self,
        network: nn.Module,
        example_inputs: Any,
        ignored: Sequence[str] = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        several = isinstance(example_inputs, tuple | list)
        inputs = tuple(example_inputs) if several else (example_inputs,)
        _refuse_strange(network)
        derived = derive(network, inputs, ignored)
        groups, refused = _tried(network, derived.groups, inputs)
        self.skipped: dict[str, str] = {**derived.skipped, **refused}
        if not groups:
            reasons = "; ".join(f"{k}: {v}" for k, v in list(self.skipped.items())[:3])
            reasons = reasons or "none of its layers is called as one, functions use their weights"
            raise ConfigError(
                f"{type(network).__name__} has no channels that can be removed ({reasons})"
            )
        self._assemble(network, groups, dropout, _kinds_of_rows(network, groups, inputs))

    def _assemble(
        self, network: nn.Module, groups: list[ChannelGroup], dropout: float, kinds: dict[str, str]
    ) -> None:
        """Take the network in and give a gate to every group whose rows are of a known kind."""
        self.network = network
        self.kinds = kinds
        self.gates = nn.ModuleList()
        self._groups: list[ChannelGroup] = []
        for group in groups:
            members = tuple(m.prefixed("network") for m in group.members)
            gate = None
            if group.name in kinds:
                gate = f"gates.{len(self.gates)}"
                members += tuple(gate_members(gate, group.n))
                self.gates.append(ChannelGate(group.n, dropout))
            self._groups.append(replace(group, members=members, gate=gate))
        tensor = next(network.parameters())
        self.gates.to(tensor.device).train(network.training)
        self.training = network.training

    @classmethod
    def assembled(
        cls,
        network: nn.Module,
        groups: list[ChannelGroup],
        dropout: Sequence[float],
        kinds: dict[str, str],
        skipped: dict[str, str],
        tensors: dict[str, Tensor],
    ) -> TracedNetwork:
        """A network whose groups are known, with tensors of other widths; nothing is traced.

        Args:
            network: taken in and changed.
            groups: its groups, counted in ``tensors``.
            dropout: of each gate.
            kinds: see above.
            skipped: see above.
            tensors: all of the network's, by name.
        """
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        shapes = {name: t.shape for name, t in network.state_dict().items()}
        changed = [name for name, tensor in tensors.items() if tensor.shape != shapes[name]]
        for name in changed:
            old = get_tensor(network, name)
            set_tensor(network, name, tensors[name].to(old.device, old.dtype))
        refit(network, changed)
        model._assemble(network, groups, 0.0, kinds)
        for gate, p in zip(model.gates, dropout, strict=True):
            assert isinstance(gate, ChannelGate)
            gate.p = p
        model.skipped = skipped
        return model

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        """What the network computes, through the gates that are not idle.

        A single PyG batch is handed over as :func:`egnn_prune.pruning.calling.call` says.
        """
        with self._gated((*inputs, *keywords.values())):
            if keywords:
                return self.network(*inputs, **keywords)
            return call(self.network, inputs)

    @contextmanager
    def _gated(self, inputs: Sequence[Any]) -> Iterator[None]:
        """Hook the gates that have something to do into the layers that read their channels."""
        handles = []
        sample_of: dict[str, Tensor] = {}
        for group in self._groups:
            gate = self.get_submodule(group.gate) if group.gate else None
            if isinstance(gate, ChannelGate) and _busy(gate):
                sample_of = sample_of or rows(inputs)
                readers = [member for member in group.members if member.reads]
                for member, kind in zip(readers, self._kinds_of(group, readers), strict=True):
                    layer, _ = owner_of(self, member.name)
                    # a hook belongs to one call: other threads may run the network, too
                    caller, place = threading.get_ident(), sample_of.get(kind)
                    hook = partial(_gate_inputs, caller, gate, _inputs_of(layer, member), place)
                    handles.append(layer.register_forward_pre_hook(hook))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _kinds_of(self, group: ChannelGroup, readers: Sequence[Member]) -> list[str]:
        """Of the rows that each reader of a group sees."""
        kinds = self.kinds[group.name].split(",")
        return kinds if len(kinds) == len(readers) else kinds[:1] * len(readers)

    def channel_groups(self) -> list[ChannelGroup]:
        """The groups in the order of the layers that make them; the last layer has none."""
        return list(self._groups)

    def resized(self, keep: dict[str, Tensor]) -> TracedNetwork:
        """A copy, without masks, that has only the channels ``keep[group name]`` (indices)."""
        small = copy.deepcopy(self)
        remove_masks(small)
        alive: dict[tuple[str, int], Tensor] = {}
        views: dict[str, tuple[int, ...] | None] = {}
        for group in small._groups:
            gone = torch.ones(group.n, dtype=torch.bool)
            gone[keep[group.name].cpu() if group.name in keep else slice(None)] = False
            for member in group.members:
                views[member.name] = member.view
                size = (member.view or get_tensor(small, member.name).shape)[member.axis]
                entries = alive.setdefault((member.name, member.axis), torch.ones(size).bool())
                entries[member.index[gone].flatten()] = False
        for (name, axis), entries in alive.items():
            tensor = get_tensor(small, name).detach()
            index = entries.nonzero().flatten().to(tensor.device)
            set_tensor(small, name, cut(tensor, axis, index, views[name]))
        refit(small, [name for name, _ in alive])
        small._groups = [_kept(g, keep.get(g.name), alive) for g in small._groups]
        for _, gate in gates(small):
            gate.opened = None
        return small

    def extra_repr(self) -> str:
        """How much of the network can be pruned, for ``print(model)``."""
        return f"{len(self._groups)} groups of channels, {len(self.skipped)} skipped"


def _busy(gate: ChannelGate) -> bool:
    """Whether a gate does anything: thins, scales, or is being listened to."""
    listened = bool(gate._forward_hooks or gate._forward_pre_hooks)
    scales = gate.opened is not None or gate.dropout_mask is not None
    return scales or listened or (gate.training and gate.p > 0)


def _inputs_of(layer: nn.Module, member: Member) -> Tensor:
    """``[n, block]``: the input channels of a layer that its columns stand for."""
    if isinstance(layer, _ConvNd) and layer.groups > 1:
        starts = torch.arange(layer.groups) * (layer.in_channels // layer.groups)
        return (member.index[:, :, None] + starts).flatten(1)
    return member.index


def _gate_inputs(
    caller: int,
    gate: ChannelGate,
    index: Tensor,
    samples: Tensor | None,
    layer: nn.Module,
    inputs: tuple[Any, ...],
) -> tuple[Any, ...]:
    """Send some channels of a layer's input through a gate (a forward pre-hook of one thread)."""
    if threading.get_ident() != caller:
        return inputs
    x, *rest = inputs
    axis = 1 if isinstance(layer, _ConvNd) else x.dim() - 1
    x = x.movedim(axis, 1)
    place = index.flatten().to(x.device)
    channels = x.index_select(1, place).unflatten(1, tuple(index.shape))
    if samples is None or len(samples) != len(x):
        samples = torch.arange(len(x), device=x.device)
    passed = gate(channels, samples).flatten(1, 2)
    return (x.index_copy(1, place, passed).movedim(1, axis), *rest)


def _kept(
    group: ChannelGroup, keep: Tensor | None, alive: dict[tuple[str, int], Tensor]
) -> ChannelGroup:
    """The group after removal: fewer channels, and entries counted among those that are left."""
    if keep is None:
        keep = torch.arange(group.n)
    members = []
    for member in group.members:
        place = alive[member.name, member.axis].cumsum(0) - 1
        view = None if member.view is None else (int(place[-1]) + 1,)
        members.append(replace(member, index=place[member.index[keep.cpu()]], view=view))
    return replace(group, n=len(keep), members=tuple(members))


def _kinds_of_rows(
    network: nn.Module, groups: list[ChannelGroup], inputs: tuple[Any, ...]
) -> dict[str, str]:
    """Whether the readers of a group see samples, nodes or edges; others cannot have a gate."""
    seen: dict[nn.Module, set[int]] = defaultdict(set)
    readers = {g.name: [owner_of(network, m.name)[0] for m in g.members if m.reads] for g in groups}
    hooks = [
        layer.register_forward_pre_hook(lambda m, a: seen[m].update([len(a[0]) if a else -1]))
        for layer in {layer for layers in readers.values() for layer in layers}
    ]
    modes = {module: module.training for module in network.modules()}
    try:
        with torch.no_grad():
            call(network.eval(), inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    known = rows(inputs)

    def kind_of(layer: nn.Module) -> str:
        found = ""
        for kind, samples in known.items():
            # as many edges as nodes: they could not be told apart
            alike = [s for s in known.values() if len(s) == len(samples)]
            if all(torch.equal(s, samples) for s in alike) and seen[layer] == {len(samples)}:
                found = kind
        return found

    kinds = {}
    for name, layers in readers.items():
        each = [kind_of(layer) for layer in layers]
        if all(each):
            kinds[name] = ",".join(each) if len(set(each)) > 1 else each[0]
    return kinds


def _refuse_strange(network: nn.Module) -> None:
    """Refuse what cannot be looked into.

    Raises:
        ConfigError: the network is a script, or has weights without a shape.
    """
    kind = type(network).__name__
    if isinstance(network, torch.jit.ScriptModule):
        raise ConfigError(
            f"{kind} is compiled TorchScript, whose layers cannot be replaced; prune the network "
            "that it was made from"
        )
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in network.parameters()):
        raise ConfigError(
            f"{kind} has lazy layers without a shape; run it once on a batch, then prune it"
        )


def _tried(
    network: nn.Module, groups: list[ChannelGroup], inputs: tuple[Any, ...]
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """The groups that can be removed without changing the rest, and why the others cannot."""
    if not groups or _removable(network, groups, inputs):
        return groups, {}
    reason = "an operation mixes its channels, or the code counts on their number"
    alone = {g.name: _removable(network, [g], inputs) for g in groups}
    refused = {name: reason for name, fine in alone.items() if not fine}
    groups = [g for g in groups if alone[g.name]]
    if groups and not _removable(network, groups, inputs):
        refused |= {g.name: "it cannot be removed together with the others" for g in groups}
        groups = []
    return groups, refused


@torch.no_grad()
def _removable(network: nn.Module, groups: list[ChannelGroup], inputs: tuple[Any, ...]) -> bool:
    """Whether zeroing and removing about half of the channels come to the same."""
    probe = TracedNetwork.__new__(TracedNetwork)
    nn.Module.__init__(probe)
    probe._assemble(copy.deepcopy(network), groups, 0.0, {})
    remove_masks(probe)
    generator = torch.Generator().manual_seed(0)
    _scramble(probe, generator)
    keep = {}
    for group in probe.channel_groups():
        stays = torch.rand(group.n, generator=generator) < 0.5
        stays[0], stays[-1] = False, True
        keep[group.name] = stays.nonzero().flatten()
        for member, tensor in weight_members(group, probe):
            tensor.masked_fill_(spread(member, ~stays, tensor), 0.0)
    probe.eval()
    try:  # in float64 where the network can: nothing then hides in rounding
        masked = _numbers(probe.double()(*pytree.tree_map(doubled, inputs)))
        inputs, tolerance = pytree.tree_map(doubled, inputs), 1e-8
    except (RuntimeError, TypeError):
        probe.to(next(network.parameters()).dtype)
        masked, tolerance = _numbers(probe(*inputs)), 1e-3
    try:
        small = _numbers(probe.resized(keep)(*inputs))
    except Exception:  # whatever third-party code raises when a width is not what it expected
        return False
    if [m.shape for m in masked] != [s.shape for s in small]:
        return False
    return all(
        bool(((s - m).abs() <= tolerance * m.abs().max().clamp(min=1e-30)).all())
        for m, s in zip(masked, small, strict=True)
    )


def _scramble(network: nn.Module, generator: torch.Generator) -> None:
    """Random weights of a healthy size: zeros and ones of a fresh network would hide mistakes."""
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        low, high = 0.5, 1.5
        if tensor.dim() > 1:
            high = (3 / tensor[0].numel()) ** 0.5
            low = -high
        elif name.endswith(("bias", "running_mean")):
            low, high = -0.5, 0.5
        tensor.copy_(torch.empty(tensor.shape).uniform_(low, high, generator=generator))


def _numbers(result: Any) -> list[Tensor]:
    return [leaf.double() for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
