"""The main job, top to bottom, in reading order."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from egnn_prune.configs.settings import Settings
from egnn_prune.configs.unused import refuse_unused
from egnn_prune.data.dataset import split_hash
from egnn_prune.deployment import checkpoint
from egnn_prune.errors import DataError, InputError
from egnn_prune.evaluation.force_uncertainty import force_bars
from egnn_prune.evaluation.model_comparison import errors_by_type_of_test, evaluate
from egnn_prune.pipeline.check_settings import validate
from egnn_prune.pipeline.run_context import Outputs, RunContext, stage
from egnn_prune.pipeline.timed_pruning import check_latency, latency_left, stopwatch, timed_batch
from egnn_prune.pruning import apply_masks, compact, keep_masks, ledger
from egnn_prune.pruning.stopwatch import Remembered
from egnn_prune.report import comparison_table, write_report
from egnn_prune.report.common.files import load_metrics
from egnn_prune.report.common.intervals import change_intervals
from egnn_prune.report.run.tables import headline
from egnn_prune.runs.run_folder import RunFolder
from egnn_prune.selection import replay_weights
from egnn_prune.system import files
from egnn_prune.system.array_reading import MADE_AGAIN, read_arrays
from egnn_prune.system.device import choose_device
from egnn_prune.system.distributed import decided, several
from egnn_prune.system.git import git_commit
from egnn_prune.training import PruningCallback
from egnn_prune.uncertainty import AtomErrorBars
from egnn_prune.uncertainty.calibration import MIN_POINTS

DENSE = ("data", "model", "uncertainty", "training")
SELECTED = (*DENSE, "selection")
PRUNED = (*SELECTED, "pruning")
TRAINED, CHOSEN = "stages/trained.safetensors", "stages/selection.npz"
SCRATCH = "stages/scratch.safetensors"
#: What a budget in time measured.
TIMES = "stages/latency.json"
PRUNED_FILE = "pruned.safetensors"
EVALUATED = "metrics.json", "predictions.npz"


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
    refuse_unused(settings)
    device = choose_device(settings.device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with several(settings.trainer.devices, settings.trainer.nodes, device) as device:
        return _run(settings, device)


def _run(settings: Settings, device: torch.device) -> Path:
    folder = RunFolder(settings)
    if folder.finished:
        print(f"{folder.path} is finished; nothing is run again.")
        print(comparison_table(load_metrics(folder.path / "metrics.json")))
        return folder.path
    job = Job(settings, folder, device)
    job.check_validation()
    if decided(lambda: not (folder.path / PRUNED_FILE).exists()):
        check_latency(job)
    job.train_dense()
    job.select_uncertain_graphs()
    job.prune_and_finetune()
    job.continue_dense()
    if settings.training.scratch:
        job.train_scratch()
    job.evaluate()
    job.report()
    metrics = files.read_json(folder.path / "metrics.json")
    print(f"\n{comparison_table(metrics)}\n\n{headline(metrics)}")
    print(f"Report: {folder.path / 'report.html'}")
    return folder.path


class Job(RunContext):
    """The stages of a run. Each seeds itself, so that a continued run computes the same numbers."""

    def check_validation(self) -> None:
        """Refuse too few validation graphs to calibrate on now, not after the training."""
        method = self.settings.uncertainty.calibration
        if method != "none" and len(self.val) < MIN_POINTS:
            raise DataError(
                f"{self.dataset.name} has {len(self.val)} validation graphs, and error bars are "
                f"calibrated on {MIN_POINTS} or more; use more data or uncertainty.calibration=none"
            )

    # ------------------------------------------------------------------ the stages

    @stage(1, "dense", "Training the dense model", DENSE, TRAINED)
    def train_dense(self) -> Outputs:
        """The dense network."""
        model, seconds = self.trained()
        self.save(model, TRAINED)
        return {"train_seconds": seconds, "steps": self.steps_taken["dense"]}

    @stage(2, "selection", "Scoring the training graphs", SELECTED, CHOSEN)
    def select_uncertain_graphs(self) -> Outputs:
        """Score every training graph, choose those to fine-tune on."""
        s = self.settings.selection
        sample_scores = self.sample_scores(self.load(TRAINED))
        chosen = self.select(sample_scores)
        files.write_arrays(
            self.folder.path / CHOSEN,
            uncertainty=sample_scores.uncertainty.numpy(),
            selected=chosen.numpy(),
            weights=replay_weights(chosen, len(self.train), s.replay).numpy(),
        )
        return {
            "strategy": s.strategy,
            "uncertainty": self.settings.uncertainty.method,
            "selected": len(chosen),
            "replay": s.replay,
            "mean_epistemic_std_all": float(sample_scores.uncertainty.mean()),
            "mean_epistemic_std_selected": float(sample_scores.uncertainty[chosen].mean()),
        }

    def chosen(self) -> tuple[list[int], np.ndarray]:
        """The rows of the selected training graphs, and how often every one is drawn.

        Raises:
            InputError: the file is damaged.
        """
        path = self.folder.path / CHOSEN
        found = read_arrays(path, advice=MADE_AGAIN)
        rows, weights = found.get("selected"), found.get("weights")
        if (
            rows is None
            or weights is None
            or rows.dtype.kind not in "iu"
            or rows.ndim != 1
            or weights.shape != (len(self.train),)
            or not set(rows.tolist()) <= set(range(len(self.train)))
        ):
            raise InputError(
                f"{path} is damaged; delete it, and the same command selects the graphs again"
            )
        return rows.tolist(), weights

    @stage(3, "pruned", "Pruning and fine-tuning", PRUNED, PRUNED_FILE)
    def prune_and_finetune(self) -> Outputs:
        """Prune in rounds while fine-tuning on the selected graphs, then compact."""
        model = self.load(TRAINED)
        selected, weights = self.chosen()
        # a run that is continued in the middle of this sees the same times, and so the same masks
        measure = Remembered(stopwatch(self), self.folder.path / TIMES)
        rounds = PruningCallback(
            self.pruning,
            batches=DataLoader([self.train[i] for i in selected], 64),
            seed=self.settings.seed,
            loss=self.losses,
            timed=timed_batch(self),
            measure=measure,
        )
        seconds = self.fit(
            "pruned",
            model,
            self.train,
            self.settings.training.finetune_epochs,
            [rounds, *self.reselection()],
            lr=self.settings.training.finetune_lr,
            weights=torch.from_numpy(weights),
        )
        apply_masks(model, rounds.keep)  # freeze=none let channels grow back
        small = compact(model)
        self.save(self.calibrated(small), PRUNED_FILE)
        batch = Batch.from_data_list(self.dataset.split("test"))
        groups = model.channel_groups()
        keep = keep_masks(model, groups)
        counts: list[dict[str, Any]] = [
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
            "steps": self.steps_taken["pruned"],
            "ledger": rows_of_ledger,
            "pruning": {
                **asdict(self.settings.pruning),
                "sparsity": self.settings.pruning.removed,
                "round_to": rounds.round_to,
                "channels_total": total,
                "channels_removed": total - kept,
                "groups": counts,
                **latency_left(self, rounds),
            },
        }

    @stage(4, "baseline", "Training the baseline further", DENSE, "dense.safetensors")
    def continue_dense(self) -> Outputs:
        """The baseline, with the same extra steps (or its own patience) on any training graphs."""
        model, t = self.load(TRAINED), self.settings.training
        seconds = self.fit("baseline", model, self.train, t.finetune_epochs, lr=t.finetune_lr)
        self.save(self.calibrated(model), "dense.safetensors")
        return {"train_seconds": seconds, "steps": self.steps_taken["baseline"]}

    @stage(5, "scratch", "Training the pruned shape from scratch", PRUNED, SCRATCH)
    def train_scratch(self) -> Outputs:
        """The compact shape, trained from scratch for all the steps."""
        t = self.settings.training
        model = checkpoint.from_config(self.load(PRUNED_FILE)).to(self.dtype)
        seconds = self.fit("scratch", model, self.train, t.max_epochs)
        more, lr = t.finetune_epochs, t.finetune_lr
        seconds += self.fit("scratch_continued", model, self.train, more, lr=lr)
        self.save(self.calibrated(model), SCRATCH)
        steps = [*self.steps_taken["scratch"], *self.steps_taken["scratch_continued"]]
        return {"train_seconds": seconds, "steps": steps}

    @stage(6, "evaluation", "Evaluating", PRUNED, *EVALUATED, alone=True)
    def evaluate(self) -> Outputs:
        """All models on the same test split, latencies in one run."""
        paths = {"dense": "dense.safetensors", "pruned": PRUNED_FILE}
        dense, selection, pruned = (self.outputs(n) for n in ("dense", "selection", "pruned"))
        seconds = {
            "dense": dense["train_seconds"] + self.outputs("baseline")["train_seconds"],
            "pruned": dense["train_seconds"] + selection["seconds"] + pruned["train_seconds"],
        }
        if self.settings.training.scratch:
            paths["scratch"] = SCRATCH
            seconds["scratch"] = self.outputs("scratch")["train_seconds"]
        fits = ("dense", "baseline", "pruned", *(("scratch",) if "scratch" in paths else ()))
        models = {name: self.load_calibrated(path) for name, path in paths.items()}
        results, arrays = evaluate(models, self.dataset, self.settings, self.device)
        for name, result in results.items():
            result["train_seconds"] = seconds[name]
            result["checkpoint_bytes"] = (self.folder.path / paths[name]).stat().st_size
        files.write_arrays(self.folder.path / "predictions.npz", **arrays)
        reference = arrays["test_target"] - arrays["test_reference"]
        bars = {name: found for name, m in models.items() if (found := force_bars(m))}
        by_type = errors_by_type_of_test(self.dataset, results, arrays)
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
                    "split_hash": split_hash(self.dataset.splits),
                    **{k: len(v) for k, v in self.dataset.splits.items()},
                    "mean_predictor_mae": float(np.abs(reference).mean()),
                    "per_element_fit": self.dataset.extensive,
                },
                "uncertainty": {
                    "method": self.settings.uncertainty.method,
                    "calibration": self.settings.uncertainty.calibration,
                    "fitted_on": "val",
                    "points": len(self.val),
                },
                **({"force_uncertainty": self.force_uncertainty(bars)} if bars else {}),
                "models": results,
                **({"errors_by_type": by_type} if by_type else {}),
                # of each fit; a stage of an earlier version did not write them down
                "steps": {name: self.outputs(name).get("steps") for name in fits},
                "intervals": change_intervals({"models": results, "dataset": {}}, arrays),
                "selection": {k: v for k, v in selection.items() if k not in ("key", "seconds")},
                "pruning": pruned["pruning"],
                "ledger": pruned["ledger"],
            },
        )
        return {}

    def force_uncertainty(self, bars: dict[str, AtomErrorBars]) -> dict[str, Any]:
        """What ``metrics.json`` says about the error bars of forces of models by name."""
        sources = {name: found.source for name, found in bars.items()}
        return {
            "source": sources.get("pruned", next(iter(sources.values()))),
            "sources": sources,
            "fitted_on": "val",
            "atoms": sum(len(graph.pos) for graph in self.val),
        }

    @stage(7, "report", "Writing the report", PRUNED, "report.html", alone=True)
    def report(self) -> Outputs:
        """Figures, page, table."""
        write_report(self.folder.path)
        return {}
