"""Check that a module of any kind can be pruned: its groups, its smaller copies, its gates."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from egnn_prune.channels import ChannelGate, ChannelGroup, Prunable
from egnn_prune.errors import ConfigError
from egnn_prune.evaluation.equivariance import equivariance_error, model_outputs, output_scale
from egnn_prune.pruning import apply_masks, compact, keep_masks, register_masks, remove_masks
from egnn_prune.pruning.criteria.batches import sample_count
from egnn_prune.pruning.criteria.gate_passes import opened_gates
from egnn_prune.pruning.groups import checked
from egnn_prune.pruning.masks import weight_names
from egnn_prune.testing.declaration import check_members, check_resized
from egnn_prune.testing.equivariance import assert_equivariant, default_tolerance

Keep = dict[str, Tensor]


def assert_prunable(
    model: nn.Module,
    batch: Any,
    *,
    tolerance: float | None = None,
    sparsities: Sequence[float] = (0.25, 0.5, 0.75),
    equivariance: bool | None = None,
) -> None:
    """Fail, and say what to mend, unless a module can be pruned without changing what it computes.

    Checked, in this order: every group's members exist, fit and do not overlap; ``resized()``
    shrinks exactly these tensors; masked and compact copies agree; ``deepcopy`` and ``state_dict``
    keep the masks; a closed gate is a removed channel; symmetries survive. All of it on copies in
    evaluation mode, with weights slightly shaken: the zeros and ones of fresh layers hide mistakes.

    Args:
        model: a module with ``channel_groups()`` and ``resized()``, or a
            :class:`~egnn_prune.pruning.TracedNetwork`.
        batch: what it is called with: a PyG batch or a tensor.
        tolerance: the largest deviation over an output's largest value; by default 1e-10 where
            both the model and its input are in float64, 1e-5 otherwise.
        sparsities: fractions of every group's channels that are removed.
        equivariance: whether symmetries are checked; ``None`` checks them where the batch has
            ``pos`` and the model is equivariant before pruning.

    Raises:
        AssertionError: names the group and the tensor, and says how to mend it.
    """
    try:
        dense = _shaken(checked(model))
    except ConfigError as error:
        raise AssertionError(str(error)) from error
    tolerance = default_tolerance(model, batch) if tolerance is None else tolerance
    groups = dense.channel_groups()
    case = _Case(dense, groups, batch, tolerance)
    check_members(case.model, groups)
    check_resized(case.model, groups)
    for turn, sparsity in enumerate(sparsities):
        case.check_compact(_random_keep(groups, sparsity, turn))
    case.check_copies()
    case.check_gates()
    case.check_symmetry(equivariance)


@dataclass(frozen=True)
class _Case:
    """A shaken copy of a module, its groups, what it is called with, and how exact it has to be."""

    model: Prunable
    groups: list[ChannelGroup]
    batch: Any
    tolerance: float

    def masked(self, keep: Keep) -> Prunable:
        """A copy of the module with masks."""
        masked = copy.deepcopy(self.model)
        apply_masks(masked, keep)
        return masked

    def run(self, model: nn.Module) -> dict[str, Tensor]:
        """What a module returns for the batch."""
        with torch.no_grad():
            return model_outputs(model(self.batch))

    def difference(
        self, expected: dict[str, Tensor], found: dict[str, Tensor], who: str
    ) -> str | None:
        """How two results differ, if they do by more than rounding."""
        for name, value in expected.items():
            other = found[name]
            if value.shape != other.shape and value.dim() == other.dim() > 1:
                # an output may consist of channels that were removed
                value = value[..., (value != 0).flatten(0, -2).any(0)]
            if value.shape != other.shape:
                return (
                    f"{name} of {who} has the shapes {tuple(value.shape)} and "
                    f"{tuple(other.shape)}; leave channels that are returned out of the groups"
                )
            deviation = float((value - other).abs().max()) if value.numel() else 0.0
            scale = output_scale(name, expected, None)
            if not deviation <= self.tolerance * scale:
                return (
                    f"{name} of {who} differs by {deviation / scale:.1e} of its scale "
                    f"(allowed: {self.tolerance:.0e})"
                )
        return None

    def check_compact(self, keep: Keep) -> None:
        """Masked and compact agree; where they do not, find out with which group alone."""
        problem = self.disagreement(keep)
        if problem is None:
            return
        everything = {g.name: torch.ones(g.n, dtype=torch.bool) for g in self.groups}
        for group in self.groups:
            alone = self.disagreement({**everything, group.name: keep[group.name]})
            if alone is not None:
                raise AssertionError(f"group {group.name}: {alone}\n{_advice(self.model, group)}")
        raise AssertionError(
            f"each group can be removed alone, but not all together: {problem}; look for entries "
            "that two groups claim, and for widths that resized() mixes up"
        )

    def disagreement(self, keep: Keep) -> str | None:
        """What goes wrong between the masked and the compact copy, if anything."""
        masked = self.masked(keep)
        try:
            small = compact(masked)
        except Exception as error:
            raise AssertionError(f"compact() fails: {error}") from error
        try:
            after = self.run(small)
        except Exception as error:
            return f"the compact copy cannot be run: {type(error).__name__}: {error}"
        return self.difference(self.run(masked), after, "the masked and the compact copy")

    def check_copies(self) -> None:
        """Masks follow ``deepcopy`` and ``state_dict``."""
        keep = _random_keep(self.groups, 0.5, seed=7)
        masked = self.masked(keep)
        loaded = copy.deepcopy(self.model)
        register_masks(loaded, weight_names(loaded, self.groups))
        loaded.load_state_dict(masked.state_dict())
        for way, twin in (("deepcopy", copy.deepcopy(masked)), ("state_dict", loaded)):
            kept = keep_masks(twin)
            lost = [name for name, mask in keep.items() if not torch.equal(kept[name], mask)]
            problem = self.difference(self.run(masked), self.run(twin), "model and copy")
            if lost or problem:
                raise AssertionError(
                    f"{way} does not keep the masks of group {lost[0]}"
                    if lost
                    else f"{way} changes what the masked model computes: {problem}; keep all that "
                    "matters in parameters, buffers and submodules"
                )

    def check_gates(self) -> None:
        """A gate at one changes nothing; a gate at zero removes the channel."""
        gated = [g for g in self.groups if g.gate]
        keep = _random_keep(self.groups, 0.5, seed=11)
        if gated and self.gate_problem(gated, keep):
            for group in gated:  # whose is it?
                problem = self.gate_problem([group], keep)
                if problem:
                    raise AssertionError(f"group {group.name}, gate {group.gate}: {problem}")
            problem = self.gate_problem(gated, keep)
            raise AssertionError(f"each gate works alone, but all together: {problem}")

    def gate_problem(self, gated: list[ChannelGroup], keep: Keep) -> str | None:
        """What goes wrong when the gates of some groups are opened and closed, if anything."""
        gates = [cast(ChannelGate, self.model.get_submodule(g.gate)) for g in gated if g.gate]
        like = next(self.model.parameters())
        ones = [like.new_ones(sample_count(self.batch), g.n) for g in gated]
        zeros = [o * keep[g.name].to(like) for o, g in zip(ones, gated, strict=True)]
        first = [torch.cat([z[:1], o[1:]]) for z, o in zip(zeros, ones, strict=True)]
        before, results = self.run(self.model), []
        for values in (ones, zeros, first):
            try:
                with opened_gates(gates, values):
                    results.append(self.run(self.model))
            except (RuntimeError, IndexError) as error:
                return (
                    f"the model cannot be run with its gates opened ({error}); call them with x "
                    "[rows, channels, ...] and graph [rows], the number of the sample of each row"
                )
        opened, closed, partly = results
        removed = {g.name: torch.ones(g.n, dtype=torch.bool) for g in self.groups}
        masked = self.run(self.masked(removed | {g.name: keep[g.name] for g in gated}))
        problem = self.difference(before, opened, "gates at one and no gates")
        if problem:
            return f"{problem}; a gate must only multiply its channels"
        problem = self.difference(masked, closed, "removed channels and gates at zero")
        if problem and self.difference(before, closed, "") is None:
            return (
                "closing it changes nothing; the channels must flow through it in forward(), as in "
                "x = self.gate(x, graph)"
            )
        if problem:
            return (
                f"{problem}; put the gate behind the last operation that can make something out of "
                "a zero channel (a bias, an activation with f(0) != 0, a batch norm) and before "
                "every layer that reads the channels"
            )
        alone = {
            k: torch.cat([closed[k][:1], v[1:]])
            if v.dim() and len(v) == len(ones[0])
            else partly[k]
            for k, v in before.items()
        }
        problem = self.difference(alone, partly, "the first sample's gate and all others'")
        if problem:
            return f"{problem}; give the gate the number of each row's sample as its graph"
        return None

    def check_symmetry(self, wanted: bool | None) -> None:
        """What holds for the dense model holds for the compact one."""
        if wanted is None:
            graphs = getattr(self.batch, "pos", None) is not None
            wanted = graphs and equivariance_error(self.model, self.batch) <= self.tolerance
        if wanted:
            assert_equivariant(self.model, self.batch, tolerance=self.tolerance)
            small = compact(self.masked(_random_keep(self.groups, 0.5, seed=13)))
            try:
                assert_equivariant(small, self.batch, tolerance=self.tolerance)
            except AssertionError as error:
                raise AssertionError(f"after compaction: {error}") from error


def _random_keep(groups: Iterable[ChannelGroup], sparsity: float, seed: int) -> Keep:
    """Masks that remove the share of every group, at random, but never all of its channels.

    Groups of one channel each that are a family are one group here.
    """
    generator = torch.Generator().manual_seed(seed)
    keep = {}
    groups = list(groups)
    for family in {g.family for g in groups if g.n == 1 and g.family}:
        single = [g for g in groups if g.family == family and g.n == 1]
        gone = torch.randperm(len(single), generator=generator)[: round(sparsity * len(single))]
        for k, group in enumerate(single):
            keep[group.name] = torch.tensor([k not in gone[: len(single) - 1].tolist()])
    for group in (g for g in groups if g.name not in keep):
        order = torch.randperm(group.n, generator=generator)
        keep[group.name] = torch.ones(group.n, dtype=torch.bool)
        keep[group.name][order[: min(round(sparsity * group.n), group.n - 1)]] = False
    return keep


@torch.no_grad()
def _shaken(model: Prunable) -> Prunable:
    """A copy in evaluation mode, without masks, whose weights and statistics are all different."""
    model = copy.deepcopy(model)
    remove_masks(model)
    generator = torch.Generator().manual_seed(0)
    buffers = [(n, b) for n, b in model.named_buffers() if n.endswith("running_mean")]
    for _, tensor in [*model.named_parameters(), *buffers]:
        if tensor.is_floating_point() and tensor.numel():
            size = tensor.abs().mean() if bool(tensor.any()) else 1.0
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor += 0.1 * size * noise.to(tensor)
    for name, tensor in model.named_buffers():
        if name.endswith("running_var"):
            noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            tensor *= 0.7 + 0.6 * noise.to(tensor)
    return model.eval()


def _advice(model: nn.Module, group: ChannelGroup) -> str:
    """What to look for when masked and compact copies differ."""
    mixing = (nn.LayerNorm, nn.GroupNorm, nn.Softmax, nn.LocalResponseNorm, nn.RMSNorm)
    found = [f"{n} ({type(m).__name__})" for n, m in model.named_modules() if isinstance(m, mixing)]
    suspects = f"; suspects: {', '.join(found)}" if found else ""
    names = ", ".join(dict.fromkeys(m.name for m in group.members))
    return (
        f"either an axis or an offset in its members ({names}) is wrong, or an operation mixes "
        "its channels, such as a norm over them, so that the count of removed ones matters"
        f"{suspects}; let such operations see live channels only, or leave the group out"
    )
