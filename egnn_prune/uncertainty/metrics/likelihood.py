"""Proper scores of a Gaussian prediction: likelihood and CRPS."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from egnn_prune.uncertainty.arrays import Numbers
from egnn_prune.uncertainty.metrics.checks import checked_gaussian, gaussian


def nll_terms(mean: Numbers, variance: Numbers, target: Numbers) -> Tensor:
    r"""Negative log-likelihood of every sample, ``[...]``, in nats; unchecked, differentiable.

    :math:`\tfrac12 \left[\log(2 \pi \sigma^2) + (y - \mu)^2 / \sigma^2\right]`.
    """
    mean, variance, target = gaussian(mean, variance, target)
    return 0.5 * (torch.log(2 * math.pi * variance) + (target - mean).square() / variance)


def crps_terms(mean: Numbers, variance: Numbers, target: Numbers) -> Tensor:
    r"""Continuous ranked probability score of every sample, ``[...]``; unchecked, differentiable.

    .. math::
        \sigma \left[ z\,(2 \Phi(z) - 1) + 2 \varphi(z) - 1/\sqrt\pi \right],
        \qquad z = (y - \mu) / \sigma

    in the unit of the target. Source: Gneiting et al. 2005, Eq. 5.
    """
    mean, variance, target = gaussian(mean, variance, target)
    std = variance.sqrt()
    z = (target - mean) / std
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    return std * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))


def nll(mean: Numbers, variance: Numbers, target: Numbers) -> Tensor:
    r"""Mean negative log-likelihood, in nats (see :func:`nll_terms`).

    Errors of standard deviation :math:`\sigma`, predicted as :math:`k\sigma`, are expected to
    score :math:`\tfrac12 [\log(2\pi k^2\sigma^2) + k^{-2}]`, least at k = 1.

    Raises:
        InputError: the input cannot be scored: see ``checked_gaussian``, also for the arguments.
    """
    return nll_terms(*checked_gaussian(mean, variance, target)).mean()


def crps(mean: Numbers, variance: Numbers, target: Numbers) -> Tensor:
    r"""Mean continuous ranked probability score, in the unit of the target.

    See :func:`crps_terms`; arguments and errors as in :func:`nll`. Errors of standard deviation
    :math:`\sigma`, predicted as :math:`k\sigma`, are expected to score
    :math:`\tfrac{\sigma}{\sqrt\pi} (\sqrt{2 (1 + k^2)} - k)`, least at k = 1.
    """
    return crps_terms(*checked_gaussian(mean, variance, target)).mean()
