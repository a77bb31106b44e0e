"""A monotone map of predicted variances onto observed squared errors."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from egnn_prune.errors import ConfigError
from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty.calibration.points import positive_variance
from egnn_prune.uncertainty.calibration.variance import VarianceCalibration

#: Smallest variance that the map can state at a knot, in units of what one factor states there.
FLOOR = 1e-6


class MonotoneVariance(VarianceCalibration):
    r"""An increasing function of the predicted variance, :math:`\sigma^2 \to f(\sigma^2)`.

    1. Sort the validation points by predicted variance and cut them into blocks of ``block``
       points; equal variances are never separated, the rest joins the last block.
    2. Isotonic regression of the blocks' mean squared error on their mean variance (pool adjacent
       violators). Least squares and Gaussian likelihood have the same monotone optimum (Barlow and
       Brunk 1972), so no likelihood need be maximised numerically.
    3. Between the blocks' mean variances f is linear in the logarithms: a power law. It reproduces
       a variance that is right up to a factor or an exponent.
    4. Beyond the first and the last knot :math:`f(\sigma^2) \propto \sigma^2`. Isotonic regression
       alone would be constant there, and molecules unlike any in the validation set, whose variance
       lies beyond it, could not be told apart any more.
    5. If one factor (:class:`VarianceScaling`) is likelier on the validation points, it is used
       instead, so the likelihood there never falls below that of one factor.

    f never decreases: a ranking by *total* variance is never reversed, though ties arise where
    neighbouring blocks were pooled. The ranking by epistemic variance alone may change, because
    each point's parts share its ratio. Components of a vector are mapped one by one, so error bars
    of forces turn with the molecule only approximately; :class:`VarianceScaling` has no such limit.

    Args:
        block: points per block. The relative error of a block's variance is
            :math:`\sqrt{2 / \text{block}}`; with fewer than two blocks one factor is all there is.

    Raises:
        ConfigError: ``block`` is below 1.
    """

    name = "monotone"
    fitted_names = ("log_predicted", "log_observed")
    log_predicted: Tensor
    log_observed: Tensor

    def __init__(self, block: int = 25) -> None:
        if block < 1:
            raise ConfigError(f"a block needs at least 1 point, not {block}")
        super().__init__()
        self.block = block

    def fit_residuals(self, error: Tensor, variance: Tensor) -> dict[str, Tensor]:
        """Knots ``[k]``: logarithms of predicted and observed variance, in the unit squared."""
        variance, order = variance.sort(stable=True)
        squared = error.square()[order]
        sizes = block_sizes(variance, self.block)
        predicted = torch.stack([part.mean() for part in variance.split(sizes)])
        observed = torch.stack([part.mean() for part in squared.split(sizes)])
        observed = pool_adjacent_violators(observed, torch.tensor(sizes).to(observed))
        factor = (squared / variance).mean()
        x, y = predicted.log(), observed.maximum(FLOOR * factor * predicted).log()
        mapped = variance * log_ratio(variance.log(), x, y).exp()
        if _likelihood_loss(squared, mapped) >= _likelihood_loss(squared, factor * variance):
            x, y = x[:1], x[:1] + factor.log()
        return {"log_predicted": x, "log_observed": y}

    def ratio(self, prediction: Prediction) -> Tensor:
        """The map over the variance, ``[...]``."""
        variance = positive_variance(prediction)
        x, y = (self.fitted(name, variance) for name in self.fitted_names)
        return log_ratio(variance.log(), x, y).exp()

    def settings(self) -> dict[str, Any]:
        """The size of the blocks."""
        return {"block": self.block}


def log_ratio(v: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """How far the line through the knots lies above ``v``, constant beyond the knots.

    Args:
        v: ``[...]``.
        x: ``[k]`` ascending.
        y: ``[k]`` ascending.
    """
    inner = v.clamp(x[0], x[-1])
    if len(x) == 1:
        return y - inner
    right = torch.searchsorted(x, inner.detach().contiguous()).clamp(1, len(x) - 1)
    # Knots may coincide after rounding to float32; 0 / tiny is then 0, where 0 / 0 were NaN.
    width = (x[right] - x[right - 1]).clamp(min=torch.finfo(x.dtype).tiny)
    share = (inner - x[right - 1]) / width
    return y[right - 1] + share * (y[right] - y[right - 1]) - inner


def block_sizes(ordered: Tensor, block: int) -> list[int]:
    """Sizes of blocks of at least ``block`` neighbours which do not separate equal values."""
    n = len(ordered)
    edges = [0]
    while edges[-1] < n:
        end = min(edges[-1] + block, n)
        end = int(torch.searchsorted(ordered, ordered[end - 1], right=True))
        edges.append(end if n - end >= block else n)
    return [b - a for a, b in pairwise(edges)]


def pool_adjacent_violators(values: Tensor, weights: Tensor) -> Tensor:
    """The ascending sequence closest to ``values`` in weighted least squares.

    Returns:
        ``[k]``, never descending, by pooling adjacent violators (Ayer et al. 1955).
    """
    from scipy.optimize import isotonic_regression  # only where a map is fitted

    return values.new_tensor(isotonic_regression(values.cpu(), weights=weights.cpu()).x)


def _likelihood_loss(squared: Tensor, variance: Tensor) -> float:
    """Twice the mean negative log-likelihood, without its constant."""
    loss = float((variance.log() + squared / variance).mean())
    return loss if math.isfinite(loss) else math.inf
