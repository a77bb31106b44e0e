"""Check what a module declares: the members of its groups, and the shapes that follow from them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from egnn_prune.channels import ChannelGate, ChannelGroup, Member, Prunable
from egnn_prune.pruning.tensors import get_tensor, tensor_names


def check_members(model: nn.Module, groups: list[ChannelGroup]) -> None:
    """Members exist, their indices fit, no entry belongs to two channels, gates are as wide.

    Raises:
        AssertionError: names the group and the tensor.
    """
    owners: dict[tuple[str, int, tuple[int, ...] | None], dict[int, tuple[str, bool]]] = {}
    for group in groups:
        for member in group.members:
            entries = _checked_entries(model, group, member)
            taken = owners.setdefault((member.name, member.axis, member.view), {})
            for entry in entries:
                other, shared = taken.setdefault(entry, (group.name, member.shared))
                if other != group.name and not (shared and member.shared):
                    raise AssertionError(
                        f"entry {entry} on axis {member.axis} of {member.name} belongs to the "
                        f"groups {other} and {group.name}; check the offsets of both members, or "
                        "say shared=True in both where an entry goes with either"
                    )
        _check_gate(model, group)


def _checked_entries(model: nn.Module, group: ChannelGroup, member: Member) -> list[int]:
    """All entries of a member, once it is clear that they exist and are different."""
    where = f"group {group.name}, member {member.name}"
    try:
        tensor = get_tensor(model, member.name)
    except AttributeError as error:
        raise AssertionError(
            f"{where}: the model has no such parameter or buffer; names are dotted, as in "
            "named_parameters()"
        ) from error
    if not isinstance(tensor, Tensor):
        raise AssertionError(f"{where}: this is no tensor but {type(tensor).__name__}")
    shape = tuple(tensor.shape)
    if member.view is not None:
        if torch.Size(member.view).numel() != tensor.numel():
            raise AssertionError(f"{where}: {shape} cannot be viewed as {member.view}")
        shape = member.view
    if not 0 <= member.axis < len(shape):
        raise AssertionError(f"{where}: shape {shape} has no axis {member.axis}; count from 0")
    index = member.index
    if index.dim() != 2 or len(index) != group.n or index.dtype != torch.long:
        raise AssertionError(
            f"{where}: the index must be integers [n, block] with n = {group.n}, "
            f"not {index.dtype} {tuple(index.shape)}"
        )
    size = shape[member.axis]
    if index.numel() and (int(index.min()) < 0 or int(index.max()) >= size):
        raise AssertionError(
            f"{where}: axis {member.axis} of {shape} has the entries 0 to {size - 1}, but the "
            f"index goes from {int(index.min())} to {int(index.max())}; check axis and offset"
        )
    entries = index.flatten().tolist()
    if len(set(entries)) != len(entries):
        twice = next(e for e in entries if entries.count(e) > 1)
        raise AssertionError(
            f"{where}: entry {twice} on axis {member.axis} belongs to two channels; each entry "
            "has one owner"
        )
    return entries


def _check_gate(model: nn.Module, group: ChannelGroup) -> None:
    if group.gate is None:
        return
    gate = dict(model.named_modules()).get(group.gate)
    where = f"group {group.name}, gate {group.gate}"
    if not isinstance(gate, ChannelGate):
        kind = "no such module" if gate is None else type(gate).__name__
        raise AssertionError(f"{where}: it must be a ChannelGate of the model, but is {kind}")
    if len(gate.kept) != group.n:
        raise AssertionError(
            f"{where}: it is {len(gate.kept)} wide, but the group has {group.n} channels"
        )
    if f"{group.gate}.kept" not in {m.name for m in group.members}:
        raise AssertionError(
            f"{where}: {group.gate}.kept should shrink with the group; add "
            "*gate_members(gate, n) to its members"
        )


def check_resized(model: Prunable, groups: list[ChannelGroup]) -> None:
    """``resized()`` shrinks the members by what was removed, and nothing else.

    Raises:
        AssertionError: names the group and the tensor.
    """
    keep = {g.name: _without(g, 1 + i) for i, g in enumerate(groups)}  # different everywhere
    if _mismatch(model, groups, keep) is None:
        return
    whole = {g.name: torch.arange(g.n) for g in groups}
    problem = _mismatch(model, groups, whole)
    if problem is not None:
        raise AssertionError(f"resized() with all channels: {problem[0]}")
    for group in groups:
        problem = _mismatch(model, groups, {**whole, group.name: keep[group.name]})
        if problem is not None:
            raise AssertionError(_lesson(model, group, *problem))
    problem = _mismatch(model, groups, keep)
    assert problem is not None
    raise AssertionError(f"resized() handles each group alone, but all together: {problem[0]}")


def _without(group: ChannelGroup, number: int) -> Tensor:
    """The channels that stay when the first ones go: at least one goes if there are two.

    Of groups of one channel, which need a family, every other one goes.
    """
    if group.n == 1 and group.family is not None:
        return torch.arange(number % 2)
    gone = min(1 + (number - 1) % max(group.n - 1, 1), group.n - 1)
    return torch.arange(gone, group.n)


Problem = tuple[str, str | None, tuple[int, ...] | None]


def _mismatch(
    model: Prunable, groups: list[ChannelGroup], keep: dict[str, Tensor]
) -> Problem | None:
    """``(sentence, tensor, its shape after resized())`` for the first thing that is wrong."""
    before = {name: tuple(get_tensor(model, name).shape) for name in tensor_names(model)}
    try:
        small = model.resized(dict(keep))
    except Exception as error:
        return f"resized() fails: {type(error).__name__}: {error}", None, None
    after = {name: tuple(get_tensor(small, name).shape) for name in tensor_names(small)}
    emptied = {n for n, s in before.items() if 0 in _expected(n, s, groups, keep)}
    lost = before.keys() - after.keys() - emptied  # what has no entries left need not be there
    for names, verb in ((lost, "drops"), (after.keys() - before, "adds")):
        if names:
            return (
                f"resized() {verb} {min(names)}; it must build the same layers, only narrower",
                None,
                None,
            )
    for name in (n for n in before if n in after):
        shape = before[name]
        expected = _expected(name, shape, groups, keep)
        flat = any(m.view for g in groups for m in g.members if m.name == name)
        size = torch.Size
        same = size(after[name]).numel() == size(expected).numel() if flat else False
        if after[name] != expected and not same:
            sentence = f"{name} of shape {shape} becomes {after[name]}, its members say {expected}"
            return sentence, name, after[name]
    now = {name: tuple(get_tensor(model, name).shape) for name in tensor_names(model)}
    if now != before:
        return "resized() changes the model itself; it must build a new one", None, None
    return None


def _expected(
    name: str, shape: tuple[int, ...], groups: list[ChannelGroup], keep: dict[str, Tensor]
) -> tuple[int, ...]:
    """The shape (of the view, where there is one) that the members leave."""
    seen, gone = shape, [set[int]() for _ in shape]  # entries that may go with several groups
    for group in groups:
        for member in group.members:
            if member.name == name:
                if member.view is not None:
                    seen = member.view
                    gone += [set() for _ in range(len(seen) - len(gone))]
                lost = torch.ones(group.n, dtype=torch.bool)
                lost[keep[group.name]] = False
                gone[member.axis].update(member.index[lost].flatten().tolist())
    return tuple(size - len(lost) for size, lost in zip(seen, gone, strict=False))


def _lesson(
    model: nn.Module,
    group: ChannelGroup,
    sentence: str,
    name: str | None,
    after: tuple[int, ...] | None,
) -> str:
    """What is wrong with one group, and how to mend it."""
    where = f"group {group.name}"
    if name is None or after is None:
        return f"{where}: {sentence}"
    shape = tuple(get_tensor(model, name).shape)
    members = [m for m in group.members if m.name == name]
    if not members:
        return f"{name} should shrink with {where} but is not among its members ({sentence})"
    if after == shape:
        return f"{where}: resized() leaves {name} as wide as it was, although it is a member"
    axes = [a for a in range(len(shape)) if a < len(after) and after[a] != shape[a]]
    if members[0].view is None and axes and axes[0] not in {m.axis for m in members}:
        return (
            f"{where}: {name} shrinks along axis {axes[0]}, but its member says axis "
            f"{members[0].axis}; rows (outputs) are axis 0 of a weight, columns (inputs) axis 1"
        )
    return f"{where}: {sentence}; check axis, offset and block size"
