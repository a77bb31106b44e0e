"""Which of the surviving weights do not move while the pruned model is fine-tuned."""

from __future__ import annotations

import torch
from torch import Tensor

from egnn_prune.channels import Prunable
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.masks import freeze_entries, lift_masks
from egnn_prune.pruning.tensors import parameter_names, spread, weight_members

MODES = ("pruned", "message_passing", "important", "none")


def freeze(
    model: Prunable,
    mode: str = "pruned",
    *,
    scores: dict[str, Tensor] | None = None,
    keep: dict[str, Tensor] | None = None,
    fraction: float = 0.25,
) -> None:
    """Freeze, in place, what the mode says.

    Args:
        model: a masked model (see :func:`egnn_prune.pruning.apply_masks`).
        mode: ``"pruned"``: nothing but the zeros, which stay zero; ``"message_passing"``: the
            survivors are locked and the heads learn; ``"important"``: the highest-scored
            surviving channels are locked, against overfitting to the graphs that the model is
            fine-tuned on; ``"none"``: not even the zeros, pruned channels may grow back (a
            control: they are removed again at compaction).
        scores: importance per group, for ``"important"``.
        keep: the channels that survive, for ``"important"``.
        fraction: the share of surviving channels that ``"important"`` locks.

    Raises:
        ConfigError: an unknown mode, a fraction outside [0, 1], ``"important"`` without scores and
            masks of every group, or a model that does not say what passes its messages.
    """
    if mode == "pruned":
        return
    if mode == "none":
        lift_masks(model)
    elif mode == "message_passing":
        passing = getattr(model, "message_passing_modules", None)
        if passing is None:
            raise ConfigError(
                f"{type(model).__name__} has no message_passing_modules() to be frozen; choose "
                "another mode, or let the method return their names"
            )
        for prefix in passing():
            for name in parameter_names(model.get_submodule(prefix)):
                freeze_entries(model, f"{prefix}.{name}")
    elif mode == "important":
        if scores is None or keep is None:
            raise ConfigError("freezing the important channels needs their scores and masks")
        _freeze_important(model, scores, keep, fraction)
    else:
        raise ConfigError(f"freezing must be one of {', '.join(MODES)}, not {mode!r}")


def _freeze_important(
    model: Prunable, scores: dict[str, Tensor], keep: dict[str, Tensor], fraction: float
) -> None:
    if not 0 <= fraction <= 1:
        raise ConfigError(f"the fraction of frozen channels lies in [0, 1], not {fraction}")
    groups = model.channel_groups()
    for name in (g.name for g in groups):
        if name not in scores or name not in keep:
            raise ConfigError(f"freezing the important channels needs scores and a mask of {name}")
    ranked = torch.cat([scores[g.name].double().cpu() for g in groups])
    alive = torch.cat([keep[g.name] for g in groups])
    best = ranked.masked_fill(~alive, -torch.inf).argsort(descending=True, stable=True)
    locked = torch.zeros_like(alive)
    locked[best[: int(fraction * int(alive.sum()))]] = True
    for group, channels in zip(groups, locked.split([g.n for g in groups]), strict=True):
        for member, tensor in weight_members(group, model):
            freeze_entries(model, member.name, spread(member, channels, tensor))
