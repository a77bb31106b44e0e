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
from egnn_prune.vision.experiments.seed_run import SeedRun, smaller
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
    seed_run = SeedRun(settings, seed)
    dense = seed_run.dense()
    (sparsity,) = settings.pruning.sparsities

    @cache
    def start() -> tuple[TracedNetwork, Tensor, float]:
        model = copy.deepcopy(dense)
        if sparsity:
            seed_run.mask_neurons(model, sparsity)
            model = smaller(model)
        return model, uncertainty(seed_run, model.network), seed_run.accuracy(model.network)

    def find_out(strategy: str) -> Row:
        pruned, uncertainties, accuracy = start()
        weights, drawn = None, float(uncertainties.mean())
        if strategy != ALL:
            weights = sampling_weights(seed_run, uncertainties, strategy)
            drawn = float((weights * uncertainties).sum())
        model = copy.deepcopy(pruned)
        train = seed_run.training(settings.finetuning, weights)
        fitted = seed_run.fit(model, settings.finetuning, f"fine-tuning on {strategy}", train=train)
        return {
            "sparsity": sparsity,
            "steps": len(train) * fitted.epochs,
            "mean_uncertainty": drawn,
            "start_accuracy": accuracy,
            **seed_run.described(model.network, fitted),
        }

    return seed_run.saved.fill(({"strategy": s} for s in settings.selection.strategies), find_out)


def sampling_weights(seed_run: SeedRun, uncertainties: Tensor, arm: str) -> Tensor:
    """``[N]``: the probability with which each training image is drawn."""
    s = seed_run.settings.selection
    chosen = select(uncertainties, arm, fraction=s.fraction, generator=seed_run.rng())
    return replay_weights(chosen, len(uncertainties), s.replay)


def dry_run(seed_run: SeedRun) -> None:
    """Prune an untrained network and select, so that what cannot be is said now."""
    (sparsity,) = seed_run.settings.pruning.sparsities
    seed_run.mask_neurons(seed_run.fresh(), sparsity)
    for arm in seed_run.settings.selection.strategies:
        if arm != ALL:
            sampling_weights(seed_run, torch.rand(len(seed_run.data.train)), arm)


def uncertainty(seed_run: SeedRun, network: nn.Module) -> Tensor:
    """Total uncertainty H of every training image, ``[N]``, in nats; without augmentation.

    By Monte Carlo dropout where the network has dropout, else of a single pass.
    """
    samples = seed_run.settings.uncertainty.samples
    sampled = bool(dropout_modules(network))
    estimator = ModuleDropout(network, samples) if sampled else SinglePass(network)
    found, _ = predict_images(estimator, seed_run.batches(seed_run.data.train), seed_run.device)
    assert isinstance(found, ClassPrediction)
    return found.entropy
