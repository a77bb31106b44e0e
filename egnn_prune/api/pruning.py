"""Pruning in three lines: :func:`prune`, :func:`fine_tune`, :func:`compact`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from egnn_prune.adapters import TracedNetwork
from egnn_prune.adapters.propagation import first_line
from egnn_prune.channels import Prunable
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import (
    CRITERIA,
    Context,
    LatencyBudget,
    apply_masks,
    choose,
    choose_within,
    keep_masks,
    macs_of,
    score_channels,
)
from egnn_prune.pruning import compact as compact_prunable
from egnn_prune.pruning.calling import call, moved
from egnn_prune.pruning.criteria import DATA_FREE, Criterion
from egnn_prune.pruning.criteria.batches import check_batches, check_loss, inputs_of
from egnn_prune.pruning.groups import ChannelGroups, checked
from egnn_prune.pruning.stopwatch import Measure
from egnn_prune.system.device import choose_device
from egnn_prune.training import predictive_variance
from egnn_prune.training.batch_losses import Losses, default_loss

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

#: Batches that a criterion looks at by default.
BATCHES = 16


def prune(
    model: nn.Module,
    criterion: str | Criterion = "taylor",
    sparsity: float | None = None,
    *,
    data: Iterable[Any] | None = None,
    scope: str = "global",
    macs: float | None = None,
    latency: float | None = None,
    round_to: int = 1,
    compiled: bool = False,
    measure: Measure | None = None,
    loss: Losses | None = None,
    variance: Losses = predictive_variance,
    batches: int = BATCHES,
    seed: int = 0,
) -> Prunable:
    """Mask the least important channels of a copy of a model.

    ``prune`` may be called again on the result, with a higher sparsity: that is iterative pruning.

    Args:
        model: one of this package, any module with ``channel_groups()`` and ``resized()``, or a
            convolutional, fully connected or graph network such as a torchvision ResNet or
            PyG's ``GCN``, which is wrapped in a :class:`~egnn_prune.pruning.TracedNetwork`.
        criterion: a name in :data:`egnn_prune.pruning.CRITERIA`, or a function
            ``(group, context) -> [channels]``.
        sparsity: the fraction of channels removed, in [0, 1).
        data: batches, such as a ``DataLoader``: PyG batches with targets ``y``, or tuples
            ``(inputs, targets)``. Inputs may be a tensor, a PyG batch, or a tuple, which is spread
            out: ``((x, edge_index), y)`` calls ``model(x, edge_index)``. A PyG batch goes whole to
            a ``forward`` of one argument; a ``forward(x, edge_index)`` gets them by name.
        scope: what is ranked together: ``"global"``, ``"layer"``, ``"kind"`` or ``"group"``.
        macs: instead of a sparsity, the share of multiply-accumulates that may be left.
        latency: instead of a sparsity, the share of the wall time on the first batch that may be
            left. Channels go by their importance per millisecond, see
            :class:`~egnn_prune.pruning.LatencyBudget`.
        round_to: widths become multiples of this; 0: of what is fastest here, see
            :func:`egnn_prune.pruning.best_multiple`.
        compiled: for a latency, that of compiled networks (minutes, for each shape is compiled).
        measure: for a latency, takes the times, instead of the clock.
        loss: ``loss(model, batch) -> [samples]``; by default the training loss of this package's
            models, cross entropy for integer targets, squared error for others.
        variance: ``variance(model, batch) -> [samples]``, for the uncertainty criterion; by default
            that of this package's predictors.
        batches: number of batches that the criterion looks at.
        seed: of criteria that draw.

    Returns:
        A masked copy of the model; its masks hold through training.

    Raises:
        ConfigError: not exactly one of sparsity, macs and latency is given, data is missing where
            it is needed, the module cannot be pruned, or a budget cannot be met.
    """
    if sum(x is not None for x in (sparsity, macs, latency)) != 1:
        raise ConfigError("say how much to prune: give one of sparsity, macs and latency")
    if criterion == "movement":
        raise ConfigError(
            "movement watches training: use PruningCallback('movement', ...) in a fit"
        )
    if data is None and isinstance(criterion, str) and criterion in set(CRITERIA) - DATA_FREE:
        raise ConfigError(f"{criterion} needs data: pass data=..., such as a DataLoader")
    if batches < 1:
        raise ConfigError(f"batches is a number of batches, at least 1, not {batches}")
    check_batches(data)
    check_loss(loss)
    device = device_of(model)
    sample = None if data is None else [moved(b, device) for b in islice(data, batches)]
    if data is not None and not sample:
        raise ConfigError("data has not a single batch")
    pruned = checked(prunable(_copied(model), sample[0] if sample else None))
    groups = pruned.channel_groups()
    context = Context(
        pruned,
        groups,
        sample,
        loss or default_loss(pruned, sample[0] if sample else None),
        torch.Generator().manual_seed(seed),
        variance=variance,
    )
    scores = score_channels(criterion, context)
    before = keep_masks(pruned, groups)
    budget = None
    if latency is not None or not round_to:
        run = _on_first(sample, "a latency, or round_to=0,")
        budget = LatencyBudget(pruned, run, measure, compiled)
        round_to = round_to or budget.best_multiple()
    how: dict[str, Any] = {"keep": before, "round_to": round_to}
    if sparsity is not None:
        keep = choose(scores, sparsity, scope, groups=groups, **how)
    elif budget is not None and latency is not None:
        keep = budget.choose(scores, latency, scope, **how)
    else:
        assert macs is not None
        cost = macs_of(_on_first(sample, "a budget of MACs"))
        keep = choose_within(pruned, groups, scores, cost, macs, scope, **how)
    apply_masks(pruned, keep, groups)
    return pruned


def fine_tune(
    model: nn.Module,
    data: Iterable[Any],
    *,
    steps: int = 500,
    lr: float = 1e-3,
    weight_decay: float = 1e-2,
    clip: float = 5.0,
    loss: Losses | None = None,
    device: str = "auto",
    callbacks: list[Callback] | None = None,
    schedule: str = "onecycle",
    mixed_precision: str = "none",
) -> nn.Module:
    """Train a model in place, with AdamW; masked channels stay zero.

    Args:
        model: usually the result of :func:`prune`.
        data: batches, begun again as often as needed, as for :func:`prune`.
        steps: optimiser steps.
        lr: highest learning rate.
        weight_decay: AdamW's.
        clip: largest norm of the gradient.
        loss: as for :func:`prune`.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        callbacks: Lightning callbacks, such as a ``PruningCallback``.
        schedule: how the rate goes: ``"onecycle"``, ``"cosine"`` or ``"constant"``.
        mixed_precision: ``"bf16"`` multiplies matrices in bfloat16 while training, on a GPU that
            is fast at it.

    Returns:
        The same model, in evaluation mode, on the CPU.

    Raises:
        ConfigError: there is no data, no such device, schedule or precision, or the loss became
            NaN or infinite.
    """
    # Lightning: pruning does without
    from egnn_prune.training import FitSettings, RegressionTask, fit

    check_batches(data)
    check_loss(loss)
    if isinstance(data, Iterator):  # it would be used up after one pass
        data = list(data)
    first = next(iter(data), None)
    if first is None:
        raise ConfigError("data has not a single batch")
    if isinstance(data, list | tuple):  # for lightning a list is several loaders side by side
        data = DataLoader(data, batch_size=None, collate_fn=_as_it_is)  # type: ignore[arg-type]
    how = FitSettings(
        steps, lr, weight_decay, clip, schedule=schedule, mixed_precision=mixed_precision
    )
    task = RegressionTask(model, how, loss or default_loss(model, first))
    fit(task, data, device=choose_device(device), label="fine-tuning", callbacks=callbacks or ())
    return model


def compact(model: nn.Module) -> nn.Module:
    """Remove the masked channels for real; a pure function, see :func:`egnn_prune.pruning.compact`.

    A third-party network comes back as what it was, such as a smaller torchvision ResNet.

    Raises:
        ConfigError: the module cannot be pruned, and so was not.
    """
    if isinstance(model, nn.Module) and not hasattr(model, "channel_groups"):
        raise ConfigError(
            f"{type(model).__name__} cannot be made compact: compact() takes what prune() "
            "returned, with its masks, and what compact() returned is small already"
        )
    small = compact_prunable(checked(model))
    return small.network if isinstance(small, TracedNetwork) else small


def channel_groups(model: nn.Module, example: Any | None = None) -> ChannelGroups:
    """What can be removed from a model; ``print`` shows it as a table.

    Args:
        model: as for :func:`prune`.
        example: inputs, for third-party networks.

    Raises:
        ConfigError: the module cannot be pruned.
    """
    return ChannelGroups(prunable(model, example))


def prunable(model: nn.Module, batch: Any | None) -> nn.Module:
    """The model, wrapped in a :class:`TracedNetwork` where it does not declare its own groups.

    Raises:
        ConfigError: it has to be traced and there is no batch to trace it with.
    """
    if hasattr(model, "channel_groups"):
        return model
    if batch is None:
        raise ConfigError(
            f"{type(model).__name__} declares no channel groups; they can be found by tracing, "
            "which needs a batch: pass data=... (or an example of its inputs)"
        )
    return TracedNetwork(model, inputs_of(batch))


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter is.

    Raises:
        ConfigError: there is none, or this is no module at all.
    """
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    if first is None:
        raise ConfigError(f"a {type(model).__name__} has no parameters, so nothing can be pruned")
    return first.device


def _on_first(sample: list[Any] | None, what: str) -> Callable[[nn.Module], Any]:
    """Calls a model with the first batch.

    Raises:
        ConfigError: there is none.
    """
    if not sample:
        raise ConfigError(f"{what} is measured on data; pass data=...")
    inputs = inputs_of(sample[0])
    return lambda m: call(m, inputs)


def _copied(model: nn.Module) -> nn.Module:
    """A copy to be masked: of the network itself, where it was compiled."""
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        raise ConfigError(
            f"{type(model).__name__} cannot be copied ({first_line(error)}); a weight that is "
            "computed from others, as by torch.nn.utils.weight_norm, has to be made plain first: "
            "remove_weight_norm(layer)"
        ) from None


def _as_it_is(batch: Any) -> Any:
    return batch
