"""Last-layer Laplace: exact Bayesian linear regression on a network's features."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.loader import DataLoader

from egnn_prune import compact
from egnn_prune.errors import ConfigError
from egnn_prune.models import PropertyModel, TargetScale
from egnn_prune.prediction import Prediction
from egnn_prune.pruning import apply_masks
from egnn_prune.testing import assert_equivariant
from egnn_prune.uncertainty import LastLayer, PredictionRigidity
from egnn_prune.uncertainty.last_layer import evidence_precision


class LinearModel(nn.Module):
    """A network that is nothing but its last layer; a batch is ``(features, noise variances)``."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def last_layer(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Prediction]:
        features, noise = batch
        return features, Prediction.from_members((features @ self.weights)[None], noise[None])

    def last_layer_weights(self) -> Tensor:
        return self.weights


def regression(n: int = 40, d: int = 6, equal_noise: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    features = torch.randn(n, d, dtype=torch.float64)
    noise = torch.full((n,), 0.3, dtype=torch.float64)
    if not equal_noise:
        noise = noise * (0.2 + torch.rand(n, dtype=torch.float64))
    y = features @ torch.randn(d, dtype=torch.float64) + noise.sqrt() * torch.randn(n).double()
    return features, noise, y


def map_weights(features: Tensor, noise: Tensor, y: Tensor, precision: float) -> Tensor:
    information = features.T @ (features / noise[:, None])
    information += precision * torch.eye(len(information), dtype=torch.float64)
    return torch.linalg.solve(information, features.T @ (y / noise))


@pytest.mark.parametrize("equal_noise", [True, False])
def test_matches_exact_bayesian_regression(equal_noise):
    """Against the same posterior by another road: a Gaussian process with a linear kernel."""
    features, noise, y = regression(equal_noise=equal_noise)
    precision, new = 0.7, torch.randn(25, 6, dtype=torch.float64)
    model = LinearModel(map_weights(features, noise, y, precision))
    batches = [(features[:15], noise[:15]), (features[15:], noise[15:])]
    laplace = LastLayer(model, prior_precision=precision).fit(batches)
    found = laplace.predict((new, torch.ones(25, dtype=torch.float64)))

    kernel = features @ features.T / precision + noise.diag()
    cross = new @ features.T / precision
    mean = cross @ torch.linalg.solve(kernel, y)
    variance = (new.square().sum(1) / precision) - (
        cross * torch.linalg.solve(kernel, cross.T).T
    ).sum(1)
    torch.testing.assert_close(found.mean, mean, rtol=0, atol=1e-6 * float(mean.abs().max()))
    torch.testing.assert_close(found.epistemic, variance, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.variance, variance + 1, rtol=1e-6, atol=0)


def log_evidence(features: Tensor, noise: Tensor, y: Tensor, precision: float) -> float:
    covariance = features @ features.T / precision + noise.diag()
    normal = torch.distributions.MultivariateNormal(torch.zeros_like(y), covariance)
    return float(normal.log_prob(y))


def test_the_prior_precision_maximises_the_evidence():
    features, noise, y = regression(n=60)
    values = torch.linalg.eigvalsh(features.T @ (features / noise[:, None]))
    precision = 1.0
    for _ in range(100):  # the formula is for trained weights, which the precision changes
        precision = evidence_precision(values, map_weights(features, noise, y, precision))
    best = log_evidence(features, noise, y, precision)
    assert best > log_evidence(features, noise, y, 1.05 * precision)
    assert best > log_evidence(features, noise, y, precision / 1.05)


def fitted(model: PropertyModel, graphs, kind=LastLayer) -> LastLayer:
    return kind(model).fit(DataLoader(graphs, 4))


@pytest.mark.parametrize("pool", ["sum", "mean", "node"])
@pytest.mark.parametrize("members", [1, 3])
def test_the_mean_is_linear_in_the_features(make_batch, dtype, assert_close, pool, members):
    scale = TargetScale(shift=-3.0, scale=2.5)
    model = PropertyModel.build((1, 6, 8), hidden=8, layers=2, members=members, pool=pool)
    model.scale = scale
    batch = make_batch(3, 5, 2)
    model = model.to(dtype).eval()
    features, prediction = model.last_layer(batch)
    direct = model(batch)
    assert_close(features @ model.last_layer_weights() - 3.0, direct.mean)
    assert torch.equal(prediction.members, direct.members)
    assert torch.equal(prediction.member_variance, direct.member_variance)


def rigidity(model: PropertyModel) -> PredictionRigidity:
    """Three graphs leave most features unseen: without a prior, rounding would be inverted."""
    return PredictionRigidity(model, prior_precision=1.0)


@pytest.mark.parametrize("kind", [LastLayer, rigidity])
def test_the_error_bar_is_invariant(make_property_model, make_batch, kind):
    model = make_property_model(attention=True)
    batch = make_batch(4, 6, 3)
    estimator = fitted(model, batch.to_data_list(), kind)
    assert_equivariant(lambda b: estimator.predict(b).variance, batch)


def test_masked_and_compact_networks_have_the_same_error_bars(
    make_property_model, make_batch, assert_close
):
    model, batch = make_property_model(), make_batch(4, 6, 3)
    apply_masks(model, {g.name: torch.arange(g.n) % 2 == 0 for g in model.channel_groups()})
    masked, small = (fitted(m, batch.to_data_list()) for m in (model, compact(model)))
    assert_close(masked.predict(batch).epistemic, small.predict(batch).epistemic)


def test_more_data_leaves_less_doubt(make_property_model, make_batch):
    model, graphs = make_property_model(), make_batch(*[5] * 12).to_data_list()
    few, many = (LastLayer(model, 1.0).fit(DataLoader(g, 4)) for g in (graphs[:4], graphs))
    batch = make_batch(4, 6, seed=3)
    assert bool((many.predict(batch).epistemic < few.predict(batch).epistemic).all())


def test_what_training_never_saw_is_doubted_more(make_batch):
    features, noise, y = regression(n=200)
    laplace = LastLayer(LinearModel(map_weights(features, noise, y, 1.0)), 1.0)
    laplace.fit([(features, noise)])
    near = laplace.predict((features, noise)).epistemic
    far = laplace.predict((5 * features, noise)).epistemic
    torch.testing.assert_close(far, 25 * near)


def test_rigidity_is_the_geometry_alone():
    features, noise, y = regression(equal_noise=False)
    model = LinearModel(map_weights(features, noise, y, 1.0))
    found = PredictionRigidity(model, 0.5).fit([(features, noise)]).predict((features, noise))
    again = PredictionRigidity(model, 0.5).fit([(features, 9 * noise)])
    assert torch.equal(found.variance, again.predict((features, noise)).variance)
    assert float(found.aleatoric.abs().max()) == 0
    information = features.T @ features + 0.5 * torch.eye(6, dtype=torch.float64)
    expected = (features * torch.linalg.solve(information, features.T).T).sum(1)
    torch.testing.assert_close(found.epistemic, expected)


@pytest.mark.parametrize("unit", [1e-3, 1e3])
@pytest.mark.parametrize("kind", [LastLayer, PredictionRigidity])
def test_the_unit_of_the_target_changes_nothing_but_the_unit(kind, unit):
    features, noise, y = regression(n=80)
    weights = map_weights(features, noise, y, 1.0)

    def spread(factor: float) -> Tensor:
        estimator = kind(LinearModel(weights))
        estimator.fit([(factor * features, factor**2 * noise)])
        return estimator.predict((factor * features, noise)).epistemic

    one, other = spread(1.0), spread(unit)
    torch.testing.assert_close(other / other.mean(), one / one.mean())


def test_fitting_does_not_depend_on_the_mode(make_property_model, make_batch):
    model, batch = make_property_model(dropout=0.5), make_batch(4, 6, 3)
    model.train()
    first = fitted(model, batch.to_data_list()).covariance
    assert model.training
    assert torch.equal(first, fitted(model.eval(), batch.to_data_list()).covariance)


def test_a_fitted_estimator_can_change_its_precision(make_property_model, make_batch):
    model, batch = make_property_model(), make_batch(4, 3)
    estimator = fitted(model, batch.to_data_list())
    before = estimator.predict(batch).epistemic
    after = estimator.float().predict(batch).epistemic
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-6)


def test_gradients_reach_the_positions(make_property_model, make_batch):
    model, batch = make_property_model(), make_batch(4, 3)
    estimator = fitted(model, batch.to_data_list())
    batch.pos.requires_grad_(True)
    estimator(batch).epistemic.sum().backward()
    assert float(batch.pos.grad.abs().max()) > 0


def test_bad_input_is_one_sentence(make_property_model, make_batch):
    model = make_property_model()
    with pytest.raises(ConfigError, match="fit last-layer uncertainty on training batches before"):
        LastLayer(model).predict(make_batch(3))
    with pytest.raises(ConfigError, match="there are none"):
        LastLayer(model).fit([])
    with pytest.raises(ConfigError, match="does not say what its last layer reads"):
        LastLayer(nn.Linear(3, 2))
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(ConfigError, match="prior_precision must be positive"):
            LastLayer(model, prior_precision=wrong)
    with torch.no_grad():
        model.head.mean_out.weight.zero_()
        model.head.mean_out.bias.zero_()
    with pytest.raises(ConfigError, match="all zero"):
        fitted(model, make_batch(3, 4).to_data_list())
    with torch.no_grad():
        model.head.lin_in.weight[0, 0] = math.nan
    with pytest.raises(ConfigError, match="NaN"):
        fitted(model, make_batch(3, 4).to_data_list())
