"""Intervals that cover what they state: split conformal and isotonic quantiles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from calibration_data import heavy_tailed, regression
from scipy import stats
from sklearn.isotonic import IsotonicRegression

from egnn_prune.errors import ConfigError, InputError
from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty.calibration import (
    IsotonicQuantiles,
    NoCalibration,
    SplitConformal,
    VarianceScaling,
)
from egnn_prune.uncertainty.calibration.conformal import conformal_rank

COVERAGES = (0.5, 0.8, 0.9, 0.95)


def skewed(like):
    """Shifted exponential noise of mean 0 and variance 1."""
    return torch.empty_like(like).exponential_() - 1


def coverage(calibration, prediction, y, c):
    lower, upper = calibration.interval(prediction, c)
    return float(((lower <= y) & (y <= upper)).double().mean())


@pytest.mark.parametrize("noise", [torch.randn_like, heavy_tailed, skewed])
@pytest.mark.parametrize("method", [SplitConformal, IsotonicQuantiles])
def test_coverage_of_10_000_exchangeable_points(method, noise, dtype):
    """As many to fit; the stated variances are 4 times too small."""
    prediction, y = regression(10_000, truth=lambda v: 4 * v, noise=noise, dtype=dtype)
    new, new_y = regression(10_000, truth=lambda v: 4 * v, noise=noise, dtype=dtype)
    calibration = method().fit(prediction, y)
    for c in COVERAGES:
        assert coverage(calibration, new, new_y, c) == pytest.approx(c, abs=0.02)
        if c < 0.95:  # uncalibrated intervals miss it
            assert coverage(NoCalibration(), new, new_y, c) < c - 0.1


@pytest.mark.parametrize("method", [SplitConformal, IsotonicQuantiles])
def test_heavy_tails_defeat_the_gaussian_interval(method):
    prediction, y = regression(10_000, noise=heavy_tailed)
    new, new_y = regression(10_000, noise=heavy_tailed)
    gaussian = VarianceScaling().fit(prediction, y)
    assert coverage(gaussian, new, new_y, 0.5) > 0.6
    assert coverage(method().fit(prediction, y), new, new_y, 0.5) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("n", "c"), [(19, 0.9), (25, 0.8), (40, 0.5)])
def test_the_finite_sample_guarantee_is_sharp(n, c):
    """Over many small validation sets the coverage is rank / (n + 1) on average."""
    found = []
    for _ in range(800):
        prediction, y = regression(n)
        new, new_y = regression(20)
        found.append(coverage(SplitConformal(c).fit(prediction, y), new, new_y, c))
    expected = conformal_rank(n, c) / (n + 1)
    assert c <= expected <= c + 1 / (n + 1)
    error = np.std(found) / math.sqrt(len(found))
    assert np.mean(found) == pytest.approx(expected, abs=4 * error)


def test_the_conformal_quantile_by_hand(dtype):
    zero, one = torch.zeros(19, dtype=dtype), torch.ones(19, dtype=dtype)
    prediction = Prediction.from_members(zero[None], 4 * one[None])
    y = torch.arange(1, 20).to(dtype) * (2 * (torch.arange(19) % 2) - 1)
    calibration = SplitConformal(0.9).fit(prediction, y[torch.randperm(19)])
    assert float(calibration.interval(prediction)[1][0]) == 18.0  # the 18th of 19
    assert float(calibration.interval(prediction, 0.95)[1][0]) == 19.0
    assert float(calibration.interval(prediction, 0.5)[0][0]) == -10.0
    # the calibrated Gaussian has the same interval
    lower, upper = NoCalibration().interval(calibration(prediction), 0.9)
    assert float(upper[0]) == pytest.approx(18.0, rel=1e-6)
    assert float(lower[0]) == pytest.approx(-18.0, rel=1e-6)


@pytest.mark.parametrize(
    ("n", "c", "rank"), [(99, 0.9, 90), (99, 0.55, 55), (100, 0.9, 91), (19, 0.95, 19), (9, 0.9, 9)]
)
def test_conformal_rank(n, c, rank):
    assert conformal_rank(n, c) == rank


def test_too_few_points_for_a_coverage():
    prediction, y = regression(18)
    with pytest.raises(InputError, match=r"0.95 need at least 19 .* not 18"):
        SplitConformal(0.95).fit(prediction, y)
    with pytest.raises(InputError, match=r"0.99 need at least 99 .* not 18"):
        SplitConformal().fit(prediction, y).interval(prediction, 0.99)
    with pytest.raises(InputError, match=r"0.9 need at least 19 .* not 18"):
        IsotonicQuantiles().fit(prediction, y).interval(prediction)
    prediction, y = regression(19)
    IsotonicQuantiles().fit(prediction, y).interval(prediction)
    SplitConformal(0.95).fit(prediction, y).interval(prediction)


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.1, 90, math.nan])
def test_coverage_lies_between_0_and_1(bad):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        SplitConformal(bad)
    prediction, y = regression(50)
    for method in (SplitConformal, IsotonicQuantiles, VarianceScaling):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            method().fit(prediction, y).interval(prediction, bad)


def test_its_own_coverage_is_the_default():
    prediction, y = regression(200)
    calibration = SplitConformal(0.6).fit(prediction, y)
    for a, b in zip(
        calibration.interval(prediction), calibration.interval(prediction, 0.6), strict=True
    ):
        assert torch.equal(a, b)
    assert calibration.settings() == {"coverage": 0.6}


def test_isotonic_map_equals_kuleshov():
    """Algorithm 1 of the paper with scikit-learn, on overconfident skewed data."""
    prediction, y = regression(3000, truth=lambda v: 4 * v, noise=skewed)
    calibration = IsotonicQuantiles().fit(prediction, y)
    z = (y - prediction.mean) / prediction.variance.sqrt()
    levels = np.sort(stats.norm.cdf(z.numpy()))
    observed = np.array([(levels <= p).mean() for p in levels])
    theirs = IsotonicRegression(out_of_bounds="clip").fit(levels, observed)
    p = torch.linspace(0.005, 0.995, 199).double()
    found = calibration.observed(p).numpy()
    np.testing.assert_allclose(found, theirs.predict(p.numpy()), atol=2 / 3000)
    assert np.abs(found - p.numpy()).max() > 0.1


def test_isotonic_intervals_invert_the_map(dtype):
    prediction, y = regression(400, noise=skewed, dtype=dtype)
    calibration = IsotonicQuantiles().fit(prediction, y)
    for c in COVERAGES:
        ends = calibration.interval(prediction, c)
        for end, level in zip(ends, ((1 - c) / 2, (1 + c) / 2), strict=True):
            z = (end - prediction.mean) / prediction.variance.sqrt()
            found = calibration.observed(torch.special.ndtr(z.double()))
            torch.testing.assert_close(found, torch.full_like(found, level), rtol=0, atol=1e-4)


def test_isotonic_intervals_of_skewed_noise_are_asymmetric():
    prediction, y = regression(5000, noise=skewed)
    lower, upper = IsotonicQuantiles().fit(prediction, y).interval(prediction, 0.9)
    sigma = prediction.variance.sqrt()
    # quantiles 5 % and 95 % of an exponential distribution, shifted by its mean
    assert float(((lower - prediction.mean) / sigma)[0]) == pytest.approx(
        math.log(1 / 0.95) - 1, abs=0.02
    )
    assert float(((upper - prediction.mean) / sigma)[0]) == pytest.approx(
        math.log(1 / 0.05) - 1, abs=0.15
    )


def test_isotonic_moments_are_those_of_one_factor():
    prediction, y = regression(300, truth=lambda v: 4 * v, noise=skewed)
    ours = IsotonicQuantiles().fit(prediction, y)(prediction)
    theirs = VarianceScaling().fit(prediction, y)(prediction)
    assert torch.equal(ours.variance, theirs.variance)
    assert torch.equal(ours.mean, prediction.mean)


@pytest.mark.parametrize("method", [SplitConformal, IsotonicQuantiles])
def test_intervals_of_forces_are_differentiable(method):
    prediction, y = regression(60, 3)
    calibration = method().fit(prediction, y)
    v = (torch.rand(4, 3).double() + 0.1).requires_grad_()

    def ends(v):
        return calibration.interval(Prediction.from_members(v[None] * 2, v[None]), 0.8)

    assert ends(v)[0].shape == (4, 3)
    assert torch.autograd.gradcheck(ends, v)
