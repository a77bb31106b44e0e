"""Rounds of pruning during a Lightning fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from egnn_prune.adapters import TracedNetwork
from egnn_prune.channels import Prunable
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import (
    CRITERIA,
    SCOPES,
    Context,
    apply_masks,
    choose,
    freeze,
    incremental,
    register_masks,
    score_channels,
    sparsities,
)
from egnn_prune.pruning.calling import call
from egnn_prune.pruning.channel_costs import ChannelCosts
from egnn_prune.pruning.criteria import Criterion, Movement
from egnn_prune.pruning.criteria.batches import inputs_of
from egnn_prune.pruning.freezing import MODES
from egnn_prune.pruning.latency_budget import LatencyBudget
from egnn_prune.pruning.schedule import Schedule
from egnn_prune.pruning.stopwatch import Measure
from egnn_prune.pruning.tensors import parameter_names
from egnn_prune.training.batch_losses import default_loss
from egnn_prune.training.pruned_part import name_of, pruned_part, traced
from egnn_prune.training.variance import predictive_variance


@dataclass(frozen=True)
class Pruning:
    """Which channels go, how many, when, and what no longer learns: one value, handed through.

    Attributes:
        criterion: a name in :data:`egnn_prune.pruning.CRITERIA`, or ``(group, context) -> [n]``.
        sparsity: the final fraction of channels removed, in [0, 1).
        latency: instead, the final share of the dense network's wall time, in (0, 1]; sparsity is
            then ignored.
        schedule: how it grows, see :func:`egnn_prune.pruning.sparsities`; of a latency the share
            that is saved grows like a sparsity.
        rounds: in how many rounds.
        until: share of the fit after which the last round is over.
        scope: what is ranked together, see :func:`egnn_prune.pruning.choose`.
        round_to: widths become multiples of this; 0: of what is fastest, see
            :func:`egnn_prune.pruning.best_multiple`.
        freezing: see :func:`egnn_prune.pruning.freeze`; applied after the last round.
        freeze_fraction: for ``freezing="important"``.

    Raises:
        ConfigError: a value is out of range: now, not in the middle of a fit.
    """

    criterion: str | Criterion = "taylor"
    sparsity: float = 0.5
    schedule: str | Schedule = "iterative"
    rounds: int = 4
    until: float = 0.3
    scope: str = "global"
    round_to: int = 1
    freezing: str = "pruned"
    freeze_fraction: float = 0.25
    latency: float | None = None

    def __post_init__(self) -> None:
        if self.latency is not None and not 0 < self.latency <= 1:
            raise ConfigError(
                "latency is the share of the dense network's time that may be left and lies in "
                f"(0, 1], not {self.latency}"
            )
        sparsities(self.schedule, self.saved, self.rounds)
        for name, known in (("criterion", CRITERIA), ("scope", SCOPES), ("freezing", MODES)):
            value = getattr(self, name)
            if isinstance(value, str) and value not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}, not {value!r}")
        if not 0 <= self.until <= 1 or not 0 <= self.freeze_fraction <= 1 or self.round_to < 0:
            raise ConfigError(
                "until and freeze_fraction are shares in [0, 1] and round_to is at least 0, not "
                f"{self.until}, {self.freeze_fraction} and {self.round_to}"
            )

    @property
    def saved(self) -> float:
        """What the last round arrives at: the share of channels, or of the time, that is gone."""
        return self.sparsity if self.latency is None else 1 - self.latency


class PruningCallback(Callback):
    """Prunes while a model trains: scores its channels, masks the lowest, round after round.

    Only *masks* change. Tensors keep their shape and identity, so optimisers, DDP's reducers and
    compiled graphs go on undisturbed; call :func:`egnn_prune.pruning.compact` after the fit. Masks
    are part of the model's ``state_dict``, and the rounds done of the callback's: a resumed fit
    goes on where it stopped. Under DDP the masks of the first process count.

    Args:
        criterion: of a :class:`Pruning`, or all of it.
        sparsity: of a :class:`Pruning`, where it is not given as a whole.
        batches: what the criterion looks at; iterated anew in every round.
        loss: ``loss(model, batch) -> [samples]``; by default as for :func:`egnn_prune.prune`.
        variance: ``variance(model, batch) -> [samples]``, for the uncertainty criterion.
        after_round: called with the masked model after every round, such as
            ``lambda m: rewind(m, start)``.
        seed: of criteria that draw.
        network: dotted name of the network in the Lightning module; by default the module itself,
            its ``model``, or the only part of it that declares channel groups. One that declares
            none, such as a plain ``nn.Sequential`` or a model of PyG, is traced on the first of
            ``batches``.
        module: the network itself, in place of its name.
        timed: for a latency, the batch that shall become fast; by default the first of
            ``batches``.
        measure: for a latency, takes the times, instead of the clock.
        **rest: the rest of a :class:`Pruning`, such as ``schedule="cubic", rounds=8``.

    Attributes:
        keep: the masks after the latest round, ``{group name: boolean [n]}``.
        latency: what took times, and the costs of channels in the latest round; ``None`` where
            nothing is measured.
        pruned: the network with its channel groups, once a fit began: what
            :func:`egnn_prune.compact` makes small after it.

    Raises:
        ConfigError: there is nothing to take times of; (when the fit starts) the model declares no
            channel groups and cannot be traced, or a latency cannot be met.

    Example:
        >>> callback = PruningCallback(module=task.net, sparsity=0.5, batches=loader)
        >>> Trainer(callbacks=[callback], max_epochs=10).fit(task, loader)
        >>> small = egnn_prune.compact(callback.pruned)
    """

    def __init__(
        self,
        criterion: str | Criterion | Pruning = "taylor",
        sparsity: float = 0.5,
        *,
        batches: Iterable[Any] | None = None,
        loss: Callable[[nn.Module, Any], Tensor] | None = None,
        variance: Callable[[nn.Module, Any], Tensor] = predictive_variance,
        after_round: Callable[[nn.Module], None] | None = None,
        seed: int = 0,
        network: str | None = None,
        module: nn.Module | None = None,
        timed: Any | None = None,
        measure: Measure | None = None,
        **rest: Any,
    ) -> None:
        if isinstance(criterion, Pruning):
            self.pruning = replace(criterion, **rest)
        else:
            self.pruning = Pruning(criterion, sparsity, **rest)
        self.batches, self.loss, self.variance = batches, loss, variance
        if network is not None and module is not None:
            raise ConfigError("name the network by network=..., or give it as module=..., not both")
        self.after_round, self.network, self.module = after_round, network, module
        self._traced: TracedNetwork | None = None
        self.timed, self.measure = timed, measure
        self.latency: LatencyBudget | None = None
        self.round_to = self.pruning.round_to
        if self.takes_times and timed is None and batches is None:
            raise ConfigError(
                "a latency, and round_to=0, are measured on a batch: pass batches=... or timed=..."
            )
        self.generator = torch.Generator().manual_seed(seed)
        self.movement = Movement() if self.pruning.criterion == "movement" else None
        self.keep: dict[str, Tensor] = {}
        self.done = 0
        self._plan: list[tuple[int, float]] = []
        self._model: Prunable | None = None
        self._costs: dict[str, float] = {}  # in ms, of a process that was here before

    @property
    def takes_times(self) -> bool:
        """Whether anything is measured."""
        return self.pruning.latency is not None or not self.pruning.round_to

    @property
    def finished(self) -> bool:
        """Whether the last round of the current fit is over."""
        return bool(self._plan) and self.done == len(self._plan)

    def plan(self, steps: int, steps_per_epoch: int) -> list[tuple[int, float]]:
        """``(optimiser step, share saved)`` of every round: evenly spaced over the first part.

        The first comes before anything is learned, but for the movement criterion, which has to
        watch some steps first.

        Args:
            steps: optimiser steps in the whole fit.
            steps_per_epoch: optimiser steps in a pass over the data.
        """
        first = 0 if self.movement is None else min(1, steps - 1)
        p, rounds = self.pruning, min(self.pruning.rounds, steps - first)
        last = int(p.until * (steps - 1))
        if self.movement is not None:
            first = max(first, last // max(1, rounds))
        if last - first + 1 < rounds:
            last = first + rounds - 1  # a short fit: one round a step
        when = [first + round(k * (last - first) / max(1, rounds - 1)) for k in range(rounds)]
        return list(zip(when, sparsities(p.schedule, p.saved, rounds), strict=True))

    @property
    def pruned(self) -> Prunable:
        """The network with its channel groups.

        Raises:
            ConfigError: no fit has begun.
        """
        if self._model is None:
            raise ConfigError("no fit has begun yet, so nothing is pruned")
        return self._model

    def _part(self, pl_module: L.LightningModule) -> Prunable:
        """What is pruned of a Lightning module; traced once where it declares nothing."""
        name = self.network if self.module is None else name_of(pl_module, self.module)
        part: Any = None if name is None else dict(pl_module.named_modules()).get(name)
        if part is None or hasattr(part, "channel_groups") or self.batches is None:
            return pruned_part(pl_module, name)
        if self._traced is None or self._traced.network is not part:
            first = next(iter(self.batches), None)
            if first is None:
                raise ConfigError("batches has not a single one to trace the network with")
            self._traced = traced(part, first)
        self._traced.gates.to(pl_module.device)
        return self._traced

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Make all parameters holdable, before the optimiser or DDP looks at the model."""
        if stage != "fit":
            return
        model = self._part(pl_module)
        register_masks(model, parameter_names(model))
        if model is not self._model:  # another model: begin anew (a resumed state is loaded later)
            self._model, self._plan, self.keep, self.done = model, [], {}, 0
            self.latency, self.round_to, self._costs = None, self.pruning.round_to, {}
            self.movement = None if self.movement is None else Movement()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any
    ) -> None:
        """Run the rounds that are due before this optimiser step."""
        if not self._plan:
            steps = trainer.estimated_stepping_batches
            if steps == float("inf"):
                raise ConfigError("a fit without an end cannot be planned; set max_steps or epochs")
            per_epoch = trainer.num_training_batches / trainer.accumulate_grad_batches
            self._plan = self.plan(int(steps), max(1, math.ceil(min(steps, per_epoch))))
            self._check_plan(pl_module)
        while self.done < len(self._plan) and self._plan[self.done][0] <= trainer.global_step:
            self._round(trainer, pl_module, self._plan[self.done][1])
            self.done += 1

    def _check_plan(self, pl_module: L.LightningModule) -> None:
        """Refuse now what a later round could not do."""
        model, p = self._part(pl_module), self.pruning
        groups = model.channel_groups()
        if self.takes_times:
            self.latency = self._budget(pl_module)
            if not self.round_to:
                self.round_to = self.latency.best_multiple()
        if p.latency is not None and self.latency is not None:
            self.latency.check(p.latency, p.scope, self.round_to)
            return
        zeros = {g.name: torch.zeros(g.n) for g in groups}
        for _step, sparsity in self._plan:
            choose(zeros, sparsity, p.scope, groups=groups, round_to=self.round_to)

    def _budget(self, pl_module: L.LightningModule) -> LatencyBudget:
        """What takes times; a fit that went on knows the costs that it found before."""
        timed = next(iter(self.batches)) if self.timed is None else self.timed  # type: ignore[arg-type]
        inputs = inputs_of(move_data_to_device(timed, pl_module.device))
        model = self._part(pl_module)
        budget = LatencyBudget(model, lambda m: call(m, inputs), self.measure)
        budget.costs = ChannelCosts(self._costs)
        return budget

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What took times is there, too, where a fit went on behind its last step."""
        if self.takes_times and self.latency is None:
            self.latency = self._budget(pl_module)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any
    ) -> None:
        """Gradients are fresh: let the movement criterion see them."""
        if self.movement is not None:
            self.movement.update(self._part(pl_module))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed fit needs; Lightning calls this."""
        return {
            "done": self.done,
            "keep": self.keep,
            "generator": self.generator.get_state(),
            "movement": None if self.movement is None else vars(self.movement),
            "round_to": self.round_to,
            "costs": dict(self._costs if self.latency is None else self.latency.costs),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The opposite of :meth:`state_dict`; Lightning calls this."""
        self.done, self.keep = state_dict["done"], state_dict["keep"]
        self.generator.set_state(state_dict["generator"].cpu())
        self.round_to = state_dict.get("round_to", self.round_to)
        self._costs = state_dict.get("costs", {})
        if self.movement is not None:
            vars(self.movement).update(state_dict["movement"])

    def _round(self, trainer: L.Trainer, pl_module: L.LightningModule, saved: float) -> None:
        model = self._part(pl_module)
        groups = model.channel_groups()
        batches = None
        if self.batches is not None:
            batches = (move_data_to_device(batch, pl_module.device) for batch in self.batches)
        loss = self.loss
        if loss is None:
            first = None if self.batches is None else next(iter(self.batches), None)
            loss = default_loss(model, first)
        context = Context(
            model,
            groups,
            batches,
            loss,
            self.generator,
            variance=self.variance,
            movement=self.movement,
        )
        p = self.pruning
        scores = _of_the_first(trainer, score_channels(p.criterion, context))
        how: dict[str, Any] = {"keep": self.keep, "round_to": self.round_to}
        if p.latency is not None and self.latency is not None:
            keep = self.latency.choose(scores, 1 - saved, p.scope, **how)
        else:
            keep = choose(scores, saved, p.scope, groups=groups, **how)
        self.keep = _of_the_first(trainer, keep)
        apply_masks(model, self.keep, groups)
        if self.done == len(self._plan) - 1:
            fraction = p.freeze_fraction
            freeze(model, p.freezing, scores=scores, keep=self.keep, fraction=fraction)
        if self.after_round is not None:
            self.after_round(model)


def _of_the_first(trainer: L.Trainer, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the first process has: of equal sums in another order no two may choose differently."""
    if trainer.world_size == 1:
        return values
    found = trainer.strategy.broadcast({name: value.cpu() for name, value in values.items()})
    return {name: found[name].to(value.device) for name, value in values.items()}


class IncrementalPruning(PruningCallback):
    """Prunes a share of the channels every few epochs, all through the training.

    Args:
        criterion: as for :class:`PruningCallback`.
        rate: the share removed each time, in [0, 1).
        every: epochs between two rounds; the first comes after that many epochs.
        of: a share of the ``"original"`` channels, or of the ``"remaining"`` ones.
        limit: stop at this sparsity.
        **keywords: the other arguments of :class:`PruningCallback`.
    """

    def __init__(
        self,
        criterion: str | Criterion = "taylor",
        rate: float = 0.1,
        *,
        every: int = 5,
        of: str = "remaining",
        limit: float = 0.99,
        **keywords: Any,
    ) -> None:
        incremental(0, rate, every, of)
        unused = {"schedule", "rounds", "until", "latency"} & set(keywords)
        if unused:
            raise ConfigError(f"IncrementalPruning has its own schedule; leave {unused.pop()} away")
        super().__init__(criterion, limit, **keywords)
        self.rate, self.every, self.of = rate, every, of

    def plan(self, steps: int, steps_per_epoch: int) -> list[tuple[int, float]]:
        """A round after every ``every`` epochs but the last."""
        found: list[tuple[int, float]] = []
        limit = self.pruning.sparsity
        for epoch in range(self.every, -(-steps // steps_per_epoch), self.every):
            used_up = self.of == "original" and self.rate * (epoch // self.every) >= limit
            sparsity = limit if used_up else incremental(epoch, self.rate, self.every, self.of)
            found.append((epoch * steps_per_epoch, min(sparsity, limit)))
        return found
