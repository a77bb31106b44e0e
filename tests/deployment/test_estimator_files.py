"""Estimators come back from a file with their network, what was fitted, and their calibration."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch_geometric.loader import DataLoader

from egnn_prune import load, load_estimator, save
from egnn_prune.errors import InputError
from egnn_prune.uncertainty import (
    CALIBRATIONS,
    DeepEnsemble,
    LastLayer,
    MCDropout,
    NoiseAndRigidity,
    PredictionRigidity,
    SinglePass,
    calibrate,
)

KINDS = {
    "single pass": SinglePass,
    "dropout": lambda model: MCDropout(model, samples=5, seed=3),
    "last layer": LastLayer,
    "rigidity": lambda model: PredictionRigidity(model, prior_precision=2.0),
    "noise and rigidity": lambda model: NoiseAndRigidity(model, prior_precision=2.0),
}


@pytest.fixture
def model(make_property_model):
    return make_property_model(members=2, dropout=0.2)


def calibrated(estimator, batch, method="variance"):
    graphs = batch.to_data_list()
    return calibrate(estimator.fit(DataLoader(graphs, 4)), DataLoader(graphs, 4), method)


@pytest.mark.parametrize("method", ["none", "variance", "monotone", "isotonic", "conformal"])
@pytest.mark.parametrize("kind", KINDS)
def test_bit_for_bit(model, make_batch, tmp_path, kind, method):
    batch = make_batch(*[3, 4, 5] * 7)
    estimator = calibrated(KINDS[kind](model), batch, method)
    save(estimator, tmp_path / "m.safetensors", unit="eV")
    again = load_estimator(tmp_path / "m.safetensors")
    assert not again.training
    before, after = estimator.predict(batch), again.predict(batch)
    assert all(torch.equal(a, getattr(after, k)) for k, a in vars(before).items())
    if method != "none":
        for a, b in zip(estimator.interval(batch), again.interval(batch), strict=True):
            assert torch.equal(a, b)
    network = load(tmp_path / "m.safetensors")  # the file of an estimator is one of its network
    assert torch.equal(network(batch).mean, model.eval()(batch).mean)


def test_the_network_is_stored_once(model, make_batch, tmp_path):
    estimator = calibrated(LastLayer(model), make_batch(*[3, 4] * 6))
    save(estimator, tmp_path / "with.safetensors")
    save(model, tmp_path / "without.safetensors")
    with (
        safe_open(tmp_path / "with.safetensors", "pt") as a,
        safe_open(tmp_path / "without.safetensors", "pt") as b,
    ):
        extra = set(a.keys()) - set(b.keys())
        assert set(b.keys()) < set(a.keys())
    assert extra == {"estimator:estimator.covariance", "estimator:calibration.factor"}


def test_an_ensemble(make_property_model, make_batch, tmp_path):
    ensemble = DeepEnsemble([make_property_model(), make_property_model()])
    batch = make_batch(*[3, 4] * 6)
    estimator = calibrated(SinglePass(ensemble), batch)
    save(estimator, tmp_path / "m.safetensors")
    again = load_estimator(tmp_path / "m.safetensors").predict(batch)
    assert torch.equal(again.variance, estimator.predict(batch).variance)


def test_a_network_alone_says_what_to_do(model, tmp_path):
    save(model, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="without an uncertainty method"):
        load_estimator(tmp_path / "m.safetensors")


def test_unknown_and_damaged_estimators_are_refused(model, make_batch, tmp_path):
    class Own(SinglePass):
        pass

    with pytest.raises(InputError, match="Own cannot be saved"):
        save(Own(model), tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()
    estimator = calibrated(LastLayer(model), make_batch(*[3, 4] * 6))
    save(estimator, tmp_path / "m.safetensors")
    raw = (tmp_path / "m.safetensors").read_bytes()
    for old, new in ((b"LastLayer", b"LostLayer"), (b"covariance", b"covarianse")):
        (tmp_path / "n.safetensors").write_bytes(raw.replace(old, new))
        with pytest.raises(InputError, match="damaged"):
            load_estimator(tmp_path / "n.safetensors")


def test_every_calibration_can_be_stored(model):
    assert set(CALIBRATIONS) >= {"none", "variance", "monotone", "isotonic", "conformal"}
    assert all(isinstance(kind(), nn.Module) for kind in CALIBRATIONS.values())
