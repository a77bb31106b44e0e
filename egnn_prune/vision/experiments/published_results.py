"""Numbers that others found, drawn beside ours, by kind, data and network."""

from __future__ import annotations

from typing import Any

Rows = list[dict[str, Any]]

_ORIGINAL = "original checkpoints, re-evaluated"


def _lenet(sparsity: float, parameters: int, accuracy: float, sd: float, *rest: float) -> Any:
    ece, nll, auroc = rest
    return {
        "label": _ORIGINAL,
        "sparsity": sparsity,
        "parameters": parameters,
        "accuracy": accuracy / 100,
        "accuracy_sd": sd / 100,
        "ece": ece,
        "nll": nll,
        "auroc": auroc,
    }


PUBLISHED: dict[tuple[str, str, str], Rows] = {
    # CIFAR-10, LeNet, three seeds: the checkpoints of the study that this one repeats
    ("lottery", "cifar10", "lenet"): [
        _lenet(0.0, 62_006, 60.79, 0.33, 0.108, 1.227, 0.658),
        _lenet(0.2, 48_654, 61.76, 0.45, 0.099, 1.206, 0.662),
        _lenet(0.4, 35_987, 60.73, 1.07, 0.094, 1.208, 0.655),
        _lenet(0.6, 24_136, 61.74, 0.86, 0.074, 1.152, 0.660),
        _lenet(0.8, 13_101, 60.54, 1.27, 0.061, 1.179, 0.648),
    ],
    # ResNet-56, CIFAR-10 (Fang et al. 2023, Table 1)
    ("structured", "cifar10", "resnet56"): [
        {"label": label, "macs_factor": factor, "dense_accuracy": 0.9353, "accuracy": accuracy}
        for label, factor, accuracy in (
            ("L1 norm, ResNet-56", 2.1, 0.9292),
            ("Torch-Pruning, ResNet-56", 2.1, 0.9346),
            ("Torch-Pruning + sparse learning, ResNet-56", 2.1, 0.9377),
            ("Torch-Pruning + sparse learning, ResNet-56", 2.57, 0.9364),
        )
    ],
}


def published(kind: str, data: str, network: str) -> Rows:
    """What others found on these data; for residual networks whatever their depth."""
    same = "resnet56" if network in ("resnet20", "resnet32") else network
    return PUBLISHED.get((kind, data, same), [])
