"""Estimators over classifiers of images: logits in, class probabilities and their doubt out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from egnn_prune.errors import ConfigError, InputError
from egnn_prune.models import PropertyModel
from egnn_prune.prediction import ClassPrediction, Prediction
from egnn_prune.uncertainty import DeepEnsemble, ModuleDropout, SinglePass

CLASSES = 3


def classifier(classes: int = CLASSES, p: float = 0.4) -> nn.Module:
    """A small convolutional network with batch norm and two kinds of dropout."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout2d(p),
        nn.Flatten(),
        nn.Dropout(p),
        nn.Linear(6 * 16, classes),
    )


class Regressor(nn.Module):
    """A network of images that returns a Prediction."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Dropout1d(0.0), nn.Dropout(0.3))
        self.out = nn.Linear(36, 1)

    def forward(self, x: Tensor) -> Prediction:
        mean = self.out(self.body(x)).T
        return Prediction.from_members(mean, torch.full_like(mean, 0.5))


@pytest.fixture
def images(dtype) -> Tensor:
    return torch.randn(5, 1, 6, 6, dtype=dtype)


@pytest.fixture
def network(dtype) -> nn.Module:
    return classifier().to(dtype)


def test_a_single_pass_is_softmax(network, images):
    network.train()
    prediction = SinglePass(network).predict(images)
    assert isinstance(prediction, ClassPrediction)
    network.eval()
    torch.testing.assert_close(prediction.probabilities, network(images).softmax(-1))
    assert (prediction.mutual_information == 0).all()


def test_a_deep_ensemble_averages_probabilities(images, dtype):
    members = [classifier().to(dtype).eval() for _ in range(4)]
    prediction = SinglePass(DeepEnsemble(members)).predict(images)
    assert prediction.logits.shape == (4, 5, CLASSES)
    expected = torch.stack([m(images).softmax(-1) for m in members])
    torch.testing.assert_close(prediction.probabilities, expected.mean(0))
    torch.testing.assert_close(prediction.members, expected)
    entropy = -(expected * expected.log()).sum(-1).mean(0)
    torch.testing.assert_close(prediction.mutual_information, prediction.entropy - entropy)
    assert prediction.mutual_information.min() > 0
    # pooled before the softmax, the ensemble would say something else
    pooled = torch.stack([m(images) for m in members]).mean(0).softmax(-1)
    assert (pooled - prediction.probabilities).abs().max() > 1e-4


def test_an_ensemble_of_ensembles_is_flat(images, dtype):
    pairs = [DeepEnsemble([classifier().to(dtype) for _ in range(2)]) for _ in range(2)]
    assert DeepEnsemble(pairs).eval()(images).logits.shape == (4, 5, CLASSES)


def test_gradients_reach_every_member(images, dtype):
    ensemble = DeepEnsemble([classifier().to(dtype) for _ in range(2)]).eval()
    ensemble(images).probabilities[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in ensemble.members.parameters())


# dropout modules --------------------------------------------------------------------------------


def test_only_dropout_acts_and_modes_come_back(network, images):
    network.train()
    network[5].eval()
    before = [m.training for m in network.modules()]
    seen: list[tuple[bool, ...]] = []
    network[6].register_forward_pre_hook(lambda *_: seen.append(tuple(m.training for m in network)))
    statistics = network[1].running_mean.clone()
    prediction = ModuleDropout(network, samples=3).predict(images)
    assert prediction.logits.shape == (3, 5, CLASSES)
    assert seen == [(False,) * 7] * 3  # not even dropout is switched: other threads see no mode
    assert (prediction.logits.std(0) > 0).all()
    assert [m.training for m in network.modules()] == before
    assert torch.equal(network[1].running_mean, statistics)


def test_modes_come_back_after_an_error(network):
    network.train()
    with pytest.raises(RuntimeError):
        ModuleDropout(network).predict(torch.zeros(2, 9, 6, 6))
    assert all(m.training for m in network.modules())


def test_the_seed_decides_and_the_global_state_stays(network, images):
    first = ModuleDropout(network, 4, seed=1)
    before = torch.get_rng_state()
    logits = first.predict(images).logits
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert torch.equal(first.predict(images).logits, logits)
    assert torch.equal(ModuleDropout(network, 4, seed=1).predict(images).logits, logits)
    assert (ModuleDropout(network, 4, seed=2).predict(images).logits - logits).abs().max() > 1e-3
    assert (logits.std(0) > 0).all()  # the passes differ from each other
    assert ModuleDropout(network, 4, seed=1).settings() == {"samples": 4, "seed": 1}


def test_the_global_state_stays_after_an_error(network):
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError):
        ModuleDropout(network).predict(torch.zeros(2, 9, 6, 6))
    assert torch.equal(torch.get_rng_state(), before)


def test_regressors_too(images, dtype):
    network = Regressor().to(dtype)
    prediction = ModuleDropout(network, samples=50).predict(images)
    assert isinstance(prediction, Prediction) and prediction.members.shape == (50, 5)
    assert prediction.epistemic.min() > 0
    assert torch.equal(prediction.aleatoric, torch.full((5,), 0.5, dtype=dtype))


def enumerated(network: nn.Sequential, x: Tensor) -> Tensor:
    """Probabilities ``[2^width, C]`` of ``Dropout(0.5), Linear`` under every possible mask."""
    masks = torch.tensor(list(itertools.product([0.0, 2.0], repeat=x.shape[1])), dtype=x.dtype)
    return network[1](masks * x).softmax(-1)


def test_mean_and_variance_converge_as_one_over_the_root_of_samples(dtype):
    """Slope of the error against the samples on log axes: -1/2, from all 2^6 masks as the truth."""
    network = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, CLASSES)).to(dtype)
    with torch.no_grad():
        network[1].weight.mul_(2.0)
    x = torch.randn(1, 6, dtype=dtype)
    with torch.no_grad():
        exact = enumerated(network, x)
    samples = [16, 64, 256, 1024]
    errors: dict[str, list[float]] = {"mean": [], "variance": []}
    for n in samples:
        # every row of the batch has masks of its own: 400 independent estimates
        members = ModuleDropout(network, n).predict(x.expand(400, 6)).members
        mean = members.mean(0) - exact.mean(0)
        variance = members.var(0) - exact.var(0, unbiased=False)
        errors["mean"].append(float(mean.square().mean().sqrt()))
        errors["variance"].append(float(variance.square().mean().sqrt()))
    for name, error in errors.items():
        slope = np.polyfit(np.log(samples), np.log(error), 1)[0]
        assert -0.56 < slope < -0.44, (name, slope)
    predicted = float(exact.var(0, unbiased=False).mean() / samples[-1]) ** 0.5
    assert errors["mean"][-1] == pytest.approx(predicted, rel=0.15)


# mistakes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "network",
    [nn.Linear(4, 2), nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.0))],
    ids=["none", "p = 0"],
)
def test_a_network_without_dropout(network):
    with pytest.raises(ConfigError, match="has no dropout to sample from") as caught:
        ModuleDropout(network)
    assert "\n" not in str(caught.value)


def test_too_few_samples(network):
    with pytest.raises(ConfigError, match="at least 2 samples, not 1"):
        ModuleDropout(network, samples=1)


def test_a_nan_member_is_named(images, dtype):
    members = [classifier().to(dtype) for _ in range(3)]
    with torch.no_grad():
        members[2][6].weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="member 2 of 3 predicts NaN"):
        SinglePass(DeepEnsemble(members)).predict(images)


def test_members_with_different_classes(images, dtype):
    members = [classifier(n).to(dtype) for n in (3, 4)]
    with pytest.raises(ConfigError, match=r"same thing, not \(5, 3\) and \(5, 4\)"):
        DeepEnsemble(members)(images)


def test_a_classifier_beside_a_regressor(images, dtype):
    with pytest.raises(ConfigError, match="must predict the same thing"):
        DeepEnsemble([classifier().to(dtype), Regressor().to(dtype)]).eval()(images)


def test_neither_logits_nor_a_prediction(images):
    with pytest.raises(ConfigError, match=r"Prediction or logits .*not \(5, 36\)|not \(5, 1\)"):
        network = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(36, 1))
        ModuleDropout(network.to(images.dtype)).predict(images)


def test_one_classifier_is_no_ensemble(network):
    with pytest.raises(ConfigError, match="at least 2 members, not 1"):
        DeepEnsemble([network])


def test_thinned_graph_networks_have_gates_not_modules():
    model = PropertyModel.build((1,), hidden=4, layers=1, readout_dropout=0.2)
    with pytest.raises(ConfigError, match="no dropout to sample from"):
        ModuleDropout(model)
