"""Several potentials of the same elements, whose disagreement is the error bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.adapters.potential import AdoptedPotential
from egnn_prune.errors import ConfigError
from egnn_prune.models import TargetScale
from egnn_prune.prediction import members_of
from egnn_prune.uncertainty import DeepEnsemble


class Committee(DeepEnsemble):
    r"""Independent potentials, each with shifts and scales of its own, pooled in eV.

    .. math:: E = \tfrac1M \sum_m E_m, \qquad F = \tfrac1M \sum_m F_m

    Their shifts differ because each was fitted to its own draw of the data, so energies are pooled
    after the shifts; a :class:`~egnn_prune.uncertainty.DeepEnsemble` pools in units that all
    members share. Where the units of a scale are asked for (in training), they are those of the
    first member. Source: Schran et al. 2020 (query by committee of potentials).

    Args:
        members: at least two potentials of the same elements in the same order.

    Raises:
        ConfigError: there are fewer, or they are no potentials or know other elements.

    Shapes:
        as :class:`AdoptedPotential`, with M members.
    """

    unit = "eV"
    states_noise = False

    @staticmethod
    def check_alike(members: Sequence[nn.Module]) -> None:
        """Refuse what is no potential, and potentials of other elements.

        Raises:
            ConfigError: there is one.
        """
        for member in members:
            if not isinstance(member, AdoptedPotential):
                raise ConfigError(
                    f"members of a committee are adopted potentials, not {type(member).__name__}; "
                    "pool others in a DeepEnsemble"
                )
            if member.elements != members[0].elements:
                raise ConfigError(
                    "members of a committee must know the same elements in the same order; cut "
                    "them from the same teacher"
                )

    @property
    def first(self) -> AdoptedPotential:
        """The member in whose units the committee is trained."""
        member = self.members[0]
        assert isinstance(member, AdoptedPotential)
        return member

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that all members know."""
        return self.first.elements

    @property
    def scale(self) -> TargetScale:
        """The first member's; setting it moves the shifts of all members by the same energies."""
        return self.first.scale

    @scale.setter
    def scale(self, wanted: TargetScale) -> None:
        pairs = zip(wanted.per_element, self.scale.per_element, strict=True)
        change = [new - old for new, old in pairs]
        for member in self.members:
            potential: Any = member
            moved = zip(potential.scale.per_element, change, strict=True)
            potential.scale = replace(potential.scale, per_element=tuple(c + d for c, d in moved))

    def normalised(self, batch: Any, samples: int = 1) -> tuple[Tensor, Tensor]:
        """Members' energies, less the first one's shifts and in its scale, and zeros, ``[M, B]``.

        In float64: the difference of two shifts is added to each.
        """
        batch = self.prepared(batch)
        reference, scale = self.reference(batch), self.scale.scale
        means = [(member(batch, samples).members - reference) / scale for member in self.members]
        joined = torch.cat(means)
        return joined, torch.zeros_like(joined)

    def config(self) -> dict[str, object]:
        """The members' architectures, as plain JSON."""
        return {
            "members": [
                {"class": "AdoptedPotential", "architecture": m.config()} for m in members_of(self)
            ]
        }
