"""The settings that come with each data source: they are used, valid, and give way to the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from egnn_prune import configs
from egnn_prune.configs.over_seeds import register
from egnn_prune.configs.settings import Settings
from egnn_prune.data import SOURCES
from egnn_prune.pipeline.check_settings import validate

FILES = sorted((Path(configs.__file__).parent / "data").glob("*.yaml"))
GLOBAL = [file for file in FILES if "# @package _global_" in file.read_text()]


def composed(*choices: str) -> Settings:
    register()
    with initialize_config_module("egnn_prune.configs", version_base="1.3"):
        return OmegaConf.to_object(compose("train", [*choices]))


def leaves(file: Path) -> dict[str, Any]:
    """``{"model.hidden": 10, ...}``: what the file sets."""
    content: Any = OmegaConf.to_container(OmegaConf.load(file))
    groups = content if file in GLOBAL else {"data": content}
    return {f"{group}.{key}": v for group, inner in groups.items() for key, v in inner.items()}


def found(settings: Settings, name: str) -> Any:
    group, key = name.split(".")
    return getattr(getattr(settings, group), key)


def other(value: Any) -> Any:
    """A value that the file does not hold, of the same kind."""
    if isinstance(value, bool):
        return not value
    return {type(None): 3.25, str: "other"}.get(type(value)) or value + 1


def test_every_source_has_a_file_and_the_standard_experiments_are_global():
    assert {file.stem for file in FILES} >= set(SOURCES)
    assert {file.stem for file in GLOBAL} >= {"centroid", "extxyz_forces", "nbody", "rmd17"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_composes_into_valid_settings_that_hold_what_it_says(file):
    settings = composed(f"data={file.stem}")
    assert type(settings) is Settings and settings.data.name in SOURCES
    validate(settings)
    assert {name: found(settings, name) for name in leaves(file)} == leaves(file)


@pytest.mark.parametrize("last", [True, False], ids=["after", "before"])
@pytest.mark.parametrize("file", GLOBAL, ids=lambda file: file.stem)
def test_the_command_line_wins_over_every_setting_of_a_file(file, last):
    asked = {name: other(value) for name, value in leaves(file).items() if name != "data.name"}
    words = [f"{name}={value}" for name, value in asked.items()]
    choice = [f"data={file.stem}"]
    settings = composed(*(choice + words if last else words + choice))
    assert {name: found(settings, name) for name in asked} == asked
