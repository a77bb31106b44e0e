"""Error bars of networks that are not ours: features by derivatives, and what is refused."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from egnn_prune import compact, prune
from egnn_prune.adapters import OwnRegressor
from egnn_prune.errors import ConfigError
from egnn_prune.uncertainty import (
    DeepEnsemble,
    LastLayer,
    ModuleDropout,
    PredictionRigidity,
    SinglePass,
    calibrate,
)


def graphs(count: int = 40) -> list[Data]:
    generator = torch.Generator().manual_seed(1)
    found = []
    for k in range(count):
        n = 3 + k % 4
        ring = torch.arange(n)
        edges = torch.stack([ring, (ring + 1) % n])
        x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
        found.append(Data(x=x, edge_index=torch.cat([edges, edges.flip(0)], 1), y=x.sum()[None]))
    return found


class Own(nn.Module):
    """A read-out of nodes or of graphs, and an affine map of the result."""

    def __init__(self, pool=pyg.global_add_pool, after=lambda y: 0.1 * y - 3.0, late=False):
        super().__init__()
        self.first, self.drop, self.out = pyg.GCNConv(5, 8), nn.Dropout(0.2), nn.Linear(8, 1)
        self.pool, self.after, self.late = pool, after, late

    def forward(self, x, edge_index, batch):
        h = self.drop(torch.tanh(self.first(x, edge_index)))
        y = self.out(self.pool(h, batch)) if self.late else self.pool(self.out(h), batch)
        return self.after(y)[:, 0]


MANY = {
    "sum of nodes": Own,
    "mean of nodes": lambda: Own(pyg.global_mean_pool),
    "graphs": lambda: Own(late=True),
}


@pytest.mark.parametrize("make", MANY.values(), ids=MANY)
def test_features_are_the_derivatives_by_the_last_weights(make):
    """Against autograd's Jacobian, one graph at a time."""
    torch.manual_seed(0)
    network = make().double().eval()
    batch = Batch.from_data_list(graphs(6))
    with torch.no_grad():
        features, prediction = OwnRegressor(network).last_layer(batch)
    assert not features.requires_grad and not prediction.mean.requires_grad
    output = network(batch.x, batch.edge_index, batch.batch)
    for b, one in enumerate(output):
        (gradient,) = torch.autograd.grad(one, network.out.weight, retain_graph=True)
        torch.testing.assert_close(features[b], gradient[0])
    torch.testing.assert_close(prediction.mean, output.detach())


def test_calibrated_error_bars_of_masked_and_compact_networks_agree():
    torch.manual_seed(0)
    loader, batch = DataLoader(graphs(), 10), Batch.from_data_list(graphs(6))
    masked = prune(Own().double(), "magnitude", 0.5, data=loader).eval()
    found = []
    for network in (masked, compact(masked)):
        estimator = PredictionRigidity(OwnRegressor(network)).fit(loader)
        estimator = calibrate(estimator, loader, "robust")
        low, high = estimator.interval(batch, coverage=0.9)
        assert bool((high > low).all())
        found.append(estimator.predict(batch))
    torch.testing.assert_close(found[0].mean, found[1].mean)
    # the masked network's removed features are zeros, the ridge is a mean over all of them
    torch.testing.assert_close(found[0].variance, found[1].variance, rtol=1e-3, atol=0.0)


def test_the_gradient_by_the_input_passes():
    """As for forces."""
    torch.manual_seed(0)
    batch = Batch.from_data_list(graphs(4))
    batch.x.requires_grad_()
    estimator = PredictionRigidity(OwnRegressor(Own().double())).fit([batch])
    prediction = estimator(batch)
    (slope,) = torch.autograd.grad(prediction.mean.sum(), batch.x, retain_graph=True)
    assert bool(slope.any())
    (slope,) = torch.autograd.grad(prediction.variance.sum(), batch.x)
    assert bool(slope.any())


def test_a_last_layer_of_e3nn():
    o3 = pytest.importorskip("e3nn.o3", reason="needs the package e3nn")
    torch.manual_seed(0)
    network = Own().double()
    network.out = o3.Linear("6x0e+2x0e", "0e").double()
    network.after = lambda y: y
    batch = Batch.from_data_list(graphs(6))
    wrapped = OwnRegressor(network)
    features, prediction = wrapped.last_layer(batch)
    torch.testing.assert_close(features @ wrapped.last_layer_weights(), prediction.mean)
    estimator = calibrate(PredictionRigidity(wrapped).fit([batch]), DataLoader(graphs(), 10))
    assert bool((estimator.predict(batch).variance > 0).all())


class Idle(Own):
    """A second linear layer of one output, deep inside, that nobody hears of."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(5, 1))

    def forward(self, x, edge_index, batch):
        self.inner(x)
        return super().forward(x, edge_index, batch)


def test_which_layer_is_the_last():
    network, batch = Idle().double(), Batch.from_data_list(graphs(4))
    assert OwnRegressor(network).last == "out"
    with pytest.raises(ConfigError, match=r"inner\.0 of Idle makes does not reach the output"):
        OwnRegressor(network, last="inner.0").last_layer(batch)


def test_dropout_and_ensembles():
    torch.manual_seed(0)
    batch = Batch.from_data_list(graphs(6))
    members = [OwnRegressor(Own().double().eval()) for _ in range(2)]
    pooled = SinglePass(DeepEnsemble(members)).predict(batch)
    spread = torch.stack([m(batch).mean for m in members]).var(0)
    torch.testing.assert_close(pooled.variance, spread.detach())
    sampled = ModuleDropout(members[0], samples=4).predict(batch)
    assert bool((sampled.epistemic > 0).all())


def squared(y):
    return y.square()


def normalised(y):
    return y / y.norm()


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Own(after=squared), "is not linear, or mixes graphs"),
        (Own(after=normalised), "is not linear, or mixes graphs"),
        (Own(after=lambda y: y.repeat(1, 2)[None, :]), "one number a graph"),
    ],
)
def test_what_follows_the_last_layer_is_tried(network, words):
    with pytest.raises(ConfigError, match=words):
        PredictionRigidity(OwnRegressor(network.double())).fit(DataLoader(graphs(), 10))


def test_what_is_refused():
    with pytest.raises(ConfigError, match=r"no noise of its own \(Prediction"):
        LastLayer(OwnRegressor(Own().double())).fit(DataLoader(graphs(), 10))
    with pytest.raises(ConfigError, match="no linear layer with one output"):
        OwnRegressor(nn.Sequential(nn.Linear(3, 2)))
    with pytest.raises(ConfigError, match="no linear layer 'frist' with one output; it has out"):
        OwnRegressor(Own(), last="frist")
    inputs = Batch.from_data_list(graphs(6))
    with pytest.raises(ConfigError, match="hand over PyG batches"):
        OwnRegressor(Own().double()).last_layer((inputs.x, inputs.edge_index, inputs.batch))
    for kind in (SinglePass, LastLayer):
        with pytest.raises(ConfigError, match="OwnRegressor"):
            kind(nn.Linear(3, 1)).predict(torch.ones(4, 3))
