"""Exported programs: of any size, without this package, with the model's numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from trained_models import last_layer

from egnn_prune import prune
from egnn_prune.api.pruning import compact
from egnn_prune.deployment.export import (
    DESCRIPTION,
    described,
    export_onnx,
    export_program,
    tensors,
)
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.graphs import neighbours
from egnn_prune.models import (
    EGNN,
    EGNNOptions,
    IrrepsOptions,
    MeanVarianceHead,
    PropertyModel,
    TargetScale,
    energy_and_forces,
)
from egnn_prune.uncertainty import DeepEnsemble, MCDropout, SinglePass, calibrate

# torch 2.11 says so of its own reader of .pt2 files
pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable")

ELEMENTS = (1, 6, 8)
CUTOFF = 3.0
SIZES = ((5, 4), (3,), (1,), (2,), (6, 1, 7), (20,), (2, 1))
SCALE = TargetScale((-13.6, -1030.0, -2040.0), 0.5, 8.0)


def egnn(
    dtype: torch.dtype, seed: int = 0, hidden: int = 6, members: int = 1, layers: int = 2, **options
) -> PropertyModel:
    torch.manual_seed(seed)
    model = PropertyModel.build(
        ELEMENTS,
        hidden=hidden,
        layers=layers,
        members=members,
        options=EGNNOptions(**options),
        scale=SCALE,
    )
    if layers > 1:  # the last one does not move atoms
        model.trunk.layers[0].position_out.weight.data.mul_(100.0)
    return model.to(dtype).eval()


def irreps(dtype: torch.dtype) -> PropertyModel:
    torch.manual_seed(0)
    model = PropertyModel.build_irreps(
        ELEMENTS,
        copies=2,
        layers=2,
        radial=4,
        hidden=4,
        options=IrrepsOptions(cutoff=CUTOFF, lmax=1, parity=False),
        scale=SCALE,
    )
    return model.to(dtype).eval()


def structures(*sizes: int, periodic: bool = False, spacing: float = 1.5) -> Batch:
    generator = torch.Generator().manual_seed(len(sizes))
    graphs = []
    for size in sizes:
        places = torch.rand(size, 3, generator=generator, dtype=torch.float64)
        graph = Data(pos=spacing * size ** (1 / 3) * places)
        graph.z = torch.tensor(ELEMENTS)[torch.arange(size) % 3]
        if periodic:
            graph.cell = (2.0 + 0.3 * torch.arange(9.0, dtype=torch.float64).view(1, 3, 3)).tril()
            graph.pbc = torch.ones(1, 3, dtype=torch.bool)
        graphs.append(graph)
    return Batch.from_data_list(graphs)


def assert_same(
    program: object, model: torch.nn.Module, batch: Batch, tolerance: float, floor: float = 1e-12
) -> None:
    prediction, force = energy_and_forces(model, batch)
    found = program(*tensors(model, batch))
    for a, b in zip(found, (prediction.mean, prediction.variance, force), strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance * b.abs().max().clamp(min=floor)


def build(kind: str, dtype: torch.dtype) -> torch.nn.Module:
    if kind == "egnn":
        return egnn(dtype, cutoff=CUTOFF, attention=True, radial=4)
    if kind == "irreps":
        return irreps(dtype)
    if kind == "shallow":
        return egnn(dtype, members=3, hidden=4, cutoff=CUTOFF)
    if kind == "irreps-pruned":
        return compact(prune(irreps(dtype), "magnitude", 0.4)).eval()
    assert kind == "egnn-pruned"
    return compact(prune(egnn(dtype, hidden=8, cutoff=CUTOFF), "magnitude", 0.5)).eval()


KINDS = ["egnn", "egnn-pruned", "irreps", "irreps-pruned", "shallow"]
SLOW = [pytest.param(kind, torch.float32, marks=pytest.mark.slow) for kind in KINDS[1:]]
SLOW += [pytest.param(kind, torch.float64, marks=pytest.mark.slow) for kind in KINDS]


@pytest.mark.parametrize("kind, dtype", [("egnn", torch.float32), *SLOW])
def test_any_size(kind, dtype, tmp_path):
    """Other sizes than it was traced with: one graph, one atom, one edge, sizes that are widths."""
    model, tolerance = build(kind, dtype), 1e-5 if dtype == torch.float32 else 1e-10
    path = export_program(model, tmp_path / "model.pt2")
    extra = {DESCRIPTION: ""}
    program = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra[DESCRIPTION]) == described(model)
    assert described(model) == {
        "inputs": ["z", "pos", "edge_index", "batch", "edge_shift"],
        "outputs": ["energy", "variance", "forces"],
        "elements": [1, 6, 8],
        "cutoff": CUTOFF,
        "error_bars": True,
    }
    for sizes in SIZES:
        assert_same(program, model, structures(*sizes), tolerance)
    assert structures(2).pos.diff(dim=0).norm() < CUTOFF  # two edges
    assert_same(program, model, structures(3, 1, 5, periodic=True), tolerance)
    # a list with a skin is as good
    batch = structures(9)
    z, pos, _, graph, _ = tensors(model, batch)
    edge_index, _ = neighbours(pos, 2 * CUTOFF)
    assert edge_index.shape[1] > tensors(model, batch)[2].shape[1]
    skin = program(z, pos, edge_index, graph, pos.new_zeros(edge_index.shape[1], 3))
    assert (skin[2] - energy_and_forces(model, batch)[1]).abs().max() < 10 * tolerance
    with pytest.raises(RuntimeError, match="atomic number is not one of the model's"):
        program(*tensors_of_gold(batch, model))


def tensors_of_gold(batch: Batch, model: torch.nn.Module) -> tuple[Tensor, ...]:
    z, *others = tensors(model, batch)
    return torch.full_like(z, 79), *others


RUN = """
import sys
class Blocked:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("egnn_prune", "torch_geometric", "e3nn"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
try:
    import egnn_prune
except ImportError:
    import torch
    program = torch.export.load(sys.argv[1]).module()
    torch.save([program(*inputs) for inputs in torch.load(sys.argv[2])], sys.argv[3])
"""


def test_without_this_package(tmp_path):
    """A pruned model of all pairs in a Python that has torch alone."""
    model = compact(prune(egnn(torch.float64, hidden=8, layers=1), "magnitude", 0.5)).eval()
    path = export_program(model, tmp_path / "model.pt2", example=structures(3, 8))
    assert described(model)["inputs"] == ["z", "pos", "edge_index", "batch"]
    batches = [structures(*sizes) for sizes in ((6, 3), (7,), (1,))]
    torch.save([tensors(model, batch) for batch in batches], tmp_path / "in.pt")
    files = [str(path), str(tmp_path / "in.pt"), str(tmp_path / "out.pt")]
    subprocess.run([sys.executable, "-c", RUN, *files], check=True, cwd=tmp_path)
    for batch, found in zip(batches, torch.load(files[2]), strict=True):
        assert_same(lambda *_, found=found: found, model, batch, 1e-10)


def test_error_bars_of_the_last_layer(tmp_path):
    """Of a specialist: the number of graphs stays free, also where opt_einsum is installed."""
    model = last_layer(torch.float64)
    path = export_program(model, tmp_path / "bars.pt2", forces=False)  # traced sooner
    program = torch.export.load(path).module()
    for sizes in ((5, 4), (1,), (6, 1, 7)):
        batch = structures(*sizes)
        prediction, found = model(batch), program(*tensors(model, batch))
        for a, b in zip(found, (prediction.mean, prediction.variance), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_calibrated_ensembles(dtype, tmp_path, tolerance):
    """Variances are the estimator's: of all members, calibrated."""
    ensemble = DeepEnsemble(
        [egnn(dtype, seed, 4, cutoff=cutoff) for seed, cutoff in enumerate((CUTOFF, 2.0))]
    )
    batch = structures(*range(2, 14))
    noise = 3.0 * torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    batch.y = ensemble(batch).mean.detach() + noise
    model = calibrate(SinglePass(ensemble), [batch], "variance")
    program = torch.export.load(export_program(model, tmp_path / "both.pt2")).module()
    assert described(model)["cutoff"] == CUTOFF  # the longest
    for sizes in SIZES:
        assert_same(program, model, structures(*sizes), tolerance)
    assert not torch.allclose(model(batch).variance, ensemble(batch).variance, rtol=0.05)


def test_energies_alone_of_node_features(tmp_path):
    """Models of ``x``, and no forces: the program is smaller."""
    model = PropertyModel(EGNN(3, 4, 1), MeanVarianceHead(4, 4, pool="mean")).double().eval()
    path = export_program(model, tmp_path / "x.pt2", forces=False)
    batch = structures(5)
    batch.x = torch.randn(5, 3, dtype=torch.float64)
    energy, variance = torch.export.load(path).module()(*tensors(model, batch))
    assert described(model, forces=False)["outputs"] == ["energy", "variance"]
    assert described(model)["inputs"][0] == "x"
    assert torch.allclose(energy, model(batch).mean) and (variance > 0).all()


def test_what_cannot_be_exported(tmp_path, monkeypatch):
    path = tmp_path / "model.pt2"
    model = egnn(torch.float32, cutoff=CUTOFF)
    with pytest.raises(ConfigError, match=r"must end in \.pt2, not model\.onnx"):
        export_program(model, tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match="Monte Carlo dropout cannot be exported"):
        export_program(MCDropout(egnn(torch.float32, dropout=0.2)), path)
    with pytest.raises(ConfigError, match="edge features or velocities"):
        export_program(egnn(torch.float32, velocity=True), path)
    with pytest.raises(ConfigError, match="not Linear"):
        export_program(torch.nn.Linear(2, 2), path)
    with pytest.raises(ConfigError, match="a model without a cutoff is exported for molecules"):
        tensors(egnn(torch.float32), structures(3, periodic=True))
    with monkeypatch.context() as patch:
        patch.setattr(PropertyModel, "forward", refuse)
        with pytest.raises(ConfigError, match=r"^torch.export cannot express this model: no such"):
            export_program(model, path)
    monkeypatch.setattr("egnn_prune.deployment.export._exported", lambda *_: broken_program(model))
    with pytest.raises(InputError, match="exported energy differ from the model's"):
        export_program(model, path)
    assert not path.exists()


def refuse(*_: object) -> None:
    raise RuntimeError("no such operator\nand many lines more")


def broken_program(model: PropertyModel) -> tuple[object, tuple[Tensor, ...]]:
    """What the exporter returns, with wrong energies."""
    batch = structures(3)
    prediction, force = energy_and_forces(model, batch)
    outputs = (prediction.mean + 1.0, prediction.variance, force)
    return SimpleNamespace(module=lambda: lambda *_: outputs), tensors(model, batch)


# ONNX ---------------------------------------------------------------------------------------------


def test_onnx_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"pip install 'egnn_prune\[onnx\]'") as caught:
        export_onnx(egnn(torch.float32), tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_onnx(kind, dtype, tmp_path):
    pytest.importorskip("onnxscript", reason="the extra [onnx] is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    model = build(kind, dtype)
    path = export_onnx(model, tmp_path / "model.onnx")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map[DESCRIPTION])
    assert about == described(model)

    def program(*inputs: Tensor) -> list[Tensor]:
        feed = {n: value.numpy() for n, value in zip(about["inputs"], inputs, strict=True)}
        return [torch.from_numpy(out) for out in session.run(about["outputs"], feed)]

    for sizes in SIZES:  # constants of the graph are float32, also where weights are float64
        assert_same(program, model, structures(*sizes), 1e-5, floor=0.1)
    assert_same(program, model, structures(3, 1, 5, periodic=True), 1e-5)
    # a graph of operators cannot raise an error
    assert all(out.isnan().all() for out in program(*tensors_of_gold(structures(4), model)))
