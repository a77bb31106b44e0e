"""Rounds of pruning between the optimiser steps of a fit."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from egnn_prune.configs.settings import PruningSettings
from egnn_prune.pruning import (
    Context,
    apply_masks,
    choose,
    freeze,
    hold,
    iterative,
    score_channels,
)
from egnn_prune.pruning.tensors import parameter_names
from egnn_prune.training.loss import graph_losses


class PruningRounds:
    """The rounds of iterative pruning, to be called between optimiser steps.

    Args:
        model: the model that is fine-tuned; its masks change, its tensors do not.
        selected: the graphs whose loss tells how much a channel matters.
        settings: how much, by which criterion, in how many rounds.
        seed: of the random criterion.
        device: where the model is during the fit.
    """

    def __init__(
        self,
        model: nn.Module,
        selected: list[Data],
        settings: PruningSettings,
        seed: int,
        device: torch.device,
    ) -> None:
        self.model, self.settings, self.device = model, settings, device
        self.batches = DataLoader(selected, 64)
        self.groups = model.channel_groups()  # type: ignore[operator]
        self.generator = torch.Generator().manual_seed(seed)
        self.keep: dict[str, Tensor] = {}
        hold(model, parameter_names(model))

    def actions(self, steps: int) -> dict[int, Callable[[], None]]:
        """``{optimiser step: a round}``, evenly spaced over the first part of the fit."""
        s = self.settings
        rounds = min(s.rounds, steps)
        sparsities = iterative(s.sparsity, rounds)
        last = int(s.until * (steps - 1))
        if last + 1 < rounds:
            last = rounds - 1  # a short fit: one round a step
        when = [round(k * last / max(1, rounds - 1)) for k in range(rounds)]
        return {
            step: lambda k=k, sparsity=sparsity: self.prune(sparsity, final=k == rounds - 1)  # type: ignore[misc]
            for k, (step, sparsity) in enumerate(zip(when, sparsities, strict=True))
        }

    def prune(self, sparsity: float, final: bool) -> None:
        """One round: score on the selected graphs, choose, mask; after the last one, freeze."""
        s = self.settings
        batches = (batch.to(self.device) for batch in self.batches)
        context = Context(self.model, self.groups, batches, graph_losses, self.generator)
        scores = score_channels(s.criterion, context)
        self.keep = choose(scores, sparsity, s.scope, self.keep)
        apply_masks(self.model, self.keep, self.groups)
        if final:
            freeze(
                self.model,
                s.freeze,
                scores=scores,
                keep=self.keep,
                fraction=s.freeze_fraction,
            )
