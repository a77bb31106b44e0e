"""Error bars of forces of a trained model: from which source, and how true they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch_geometric.data import Batch, Data

from egnn_prune.data import GraphDataset
from egnn_prune.data.quantities import is_total_energy
from egnn_prune.evaluation.atom_error_bars import evidence, force_scores, known_atoms
from egnn_prune.evaluation.predict import BATCH
from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty import AtomErrorBars, AtomEvidence, Calibrated, Estimator
from egnn_prune.uncertainty.metrics import nll

#: Training structures, at most, from whose atoms distances are measured: mean and covariance of
#: their features hardly change beyond.
TRAINING = 2000

Arrays = dict[str, np.ndarray]


def states_forces(dataset: GraphDataset) -> bool:
    """Whether gradients of the target are forces, and the data say what these should be."""
    if dataset.outputs != "graph" or not is_total_energy(dataset.target):
        return False
    splits = (dataset.split(name) for name in ("train", "val", "test", "ood"))
    return all(split[0].get("forces") is not None for split in splits if len(split))


def spread_out(graphs: Sequence[Data], most: int = TRAINING) -> list[Data]:
    """At most ``most`` structures at even distances, and one more of each element that they lack.

    Distances are of the atoms of an element: one that is left out would be infinitely far.
    """
    if len(graphs) <= most:
        return list(graphs)
    rows = torch.linspace(0, len(graphs) - 1, most).round().long().tolist()
    chosen = [graphs[row] for row in rows]
    known = set(torch.cat([graph.z for graph in chosen]).tolist())
    for row in range(len(graphs)):
        elements = set(graphs[row].z.tolist())
        if not elements <= known:
            known |= elements
            chosen.append(graphs[row])
    return chosen


def has_members(method: Estimator, graph: Data) -> bool:
    """Whether a method has several members: networks, read-outs or dropout samples.

    Args:
        method: not calibrated.
        graph: what it predicts to see that, anywhere.
    """
    batch = Batch.from_data_list([graph]).to(next(method.network.parameters()).device)
    prediction = method.predict(batch)
    return isinstance(prediction, Prediction) and len(prediction.members) > 1


def fit_likelier_bars(
    estimator: Estimator,
    train: Sequence[Data],
    val: Sequence[Data],
    device: torch.device | None = None,
) -> dict[str, float]:
    """Fit error bars of forces from every source that there is, and keep the likelier ones.

    Either may be better for small networks that were trained from scratch, so the validation atoms
    decide, by the mean Gaussian negative log-likelihood of the calibrated bars.

    Args:
        estimator: gets the bars, which are saved with it.
        train: structures that it was trained on, with forces; of many some are looked at.
        val: others.
        device: where to run, by default where the network is.

    Returns:
        The likelihoods in nats by source, the kept one first.

    Raises:
        ConfigError: the network names no layer of atoms.
        DataError: a structure has no forces.
        InputError: no bars can be fitted, see :meth:`AtomErrorBars.fit`.
    """
    found = bars_by_source(estimator, train, val, device)
    best = min(found, key=lambda source: found[source][1])
    estimator.atoms = found[best][0].to(next(estimator.network.parameters()).device)
    return {source: found[source][1] for source in (best, *found)}


def bars_by_source(
    estimator: Estimator,
    train: Sequence[Data],
    val: Sequence[Data],
    device: torch.device | None = None,
) -> dict[str, tuple[AtomErrorBars, float]]:
    """Error bars from every source, each with its likelihood; see :func:`fit_likelier_bars`."""
    method = estimator.estimator if isinstance(estimator, Calibrated) else estimator
    several = has_members(method.eval(), train[0])
    # the spread is compared with errors on validation alone: training atoms need features only
    seen, held_out = (
        evidence(estimator, graphs, members=m, device=device, label=label, batch_size=BATCH)
        for graphs, m, label in (
            (spread_out(train), False, "atoms of the training"),
            (list(val), several, "atoms to calibrate on"),
        )
    )
    found = {}
    for source in ("distance", "members") if several else ("distance",):
        bars = AtomErrorBars(source).fit(seen, held_out)
        found[source] = bars, likelihood(bars, held_out)
    return found


def likelihood(bars: AtomErrorBars, found: AtomEvidence) -> float:
    """Mean negative log-likelihood of force components under calibrated bars, in nats."""
    std = bars.std(found.features, found.z, found.spread)
    known = std.isfinite()
    wrong = found.wrong.double()[known]
    variance = std[known].square()[:, None].expand_as(wrong)
    return float(nll(torch.zeros_like(wrong), variance, wrong))


def force_bars(model: Calibrated) -> AtomErrorBars | None:
    """The error bars of forces that a model was given."""
    return model.atoms if isinstance(model.atoms, AtomErrorBars) else None


def score_force_uncertainty(
    name: str, model: Calibrated, dataset: GraphDataset, device: torch.device
) -> tuple[dict[str, float], Arrays]:
    """Scores of a model's error bars of forces on the test and the out-of-distribution split.

    Args:
        name: of the model; arrays are called ``{split}_{name}_forces_std`` and so on.
        model: an estimator, maybe with error bars of forces.
        dataset: the data.
        device: where to run.

    Returns:
        :func:`~egnn_prune.evaluation.force_scores` of the test split, with the area for telling
        the ood split from it, and those of the ood split with the prefix ``ood_``; and the arrays
        of every atom. Nothing for a model without such bars. Atoms of an element that no training
        structure holds are in the arrays (their error bars are infinite), and not in the scores.
    """
    bars = force_bars(model)
    if bars is None:
        return {}, {}
    found: dict[str, AtomEvidence] = {}
    arrays: Arrays = {}
    for split in ("test", "ood"):
        graphs = list(dataset.split(split))
        if graphs:
            found[split] = evidence(
                model,
                graphs,
                members=bars.source == "members",
                device=device,
                label=f"forces of {name}, {split}",
                batch_size=BATCH,
            )
            arrays |= atom_arrays(split, name, graphs, bars, found[split])
    model.to("cpu")
    known = {split: known_atoms(bars, atoms, f"{name}, {split}") for split, atoms in found.items()}
    scores: dict[str, float] = {}
    if known["test"]:
        scores |= force_scores(bars, known["test"], found.get("ood"))
    if ood := known.get("ood"):
        scores |= {f"ood_{k}": v for k, v in force_scores(bars, ood).items()}
    return scores, arrays


def atom_arrays(
    split: str, name: str, graphs: Sequence[Data], bars: AtomErrorBars, found: AtomEvidence
) -> Arrays:
    """What ``predictions.npz`` holds of every atom of a split."""
    reference = torch.cat([graph.forces for graph in graphs]).double()
    given = (found.features, found.z, found.spread)
    distance = bars.distance(found.features, found.z) / bars.distance_limit
    own = {
        "forces": reference + found.wrong,
        "forces_std": bars.raw_std(*given),
        "forces_std_calibrated": bars.std(*given),
        "forces_distance": distance,
    }
    return {
        f"{split}_forces_reference": reference.numpy(),
        f"{split}_forces_z": found.z.numpy(),
        f"{split}_forces_atoms": np.array([len(graph.pos) for graph in graphs]),
        **{f"{split}_{name}_{key}": values.numpy() for key, values in own.items()},
    }


def gallery_of_atoms(arrays: Arrays, name: str) -> Arrays:
    """Error bars of the atoms that the report draws, from what was found of all atoms.

    Args:
        arrays: with ``gallery_{split}_row`` and those of :func:`atom_arrays`.
        name: of the model whose gallery it is.

    Returns:
        ``gallery_{split}_forces_std`` and ``gallery_{split}_distance``, ``[sum atoms]``.
    """
    found: Arrays = {}
    for split in ("test", "ood"):
        if f"{split}_{name}_forces_std" not in arrays or f"gallery_{split}_row" not in arrays:
            continue
        ends = np.cumsum(arrays[f"{split}_forces_atoms"])[:-1]
        for key, own in (("forces_std", "forces_std_calibrated"), ("distance", "forces_distance")):
            parts = np.split(arrays[f"{split}_{name}_{own}"], ends)
            chosen = [parts[row] for row in arrays[f"gallery_{split}_row"]]
            found[f"gallery_{split}_{key}"] = np.concatenate(chosen)
    return found
