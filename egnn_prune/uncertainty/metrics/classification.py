"""Proper scores of class probabilities, and all scores of them at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from egnn_prune.errors import InputError
from egnn_prune.prediction import ClassPrediction
from egnn_prune.uncertainty.arrays import Numbers
from egnn_prune.uncertainty.metrics.base import SampleMetric, histogram
from egnn_prune.uncertainty.metrics.checks import checked_classes
from egnn_prune.uncertainty.metrics.reliability import ECE, UCE, EqualMassECE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def class_nll_terms(prediction: Numbers | ClassPrediction, target: Numbers) -> Tensor:
    r""":math:`-\log p_{b y_b}` of every sample, ``[B]``, in nats.

    Args:
        prediction: a prediction or probabilities ``[B, C]``.
        target: true classes ``[B]``, integers from 0.

    Raises:
        InputError: these are no probabilities or classes, or a true class has probability 0.
    """
    probabilities, target = checked_classes(prediction, target)
    if isinstance(prediction, ClassPrediction):  # log-probabilities of logits do not underflow
        members = prediction.logits.double().log_softmax(-1)
        logs = members.logsumexp(0) - math.log(len(members))
    else:
        logs = probabilities.log()
    terms = -logs.gather(1, target[:, None])[:, 0]
    if not bool(terms.isfinite().all()):
        where = int((~terms.isfinite()).nonzero()[0])
        raise InputError(
            f"the true class of sample {where} has probability 0, so its likelihood is infinite; "
            "pass the ClassPrediction, whose logits do not underflow, or clip the probabilities"
        )
    return terms


def brier_terms(prediction: Numbers | ClassPrediction, target: Numbers) -> Tensor:
    r""":math:`\sum_c (p_{bc} - [c = y_b])^2` of every sample, ``[B]``, in [0, 2] (Brier 1950).

    Arguments and errors as in :func:`class_nll_terms`, but a probability of 0 is welcome.
    """
    probabilities, target = checked_classes(prediction, target)
    truth = torch.nn.functional.one_hot(target, probabilities.shape[1])
    return (probabilities - truth).square().sum(1)


class ClassNLL(SampleMetric):
    """Mean of :func:`class_nll_terms`, in nats; the picture is the distribution of the terms."""

    label = "negative log-likelihood (nats)"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("terms", **kwargs)

    def update(self, prediction: Numbers | ClassPrediction, target: Numbers) -> None:
        """Add samples; see :func:`class_nll_terms`."""
        self.keep(class_nll_terms(prediction, target))

    def compute(self) -> Tensor:
        """The mean over the samples."""
        return self.kept()[0].mean()

    def draw(self, axes: Axes, *columns: Tensor) -> None:
        """Histogram of the terms, with their mean."""
        histogram(axes, columns[0], self.label)


class Brier(ClassNLL):
    """Mean of :func:`brier_terms`, in [0, 2]; the picture is the distribution of the terms."""

    label = "Brier score"

    def update(self, prediction: Numbers | ClassPrediction, target: Numbers) -> None:
        """Add samples; see :func:`brier_terms`."""
        self.keep(brier_terms(prediction, target))


def classification_scores(
    prediction: Numbers | ClassPrediction, target: Numbers
) -> dict[str, float]:
    """``accuracy, nll, brier, ece, ece_equal_mass, uce``; each is defined in its class.

    Raises:
        InputError: these are no probabilities or classes, or a true class has probability 0.
    """
    probabilities, classes = checked_classes(prediction, target)
    metrics = {
        "nll": ClassNLL(),
        "brier": Brier(),
        "ece": ECE(),
        "ece_equal_mass": EqualMassECE(),
        "uce": UCE(),
    }
    right = (probabilities.argmax(1) == classes).double().mean()
    scores = {name: float(metric(prediction, target)) for name, metric in metrics.items()}
    return {"accuracy": float(right), **scores}
