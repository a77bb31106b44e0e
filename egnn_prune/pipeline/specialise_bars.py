"""Error bars of the potentials that ``specialise`` trains: fitted, calibrated, scored, timed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch_geometric.data import Batch, Data

from egnn_prune.configs.specialise_settings import PotentialUncertaintySettings
from egnn_prune.data import GraphDataset
from egnn_prune.deployment.atom_pass import atom_features
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.evaluation.atom_error_bars import (
    batches,
    evidence,
    fit_atom_error_bars,
    force_scores,
    known_atoms,
)
from egnn_prune.evaluation.predict import targets
from egnn_prune.evaluation.uncertainty_scores import coverages
from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty import (
    AtomErrorBars,
    Calibrated,
    Estimator,
    PredictionRigidity,
    ReadoutEnsemble,
    SinglePass,
    calibrate,
    regression_scores,
)
from egnn_prune.uncertainty.calibration import MIN_POINTS

#: Quantiles of the validation structures' error bars that a model's file holds.
LEVELS = {"median": 0.5, "q95": 0.95, "q99": 0.99, "max": 1.0}


def refuse_few(count: int, settings: PotentialUncertaintySettings) -> None:
    """Refuse too few validation structures to calibrate on now, not after the training.

    Raises:
        DataError: there are.
    """
    if settings.method != "none" and count < MIN_POINTS:
        raise DataError(
            f"error bars are calibrated on {MIN_POINTS} or more validation structures, and there "
            f"are {count} (a tenth of the file, data.held_out at most); give more structures, or "
            "go on without error bars: uncertainty.method=none"
        )


def with_error_bars(
    network: nn.Module,
    dataset: GraphDataset,
    settings: PotentialUncertaintySettings,
    device: torch.device,
    seed: int,
) -> Calibrated:
    """A trained network with error bars of its energies and of the force on every atom.

    What needs fitting is fitted on the training structures, what needs calibrating on the
    validation structures; the test structures are not looked at.

    Args:
        network: a potential, or a committee of several.
        dataset: labelled.
        settings: the method, and how energies are calibrated.
        device: where to run; the estimator ends on the CPU.
        seed: of a method that draws something.

    Raises:
        InputError: the error bars cannot be fitted, such as to forces that are all exact.
    """
    train, val = dataset.split("train"), dataset.split("val")
    estimator = build(network, settings, seed).to(device).eval()
    estimator.fit(list(moved(train, device, "fitting the error bars")))  # read several times
    found = calibrate(estimator, moved(val, device, "calibrating"), settings.calibration)
    fit_atom_error_bars(found, train, val, device=device)
    return found.to("cpu").eval()


def build(network: nn.Module, settings: PotentialUncertaintySettings, seed: int) -> Estimator:
    """The uncertainty method of the settings around a network, not fitted.

    Raises:
        ConfigError: there is none of that name.
    """
    if settings.method == "last_layer":
        return PredictionRigidity(network)
    if settings.method == "shallow":
        return ReadoutEnsemble(network, settings.members, seed)
    if settings.method == "committee":
        return SinglePass(network)
    raise ConfigError(f"uncertainty.method={settings.method} makes no error bars")


def moved(graphs: Sequence[Data], device: torch.device, label: str) -> Iterator[Batch]:
    """Structures in order, in batches, on a device, with a progress bar."""
    for batch in batches(graphs, label):
        yield batch.to(device)


def predicted(
    estimator: Estimator, graphs: Sequence[Data], device: torch.device, label: str
) -> Prediction:
    """Energies of all structures with their error bars, on the CPU."""
    estimator.to(device).eval()
    parts: list[Any] = [estimator.predict(b).detach() for b in moved(graphs, device, label)]
    estimator.to("cpu")
    return Prediction.cat(parts)


def epistemic_quantiles(
    estimator: Estimator, graphs: Sequence[Data], device: torch.device
) -> dict[str, float]:
    """Quantiles of the epistemic deviation of validation structures, in eV.

    A structure beyond ``q99`` is flagged by whoever opens the model's file.
    """
    std = predicted(estimator, graphs, device, "validation").ood_variance.sqrt()
    return {name: float(std.quantile(level)) for name, level in LEVELS.items()}


def scored(
    estimator: Calibrated, graphs: Sequence[Data], device: torch.device, name: str
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """What ``metrics.json`` and ``predictions.npz`` say of a potential's error bars.

    Args:
        estimator: with error bars of forces; ends on the CPU.
        graphs: test structures, labelled.
        device: where to run.
        name: of the model.

    Returns:
        Scores of energies and forces, raw and ``_calibrated``, and the error bars in eV and
        eV/Angstrom. Atoms of an element that no training structure has are left out of the scores
        of forces: their error bars are infinite.
    """
    raw = predicted(estimator.estimator, graphs, device, f"error bars of {name}")
    y = targets(graphs)
    scores: dict[str, float] = {}
    arrays: dict[str, np.ndarray] = {}
    for suffix, found in (("", raw), ("_calibrated", estimator.calibration(raw))):
        rows = regression_scores(found.mean, found.variance, y)
        if suffix:  # intervals need not be Gaussian: isotonic and conformal have their own
            rows |= coverages(estimator.calibration, raw, y)
        scores |= {f"energy_{key}{suffix}": value for key, value in rows.items()}
        arrays[f"{name}_energy_std{suffix}"] = found.variance.sqrt().numpy()
    bars = estimator.atoms
    assert isinstance(bars, AtomErrorBars)
    members = bars.source == "members"
    atoms = evidence(estimator, graphs, members=members, device=device, label=f"atoms of {name}")
    estimator.to("cpu")
    seen = (atoms.features, atoms.z, atoms.spread)
    arrays[f"{name}_forces_std"] = bars.raw_std(*seen).numpy()
    arrays[f"{name}_forces_std_calibrated"] = bars.std(*seen).numpy()
    distance = bars.distance(atoms.features, atoms.z) / bars.distance_limit
    arrays[f"{name}_forces_distance"] = distance.numpy()
    if known := known_atoms(bars, atoms, f"{name}, test"):
        scores |= force_scores(bars, known)
    return scores, arrays


def promise(scores: dict[str, Any]) -> str:
    """What the error bars promise, and what became of it on the test structures."""
    energies, forces = (scores[f"{of}_coverage_90_calibrated"] for of in ("energy", "force"))
    return (
        f"90 % intervals hold {energies:.0%} of the test energies and {forces:.0%} of the force "
        "components"
    )


class WithErrorBars(nn.Module):
    """Energies together with what their and the forces' error bars take, to be timed.

    Args:
        estimator: with error bars of forces.
    """

    def __init__(self, estimator: Calibrated) -> None:
        super().__init__()
        self.estimator = estimator

    def prepared(self, batch: Any) -> Any:
        """The batch with what the network needs of it."""
        network: Any = self.estimator.network
        return network.prepared(batch)

    def forward(self, batch: Any) -> Prediction:
        """Calibrated energies; the error bars of the atoms are computed and left."""
        with atom_features(self.estimator.network) as kept:
            prediction: Any = self.estimator(batch)
        bars, features = self.estimator.atoms, kept[0]
        assert isinstance(bars, AtomErrorBars)
        with torch.no_grad():
            # the spread of a committee's forces is known once they are: here it stands for itself
            spread = features[:, 0].double().abs() if bars.source == "members" else None
            bars.std(features, batch.z, spread)
            bars.distance(features, batch.z)
        found: Prediction = prediction
        return found
