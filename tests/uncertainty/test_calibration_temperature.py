"""Temperature scaling: a known temperature, a fine grid, scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from calibration_data import classification
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from egnn_prune.errors import InputError
from egnn_prune.prediction import ClassPrediction
from egnn_prune.uncertainty.calibration import TemperatureScaling
from egnn_prune.uncertainty.calibration.temperature import mean_probability_nll


def fitted_temperature(prediction, labels):
    return float(TemperatureScaling().fit(prediction, labels).temperature)


@pytest.mark.parametrize("t", [0.3, 1.0, 5.0])
@pytest.mark.parametrize(("members", "spread"), [(1, 0.0), (5, 1.5)])
def test_a_known_temperature_is_recovered(t, members, spread):
    prediction, labels = classification(8000, t, members=members, spread=spread)
    assert fitted_temperature(prediction, labels) == pytest.approx(t, rel=0.06)


@pytest.mark.parametrize("members", [1, 4])
@pytest.mark.parametrize("t", [0.2, 3.0])
def test_no_point_of_a_fine_grid_is_likelier(members, t):
    prediction, labels = classification(300, t, members=members, spread=1.0)
    found = fitted_temperature(prediction, labels)
    grid = [math.exp(u) for u in np.linspace(math.log(found) - 1, math.log(found) + 1, 401)]
    losses = [mean_probability_nll(prediction.logits / g, labels) for g in grid]
    best = mean_probability_nll(prediction.logits / found, labels)
    assert best <= min(losses) + 1e-12
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=0.005)


def test_the_loss_is_that_of_the_mean_probability():
    prediction, labels = classification(50, 2.0, members=3, spread=1.0)
    expected = -prediction.probabilities[torch.arange(50), labels].log().mean()
    found = mean_probability_nll(prediction.logits, labels)
    assert found == pytest.approx(float(expected), rel=1e-12)


class LogitsAsFeatures(ClassifierMixin, BaseEstimator):
    """A fitted scikit-learn classifier whose decision function is its input."""

    def __init__(self, classes=4):
        self.classes = classes
        self.classes_ = np.arange(classes)

    def fit(self, x, y):
        return self

    def decision_function(self, x):
        return x

    def predict(self, x):
        return x.argmax(1)


def test_the_temperature_equals_scikit_learn():
    prediction, labels = classification(400, 3.0)
    x = prediction.logits[0].numpy()
    theirs = CalibratedClassifierCV(FrozenEstimator(LogitsAsFeatures()), method="temperature")
    expected = theirs.fit(x, labels.numpy()).predict_proba(x)
    found = TemperatureScaling().fit(prediction, labels)(prediction).probabilities
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_label_of_one_member_never_changes(dtype):
    prediction, labels = classification(2000, 4.0)
    prediction = ClassPrediction(prediction.logits.to(dtype))
    calibrated = TemperatureScaling().fit(prediction, labels)(prediction)
    assert calibrated.logits.dtype == dtype
    logits = calibrated.logits[0]
    chosen = logits.gather(1, prediction.label[:, None])  # others may tie with it by rounding
    assert torch.equal(chosen, logits.max(1, keepdim=True).values)
    assert float((calibrated.confidence - prediction.confidence).max()) < 0


@pytest.mark.parametrize("n", [10, 30, 300])
@pytest.mark.parametrize("t", [0.2, 1.0, 6.0])
def test_likelihood_never_falls_on_the_fitted_set(n, t):
    prediction, labels = classification(n, t, members=3, spread=1.0)
    calibrated = TemperatureScaling().fit(prediction, labels)(prediction)
    before = mean_probability_nll(prediction.logits, labels)
    assert mean_probability_nll(calibrated.logits, labels) <= before + 1e-12


def test_the_same_data_give_the_same_temperature():
    prediction, labels = classification(200, 2.0, members=3, spread=1.0)
    one, other = (TemperatureScaling().fit(prediction, labels).temperature for _ in range(2))
    assert torch.equal(one, other)
    order = torch.randperm(200)
    shuffled = ClassPrediction(prediction.logits[:, order])
    assert fitted_temperature(shuffled, labels[order]) == pytest.approx(float(one), rel=1e-6)


def test_all_labels_right_has_no_temperature():
    prediction, _ = classification(100, 2.0)
    with pytest.raises(InputError, match="every label is predicted right"):
        TemperatureScaling().fit(prediction, prediction.label)


def test_knowing_nothing_ends_in_uniform_probabilities():
    prediction, _ = classification(100, 2.0)
    wrong = prediction.logits[0].argmin(-1)
    calibrated = TemperatureScaling().fit(prediction, wrong)(prediction)
    assert float(calibrated.confidence.max()) < 0.3


def test_equal_logits_stay():
    prediction = ClassPrediction(torch.zeros(2, 20, 3))
    assert fitted_temperature(prediction, torch.arange(20) % 3) == 1.0


@pytest.mark.parametrize("t", [1e-6, 1e-3, 1e5, 1e30])
def test_logits_of_any_size_have_their_temperature(t, dtype):
    prediction, labels = classification(2000, t)
    prediction = ClassPrediction(prediction.logits.to(dtype))
    assert fitted_temperature(prediction, labels) == pytest.approx(t, rel=0.1)


def test_gradients_pass_through():
    prediction, labels = classification(50, 2.0)
    calibration = TemperatureScaling().fit(prediction, labels)
    logits = prediction.logits[:, :5].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: calibration(ClassPrediction(x)).entropy, logits)
