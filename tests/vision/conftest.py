from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from egnn_prune.vision.settings import VisionSettings


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latencies are measured, but briefly."""
    monkeypatch.setattr("egnn_prune.vision.evaluation.LATENCY_TURNS", 1)


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., VisionSettings]:
    """``settings("digits", "name=value", ...)``: an experiment, in a folder of the test's own."""

    def made(experiment: str, *overrides: str) -> VisionSettings:
        ConfigStore.instance().store(name="base_vision", node=VisionSettings)
        where = [f"experiment={experiment}", f"out={tmp_path / 'run'}", *overrides]
        with initialize_config_module("egnn_prune.configs", version_base="1.3"):
            return OmegaConf.to_object(compose("vision", where))

    return made
