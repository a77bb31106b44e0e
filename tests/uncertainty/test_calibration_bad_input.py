"""What cannot be calibrated is refused in one sentence."""

from __future__ import annotations

import math

import pytest
import torch
from calibration_data import classification, regression

from egnn_prune.errors import ConfigError, InputError
from egnn_prune.prediction import ClassPrediction, Prediction
from egnn_prune.uncertainty import SinglePass, calibrate
from egnn_prune.uncertainty.calibration import NoCalibration, TemperatureScaling, build_calibration

REGRESSIONS = ("variance", "power", "monotone", "isotonic", "conformal")
each_regression = pytest.mark.parametrize("name", REGRESSIONS)


def with_part(prediction, part, value):
    """The prediction with one value of one part replaced."""
    changed = {k: v.clone() for k, v in vars(prediction).items()}
    changed[part].view(-1)[3] = value
    return Prediction(**changed)


@each_regression
def test_fewer_than_ten_points(name):
    with pytest.raises(InputError, match="at least 10 validation targets, not 9"):
        build_calibration(name).fit(*regression(9))
    build_calibration(name).fit(*regression(10))
    build_calibration(name).fit(*regression(4, 3))


@each_regression
def test_shapes_that_differ(name):
    prediction, y = regression(20)
    for wrong in (y[:, None], y[:-1], y[:1]):
        with pytest.raises(InputError, match=r"targets \(.*same shape"):
            build_calibration(name).fit(prediction, wrong)


@each_regression
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_targets_that_are_no_numbers(name, bad):
    prediction, y = regression(20)
    y[7] = bad
    with pytest.raises(InputError, match="target is NaN or infinite"):
        build_calibration(name).fit(prediction, y)


@each_regression
@pytest.mark.parametrize("part", ["mean", "aleatoric", "members", "member_variance"])
def test_predictions_that_are_no_numbers(name, part):
    prediction, y = regression(20)
    with pytest.raises(InputError, match="predicts NaN or infinity"):
        build_calibration(name).fit(with_part(prediction, part, math.nan), y)


@each_regression
@pytest.mark.parametrize("bad", [0.0, -9.0])
def test_variances_that_are_not_positive(name, bad):
    prediction, y = regression(20)
    broken = with_part(with_part(prediction, "aleatoric", bad), "epistemic", 0.0)
    with pytest.raises(InputError, match="1 of 20 predictive variances are not positive"):
        build_calibration(name).fit(broken, y)
    calibration = build_calibration(name).fit(prediction, y)
    with pytest.raises(InputError, match="not positive"):
        calibration.interval(broken, 0.5)


def test_a_network_without_error_bars():
    prediction = Prediction.from_members(torch.randn(1, 20))
    with pytest.raises(InputError, match=r"20 of 20 .* states a variance or several members"):
        build_calibration("variance").fit(prediction, torch.randn(20))
    with pytest.raises(InputError, match="not positive"):
        NoCalibration().interval(prediction)


def test_a_monotone_map_of_no_variance():
    prediction, y = regression(20)
    calibration = build_calibration("monotone").fit(prediction, y)
    with pytest.raises(InputError, match="not positive"):
        calibration(Prediction.from_members(torch.randn(1, 5)))


@each_regression
def test_errors_that_are_all_zero(name):
    prediction, _ = regression(20)
    with pytest.raises(InputError, match="every validation error is exactly zero"):
        build_calibration(name).fit(prediction, prediction.mean)


@each_regression
def test_classes_are_no_regression(name):
    prediction, labels = classification(20, 1.0)
    calibration = build_calibration(name)
    with pytest.raises(InputError, match=r"not a ClassPrediction; .* 'temperature'"):
        calibration.fit(prediction, labels)
    calibration.fit(*regression(20))
    with pytest.raises(InputError, match="not a ClassPrediction"):
        calibration(prediction)
    with pytest.raises(InputError, match="not a ClassPrediction"):
        calibration.interval(prediction, 0.5)


def test_a_regression_is_no_class():
    prediction, y = regression(20)
    calibration = TemperatureScaling()
    with pytest.raises(InputError, match=r"not a Prediction; .* 'variance'"):
        calibration.fit(prediction, y)
    calibration.fit(*classification(50, 2.0))
    with pytest.raises(InputError, match="not a Prediction"):
        calibration(prediction)
    with pytest.raises(InputError, match="not a ClassPrediction"):
        calibration.interval(classification(5, 1.0)[0])


@pytest.mark.parametrize("bad", [[0.5], [-1.0], [4.0]])
def test_labels_that_are_no_classes(bad):
    prediction, labels = classification(20, 1.0)
    labels = labels.double()
    labels[3:4] = torch.tensor(bad).double()
    with pytest.raises(InputError, match="whole numbers from 0 to 3"):
        TemperatureScaling().fit(prediction, labels)


def test_bad_class_predictions():
    prediction, labels = classification(20, 1.0)
    with pytest.raises(InputError, match="same shape"):
        TemperatureScaling().fit(prediction, labels[:, None])
    with pytest.raises(InputError, match="at least 10"):
        TemperatureScaling().fit(ClassPrediction(prediction.logits[:, :9]), labels[:9])
    broken = prediction.logits.clone()
    broken[0, 2, 1] = math.nan
    with pytest.raises(InputError, match="member 0 of 1 predicts NaN"):
        TemperatureScaling().fit(ClassPrediction(broken), labels)


def test_a_calibrated_estimator_is_not_calibrated_twice(make_property_model, make_batch):
    batch = make_batch(*[3] * 12)
    once = calibrate(SinglePass(make_property_model(members=2)), [batch])
    with pytest.raises(ConfigError, match="calibrated already"):
        calibrate(once, [batch])


def test_batches_of_three_things_are_refused(make_property_model):
    with pytest.raises(InputError, match="pairs of inputs and targets, not 3 things"):
        calibrate(SinglePass(make_property_model()), [(1, 2, 3)])
