"""Every setting of every job changes what the job finds, or is refused by name."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write
from safetensors.torch import load_file
from tiny_jobs import used_only

from egnn_prune.configs.over_seeds import (
    AcquisitionSettings,
    CalibrationStudySettings,
    ComparisonSettings,
    SanitySettings,
    SelectionStudySettings,
    SweepSettings,
    main_job,
)
from egnn_prune.configs.settings import Settings, described
from egnn_prune.configs.unused import JOBS, refuse_unused, unused_by
from egnn_prune.errors import ConfigError
from egnn_prune.pipeline.main_job import DENSE, SELECTED, Job
from egnn_prune.runs.run_folder import NOT_HASHED, RunFolder
from egnn_prune.studies import acquisition, calibration, criteria, sanity_checks, selection
from egnn_prune.studies.frame import seed_settings
from egnn_prune.studies.networks import network_job
from egnn_prune.vision.experiments.run import KINDS
from egnn_prune.vision.settings import VisionSettings
from egnn_prune.vision.unused import unused_by as unused_by_images

#: Where and how a job runs; what a folder is called; which of many files are read.
PLACES = {
    *("out", "name", "title", "threads", "workers", "reuse", "networks", "device", "seeds"),
    *(f"trainer.{n}" for n in ("save_minutes", "logger", "devices", "nodes")),
    *(f"jobs.{n}" for n in ("cluster", "retries", "partition", "minutes", "gpus", "options")),
}
DATA = {f"data.{n}" for n in ("name", "path", "test", "ood", "subset", "target")}
#: Settings whose effect depends on luck, or is another file: other tests have them.
ELSEWHERE = {"pruning.latency"} | {
    f"training.{n}" for n in ("monitor", "patience", "scratch", "recompute")
}
#: Another value of every setting than :func:`tiny` has.
OTHER: dict[str, Any] = {
    "seed": 1,
    "precision": "float64",
    "data.limit": 20,
    "model.network": "irreps",
    "model.hidden": 6,
    "model.layers": 3,
    "model.update_positions": False,
    "model.attention": False,
    "model.radial": 6,
    "model.cutoff": 2.5,
    "model.normalise": False,
    "model.copies": 3,
    "model.lmax": 0,
    "model.aggregation": "mean",
    "model.dropout": 0.2,
    "model.readout_dropout": 0.4,
    "uncertainty.method": "mean_variance",
    "uncertainty.samples": 4,
    "uncertainty.members": 3,
    "uncertainty.calibration": "variance",
    "selection.strategy": "least",
    "selection.fraction": 0.9,
    "selection.band": [0.1, 0.6],
    "selection.rounds": 2,
    "selection.threshold": 1e-3,
    "selection.replay": 0.1,
    "pruning.sparsity": 0.2,
    "pruning.latency": 0.9,
    "pruning.criterion": "magnitude",
    "pruning.scope": "layer",
    "pruning.schedule": "linear",
    "pruning.rounds": 2,
    "pruning.round_to": 4,
    "pruning.until": 1.0,
    "pruning.freeze": "none",
    "pruning.freeze_fraction": 0.9,
    "training.max_epochs": 3,
    "training.finetune_epochs": 3,
    "training.batch_size": 6,
    "training.lr": 1e-2,
    "training.finetune_lr": 1e-2,
    "training.weight_decay": 0.5,
    "training.clip": 0.01,
    "training.loss": "squared",
    "training.force_weight": 1.0,
    "training.monitor": "val_mae",
    "training.schedule": "constant",
    "training.average": "ema",
    "training.mixed_precision": "bf16",
    "training.patience": 1,
    "training.recompute": True,
    "training.scratch": False,
    "steps": 3,
    "first_steps": 3,
    "initial": 9,
    "added": 5,
    "rounds": 2,
    "arms": ["magnitude"],
    "criteria": ["magnitude"],
    "recipes": ["shallow"],
    "sparsities": [0.25],
    "strategies": ["least"],
    "replays": [0.2],
    "deep_members": 2,
}
#: What makes jobs tiny, where they have such settings.
TINY = {
    **{"seeds": [0], "criteria": ["taylor"], "recipes": ["single"], "sparsities": [0.5]},
    **{"steps": 2, "first_steps": 2, "initial": 8, "added": 4, "rounds": 1, "deep_members": 0},
    **{"strategies": ["top"], "replays": [0.5], "arms": ["uncertainty"]},
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Molecules with energies and forces, of springs."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(120):
        atoms = Atoms("COH3", rng.normal(size=(5, 3)) * 1.2)
        pairs = atoms.positions[:, None] - atoms.positions[None]
        atoms.info["REF_energy"] = 0.25 * float((pairs**2).sum()) / 2
        atoms.arrays["REF_forces"] = -0.5 * pairs.sum(1)
        frames.append(atoms)
    path = tmp_path_factory.mktemp("data") / "springs.xyz"
    write(path, frames, format="extxyz")
    return path


def tiny(kind: type, out: Path, file: Path, **changes: Any) -> Any:
    """Settings of a job that takes half a second; ``changes`` by dotted names."""
    s = kind(out=str(out), device="cpu", threads=1)
    s.data.name, s.data.path, s.data.limit = "extxyz", str(file), 24
    s.model.hidden, s.model.layers, s.model.radial, s.model.copies = 8, 2, 4, 2
    s.uncertainty.samples, s.uncertainty.members = 3, 2
    s.selection.fraction, s.pruning.sparsity = 0.3, 0.5
    s.training.max_epochs, s.training.finetune_epochs, s.training.batch_size = 2, 2, 8
    for name, value in {**TINY, **changes}.items():
        if "." in name or hasattr(s, name):
            put(s, name, value)
    return used_only(s, *changes)


def put(settings: Any, name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        settings = getattr(settings, section)
    assert hasattr(settings, last), name
    setattr(settings, last, copy.deepcopy(value))


def names(settings: Any) -> list[str]:
    return [name for name, _, _ in described(settings)]


def is_unused(settings: Any, name: str, reasons: dict[str, str]) -> bool:
    return name in reasons or f"{name.rpartition('.')[0]}.*" in reasons


# ------------------------------------------------------------------ what is declared


def test_every_job_is_in_the_table():
    assert set(JOBS) == {Settings, *Settings.__subclasses__()}


@pytest.mark.parametrize("kind", JOBS, ids=lambda kind: kind.__name__)
def test_a_setting_is_refused_or_belongs_to_the_configuration(kind, tmp_path):
    def identity(settings: Any) -> str:
        own = {k: v for k, v in vars(settings).items() if k not in (*vars(Settings()), "jobs")}
        return RunFolder(main_job(settings)).hash + json.dumps(own)

    base = kind(out=str(tmp_path / "base"))
    refuse_unused(base)
    before, reasons = identity(base), unused_by(base)
    assert all(n in {*names(base), *(f"{m.split('.')[0]}.*" for m in names(base))} for n in reasons)
    for number, name in enumerate(names(base)):
        changed = kind(out=str(tmp_path / str(number)))
        value = {"data.name": "npz", "data.limit": 7, "seeds": [8], "threads": 1}.get(name)
        value = OTHER.get(name, value if value is not None else "other")
        put(changed, name, value)
        changed.out = str(tmp_path / str(number))
        if is_unused(base, name, reasons):
            with pytest.raises(ConfigError, match=rf"{name}=.* would change nothing: "):
                refuse_unused(changed)
        elif name.partition(".")[0] not in (*NOT_HASHED, "networks"):
            refuse_unused(changed)
            assert identity(changed) != before, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_setting_of_an_experiment_on_images(kind, tmp_path):
    base = VisionSettings(kind=kind)
    reasons = unused_by_images(base)
    refuse_unused(base, reasons)
    for name in names(base):
        changed = VisionSettings(kind=kind)
        value = next(v for n, v, _ in described(base) if n == name)
        put(changed, name, [*value, "x"] if isinstance(value, list) else f"{value}x")
        if is_unused(base, name, reasons):
            with pytest.raises(ConfigError, match=rf"{name}=.* would change nothing: "):
                refuse_unused(changed, reasons)
        else:
            refuse_unused(changed, reasons)


USED_WHERE = [
    ("pruning.batches", {"pruning.criterion": "taylor"}),
    ("pruning.rounds", {"pruning.strategies": ["iterative"]}),
    ("pruning.weight_scope", {"pruning.structures": ["unstructured"]}),
    ("pruning.weight_criterion", {"pruning.structures": ["unstructured"]}),
    ("training.momentum", {"training.optimizer": "sgd"}),
    ("finetuning.momentum", {"finetuning.optimizer": "sgd"}),
    ("uncertainty.samples", {"network.dropout": 0.1}),
    ("data.ood_path", {"data.ood": "folder"}),
    ("pruning.every", {"kind": "incremental"}),
    ("pruning.factors", {"kind": "structured"}),
    ("selection.replay", {"kind": "selection"}),
]


@pytest.mark.parametrize(("name", "context"), USED_WHERE, ids=lambda value: str(value))
def test_a_setting_of_images_is_used_in_its_context(name, context):
    settings = VisionSettings()
    assert is_unused(settings, name, unused_by_images(settings))
    for key, value in context.items():
        put(settings, key, value)
    assert not is_unused(settings, name, unused_by_images(settings))


@pytest.mark.parametrize("source", ["rmd17", "nbody", "centroid", "extxyz"])
@pytest.mark.parametrize("kind", JOBS, ids=lambda kind: kind.__name__)
def test_what_the_configuration_of_the_data_sets_is_no_change(kind, source, tmp_path):
    from omegaconf import OmegaConf

    folder = Path(__file__).parents[2] / "egnn_prune" / "configs" / "data"
    file = folder / ("extxyz_forces.yaml" if source == "extxyz" else f"{source}.yaml")
    merged = OmegaConf.merge(OmegaConf.structured(kind), OmegaConf.load(file))
    settings = OmegaConf.to_object(merged)
    refuse_unused(settings)
    if source == "rmd17":  # its network is made for irreps; with another one that stays no change
        settings.model.network = "egnn"
        refuse_unused(settings)
        settings.model.lmax = 3
        with pytest.raises(ConfigError, match=r"model\.lmax=3 would change nothing"):
            refuse_unused(settings)


# ------------------------------------------------------------------ what it changes


def of_main(settings: Any) -> Any:
    job = Job(settings, RunFolder(settings), torch.device("cpu"))
    job.train_dense()
    job.select_uncertain_graphs()
    job.prune_and_finetune()
    tensors = load_file(job.folder.path / "pruned.safetensors")
    found = {k: hashlib.sha256(v.numpy().tobytes()).hexdigest() for k, v in tensors.items()}
    return found | {k: list(v.shape) + [str(v.dtype)] for k, v in tensors.items() if not v.numel()}


def of_study(seed_work: Callable[[Any, int], Any]) -> Callable[[Any], Any]:
    times = ("latency_ms", "latency_share", "peak_memory", "seconds")

    def outcome(settings: Any) -> Any:
        found = seed_work(settings, settings.seed)
        return [{k: v for k, v in row.items() if k not in times} for row in found]

    return outcome


OUTCOMES: dict[type, Callable[[Any], Any]] = {
    Settings: of_main,
    SweepSettings: of_study(criteria.run_seed),
    SanitySettings: of_study(sanity_checks.run_seed),
    CalibrationStudySettings: of_study(calibration.run_seed),
    SelectionStudySettings: of_study(selection.run_seed),
    AcquisitionSettings: of_study(acquisition.run_seed),
}
#: Where a setting that needs others is used.
CONTEXTS: list[tuple[type, dict[str, Any], list[str]]] = [
    (Settings, {"model.network": "irreps"}, ["model.copies", "model.lmax"]),
    (Settings, {"uncertainty.method": "dropout"}, ["uncertainty.samples"]),
    (Settings, {"uncertainty.method": "shallow"}, ["uncertainty.members"]),
    (Settings, {"uncertainty.method": "deep"}, ["uncertainty.members"]),
    (Settings, {"selection.strategy": "band"}, ["selection.band", "selection.fraction"]),
    (Settings, {"selection.strategy": "threshold", "selection.threshold": 1e-9}, ["threshold"]),
    (Settings, {"pruning.freeze": "important"}, ["pruning.freeze_fraction"]),
    (SelectionStudySettings, {"strategies": ["band"]}, ["selection.band"]),
    (AcquisitionSettings, {"strategies": ["band"]}, ["selection.band"]),
    (CalibrationStudySettings, {"recipes": ["shallow"]}, ["uncertainty.members", "training.lr"]),
]


def walk() -> Iterator[Any]:
    for kind in OUTCOMES:
        for name in names(tiny(kind, Path("x"), Path("y"))):
            if name not in PLACES | DATA | ELSEWHERE:
                label = f"{kind.__name__}-{name}"
                yield pytest.param(kind, {}, name, marks=pytest.mark.slow, id=label)
    for kind, context, several in CONTEXTS:
        for name in several:
            name = "selection.threshold" if name == "threshold" else name
            label = f"{kind.__name__}-{name}-{'-'.join(map(str, context.values()))}"
            yield pytest.param(kind, context, name, marks=pytest.mark.slow, id=label)


@pytest.fixture(scope="module")
def outcomes(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """``outcomes(kind, context)`` of the unchanged settings, once each, and their folder."""
    known: dict[str, tuple[Any, Path]] = {}

    def found(kind: type, context: dict[str, Any]) -> tuple[Any, Path]:
        key = f"{kind.__name__} {context}"
        if key not in known:
            out = tmp_path_factory.mktemp("base") / "run"
            known[key] = OUTCOMES[kind](tiny(kind, out, file, **context)), out
        return known[key]

    return found


@pytest.mark.parametrize(("kind", "context", "name"), list(walk()))
def test_a_setting_is_refused_or_changes_the_result(kind, context, name, file, outcomes, tmp_path):
    settings = tiny(kind, tmp_path / "run", file, **context)
    put(settings, name, OTHER[name])
    if is_unused(settings, name, unused_by(tiny(kind, tmp_path, file, **context))):
        with pytest.raises(ConfigError, match=rf"{name}=.* would change nothing: "):
            refuse_unused(settings)
        return
    before, _ = outcomes(kind, context)
    # what the changed setting takes the use from is refused otherwise
    assert OUTCOMES[kind](used_only(settings, name)) != before


FITS = [f"training.{n}" for n in ("weight_decay", "clip", "loss", "force_weight", "finetune_lr")]
FITS += ["training.schedule", "training.average", "training.mixed_precision"]
CHANNELS = ["pruning.scope", "pruning.round_to"]
#: What the dense training honours cannot tell whether the rest of a job does.
LATER: list[tuple[type, str]] = [
    *((SweepSettings, name) for name in [*FITS, *CHANNELS, "training.batch_size"]),
    *((SelectionStudySettings, name) for name in [*FITS, *CHANNELS, "pruning.criterion"]),
    *((CalibrationStudySettings, name) for name in [*FITS, *CHANNELS, "uncertainty.samples"]),
    *((SanitySettings, name) for name in [*FITS, *CHANNELS, "training.max_epochs"]),
]
QUICK = {
    *((SweepSettings, f"training.{n}") for n in ("weight_decay", "clip", "loss", "force_weight")),
    (SweepSettings, "pruning.round_to"),
    (SelectionStudySettings, "training.force_weight"),
    (CalibrationStudySettings, "training.force_weight"),
}


def folder_of(settings: Any) -> RunFolder:
    """The folder of the dense network of a job's only seed."""
    if isinstance(settings, SweepSettings | SanitySettings):
        return RunFolder(seed_settings(settings, 0))
    study = CalibrationStudySettings(**vars(main_job(settings)))
    return network_job(study, "single", 0).folder


def dense_from(base: RunFolder, folder: RunFolder) -> None:
    """Give a job the dense network and the selection of another, whatever their settings."""

    def copied(*files: str) -> dict[str, Any]:
        for file in files:
            shutil.copyfile(base.path / file, folder.path / file)
        return {"train_seconds": 0.0}

    for name, sections, file in (
        ("dense", DENSE, "stages/trained.safetensors"),
        ("selection", SELECTED, "stages/selection.npz"),
    ):
        if (base.path / file).exists():
            folder.stage(name, sections, (file,), partial(copied, file))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(
            *cell,
            marks=() if cell in QUICK else pytest.mark.slow,
            id=f"{cell[0].__name__}-{cell[1]}",
        )
        for cell in LATER
    ],
)
def test_what_follows_the_dense_training_honours_a_setting(kind, name, file, outcomes, tmp_path):
    # channels chosen by their weights alone: then a loss acts through the fine-tuning only
    blind = {SelectionStudySettings: {"pruning.criterion": "magnitude"}}
    blind[SweepSettings] = {"criteria": ["magnitude"]}
    context = blind.get(kind, {}) if name in FITS else {}
    before, out = outcomes(kind, context)
    settings = tiny(kind, tmp_path / "run", file, **context)
    put(settings, name, OTHER[name])
    assert not is_unused(settings, name, unused_by(settings))
    dense_from(folder_of(tiny(kind, out, file, **context)), folder_of(settings))
    after = OUTCOMES[kind](settings)
    assert kind is not SanitySettings or before[0] == after[0]  # the dense network
    assert after != before


@pytest.mark.parametrize("kind", [Settings, SweepSettings], ids=lambda kind: kind.__name__)
@pytest.mark.slow
def test_equal_settings_have_equal_results(kind, file, outcomes, tmp_path):
    assert OUTCOMES[kind](tiny(kind, tmp_path / "run", file)) == outcomes(kind, {})[0]


def test_a_comparison_passes_every_setting_on(tmp_path):
    """What its jobs do with them is the main job's matter."""
    from egnn_prune.studies.comparison import jobs_of_seed

    base = ComparisonSettings(out=str(tmp_path))
    for name in names(Settings()):
        if is_unused(base, name, unused_by(base)) or name in PLACES | DATA:
            continue
        changed = ComparisonSettings(out=str(tmp_path))
        put(changed, name, OTHER[name])
        pairs = zip(*(jobs_of_seed(s, 0) for s in (base, changed)), strict=True)
        assert all(a != b for a, b in pairs), name
