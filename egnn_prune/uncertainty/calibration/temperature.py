"""One temperature for all logits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from egnn_prune.errors import InputError
from egnn_prune.uncertainty.arrays import Numbers
from egnn_prune.uncertainty.calibration.base import Calibration
from egnn_prune.uncertainty.calibration.points import classes, labelled
from egnn_prune.uncertainty.estimator import Predicted

#: Lowest and highest temperature of logits whose typical spread is 1, and the step of the grid.
RANGE = (0.01, 100.0)
STEP = 0.4
_GOLDEN = (math.sqrt(5) - 1) / 2


class TemperatureScaling(Calibration):
    r"""All members' logits divided by one temperature T.

    It minimises, on the validation set,

    .. math:: -\tfrac1B \sum_b \log \tfrac1M \sum_m \text{softmax}(l_{mb} / T)_{y_b} ,

    the negative log-likelihood of the *mean* probability, which is what is predicted. Temperatures
    fitted member by member would leave the pooled ensemble underconfident (Rahaman and Thiery
    2021). With one member the label cannot change. Source: Guo et al. 2017, Eq. 9.

    The minimum is found in log T on a grid and then by golden-section search, in float64: the same
    data give the same T, and no step size can go wrong. The grid runs from 0.01 to 100 times the
    root mean square of the logits about their mean over the classes, so logits of any size have
    their minimum on it. A classifier that knows nothing ends at its upper end, next to uniform
    probabilities.
    """

    name = "temperature"
    fitted_names = ("temperature",)
    temperature: Tensor

    def fit(self, prediction: Predicted, y: Numbers) -> Self:
        """Fit on a validation prediction; see :meth:`Calibration.fit`.

        Raises:
            InputError: the likelihood rises to T = 0, as it does when every label is right.
        """
        logits, labels = labelled(prediction, y)
        temperature = likeliest_temperature(logits, labels)
        self.store(classes(prediction).logits, temperature=torch.tensor([temperature]).double())
        return self

    def forward(self, prediction: Predicted) -> Predicted:
        """The prediction with its logits divided by the temperature."""
        logits = classes(prediction).logits
        return replace(classes(prediction), logits=logits / self.fitted("temperature", logits))


def likeliest_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that minimises the negative log-likelihood of the mean probability.

    Of ``logits [M, B, C]`` in float64 and ``labels [B]``.

    Raises:
        InputError: there is no minimum above the lowest temperature of the range.
    """

    def loss(log_t: float) -> float:
        return mean_probability_nll(logits / math.exp(log_t), labels)

    deviation = logits - logits.mean(-1, keepdim=True)
    largest = float(deviation.abs().max())
    if largest == 0:
        return 1.0  # equal logits for all classes: no temperature changes anything
    # of numbers of size 1, whose squares neither overflow nor vanish
    spread = largest * float((deviation / largest).square().mean().sqrt())
    lowest, highest = (spread * t for t in RANGE)
    points = math.ceil(math.log(highest / lowest) / STEP) + 1
    grid = torch.linspace(math.log(lowest), math.log(highest), points).double().tolist()
    losses = [loss(t) for t in grid]
    best = min(range(points), key=losses.__getitem__)
    if max(losses) - losses[best] <= 1e-12 * losses[best]:
        return 1.0  # equal logits but for rounding
    if best == 0:
        raise InputError(
            "the likelihood of the validation labels rises down to the lowest temperature, "
            f"{lowest:.3g}, as it does when every label is predicted right; calibrate on more or "
            "harder data"
        )
    a, b = grid[best - 1], grid[min(best + 1, points - 1)]
    return math.exp(min(golden_section(loss, a, b), grid[best], 0.0, key=loss))


def golden_section(loss: Callable[[float], float], a: float, b: float) -> float:
    """The place of a minimum of ``loss`` between a and b, to the 1e-8 that float64 can tell."""
    c, d = b - _GOLDEN * (b - a), a + _GOLDEN * (b - a)
    at_c, at_d = loss(c), loss(d)
    while b - a > 1e-8:
        if at_c <= at_d:
            b, d, at_d = d, c, at_c
            c = b - _GOLDEN * (b - a)
            at_c = loss(c)
        else:
            a, c, at_c = c, d, at_d
            d = a + _GOLDEN * (b - a)
            at_d = loss(d)
    return (a + b) / 2


def mean_probability_nll(logits: Tensor, labels: Tensor) -> float:
    """Mean negative log-likelihood of labels ``[B]`` under ``[M, B, C]``, in nats."""
    each = logits.log_softmax(-1)[:, torch.arange(len(labels)), labels]
    return float(math.log(len(logits)) - each.logsumexp(0).mean())
