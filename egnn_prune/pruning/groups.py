"""What can be removed from a model, as a list that prints as a table."""

from __future__ import annotations

from typing import cast

from torch import nn

from egnn_prune.channels import ChannelGroup, Prunable
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.masks import keep_masks
from egnn_prune.pruning.tensors import by_entry, weight_members

#: Why the last layer of a traced network stays, which goes without saying.
RETURNED = "its channels are what the network returns"


class ChannelGroups(list[ChannelGroup]):
    """The groups of a model; ``print`` shows a table."""

    def __init__(self, model: nn.Module) -> None:
        model = checked(model)
        super().__init__(model.channel_groups())
        keep = keep_masks(model, self)
        self._rows = [
            (
                g.name,
                g.kind,
                str(g.n),
                str(int(keep[g.name].sum())),
                str(sum(by_entry(m, t)[0].numel() * m.index.numel() for m, t in pairs) // g.n),
                ", ".join(dict.fromkeys(m.name.removeprefix(_parent(g.name)) for m, _ in pairs)),
            )
            for g in self
            for pairs in [weight_members(g, model)]
        ]
        weights = sum(p.numel() for p in model.parameters())
        shrinking = {m.name: t.numel() for g in self for m, t in weight_members(g, model)}
        self._share = sum(shrinking.values()) / max(weights, 1)
        skipped: dict[str, str] = getattr(model, "skipped", {})
        self._left = {name: why for name, why in skipped.items() if why != RETURNED}

    def __str__(self) -> str:
        """One row per group."""
        head = ("group", "kind", "channels", "kept", "weights each", "tensors that shrink")
        rows = [head, *((*row[:5], _shortened(row[5])) for row in self._rows)]
        widths = [max(len(row[k]) for row in rows) for k in range(len(head) - 1)]
        lines = [
            "  ".join(
                [
                    *(
                        cell.rjust(w) if 2 <= k <= 4 else cell.ljust(w)
                        for k, (cell, w) in enumerate(zip(row, widths, strict=False))
                    ),
                    row[-1],
                ]
            )
            for row in rows
        ]
        lines.insert(1, "-" * max(len(line) for line in lines))
        total, kept = (sum(int(row[k]) for row in self._rows) for k in (2, 3))
        lines.append(
            f"{len(self)} groups, {kept} of {total} channels kept; the tensors that shrink hold "
            f"{self._share:.0%} of the weights"
        )
        lines += [f"left as it is: {name} ({why})" for name, why in self._left.items()]
        return "\n".join(lines)


def checked(model: nn.Module) -> Prunable:
    """The model, if the engine can prune it.

    Raises:
        ConfigError: the model declares none, or two of the same name.
    """
    if not (hasattr(model, "channel_groups") and hasattr(model, "resized")):
        raise ConfigError(
            f"{type(model).__name__} has no channel_groups() and resized(): it cannot be pruned as "
            "it is; declare them (docs/pruning.md, 'Prune a network of your own'), or wrap "
            "convolutional and fully connected networks in egnn_prune.pruning.TracedNetwork"
        )
    prunable = cast(Prunable, model)
    names = [g.name for g in prunable.channel_groups()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        what = f"two groups named {twice[0]}" if twice else "no channel group"
        raise ConfigError(f"{type(model).__name__} declares {what}; there is nothing to prune by")
    return prunable


def _parent(name: str) -> str:
    return name.rpartition(".")[0] + "."


def _shortened(text: str, width: int = 52) -> str:
    return text if len(text) <= width else text[: text.rfind(",", 0, width - 6)] + ", ..."
