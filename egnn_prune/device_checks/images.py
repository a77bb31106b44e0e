"""The image experiments on a device: residual networks with half of their multiplications."""

from __future__ import annotations

import math

from egnn_prune.data.local import local_data
from egnn_prune.device_checks.checking import CheckContext, Found, require
from egnn_prune.system.files import read_json
from egnn_prune.vision.experiments.run import run_experiment
from egnn_prune.vision.settings import ImageFitSettings, VisionSettings


def residual_networks(context: CheckContext, found: Found) -> None:
    """S2 with ResNet-56, and briefly ResNet-18: on CIFAR-10 where it is at hand, else on digits."""
    cifar = not context.quick and local_data("vision/cifar10") is not None
    found["data"] = "cifar10" if cifar else "digits"
    full = {"resnet56": (20_000, 3, 2), "resnet18": (10_000, 1, 1)}
    plans = context.pick(full, {"resnet20": (64, 1, 1)})
    for network, (limit, epochs, more) in plans.items():
        settings = VisionSettings(
            name=network,
            kind="structured",
            out=str(context.folder / network),
            device=str(context.device),
            training=fit(0.1, epochs),
            finetuning=fit(0.01, more),
        )
        settings.data.name, settings.data.limit = found["data"], limit
        settings.data.augmentation = "flip_crop" if cifar else "none"
        settings.network.name = network
        if network == "resnet18":
            settings.network.stem = "cifar"
        else:
            settings.network.shortcut = "B"
        settings.pruning.factors, settings.pruning.criteria = [2.0], ["group_norm"]
        settings.pruning.scope = "global"
        metrics = read_json(run_experiment(settings) / "metrics.json")
        require(metrics["device"].split(":")[0] == context.device.type, "another device")
        for row in metrics["rows"]:
            label = f"{network} {row['arm']} {row['factor']:g}x"
            numbers = {k: row[k] for k in ("accuracy", "latency_ms", "seconds") if k in row}
            found |= {f"{label} {k}": v for k, v in numbers.items()}
            finite = all(math.isfinite(v) for v in numbers.values() if isinstance(v, float))
            require(finite, f"{label} has a number that is not finite")


def fit(lr: float, epochs: int) -> ImageFitSettings:
    """As in the experiment ``resnet_structured``, for fewer epochs."""
    return ImageFitSettings(
        optimizer="sgd",
        lr=lr,
        weight_decay=5e-4,
        schedule="onecycle",
        batch_size=128,
        epochs=epochs,
    )
