"""One factor for all variances: its closed form, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from calibration_data import regression, stated
from scipy import optimize

from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty.calibration import NoCalibration, VarianceScaling
from egnn_prune.uncertainty.metrics import nll


def squared_z(prediction, y):
    return float(((y - prediction.mean).square() / prediction.variance).double().mean())


def test_mean_squared_normalised_error_is_one_on_its_own_set(dtype, tolerance):
    prediction, y = regression(500, truth=lambda v: 7 * v, dtype=dtype)
    assert squared_z(prediction, y) > 5
    calibrated = VarianceScaling().fit(prediction, y)(prediction)
    assert squared_z(calibrated, y) == pytest.approx(1, rel=tolerance)
    assert calibrated.variance.dtype == dtype


@pytest.mark.parametrize("k", [0.01, 1.0, 30.0])
def test_a_known_factor_is_undone(k):
    prediction, y = regression(20_000, truth=lambda v: k * v)
    factor = VarianceScaling().fit(prediction, y).factor
    assert float(factor) == pytest.approx(k, rel=4 * (2 / 20_000) ** 0.5)


def test_the_factor_minimises_the_likelihood_loss():
    prediction, y = regression(200, truth=lambda v: v**2)

    def loss(log_factor):
        variance = prediction.variance * torch.tensor(log_factor).exp()
        return float(nll(prediction.mean, variance, y))

    best = optimize.minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9})
    factor = VarianceScaling().fit(prediction, y).factor
    assert float(factor.log()) == pytest.approx(best.x, abs=1e-6)


def test_the_prediction_still_follows_from_its_members(dtype, assert_close):
    prediction, y = regression(50, truth=lambda v: 7 * v, dtype=dtype)
    calibrated = VarianceScaling().fit(prediction, y)(prediction)
    again = Prediction.from_members(calibrated.members, calibrated.member_variance)
    for part in ("mean", "aleatoric", "epistemic"):
        assert_close(getattr(again, part), getattr(calibrated, part))
    assert torch.equal(calibrated.mean, prediction.mean)
    assert_close(
        calibrated.epistemic / calibrated.variance, prediction.epistemic / prediction.variance
    )


def test_a_closed_form_epistemic_part_is_kept(assert_close):
    """A last-layer method states an epistemic variance that its one member does not show."""
    y = torch.randn(40).double()
    zero = torch.zeros(1, 40).double()
    prediction = Prediction(zero[0], zero[0] + 0.1, zero[0] + 0.3, zero, zero + 0.1)
    calibrated = VarianceScaling().fit(prediction, y)(prediction)
    assert_close(calibrated.epistemic, 3 * calibrated.aleatoric)
    assert squared_z(calibrated, y) == pytest.approx(1)


def test_forces_have_three_components(dtype, assert_close):
    prediction, y = regression(30, 3, truth=lambda v: 5 * v, dtype=dtype)
    flat = Prediction(**{k: v.flatten(-2) for k, v in vars(prediction).items()})
    one, other = VarianceScaling().fit(prediction, y), VarianceScaling().fit(flat, y.flatten())
    assert_close(one.factor, other.factor)
    assert one(prediction).members.shape == (3, 30, 3)
    lower, upper = one.interval(prediction)
    assert lower.shape == upper.shape == (30, 3)
    # a factor knows no direction: rotated forces have the same members' spread, rotated
    q = torch.linalg.qr(torch.randn(3, 3).to(dtype))[0]
    turned = Prediction.from_members(prediction.members @ q, prediction.member_variance)
    assert_close(
        one(turned).members, one(prediction).members @ q, 1e-4 if dtype.itemsize == 4 else 1e-9
    )


def test_the_interval_is_the_central_gaussian_one(dtype):
    prediction, y = regression(40, truth=lambda v: 5 * v, dtype=dtype)
    calibration = VarianceScaling().fit(prediction, y)
    lower, upper = calibration.interval(prediction, 0.95)
    sigma = calibration(prediction).variance.sqrt()
    torch.testing.assert_close((upper - lower) / 2, 1.959963984540054 * sigma)
    torch.testing.assert_close((upper + lower) / 2, prediction.mean)
    for inner, outer in zip(calibration.interval(prediction), (lower, upper), strict=True):
        assert bool(((inner - prediction.mean).abs() < (outer - prediction.mean).abs()).all())


def test_gradients_pass_through():
    means = torch.randn(3, 20).double().requires_grad_()
    fitted_to, y = regression(20, truth=lambda v: 5 * v)
    calibration = VarianceScaling().fit(fitted_to, y)

    def sums(means):
        p = calibration(Prediction.from_members(means, means.square() + 0.1))
        return torch.stack([p.variance.sum(), p.members.square().sum(), p.mean.sum()])

    assert torch.autograd.gradcheck(sums, means)
    assert not any(p.requires_grad for p in calibration.buffers())


def test_no_calibration_is_the_identity():
    prediction, y = regression(20)
    assert NoCalibration().fit(prediction, y)(prediction) is prediction
    lower, upper = NoCalibration().interval(prediction, 0.5)
    torch.testing.assert_close(upper - lower, 2 * 0.6744897501960817 * prediction.variance.sqrt())


def test_one_factor_keeps_every_order():
    prediction, y = regression(300, truth=lambda v: v**2)
    calibrated = VarianceScaling().fit(prediction, y)(prediction)
    for part in ("variance", "epistemic", "aleatoric"):
        before, after = getattr(prediction, part), getattr(calibrated, part)
        assert bool((after[before.argsort()].diff() >= 0).all())  # rounding may make ties


def test_stated_keeps_its_word():
    mean, variance = torch.randn(2, 30).double()
    p = stated(mean, variance.exp())
    torch.testing.assert_close(p.mean, mean)
    torch.testing.assert_close(p.variance, variance.exp())
