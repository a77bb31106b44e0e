"""Likelihood and rank correlation against scipy."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from egnn_prune.errors import InputError
from egnn_prune.uncertainty import error_uncertainty_spearman, gaussian_nll


@pytest.fixture
def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    y, mean, raw = torch.randn(3, 200, dtype=torch.float64)
    return y, mean, raw.exp()


def test_likelihood_equals_scipy(drawn):
    y, mean, variance = drawn
    expected = -stats.norm.logpdf(y.numpy(), mean.numpy(), variance.sqrt().numpy()).mean()
    assert gaussian_nll(y, mean, variance) == pytest.approx(expected, rel=1e-12)


def test_likelihood_closed_form():
    y = torch.zeros(1, dtype=torch.float64)
    assert gaussian_nll(y, y, y + 1) == pytest.approx(0.5 * math.log(2 * math.pi))
    assert gaussian_nll(y, y + 2, y + 4) == pytest.approx(0.5 * math.log(8 * math.pi) + 0.5)


def test_the_true_variance_is_the_likeliest(drawn):
    _, mean, variance = drawn
    y = mean + variance.sqrt() * torch.randn(200, dtype=torch.float64)
    best = gaussian_nll(y, mean, variance)
    assert best < gaussian_nll(y, mean, 2 * variance)
    assert best < gaussian_nll(y, mean, variance / 2)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_variance_must_be_positive(drawn, bad):
    y, mean, variance = drawn
    variance[7] = bad
    with pytest.raises(InputError, match="not positive"):
        gaussian_nll(y, mean, variance)


def test_shapes_must_agree(drawn):
    y, mean, variance = drawn
    with pytest.raises(InputError, match="same shape"):
        gaussian_nll(y, mean[:, None], variance)


def test_rank_correlation_equals_scipy(drawn):
    y, mean, variance = drawn
    variance = variance + (y - mean).abs()
    expected = stats.spearmanr((y - mean).abs().numpy(), variance.numpy()).statistic
    assert expected > 0.2
    assert error_uncertainty_spearman(y, mean, variance) == pytest.approx(expected, abs=1e-6)


def test_rank_correlation_with_ties_equals_scipy(drawn):
    y, mean, variance = drawn
    y, mean, variance = y.round(), mean.round(), variance.round(decimals=1)
    expected = stats.spearmanr((y - mean).abs().numpy(), variance.numpy()).statistic
    assert error_uncertainty_spearman(y, mean, variance) == pytest.approx(expected, abs=1e-6)


def test_rank_correlation_of_a_perfect_ranking():
    y, mean = torch.arange(9.0), torch.zeros(9)
    assert error_uncertainty_spearman(y, mean, y + 1) == pytest.approx(1, abs=1e-6)
    assert error_uncertainty_spearman(y, mean, 10 - y) == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize("n", [1, 5])
def test_rank_correlation_is_zero_where_it_is_undefined(n):
    y = torch.arange(float(n))
    assert error_uncertainty_spearman(y, torch.zeros(n), torch.ones(n)) == 0.0
