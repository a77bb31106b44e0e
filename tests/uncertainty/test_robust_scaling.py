"""One factor that outliers cannot move far."""

from __future__ import annotations

import pytest
import torch

from egnn_prune.errors import InputError
from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty.calibration import RobustScaling, VarianceScaling, build_calibration
from egnn_prune.uncertainty.metrics import crps


def errors(n: int, dtype: torch.dtype, factor: float = 1.0) -> tuple[Prediction, torch.Tensor]:
    """Gaussian errors whose variance is stated ``factor`` times too small."""
    variance = 0.1 + torch.rand(n, dtype=torch.float64)
    y = variance.sqrt() * torch.randn(n, dtype=torch.float64)
    stated = (variance / factor)[None].to(dtype)
    return Prediction.from_members(torch.zeros_like(stated), stated), y.to(dtype)


@pytest.mark.parametrize("factor", [1e-3, 0.25, 1.0, 9.0, 1e4])
def test_a_known_factor_is_found(dtype, factor):
    prediction, y = errors(20_000, dtype, factor)
    found = float(RobustScaling().fit(prediction, y).factor)
    assert found == pytest.approx(factor, rel=0.04)


def test_it_is_the_minimum_of_the_score(dtype):
    prediction, y = errors(300, dtype, 3.0)
    calibration = RobustScaling().fit(prediction, y)

    def score(factor: float) -> float:
        return float(crps(prediction.mean, prediction.variance * factor, y))

    factor = float(calibration.factor)
    best = score(factor)
    assert all(score(factor * other) > best for other in (0.5, 0.9, 1.1, 2.0))
    assert float(crps(prediction.mean, calibration(prediction).variance, y)) == pytest.approx(best)


def test_one_outlier_moves_it_far_less_than_the_likelihood(dtype):
    prediction, y = errors(500, dtype)
    spoiled = y.clone()
    spoiled[0] = 11 * prediction.variance[0].sqrt()
    moved = {
        kind: float(kind().fit(prediction, spoiled).factor / kind().fit(prediction, y).factor)
        for kind in (VarianceScaling, RobustScaling)
    }
    assert moved[VarianceScaling] > 1.2
    assert moved[RobustScaling] < 1.05


@pytest.mark.parametrize("std", [1e-15, 1e-8, 1e-6, 1.0, 1e6, 1e15])
@pytest.mark.parametrize(
    "method", ["robust", "variance", "power", "monotone", "isotonic", "conformal"]
)
def test_deviations_of_any_size_are_brought_to_that_of_the_errors(dtype, method, std):
    """Stated a quadrillion times too small or too large, intervals hold what they promise."""
    y = torch.randn(400, dtype=torch.float64)
    mean = (y + 0.1 * torch.randn(400, dtype=torch.float64)).to(dtype)
    prediction = Prediction.from_members(mean[None], torch.full_like(mean, std**2)[None])
    low, high = build_calibration(method).fit(prediction, y.to(dtype)).interval(prediction, 0.9)
    coverage = float(((y > low) & (y < high)).double().mean())
    assert coverage == pytest.approx(0.9, abs=0.05)


def test_the_unit_of_the_target_does_not_matter(dtype):
    prediction, y = errors(300, dtype, 3.0)
    for unit in (1e-9, 1e9):
        scaled = Prediction.from_members(prediction.members, prediction.member_variance * unit**2)
        found = RobustScaling().fit(scaled, y * unit).factor
        torch.testing.assert_close(found, RobustScaling().fit(prediction, y).factor)


def test_one_point_beyond_all_bounds_does_not_move_the_grid_away(dtype):
    """The grid covers the ratios of all errors, so it may be long; the minimum stays."""
    prediction, y = errors(500, dtype)
    before = float(RobustScaling().fit(prediction, y).factor)
    y[0] = 1e-30
    assert float(RobustScaling().fit(prediction, y).factor) == pytest.approx(before, rel=0.02)


@pytest.mark.parametrize(
    "method", ["robust", "variance", "power", "monotone", "isotonic", "conformal"]
)
def test_a_factor_that_the_precision_cannot_hold_is_refused(method):
    y = 1e5 * torch.randn(400)
    prediction = Prediction.from_members(torch.zeros(1, 400), torch.full((1, 400), 1e-36))
    with pytest.raises(InputError, match="float32 cannot hold a factor between them") as caught:
        build_calibration(method).fit(prediction, y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zeros", [1, 25, 30])
def test_errors_of_exactly_zero(dtype, zeros):
    """Against the score itself on a grid: the minimum lies below what any other error asks for."""
    y = torch.ones(50, dtype=dtype)
    y[:zeros] = 0
    prediction = Prediction.from_members(
        torch.zeros(1, 50, dtype=dtype), torch.ones(1, 50).to(dtype)
    )
    grid = torch.linspace(0.01, 2, 2000, dtype=torch.float64).square().tolist()
    score = {f: float(crps(torch.zeros(50), torch.full((50,), f), y.double())) for f in grid}
    found = float(RobustScaling().fit(prediction, y).factor)
    assert found == pytest.approx(min(score, key=score.__getitem__), abs=0.004)


def test_too_many_errors_of_exactly_zero_are_refused(dtype):
    y = torch.zeros(50, dtype=dtype)
    y[0] = 1
    prediction = Prediction.from_members(
        torch.zeros(1, 50, dtype=dtype), torch.ones(1, 50).to(dtype)
    )
    with pytest.raises(InputError, match="49 of 50 validation errors are exactly zero") as caught:
        RobustScaling().fit(prediction, y)
    assert "\n" not in str(caught.value)
