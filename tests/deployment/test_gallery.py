"""Models that earlier versions saved load, and predict what they predicted then."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch_geometric.data import Batch, Data

from egnn_prune import forces, load, load_estimator
from egnn_prune.deployment.checkpoint import read_header
from egnn_prune.deployment.file_format import FORMAT, MIGRATIONS
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.errors import UncheckedFileWarning

GALLERY = Path(__file__).parent / "gallery"
FILES = sorted(GALLERY.glob("*/*.safetensors"))
#: Agreement with the numbers of then, relative to the largest.
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}


def graphs(arrays: dict[str, np.ndarray], dtype: torch.dtype) -> Batch:
    """The inputs in an ``.npz``: atoms of graph k are rows ``ptr[k]:ptr[k + 1]``."""
    found = []
    for k, (a, b) in enumerate(zip(arrays["ptr"], arrays["ptr"][1:], strict=False)):
        graph = Data(pos=torch.from_numpy(arrays["pos"][a:b]).to(dtype))
        if "z" in arrays:
            graph.z = torch.from_numpy(arrays["z"][a:b])
        for name in ("x", "vel"):
            if name in arrays:
                graph[name] = torch.from_numpy(arrays[name][a:b]).to(dtype)
        if "cell" in arrays:
            graph.cell = torch.from_numpy(arrays["cell"][k : k + 1]).to(dtype)
            graph.pbc = torch.from_numpy(arrays["pbc"][k : k + 1])
        found.append(graph)
    return Batch.from_data_list(found)


def test_the_gallery_is_there():
    assert len(FILES) >= 4
    assert {read_header(path)["class"] for path in FILES} >= {"PropertyModel", "DeepEnsemble"}


def test_every_version_is_in_the_gallery_and_read_as_the_newest():
    stored = set()
    for path in FILES:
        with safe_open(path, "pt") as archive:
            stored.add(json.loads(archive.metadata()["egnn_prune"])["format"])
        assert read_header(path)["format"] == FORMAT
    assert stored == {*MIGRATIONS, FORMAT}


def test_the_quantile_of_validation_under_its_earlier_name():
    path = GALLERY / "format1-checked/rigidity_robust.safetensors"
    assert TrainedModel.load(path).ood_threshold == 0.25
    assert "validation_doubt" not in read_header(path)["metadata"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_saved_model_predicts_what_it_predicted(path: Path, agrees: Callable[..., None]):
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    precision = read_header(path)["dtype"]
    with pytest.warns(UncheckedFileWarning) if path.parent.name == "v0.1" else nullcontext():
        estimator = load_estimator(path)
    batch = graphs(arrays, getattr(torch, precision))
    prediction = estimator.predict(batch)
    found = {"mean": prediction.mean, "variance": prediction.variance}
    if "low" in arrays:
        found["low"], found["high"] = estimator.interval(batch, 0.9)
    if "forces" in arrays:
        with warnings.catch_warnings(action="ignore", category=UncheckedFileWarning):
            found["forces"] = forces(load(path), batch)
    for name, value in found.items():
        agrees(name, value, arrays[name], TOLERANCE[precision])


@pytest.fixture
def agrees() -> Callable[..., None]:
    def check(name: str, value: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
        value = value.detach().double().numpy()
        assert value.shape == expected.shape, name
        error = np.abs(value - expected).max() / np.abs(expected).max()
        assert error <= tolerance, f"{name} differs by {error:.1e} of its scale"

    return check
