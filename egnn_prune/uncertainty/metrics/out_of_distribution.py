"""Can the uncertainty tell samples that are unlike the training data? Higher means unlike (OOD)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_precision_recall_curve,
    binary_roc,
)

from egnn_prune.errors import ConfigError, InputError
from egnn_prune.prediction import ClassPrediction, Prediction
from egnn_prune.uncertainty.arrays import Numbers, as_tensor
from egnn_prune.uncertainty.metrics.base import SampleMetric
from egnn_prune.uncertainty.metrics.binning import average_ranks

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def ood_scores(prediction: Prediction | ClassPrediction) -> dict[str, Tensor]:
    """Every score that can say "unlike the training data", in float64; higher means OOD.

    Of a :class:`Prediction`: ``epistemic`` and total ``variance``, ``[...]``. Of a
    :class:`ClassPrediction`: ``max_probability`` (1 minus it; Hendrycks and Gimpel 2017),
    ``entropy``, ``mutual_information`` and ``energy`` (Liu et al. 2020), ``[B]``. The network's
    epistemic variance and mutual information need several members: they are 0 for one.
    """
    if isinstance(prediction, Prediction):
        return {
            "epistemic": prediction.epistemic.double(),
            "variance": prediction.variance.double(),
        }
    prediction = ClassPrediction(prediction.logits.double())
    # a sum of small numbers still ranks samples whose largest probability rounds to 1
    others = prediction.probabilities.sort(-1).values[:, :-1].sum(-1)
    return {
        "max_probability": others,
        "entropy": prediction.entropy,
        "mutual_information": prediction.mutual_information,
        "energy": prediction.energy,
    }


def out_of_distribution_scores(in_scores: Numbers, out_scores: Numbers) -> dict[str, float]:
    """``auroc``, ``aupr`` and ``fpr95`` with OOD as the positive class.

    Args:
        in_scores: scores of samples like the training data, ``[...]``; higher means OOD.
        out_scores: scores of samples unlike it, ``[...]``.

    Raises:
        InputError: either is empty, or a score is NaN or infinite.
    """
    inside = as_tensor(in_scores, "scores").flatten().double()
    outside = as_tensor(out_scores, "scores", inside.device).flatten().double()
    scores = torch.cat([inside, outside])
    is_out = torch.arange(len(scores), device=scores.device) >= len(inside)
    metrics = {
        "auroc": OutOfDistributionAUROC(),
        "aupr": OutOfDistributionAUPR(),
        "fpr95": OutOfDistributionFPR(),
    }
    return {
        name: float(metric.to(scores.device)(scores, is_out)) for name, metric in metrics.items()
    }


class OutOfDistributionAUROC(SampleMetric):
    """Chance that an OOD sample scores higher than one in distribution (ties count half).

    The area under the curve of true positives (OOD found) against false positives, by
    torchmetrics. The picture is the curve.
    """

    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("scores", "is_out", **kwargs)

    def update(self, scores: Numbers, is_out: Numbers) -> None:
        """Add samples.

        Args:
            scores: ``[...]``, finite; higher means OOD.
            is_out: ``[...]``, bool: which samples are OOD.

        Raises:
            InputError: shapes differ, a score is NaN or infinite, or ``is_out`` is not bool.
        """
        scores = as_tensor(scores, "scores")
        is_out = as_tensor(is_out, "is_out", scores.device)
        if scores.shape != is_out.shape or is_out.dtype != torch.bool:
            raise InputError(
                f"scores {tuple(scores.shape)} and is_out {tuple(is_out.shape)} must have the "
                f"same shape, and is_out must be bool, not {is_out.dtype}"
            )
        scores = scores.flatten()
        if not bool(scores.isfinite().all()):
            where = int((~scores.isfinite()).nonzero()[0])
            raise InputError(
                f"the OOD score of sample {where} is {float(scores[where])}; remove what caused it"
            )
        self.keep(scores, is_out.flatten())

    def compute(self) -> Tensor:
        """The score, a scalar in [0, 1].

        Raises:
            InputError: samples in or out of distribution are missing.
        """
        scores, is_out = self.kept()
        return self.score(*ranked(scores, is_out))

    def score(self, ranks: Tensor, is_out: Tensor) -> Tensor:
        """The score of ranks ``[N]`` in (0, 1] and labels ``[N]``, 0 or 1."""
        return binary_auroc(ranks, is_out)

    def draw(self, axes: Axes, *columns: Tensor) -> None:
        """True against false positives."""
        ranks, is_out = ranked(*columns)
        false, true, _ = binary_roc(ranks, is_out)
        axes.plot([0, 1], [0, 1], "--", color="0.5", label="chance")
        axes.plot(false, true, label=f"AUROC {float(self.score(ranks, is_out)):.3f}")
        axes.set(xlabel="in distribution, but taken for OOD", ylabel="OOD found")
        axes.legend()


class OutOfDistributionAUPR(OutOfDistributionAUROC):
    """Average precision of finding the OOD samples, by torchmetrics.

    Steps, not trapezoids (Davis and Goadrich 2006). Chance scores the share of OOD samples, so
    compare only within one test set. The picture is the precision-recall curve.
    """

    def score(self, ranks: Tensor, is_out: Tensor) -> Tensor:
        """The score of ranks and labels."""
        return binary_average_precision(ranks, is_out)

    def draw(self, axes: Axes, *columns: Tensor) -> None:
        """Precision against recall."""
        ranks, is_out = ranked(*columns)
        precision, recall, _ = binary_precision_recall_curve(ranks, is_out)
        axes.axhline(float(is_out.double().mean()), linestyle="--", color="0.5", label="chance")
        axes.step(
            recall.flip(0),
            precision.flip(0),
            where="pre",
            label=f"AUPR {float(self.score(ranks, is_out)):.3f}",
        )
        axes.set(xlabel="OOD found (recall)", ylabel="OOD among the found (precision)")
        axes.set_ylim(0, 1.02)
        axes.legend()


class OutOfDistributionFPR(OutOfDistributionAUROC):
    """Share of in-distribution samples taken for OOD where ``tpr`` of the OOD samples are found.

    At the highest threshold that finds at least as many; ties are never cut. Papers that count
    in-distribution as positive report another number under the same name. The picture is the two
    distributions of the score with the threshold.

    Args:
        tpr: share of the OOD samples to be found, in (0, 1].
    """

    higher_is_better = False

    def __init__(self, tpr: float = 0.95, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < tpr <= 1:
            raise ConfigError(f"the share of OOD samples to be found is in (0, 1], not {tpr}")
        self.tpr = tpr

    def score(self, ranks: Tensor, is_out: Tensor) -> Tensor:
        """The score of ranks and labels."""
        false, true, _ = binary_roc(ranks, is_out)
        return false[true >= self.tpr].min()

    def draw(self, axes: Axes, *columns: Tensor) -> None:
        """Histograms of the score in and out of distribution."""
        scores, is_out = columns
        ranks, labels = ranked(scores, is_out)
        _, true, thresholds = binary_roc(ranks, labels)
        threshold = thresholds[true >= self.tpr].max()
        cut = float(scores[ranks >= threshold].min())
        span = (float(scores.min()), float(scores.max()))
        for rows, name in ((is_out == 0, "in distribution"), (is_out == 1, "OOD")):
            shown = scores[rows].numpy()
            axes.hist(shown, bins=50, range=span, density=True, alpha=0.5, label=name)
        fpr = float(self.score(ranks, labels))
        found = f"{self.tpr:.0%} of OOD found, {fpr:.1%} false alarms"
        axes.axvline(cut, color="0.3", linestyle="--", label=found)
        axes.set(xlabel="score (higher means OOD)", ylabel="density")
        axes.legend()


def ranked(scores: Tensor, is_out: Tensor) -> tuple[Tensor, Tensor]:
    """Ranks of the scores in (0, 1], and the labels as integers.

    torchmetrics squashes scores outside [0, 1] by a sigmoid, which ties large ones (energies, say)
    by rounding. Ranks have the same curves and stay apart.

    Raises:
        InputError: samples in or out of distribution are missing.
    """
    labels = is_out.long()
    out = int(labels.sum())
    if not 0 < out < len(labels):
        raise InputError(
            f"telling OOD needs samples of both kinds, not {len(labels) - out} in and {out} out "
            "of distribution"
        )
    return average_ranks(scores) / len(scores), labels
