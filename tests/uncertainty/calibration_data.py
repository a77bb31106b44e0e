"""Synthetic predictions whose true error bars are known."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from egnn_prune.prediction import ClassPrediction, Prediction

Noise = Callable[[Tensor], Tensor]


def heavy_tailed(like: Tensor) -> Tensor:
    """Student's t with 3 degrees of freedom, by its definition from Gaussians."""
    return torch.randn_like(like) / torch.randn(3, *like.shape).double().square().mean(0).sqrt()


def stated(mean: Tensor, variance: Tensor, members: int = 3, epistemic: float = 0.4) -> Prediction:
    """A prediction of ``members`` with this mean and total variance, a share of it epistemic."""
    offset = torch.randn(members, *mean.shape, dtype=mean.dtype)
    offset = (offset - offset.mean(0)) / offset.std(0)
    means = mean + (epistemic * variance).sqrt() * offset
    return Prediction.from_members(means, ((1 - epistemic) * variance).expand_as(means))


def regression(
    *shape: int,
    truth: Callable[[Tensor], Tensor] = lambda v: v,
    noise: Noise = torch.randn_like,
    dtype: torch.dtype = torch.float64,
) -> tuple[Prediction, Tensor]:
    """A prediction of log-normal variances v, and targets whose variance is ``truth(v)``."""
    mean, variance = torch.randn(shape).double(), torch.randn(shape).double().exp()
    y = mean + truth(variance).sqrt() * noise(mean)
    return stated(mean.to(dtype), variance.to(dtype)), y.to(dtype)


def classification(
    samples: int, temperature: float, classes: int = 4, members: int = 1, spread: float = 0.0
) -> tuple[ClassPrediction, Tensor]:
    """Logits that are ``temperature`` times the true ones, and labels drawn from the true ones.

    With several members each has its own deviation, and labels follow their mean probability.
    """
    logits = 2 * torch.randn(samples, classes).double()
    logits = logits + spread * torch.randn(members, samples, classes).double()
    labels = torch.multinomial(logits.softmax(-1).mean(0), 1).flatten()
    return ClassPrediction(temperature * logits), labels
