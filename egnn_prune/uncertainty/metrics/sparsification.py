"""Does the error fall when the most uncertain samples are set aside?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from egnn_prune.errors import ConfigError
from egnn_prune.uncertainty.arrays import Numbers
from egnn_prune.uncertainty.metrics.base import GaussianMetric
from egnn_prune.uncertainty.metrics.checks import checked_gaussian

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ErrorKind = Literal["rmse", "mae"]


class Sparsification(NamedTuple):
    """Error of the samples that are left, relative to the error of all, ``[N]`` each."""

    #: share of the samples set aside: 0, 1/N, ..., (N - 1)/N
    removed: Tensor
    #: when the most uncertain samples go first
    by_uncertainty: Tensor
    #: when the samples of the largest error go first: no uncertainty can do better
    by_error: Tensor


def sparsification_curve(
    mean: Numbers, variance: Numbers, target: Numbers, error: ErrorKind = "rmse"
) -> Sparsification:
    """Error that remains when a growing share of the samples is set aside.

    Samples with the same variance leave together, as if a part of each did: all of them count with
    their mean (squared) error. So a constant variance gives a flat curve, whatever the order of
    the samples.

    Source: Ilg et al. 2018.

    Args:
        mean: ``[...]``, in the unit of the target.
        variance: ``[...]``, positive, in the unit squared; only its order matters.
        target: ``[...]``.
        error: root mean squared error or mean absolute error.

    Raises:
        InputError: there are fewer than two samples, or one cannot be scored (see
            ``checked_gaussian``).
        ConfigError: another ``error``.
    """
    if error not in ("rmse", "mae"):
        raise ConfigError(f"the error of a sparsification curve is 'rmse' or 'mae', not {error!r}")
    mean, variance, target = checked_gaussian(mean, variance, target, least=2)
    losses = (target - mean).abs() if error == "mae" else (target - mean).square()
    _, group, count = variance.unique(return_inverse=True, return_counts=True)
    shared = torch.zeros_like(count, dtype=losses.dtype).index_add_(0, group, losses) / count
    by_uncertainty = _error_of_smallest(shared.repeat_interleave(count), error)
    by_error = _error_of_smallest(losses.sort().values, error)
    n = len(losses)
    removed = torch.arange(n, dtype=losses.dtype, device=losses.device) / n
    whole = by_error[0]
    if whole == 0:  # every prediction is exact: nothing is left to remove
        return Sparsification(removed, torch.zeros_like(removed), torch.zeros_like(removed))
    return Sparsification(removed, by_uncertainty / whole, by_error / whole)


def ause(mean: Numbers, variance: Numbers, target: Numbers, error: ErrorKind = "rmse") -> Tensor:
    r"""Area under the sparsification error: between the curve and the oracle's, at least 0.

    :math:`\tfrac1N \sum_{k=0}^{N-1} [S_k - S^*_k]` with the two curves of
    :func:`sparsification_curve`, each divided by the error of all samples (the normalised form of
    the source), so without unit; multiply by the RMSE or MAE of all samples for the unit of the
    target. 0 when uncertainty ranks the samples as their errors do. A constant variance gives the
    area between a flat line and the oracle. Exact predictions give 0.

    Arguments and errors as in :func:`sparsification_curve`. Source: Ilg et al. 2018.
    """
    curve = sparsification_curve(mean, variance, target, error)
    return (curve.by_uncertainty - curve.by_error).mean().clamp(min=0)


class AUSE(GaussianMetric):
    """Metric of :func:`ause`; the picture is the sparsification curve against the oracle's.

    Args:
        error: see :func:`sparsification_curve`.
    """

    def __init__(self, error: ErrorKind = "rmse", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.error = error

    def score(self, mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
        """See :func:`ause`."""
        return ause(mean, variance, target, self.error)

    def draw(self, axes: Axes, *columns: Tensor) -> None:
        """Remaining error against the share set aside."""
        mean, variance, target = columns
        curve = sparsification_curve(mean, variance, target, self.error)
        axes.plot(curve.removed, curve.by_uncertainty, label="by uncertainty")
        axes.plot(curve.removed, curve.by_error, "--", color="0.3", label="by error (oracle)")
        axes.fill_between(curve.removed, curve.by_error, curve.by_uncertainty, alpha=0.2)
        axes.axhline(1, color="0.7", linewidth=0.8)
        axes.set(xlabel="share of the samples set aside", ylabel=f"relative {self.error.upper()}")
        axes.set_title(f"AUSE {float(self.score(*columns)):.3f}")
        axes.legend()


def _error_of_smallest(losses: Tensor, error: ErrorKind) -> Tensor:
    """Error of the first N, N - 1, ..., 1 of ``losses [N]``."""
    count = torch.arange(1, len(losses) + 1, dtype=losses.dtype, device=losses.device)
    means = (losses.cumsum(0) / count).flip(0)
    return means.sqrt() if error == "rmse" else means
