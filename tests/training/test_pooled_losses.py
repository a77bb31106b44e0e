"""Likelihood and CRPS of a shallow ensemble's pooled members."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal

from egnn_prune.errors import ConfigError
from egnn_prune.training import LOSSES, crps_losses, nll_losses


@pytest.fixture
def model(make_property_model):
    return make_property_model(members=4)


def pooled(model, batch):
    means, variances = model.normalised(batch)
    return means.mean(0), (variances.mean(0) + means.var(0)).sqrt()


def test_nll_is_that_of_the_pooled_gaussian(model, make_batch, assert_close):
    batch = make_batch(3, 6, 4)
    mean, std = pooled(model, batch)
    expected = -Normal(mean, std).log_prob(model.normalise(batch, batch.y))
    assert_close(nll_losses(model, batch), expected)


def test_crps_is_the_integral_that_defines_it(model, make_batch):
    batch = make_batch(3, 6, 4)
    mean, std = (x.detach().double() for x in pooled(model, batch))
    y = model.normalise(batch, batch.y).double()
    x = torch.linspace(-40, 40, 400_001, dtype=torch.float64)[:, None]
    squares = (Normal(mean, std).cdf(x) - (x >= y).double()).square()
    expected = torch.trapezoid(squares, x, dim=0)
    torch.testing.assert_close(
        crps_losses(model, batch).detach().double(), expected, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("name", ["nll", "crps"])
def test_members_learn_to_disagree_where_errors_are_large(model, make_batch, name):
    """The gradient of the pooled loss widens the spread of a prediction that is far off."""
    batch = make_batch(4)
    batch.y = batch.y + 100
    spread = pooled(model, batch)[1].sum()
    parameters = [model.head.mean_out.weight]
    (up,) = torch.autograd.grad(spread, parameters)
    (down,) = torch.autograd.grad(LOSSES[name](model, batch).sum(), parameters)
    mean_only = torch.autograd.grad(pooled(model, batch)[0].sum(), parameters)[0]
    # across the members, apart from what moves all of them alike
    up, down = (g - g.mean(0) for g in (up, down))
    assert float(mean_only.std(0).max()) < 1e-6
    assert float((up * down).sum()) < 0


@pytest.mark.parametrize("loss", LOSSES.values())
def test_other_models_are_refused(loss):
    with pytest.raises(ConfigError, match="no training loss of its own"):
        loss(torch.nn.Linear(3, 1), None)
