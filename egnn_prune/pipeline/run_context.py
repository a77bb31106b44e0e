"""What the stages of a job share: data, folder, fits, saved models, estimators."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property, wraps
from typing import Any, Protocol, TypeVar

import lightning as L
import torch
from ase.data import chemical_symbols
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch_geometric.data import Data
from tqdm import tqdm

from egnn_prune import data as sources
from egnn_prune.channels import Prunable
from egnn_prune.configs.settings import Settings, loss_name
from egnn_prune.data import GraphDataset
from egnn_prune.data.collation import held, loader
from egnn_prune.data.summary import summary
from egnn_prune.deployment import checkpoint
from egnn_prune.deployment.training_domain import TrainingDomain
from egnn_prune.errors import DataError, InputError
from egnn_prune.evaluation.force_uncertainty import fit_likelier_bars, states_forces
from egnn_prune.evaluation.predict import BATCH, graph_means, predict_all
from egnn_prune.models import recompute_messages
from egnn_prune.pipeline.build import build_estimator, build_model
from egnn_prune.pipeline.fit_callbacks import with_the_asked
from egnn_prune.pruning import choose
from egnn_prune.runs.run_folder import RunFolder, slug
from egnn_prune.selection import SampleScores, replay_weights, rounds, score_samples, select
from egnn_prune.system.distributed import after_the_first
from egnn_prune.training import (
    LOSSES,
    FitCheckpoint,
    FitLog,
    FitSettings,
    ForceLosses,
    LearningCurve,
    Pruning,
    RegressionTask,
    Reselection,
    StopEarly,
    fit,
    graph_batches,
)
from egnn_prune.training.batch_losses import Losses
from egnn_prune.training.ensembles import bootstrap_ensemble, snapshot_ensemble
from egnn_prune.training.fit_log import require_logger
from egnn_prune.training.looks import affordable
from egnn_prune.uncertainty import Calibrated, Estimator, calibrate

Outputs = dict[str, Any]


class Staged(Protocol):
    """A job that :func:`stage` divides.

    Attributes:
        stages: how many there are.
    """

    stages: int

    @property
    def settings(self) -> Any:
        """Everything that can be chosen, with the seed."""

    @property
    def folder(self) -> RunFolder:
        """Where results go."""


W = TypeVar("W", bound=Staged)


def stage(
    number: int,
    name: str,
    title: str,
    sections: tuple[str, ...],
    *artifacts: str,
    alone: bool = False,
) -> Callable[[Callable[[W], Outputs]], Callable[[W], None]]:
    """A method that is a stage of a job: seeded, and done once, see :meth:`RunFolder.stage`.

    Args:
        number: of the stages, in their order; it seeds.
        name: of the file with the outputs that the method returns.
        title: what is printed.
        sections: the settings that the result depends on.
        *artifacts: what the method leaves in the folder.
        alone: of several processes the first one does it.
    """

    def decorated(work: Callable[[W], Outputs]) -> Callable[[W], None]:
        @wraps(work)
        def done_once(job: W) -> None:
            say(f"[{number}/{job.stages}] {title}")
            seed_stage(job.settings.seed, number)
            job.folder.stage(name, sections, artifacts, lambda: work(job), alone)

        return done_once

    return decorated


def saved_fit(folder: RunFolder, label: str, minutes: float) -> FitCheckpoint | None:
    """What keeps the state of a stage's fit; nothing outside of stages, or where none is asked."""
    path = folder.unfinished(label)
    return FitCheckpoint(path, minutes) if path is not None and minutes else None


def fit_log(kind: str, folder: RunFolder, label: str, fits: Counter[str]) -> FitLog:
    """What a fit can be watched by.

    Args:
        kind: see :class:`FitLog`.
        folder: of the run.
        label: of the fit.
        fits: how many had a label before; those of one label are told apart by a number.
    """
    fits[label] += 1
    number = f"-{fits[label]}" if fits[label] > 1 else ""
    return FitLog(kind, folder.path, slug(label) + number)


class RunContext:
    """Data, folder and device of a job, and what is done with them in more than one stage.

    Args:
        settings: everything that can be chosen.
        folder: where results go.
        device: where training runs.
    """

    stages = 7

    def __init__(self, settings: Settings, folder: RunFolder, device: torch.device) -> None:
        self.settings, self.folder, self.device = settings, folder, device
        require_logger(settings.trainer.logger)
        self._fits: Counter[str] = Counter()
        self.dtype = getattr(torch, settings.precision)
        s = settings.data
        say(f"Data: {s.name}")
        dataset = after_the_first(
            lambda: sources.load(
                s.name, s.path, s.target, settings.seed, subset=s.subset, test=s.test, ood=s.ood
            )
        )
        self.dataset: GraphDataset = dataset.limited(s.limit).with_cutoff(settings.model.cutoff)
        for line in summary(self.dataset):
            say(f"  {line}")
        self.train, self.val = self.dataset.split("train"), self.dataset.split("val")
        #: Optimiser steps of the fits of each label in this process.
        self.steps_taken: dict[str, list[int]] = {}
        self._check_sizes()
        self._check_elements()
        self._check_sparsity()
        self.steps_per_epoch = max(1, len(self.train) // settings.training.batch_size)

    def _check_sizes(self) -> None:
        """Refuse too few graphs to judge on now, not after the training."""
        for split in ("test", "ood"):
            rows = self.dataset.splits[split]
            if len(rows) and len(self.dataset.targets(split)) < 2:
                raise DataError(
                    f"{self.dataset.name} has 1 graph in its {split} split, and error bars are "
                    f"judged on 2 or more; use more data, such as data.{split}=FILE for extxyz"
                )

    def _check_elements(self) -> None:
        """Refuse elements that training never sees now, not when the test split is evaluated."""
        if self.dataset.outputs == "positions":
            return
        known = set(self.dataset.elements)
        for split in ("val", "test", "ood"):
            if known.issuperset(self.dataset.elements_of(split)):
                continue
            for graph in self.dataset.split(split):
                unseen = sorted(set(graph.z.tolist()) - known)
                if unseen:
                    raise DataError(
                        f"record {int(graph.row)} of {self.dataset.name} ({split} split) has the "
                        f"element {chemical_symbols[unseen[0]]}, which no training graph has; "
                        "leave it out or choose another seed"
                    )

    def _check_sparsity(self) -> None:
        """Refuse a sparsity that would empty a group now, not after an hour of training."""
        p = self.settings.pruning
        if p.removed is not None:
            groups = build_model(self.settings, self.dataset).channel_groups()
            choose({g.name: torch.zeros(g.n) for g in groups}, p.removed, p.scope, groups=groups)

    def outputs(self, stage: str) -> Outputs:
        """What a finished stage wrote down."""
        return self.folder.outputs(stage)

    def fit(
        self,
        label: str,
        model: nn.Module,
        graphs: Sequence[Data],
        epochs: int = 0,
        callbacks: Sequence[Callback] = (),
        *,
        lr: float | None = None,
        weights: Tensor | None = None,
        steps: int | None = None,
    ) -> float:
        """Train in place for epochs of the training split, or for steps; returns the wall time."""
        t, curve = self.settings.training, LearningCurve()
        logger = self.settings.trainer.logger
        asked = with_the_asked(callbacks, t)
        recompute_messages(model, t.recompute)
        steps = epochs * self.steps_per_epoch if steps is None else steps
        train = graph_batches(graphs, t.batch_size, weights)
        size = train.batch_size or 1
        every = 1  # where the looks choose the weights, each counts
        if not t.monitor:
            every = affordable(len(train) * size, len(self.val))
        how = FitSettings(
            steps,
            lr or t.lr,
            t.weight_decay,
            t.clip,
            passes_per_look=every,
            schedule=t.schedule,
            mixed_precision=t.mixed_precision,
        )
        seconds = fit(
            RegressionTask(model, how, self.losses),
            train,
            held(self.val, 4 * size),
            device=self.device,
            label=label,
            callbacks=[*asked, curve, fit_log(logger, self.folder, label, self._fits)],
            checkpoint=saved_fit(self.folder, label, self.settings.trainer.save_minutes),
        )
        done = steps
        if any(isinstance(c, StopEarly) and c.stopped for c in asked):
            done = int(curve.rows[-1]["step"])
            say(f"{label}: no better {t.monitor} in {t.patience} looks; {done} of {steps} steps")
        self.steps_taken.setdefault(label, []).append(done)
        if logger != "none":
            curve.write(self.folder.path / "curves" / f"{label}.csv")
        return seconds

    @property
    def pruning(self) -> Pruning:
        """What the settings prune, in the words of the callback."""
        p = self.settings.pruning
        how = asdict(p)
        how["sparsity"] = p.removed or 0.0
        return Pruning(freezing=how.pop("freeze"), **how)

    @property
    def losses(self) -> Losses:
        """What the settings minimise."""
        forces = self.settings.training.force_weight
        return ForceLosses(forces) if forces else LOSSES[loss_name(self.settings)]

    def trained(self) -> tuple[nn.Module, float]:
        """A fresh dense network (or ensemble) after its training, and the wall time."""
        u = self.settings.uncertainty
        steps = self.settings.training.max_epochs * self.steps_per_epoch
        seconds: list[float] = []
        if u.method == "snapshot":
            model: nn.Module = snapshot_ensemble(
                build_model(self.settings, self.dataset),
                lambda network, share: seconds.append(
                    self.fit("dense", network, self.train, steps=share)
                ),
                steps=steps,
                cycles=u.members,
            )
        elif u.method == "bootstrap":

            def fit_member(network: nn.Module, rows: Tensor) -> None:
                some = [self.train[i] for i in rows.tolist()]
                seconds.append(self.fit("dense", network, some, steps=steps))

            model = bootstrap_ensemble(
                lambda: build_model(self.settings, self.dataset),
                fit_member,
                n=len(self.train),
                members=u.members,
                generator=torch.Generator().manual_seed(self.settings.seed),
            )
        else:
            model = build_model(self.settings, self.dataset)
            seconds.append(self.fit("dense", model, self.train, steps=steps))
        return model, math.fsum(seconds)

    def sample_scores(self, model: nn.Module) -> SampleScores:
        """What the selection may look at: uncertainty, loss and embedding of every graph."""
        prediction = predict_all(self.estimator(model), self.train, self.device, "uncertainty")
        return score_samples(
            model,
            self.batches(self.train, "losses, embeddings"),
            graph_means(prediction.ood_variance, self.train).sqrt(),
            self.losses,
            self.device,
        )

    def select(self, sample_scores: SampleScores) -> Tensor:
        """Row numbers of the training graphs that the settings select."""
        s = self.settings.selection
        return select(
            sample_scores,
            s.strategy,
            fraction=s.fraction,
            threshold=s.threshold,
            band=s.band,
            generator=torch.Generator().manual_seed(self.settings.seed),
        )

    def reselection(self) -> list[Callback]:
        """Selects anew while the pruned model is fine-tuned, where the settings ask for rounds."""
        s, steps = self.settings.selection, self.settings.training.finetune_epochs

        def weights(model: nn.Module) -> Tensor:
            chosen = self.select(self.sample_scores(copy.deepcopy(model)))
            return replay_weights(chosen, len(self.train), s.replay)

        return [Reselection(weights, rounds(steps, s.rounds))] if s.rounds > 1 else []

    def estimator(self, model: nn.Module) -> Estimator:
        """The model with the uncertainty method of the settings, fitted on the training split."""
        model = model.to(self.device).eval()
        estimator = build_estimator(self.settings.uncertainty, model)
        return estimator.fit(self.batches(self.train, "fitting the error bars"))

    def calibrated(self, model: nn.Module) -> Calibrated:
        """The model with its uncertainty method, calibrated on the validation split.

        Where the data have forces, error bars of forces are fitted, whether or not the forces were
        trained on: a calculator serves them all the same.
        """
        found = calibrate(
            self.estimator(model),
            self.batches(self.val, "calibrating"),
            self.settings.uncertainty.calibration,
        )
        if states_forces(self.dataset):
            self._fit_force_bars(found)
        return found.to("cpu")

    def _fit_force_bars(self, estimator: Calibrated) -> None:
        """Give an estimator error bars of forces, from the source that validation prefers."""
        try:
            found = fit_likelier_bars(estimator, self.train, self.val, self.device)
        except InputError as error:  # such as validation forces that are zero by symmetry
            say(f"No error bars of forces: {error}")
            return
        best, *others = (f"{name} ({value:.3f} nats)" for name, value in found.items())
        rest = f"; less likely from {' and '.join(others)}" if others else ""
        say(f"Error bars of forces from {best} on validation{rest}")

    def batches(self, graphs: Sequence[Data], label: str) -> Iterator[Any]:
        """Graphs in order, in batches, on the job's device, with a progress bar."""
        for batch in tqdm(loader(graphs, BATCH), label, leave=False):
            yield batch.to(self.device)

    def save(self, model: nn.Module, name: str) -> None:
        """Write a network, or an estimator with its network, into the run's folder.

        Of an estimator the file also says how uncertain validation graphs are, and what the
        training graphs look like, which tells later what is out of distribution.
        """
        known: dict[str, Any] = {}
        if isinstance(model, Estimator):
            known = {"validation_epistemic_std": self.validation_epistemic_std(model)}
            if self.domain is not None:
                known["training_domain"] = self.domain.to_json()
        checkpoint.save(
            model,
            self.folder.path / name,
            target=self.dataset.target,
            unit=self.dataset.unit,
            dataset=self.dataset.name,
            units=self.dataset.units,
            config_hash=self.folder.hash,
            **known,
        )

    @cached_property
    def domain(self) -> TrainingDomain | None:
        """What the training graphs look like, where they are structures in Angstrom."""
        if self.dataset.units.get("pos", "Angstrom") != "Angstrom":
            return None
        return TrainingDomain.of(self.train)

    def validation_epistemic_std(self, estimator: Estimator) -> dict[str, float]:
        """Quantiles of the validation graphs' epistemic deviation, in the target's unit."""
        prediction = predict_all(estimator, self.val, self.device, "validation")
        epistemic_std = graph_means(prediction.ood_variance, self.val).sqrt()
        levels = {"median": 0.5, "q95": 0.95, "q99": 0.99, "max": 1.0}
        return {name: float(epistemic_std.quantile(level)) for name, level in levels.items()}

    def load(self, name: str) -> Prunable:
        """A model that an earlier stage saved in the run's folder."""
        return checkpoint.load(self.folder.path / name)

    def load_calibrated(self, name: str) -> Calibrated:
        """The same with its error bars."""
        found = checkpoint.load_estimator(self.folder.path / name)
        assert isinstance(found, Calibrated)
        return found


def seed_stage(seed: int, number: int) -> None:
    """Seed everything for a stage, so that a continued run draws the same numbers."""
    L.seed_everything(1000 * seed + number, verbose=False)


def say(text: str) -> None:
    """Print a heading between the progress bars."""
    tqdm.write(text)
