"""Are classes as often right as their probabilities say?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from egnn_prune.prediction import ClassPrediction
from egnn_prune.uncertainty.arrays import Numbers
from egnn_prune.uncertainty.metrics.base import SampleMetric
from egnn_prune.uncertainty.metrics.binning import bin_means, equal_mass_bins, equal_width_bins
from egnn_prune.uncertainty.metrics.checks import checked_classes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Bins of Guo et al. 2017 and Laves et al. 2019.
BINS = 15


class ReliabilityDiagram(SampleMetric):
    """Accuracy against confidence, the largest probability, in bins of equal width.

    ``compute`` returns the bins that hold samples, ``[bins]`` each: ``count``, ``predicted`` (mean
    confidence) and ``observed`` (accuracy). The bins are ``[0, 1/bins)`` and so on; the last
    one holds 1. (torchmetrics' CalibrationError puts confidence 1 into a bin of its own, where
    errors of the others in the last bin cannot cancel it.) Source: Guo et al. 2017, Section 2.

    Args:
        bins: their number.
    """

    labels = ("confidence", "accuracy")

    def __init__(self, bins: int = BINS, **kwargs: Any) -> None:
        super().__init__("predicted", "observed", **kwargs)
        self.bins = bins

    def update(self, prediction: Numbers | ClassPrediction, target: Numbers) -> None:
        """Add samples.

        Raises:
            InputError: these are no probabilities or classes.
        """
        self.keep(*self.claim_and_truth(*checked_classes(prediction, target)))

    def claim_and_truth(self, probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """What the model claims of every sample, between 0 and 1, and what is true, 0 or 1."""
        confidence, label = probabilities.max(1)
        return confidence.clamp(max=1), label == target

    def assign(self, predicted: Tensor) -> Tensor:
        """Bin of every sample."""
        return equal_width_bins(predicted, self.bins)

    def binned(self, predicted: Tensor, observed: Tensor) -> dict[str, Tensor]:
        """Samples, mean claim and mean truth of every bin that is not empty."""
        means = bin_means(self.assign(predicted), predicted, observed)
        return dict(zip(("count", "predicted", "observed"), means, strict=True))

    def compute(self) -> Any:
        """The bins."""
        predicted, observed = self.kept()
        return self.binned(predicted, observed)

    def draw(self, axes: Axes, *columns: Tensor) -> None:
        """One dot a bin, its area by its samples; whiskers are one standard error."""
        predicted, observed = columns
        bins = self.binned(predicted, observed)
        count, x, y = bins["count"], bins["predicted"], bins["observed"]
        axes.plot([0, 1], [0, 1], "--", color="0.5", label="calibrated")
        axes.vlines(x, x, y, color="C3", linewidth=3, alpha=0.4, label="gap")
        axes.errorbar(x, y, (y * (1 - y) / count).sqrt(), fmt="none", color="C0", capsize=2)
        axes.scatter(x, y, s=10 + 200 * count / count.max(), color="C0", alpha=0.7)
        axes.set(xlabel=self.labels[0], ylabel=self.labels[1], xlim=(0, 1.02), ylim=(0, 1.02))
        axes.set_title(f"expected gap {float(expected_gap(bins)):.3f}")
        axes.legend()


def expected_gap(bins: dict[str, Tensor]) -> Tensor:
    """Mean over the samples of the gap between claim and truth of their bin."""
    count = bins["count"]
    return (count * (bins["predicted"] - bins["observed"]).abs()).sum() / count.sum()


class ECE(ReliabilityDiagram):
    """Expected calibration error of the largest probability, in [0, 1] (Guo et al. 2017, Eq. 3)."""

    def compute(self) -> Tensor:
        """The expected gap between confidence and accuracy."""
        return expected_gap(super().compute())


class EqualMassECE(ECE):
    """The same with bins of equally many samples, at most as many bins as samples.

    Less biased where most confidences are close to 1. Tied confidences share a bin.
    Source: Nguyen and O'Connor 2015; Nixon et al. 2019.
    """

    def assign(self, predicted: Tensor) -> Tensor:
        """Bin of every sample."""
        return equal_mass_bins(predicted, min(self.bins, len(predicted)))


class UCE(ECE):
    r"""Expected uncertainty calibration error, in [0, 1] (Laves et al. 2019).

    Gap between the error rate and the normalised entropy :math:`H / \log C` in bins of it.
    """

    labels = ("normalised entropy", "error rate")

    def claim_and_truth(self, probabilities: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised entropy, and whether the label is wrong."""
        entropy = -torch.special.xlogy(probabilities, probabilities).sum(1)
        normalised = (entropy / math.log(probabilities.shape[1])).clamp(0, 1)
        return normalised, probabilities.argmax(1) != target
