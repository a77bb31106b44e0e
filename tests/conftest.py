"""What all tests share: both precisions, and small random graphs and models."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import pytest

# before torch is imported: threads that spin while they wait would take the other process's time
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from egnn_prune.channels import dropout_masks, gates
from egnn_prune.graphs import complete_edges
from egnn_prune.models import EGNN, EGNNOptions, PropertyModel

SCRIPTS = Path(__file__).parents[1] / "scripts"
ELEMENTS = (1, 6, 8)
FEATURES = 5


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Every test that computes runs in both precisions."""
    return request.param


@pytest.fixture
def tolerance(dtype: torch.dtype) -> float:
    """How well numbers must agree, relative to their scale."""
    return 1e-5 if dtype == torch.float32 else 1e-10


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The tests' tensors are small: threads would only wait for each other.

    Results must not depend on it, though: OMP_NUM_THREADS=2 runs the tests with two.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Parsed files go to a folder of the tests' own, never to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EGNN_PRUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def short_jobs() -> Iterator[None]:
    """Jobs in the tests measure latencies briefly, and draw few molecules in few pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("egnn_prune.report.common.style.DPI", 40)
        patch.setattr("egnn_prune.evaluation.model_comparison.LATENCY_REPEATS", 2)
        patch.setattr("egnn_prune.evaluation.uncertainty_scores.GALLERY", 2)
        yield


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Main jobs without their figures, which take a third of the time and are drawn elsewhere."""
    monkeypatch.setattr("egnn_prune.pipeline.main_job.write_report", lambda *_: None)


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """``load_script(name)``: a file of scripts/ as a module, without the seconds of a process."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def call_script(
    load_script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str, str]]:
    """``call_script(name, *arguments)``: exit code, stdout and stderr of a script's ``main``."""

    def call(name: str, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        try:
            load_script(name).main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def random_graph(
    nodes: int, n: int, dtype: torch.dtype, edge_features: int, generator: torch.Generator
) -> Data:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    graph = Data(pos=1.2 * max(nodes, 2) ** (1 / n) * normal(nodes, n))
    kinds = torch.randint(len(ELEMENTS), (nodes,), generator=generator)
    kinds[: len(ELEMENTS)] = torch.arange(len(ELEMENTS))[:nodes]
    graph.z = torch.tensor(ELEMENTS)[kinds]
    graph.x = normal(nodes, FEATURES)
    graph.vel = normal(nodes, n)
    graph.y = normal(1)
    if edge_features:
        graph.edge_index = complete_edges(torch.tensor([0, nodes]))
        graph.edge_attr = normal(graph.edge_index.shape[1], edge_features)
    return graph


@pytest.fixture
def make_batch(dtype: torch.dtype) -> Callable[..., Batch]:
    """``make_batch(*sizes, n=3, edge_features=0, seed=0)``: random graphs with all attributes."""

    def make(*sizes: int, n: int = 3, edge_features: int = 0, seed: int = 0) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        return Batch.from_data_list(
            [random_graph(size, n, dtype, edge_features, generator) for size in sizes]
        )

    return make


def enlivened(model: nn.Module) -> nn.Module:
    """The model with moves of a visible length: by default the first steps are tiny."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("position_out.weight"):
                parameter.mul_(300.0)
    return model.eval()


@pytest.fixture
def make_egnn(dtype: torch.dtype) -> Callable[..., EGNN]:
    """``make_egnn(hidden=16, layers=2, **options)``: reads ``x`` with FEATURES columns."""

    def make(hidden: int = 16, layers: int = 2, **options: object) -> EGNN:
        torch.manual_seed(1)
        return enlivened(EGNN(FEATURES, hidden, layers, **options).to(dtype))

    return make


@pytest.fixture
def make_property_model(dtype: torch.dtype) -> Callable[..., PropertyModel]:
    """``make_property_model(hidden=16, layers=2, members=1, pool="sum", **options)``.

    With ``in_features`` it reads ``x`` instead of elements.
    """

    def make(
        hidden: int = 16,
        layers: int = 2,
        members: int = 1,
        pool: str = "sum",
        in_features: int = 0,
        **options: object,
    ) -> PropertyModel:
        torch.manual_seed(1)
        model = PropertyModel.build(
            () if in_features else ELEMENTS,
            in_features=in_features,
            hidden=hidden,
            layers=layers,
            members=members,
            pool=pool,
            readout_dropout=options.get("dropout", 0.0),
            options=EGNNOptions(**options),
        )
        return enlivened(model.to(dtype))

    return make


@pytest.fixture
def draw_thinning() -> Iterator[Callable[..., None]]:
    """``draw_thinning(model, samples, seed)``: the same seed draws the same MC-dropout samples.

    They stay until the test ends.
    """
    with ExitStack() as stack:

        def draw(model: nn.Module, samples: int, seed: int = 0) -> None:
            generator = torch.Generator().manual_seed(seed)
            masks = {gate: gate.draw(samples, generator) for _, gate in gates(model)}
            stack.enter_context(dropout_masks(masks))

        yield draw


@pytest.fixture
def assert_close(tolerance: float) -> Callable[..., None]:
    """``assert_close(a, b)``: tensors equal to rounding, relative to the largest entry."""

    def check(a: Tensor, b: Tensor, tolerance: float = tolerance) -> None:
        assert a.shape == b.shape
        assert a.isfinite().all()
        error = (a - b).abs().max() / b.abs().max().clamp(min=1e-3)
        assert error <= tolerance, f"differs by {error:.1e} of its scale"

    return check
