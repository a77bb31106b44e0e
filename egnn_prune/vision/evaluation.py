"""How good a classifier is, how true its probabilities are, and what it costs."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.errors import InputError
from egnn_prune.prediction import ClassPrediction
from egnn_prune.pruning import count_macs, latency_of
from egnn_prune.uncertainty import (
    Estimator,
    ModuleDropout,
    SinglePass,
    TemperatureScaling,
    classification_scores,
    dropout_modules,
    ood_scores,
    out_of_distribution_scores,
)
from egnn_prune.uncertainty.metrics import ECE, UCE, ReliabilityDiagram
from egnn_prune.vision.data import Batches
from egnn_prune.vision.settings import ImageUncertaintySettings

#: How often networks take turns when their latency is measured.
LATENCY_TURNS = 5


def predict_images(
    estimator: Estimator, batches: Batches, device: torch.device
) -> tuple[ClassPrediction, Tensor]:
    """The prediction for all images with their labels, on the CPU.

    Args:
        estimator: of a network that returns logits.
        batches: images in their order, without augmentation.
        device: where to predict.
    """
    estimator.to(device)
    parts, labels = [], []
    for x, y in batches:
        prediction = estimator.predict(x)
        assert isinstance(prediction, ClassPrediction)
        parts.append(prediction.detach())
        labels.append(y.cpu())
    estimator.to("cpu")
    return ClassPrediction.cat(parts), torch.cat(labels)


def image_scores(
    network: nn.Module,
    val: Batches,
    test: Batches,
    ood: Batches | None,
    settings: ImageUncertaintySettings,
    device: torch.device,
) -> dict[str, Any]:
    """Every score of a network on the test images.

    Args:
        network: returns logits.
        val: validation images, which the temperature is fitted on.
        test: test images.
        ood: images unlike the training data.
        settings: passes of Monte Carlo dropout, and bins.
        device: where to predict.

    Returns:
        ``accuracy, nll, brier, ece, uce``, the bins of the ``reliability`` diagram, ``temperature``
        and ``ece_scaled`` after temperature scaling; with dropout layers ``dropout_accuracy`` and
        so on; with ``ood`` the ``auroc`` of every score, and ``ood_labels`` ``[C_ood][C]``: how
        many images of each OOD class fall into each known one.
    """
    single = SinglePass(network)
    prediction, labels = predict_images(single, test, device)
    bins = settings.bins
    found: dict[str, Any] = {
        **_scores(prediction, labels, bins),
        **_scaled(single, prediction, labels, val, bins, device),
        "reliability": reliability_bins(prediction, labels, bins),
    }
    if ood is not None:
        outside, kinds = predict_images(single, ood, device)
        names = {"max_probability": "auroc", "entropy": "auroc_entropy", "energy": "auroc_energy"}
        found |= _areas(prediction, outside, names)
        classes = prediction.probabilities.shape[1]
        counts = torch.zeros(int(kinds.max()) + 1, classes, dtype=torch.int64)
        counts.index_put_((kinds, outside.label), torch.ones_like(kinds), accumulate=True)
        found["ood_labels"] = counts.tolist()
    if dropout_modules(network):
        sampled = ModuleDropout(network, settings.samples)
        dropout_prediction, _ = predict_images(sampled, test, device)
        found |= {f"dropout_{k}": v for k, v in _scores(dropout_prediction, labels, bins).items()}
        if ood is not None:
            far, _ = predict_images(sampled, ood, device)
            names = {
                "mutual_information": "dropout_auroc",
                "max_probability": "dropout_auroc_max",
            }
            found |= _areas(dropout_prediction, far, names)
    return found


def _areas(
    inside: ClassPrediction, outside: ClassPrediction, names: dict[str, str]
) -> dict[str, float]:
    """How well scores tell the two apart: the AUROC of each, by the name that it has in a row."""
    scores, others = ood_scores(inside), ood_scores(outside)
    return {
        name: out_of_distribution_scores(scores[score], others[score])["auroc"]
        for score, name in names.items()
    }


def _scores(prediction: ClassPrediction, labels: Tensor, bins: int) -> dict[str, float]:
    scores = classification_scores(prediction, labels)
    scores.pop("ece_equal_mass")
    scores["ece"] = float(ECE(bins)(prediction, labels))
    scores["uce"] = float(UCE(bins)(prediction, labels))
    return scores


def _scaled(
    estimator: Estimator,
    prediction: ClassPrediction,
    labels: Tensor,
    val: Batches,
    bins: int,
    device: torch.device,
) -> dict[str, float | None]:
    """After temperature scaling; nothing where validation is too small, or has no error."""
    scaling = TemperatureScaling()
    try:
        scaling.fit(*predict_images(estimator, val, device))
    except InputError:
        return {"temperature": None, "ece_scaled": None}
    scaled = scaling(prediction)
    return {
        "temperature": float(scaling.temperature),
        "ece_scaled": float(ECE(bins)(scaled, labels)),
    }


def reliability_bins(
    prediction: ClassPrediction, labels: Tensor, bins: int
) -> dict[str, list[float | None]]:
    """The reliability diagram as lists of all bins; ``None`` where one is empty."""
    diagram = ReliabilityDiagram(bins)
    diagram.update(prediction, labels)
    # torchmetrics makes numbers of tensors with a single entry
    filled = {name: torch.atleast_1d(value) for name, value in diagram.compute().items()}
    place = (filled["predicted"] * bins).long().clamp(max=bins - 1).tolist()
    lists: dict[str, list[float | None]] = {}
    for name, key in {"confidence": "predicted", "accuracy": "observed", "count": "count"}.items():
        values: list[float | None] = [0.0 if name == "count" else None] * bins
        for where, value in zip(place, filled[key].tolist(), strict=True):
            values[where] = value
        lists[name] = values
    return lists


def weight_counts(network: nn.Module) -> dict[str, int]:
    """``parameters``: weights that are not zero; ``stored``: all that lie in the tensors."""
    return {
        "parameters": sum(int(p.count_nonzero()) for p in network.parameters()),
        "stored": sum(p.numel() for p in network.parameters()),
    }


def macs(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates for one image, forward only."""
    one = torch.zeros(1, *shape, device=next(network.parameters()).device)
    return count_macs(network, lambda n: n(one))[""]


def latencies_ms(
    networks: list[nn.Module], shape: tuple[int, ...], batch: int, device: torch.device
) -> list[float]:
    """Median wall times of a forward pass of ``batch`` images, in milliseconds.

    The networks take turns, so that whatever else the machine does meets all of them.
    """
    x = torch.zeros(batch, *shape, device=device)
    once = latency_of(lambda network: network(x), repeats=2)
    for network in networks:
        network.to(device)
    turns = [[once(network) for network in networks] for _ in range(LATENCY_TURNS)]
    for network in networks:
        network.to("cpu")
    return [1000 * statistics.median(times) for times in zip(*turns, strict=True)]
