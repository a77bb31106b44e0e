"""What cannot be scored is refused with one sentence, never scored as NaN."""

from __future__ import annotations

from torch import Tensor

from egnn_prune.errors import InputError
from egnn_prune.prediction import ClassPrediction
from egnn_prune.uncertainty.arrays import Numbers, as_tensor


def gaussian(mean: Numbers, variance: Numbers, target: Numbers) -> tuple[Tensor, Tensor, Tensor]:
    """The three as tensors; what was none goes where a tensor among them is.

    Raises:
        InputError: they are no numbers.
    """
    given = {"means": mean, "variances": variance, "targets": target}
    device = next((v.device for v in given.values() if isinstance(v, Tensor)), None)
    means, variances, targets = (as_tensor(v, name, device) for name, v in given.items())
    return means, variances, targets


def checked_gaussian(
    mean: Numbers, variance: Numbers, target: Numbers, least: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """The three as float64 ``[N]``.

    Args:
        mean: ``[...]``, in the unit of the target.
        variance: ``[...]``, positive, in the unit squared.
        target: ``[...]``.
        least: fewest samples that can be scored.

    Raises:
        InputError: they are no numbers, shapes differ, there are fewer than ``least`` samples, a
            variance is not positive and finite, or a mean or target is NaN or infinite.
    """
    mean, variance, target = gaussian(mean, variance, target)
    if not mean.shape == variance.shape == target.shape:
        raise InputError(
            f"means {tuple(mean.shape)}, variances {tuple(variance.shape)} and targets "
            f"{tuple(target.shape)} must have the same shape"
        )
    if mean.numel() < least:
        raise InputError(f"this score needs at least {least} samples, not {mean.numel()}")
    mean, variance, target = (t.flatten().double() for t in (mean, variance, target))
    usable = variance.isfinite() & (variance > 0)
    if not bool(usable.all()):
        where = int((~usable).nonzero()[0])
        raise InputError(
            f"the predictive variance of sample {where} is {float(variance[where])}, not positive "
            "and finite; add the noise of the target or calibrate the variance first"
        )
    for name, values in (("predicted mean", mean), ("target", target)):
        if not bool(values.isfinite().all()):
            where = int((~values.isfinite()).nonzero()[0])
            raise InputError(
                f"the {name} of sample {where} is {float(values[where])}; remove what caused it, "
                "as no score of it would mean anything"
            )
    return mean, variance, target


def checked_classes(
    prediction: Numbers | ClassPrediction, target: Numbers
) -> tuple[Tensor, Tensor]:
    """Probabilities ``[B, C]`` in float64 and classes ``[B]`` in int64.

    Raises:
        InputError: shapes do not match, there is no sample, a row is no distribution, or a class
            does not exist.
    """
    if isinstance(prediction, ClassPrediction):
        prediction = ClassPrediction(prediction.logits.double()).probabilities
    prediction = as_tensor(prediction, "probabilities")
    target = as_tensor(target, "classes", prediction.device)
    if prediction.dim() != 2 or prediction.shape[1] < 2 or prediction.shape[:1] != target.shape:
        raise InputError(
            f"probabilities {tuple(prediction.shape)} and classes {tuple(target.shape)} must have "
            "the shapes [samples, classes] and [samples], with two classes or more"
        )
    if len(prediction) == 0:
        raise InputError("this score needs at least 1 sample, not 0")
    prediction = prediction.double()
    usable = (prediction >= 0).all(1) & ((prediction.sum(1) - 1).abs() < 1e-3)
    if not bool(usable.all()):
        where = int((~usable).nonzero()[0])
        raise InputError(
            f"the probabilities of sample {where} are not all between 0 and 1 with the sum 1; "
            "pass softmax(logits) or a ClassPrediction"
        )
    classes = prediction.shape[1]
    if target.is_floating_point() or bool(((target < 0) | (target >= classes)).any()):
        raise InputError(f"the true classes must be integers from 0 to {classes - 1}")
    return prediction, target.long()
