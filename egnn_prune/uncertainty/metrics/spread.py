"""How wide the error bars are, and whether wider ones go with larger errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from egnn_prune.uncertainty.arrays import Numbers
from egnn_prune.uncertainty.metrics.base import GaussianMetric
from egnn_prune.uncertainty.metrics.binning import average_ranks, bin_means, equal_mass_bins
from egnn_prune.uncertainty.metrics.checks import checked_gaussian

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: A bin's RMSE has a relative noise of about 1/sqrt(2n): 13 % at 30 samples.
SAMPLES_PER_BIN = 30
MOST_BINS = 20


def sharpness(mean: Numbers, variance: Numbers, target: Numbers) -> Tensor:
    r"""Root mean predicted variance :math:`\sqrt{\tfrac1N \sum_i \sigma_i^2}`, in the unit of y.

    Says nothing about the truth of the error bars: of two calibrated models the sharper is better.
    The mean and the target are checked but do not matter; arguments and errors as in :func:`ence`.
    Source: Kuleshov et al. 2018 (there without the root).
    """
    return checked_gaussian(mean, variance, target)[1].mean().sqrt()


def spread_error(
    mean: Numbers, variance: Numbers, target: Numbers, bins: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Samples, root mean variance and root mean squared error of the bins of :func:`ence`."""
    mean, variance, target = checked_gaussian(mean, variance, target, least=2)
    if bins is None:
        bins = min(MOST_BINS, max(1, len(mean) // SAMPLES_PER_BIN))
    index = equal_mass_bins(variance, bins)
    count, mean_variance, mean_square = bin_means(index, variance, (target - mean).square())
    return count, mean_variance.sqrt(), mean_square.sqrt()


def ence(mean: Numbers, variance: Numbers, target: Numbers, bins: int | None = None) -> Tensor:
    r"""Expected normalised calibration error, at least 0, without unit.

    .. math::
        \sum_b \frac{n_b}{N} \frac{|\text{RMV}_b - \text{RMSE}_b|}{\text{RMV}_b}

    over bins of equally many samples, ordered by predicted variance. Samples with the same
    variance share a bin, so bins may differ in size and are weighted by it; with equal bins this
    is the plain mean of the source.

    Errors of standard deviation :math:`\sigma`, predicted as :math:`k\sigma`, give
    :math:`|1 - 1/k|` in the limit of many samples, and n samples a bin of true error bars about
    :math:`1/\sqrt{\pi n}`: 10 % of noise at the 30 samples that are asked of a bin by default, so
    compare models on the same data with the same bins (Pernot 2023).

    Source: Levi et al. 2022.

    Args:
        mean: ``[...]``, in the unit of the target.
        variance: ``[...]``, positive, in the unit squared.
        target: ``[...]``.
        bins: their number; by default one for every 30 samples, between 1 and 20.

    Raises:
        InputError: there are fewer than two samples, or one cannot be scored (see
            ``checked_gaussian``).
        ConfigError: there are fewer samples than bins.
    """
    count, rmv, rmse = spread_error(mean, variance, target, bins)
    return (count * (rmv - rmse).abs() / rmv).sum() / count.sum()


def spearman(mean: Numbers, variance: Numbers, target: Numbers) -> Tensor:
    """Rank correlation of absolute error and predicted variance, in [-1, 1].

    Ties get their mean rank. Where either is the same for all samples, the ranks say nothing and
    the correlation is 0 by definition. torchmetrics' SpearmanCorrCoef sums the ranks of ties in
    int32, which overflows from about 65,000 ties, and gives float32 ranks; hence our own.

    Arguments and errors as in :func:`ence`.
    """
    mean, variance, target = checked_gaussian(mean, variance, target, least=2)
    ranks = torch.stack([average_ranks((target - mean).abs()), average_ranks(variance)])
    if bool((ranks == ranks[:, :1]).all(1).any()):
        return ranks.new_zeros(())
    return ranks.corrcoef()[0, 1]


class Sharpness(GaussianMetric):
    """Metric of :func:`sharpness`; the picture is the distribution of the error bars."""

    score = staticmethod(sharpness)

    def draw(self, axes: Axes, *columns: Tensor) -> None:
        """Histogram of the predicted standard deviations, with the root mean squared error."""
        mean, variance, target = columns
        rmse = float((target - mean).square().mean().sqrt())
        score = float(self.score(*columns))
        axes.hist(variance.sqrt().numpy(), bins=50, color="0.7")
        axes.axvline(score, color="C0", label=f"sharpness {score:.3g}")
        axes.axvline(rmse, color="C3", linestyle="--", label=f"RMSE {rmse:.3g}")
        axes.set(xlabel="predicted standard deviation", ylabel="samples")
        axes.legend()


class ENCE(GaussianMetric):
    """Metric of :func:`ence`; the picture is RMSE against RMV of the bins.

    Args:
        bins: see :func:`ence`.
    """

    def __init__(self, bins: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bins = bins

    def score(self, mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
        """See :func:`ence`."""
        return ence(mean, variance, target, self.bins)

    def draw(self, axes: Axes, *columns: Tensor) -> None:
        """Above the diagonal the error bars are too short; whiskers are the noise of a bin."""
        mean, variance, target = columns
        count, rmv, rmse = spread_error(mean, variance, target, self.bins)
        axes.errorbar(rmv, rmse, rmse / (2 * count).sqrt(), fmt="o", capsize=2)
        axes.axline((0, 0), slope=1, color="0.5", linestyle="--", label="true error bars")
        axes.set(xlabel="root mean variance of a bin", ylabel="root mean squared error of a bin")
        axes.set(xlim=(0, None), ylim=(0, None))
        axes.set_title(f"ENCE {float(self.score(*columns)):.3f}")
        axes.legend()


class ErrorUncertaintySpearman(GaussianMetric):
    """Metric of :func:`spearman`; the picture is error against error bar of every sample."""

    higher_is_better = True

    score = staticmethod(spearman)

    def draw(self, axes: Axes, *columns: Tensor) -> None:
        """Both axes logarithmic; lines at one and two error bars."""
        mean, variance, target = columns
        std, error = variance.sqrt(), (target - mean).abs()
        axes.plot(std, error, ".", alpha=0.4)
        ends = torch.stack([std.min(), std.max()])
        for width, style in ((1, "-"), (2, "--")):
            axes.plot(ends, width * ends, style, color="0.3", label=f"{width} error bars")
        axes.set(xscale="log", yscale="log")
        axes.set(xlabel="predicted standard deviation", ylabel="absolute error")
        axes.set_title(f"rank correlation {float(self.score(*columns)):.2f}")
        axes.legend()
