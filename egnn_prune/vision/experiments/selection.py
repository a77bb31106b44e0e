"""A pruned network fine-tuned on the images that it is least sure about, against random ones."""

from __future__ import annotations

import copy
from functools import cache

import torch
from torch import Tensor, nn

from egnn_prune.adapters import TracedNetwork
from egnn_prune.errors import ConfigError
from egnn_prune.prediction import ClassPrediction
from egnn_prune.runs.result_store import Row
from egnn_prune.selection import STRATEGIES, replay_weights, select
from egnn_prune.uncertainty import ModuleDropout, SinglePass, dropout_modules
from egnn_prune.vision.evaluation import predict_images
from egnn_prune.vision.experiments.seed_run import Bench, smaller
from egnn_prune.vision.settings import VisionSettings

#: The arm that selects nothing.
ALL = "all"
#: What can be asked for: the strategies that need an uncertainty alone, and no unit of it.
ARMS = (*(s for s in STRATEGIES if s not in ("loss", "diverse", "prototype", "threshold")), ALL)


def check(settings: VisionSettings) -> None:
    """Refuse settings that this experiment cannot use."""
    found = settings.pruning.sparsities
    if len(found) != 1:
        raise ConfigError(f"pruning.sparsities needs one fraction here, not {found}")
    if settings.finetuning.patience is not None:
        raise ConfigError("equal steps for every arm need finetuning.patience=null")


def run_seed(settings: VisionSettings, seed: int) -> list[Row]:
    """One pruned network, and its fine-tunings on differently selected images."""
    bench = Bench(settings, seed)
    dense = bench.dense()
    (sparsity,) = settings.pruning.sparsities

    @cache
    def start() -> tuple[TracedNetwork, Tensor, float]:
        model = copy.deepcopy(dense)
        if sparsity:
            bench.mask_neurons(model, sparsity)
            model = smaller(model)
        return model, uncertainty(bench, model.network), bench.accuracy(model.network)

    def find_out(strategy: str) -> Row:
        pruned, doubt, accuracy = start()
        weights, drawn = None, float(doubt.mean())
        if strategy != ALL:
            weights = chances(bench, doubt, strategy)
            drawn = float((weights * doubt).sum())
        model = copy.deepcopy(pruned)
        train = bench.training(settings.finetuning, weights)
        fitted = bench.fit(model, settings.finetuning, f"fine-tuning on {strategy}", train=train)
        return {
            "sparsity": sparsity,
            "steps": len(train) * fitted.epochs,
            "mean_uncertainty": drawn,
            "start_accuracy": accuracy,
            **bench.described(model.network, fitted),
        }

    return bench.saved.fill(({"strategy": s} for s in settings.selection.strategies), find_out)


def chances(bench: Bench, doubt: Tensor, arm: str) -> Tensor:
    """``[N]``: the probability with which each training image is drawn."""
    s = bench.settings.selection
    chosen = select(doubt, arm, fraction=s.fraction, generator=bench.chance())
    return replay_weights(chosen, len(doubt), s.replay)


def rehearse(bench: Bench) -> None:
    """Prune an untrained network and select, so that what cannot be is said now."""
    (sparsity,) = bench.settings.pruning.sparsities
    bench.mask_neurons(bench.fresh(), sparsity)
    for arm in bench.settings.selection.strategies:
        if arm != ALL:
            chances(bench, torch.rand(len(bench.data.train)), arm)


def uncertainty(bench: Bench, network: nn.Module) -> Tensor:
    """Total uncertainty H of every training image, ``[N]``, in nats; without augmentation.

    By Monte Carlo dropout where the network has dropout, else of a single pass.
    """
    samples = bench.settings.uncertainty.samples
    sampled = bool(dropout_modules(network))
    estimator = ModuleDropout(network, samples) if sampled else SinglePass(network)
    found, _ = predict_images(estimator, bench.batches(bench.data.train), bench.device)
    assert isinstance(found, ClassPrediction)
    return found.entropy
