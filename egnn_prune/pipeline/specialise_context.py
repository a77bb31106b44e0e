"""What the stages of ``specialise`` share: structures, folder, fits, saved potentials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch_geometric.data import Data

from egnn_prune.ase.sampling import dynamics_frames
from egnn_prune.configs.specialise_settings import SpecialiseSettings
from egnn_prune.data import GraphDataset
from egnn_prune.data.summary import summary
from egnn_prune.deployment import checkpoint
from egnn_prune.deployment.training_domain import TrainingDomain
from egnn_prune.pipeline import specialise_data as structures
from egnn_prune.pipeline.run_context import Outputs, fit_log, saved_fit, say
from egnn_prune.pipeline.specialise_bars import epistemic_quantiles
from egnn_prune.runs.run_folder import RunFolder
from egnn_prune.training import (
    FitResult,
    PotentialLosses,
    PotentialSettings,
    fit_potential,
    refit_shifts,
)
from egnn_prune.training.distillation import augmented, label
from egnn_prune.training.fit_log import require_logger
from egnn_prune.uncertainty import Calibrated, Estimator, SinglePass

#: Steps in which the rate rises: Adam's first steps are as long as its later ones.
WARMUP_STEPS = 20
#: Settings that the results of stages depend on.
READ = ("data", "demo", "labels")
TAUGHT = (*READ, "teacher", "modal", "training")
CUT = (*TAUGHT, "cut", "budget", "budgets")
BARRED = (*CUT, "uncertainty")
POOLED = (*BARRED, "pool", "label", "selection", "rounds", "later")
SPLITS = ("train", "val", "test")
STRUCTURES, LABELLED = "stages/structures.npz", "stages/labelled.npz"
TEACHER, DOMAIN, PRUNED = (f"stages/{n}.safetensors" for n in ("teacher", "domain", "pruned"))
SCRATCH = "stages/scratch.safetensors"
FINETUNED, SPECIALISED = "finetuned.safetensors", "specialised.safetensors"
#: The small network after it learned from a pool, and what was labelled of it.
LEARNED, NEW_LABELS = "stages/learned_network.safetensors", "labelled.extxyz"
#: The networks that were trained, before they get error bars.
FITTED = {
    name: f"stages/{name}_network.safetensors" for name in ("finetuned", "specialised", "scratch")
}
#: The files of the models that are compared, in the order of every table.
COMPARED = {
    "teacher": TEACHER,
    "finetuned": FINETUNED,
    "specialised": SPECIALISED,
    "scratch": SCRATCH,
}


#: Temperatures of the teacher's dynamics, its steps (of 0.5 fs), and steps between frames.
KELVIN, DYNAMICS_STEPS, DYNAMICS_INTERVAL = (300.0, 600.0), 100, 10


class SpecialiseContext:
    """Structures, folder and device of a job, and what is done with them in more than one stage.

    Args:
        settings: everything that can be chosen.
        folder: where results go.
        device: where training runs.
    """

    stages = 10

    def __init__(
        self, settings: SpecialiseSettings, folder: RunFolder, device: torch.device
    ) -> None:
        self.settings, self.folder, self.device = settings, folder, device
        require_logger(settings.trainer.logger)
        self._fits: Counter[str] = Counter()
        self.dtype = getattr(torch, settings.precision)

    @cached_property
    def dataset(self) -> GraphDataset:
        """The labelled structures, with neighbour lists."""
        found = structures.read_dataset(self.folder.path / LABELLED)
        return found.with_cutoff(self.outputs("teacher")["cutoff"])

    def outputs(self, name: str) -> Outputs:
        """What a finished stage wrote down."""
        return self.folder.outputs(name)

    def say_what_it_is(self, dataset: GraphDataset) -> None:
        """Print what a labelled data set holds."""
        for line in summary(dataset):
            say(f"  {line}")

    def fit(
        self,
        name: str,
        model: nn.Module,
        steps: int | None = None,
        lr: float | None = None,
        draw: int = 0,
    ) -> FitResult:
        """Train in place.

        The energies per element are those of the data before and after: fits look at forces.

        Args:
            name: for the progress bar.
            model: a potential.
            steps: of the optimiser, by default those of the settings.
            lr: highest learning rate, by default that of the settings.
            draw: from 1 on a draw of the training structures with replacement, in another order.
        """
        t = self.settings.training
        steps = steps or t.steps
        how = PotentialSettings(
            steps,
            lr or t.lr,
            warmup=min(0.4, max(0.1, WARMUP_STEPS / steps)),
            batch_size=t.batch_size,
            validations=max(2, min(10, steps // 10)),
        )
        train: Sequence[Data] = self.dataset.split("train")
        if draw:
            train = resampled(train, self.settings.seed + draw)
        refit_shifts(model, train)
        found = fit_potential(
            model,
            train,
            self.dataset.split("val"),
            how,
            losses=PotentialLosses(t.energy_weight, stress_weight=t.stress_weight),
            device=self.device,
            seed=self.settings.seed + draw,
            label=name,
            callbacks=[fit_log(self.settings.trainer.logger, self.folder, name, self._fits)],
            checkpoint=saved_fit(self.folder, name, self.settings.trainer.save_minutes),
        )
        refit_shifts(model, train)
        return found

    def save(self, model: nn.Module, name: str, learned: Sequence[Data] = ()) -> None:
        """Write a potential into the run's folder, so that a calculator can open it.

        Of one with error bars the file also says how uncertain validation structures are.

        Args:
            model: a potential, or one with error bars.
            name: of the file.
            learned: structures that it was trained on beside those of the run.
        """
        known: dict[str, Any] = {}
        barred = isinstance(model, Estimator)
        if barred or name == SPECIALISED:
            known["dataset"] = self.learned_from
            wider = [*self.dataset.split("train"), *learned] if learned else []
            if domain := TrainingDomain.of(wider) if wider else self.domain:
                known["training_domain"] = domain.to_json()
        if isinstance(model, Estimator):
            val = self.dataset.split("val")
            known["validation_epistemic_std"] = epistemic_quantiles(model, val, self.device)
        checkpoint.save(
            model if barred else SinglePass(model),
            self.folder.path / name,
            target="energy",
            unit="eV",
            units=dict(structures.UNITS),
            config_hash=self.folder.hash,
            **known,
        )

    @property
    def learned_from(self) -> str:
        """The structures and whose labels they had, for a reader of the model's file."""
        if self.settings.labels == "teacher" or self.settings.demo:
            return f"{self.dataset.name}, labelled by {Path(self.settings.teacher).name}"
        return self.dataset.name

    @cached_property
    def domain(self) -> TrainingDomain | None:
        """What the training structures look like."""
        return TrainingDomain.of(self.dataset.split("train"))

    def load(self, name: str) -> Any:
        """A potential that an earlier stage saved, without its error bars."""
        return checkpoint.load(self.folder.path / name)

    def load_calibrated(self, name: str) -> Calibrated:
        """The same with them."""
        found = checkpoint.load_estimator(self.folder.path / name)
        assert isinstance(found, Calibrated)
        return found

    def labelled_by(self, teacher: nn.Module, dataset: GraphDataset) -> GraphDataset:
        """The data set with the teacher's labels, shaken copies and frames of its dynamics."""
        own = train = list(dataset.split("train"))
        t, seed = self.settings.training, self.settings.seed
        if t.augmented:
            train = augmented(own, copies=t.augmented, strains=t.augmented, seed=seed)
        if t.dynamics:
            runs = len(KELVIN) * (DYNAMICS_STEPS // DYNAMICS_INTERVAL)  # frames from each start
            frames = dynamics_frames(
                teacher,
                own[: -(-t.dynamics // runs)],
                kelvin=KELVIN,
                steps=DYNAMICS_STEPS,
                interval=DYNAMICS_INTERVAL,
                seed=seed,
                device=str(self.device),
            )
            train = train + frames[: t.dynamics]
        parts = {"train": train, **{s: list(dataset.split(s)) for s in ("val", "test")}}
        found = {
            split: label(teacher, graphs, device=self.device, progress=f"labels to {split} on")
            for split, graphs in parts.items()
        }
        return structures.replaced(dataset, found)


def about_fit(found: FitResult) -> Outputs:
    """What a stage writes down of its fit."""
    return {
        "train_seconds": found.seconds,
        "force_rmse_mev_per_angstrom": found.force_rmse,
        "curve": found.curve,
    }


def resampled(graphs: Sequence[Data], seed: int) -> list[Data]:
    """As many of the structures, drawn with replacement (Breiman 1996): about 63 % of them."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(graphs), (len(graphs),), generator=generator)
    return [graphs[int(row)] for row in rows]
