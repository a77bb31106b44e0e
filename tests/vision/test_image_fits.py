"""A fit of a classifier: it stops early, keeps the best, goes on, and respects masks."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from egnn_prune.errors import ConfigError
from egnn_prune.pruning import TracedNetwork, apply_weight_masks, choose_weights, score_weights
from egnn_prune.pruning.criteria import Context
from egnn_prune.pruning.tensors import get_tensor
from egnn_prune.vision.data import Batches, load_images
from egnn_prune.vision.networks import build_network
from egnn_prune.vision.settings import ImageFitSettings
from egnn_prune.vision.training import build_optimizer, fit_classifier, image_losses

CPU = torch.device("cpu")
SHORT = ImageFitSettings(lr=5e-3, batch_size=64, epochs=4)


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", seed=0, limit=256)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_network("mlp", (1, 8, 8), 10, widths=[24, 16])


def batches(digits, part="train", size=64, **options):
    return Batches(getattr(digits, part), digits.mean, digits.std, size, **options)


def train_on(network, digits, fit=SHORT, optimizer=None, train=None):
    train = train or batches(digits, size=fit.batch_size, shuffle=True, drop_last=True, seed=1)
    return fit_classifier(
        network, train, batches(digits, "val"), fit, device=CPU, optimizer=optimizer
    )


def mean_loss(network, digits):
    with torch.no_grad():
        losses = [image_losses(network, batch) for batch in batches(digits, "val")]
    return float(torch.cat(losses).mean())


def test_a_fit_learns(network, digits):
    fitted = train_on(network, digits, replace(SHORT, epochs=8))
    assert fitted.epochs == len(fitted.history) == 8
    assert [row["epoch"] for row in fitted.history] == list(range(1, 9))
    assert fitted.history[-1]["val_accuracy"] > 0.75 > fitted.history[0]["val_accuracy"]
    assert not network.training


@pytest.mark.parametrize("patience", [1, 3])
def test_a_fit_that_does_not_improve_stops_early_and_keeps_the_best(network, digits, patience):
    # trained to overfit: the validation loss has risen before the end
    fit = replace(SHORT, lr=0.03, epochs=60, patience=patience, monitor="val_loss")
    fitted = train_on(network, digits, fit)
    losses = [row["val_loss"] for row in fitted.history]
    assert fitted.epochs < 60
    assert losses.index(min(losses)) + 1 == fitted.best_epoch
    assert fitted.epochs == fitted.best_epoch + patience
    # the weights that were kept are those, not an alias of the last ones
    assert mean_loss(network, digits) == pytest.approx(min(losses), rel=1e-5)
    assert losses[-1] > min(losses)


def test_without_a_measure_the_last_weights_stay(network, digits):
    fitted = train_on(network, digits, replace(SHORT, lr=0.03, epochs=12))
    assert fitted.best_epoch == fitted.epochs == 12
    assert mean_loss(network, digits) == pytest.approx(fitted.history[-1]["val_loss"], rel=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_an_optimizer_goes_on_where_it_stopped(network, digits, name):
    """Two fits of two epochs with one optimiser are one fit of four."""
    fit = replace(SHORT, optimizer=name, weight_decay=1e-3)
    whole, parts = network, copy.deepcopy(network)
    train = batches(digits)  # in order: lightning may ask for an epoch that it does not read
    train_on(whole, digits, fit, train=train)
    optimizer = build_optimizer(parts, fit)
    for _ in range(2):
        train_on(parts, digits, replace(fit, epochs=2), optimizer, train)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_pruned_weights_stay_zero_and_the_others_learn(network, digits, name):
    model = TracedNetwork(network, torch.zeros(2, 1, 8, 8))
    scores = score_weights("magnitude", Context(model, model.channel_groups()))
    keep = choose_weights(scores, 0.7)
    apply_weight_masks(model, keep)
    before = {k: get_tensor(model, k).detach().clone() for k in keep}
    train_on(model, digits, replace(SHORT, optimizer=name, weight_decay=1e-2, epochs=2))
    for key, mask in keep.items():
        now = get_tensor(model, key)
        assert bool((now[~mask] == 0).all())
        assert bool((now[mask] != before[key][mask]).any())


@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle"])
def test_schedules(network, digits, schedule):
    rates = []

    class Watch(torch.optim.SGD):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    fit = replace(SHORT, schedule=schedule, lr=0.1)
    train_on(network, digits, fit, Watch(network.parameters(), lr=0.1))
    assert len(rates) == 16
    assert max(rates) == pytest.approx(0.1, rel=0.05)
    assert (rates[-1] == rates[0]) == (schedule == "constant")
    if schedule != "constant":
        assert rates[-1] < 0.01


def test_batch_norm_refuses_batches_of_one(digits):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))
    with pytest.raises(ConfigError, match="cannot learn from batches of one image; set"):
        train_on(network, digits, replace(SHORT, batch_size=1))
    with pytest.raises(ConfigError, match="batches of one image"):
        train_on(network, digits, train=batches(digits, size=85, shuffle=True))  # 256 = 3 * 85 + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "lion"}, "optimizer must be one of sgd, adam, adamw, not 'lion'"),
        ({"schedule": "steps"}, "schedule must be one of"),
        ({"monitor": "val_mae"}, "monitor must be one of null, val_loss, val_error"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"patience": 0}, "patience must be at least 1, not 0"),
        ({"lr": 0.0}, "lr must be above 0, not 0.0"),
        ({"lr": float("nan")}, "lr must be above 0, not nan"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1"),
    ],
)
def test_settings_that_no_fit_can_use(network, digits, change, message):
    with pytest.raises(ConfigError, match=message):
        train_on(network, digits, replace(SHORT, **change), train=batches(digits))


@pytest.mark.parametrize("patience", [None, 2])
def test_divergence_is_said(network, digits, patience):
    with pytest.raises(ConfigError, match=r"diverged: .*lower the lr"):
        fit = replace(SHORT, optimizer="sgd", lr=1e30, patience=patience, monitor=None)
        train_on(network, digits, fit)
