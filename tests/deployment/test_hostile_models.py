"""Model files from anywhere: damaged ones are said, absurd ones cost neither time nor memory."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from egnn_prune import load, load_estimator, save
from egnn_prune.deployment import checkpoint
from egnn_prune.deployment.checkpoint import read_header
from egnn_prune.deployment.model_header import CHECKSUM
from egnn_prune.errors import ConfigError, InputError, UncheckedFileWarning
from egnn_prune.models import IrrepsNet, MeanVarianceHead, PropertyModel, TargetScale
from egnn_prune.uncertainty import DeepEnsemble, MCDropout, SinglePass, calibrate

#: Seconds; building and reading takes a tenth of one, and nothing may wait for memory.
LONGEST = 15.0

# most of the files here are of a version that wrote no checksums: damage would be told by that
pytestmark = pytest.mark.filterwarnings("ignore::egnn_prune.errors.UncheckedFileWarning")


@pytest.fixture
def saved(make_property_model, make_batch, tmp_path) -> Path:
    model = make_property_model(dropout=0.2, radial=4)
    model.scale = TargetScale((0.1, 0.2, 0.3), shift=-2.0, scale=0.5)
    batch = make_batch(*[4] * 20)
    estimator = calibrate(MCDropout(model, 3), [batch], "robust")
    save(estimator, tmp_path / "m.safetensors", unit="eV")
    return tmp_path / "m.safetensors"


def irreps(path: Path) -> Path:
    trunk = IrrepsNet(3, copies=4, layers=1, lmax=1)
    save(SinglePass(PropertyModel(trunk, MeanVarianceHead(4, 4), (1, 6, 8), TargetScale())), path)
    return path


def rewritten(path: Path, *place: str | int, value: Any, old: bool = True) -> None:
    """Change an entry of the header; ``old``: as of a version that wrote no checksum."""
    header = copy.deepcopy(read_header(path))
    node = header
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    if old:
        del header[CHECKSUM]
        header["format"] = 1
    save_file(load_file(path), path, metadata={"egnn_prune": json.dumps(header)})


def refused(path: Path, read: Any = load) -> str:
    start = time.perf_counter()
    with pytest.raises(InputError) as caught:
        read(path)
    assert time.perf_counter() - start < LONGEST
    assert path.name in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_files_without_a_checksum_load(saved, make_batch):
    before = load_estimator(saved).predict(batch := make_batch(3, 5))
    rewritten(saved, "metadata", value={})
    assert CHECKSUM not in read_header(saved)
    with pytest.warns(UncheckedFileWarning, match=r"m\.safetensors is of a version that wrote no"):
        after = load_estimator(saved).predict(batch)
    assert torch.equal(before.mean, after.mean) and torch.equal(before.variance, after.variance)


def test_a_changed_header_has_another_checksum(saved):
    rewritten(saved, "architecture", "trunk", "options", "cutoff", value=3.0, old=False)
    assert "another checksum" in refused(saved)


def test_the_checksum_cannot_be_left_out(saved):
    header = {k: v for k, v in read_header(saved).items() if k != CHECKSUM}
    save_file(load_file(saved), saved, metadata={"egnn_prune": json.dumps(header)})
    assert "another checksum" in refused(saved)


HUGE = (10**5, 10**9, 10**30)


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize(
    "place",
    [
        ("trunk", "hidden"),
        ("trunk", "in_features"),
        ("trunk", "options", "radial"),
        ("trunk", "widths", 0, "message"),
        ("head", "hidden"),
        ("head", "members"),
    ],
    ids=lambda place: ".".join(map(str, place)),
)
def test_absurd_sizes_are_refused_before_there_is_memory_for_them(saved, place, value):
    rewritten(saved, "architecture", *place, value=value)
    said = refused(saved)
    assert "damaged" in said and ("GB of memory" in said or value < 10**9)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("embedding",), 10**9),
        (("options", "lmax"), 10**9),
        (("options", "bessel"), 10**9),
        (("widths", 0, "irreps"), "1000000000x0e+1000000000x1o"),
        (("widths", 0, "radial_mid"), 10**9),
    ],
    ids=lambda value: str(value),
)
def test_absurd_sizes_of_a_network_of_irreps(tmp_path, place, value):
    path = irreps(tmp_path / "m.safetensors")
    rewritten(path, "architecture", "trunk", *place, value=value)
    assert "damaged" in refused(path)


def test_absurdly_many_members(make_property_model, tmp_path):
    path = tmp_path / "m.safetensors"
    save(DeepEnsemble([make_property_model(), make_property_model()]), path)
    members = read_header(path)["architecture"]["members"]
    members[0]["architecture"]["head"]["members"] = 10**9
    rewritten(path, "architecture", "members", value=members)
    assert "damaged" in refused(path)
    rewritten(path, "architecture", "members", value=members[1:] * 1000, old=False)
    assert "damaged" in refused(path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("class",), ["EGNN"]),
        (("dtype",), "float8_e4m3fn"),
        (("dtype",), "save"),
        (("dtype",), "float64"),
        (("held",), 3),
        (("metadata",), None),
        (("metadata", "units"), "x"),
        (("metadata", "validation_epistemic_std"), 5),
        (("metadata", "validation_epistemic_std"), {"q99": [1]}),
        (("estimator", "settings", "seed"), 0.5),
        (("estimator", "settings", "seed"), 10**40),
        (("architecture", "scale", "scale"), float("nan")),
        (("architecture", "scale", "scale"), "x"),
        (("architecture", "scale", "scale"), 0.0),
        (("architecture", "scale", "per_element"), float("inf")),
        (("architecture", "scale", "per_element"), [[]]),
        (("architecture", "scale", "per_element"), [0.5]),
        (("architecture", "trunk", "widths", 0, "velocity"), -1),
        (("architecture", "head", "dropout"), 2.5),
        (("estimator", "settings", "seed"), float("nan")),
        (("estimator", "settings"), None),
        (("estimator", "class"), []),
        (("estimator", "calibration", "name"), "none"),
    ],
    ids=lambda value: str(value),
)
def test_a_header_that_says_nonsense(saved, dtype, place, value):
    if value == "float64" and dtype == torch.float64:
        value = "float32"
    rewritten(saved, *place, value=value)
    refused(saved, load_estimator)


def test_a_deeply_nested_header(saved):
    deep: list = []
    for _ in range(200):
        deep = [deep]
    rewritten(saved, "metadata", "x", value=deep)
    assert "nested more than 64 levels" in refused(saved)
    save_file(load_file(saved), saved, metadata={"egnn_prune": "[" * 100_000})
    assert "damaged" in refused(saved)


def test_absurdly_many_samples(saved):
    rewritten(saved, "estimator", "settings", "samples", value=10**8)
    said = refused(saved, load_estimator)
    assert "estimator.settings.samples is 100,000,000, more than 1,000" in said


def test_what_a_model_cannot_hold(saved, monkeypatch):
    tensors = load_file(saved)
    name = min(tensors)
    for kind in (torch.float8_e4m3fn, torch.complex64):
        save_file(tensors | {name: torch.zeros(2).to(kind)}, saved, metadata=stored(saved))
        assert f"{name} is of " in refused(saved)
    save_file(tensors, saved, metadata=stored(saved))
    monkeypatch.setattr(checkpoint, "MOST_TENSORS", 3)
    assert "tensors, more than 3" in refused(saved)


def stored(path: Path) -> dict[str, str]:
    return {"egnn_prune": json.dumps(read_header(path))}


def test_a_file_that_does_not_fit_into_memory(saved, monkeypatch):
    monkeypatch.setenv("EGNN_PRUNE_MEMORY_GB", "1e-6")
    assert "EGNN_PRUNE_MEMORY_GB" in refused(saved)
    for nonsense in ("0", "much", "nan"):
        monkeypatch.setenv("EGNN_PRUNE_MEMORY_GB", nonsense)
        with pytest.raises(ConfigError, match="positive number of GB"):
            load(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number(saved, value):
    tensors = load_file(saved)
    tensors["head.mean_out.weight"][0, 0] = value
    header = {k: v for k, v in read_header(saved).items() if k != CHECKSUM} | {"format": 1}
    save_file(tensors, saved, metadata={"egnn_prune": json.dumps(header)})
    assert "NaN or infinite weight (head.mean_out.weight)" in refused(saved)


def test_what_could_not_be_loaded_is_not_saved(make_property_model, tmp_path):
    model: nn.Module = make_property_model()
    model.scale = TargetScale(shift=float("nan"))
    with pytest.raises(InputError, match=r"cannot be saved: architecture\.scale\.shift is nan"):
        save(model, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())
