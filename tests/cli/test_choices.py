"""Whatever can be chosen is listed: by --help, and by the message about a wrong choice."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from egnn_prune.cli.jobs import VISION
from egnn_prune.configs.over_seeds import (
    AcquisitionSettings,
    CalibrationStudySettings,
    ComparisonSettings,
    SelectionStudySettings,
    SweepSettings,
)
from egnn_prune.configs.settings import METHODS, Settings, described
from egnn_prune.data import SOURCES
from egnn_prune.errors import ConfigError
from egnn_prune.pipeline.check_settings import validate
from egnn_prune.pruning import CRITERIA, SCHEDULES, SCOPES, WEIGHT_CRITERIA
from egnn_prune.pruning.freezing import MODES
from egnn_prune.selection import STRATEGIES
from egnn_prune.studies import calibration, comparison, selection
from egnn_prune.studies import criteria as criteria_sweep
from egnn_prune.training.fit_log import NEEDS
from egnn_prune.training.loss import LOSSES
from egnn_prune.training.schedules import SCHEDULES as RATE_SCHEDULES
from egnn_prune.uncertainty import CALIBRATIONS
from egnn_prune.vision.data import AUGMENTATIONS
from egnn_prune.vision.data import SOURCES as IMAGES
from egnn_prune.vision.experiments import lottery
from egnn_prune.vision.experiments.run import KINDS
from egnn_prune.vision.experiments.selection import ARMS as IMAGE_ARMS
from egnn_prune.vision.networks.registry import NETWORKS
from egnn_prune.vision.settings import VisionSettings
from egnn_prune.vision.training import OPTIMIZERS

ROOT = Path(__file__).parents[2]
ONE_SHOT = [name for name in CRITERIA if name != "movement"]  # it watches training
MAIN: dict[str, Iterable[str]] = {
    "model.network": ("egnn", "irreps"),
    "trainer.logger": NEEDS,
    "model.aggregation": ("sum", "mean"),
    "uncertainty.method": METHODS,
    "uncertainty.calibration": [name for name in CALIBRATIONS if name != "temperature"],
    "selection.strategy": STRATEGIES,
    "pruning.criterion": CRITERIA,
    "pruning.scope": SCOPES,
    "pruning.schedule": SCHEDULES,
    "pruning.freeze": MODES,
    "training.loss": LOSSES,
    "training.monitor": ("val_mae", "val_mse", "val_force_mae"),
    "training.schedule": RATE_SCHEDULES,
    "training.average": ("none", "ema", "swa"),
    "training.mixed_precision": ("none", "bf16"),
    "precision": ("float32", "float64"),
}
OTHERS: list[tuple[type, str, Iterable[str]]] = [
    (Settings, "data.name", SOURCES),
    (ComparisonSettings, "arms", comparison.ARMS),
    (SweepSettings, "criteria", ONE_SHOT),
    (CalibrationStudySettings, "recipes", calibration.ESTIMATORS),
    (SelectionStudySettings, "strategies", (*STRATEGIES, selection.ALL)),
    (AcquisitionSettings, "strategies", [s for s in STRATEGIES if s not in ("loss", "threshold")]),
    (VisionSettings, "kind", KINDS),
    (VisionSettings, "data.name", IMAGES),
    (VisionSettings, "data.augmentation", AUGMENTATIONS),
    (VisionSettings, "network.name", NETWORKS),
    (VisionSettings, "network.shortcut", ("A", "B")),
    (VisionSettings, "network.stem", ("imagenet", "cifar")),
    (VisionSettings, "training.optimizer", OPTIMIZERS),
    (VisionSettings, "training.schedule", ("constant", "cosine", "onecycle")),
    (VisionSettings, "training.monitor", ("val_loss", "val_error")),
    (VisionSettings, "pruning.structures", lottery.STRUCTURES),
    (VisionSettings, "pruning.strategies", lottery.STRATEGIES),
    (VisionSettings, "pruning.criterion", ONE_SHOT),
    (VisionSettings, "pruning.criteria", (*ONE_SHOT, "shuffled", "scratch")),
    (VisionSettings, "pruning.weight_criterion", [n for n in WEIGHT_CRITERIA if n != "movement"]),
    (VisionSettings, "pruning.scope", SCOPES),
    (VisionSettings, "pruning.weight_scope", ("tensor", "global")),
    (VisionSettings, "selection.strategies", IMAGE_ARMS),
]
#: Settings of words that are no choice among names, beside those of the data.
FREE = {"name", "out", "device"}


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def missing(known: Iterable[str], text: str) -> set[str]:
    return {name for name in known if name not in words(text)}


def declared(schema: type, name: str) -> Any:
    """The field of a setting, by its dotted name."""
    node = schema()
    *path, last = name.split(".")
    for part in path:
        node = getattr(node, part)
    return next(item for item in fields(node) if item.name == last)


@pytest.mark.parametrize(
    ("schema", "name", "known"),
    [*((Settings, name, known) for name, known in MAIN.items()), *OTHERS],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", ""),
)
def test_choices_are_what_there_is_and_help_names_them(schema, name, known):
    choices = declared(schema, name).metadata["allowed"].choices
    assert sorted(choices) == sorted(known)
    meanings = {n: meaning for n, _, meaning in described(schema())}
    assert meanings[name].endswith(f" [{', '.join(choices)}]")


def test_no_choice_of_the_main_job_is_forgotten_here():
    """A new setting of words belongs into MAIN or FREE."""

    def of_words(node: Any, prefix: str = "") -> set[str]:
        found: set[str] = set()
        for item in fields(node):
            if is_dataclass(value := getattr(node, item.name)):
                found |= of_words(value, f"{item.name}.")
            elif str(item.type).startswith("str"):
                found.add(prefix + item.name)
        return found

    found = {name for name in of_words(Settings()) if not name.startswith("data.")}
    assert found == MAIN.keys() | FREE


@pytest.mark.parametrize("name", MAIN)
def test_the_message_about_a_wrong_choice_names_every_choice(name):
    settings: Any = Settings()
    *path, last = name.split(".")
    node = settings
    for part in path:
        node = getattr(node, part)
    setattr(node, last, "nonsense")
    with pytest.raises(ConfigError, match="not 'nonsense'") as caught:
        validate(settings)
    assert str(caught.value).startswith(name)
    assert not missing(MAIN[name], str(caught.value))


def test_the_message_about_a_wrong_criterion_of_a_sweep():
    with pytest.raises(ConfigError, match="criteria must be some of") as caught:
        criteria_sweep.run_sweep(SweepSettings(criteria=["nonsense"]))
    assert not missing(ONE_SHOT, str(caught.value)) and "movement" not in str(caught.value)


@pytest.mark.parametrize(
    ("script", "schema", "config", "group"),
    [("train", Settings, "train", "data"), ("run_vision", VisionSettings, "vision", "experiment")],
)
def test_an_unknown_file_of_settings(script, schema, config, group, monkeypatch, capsys):
    from egnn_prune.cli.hydra_app import command

    monkeypatch.setattr("sys.argv", [script, f"{group}=nonsense"])
    with pytest.raises(SystemExit) as caught:
        command(lambda _: None, schema, config, "Purpose.")
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert line.startswith(f"error: {group} must be one of ") and line.endswith("not 'nonsense'")
    files = (ROOT / "egnn_prune" / "configs" / group).glob("*.yaml")
    assert not missing([file.stem for file in files], line)


def test_the_image_command_names_every_experiment():
    files = (ROOT / "egnn_prune" / "configs" / "experiment").glob("*.yaml")
    assert not missing([file.stem for file in files], VISION.purpose)
