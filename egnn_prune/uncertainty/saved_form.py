"""Estimators as plain data, for files: what they are, and the tensors that were fitted."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from egnn_prune.errors import InputError
from egnn_prune.uncertainty.atom_error_bars import AtomErrorBars
from egnn_prune.uncertainty.calibration import CALIBRATIONS, Calibrated
from egnn_prune.uncertainty.dropout import MCDropout
from egnn_prune.uncertainty.dropout_modules import ModuleDropout
from egnn_prune.uncertainty.estimator import Estimator, SinglePass
from egnn_prune.uncertainty.last_layer import LastLayer, PredictionRigidity
from egnn_prune.uncertainty.noise_and_rigidity import NoiseAndRigidity
from egnn_prune.uncertainty.readout_ensemble import ReadoutEnsemble

#: Estimators that a file may name.
ESTIMATORS: dict[str, type[Estimator]] = {
    kind.__name__: kind
    for kind in (
        SinglePass,
        MCDropout,
        ModuleDropout,
        LastLayer,
        PredictionRigidity,
        ReadoutEnsemble,
        NoiseAndRigidity,
    )
}


def describe(estimator: Estimator) -> dict[str, Any]:
    """An estimator without its network and its tensors, as plain JSON.

    Raises:
        InputError: its class is not one that can be loaded, or error bars of forces are not fitted.
    """
    atoms = estimator.atoms
    if isinstance(atoms, AtomErrorBars):
        atoms.check()
        return {**_described(estimator), "atoms": atoms.settings()}
    return _described(estimator)


def _described(estimator: Estimator) -> dict[str, Any]:
    if isinstance(estimator, Calibrated):
        calibration = estimator.calibration
        found = {"name": calibration.name, "settings": calibration.settings()}
        return {**_described(estimator.estimator), "calibration": found}
    kind = type(estimator).__name__
    if ESTIMATORS.get(kind) is not type(estimator):
        raise InputError(f"a {kind} cannot be saved; one of {', '.join(ESTIMATORS)} can")
    return {"class": kind, "settings": estimator.settings()}


def restored(spec: dict[str, Any], network: nn.Module) -> Estimator:
    """The estimator that :func:`describe` described, around a network (tensors not loaded)."""
    estimator = ESTIMATORS[spec["class"]](network, **spec["settings"])
    if "calibration" in spec:
        kind = CALIBRATIONS[spec["calibration"]["name"]]
        estimator = Calibrated(estimator, kind(**spec["calibration"]["settings"]))
    if "atoms" in spec:
        estimator.atoms = AtomErrorBars(**spec["atoms"])
    return estimator


def fitted(estimator: Estimator) -> dict[str, Tensor]:
    """The tensors of an estimator that are not its network's."""
    networks = {id(tensor) for tensor in estimator.network.state_dict(keep_vars=True).values()}
    state = estimator.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in state.items() if id(tensor) not in networks}


def load_fitted(estimator: Estimator, state: dict[str, Tensor]) -> None:
    """Put back what :func:`fitted` returned, whatever the lengths of the fitted tensors.

    Raises:
        KeyError: the names are not those of this estimator.
        InputError: error bars of forces cannot have such numbers.
    """
    if set(state) != set(fitted(estimator)):
        raise KeyError("other tensors than this estimator has")
    for name, tensor in state.items():
        owner, _, buffer = name.rpartition(".")
        estimator.get_submodule(owner)._buffers[buffer] = tensor
    if isinstance(estimator.atoms, AtomErrorBars):
        estimator.atoms.check()
