"""Are a model's error bars true? Before and after calibration, in and out of distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from egnn_prune.data import GraphDataset
from egnn_prune.errors import InputError
from egnn_prune.evaluation.drawn_structures import frames_and_cells
from egnn_prune.evaluation.predict import graph_means, predict_all, targets
from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty import (
    Calibrated,
    Calibration,
    out_of_distribution_scores,
    regression_scores,
)

#: Graphs in the report's galleries of the most uncertain ones.
GALLERY = 12

Arrays = dict[str, np.ndarray]


def score_uncertainty(
    name: str, model: Calibrated, dataset: GraphDataset, device: torch.device
) -> tuple[dict[str, Any], Arrays]:
    """Scores of a model's error bars on the test and the out-of-distribution split.

    Args:
        name: of the model; arrays are called ``{split}_{name}_mean`` and so on.
        model: an estimator with its calibration.
        dataset: the data.
        device: where to run.

    Returns:
        Scores of the test split (``ence``, ``crps`` ..., see
        :func:`~egnn_prune.uncertainty.regression_scores`), of the ood split with the prefix
        ``ood_``, each also with the suffix ``_calibrated``; ``ood_auroc``; and the arrays of
        means and standard deviations.
    """
    scores: dict[str, Any] = {}
    arrays: Arrays = {}
    epistemic_stds: dict[str, dict[str, torch.Tensor]] = {"": {}, "_calibrated": {}}
    for split, prefix in (("test", ""), ("ood", "ood_")):
        graphs = dataset.split(split)
        if not graphs:
            continue
        raw = predict_all(model.estimator, graphs, device, f"{name}, {split}")
        both = {"": raw, "_calibrated": model.calibration(raw)}
        for suffix, prediction in both.items():
            bars = regression_scores(prediction.mean, prediction.variance, targets(graphs))
            if suffix:  # intervals need not be Gaussian: isotonic and conformal have their own
                bars |= coverages(model.calibration, raw, targets(graphs))
            scores |= {f"{prefix}{key}{suffix}": value for key, value in bars.items()}
            epistemic_stds[suffix][split] = graph_means(prediction.ood_variance, graphs)
            arrays[f"{split}_{name}_std{suffix}"] = prediction.variance.sqrt().numpy()
        arrays[f"{split}_{name}_mean"] = raw.mean.numpy()
        arrays[f"{split}_{name}_epistemic_std"] = raw.epistemic.sqrt().numpy()
        if name == "pruned" and dataset.outputs == "graph":
            arrays |= gallery(split, both["_calibrated"], graphs, dataset.smiles)
    for suffix, found in epistemic_stds.items():
        several = len(found) == 2
        scores[f"ood_auroc{suffix}"] = (
            out_of_distribution_scores(found["test"], found["ood"])["auroc"] if several else None
        )
    return scores, arrays


def coverages(calibration: Calibration, raw: Prediction, y: torch.Tensor) -> dict[str, float]:
    """How often each interval of a calibration holds the truth.

    A coverage that too few validation points were fitted for is left to the Gaussian.
    """
    found = {}
    for percent in (50, 80, 90, 95):
        try:
            low, high = calibration.interval(raw, percent / 100)
        except InputError:
            continue
        found[f"coverage_{percent}"] = float(((low <= y) & (y <= high)).double().mean())
    return found


def gallery(
    split: str, prediction: Prediction, graphs: Sequence[Data], smiles: Sequence[str]
) -> Arrays:
    """The graphs that the model is least sure of, drawn in the report, most uncertain first."""
    order = prediction.ood_variance.argsort(descending=True, stable=True)[:GALLERY].tolist()
    chosen = [graphs[i] for i in order]
    names = [smiles[int(g.row)] if smiles else "" for g in chosen]
    places = frames_and_cells(chosen)
    return {
        f"gallery_{split}_row": np.array(order),
        f"gallery_{split}_atoms": np.array([len(g.z) for g in chosen]),
        f"gallery_{split}_z": torch.cat([g.z for g in chosen]).numpy(),
        f"gallery_{split}_pos": torch.cat([g.pos for g in chosen]).numpy(),
        f"gallery_{split}_smiles": np.array(names, dtype=np.str_),
        **{f"gallery_{split}_{key}": values for key, values in places.items()},
    }
