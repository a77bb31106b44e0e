"""Potentials of others in files of this package, and as programs that run without it."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_adopted import ELEMENTS, SHIFTS, masked, potential, structures

from egnn_prune import compact, load, load_estimator, save
from egnn_prune.adapters import AdoptedPotential
from egnn_prune.deployment.checkpoint import from_config, read_header
from egnn_prune.deployment.export import DESCRIPTION, described, export_program, tensors
from egnn_prune.deployment.model_header import CHECKSUM
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.models import energy_and_forces, energy_forces_stress
from egnn_prune.pruning import keep_masks
from egnn_prune.uncertainty import DeepEnsemble, PredictionRigidity, SinglePass

#: What is changed by hand is of a version that wrote no checksums.
pytestmark = pytest.mark.filterwarnings("ignore::egnn_prune.errors.UncheckedFileWarning")

FORMS = {
    "dense": lambda model: model,
    "elements": lambda model: model,
    "masked": masked,
    "compact": lambda model: compact(masked(model)),
}


def build(form: str, dtype: torch.dtype) -> AdoptedPotential:
    kind = "elements" if form == "elements" else "linear"
    return FORMS[form](potential(dtype, self_connection=kind)).eval()


@pytest.mark.parametrize("form", FORMS)
def test_a_file_holds_it_bit_for_bit(form, dtype, tmp_path):
    """Shifts of float64 beside weights of float32, masks, and who made it."""
    model, batch = build(form, dtype), structures(5, 4, periodic=True)
    save(model, tmp_path / "m.safetensors", target="energy", unit="eV", teacher="7net-0")
    again = load(tmp_path / "m.safetensors")
    assert isinstance(again, AdoptedPotential) and not again.training
    assert again.scale == model.scale and again.elements == ELEMENTS
    assert again.kinds == model.kinds
    if form != "compact":
        assert again.scale.per_element == SHIFTS
    state = again.state_dict()
    assert list(state) == list(model.state_dict())
    for key, value in model.state_dict().items():
        assert value.dtype == state[key].dtype and torch.equal(value, state[key]), key
    assert keep_masks(again).keys() == keep_masks(model).keys()
    (a, *slopes), (b, *others) = (energy_forces_stress(m, batch) for m in (model, again))
    assert torch.equal(a.mean, b.mean) and all(map(torch.equal, slopes, others))
    assert read_header(tmp_path / "m.safetensors")["metadata"]["teacher"] == "7net-0"
    assert type(from_config(model)) is AdoptedPotential


def test_estimators_of_it(dtype, tmp_path):
    """Error bars travel with a potential; several make a committee."""
    batch = structures(5, 4, 6)
    rigid = PredictionRigidity(potential(dtype)).fit([batch])
    committee = SinglePass(DeepEnsemble([potential(dtype, seed) for seed in range(2)]))
    for model in (rigid, committee):
        save(model, tmp_path / "m.safetensors")
        found = TrainedModel.load(tmp_path / "m.safetensors", device="cpu")
        assert type(found.estimator) is type(model)
        assert found.has_error_bars and found.unit == "eV"
        a, b = model.predict(batch), found.estimator.predict(batch)
        assert torch.equal(a.mean, b.mean) and torch.equal(a.variance, b.variance)
        assert (a.variance > 0).all()


def test_a_potential_alone_says_nothing_of_its_errors(tmp_path):
    """Its zeros would claim certainty; its unit is known, whatever the file says of it."""
    path = tmp_path / "m.safetensors"
    save(potential(), path)
    assert type(load_estimator(path)) is SinglePass
    graphs = structures(5, 4).to_data_list()
    for model in (TrainedModel.load(path), TrainedModel.load(SinglePass(potential()))):
        assert not model.has_error_bars and model.unit == "eV" and model.is_potential
        first, _ = model.predict(graphs, forces=True, coverage=0.9)
        assert first.std is first.epistemic_std is first.ood_score is first.interval is None
        assert first.in_distribution is None and not first.beyond_threshold
        assert math.isfinite(first.mean) and first.forces.shape == (5, 3)
        assert first.converted(2.0, "x").mean == 2 * first.mean
        with pytest.raises(ConfigError, match="states no uncertainty, so there is nothing"):
            model.predict(graphs, threshold=1.0)
    with pytest.raises(ConfigError, match="contradicts"):
        TrainedModel.load(path, unit="kcal/mol")
    save(potential(), path, unit="kcal/mol")
    with pytest.raises(ConfigError, match="contradicts"):
        TrainedModel.load(path)


@pytest.fixture
def saved(tmp_path) -> Path:
    save(potential(), tmp_path / "m.safetensors", unit="eV")
    return tmp_path / "m.safetensors"


def rewritten(path: Path, *place: str | int, value: Any) -> None:
    header = read_header(path)
    node = header
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    del header[CHECKSUM]
    header["format"] = 1
    save_file(load_file(path), path, metadata={"egnn_prune": json.dumps(header)})


HUGE = 10**9
NONSENSE = [
    (("network_class",), "os.system"),
    (("network_class",), ["InteractionNetwork"]),
    (("network",), "x"),
    (("elements",), []),
    (("elements",), 5),
    (("elements",), [8, 1]),
    (("elements",), [8, 1, "C"]),
    (("elements",), [8, 1, 10**12]),
    (("elements",), [8, 1, 1]),
    (("kinds",), 3),
    (("kinds",), [["path"]]),
    (("scale", "per_element"), None),
    (("scale", "per_element"), [1.0]),
    (("scale", "per_element"), ["a", "b", "c"]),
    (("scale", "per_element"), [float("nan"), 0.0, 0.0]),
    (("scale", "scale"), 0.0),
    (("scale",), []),
    (("network", "species"), HUGE),
    (("network", "species"), "3"),
    (("network", "embedding"), HUGE),
    (("network", "readout"), [HUGE]),
    (("network", "readout"), "x"),
    (("network", "layers"), []),
    (("network", "layers", 0, "conv"), "1000000000x0e"),
    (("network", "layers", 0, "conv"), "4x1000000000e"),
    (("network", "layers", 0, "made"), "4x0e+2x1000000000e"),
    (("network", "layers", 0, "made"), "4x0e+1000000000x1e"),
    (("network", "layers", 0, "made"), 7),
    (("network", "layers", 0, "radial"), [HUGE, 4]),
    (("network", "layers", 0, "paths"), [["0e", HUGE, "1e", True]]),
    (("network", "layers", 0, "paths"), [["1000000000e", 1, "1e", True]]),
    (("network", "layers", 0, "paths"), [["0e"]]),
    (("network", "layers", 0, "paths"), [["0e", 0, "0e", True]] * 10**4),
    (("network", "options", "lmax"), HUGE),
    (("network", "options", "lmax"), 300),
    (("network", "options", "lmax"), 0),
    (("network", "options", "lmax"), "1"),
    (("network", "options", "radial", "bessel"), HUGE),
    (("network", "options", "radial", "cutoff"), float("inf")),
    (("network", "options", "radial", "cutoff"), 0.0),
    (("network", "options", "radial", "cutoff"), "3"),
    (("network", "options", "radial", "envelope"), "exec"),
    (("network", "options", "activations", "even", "name"), "system"),
    (("network", "options", "self_connection"), "all"),
]


@pytest.mark.parametrize(("place", "value"), NONSENSE, ids=lambda value: str(value)[:50])
def test_a_damaged_file_is_refused_in_a_sentence(saved, place, value):
    rewritten(saved, "architecture", *place, value=value)
    start = time.perf_counter()
    with pytest.raises(InputError) as caught:
        load(saved)
    assert time.perf_counter() - start < 5.0
    assert "damaged" in str(caught.value) and "\n" not in str(caught.value)


# torch 2.11 says so of its own reader of .pt2 files
@pytest.mark.filterwarnings("ignore:The given buffer is not writable")
@pytest.mark.slow  # by default test_export.py traces a network of ours
@pytest.mark.parametrize("stress", [False, True], ids=["forces", "stress"])
def test_a_program_of_any_size(stress, tmp_path):
    """Molecules, and cells with stress; of a compact network that lacks paths."""
    model, dtype = build("compact", torch.float32), torch.float64
    assert not all(path[3] for layer in model.network.layers for path in layer.shape.paths)
    extra = {DESCRIPTION: ""}
    path = export_program(model, tmp_path / "m.pt2", stress=stress)
    program = torch.export.load(path, extra_files=extra).module()
    about = json.loads(extra[DESCRIPTION])
    assert about == described(model, stress=stress)
    assert about["elements"] == list(ELEMENTS) and ("cell" in about["inputs"]) == stress
    for sizes in ((5, 4), (1,), (2, 1), (9,)):
        batch = structures(*sizes, periodic=stress)
        run = energy_forces_stress if stress else energy_and_forces
        prediction, *slopes = run(model, batch)
        energy, variance, *found = program(*tensors(model, batch, stress))
        assert energy.dtype == dtype and not variance.any()
        assert torch.allclose(energy, prediction.mean, rtol=1e-9)
        for a, b in zip(found, slopes, strict=True):
            assert a.shape == b.shape
            assert (a - b).abs().max() <= 1e-5 * max(1.0, float(b.abs().max()))


def test_stress_without_cells_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="stress is exported with forces"):
        export_program(potential(), tmp_path / "m.pt2", forces=False, stress=True)
    with pytest.raises(DataError, match="stress needs periodic graphs"):
        tensors(potential(), structures(3), stress=True)
    assert not list(tmp_path.iterdir())
