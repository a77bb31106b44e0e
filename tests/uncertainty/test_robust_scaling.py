"""One factor that outliers cannot move far."""

from __future__ import annotations

import pytest
import torch

from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty.calibration import RobustScaling, VarianceScaling
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
