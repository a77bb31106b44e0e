"""Numbers behind the calibration panels: closed forms, and equal to the scores of the package."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from egnn_prune.report.run.calibration import (
    coverage,
    left_after,
    overconfidence,
    reliability,
    sparsification,
)
from egnn_prune.uncertainty import metrics as scores
from egnn_prune.uncertainty.metrics.spread import SAMPLES_PER_BIN

N = 20_000


def drawn(short: float, n: int = N, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Errors, and error bars that are ``short`` times what they should be."""
    rng = np.random.default_rng(seed)
    std = np.exp(rng.normal(0, 0.6, n))
    return std * rng.normal(size=n), short * std


@pytest.mark.parametrize("short", [0.5, 1.0, 2.0])
def test_known_gaussian(short):
    error, std = drawn(short)
    predicted, observed = reliability(error, std, bins=10)
    np.testing.assert_allclose(observed / predicted, 1 / short, rtol=0.06)  # 4 sigma of 2000 a bin
    levels = np.array([0.5, 0.8, 0.9, 0.95])
    gauss = NormalDist()
    expected = [2 * gauss.cdf(short * gauss.inv_cdf((1 + p) / 2)) - 1 for p in levels]
    np.testing.assert_allclose(coverage(error, std, levels), expected, atol=4 * 0.5 / math.sqrt(N))
    assert overconfidence(error, std) == pytest.approx(1 / short, rel=0.04)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [90, 600, 601])
def test_the_curves_are_those_that_the_scores_sum(n, dtype):
    """What the page draws and what metrics.json says come from the same definitions."""
    error, std = (values.astype(dtype) for values in drawn(0.7, n))
    target = np.zeros(n, dtype=dtype)
    bins = n // SAMPLES_PER_BIN
    args = [torch.from_numpy(values).double() for values in (error, std, target)]
    args[1] = args[1] ** 2
    error, std = error.astype(np.float64), std.astype(np.float64)

    predicted, observed = reliability(error, std, bins=bins)
    assert len(predicted) == bins
    gaps = np.abs(predicted - observed) / predicted
    counts = np.bincount(np.arange(n) * bins // n)
    ence = float(scores.ence(*args))
    assert np.average(gaps, weights=counts) == pytest.approx(ence, rel=1e-9)

    curve, oracle = sparsification(error, std), sparsification(error, np.abs(error))
    ause = float(scores.ause(*args))
    assert np.mean(curve[1] - oracle[1]) == pytest.approx(ause, rel=1e-9)

    share = float(scores.interval_coverage(*args, 0.9))
    assert coverage(error, std, np.array([0.9]))[0] == pytest.approx(share, abs=1e-12)
    grid = (np.arange(4000) + 0.5) / 4000
    area = float(np.mean(np.abs(coverage(error, std, grid) - grid)))
    assert area == pytest.approx(float(scores.miscalibration_area(*args)), abs=3e-4)


def test_equal_error_bars_do_not_depend_on_the_order():
    rng = np.random.default_rng(1)
    error, std = rng.normal(size=300), rng.integers(1, 4, 300).astype(float)
    order = rng.permutation(300)
    for curve in (reliability, sparsification):
        for one, other in zip(curve(error, std), curve(error[order], std[order]), strict=True):
            np.testing.assert_allclose(one, other)
    predicted, _ = reliability(error, std)
    np.testing.assert_allclose(predicted, [1, 2, 3])
    mean, variance, target = (torch.from_numpy(v) for v in (error, std**2, np.zeros(300)))
    np.testing.assert_allclose(
        sparsification(error, std)[1],
        scores.sparsification_curve(mean, variance, target).by_uncertainty,
    )


def test_sparsification_by_hand():
    error, score = np.array([3.0, -1.0, 2.0, np.nan]), np.array([0.3, 0.2, 0.1, 9.0])
    removed, left = sparsification(error, score)
    np.testing.assert_allclose(removed, [0, 1 / 3, 2 / 3])
    whole = math.sqrt(14 / 3)
    np.testing.assert_allclose(left, [1, math.sqrt(5 / 2) / whole, 2 / whole])
    assert left_after(1 / 3, (removed, left)) == pytest.approx(math.sqrt(5 / 2) / whole)
    flat = sparsification(error, np.ones(4))[1]
    np.testing.assert_allclose(flat, 1)


def test_no_curve_below_the_oracle():
    error, std = drawn(1.0, 500)
    oracle = sparsification(error, np.abs(error))[1]
    for score in (std, -std, np.abs(error) + std, np.arange(500.0)):
        assert (sparsification(error, score)[1] >= oracle - 1e-12).all()


def test_nothing_to_draw():
    empty = np.empty(0)
    assert sparsification(np.zeros(4), np.ones(4))[0].size == 0
    assert math.isnan(left_after(0.2, (empty, empty)))
    assert np.isnan(coverage(np.ones(3), np.zeros(3))).all()
    assert math.isnan(overconfidence(np.ones(2), np.array([0.0, np.nan])))
