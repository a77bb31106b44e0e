"""Calibrated estimators: fitted on validation batches, stored with the model, applied on load."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from calibration_data import classification, regression
from safetensors.torch import load_file, save_file
from torch import nn

from egnn_prune.errors import ConfigError, InputError
from egnn_prune.prediction import ClassPrediction, Prediction
from egnn_prune.uncertainty.calibration import (
    CALIBRATIONS,
    Calibrated,
    MonotoneVariance,
    SplitConformal,
    build_calibration,
    calibrate,
)
from egnn_prune.uncertainty.estimator import Estimator, SinglePass

REGRESSIONS = ("variance", "power", "robust", "monotone", "isotonic", "conformal")


class Regressor(nn.Module):
    """Two members' means and variances of three outputs (or one) from four features."""

    def __init__(self, outputs=1, **kwargs):
        super().__init__()
        self.linear = nn.Linear(4, 4 * outputs, **kwargs)
        self.outputs = outputs

    def forward(self, x):
        out = self.linear(x).unflatten(-1, (4, self.outputs)).movedim(1, 0)
        out = out[..., 0] if self.outputs == 1 else out
        return Prediction.from_members(out[:2], out[2:].exp())


class Fitted(Estimator):
    """An estimator with a buffer of its own."""

    def __init__(self, network):
        super().__init__(network)
        self.register_buffer("extra", torch.ones(1))

    def fit(self, batches):
        self.extra += 1
        return self

    def estimate(self, batch):
        return self.network(batch)

    def settings(self):
        return {"of": "fitted"}


def pairs(batches=4, size=20, outputs=1, dtype=torch.float64):
    """Validation batches of inputs and targets."""
    shape = (size,) if outputs == 1 else (size, outputs)
    return [
        (torch.randn(size, 4).to(dtype), 3 * torch.randn(shape).to(dtype)) for _ in range(batches)
    ]


def data(name, dtype=torch.float64):
    if name == "temperature":
        prediction, labels = classification(200, 3.0, members=2, spread=0.5)
        return ClassPrediction(prediction.logits.to(dtype)), labels
    return regression(200, truth=lambda v: v**2, dtype=dtype)


def parts(prediction):
    return list(vars(prediction).values())


def test_the_registry():
    assert set(CALIBRATIONS) == {"none", "temperature", *REGRESSIONS}
    for name, method in CALIBRATIONS.items():
        assert method.name == name
        settings = json.loads(json.dumps(method().settings()))
        assert build_calibration(name, **settings).settings() == settings
    assert build_calibration("conformal", coverage=0.8).coverage == 0.8
    assert build_calibration("monotone", block=40).settings() == {"block": 40}
    with pytest.raises(ConfigError, match=r"none, variance, .* not 'platt'"):
        build_calibration("platt")
    with pytest.raises(ConfigError, match="at least 1 point"):
        MonotoneVariance(0)


@pytest.mark.parametrize("name", [*REGRESSIONS, "temperature"])
def test_a_round_trip_through_a_file_is_bitwise(name, dtype, tmp_path):
    prediction, y = data(name, dtype)
    calibration = build_calibration(name).fit(prediction, y)
    save_file(calibration.state_dict(), tmp_path / "c.safetensors")
    loaded = build_calibration(name, **calibration.settings())
    loaded.load_state_dict(load_file(tmp_path / "c.safetensors"))
    for key, value in calibration.state_dict().items():
        assert value.dtype == dtype
        assert torch.equal(loaded.state_dict()[key], value)
    for a, b in zip(parts(calibration(prediction)), parts(loaded(prediction)), strict=True):
        assert torch.equal(a, b)
    if name != "temperature":
        for a, b in zip(calibration.interval(prediction), loaded.interval(prediction), strict=True):
            assert torch.equal(a, b)
    # over a calibration that was fitted to other data, of another size
    smaller = regression(30) if name != "temperature" else classification(30, 2.0)
    other = build_calibration(name).fit(*smaller)
    other.load_state_dict(calibration.state_dict())
    assert torch.equal(
        parts(other(prediction))[1 % len(parts(prediction))],
        parts(calibration(prediction))[1 % len(parts(prediction))],
    )


@pytest.mark.parametrize("name", [*REGRESSIONS, "temperature"])
def test_damaged_states_are_refused(name):
    state = build_calibration(name).fit(*data(name)).state_dict()
    with pytest.raises(RuntimeError, match="Missing key"):
        build_calibration(name).load_state_dict({})
    with pytest.raises(RuntimeError, match="size mismatch"):
        build_calibration(name).load_state_dict({k: v[None] for k, v in state.items()})


@pytest.mark.parametrize("name", [*REGRESSIONS, "temperature"])
def test_what_was_not_fitted_is_not_applied(name):
    prediction, _ = data(name)
    with pytest.raises(ConfigError, match=f"'{name}' is not fitted; call fit"):
        build_calibration(name)(prediction)
    if name != "temperature":
        with pytest.raises(ConfigError, match=f"'{name}' is not fitted"):
            build_calibration(name).interval(prediction)
    loaded = build_calibration(name)
    loaded.load_state_dict(build_calibration(name).state_dict())
    with pytest.raises(ConfigError, match="not fitted"):
        loaded(prediction)


@pytest.mark.parametrize("name", [*REGRESSIONS, "temperature"])
def test_applying_fits_nothing(name):
    calibration = build_calibration(name).fit(*data(name))
    before = copy.deepcopy(calibration.state_dict())
    new, _ = data(name)
    together = parts(calibration(new))
    if name != "temperature":
        calibration.interval(new, 0.5)
    assert all(torch.equal(before[k], v) for k, v in calibration.state_dict().items())
    # each point's error bar depends on that point alone
    alone = (
        ClassPrediction(new.logits[:, :1])
        if name == "temperature"
        else Prediction(*(v[..., :1] for v in parts(new)))
    )
    for a, b in zip(parts(calibration(alone)), together, strict=True):
        torch.testing.assert_close(a, b[:, :1] if name == "temperature" else b[..., :1])


@pytest.mark.parametrize("name", [*REGRESSIONS, "temperature"])
def test_a_calibration_is_cast_with_its_model(name):
    prediction, y = data(name, torch.float32)
    calibration = build_calibration(name).fit(prediction, y)
    double = copy.deepcopy(calibration).double()
    for a, b in zip(parts(calibration(prediction)), parts(double(prediction)), strict=True):
        assert b.dtype == torch.float32
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", [*REGRESSIONS, "none"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_calibrate_equals_the_steps_by_hand(name, outputs, dtype):
    estimator = SinglePass(Regressor(outputs, dtype=dtype))
    batches = pairs(outputs=outputs, dtype=dtype)
    calibrated = calibrate(estimator, iter(batches), name)
    prediction = Prediction.cat([estimator.predict(x) for x, _ in batches])
    by_hand = build_calibration(name).fit(prediction, torch.cat([y for _, y in batches]))
    x = torch.randn(7, 4, dtype=dtype)
    for a, b in zip(
        parts(calibrated.predict(x)), parts(by_hand(estimator.predict(x))), strict=True
    ):
        assert torch.equal(a, b)
        assert not a.requires_grad
    for a, b in zip(
        calibrated.interval(x, 0.8), by_hand.interval(estimator.predict(x), 0.8), strict=True
    ):
        assert torch.equal(a, b)
        assert not a.requires_grad
    assert name == "none" or calibrated(x).variance.requires_grad


class Graphs:
    def __init__(self, x, y, forces):
        self.x, self.y, self.forces = x, y, forces


def test_targets_of_graphs():
    (x, y), (_, other) = pairs(2)
    batch = Graphs(x, y, other)
    network = Regressor(dtype=torch.float64)
    estimator = SinglePass(network)
    estimator.estimate = lambda batch: network(batch.x)
    by_default = calibrate(estimator, [batch]).calibration
    by_name = calibrate(estimator, [batch], targets=lambda batch: batch.forces).calibration
    prediction = network(x)
    for calibration, targets in ((by_default, y), (by_name, other)):
        expected = ((targets - prediction.mean).square() / prediction.variance).mean()
        torch.testing.assert_close(calibration.factor, expected[None].detach())


def test_classes_are_calibrated_from_batches():
    network = nn.Linear(4, 3).double()
    batches = [(torch.randn(30, 4).double(), torch.randint(3, (30,))) for _ in range(3)]
    calibrated = calibrate(SinglePass(network), batches, "temperature")
    prediction = calibrated.predict(batches[0][0])
    assert isinstance(prediction, ClassPrediction)
    t = calibrated.calibration.temperature
    torch.testing.assert_close(prediction.logits[0], network(batches[0][0]).detach() / t)


def test_the_weights_are_registered_once():
    estimator = Fitted(Regressor(dtype=torch.float64))
    calibrated = calibrate(estimator, pairs(), "conformal")
    assert set(calibrated.state_dict()) == {
        "estimator.network.linear.weight",
        "estimator.network.linear.bias",
        "estimator.extra",
        "calibration.scores",
    }
    assert calibrated.network is estimator.network
    assert len(list(calibrated.modules())) == 5
    fresh = Calibrated(Fitted(Regressor(dtype=torch.float64)), SplitConformal())
    fresh.load_state_dict(calibrated.state_dict())
    x = torch.randn(5, 4).double()
    for a, b in zip(parts(fresh.predict(x)), parts(calibrated.predict(x)), strict=True):
        assert torch.equal(a, b)
    assert json.loads(json.dumps(calibrated.settings())) == {
        "calibration": "conformal",
        "calibration_settings": {"coverage": 0.9},
        "estimator_settings": {"of": "fitted"},
    }


def test_calibrating_leaves_weights_and_modes_alone():
    estimator = Fitted(Regressor(dtype=torch.float64)).train()
    before = copy.deepcopy(estimator.state_dict())
    calibrated = calibrate(estimator, pairs(), MonotoneVariance(30))
    calibrated.predict(torch.randn(5, 4).double())
    assert estimator.training
    assert estimator.network.training
    assert all(torch.equal(before[k], v) for k, v in estimator.state_dict().items())
    assert calibrated.calibration.block == 30


def test_a_calibrated_estimator_is_not_fitted_again():
    calibrated = calibrate(Fitted(Regressor(dtype=torch.float64)), pairs())
    with pytest.raises(ConfigError, match="cannot be fitted again"):
        calibrated.fit(pairs())


def test_batches_without_targets():
    estimator = SinglePass(Regressor(dtype=torch.float64))
    with pytest.raises(InputError, match="no targets"):
        calibrate(estimator, [x for x, _ in pairs()])
    with pytest.raises(InputError, match="no validation batches"):
        calibrate(estimator, [])
    with pytest.raises(ConfigError, match="calibration must be one of"):
        calibrate(estimator, pairs(), "platt")
