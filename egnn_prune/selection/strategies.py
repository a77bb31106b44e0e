"""Strategies: from evidence to row numbers. To add one, write a function and name it at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from egnn_prune.errors import ConfigError
from egnn_prune.selection.geometry import greedy_k_centre, k_means
from egnn_prune.selection.sample_scores import SampleScores

#: ``diverse`` chooses among this many times as many samples as it returns, the most uncertain ones.
CANDIDATES = 2
#: Prototypes of ``prototype``; each gets an equal share of the selection.
PROTOTYPES = 16


@dataclass(frozen=True)
class Rule:
    """How many samples, and which.

    Attributes:
        count: samples to select; ``threshold`` ignores it.
        threshold: smallest uncertainty, in its unit, for ``threshold``.
        band: lowest and highest quantile of uncertainty, for ``band``.
    """

    count: int
    threshold: float = 0.0
    band: tuple[float, float] = (0.0, 1.0)


#: ``strategy(evidence, rule, generator)`` returns different row numbers, the same for equal seeds.
Strategy = Callable[[SampleScores, Rule, torch.Generator], Tensor]


def top(sample_scores: SampleScores, rule: Rule, _: torch.Generator) -> Tensor:
    """The most uncertain samples, most uncertain first."""
    return _descending(sample_scores.uncertainty)[: rule.count]


def least(sample_scores: SampleScores, rule: Rule, _: torch.Generator) -> Tensor:
    """The *least* uncertain samples: the control that ought to do worst."""
    return sample_scores.uncertainty.argsort(stable=True)[: rule.count]


def random(sample_scores: SampleScores, rule: Rule, generator: torch.Generator) -> Tensor:
    """Random samples, blind to uncertainty: the control that has to be beaten."""
    return torch.randperm(len(sample_scores), generator=generator)[: rule.count]


def proportional(sample_scores: SampleScores, rule: Rule, generator: torch.Generator) -> Tensor:
    """Drawn without replacement, with probability proportional to uncertainty.

    Raises:
        ConfigError: too few samples have a positive uncertainty.
    """
    weights = sample_scores.uncertainty.double().clamp(min=0)
    if int((weights > 0).sum()) < rule.count:
        raise ConfigError("fewer samples have a positive uncertainty than selection.fraction asks")
    return torch.multinomial(weights, rule.count, generator=generator)


def threshold(sample_scores: SampleScores, rule: Rule, _: torch.Generator) -> Tensor:
    """All samples whose uncertainty exceeds the threshold, most uncertain first.

    Raises:
        ConfigError: there is none.
    """
    order = _descending(sample_scores.uncertainty)
    chosen = order[sample_scores.uncertainty[order] > rule.threshold]
    if len(chosen) == 0:
        raise ConfigError(
            f"no training sample has an uncertainty above {rule.threshold:g}; the largest is "
            f"{float(sample_scores.uncertainty.max()):g}"
        )
    return chosen


def band(sample_scores: SampleScores, rule: Rule, generator: torch.Generator) -> Tensor:
    """Random samples between two quantiles of uncertainty: unsure ones, but not the outliers.

    As many as the other strategies take, so that they can be compared; all of the band where it
    holds fewer.

    Raises:
        ConfigError: the band holds no sample.
    """
    low, high = (round(quantile * len(sample_scores)) for quantile in rule.band)
    inside = sample_scores.uncertainty.argsort(stable=True)[low:high]
    if len(inside) == 0:
        raise ConfigError(
            f"no training sample lies between the quantiles {rule.band[0]:g} and "
            f"{rule.band[1]:g} of uncertainty; widen selection.band"
        )
    return inside[torch.randperm(len(inside), generator=generator)[: rule.count]]


def loss(sample_scores: SampleScores, rule: Rule, _: torch.Generator) -> Tensor:
    """The samples with the highest training loss, highest first (needs labels).

    Raises:
        ConfigError: the evidence has no losses.
    """
    return _descending(_needed(sample_scores.losses, "loss", "losses"))[: rule.count]


def diverse(sample_scores: SampleScores, rule: Rule, _: torch.Generator) -> Tensor:
    """Greedy k-centre among the most uncertain samples, :data:`CANDIDATES` times as many.

    So a sample is unsure *and* unlike the others chosen; from half of the samples on, uncertainty
    only chooses the first centre. Sources: Sener and Savarese 2018, Algorithm 1, for the centres;
    Zhdanov 2019 for looking for diversity among the most informative samples only.

    Raises:
        ConfigError: the evidence has no embeddings.
    """
    embeddings = _needed(sample_scores.embeddings, "diverse", "embeddings")
    unsure = _descending(sample_scores.uncertainty)[: CANDIDATES * rule.count]
    return unsure[greedy_k_centre(embeddings[unsure], rule.count, covered=sample_scores.covered)]


def prototype(sample_scores: SampleScores, rule: Rule, generator: torch.Generator) -> Tensor:
    r"""As many samples of every prototype, the unsure ones near a boundary first.

    From GDeR (Zhang et al. 2024) come the idea to select evenly over prototypes of embeddings on
    the unit sphere, so that no majority dominates, and to prefer samples not yet learnt. Theirs
    are trained with the network, one or more a class, and outliers are avoided. Ours are found
    after training and without classes, by seeded k-means; within a prototype samples come in the
    order of

    .. math::
        s_i = u_i \, d_{i1} / d_{i2}

    with the uncertainty u and the distances to the nearest and second nearest prototype: the
    quotient is 1 on the boundary between two. Outliers are not avoided: on error-free labels they
    are what the network knows least.

    Raises:
        ConfigError: the evidence has no embeddings.
    """
    embeddings = _needed(sample_scores.embeddings, "prototype", "embeddings")
    points = F.normalize(embeddings - embeddings.mean(0), dim=1)
    distance = torch.cdist(points, k_means(points, PROTOTYPES, generator))
    owner = distance.argmin(1)
    if distance.shape[1] > 1:
        near = distance.topk(2, largest=False).values
        boundary = near[:, 0] / near[:, 1].clamp(min=torch.finfo(near.dtype).tiny)
    else:
        boundary = torch.ones_like(sample_scores.uncertainty)
    order = _descending(sample_scores.uncertainty * boundary)
    # The first of every prototype, then the second of every one, ...: small ones give all they have
    place = torch.empty_like(order)
    for centre in range(distance.shape[1]):
        own = order[owner[order] == centre]
        place[own] = torch.arange(len(own))
    return order[place[order].argsort(stable=True)][: rule.count]


#: Strategies by the names that ``selection.strategy`` takes.
STRATEGIES: dict[str, Strategy] = {
    "top": top,
    "threshold": threshold,
    "band": band,
    "proportional": proportional,
    "diverse": diverse,
    "loss": loss,
    "prototype": prototype,
    "random": random,
    "least": least,
}


def _descending(values: Tensor) -> Tensor:
    return values.argsort(descending=True, stable=True)


def _needed(value: Tensor | None, strategy: str, name: str) -> Tensor:
    if value is None:
        raise ConfigError(
            f"selection.strategy={strategy} needs {name}; collect them with selection.score_samples"
        )
    return value
