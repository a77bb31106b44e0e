"""Networks that do not fit into memory: the settings that make them, and no memory taken."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from egnn_prune.configs.settings import Settings, check
from egnn_prune.errors import ConfigError
from egnn_prune.models import TargetScale
from egnn_prune.pipeline import build
from egnn_prune.pipeline.build import build_model


@pytest.fixture
def dataset(monkeypatch) -> Any:
    monkeypatch.setattr(build, "target_scale", lambda *_: TargetScale())
    return SimpleNamespace(outputs="number", extensive=True, elements=(1, 6, 8))


def settings(method: str = "rigidity", members: int = 5, **model: Any) -> Settings:
    s = Settings(model=replace(Settings().model, **model))
    s.uncertainty = replace(s.uncertainty, method=method, members=members)
    return s


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden": 10**6},
        {"radial": 10**11},
        {"network": "irreps", "copies": 10**6},
        {"method": "shallow", "members": 10**12},
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(dataset, changes):
    with pytest.raises(ConfigError, match=r"would take at least [\d,.]+ GB .* lower one") as caught:
        build_model(settings(**changes), dataset)
    name, value = list(changes.items())[-1]
    assert f"{name}={value:,}" in str(caught.value)


def test_members_and_what_training_keeps_count(dataset, monkeypatch):
    count = sum(p.numel() for p in build_model(settings(hidden=32), dataset).parameters())
    monkeypatch.setenv("EGNN_PRUNE_MEMORY_GB", str(4 * 4 * 1.2 * count / 1e9))
    build_model(settings(hidden=32), dataset)
    for changed in (
        settings("deep", 2, hidden=32),
        replace(settings(hidden=32), precision="float64"),
    ):
        with pytest.raises(ConfigError, match="would take at least"):
            build_model(changed, dataset)


@pytest.mark.parametrize("name", ["model.layers", "uncertainty.members", "uncertainty.samples"])
def test_counts_have_an_end(name):
    s = Settings()
    section, key = name.split(".")
    setattr(getattr(s, section), key, 10**5)
    with pytest.raises(ConfigError, match=rf"{name} must lie between .* not 100000"):
        check(s)
