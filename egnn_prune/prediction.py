"""What every model and every uncertainty method returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from egnn_prune.channels import Prunable
from egnn_prune.errors import ConfigError, InputError


@dataclass(frozen=True)
class Prediction:
    r"""A prediction with an error bar, split by where the uncertainty comes from.

    Members are draws from the distribution over models (MC-dropout samples, ensemble members,
    read-out heads). With member means :math:`\mu_m` and member variances :math:`\sigma_m^2`,

    .. math::
        \mu = \tfrac1M \sum_m \mu_m, \qquad
        \sigma^2_\text{aleatoric} = \tfrac1M \sum_m \sigma_m^2, \qquad
        \sigma^2_\text{epistemic} = \tfrac1{M-1} \sum_m (\mu_m - \mu)^2 .

    Source: Lakshminarayanan et al. 2017, Section 2.4 (there with 1/M; we use the unbiased form).

    Attributes:
        mean: ``[...]``, in the unit of the target.
        aleatoric: ``[...]``, noise that more data would not remove, in the unit squared.
        epistemic: ``[...]``, disagreement of the members, in the unit squared; 0 for one member.
        members: ``[M, ...]``, the members' means.
        member_variance: ``[M, ...]``, the members' own (aleatoric) variances.
    """

    mean: Tensor
    aleatoric: Tensor
    epistemic: Tensor
    members: Tensor
    member_variance: Tensor

    @classmethod
    def from_members(cls, means: Tensor, variances: Tensor | None = None) -> Prediction:
        """Combine the members.

        Args:
            means: ``[M, ...]``.
            variances: ``[M, ...]`` or ``None`` for a model without a variance output.

        Raises:
            InputError: there is no member, or the shapes differ.

        Example:
            >>> two = Prediction.from_members(torch.tensor([[1.0], [3.0]]))
            >>> two.mean, two.epistemic
            (tensor([2.]), tensor([2.]))
        """
        if means.dim() == 0 or means.shape[0] == 0:
            raise InputError("a Prediction needs at least one member along its first axis")
        if variances is None:
            variances = torch.zeros_like(means)
        if variances.shape != means.shape:
            raise InputError(
                f"member means {tuple(means.shape)} and variances {tuple(variances.shape)} "
                "must have the same shape"
            )
        several = means.shape[0] > 1
        return cls(
            mean=means.mean(0),
            aleatoric=variances.mean(0),
            epistemic=means.var(0, unbiased=True) if several else torch.zeros_like(means[0]),
            members=means,
            member_variance=variances,
        )

    @classmethod
    def stack(cls, parts: list[Prediction]) -> Prediction:
        """Pool the members of several predictions of the *same* graphs into one prediction."""
        return cls.from_members(
            torch.cat([p.members for p in parts]), torch.cat([p.member_variance for p in parts])
        )

    @classmethod
    def cat(cls, parts: list[Prediction]) -> Prediction:
        """Join predictions of *different* graphs, such as the batches of one data set.

        Raises:
            InputError: there is none, or they have different numbers of members.
        """
        counts = sorted({len(p.members) for p in parts})
        if len(counts) != 1:
            raise InputError(
                f"predictions to join must have one number of members, not {counts or 'no parts'}"
            )
        graphs = {name: int("member" in name) for name in vars(parts[0])}  # their axis
        return cls(**{k: torch.cat([getattr(p, k) for p in parts], a) for k, a in graphs.items()})

    def detach(self) -> Prediction:
        """The same numbers without their autograd history, on the CPU."""
        return Prediction(**{k: v.detach().cpu() for k, v in vars(self).items()})

    def flattened(self) -> Prediction:
        """Every component (such as a coordinate of a node) as a prediction of its own, ``[K]``."""
        if self.mean.dim() == 1:
            return self
        return Prediction(**{k: v.flatten(int("member" in k)) for k, v in vars(self).items()})

    @property
    def variance(self) -> Tensor:
        """Total predictive variance, aleatoric plus epistemic, ``[...]``, in the unit squared."""
        return self.aleatoric + self.epistemic

    @property
    def ood_variance(self) -> Tensor:
        """What chooses graphs and flags what is out of distribution, ``[...]``.

        The epistemic variance; the total one where the method has no epistemic part.
        """
        return self.epistemic if bool((self.epistemic > 0).any()) else self.variance

    doubt = ood_variance  # its name before


@dataclass(frozen=True)
class ClassPrediction:
    r"""Class probabilities with their uncertainty, for classifiers.

    With the members' probabilities :math:`p_{mbc}`,

    .. math::
        p_{bc} = \tfrac1M \sum_m p_{mbc}, \qquad
        H_b = -\sum_c p_{bc} \log p_{bc}, \qquad
        I_b = H_b + \tfrac1M \sum_{mc} p_{mbc} \log p_{mbc} .

    H is the total uncertainty, I (mutual information of class and member) its epistemic part.
    Source: Gal 2016, Eqs. 3.27-3.30; Houlsby et al. 2011.

    Attributes:
        logits: ``[M, B, C]``, the members' logits.
    """

    logits: Tensor

    def __post_init__(self) -> None:
        """Refuse logits of the wrong shape."""
        if self.logits.dim() != 3 or 0 in self.logits.shape[::2] or self.logits.shape[2] < 2:
            raise InputError(
                "a ClassPrediction needs logits [members, samples, classes] of at least one "
                f"member and two classes, not {tuple(self.logits.shape)}"
            )

    @classmethod
    def cat(cls, parts: list[ClassPrediction]) -> ClassPrediction:
        """Join predictions of *different* samples, such as the batches of one data set."""
        return cls(torch.cat([p.logits for p in parts], dim=1))

    def detach(self) -> ClassPrediction:
        """The same numbers without their autograd history, on the CPU."""
        return ClassPrediction(self.logits.detach().cpu())

    @property
    def members(self) -> Tensor:
        """The members' probabilities ``[M, B, C]``."""
        return self.logits.softmax(-1)

    @property
    def probabilities(self) -> Tensor:
        """Mean over the members, ``[B, C]``."""
        return self.members.mean(0)

    @property
    def label(self) -> Tensor:
        """The most probable class, ``[B]``."""
        return self.probabilities.argmax(-1)

    @property
    def confidence(self) -> Tensor:
        """The largest probability, ``[B]``."""
        return self.probabilities.amax(-1)

    @property
    def entropy(self) -> Tensor:
        """Total uncertainty H, ``[B]``, in nats."""
        return -torch.special.xlogy(self.probabilities, self.probabilities).sum(-1)

    @property
    def mutual_information(self) -> Tensor:
        """Epistemic uncertainty I, ``[B]``, in nats, at least 0; 0 for one member."""
        expected = -torch.special.xlogy(self.members, self.members).sum(-1).mean(0)
        return (self.entropy - expected).clamp(min=0)

    @property
    def energy(self) -> Tensor:
        r"""Mean over the members of :math:`-\log \sum_c e^{l_c}`, ``[B]`` (Liu et al. 2020)."""
        return -self.logits.logsumexp(-1).mean(0)


class Predictor(Prunable):
    """A network that returns a :class:`Prediction` and is fitted in units of its own scale.

    Attributes:
        unit: of what it predicts, where the network itself determines it; ``""`` otherwise.
        states_noise: whether it states a variance of its own.
        atom_layer: the submodule whose output ``[N, F]`` the last linear map reads of every atom;
            ``None`` where there is none.
    """

    unit: str = ""
    states_noise: bool = True
    atom_layer: str | None = None

    def normalised(self, batch: Any, samples: int = 1) -> tuple[Tensor, Tensor]:
        """Members' means and variances in units of the scale, each ``[M, ...]``."""
        raise NotImplementedError

    def normalise(self, batch: Any, y: Tensor | None) -> Tensor:
        """Targets ``[...]`` in units of the scale."""
        raise NotImplementedError

    def reference(self, batch: Any) -> Tensor:
        """What would be predicted without a network, ``[...]``, in the target's unit."""
        raise NotImplementedError

    def atom_energies(self, batch: Any, samples: int = 1) -> Tensor:
        """Members' energies of single atoms ``[M, N]``, whose sums are those of the graphs.

        Raises:
            ConfigError: what it predicts is no sum over atoms.
        """
        raise ConfigError(
            f"{type(self).__name__} does not state energies of single atoms, only of whole graphs"
        )

    def message_passing_modules(self) -> list[str]:
        """The submodules that freezing message passing locks."""
        raise NotImplementedError

    def config(self) -> dict[str, object]:
        """What builds this network again, as plain JSON."""
        raise NotImplementedError


def members_of(model: nn.Module) -> list[Predictor]:
    """The networks that share no weights: those of an ensemble, or the model alone."""
    members = getattr(model, "members", None)
    return cast(list[Predictor], list(members) if isinstance(members, nn.ModuleList) else [model])
