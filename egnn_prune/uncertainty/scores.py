"""Numbers that say whether an error bar is true."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics.functional.regression import spearman_corrcoef

from egnn_prune.errors import InputError


def gaussian_nll(y: Tensor, mean: Tensor, variance: Tensor) -> float:
    r"""Mean negative log-likelihood of a Gaussian, in nats.

    :math:`\tfrac12 \left[\log(2 \pi \sigma^2) + (y - \mu)^2 / \sigma^2\right]`.

    Args:
        y: ``[B]`` targets.
        mean: ``[B]``.
        variance: ``[B]``, positive, in the unit squared.

    Raises:
        InputError: a variance is zero, negative or NaN, or shapes differ.
    """
    if not y.shape == mean.shape == variance.shape:
        raise InputError(
            f"targets {tuple(y.shape)}, means {tuple(mean.shape)} and variances "
            f"{tuple(variance.shape)} must have the same shape"
        )
    if not bool((variance > 0).all()):
        raise InputError("a predictive variance is not positive, so its likelihood is undefined")
    terms = torch.log(2 * math.pi * variance) + (y - mean).square() / variance
    return float(0.5 * terms.detach().mean())


def error_uncertainty_spearman(y: Tensor, mean: Tensor, variance: Tensor) -> float:
    """Rank correlation of absolute error and predictive variance, in [-1, 1].

    0 where it is undefined, as for a variance that is the same everywhere.
    """
    error = (y - mean).abs().double()
    if len(error) < 2 or float(variance.std()) == 0 or float(error.std()) == 0:
        return 0.0
    return float(spearman_corrcoef(error, variance.double()))
