"""Deep ensembles: independent networks, trained, pruned and evaluated as one module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.channels import ChannelGroup
from egnn_prune.errors import ConfigError
from egnn_prune.prediction import Prediction


class DeepEnsemble(nn.Module):
    """Independent members whose predictions are pooled (Lakshminarayanan et al. 2017).

    The members' channel groups are the ensemble's groups, so the pruning engine treats it like any
    other network. Members run one after another: stacked products lose to this loop on a CPU. They
    share no weights; fitted together they see the same batches and one limit on the gradient norm.

    Args:
        members: at least two models that return a :class:`Prediction`.

    Raises:
        ConfigError: there are fewer than two members.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if len(members) < 2:
            raise ConfigError(f"a deep ensemble needs at least 2 members, not {len(members)}")
        self.members = nn.ModuleList(members)

    def forward(self, batch: Any, samples: int = 1) -> Prediction:
        """Pool the members of all models (``samples`` as for one model)."""
        return Prediction.stack([member(batch, samples=samples) for member in self.members])

    def normalised(self, batch: Any, samples: int = 1) -> tuple[Tensor, Tensor]:
        """All members' means and variances in units of the target's scale, ``[M, B]``."""
        outputs = [member.normalised(batch, samples) for member in self.members]  # type: ignore[operator]
        return torch.cat([m for m, _ in outputs]), torch.cat([v for _, v in outputs])

    def normalise(self, batch: Any, y: Tensor) -> Tensor:
        """Targets in units of the scale, which all members share."""
        return self.members[0].normalise(batch, y)  # type: ignore[operator]

    def channel_groups(self) -> list[ChannelGroup]:
        """The groups of every member, prefixed with its place."""
        return [
            group.prefixed(f"members.{i}")
            for i, member in enumerate(self.members)
            for group in member.channel_groups()  # type: ignore[operator]
        ]

    def message_passing_modules(self) -> list[str]:
        """What freezing message passing locks, in every member."""
        return [
            f"members.{i}.{name}"
            for i, member in enumerate(self.members)
            for name in member.message_passing_modules()  # type: ignore[operator]
        ]

    def resized(self, keep: dict[str, Tensor]) -> DeepEnsemble:
        """Members of the sizes that ``keep`` gives them (weights not copied)."""
        small = []
        for i, member in enumerate(self.members):
            prefix = f"members.{i}."
            own = {k.removeprefix(prefix): v for k, v in keep.items() if k.startswith(prefix)}
            small.append(member.resized(own))  # type: ignore[operator]
        return DeepEnsemble(small)

    def architecture(self) -> dict[str, object]:
        """The members' classes and architectures, as plain JSON."""
        return {
            "members": [
                {"class": type(m).__name__, "architecture": m.architecture()}  # type: ignore[operator]
                for m in self.members
            ]
        }
