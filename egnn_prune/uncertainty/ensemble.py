"""Deep ensembles: independent networks, trained, pruned and evaluated as one module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.channels import ChannelGroup
from egnn_prune.errors import ConfigError
from egnn_prune.prediction import ClassPrediction, Prediction, Predictor, members_of
from egnn_prune.uncertainty.estimator import Estimator, Predicted, as_prediction


class DeepEnsemble(Predictor):
    """Independent members whose predictions are pooled (Lakshminarayanan et al. 2017).

    The members' channel groups are the ensemble's groups, so the pruning engine treats it like any
    other network. They share no weights; fitted together they see the same batches and one limit on
    the gradient norm. What no weight changes (checks, neighbour list, encoding) is done once a
    batch where members offer ``prepared(batch)``. Members run one after another: stacked products,
    whether by ``torch.vmap`` or written out, take 1.3 to 1.7 times as long on a CPU, because the
    activations of one member fit its caches and those of five do not.

    Args:
        members: at least two models that all return a :class:`Prediction`, or all logits
            ``[B, C]``.

    Raises:
        ConfigError: there are fewer than two members, they are estimators or scale their target
            differently, or (in ``forward``) they predict different things.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if len(members) < 2:
            raise ConfigError(f"a deep ensemble needs at least 2 members, not {len(members)}")
        if any(isinstance(member, Estimator) for member in members):
            raise ConfigError(
                "members of a deep ensemble are networks; pooling would lose what an estimator adds"
            )
        self.check_alike(members)
        self.members = nn.ModuleList(members)

    @staticmethod
    def check_alike(members: Sequence[nn.Module]) -> None:
        """Refuse members that cannot be pooled; subclasses ask for something else.

        Raises:
            ConfigError: they scale their target differently.
        """
        if any(getattr(m, "scale", None) != getattr(members[0], "scale", None) for m in members):
            raise ConfigError(
                "members of a deep ensemble must share the scale of their target; build them on "
                "the same training data"
            )

    def forward(self, batch: Any, samples: int = 1) -> Predicted:
        """Pool the members of all models (``samples`` as for one model)."""
        batch = self.prepared(batch)
        several = {"samples": samples} if samples > 1 else {}
        return pooled([as_prediction(member(batch, **several)) for member in self.members])

    def prepared(self, batch: Any) -> Any:
        """The batch with what members share, where they know how to prepare it."""
        if any(self._reads(m) != self._reads(self.members[0]) for m in self.members):
            return batch  # each prepares its own
        prepare: Any = getattr(self.members[0], "prepared", lambda same: same)
        return prepare(batch)

    @staticmethod
    def _reads(member: nn.Module) -> tuple[type, object]:
        return type(member), getattr(member, "elements", None)

    def normalised(self, batch: Any, samples: int = 1) -> tuple[Tensor, Tensor]:
        """All members' means and variances in units of the target's scale, ``[M, B]``."""
        batch = self.prepared(batch)
        outputs = [member.normalised(batch, samples) for member in members_of(self)]
        return torch.cat([m for m, _ in outputs]), torch.cat([v for _, v in outputs])

    def atom_energies(self, batch: Any, samples: int = 1) -> Tensor:
        """All members' energies of single atoms, ``[M, N]``."""
        batch = self.prepared(batch)
        return torch.cat([member.atom_energies(batch, samples) for member in members_of(self)])

    def normalise(self, batch: Any, y: Tensor | None) -> Tensor:
        """Targets in units of the scale, which all members share."""
        return members_of(self)[0].normalise(batch, y)

    def reference(self, batch: Any) -> Tensor:
        """What would be predicted without networks."""
        return members_of(self)[0].reference(batch)

    def channel_groups(self) -> list[ChannelGroup]:
        """The groups of every member, prefixed with its place."""
        return [
            group.prefixed(f"members.{i}")
            for i, member in enumerate(members_of(self))
            for group in member.channel_groups()
        ]

    def message_passing_modules(self) -> list[str]:
        """What freezing message passing locks, in every member."""
        return [
            f"members.{i}.{name}"
            for i, member in enumerate(members_of(self))
            for name in member.message_passing_modules()
        ]

    def resized(self, keep: dict[str, Tensor]) -> DeepEnsemble:
        """Members of the sizes that ``keep`` gives them (weights not copied)."""
        small = []
        for i, member in enumerate(members_of(self)):
            prefix = f"members.{i}."
            own = {k.removeprefix(prefix): v for k, v in keep.items() if k.startswith(prefix)}
            small.append(member.resized(own))
        return type(self)(small)

    def config(self) -> dict[str, object]:
        """The members' classes and architectures, as plain JSON."""
        return {
            "members": [
                {"class": type(m).__name__, "architecture": m.config()} for m in members_of(self)
            ]
        }


def pooled(parts: Sequence[Predicted]) -> Predicted:
    """The members of several predictions of the *same* samples as one prediction.

    Raises:
        ConfigError: the predictions differ in kind or shape.
    """
    regressors = [p for p in parts if isinstance(p, Prediction)]
    classifiers = [p for p in parts if isinstance(p, ClassPrediction)]
    # compared one by one: the symbolic sizes of an export cannot be hashed
    shapes = [p.mean.shape for p in regressors] + [p.logits.shape[1:] for p in classifiers]
    if any(shape != shapes[0] for shape in shapes) or (regressors and classifiers):
        raise ConfigError(
            "members of an ensemble must predict the same thing, not "
            + " and ".join(sorted({str(tuple(shape)) for shape in shapes}))
        )
    if classifiers:
        return ClassPrediction(torch.cat([p.logits for p in classifiers]))
    return Prediction.stack(regressors)
