"""The monotone map of variances: against scikit-learn, on distortions, beyond its range."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from calibration_data import regression, stated
from sklearn.isotonic import IsotonicRegression

from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty import metrics
from egnn_prune.uncertainty.calibration import MonotoneVariance, VarianceScaling
from egnn_prune.uncertainty.calibration.monotone import block_sizes, pool_adjacent_violators


def of_variance(variance):
    return Prediction.from_members(torch.zeros_like(variance)[None], variance[None])


def mapped(calibration, variance):
    return calibration(of_variance(variance)).variance


def nll(prediction, y):
    return float(metrics.nll(prediction.mean, prediction.variance, y))


@pytest.mark.parametrize("n", [1, 2, 300])
def test_pooling_equals_scikit_learn(n):
    values = torch.randn(n).double() + torch.linspace(0, 2, n).double()
    weights = torch.rand(n).double() + 0.1
    ours = pool_adjacent_violators(values, weights)
    theirs = IsotonicRegression().fit_transform(np.arange(n), values, sample_weight=weights)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("block", [1, 25])
def test_the_map_equals_scikit_learn_at_its_knots(dtype, block):
    """Blocks of one point: plain isotonic regression; else that of the blocks' means.

    The map is steep between knots that lie close together, so a logarithm whose last bit depends on
    the processor moves it far: it must be what scikit-learn says within a rounding of x.
    """
    prediction, y = regression(400, truth=lambda v: v**2, dtype=dtype)
    calibration = MonotoneVariance(block).fit(prediction, y)
    variance, order = prediction.variance.double().sort()
    squared = (y - prediction.mean).double()[order].square()
    x, e = variance.view(-1, block).mean(1), squared.view(-1, block).mean(1)
    expected = IsotonicRegression().fit_transform(x, e)
    relevant = expected > 1e-5 * x.numpy()  # above the floor
    assert relevant.mean() > 0.9
    found = mapped(calibration, x.to(dtype)).double().numpy()[relevant]
    rounding, rtol = (1e-6, 1e-4) if dtype == torch.float32 else (1e-14, 1e-9)

    def between_knots(shift: float) -> np.ndarray:
        at, value = np.log(x.numpy()), np.log(expected.clip(1e-12))
        return np.exp(np.interp(at + shift, at, value))[relevant]

    assert (found >= between_knots(-rounding) * (1 - rtol)).all()
    assert (found <= between_knots(+rounding) * (1 + rtol)).all()
    near = np.abs(found / expected[relevant] - 1) < rtol
    assert near.mean() > 0.9  # the tolerance above is needed at few knots


def test_isotonic_regression_is_the_likeliest_monotone_map():
    """Blocks of one point: no other increasing sequence of variances is likelier."""
    prediction, y = regression(60, truth=lambda v: v + 0.5)
    variance, order = prediction.variance.sort()
    squared = (y - prediction.mean)[order].square()
    fit = pool_adjacent_violators(squared, torch.ones(60)).clamp(min=1e-6)
    zero = torch.zeros_like(variance)
    best = float(metrics.nll(zero, fit, squared.sqrt()))
    for _ in range(300):
        other = (fit * (0.1 * torch.randn(60).double()).exp()).cummax(0).values
        assert float(metrics.nll(zero, other, squared.sqrt())) >= best - 1e-12


@pytest.mark.parametrize("truth", [lambda v: v**2, lambda v: v.sqrt(), lambda v: 0 * v + 1])
def test_a_distorted_variance_is_mended_where_one_factor_cannot(truth):
    """The stated variance is v, the true one v² (or its root, or constant)."""
    prediction, y = regression(2000, truth=truth)
    new, new_y = regression(20_000, truth=truth)
    ideal = float(metrics.nll(new.mean, truth(new.variance), new_y))
    one = nll(VarianceScaling().fit(prediction, y)(new), new_y) - ideal
    ours = nll(MonotoneVariance().fit(prediction, y)(new), new_y) - ideal
    assert one > 0.05
    assert ours < 0.15 * one


def test_500_points_are_not_overfitted():
    """On a calibrated prediction the map costs next to nothing; blocks of one point do."""
    cost, careless = 0.0, 0.0
    for _ in range(10):
        prediction, y = regression(500)
        new, new_y = regression(5000)
        cost += (nll(MonotoneVariance().fit(prediction, y)(new), new_y) - nll(new, new_y)) / 10
        single = MonotoneVariance(1).fit(prediction, y)(new)
        careless += (nll(single, new_y) - nll(new, new_y)) / 10
    assert cost < 0.013
    assert careless > 5 * cost


@pytest.mark.parametrize("n", [10, 40, 60, 200, 1000])
@pytest.mark.parametrize("truth", [lambda v: v, lambda v: v**2, lambda v: 1 / v])
def test_likelihood_never_falls_on_the_fitted_set(n, truth, dtype):
    prediction, y = regression(n, truth=truth, dtype=dtype)
    one = nll(VarianceScaling().fit(prediction, y)(prediction), y)
    ours = nll(MonotoneVariance().fit(prediction, y)(prediction), y)
    assert one <= nll(prediction, y) + 1e-6
    assert ours <= one + 1e-6


def test_the_order_of_variances_is_never_reversed(dtype):
    prediction, y = regression(500, truth=lambda v: v.sqrt(), dtype=dtype)
    calibration = MonotoneVariance().fit(prediction, y)
    v = torch.logspace(-6, 6, 5000, dtype=torch.float64).to(dtype)
    steps = mapped(calibration, v).diff()
    assert bool((steps >= -1e-5 * mapped(calibration, v)[1:]).all())
    new, new_y = regression(2000, truth=lambda v: v.sqrt(), dtype=dtype)
    before = float(metrics.spearman(new.mean, new.variance, new_y))
    after = float(metrics.spearman(new.mean, calibration(new).variance, new_y))
    assert after == pytest.approx(before, abs=0.03)


def test_variances_beyond_the_validation_range_keep_growing(assert_close):
    prediction, y = regression(500, truth=lambda v: v**2)
    calibration = MonotoneVariance().fit(prediction, y)
    top = prediction.variance.max()
    assert_close(mapped(calibration, 100 * top[None]), 100 * mapped(calibration, top[None]))
    low = prediction.variance.min()
    assert_close(mapped(calibration, low[None] / 100), mapped(calibration, low[None]) / 100)


def test_a_power_law_between_the_knots():
    """No noise: |error| is sigma², and the map between knots is the power law."""
    v = torch.logspace(-2, 2, 500, dtype=torch.float64)
    sign = torch.where(torch.arange(500) % 2 == 0, 1.0, -1.0)
    calibration = MonotoneVariance().fit(of_variance(v), sign * v)
    inside = v[20:-20]
    torch.testing.assert_close(mapped(calibration, inside), inside**2, rtol=0.03, atol=0)


def test_a_block_without_any_error_gets_a_positive_variance():
    v = torch.tensor([1.0] * 50 + [2.0] * 50).double()
    error = torch.randn(100).double() * (v > 1.5)
    low, high = mapped(MonotoneVariance().fit(of_variance(v), error), v[[0, -1]])
    assert float(low) == pytest.approx(1e-6 * float((error.square() / v).mean()))
    assert float(high) == pytest.approx(float(error[50:].square().mean()))


def test_equal_variances_share_a_block():
    values = torch.cat([torch.arange(15), torch.full((25,), 20), torch.arange(30, 75)]).double()
    assert block_sizes(values, 20) == [40, 20, 25]
    assert block_sizes(torch.ones(70), 20) == [70]
    assert block_sizes(torch.arange(39.0), 20) == [39]
    assert block_sizes(torch.arange(5.0), 20) == [5]


def test_one_variance_for_all_becomes_one_factor(dtype, tolerance):
    y = 3 * torch.randn(200, dtype=dtype)
    calibration = MonotoneVariance().fit(of_variance(torch.ones(200, dtype=dtype)), y)
    found = mapped(calibration, torch.tensor([0.1, 1.0, 10.0], dtype=dtype))
    expected = float(y.square().double().mean()) * np.array([0.1, 1.0, 10.0])
    np.testing.assert_allclose(found, expected, rtol=10 * tolerance)


def test_variances_that_differ_by_rounding_alone_are_harmless():
    """Knots that coincide in float32 must not divide zero by zero."""
    v = 1e-6 * (1 + 1e-7 * torch.rand(400).double())
    prediction = of_variance(v.float())
    y = 1e-3 * torch.randn(400)
    calibrated = MonotoneVariance().fit(prediction, y)(prediction)
    assert bool(calibrated.variance.isfinite().all())
    assert float(calibrated.variance.mean()) == pytest.approx(1e-6, rel=0.5)


def test_forces_and_gradients():
    prediction, y = regression(40, 3, truth=lambda v: v**2)
    calibration = MonotoneVariance().fit(prediction, y)
    assert calibration(prediction).variance.shape == (40, 3)
    v = prediction.variance.flatten()[:20].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: mapped(calibration, v), v)


def test_the_parts_share_the_ratio(assert_close):
    prediction, y = regression(300, truth=lambda v: v**2)
    calibrated = MonotoneVariance().fit(prediction, y)(prediction)
    again = Prediction.from_members(calibrated.members, calibrated.member_variance)
    assert_close(again.variance, calibrated.variance)
    assert_close(
        calibrated.epistemic / calibrated.variance, prediction.epistemic / prediction.variance
    )
    assert calibrated.variance.std() > prediction.variance.std()


def test_units_do_not_matter(assert_close):
    prediction, y = regression(300, truth=lambda v: v**2)
    big = stated(1000 * prediction.mean, 1e6 * prediction.variance)
    a = MonotoneVariance().fit(prediction, y)(prediction).variance
    b = MonotoneVariance().fit(big, 1000 * y)(big).variance
    assert_close(b, 1e6 * a)
