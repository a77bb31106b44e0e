"""Does pruning harm calibration more than accuracy, and does calibration mend it?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from egnn_prune.configs.over_seeds import CalibrationStudySettings
from egnn_prune.deployment import checkpoint
from egnn_prune.errors import ConfigError
from egnn_prune.evaluation.predict import predict_all, targets
from egnn_prune.pipeline.run_context import RunContext
from egnn_prune.prediction import Prediction
from egnn_prune.report.studies.calibration_study import answer_table, study_plot, study_table
from egnn_prune.runs.result_store import Row
from egnn_prune.studies.frame import Results, Study
from egnn_prune.studies.networks import network_job, train_networks
from egnn_prune.system.array_reading import MADE_AGAIN, read_arrays
from egnn_prune.system.files import write_arrays
from egnn_prune.uncertainty import (
    CALIBRATIONS,
    DeepEnsemble,
    Estimator,
    LastLayer,
    MCDropout,
    NoiseAndRigidity,
    PredictionRigidity,
    SinglePass,
    out_of_distribution_scores,
    regression_scores,
)

#: The method's own variance.
NONE = "none"
#: The factor that the *dense* network of the same seed needed: does a calibration survive pruning?
DENSE = "dense"
#: What is fitted on the validation split.
RECALIBRATIONS = ("variance", "robust", "monotone", "conformal")
SPLITS = ("val", "test", "ood")
PARTS = ("mean", "aleatoric", "epistemic")
#: Estimators of a network trained by each recipe.
ESTIMATORS: dict[str, dict[str, type[Estimator]]] = {
    "single": {
        "mean-variance": SinglePass,
        "MC dropout": MCDropout,
        "last-layer Laplace": LastLayer,
        "LLPR": PredictionRigidity,
        "noise and LLPR": NoiseAndRigidity,
    },
    "shallow": {"shallow ensemble": SinglePass},
}
#: Added to a seed for the further members of its deep ensemble, which no other seed uses.
STRIDE = 5


def check(settings: CalibrationStudySettings) -> None:
    """Refuse deep ensembles that cannot be trained."""
    if settings.deep_members and "single" not in settings.recipes:
        raise ConfigError("a deep ensemble has members of the recipe single; add it to recipes")
    if settings.deep_members == 1:
        raise ConfigError("deep_members must be at least 2, or 0 for no deep ensemble")
    if settings.deep_members and max(settings.seeds) - min(settings.seeds) >= STRIDE:
        raise ConfigError(f"with deep_members the seeds must lie within {STRIDE} of each other")


def results(_: CalibrationStudySettings, rows: list[Row]) -> Results:
    """The answer, then every score of both splits."""
    tables = [answer_table(rows), study_table(rows, "test"), study_table(rows, "ood")]
    return Results(rows, "\n\n".join(tables), study_plot(rows))


def run_seed(settings: CalibrationStudySettings, seed: int) -> list[Row]:
    """All rows of a seed; networks and predictions that are there already are used again."""
    rows: list[Row] = []
    dense: dict[str, Prediction] = {}
    for recipe in settings.recipes:
        job = network_job(settings, recipe, seed)
        job.check_validation()
        for sparsity, path in train_networks(job, settings.sparsities, settings.steps).items():
            for name, kind in ESTIMATORS[recipe].items():
                saved = path.with_suffix(f".{name.lower().replace(' ', '-')}.npz")
                cell = Cell(job, name, seed, sparsity, saved)
                found = cell.predictions(partial(_load, kind, path, settings.uncertainty.samples))
                rows += cell.rows(found, dense.setdefault(name, found["val"]))
    if settings.deep_members:
        jobs = [network_job(settings, "single", seed)]
        for i in range(1, settings.deep_members):
            jobs.append(network_job(settings, "single", seed + STRIDE * i, jobs[0]))
        places = [train_networks(job, settings.sparsities, settings.steps) for job in jobs]
        name = f"deep ensemble of {len(jobs)}"
        for sparsity in (0.0, *settings.sparsities):
            paths = [place[sparsity] for place in places]
            saved = paths[0].with_suffix(f".deep{len(jobs)}.npz")
            cell = Cell(jobs[0], name, seed, sparsity, saved)
            found = cell.predictions(partial(_load_deep, paths))
            rows += cell.rows(found, dense.setdefault(name, found["val"]))
    return rows


def _load(kind: type[Estimator], path: Path, samples: int) -> Estimator:
    network = checkpoint.load(path)
    return MCDropout(network, samples) if kind is MCDropout else kind(network)


def _load_deep(paths: list[Path]) -> Estimator:
    return SinglePass(DeepEnsemble([checkpoint.load(path) for path in paths]))


@dataclass(frozen=True)
class Cell:
    """One estimator of one network.

    Attributes:
        job: has the data and the device.
        estimator: its name.
        seed: of the network.
        sparsity: of the network.
        path: where its predictions are kept, so that they are made once.
    """

    job: RunContext
    estimator: str
    seed: int
    sparsity: float
    path: Path

    def predictions(self, build: Callable[[], Estimator]) -> dict[str, Prediction]:
        """Of every split, members pooled; made where they are not kept already."""
        if not self.path.exists():
            self.predict(build())
        arrays = read_arrays(self.path, advice=MADE_AGAIN)
        parts = {name: torch.from_numpy(values) for name, values in arrays.items()}
        found = {}
        for split in SPLITS:
            if f"{split}_mean" in parts:
                mean, aleatoric, epistemic = (parts[f"{split}_{part}"] for part in PARTS)
                found[split] = Prediction(mean, aleatoric, epistemic, mean[None], aleatoric[None])
        return found

    def rows(self, predictions: dict[str, Prediction], dense: Prediction) -> list[Row]:
        """One row a split and calibration.

        Args:
            predictions: of every split.
            dense: what the same estimator of the dense network predicts for validation.
        """
        y = {split: targets(self.job.dataset.split(split)) for split in predictions}
        rows = []
        fitted = {
            NONE: CALIBRATIONS["none"](),
            DENSE: CALIBRATIONS["robust"]().fit(dense, y["val"]),
            **{n: CALIBRATIONS[n]().fit(predictions["val"], y["val"]) for n in RECALIBRATIONS},
        }
        for name, calibration in fitted.items():
            after = {s: calibration(p) for s, p in predictions.items() if s != "val"}
            auroc = None
            if "ood" in after:
                auroc = out_of_distribution_scores(
                    after["test"].ood_variance, after["ood"].ood_variance
                )["auroc"]
            for split, prediction in after.items():
                low, high = calibration.interval(predictions[split], 0.9)
                rows.append(
                    {
                        "seed": self.seed,
                        "estimator": self.estimator,
                        "sparsity": self.sparsity,
                        "calibration": name,
                        "split": split,
                        "unit": self.job.dataset.unit,
                        **scores(prediction, y[split]),
                        "coverage_90": float(
                            ((low <= y[split]) & (y[split] <= high)).double().mean()
                        ),
                        "width_90": float((high - low).mean()),
                        "ood_auroc": auroc,
                    }
                )
        return rows

    def predict(self, estimator: Estimator) -> None:
        """Predict the validation, test and out-of-distribution splits, and keep the numbers."""
        estimator.to(self.job.device).fit(self.job.batches(self.job.train, "fitting"))
        label = f"{self.estimator}, {self.sparsity:g}, seed {self.seed}"
        arrays = {}
        for split in SPLITS:
            if graphs := self.job.dataset.split(split):
                found = predict_all(estimator, graphs, self.job.device, f"{label}, {split}")
                for part in PARTS:
                    arrays[f"{split}_{part}"] = getattr(found, part).numpy()
        write_arrays(self.path, **arrays)


def scores(prediction: Prediction, y: Tensor) -> Row:
    r"""All scores of a prediction, with its likelihood split in two.

    With :math:`z^2` the mean of :math:`(y - \mu)^2 / \sigma^2`, the best single factor on the
    variance would lower the negative log-likelihood by :math:`\tfrac12 (z^2 - 1 - \log z^2)`:
    that is ``miscalibration_nats``, what wrong *sizes* of the error bars cost. The rest,
    ``accuracy_nats``, is what errors and the *ranking* of the error bars cost. Both are in nats, so
    that harm to the one can be compared with harm to the other.
    """
    error = prediction.mean - y
    found = regression_scores(prediction.mean, prediction.variance, y)
    z2 = float((error.square() / prediction.variance).mean())
    wrong = 0.5 * (z2 - 1 - math.log(z2))
    return {
        "mae": float(error.abs().mean()),
        "rmse": float(error.square().mean().sqrt()),
        **found,
        "z_square": z2,
        "miscalibration_nats": wrong,
        "accuracy_nats": found["nll"] - wrong,
    }


#: Trains, prunes and scores the networks of every seed.
run_calibration_study = Study("calibration", run_seed, results, check)
