"""Settings that a job never reads, as it is set up: each is refused by name where it was changed.

A setting without effect is worse than none: somebody believes to have compared two values. What a
job uses is what is left: that, and nothing else, may change its results.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from egnn_prune.configs.declaration import leaves
from egnn_prune.configs.over_seeds import (
    AcquisitionSettings,
    CalibrationStudySettings,
    ComparisonSettings,
    SanitySettings,
    SelectionStudySettings,
    SweepSettings,
)
from egnn_prune.configs.settings import Settings, described
from egnn_prune.errors import ConfigError

#: Why a setting has no effect, by its name; ``section.*`` stands for all settings of a section.
Reasons = dict[str, str]

ENSEMBLES = ("shallow", "deep", "snapshot", "bootstrap")
GRAPH_NETWORK = ("update_positions", "attention", "radial", "normalise", "aggregation")
#: Of those that have no processes to share a fit between them.
ONE_PROCESS = dict.fromkeys(
    ("trainer.devices", "trainer.nodes"),
    "fits of a study take a process each (workers=N runs seeds side by side)",
)
#: What a job over several seeds reads from settings of its own, or not at all.
SEVERAL = (
    {
        "seed": "this job has seeds=[...]",
        "name": "this job names its folder by out",
        "training.scratch": "this job has no arm of that kind",
        "selection.rounds": "this job selects once",
        "uncertainty.calibration": "this job does not calibrate by it",
        "training.finetune_epochs": "this job has steps",
        "pruning.sparsity": "this job has sparsities=[...]",
        "pruning.latency": "this job prunes to sparsities",
        "pruning.criterion": "this job has criteria=[...]",
    }
    | dict.fromkeys(
        [f"pruning.{n}" for n in ("schedule", "rounds", "until", "freeze", "freeze_fraction")],
        "this job prunes in one shot and freezes nothing",
    )
    | ONE_PROCESS
)


def refuse_unused(settings: Any, unused: Reasons | None = None) -> None:
    """Refuse settings that were changed and have no effect.

    A setting counts as changed unless it has its default, or the value that the configuration of
    the chosen data gives it (``data=rmd17`` sets two dozen at once).

    Args:
        settings: of the job.
        unused: what it has no use for; by default what the table below says.

    Raises:
        ConfigError: names the first such setting, and why it has no effect.
    """
    unused = unused_by(settings) if unused is None else unused
    defaults = {name: value for name, value, _ in described(type(settings)())}
    for name, value, _ in described(settings):
        reason = unused.get(name) or unused.get(f"{name.rpartition('.')[0]}.*")
        usual = [defaults[name], *_of_data(settings.data.name).get(name, [])]
        if reason and value not in usual:
            raise ConfigError(f"{name}={value} would change nothing: {reason}; leave it away")


@cache
def _of_data(source: str) -> dict[str, list[Any]]:
    """The values that the configurations of a data source give to settings."""
    found: dict[str, list[Any]] = {}
    for file in sorted((Path(__file__).parent / "data").glob("*.yaml")):
        content: Any = OmegaConf.to_container(OmegaConf.load(file))
        if isinstance(content.get("data"), dict) and content["data"].get("name") == source:
            for name, value in leaves(content):
                found.setdefault(name, []).append(value)
    return found


def unused_by(settings: Settings) -> Reasons:
    """What a job has no use for, by the kind of its settings."""
    return JOBS[type(settings)](settings)


# ------------------------------------------------------------------ parts of jobs


def _network(s: Settings) -> Reasons:
    found: Reasons = {}
    if s.model.network == "irreps":
        found |= {f"model.{n}": "model.network=irreps has no such part" for n in GRAPH_NETWORK}
        found["training.recompute"] = "it belongs to model.network=egnn"
    else:
        found |= {f"model.{n}": "it belongs to model.network=irreps" for n in ("copies", "lmax")}
        if not s.model.update_positions:
            found["model.normalise"] = "model.update_positions is false"
    return found


def _training(s: Settings) -> Reasons:
    found: Reasons = {}
    if not s.training.monitor:
        found["training.patience"] = "it waits for a better training.monitor, and none is chosen"
    if s.precision == "float64":
        found["training.mixed_precision"] = "networks of precision=float64 compute in float64 alone"
    return found


def _error_bars(s: Settings) -> Reasons:
    found: Reasons = {}
    if s.uncertainty.method != "dropout":
        found["uncertainty.samples"] = "it belongs to uncertainty.method=dropout"
    if s.uncertainty.method not in ENSEMBLES:
        found["uncertainty.members"] = f"uncertainty.method={s.uncertainty.method} has no members"
    return found


def _selection(strategies: list[str]) -> Reasons:
    found = {
        f"selection.{n}": f"no selection with the strategy {n} is made"
        for n in ("band", "threshold")
        if n not in strategies
    }
    if set(strategies) <= {"threshold", "all"}:
        found["selection.fraction"] = "no strategy that is chosen takes a share"
    return found


def _pruning(s: Settings) -> Reasons:
    found: Reasons = {}
    if s.pruning.rounds == 1:
        found["pruning.schedule"] = "with pruning.rounds=1 all schedules are the same"
        if s.pruning.criterion != "movement":
            found["pruning.until"] = "with pruning.rounds=1 the only round comes first"
    if s.pruning.freeze != "important":
        found["pruning.freeze_fraction"] = "it belongs to pruning.freeze=important"
    return found


# ------------------------------------------------------------------ jobs


def _main(s: Settings) -> Reasons:
    parts = _network(s) | _training(s) | _error_bars(s)
    return parts | _selection([s.selection.strategy]) | _pruning(s)


def _several(*read: str) -> Reasons:
    """What a job over several seeds has no use for, but for what it reads all the same."""
    return {name: why for name, why in SEVERAL.items() if name not in read}


def _comparison(s: Settings) -> Reasons:
    arm = deepcopy(s)  # whose criterion and strategy are none that has settings of its own
    arm.pruning.criterion, arm.selection.strategy = "taylor", "top"
    arms = dict.fromkeys(("pruning.criterion", "selection.strategy"), "this job has arms=[...]")
    several = {n: SEVERAL[n] for n in ("seed", "name", "pruning.sparsity", "pruning.latency")}
    return _main(arm) | several | arms | ONE_PROCESS


def _sweep(s: Settings) -> Reasons:
    parts = _network(s) | _training(s) | _error_bars(s)
    return parts | _selection([s.selection.strategy]) | _several()


def _sanity(s: Settings) -> Reasons:
    parts = _network(s) | _training(s) | _error_bars(s) | _selection([s.selection.strategy])
    read = ("training.finetune_epochs", "pruning.sparsity", "pruning.criterion")
    draws = {"selection.replay": "this job trains its arms on all graphs"}
    return parts | _several(*read) | draws


def _calibration(s: CalibrationStudySettings) -> Reasons:
    found = _network(s) | _training(s) | _several()
    found |= {
        "uncertainty.method": "this job has recipes=[...]",
        "pruning.criterion": "this job prunes by the taylor criterion",
        "selection.*": "this job trains on all graphs",
    }
    if "single" not in s.recipes:
        only = ("uncertainty.samples", "model.readout_dropout", "training.loss")
        found |= dict.fromkeys(only, "it belongs to the recipe single")
    if "shallow" not in s.recipes:
        found["uncertainty.members"] = "it belongs to the recipe shallow"
    return found


def _selection_study(s: SelectionStudySettings) -> Reasons:
    dropout = "this job's networks have Monte Carlo dropout"
    found = _network(s) | _training(s) | _selection(s.strategies)
    found |= _several("pruning.sparsity", "pruning.criterion")
    return found | {
        "uncertainty.method": dropout,
        "uncertainty.members": dropout,
        "selection.strategy": "this job has strategies=[...]",
        "selection.replay": "this job has replays=[...]",
    }


def _acquisition(s: AcquisitionSettings) -> Reasons:
    found = _network(s) | _training(s) | _error_bars(s) | _selection(s.strategies)
    found |= _several(*(name for name in SEVERAL if name.startswith("pruning.")))
    found |= {
        "reuse": "this job has no stages",
        "pruning.*": "this job prunes nothing",
        "selection.strategy": "this job has strategies=[...]",
        "training.max_epochs": "this job has first_steps",
        "training.monitor": "this job looks at no validation",
        "training.patience": "this job looks at no validation",
    }
    rest = ("fraction", "threshold", "replay")
    return found | {f"selection.{n}": "this job labels a number of graphs (added)" for n in rest}


JOBS: dict[type, Callable[[Any], Reasons]] = {
    Settings: _main,
    ComparisonSettings: _comparison,
    SweepSettings: _sweep,
    SanitySettings: _sanity,
    CalibrationStudySettings: _calibration,
    SelectionStudySettings: _selection_study,
    AcquisitionSettings: _acquisition,
}
