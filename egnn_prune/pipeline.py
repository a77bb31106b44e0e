"""The main job, top to bottom, in reading order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from ase.data import chemical_symbols
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from tqdm import tqdm

from egnn_prune import checkpoint, files
from egnn_prune import data as sources
from egnn_prune.building import build_model
from egnn_prune.configs.settings import Settings
from egnn_prune.data import GraphDataset
from egnn_prune.device import choose_device
from egnn_prune.errors import DataError
from egnn_prune.evaluation import evaluate, predict_all
from egnn_prune.provenance import git_commit
from egnn_prune.pruning import apply_masks, choose, compact, keep_masks, ledger
from egnn_prune.report import comparison_table, write_figures, write_report
from egnn_prune.report.tables import headline
from egnn_prune.run_folder import RunFolder
from egnn_prune.selection import replay_weights, select
from egnn_prune.training import LOSSES, PruningCallback, fit
from egnn_prune.validation import validate

DENSE = ("data", "model", "uncertainty", "training")
SELECTED = (*DENSE, "selection")
PRUNED = (*SELECTED, "pruning")


def run(settings: Settings) -> Path:
    """Train, select, prune, freeze, fine-tune, compact, evaluate, report.

    An interrupted run continues from its last finished stage; a finished one is left as it is.

    Args:
        settings: everything that can be chosen.

    Returns:
        The run's folder.

    Raises:
        InputError: a setting or the data cannot be used.
    """
    validate(settings)
    device = choose_device(settings.device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    folder = RunFolder(settings)
    if folder.finished:
        print(f"{folder.path} is finished; nothing is run again.")
        print(comparison_table(files.read_json(folder.path / "metrics.json")))
        return folder.path
    job = Job(settings, folder, device)
    job.train_dense()
    job.select_uncertain_graphs()
    job.prune_and_finetune()
    job.continue_dense()
    job.train_scratch()
    job.evaluate()
    job.report()
    return folder.path


class Job:
    """The stages of a run. Each seeds itself, so that a continued run computes the same numbers.

    Args:
        settings: everything that can be chosen.
        folder: where results go.
        device: where training runs.
    """

    def __init__(self, settings: Settings, folder: RunFolder, device: torch.device) -> None:
        self.settings, self.folder, self.device = settings, folder, device
        self.dtype = getattr(torch, settings.precision)
        s = settings.data
        say(f"Data: {s.name}")
        dataset = sources.load(s.name, s.path, s.target, settings.seed)
        self.dataset: GraphDataset = dataset.limited(s.limit).with_cutoff(settings.model.cutoff)
        self.train, self.val = self.dataset.split("train"), self.dataset.split("val")
        self._check_elements()
        self._check_sparsity()
        self.steps_per_epoch = max(1, len(self.train) // settings.training.batch_size)

    # ------------------------------------------------------------------ the stages

    def train_dense(self) -> None:
        """Stage 1: the dense network."""

        def work() -> dict[str, Any]:
            model = build_model(self.settings, self.dataset)
            seconds = self.fit("dense", model, self.train, self.settings.training.max_epochs)
            self._save(model, "stages/trained.safetensors")
            return {"train_seconds": seconds}

        self._stage(
            1, "dense", "Training the dense model", DENSE, ("stages/trained.safetensors",), work
        )

    def select_uncertain_graphs(self) -> None:
        """Stage 2: score every training graph, choose those to fine-tune on."""
        s = self.settings.selection

        def work() -> dict[str, Any]:
            model = self.load("stages/trained.safetensors")
            prediction = predict_all(
                model, self.train, self.settings.uncertainty, self.device, "uncertainty"
            )
            uncertainty = prediction.epistemic.sqrt()
            generator = torch.Generator().manual_seed(self.settings.seed)
            chosen = select(
                uncertainty,
                s.strategy,
                fraction=s.fraction,
                threshold=s.threshold,
                generator=generator,
            )
            weights = replay_weights(chosen, len(self.train), s.replay)
            files.write_arrays(
                self.folder.path / "stages/selection.npz",
                uncertainty=uncertainty.numpy(),
                selected=chosen.numpy(),
                weights=weights.numpy(),
            )
            return {
                "strategy": s.strategy,
                "uncertainty": self.settings.uncertainty.method,
                "selected": len(chosen),
                "replay": s.replay,
                "mean_epistemic_std_all": float(uncertainty.mean()),
                "mean_epistemic_std_selected": float(uncertainty[chosen].mean()),
            }

        self._stage(
            2, "selection", "Scoring the training graphs", SELECTED, ("stages/selection.npz",), work
        )

    def prune_and_finetune(self) -> None:
        """Stage 3: prune in rounds while fine-tuning on the selected graphs, then compact."""
        s = self.settings.pruning

        def work() -> dict[str, Any]:
            model = self.load("stages/trained.safetensors")
            with np.load(self.folder.path / "stages/selection.npz", allow_pickle=False) as archive:
                selected, weights = archive["selected"].tolist(), archive["weights"]
            rounds = PruningCallback(
                s.criterion,
                s.sparsity,
                schedule=s.schedule,
                rounds=s.rounds,
                until=s.until,
                scope=s.scope,
                batches=DataLoader([self.train[i] for i in selected], 64),
                round_to=s.round_to,
                freezing=s.freeze,
                freeze_fraction=s.freeze_fraction,
                seed=self.settings.seed,
            )
            seconds = self.fit(
                "pruned",
                model,
                self.train,
                self.settings.training.finetune_epochs,
                rounds,
                lr=self.settings.training.finetune_lr,
                weights=torch.from_numpy(weights),
            )
            apply_masks(model, rounds.keep)  # freeze=none let channels grow back
            small = compact(model)
            self._save(small, "pruned.safetensors")
            batch = Batch.from_data_list(self.dataset.split("test"))
            groups = model.channel_groups()  # type: ignore[operator]
            keep = keep_masks(model, groups)
            counts = [
                {"name": g.name, "kind": g.kind, "total": g.n, "kept": int(keep[g.name].sum())}
                for g in groups
            ]
            total, kept = sum(c["total"] for c in counts), sum(c["kept"] for c in counts)
            rows_of_ledger = ledger(model, small, lambda m: m(batch))
            for row in rows_of_ledger:
                for key in ("macs_dense", "macs_pruned"):
                    row[key] = round(row[key] / batch.num_graphs)
            return {
                "train_seconds": seconds,
                "ledger": rows_of_ledger,
                "pruning": {
                    **asdict(s),
                    "channels_total": total,
                    "channels_removed": total - kept,
                    "groups": counts,
                },
            }

        self._stage(3, "pruned", "Pruning and fine-tuning", PRUNED, ("pruned.safetensors",), work)

    def continue_dense(self) -> None:
        """Stage 4: the baseline, with the same extra steps on randomly drawn training graphs."""

        def work() -> dict[str, Any]:
            model = self.load("stages/trained.safetensors")
            t = self.settings.training
            seconds = self.fit("dense", model, self.train, t.finetune_epochs, lr=t.finetune_lr)
            self._save(model, "dense.safetensors")
            return {"train_seconds": seconds}

        self._stage(
            4, "baseline", "Training the baseline further", DENSE, ("dense.safetensors",), work
        )

    def train_scratch(self) -> None:
        """Stage 5: the compact shape, trained from scratch for all the steps."""
        t = self.settings.training
        if not t.scratch:
            return

        def work() -> dict[str, Any]:
            small = self.load("pruned.safetensors")
            model = checkpoint.rebuilt(small).to(self.dtype)
            seconds = self.fit("scratch", model, self.train, t.max_epochs)
            seconds += self.fit("scratch", model, self.train, t.finetune_epochs, lr=t.finetune_lr)
            self._save(model, "stages/scratch.safetensors")
            return {"train_seconds": seconds}

        self._stage(
            5,
            "scratch",
            "Training the pruned shape from scratch",
            PRUNED,
            ("stages/scratch.safetensors",),
            work,
        )

    def evaluate(self) -> None:
        """Stage 6: all models on the same test split, latencies in one run."""
        places = {"dense": "dense.safetensors", "pruned": "pruned.safetensors"}
        seconds = {
            "dense": self.facts("dense")["train_seconds"] + self.facts("baseline")["train_seconds"],
            "pruned": self.facts("dense")["train_seconds"]
            + self.facts("selection")["seconds"]
            + self.facts("pruned")["train_seconds"],
        }
        if self.settings.training.scratch:
            places["scratch"] = "stages/scratch.safetensors"
            seconds["scratch"] = self.facts("scratch")["train_seconds"]

        def work() -> dict[str, Any]:
            models = {name: self.load(place) for name, place in places.items()}
            results, arrays = evaluate(models, self.dataset, self.settings, self.device)
            for name, result in results.items():
                result["train_seconds"] = seconds[name]
                result["checkpoint_bytes"] = (self.folder.path / places[name]).stat().st_size
            files.write_arrays(self.folder.path / "predictions.npz", **arrays)
            selection = self.facts("selection")
            pruned = self.facts("pruned")
            reference = arrays["test_target"] - arrays["test_reference"]
            files.write_json(
                self.folder.path / "metrics.json",
                {
                    "schema_version": 1,
                    "config_hash": self.folder.hash,
                    "git_commit": git_commit(),
                    "seed": self.settings.seed,
                    "device": str(self.device),
                    "threads": torch.get_num_threads(),
                    "dataset": {
                        "name": self.dataset.name,
                        "target": self.dataset.target,
                        "unit": self.dataset.unit,
                        **{k: len(v) for k, v in self.dataset.splits.items()},
                        "mean_predictor_mae": float(np.abs(reference).mean()),
                        "per_element_fit": self.dataset.extensive,
                    },
                    "models": results,
                    "selection": {
                        k: v for k, v in selection.items() if k not in ("key", "seconds")
                    },
                    "pruning": pruned["pruning"],
                    "ledger": pruned["ledger"],
                },
            )
            return {}

        self._stage(
            6, "evaluation", "Evaluating", PRUNED, ("metrics.json", "predictions.npz"), work
        )

    def report(self) -> None:
        """Stage 7: figures, page, table."""

        def work() -> dict[str, Any]:
            write_figures(self.folder.path)
            write_report(self.folder.path)
            return {}

        self._stage(7, "report", "Writing the report", PRUNED, ("report.html",), work)
        metrics = files.read_json(self.folder.path / "metrics.json")
        print(f"\n{comparison_table(metrics)}\n\n{headline(metrics)}")
        print(f"Report: {self.folder.path / 'report.html'}")

    # ------------------------------------------------------------------ what they share

    def _check_elements(self) -> None:
        """Refuse elements that training never sees now, not when the test split is evaluated."""
        known = set(self.dataset.elements)
        for split in ("val", "test", "ood"):
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
        groups = build_model(self.settings, self.dataset).channel_groups()  # type: ignore[operator]
        s = self.settings.pruning
        choose({g.name: torch.zeros(g.n) for g in groups}, s.sparsity, s.scope, groups=groups)

    def facts(self, stage: str) -> dict[str, Any]:
        """What a finished stage wrote down."""
        return files.read_json(self.folder.path / "stages" / f"{stage}.json")

    def _stage(
        self,
        number: int,
        name: str,
        title: str,
        sections: tuple[str, ...],
        made: tuple[str, ...],
        work: Callable[[], dict[str, Any]],
    ) -> None:
        say(f"[{number}/7] {title}")
        seed_stage(self.settings.seed, number)
        self.folder.stage(name, sections, made, work)

    def fit(
        self,
        label: str,
        model: nn.Module,
        graphs: list[Data],
        epochs: int,
        callback: Callback | None = None,
        lr: float | None = None,
        weights: Tensor | None = None,
    ) -> float:
        """Train in place for a number of epochs of the training split; returns the wall time."""
        t = self.settings.training
        return fit(
            model,
            graphs,
            self.val,
            steps=epochs * self.steps_per_epoch,
            batch_size=t.batch_size,
            lr=lr or t.lr,
            weight_decay=t.weight_decay,
            clip=t.clip,
            device=self.device,
            label=label,
            weights=weights,
            callbacks=[callback] if callback else None,
            losses=LOSSES[t.loss],
        )

    def _save(self, model: nn.Module, name: str) -> None:
        checkpoint.save(
            model,
            self.folder.path / name,
            target=self.dataset.target,
            unit=self.dataset.unit,
            dataset=self.dataset.name,
            config_hash=self.folder.hash,
        )

    def load(self, name: str) -> nn.Module:
        """A model that an earlier stage saved in the run's folder."""
        return checkpoint.load(self.folder.path / name)


def seed_stage(seed: int, number: int) -> None:
    """Seed everything for a stage, so that a continued run draws the same numbers."""
    L.seed_everything(1000 * seed + number, verbose=False)


def say(text: str) -> None:
    """Print a heading between the progress bars."""
    tqdm.write(text)
