"""Scores of Gaussian predictions as torchmetrics classes with ``plot()``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from egnn_prune.uncertainty.arrays import Numbers
from egnn_prune.uncertainty.metrics.base import SampleMetric, histogram
from egnn_prune.uncertainty.metrics.checks import checked_gaussian
from egnn_prune.uncertainty.metrics.coverage import (
    check_level,
    coverage_curve,
    interval_coverage,
    miscalibration_area,
    rms_calibration,
)
from egnn_prune.uncertainty.metrics.likelihood import crps, crps_terms, nll, nll_terms
from egnn_prune.uncertainty.metrics.sparsification import ErrorKind, ause, sparsification_curve
from egnn_prune.uncertainty.metrics.spread import ence, sharpness, spearman, spread_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: More intervals than this cannot be told apart in a picture.
MOST_INTERVALS = 500


class GaussianMetric(SampleMetric):
    """A score of Gaussian predictive distributions; subclasses override :meth:`score`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("mean", "variance", "target", **kwargs)

    def update(self, mean: Numbers, variance: Numbers, target: Numbers) -> None:
        """Add samples.

        Args:
            mean: ``[...]``, in the unit of the target.
            variance: ``[...]``, positive, in the unit squared.
            target: ``[...]``.

        Raises:
            InputError: shapes differ, or a number cannot be scored (see :func:`checked_gaussian`).
        """
        self.keep(*checked_gaussian(mean, variance, target))

    def compute(self) -> Tensor:
        """The score, a float64 scalar.

        Raises:
            InputError: there are too few samples.
        """
        mean, variance, target = self.kept()
        return self.score(mean, variance, target)

    def score(self, mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
        """The score of checked ``[N]`` columns."""
        raise NotImplementedError


class GaussianNLL(GaussianMetric):
    """Metric of :func:`nll`; the picture is the distribution of its terms."""

    score = staticmethod(nll)

    def draw(self, axes: Axes, *columns: Tensor) -> None:
        """Histogram of the terms, with their mean."""
        histogram(axes, nll_terms(*columns), "negative log-likelihood (nats)")


class CRPS(GaussianMetric):
    """Metric of :func:`crps`; the picture is the distribution of its terms."""

    score = staticmethod(crps)

    def draw(self, axes: Axes, *columns: Tensor) -> None:
        """Histogram of the terms, with their mean."""
        histogram(axes, crps_terms(*columns), "CRPS (unit of the target)")


class MiscalibrationArea(GaussianMetric):
    """Metric of :func:`miscalibration_area`; the picture is the coverage curve."""

    score = staticmethod(miscalibration_area)

    def draw(self, axes: Axes, *columns: Tensor) -> None:
        """Observed against expected coverage; below the diagonal the error bars are too short."""
        expected, observed = (curve.numpy() for curve in coverage_curve(*columns))
        score = float(self.score(*columns))
        axes.plot([0, 1], [0, 1], "--", color="0.5", label="true error bars")
        axes.step(expected, observed, where="post", label=f"observed ({score:.3f})")
        axes.fill_between(expected, expected, observed, step="post", alpha=0.2)
        axes.set(xlabel="expected coverage", ylabel="observed coverage", xlim=(0, 1), ylim=(0, 1))
        axes.set_aspect("equal")
        axes.legend()


class RMSCalibration(MiscalibrationArea):
    """Metric of :func:`rms_calibration`; the picture is the coverage curve."""

    score = staticmethod(rms_calibration)


class IntervalCoverage(GaussianMetric):
    """Metric of :func:`interval_coverage`; the picture shows which intervals miss.

    Args:
        level: what the intervals promise, between 0 and 1.
    """

    higher_is_better = None  # the best value is the level, neither the highest nor the lowest

    def __init__(self, level: float = 0.9, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_level(level)
        self.level = level

    def score(self, mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
        """See :func:`interval_coverage`."""
        return interval_coverage(mean, variance, target, self.level)

    def draw(self, axes: Axes, *columns: Tensor) -> None:
        """Predicted intervals against targets; those that miss in red; of many samples some."""
        share = float(self.score(*columns))
        step = -(-len(columns[0]) // MOST_INTERVALS)
        mean, variance, target = (column[::step] for column in columns)
        half = (2 * variance).sqrt() * torch.erfinv(torch.tensor(self.level, dtype=mean.dtype))
        inside = (target - mean).abs() <= half
        for rows, colour, name in ((inside, "C0", "holds"), (~inside, "C3", "misses")):
            axes.errorbar(
                target[rows], mean[rows], half[rows], fmt=".", color=colour, alpha=0.5, label=name
            )
        axes.axline((float(target.mean()),) * 2, slope=1, color="0.5", linestyle="--")
        axes.set(xlabel="target", ylabel="prediction")
        axes.set_title(f"{share:.1%} in intervals that promise {self.level:.0%}")
        axes.legend()


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
