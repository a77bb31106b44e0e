"""Does training on energies alone miscalibrate forces, and do a few steps on forces mend it?

Question. A network that learned energies serves forces too: they are its gradient. Its members were
taught to agree about energies, not about slopes, so the spread of their forces need not have the
size of the forces' errors, and features that suit energies need not tell which atom is hard. Three
arms with equally many steps, each dense and pruned:

- ``energies``: energies alone, in the training and in the extra steps;
- ``energies, then forces``: the same training, and forces beside the energies in the extra steps;
- ``forces``: forces beside the energies from the start.

A network is an EGNN or an IrrepsNet with a few read-outs that share it. The dense one of an arm
takes the extra steps as it is; the pruned one loses half of its channels first, by the Taylor
criterion of the extra steps' loss. Both kinds of error bars of forces are fitted for each, from
distances of last-layer features and from the members' spread.

Analysis, decided before the first run. All numbers are of test structures, means over seeds:

1. Miscalibrated: coverage of 50, 80 and 90 % intervals and ENCE of the *raw* bars, by arm. The
   claim holds if the coverages of ``energies`` are farther from nominal than those of ``forces``.
2. Mended by calibration: the same after calibration on validation; within 3 points of nominal is
   called calibrated. This can mend the size of error bars and not their order, so
3. mended by forces: Spearman's correlation of error bar and error over atoms, and the chance that
   a molecule with a bond stretched by 0.2 Angstrom has a longer largest error bar than one
   without (AUROC), of ``energies, then forces`` against ``energies``, paired by seed, beside the
   force error itself, which no calibration improves.
4. Distances against members: which one the validation likelihood takes, and whether test agrees.
5. Pruning: each of these, pruned against dense.

Known limit: an EGNN learns next to nothing from the energies of 500 frames of ethanol in so few
steps (its ``energies`` arm predicts their mean, at learning rates from 0.001 to 0.015), so that arm
says what error bars do for a network whose forces are no better than zeros. The claims rest on the
IrrepsNet, which learns from energies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from egnn_prune.channels import Prunable
from egnn_prune.configs.force_calibration_study import ForceCalibrationStudySettings
from egnn_prune.configs.settings import Settings
from egnn_prune.data.sources.md17 import REVISED
from egnn_prune.deployment import checkpoint
from egnn_prune.evaluation.atom_error_bars import evidence, force_scores
from egnn_prune.evaluation.force_uncertainty import bars_by_source
from egnn_prune.evaluation.predict import BATCH, point_predictions, targets
from egnn_prune.pipeline.main_job import TRAINED, Job
from egnn_prune.pruning import compact
from egnn_prune.report.studies.force_calibration import (
    force_calibration_plot,
    force_calibration_table,
)
from egnn_prune.runs.result_store import Row, Rows
from egnn_prune.studies.frame import Results, Study, open_job, study_folder
from egnn_prune.studies.networks import fine_tuned, pruned_on
from egnn_prune.studies.stretched_bonds import stretched
from egnn_prune.uncertainty import AtomErrorBars, AtomEvidence
from egnn_prune.uncertainty.metrics import out_of_distribution_scores

#: Loss of the training and of the extra steps.
ARMS = {
    "energies": ("energies", "energies"),
    "energies, then forces": ("energies", "forces"),
    "forces": ("forces", "forces"),
}
SIZES = ("dense", "pruned")
SOURCES = ("distance", "members")
#: Highest learning rates of the training and of the extra steps, the same for all arms.
RATES = (5e-3, 2e-3)


def run_seed(settings: ForceCalibrationStudySettings, seed: int) -> list[Row]:
    """All cells of a seed; finished ones are read, not computed again."""
    data = data_source(settings)
    unshared = ("out", "seeds", "networks", "threads")
    asked = {k: v for k, v in asdict(settings).items() if k not in unshared} | {"data": data}
    rows: list[Row] = []
    for network in settings.networks:
        path = study_folder(settings) / f"{network}-seed{seed}.json"
        saved = Rows(path, asked, network=network, seed=seed)
        bench = Bench(settings, data, network, seed)
        cells = [
            {"arm": arm, "size": size, "source": source}
            for arm in ARMS
            for size in SIZES
            for source in SOURCES
        ]
        rows += saved.fill(cells, bench.row)
    return rows


def data_source(settings: ForceCalibrationStudySettings) -> str:
    """What is studied: rMD17, unless that is not here, which is said."""
    if settings.data == "rmd17" and REVISED.find(None, "ethanol") is None:
        print("rMD17 is not here (EGNN_PRUNE_DATA says where it is): studying data=xtb instead")
        return "xtb"
    return settings.data


class Bench:
    """The networks of one kind and seed, and what their error bars are worth."""

    def __init__(
        self, settings: ForceCalibrationStudySettings, data: str, network: str, seed: int
    ) -> None:
        self.settings, self.data, self.kind, self.seed = settings, data, network, seed
        self.folder = study_folder(settings) / f"{network}{seed}"
        self._jobs: dict[str, Job] = {}
        self._trained: set[str] = set()
        self._rows: dict[tuple[str, str], dict[str, Row]] = {}

    def row(self, arm: str, size: str, source: str) -> Row:
        """The scores of one kind of error bars; those of the other are kept for its turn."""
        if (arm, size) not in self._rows:
            self._rows = {(arm, size): self.measured(arm, size)}
        return self._rows[arm, size][source]

    def job(self, loss: str) -> Job:
        """The main job that trains on energies, or on forces as well."""
        if loss not in self._jobs:
            self._jobs[loss] = open_job(self.job_settings(loss))
        return self._jobs[loss]

    def trained(self, loss: str) -> Job:
        """The same after its training, of which arms that begin alike share one."""
        if loss not in self._trained:
            self.job(loss).train_dense()
            self._trained.add(loss)
        return self.job(loss)

    def job_settings(self, loss: str) -> Settings:
        """Of the main job; what is not set here has its default."""
        s, job = self.settings, Settings(name="forces", seed=self.seed)
        job.out, job.threads = str(self.folder / loss), self.settings.threads
        job.data.name, job.data.limit = self.data, s.train
        job.data.subset = "ethanol" if self.data == "rmd17" else None
        job.model.network, job.model.hidden, job.model.layers = self.kind, s.hidden, 3
        job.model.cutoff, job.training.loss = 5.0, "faithful"  # members learn apart in all arms
        job.uncertainty.method, job.uncertainty.members = "shallow", s.members
        job.training.batch_size, job.training.max_epochs = s.batch_size, s.epochs
        job.training.lr, job.training.finetune_lr = RATES
        job.training.finetune_epochs = s.finetune_epochs
        job.training.force_weight = s.force_weight if loss == "forces" else 0.0
        job.pruning.sparsity = s.sparsity
        return job

    def network(self, arm: str, size: str) -> Prunable:
        """A network after all its steps, trained unless its file is there."""
        first, last = ARMS[arm]
        path = self.folder / f"{arm.replace(', ', '-').replace(' ', '-')}-{size}.safetensors"
        if not path.exists():
            start, job = self.trained(first), self.job(last)
            torch.manual_seed(self.seed)
            model = start.load(TRAINED)
            if size == "pruned":
                model = pruned_on(job.train, model, job)
            loader = DataLoader(job.train, self.settings.batch_size, shuffle=True, drop_last=True)
            fine_tuned(model, loader, self.settings.finetune_epochs * len(loader), job)
            checkpoint.save(compact(model) if size == "pruned" else model, path)
        return checkpoint.load(path)

    def measured(self, arm: str, size: str) -> dict[str, Row]:
        """One row for each source of error bars."""
        job, model = self.job(ARMS[arm][1]), self.network(arm, size)
        estimator, test = job.estimator(model), self.test
        fitted = bars_by_source(estimator, job.train, job.val[: self.settings.val], job.device)
        label = f"{self.kind} {arm} {size}"
        found, far = (
            evidence(estimator, graphs, members=True, label=label, batch_size=BATCH)
            for graphs in (test, [g for g in map(stretched, test) if g is not None])
        )
        wrong = 1000 * found.wrong
        shared = {
            "force_rmse_mev_per_angstrom": float(wrong.square().mean().sqrt()),
            "force_mae_mev_per_angstrom": float(wrong.abs().mean()),
            "params": sum(p.numel() for p in model.parameters()),
        }
        error = point_predictions(model, test, job.device) - targets(test)
        shared["energy_mae_mev"] = 1000 * float(error.abs().mean())
        return {
            source: {
                **shared,
                "val_force_nll": likelihood,
                "stretched_auroc": stretched_auroc(bars, found, far),
                **force_scores(bars, found),
            }
            for source, (bars, likelihood) in fitted.items()
        }

    @cached_property
    def test(self) -> Sequence[Data]:
        """The structures that are judged on, the same for all seeds."""
        return list(self.job("energies").dataset.split("test")[: self.settings.test])


def stretched_auroc(bars: AtomErrorBars, found: AtomEvidence, far: AtomEvidence) -> float:
    """Chance that a stretched molecule has a longer largest error bar than one as it comes."""
    inside, outside = (
        largest(bars.std(e.features, e.z, e.spread), e.structure) for e in (found, far)
    )
    return out_of_distribution_scores(inside, outside)["auroc"]


def largest(values: Tensor, structure: Tensor) -> Tensor:
    """The largest of ``values [N]`` in each structure, ``[B]``."""
    start = values.new_zeros(int(structure.max()) + 1)
    return start.scatter_reduce(0, structure, values, "amax")


def results(_: ForceCalibrationStudySettings, rows: list[Row]) -> Results:
    """A table of arms, and a figure."""
    return Results(rows, force_calibration_table(rows), force_calibration_plot(rows))


#: Trains, prunes and scores the networks of every seed.
run_force_calibration_study = Study("force_calibration", run_seed, results)
