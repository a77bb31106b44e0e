"""Error bars of forces in model files: bit for bit, without, and damaged."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_adopted import potential, structures
from test_atom_pass import fitted
from trained_models import METHODS, calibrated

from egnn_prune import load_estimator, save
from egnn_prune.deployment.atom_pass import atom_pass
from egnn_prune.deployment.model_header import CHECKSUM
from egnn_prune.errors import InputError
from egnn_prune.uncertainty import AtomErrorBars, Estimator, PredictionRigidity, SinglePass

#: What is changed by hand is of a version that wrote no checksums.
pytestmark = pytest.mark.filterwarnings("ignore::egnn_prune.errors.UncheckedFileWarning")

KINDS = {
    "adopted": lambda: SinglePass(potential()),
    "rigidity": lambda: calibrated(PredictionRigidity(potential()).fit([structures(4, 5)])),
    "deep": lambda: METHODS["deep"](torch.float64),
    "deep, calibrated": lambda: calibrated(METHODS["deep"](torch.float64)),
    "dropout": lambda: METHODS["read-out dropout"](torch.float64),
}


def made(kind: str) -> Estimator:
    estimator = KINDS[kind]()
    several = "deep" in kind or kind == "dropout"
    method = getattr(estimator, "estimator", estimator)
    estimator.atoms = fitted(method, "members" if several else "distance")
    return estimator


@pytest.mark.parametrize("kind", KINDS)
def test_bit_for_bit_and_on_to_the_next_file(kind, tmp_path):
    estimator, batch = made(kind), structures(6, 5)
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    save(estimator, paths[0])
    again = load_estimator(paths[0])
    save(again, paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert type(again) is type(estimator) and again.atoms.elements == estimator.atoms.elements
    stated = []
    for each in (estimator, again):
        method = getattr(each, "estimator", each)
        found = atom_pass(method, batch, members=each.atoms.source == "members")
        std, distance = found.error_bars(each.atoms, batch.z)
        stated.append((std, distance, each.atoms.half_width(std, batch.z, 0.8)))
    assert all(torch.equal(a, b) for a, b in zip(*stated, strict=True))


def test_a_network_that_is_cast_keeps_its_error_bars(tmp_path):
    estimator, batch = made("adopted"), structures(6, 5)
    before, _ = atom_pass(estimator, batch).error_bars(estimator.atoms, batch.z)
    small = copy.deepcopy(estimator).to(torch.float32)
    save(small, tmp_path / "m.safetensors")
    again = load_estimator(tmp_path / "m.safetensors")
    after, _ = atom_pass(again, batch).error_bars(again.atoms, batch.z)
    torch.testing.assert_close(after, before, rtol=2e-3, atol=0)


def test_files_without_error_bars_of_forces_load(tmp_path):
    save(KINDS["rigidity"](), tmp_path / "m.safetensors")
    assert load_estimator(tmp_path / "m.safetensors").atoms is None


def test_what_was_not_fitted_is_not_saved(tmp_path):
    estimator = KINDS["adopted"]()
    estimator.atoms = AtomErrorBars()
    with pytest.raises(InputError, match="were not fitted"):
        save(estimator, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def broken(path, settings=None, **changed):
    """The file as a version without checksums wrote it, with other settings and tensors."""
    tensors = load_file(path)
    with safe_open(path, "pt") as archive:
        header = json.loads(archive.metadata()["egnn_prune"])
    del header[CHECKSUM]
    header["format"] = 1
    if settings is not None:
        header["estimator"]["atoms"] = settings
    for name, change in changed.items():
        key = f"estimator:atoms.{name.replace('__', '.')}"
        value = change(tensors[key])
        tensors = {k: v for k, v in tensors.items() if k != key}
        if value is not None:
            tensors[key] = value.contiguous()
    save_file(tensors, path, metadata={"egnn_prune": json.dumps(header)})


SETTINGS = [
    {"source": "luck", "elements": [1, 6, 8]},
    {"source": "distance", "elements": ["1", "6", "8"]},
    {"source": "distance", "elements": [1, 6]},
    {"source": "distance", "elements": [1, 6, 8, 9]},
    {"source": "distance", "elements": [1, 6, 6]},
    {"source": "distance", "elements": [1, 6, 10**9]},
    {"source": "distance", "elements": list(range(1, 100_000))},
    {"source": "distance", "elements": None},
    {"source": ["distance"], "elements": [1, 6, 8]},
    {"source": "distance", "elements": [1, 6, 8], "more": 1},
    {},
    [],
    "distance",
]
TENSORS = {
    "quantiles": [lambda v: v * torch.nan, lambda v: -v, lambda v: v[:, :5], lambda v: v.flip(1)],
    "distance__whitening": [lambda v: v[:2], lambda v: v / 0, lambda v: v.half(), lambda v: None],
    "distance__centre": [lambda v: v[..., :1], lambda v: v[:0], lambda v: v.flatten()],
    "distance__elements": [lambda v: v.double(), lambda v: v[:1]],
    "laws__all__exponent": [lambda v: v[:0], lambda v: v / 0, lambda v: None],
    "std_limit": [lambda v: 0 * v, lambda v: v[0], lambda v: v * torch.inf],
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("bars") / "m.safetensors"
    save(made("adopted"), path)
    return path


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: str(s)[:50])
def test_hostile_settings(saved, tmp_path, settings):
    path = tmp_path / "m.safetensors"
    path.write_bytes(saved.read_bytes())
    broken(path, settings)
    with pytest.raises(InputError, match="is damaged") as caught:
        load_estimator(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", TENSORS)
def test_hostile_tensors(saved, tmp_path, name):
    path = tmp_path / "m.safetensors"
    for change in TENSORS[name]:
        path.write_bytes(saved.read_bytes())
        broken(path, **{name: change})
        with pytest.raises(InputError, match="is damaged") as caught:
            load_estimator(path)
        assert "\n" not in str(caught.value)


def test_the_helper_breaks_nothing_else(saved, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(saved.read_bytes())
    broken(path, {"source": "distance", "elements": [1, 6, 8]}, std_limit=lambda v: 2 * v)
    assert load_estimator(path).atoms.std_limit == 2 * load_estimator(saved).atoms.std_limit
