"""Checks of what a calibration is handed: one clear sentence instead of a NaN in an error bar."""

from __future__ import annotations

import torch
from torch import Tensor

from egnn_prune.errors import InputError
from egnn_prune.prediction import ClassPrediction, Prediction
from egnn_prune.uncertainty.arrays import Numbers, as_tensor
from egnn_prune.uncertainty.estimator import Predicted, finite

#: Fewest targets that a calibration is fitted on.
MIN_POINTS = 10


def regression(prediction: Predicted) -> Prediction:
    """The prediction, unless it is one of classes.

    Raises:
        InputError: it is.
    """
    if isinstance(prediction, Prediction):
        return prediction
    raise InputError(
        f"a regression's Prediction with mean and variance is needed, not a "
        f"{type(prediction).__name__}; calibrate classes with 'temperature'"
    )


def classes(prediction: Predicted) -> ClassPrediction:
    """The prediction, unless it is one of a regression.

    Raises:
        InputError: it is.
    """
    if isinstance(prediction, ClassPrediction):
        return prediction
    raise InputError(
        f"temperature scaling needs a ClassPrediction, not a {type(prediction).__name__}; "
        "calibrate a regression with 'variance'"
    )


def positive_variance(prediction: Prediction) -> Tensor:
    """The total variance ``[...]``, unless a value of it is zero, negative or NaN.

    Raises:
        InputError: names how many are.
    """
    variance = prediction.variance
    bad = int((~(variance > 0)).sum())
    if bad:
        raise InputError(
            f"{bad} of {variance.numel()} predictive variances are not positive, so there is no "
            "error bar to calibrate; use a model that states a variance or several members"
        )
    return variance


def residuals(prediction: Predicted, y: Numbers) -> tuple[Tensor, Tensor]:
    """Errors ``y - mean`` and total variances of a validation prediction, both flat.

    Every component of a vector target (a force) counts as one point.

    Returns:
        Two tensors ``[n]``, float64 on the CPU.

    Raises:
        InputError: as :meth:`Calibration.fit` says, or every error is exactly zero.
    """
    stated, y = regression(finite(prediction)), as_tensor(y, "targets")
    _check(y, stated.mean.shape)
    variance = positive_variance(stated).detach().cpu().double().flatten()
    error = (y.detach().cpu().double() - stated.mean.detach().cpu().double()).flatten()
    if not bool(error.any()):
        raise InputError(
            "every validation error is exactly zero, so no variance fits them; calibrate on data "
            "that the model was not fitted to"
        )
    return error, variance


def labelled(prediction: Predicted, y: Numbers) -> tuple[Tensor, Tensor]:
    """Logits ``[M, B, C]`` in float64 and labels ``[B]`` of a validation prediction, on the CPU.

    Raises:
        InputError: as :meth:`Calibration.fit` says, or a label is no class.
    """
    logits = classes(finite(prediction)).logits
    samples, count = logits.shape[1:]
    y = as_tensor(y, "labels")
    _check(y, torch.Size([samples]))
    labels = y.detach().cpu().long()
    if (
        bool((labels != y.detach().cpu()).any())
        or not 0 <= int(labels.min()) <= int(labels.max()) < count
    ):
        raise InputError(f"labels must be whole numbers from 0 to {count - 1}, one per sample")
    return logits.detach().cpu().double(), labels


def _check(y: Tensor, shape: torch.Size) -> None:
    if y.shape != shape:
        raise InputError(
            f"targets {tuple(y.shape)} and prediction {tuple(shape)} must have the same shape"
        )
    if y.numel() < MIN_POINTS:
        raise InputError(
            f"a calibration needs at least {MIN_POINTS} validation targets, not {y.numel()}"
        )
    if not bool(torch.isfinite(y).all()):
        raise InputError("a validation target is NaN or infinite; remove it from the data")
