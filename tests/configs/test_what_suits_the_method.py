"""Settings that are left to the uncertainty method, and what it makes of them."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from egnn_prune import data
from egnn_prune.configs.settings import METHODS, Settings, loss_name, readout_dropout
from egnn_prune.errors import ConfigError
from egnn_prune.pipeline.build import build_estimator, build_model
from egnn_prune.pipeline.check_settings import validate
from egnn_prune.uncertainty import MCDropout, NoiseAndRigidity


def settings(method: str | None = None) -> Settings:
    found = Settings()
    found.model.hidden, found.model.layers = 8, 1
    if method:
        found.uncertainty.method = method
    return found


def test_the_default_is_one_network_and_its_rigidity():
    found = settings()
    validate(found)
    model = build_model(found, data.load("xtb").limited(20))
    assert model.head.members == 1 and model.head.gate.p == 0
    assert type(build_estimator(found.uncertainty, model)) is NoiseAndRigidity
    assert loss_name(found) == "crps"


def test_monte_carlo_dropout_is_one_setting_away():
    found = settings("dropout")
    validate(found)
    model = build_model(found, data.load("xtb").limited(20))
    assert model.head.members == 1 and model.head.gate.p == 0.1
    assert type(build_estimator(found.uncertainty, model)) is MCDropout
    assert loss_name(found) == "faithful"


@pytest.mark.parametrize("method", METHODS)
def test_who_drops_and_who_learns_mean_and_noise_together(method):
    assert (readout_dropout(settings(method)) > 0) == (method == "dropout")
    assert loss_name(settings(method)) == (
        "crps" if method in ("rigidity", "shallow") else "faithful"
    )


@pytest.mark.parametrize("method", METHODS)
def test_what_is_said_counts(method):
    found = settings(method)
    found.model.readout_dropout, found.training.loss = 0.3, "squared"
    before = asdict(found)
    assert readout_dropout(found) == 0.3 and loss_name(found) == "squared"
    found.model.readout_dropout = 0.0
    assert readout_dropout(found) == 0
    assert asdict(found) == before | {"model": asdict(found.model)}


def test_forces_are_learned_apart():
    found = settings()
    found.training.force_weight = 1.0
    assert loss_name(found) == "faithful"
    validate(found)
    found.training.loss = "crps"
    with pytest.raises(ConfigError, match="faithful only"):
        validate(found)
