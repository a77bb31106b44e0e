"""Examples in docstrings run, and print what they say that they print."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ase.build import molecule
from ase.md.verlet import VelocityVerlet
from torch_geometric.data import Batch
from trained_models import trained

from egnn_prune.errors import MissingExtraError

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "egnn_prune"


def modules() -> Iterator[str]:
    """Those with examples."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if ">>> " in path.read_text():
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name.removesuffix(".__init__")


def nothing(*_: Any, **__: Any) -> float:
    """Instead of a fit, which would take minutes."""
    return 0.0


def waters(count: int = 2) -> list[Any]:
    from small_potentials import labelled, water

    return [labelled(water(seed=k)) for k in range(count)]


def potential() -> torch.nn.Module:
    from small_potentials import potential

    return potential(torch.float32)


def of_fits() -> dict[str, Any]:
    from egnn_prune import training

    names = ("RegressionTask", "FitSettings", "graph_batches", "FitCheckpoint")
    given = {name: getattr(training, name) for name in names}
    given |= {"fit": nothing, "model": potential(), "build": potential, "graphs": waters()}
    given |= {"train": None, "task": None, "device": "cpu", "path": Path("fit")}
    return given | {"generator": torch.Generator().manual_seed(0)}


def of_pruning() -> dict[str, Any]:
    from egnn_prune import prune

    batches = [Batch.from_data_list(waters())]
    return {"model": potential(), "batches": batches, "prune": prune}


def of_tracing() -> dict[str, Any]:
    import torchvision

    import egnn_prune
    from egnn_prune import pruning
    from egnn_prune.adapters import TracedNetwork

    resnet = TracedNetwork(torchvision.models.resnet18(), torch.randn(2, 3, 64, 64))
    scores = {group.name: torch.rand(group.n) for group in resnet.channel_groups()}
    given = {"torchvision": torchvision, "egnn_prune": egnn_prune, "torch": torch}
    given |= {name: getattr(pruning, name) for name in ("apply_masks", "choose")}
    return {**given, "scores": scores}


def of_images() -> dict[str, Any]:
    from egnn_prune.adapters import TracedNetwork

    return {"TracedNetwork": TracedNetwork, "torch": torch}


def of_calculators() -> dict[str, Any]:
    import egnn_prune
    from egnn_prune.ase import PrunedCalculator

    folder = Path("runs/demo")
    about: dict[str, Any] = {"target": "energy", "unit": "eV"}
    about["validation_epistemic_std"] = {"q99": 100.0}
    folder.mkdir(parents=True)
    egnn_prune.save(trained(), folder / "pruned.safetensors", **about)
    atoms = molecule("CH3CH2OH")
    atoms.calc = PrunedCalculator(folder, on_uncertain="ignore")
    return {"atoms": atoms, "dynamics": VelocityVerlet(atoms, timestep=0.1)}


def of_many() -> dict[str, Any]:
    import ase.io

    given = of_calculators()
    ase.io.write("all.xyz", [given["atoms"], molecule("CH4")])
    return given | {"ase": ase}


def of_callbacks() -> dict[str, Any]:
    import lightning as L
    from torch import nn

    import egnn_prune

    class Task(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))

        def training_step(self, batch: Any, _: int) -> Any:
            return nn.functional.mse_loss(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.01)

    data = torch.utils.data.TensorDataset(torch.randn(64, 4), torch.randn(64, 1))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"accelerator": "cpu", "enable_model_summary": False}
    return {
        "task": Task(),
        "loader": torch.utils.data.DataLoader(data, 16),
        "Trainer": lambda **words: L.Trainer(**quiet, **words),
        "egnn_prune": egnn_prune,
    }


def of_specialists() -> dict[str, Any]:
    """A calculator whose arguments are compared with the real one's: teachers are slow."""
    import inspect

    from egnn_prune.ase import SpecialistCalculator

    return {
        "atoms": molecule("H2O"),
        "SpecialistCalculator": inspect.signature(SpecialistCalculator).bind,
    }


def of_adapters() -> dict[str, Any]:
    pytest.importorskip("sevenn", reason="SevenNet-0 comes with the extra sevennet")
    from egnn_prune import adapters

    names = ("load", "drop_odd_paths", "drop_species")
    return {"atoms": molecule("H2O"), **{name: getattr(adapters, name) for name in names}}


def of_audits() -> dict[str, Any]:
    from ase.calculators.emt import EMT

    frames = [molecule(name) for name in ("H2O", "CH4", "NH3")]
    return {"PrunedCalculator": lambda _: EMT(), "frames": frames}


def of_forces() -> dict[str, Any]:
    from trained_models import network

    from egnn_prune.ase.structures import graph_of
    from egnn_prune.uncertainty import draw_networks, dropout_samples

    given = {"dropout_samples": dropout_samples, "draw_networks": draw_networks}
    given |= {"model": network(torch.float32, dropout=0.2), "generator": torch.Generator()}
    return {**given, "batch": Batch.from_data_list([graph_of(molecule("CH3CH2OH"))])}


def of_networks() -> dict[str, Any]:
    from egnn_prune.graphs import cutoff_edges

    (graph,) = waters(1)
    graph.x, graph.edge_index = torch.randn(3, 5), cutoff_edges(graph.pos, 3.0)
    return {"batch": Batch.from_data_list([graph])}


def of_own_regressors() -> dict[str, Any]:
    """The user's network is one that gives a number for each graph."""
    from torch import nn
    from torch_geometric.loader import DataLoader
    from torch_geometric.nn import global_add_pool

    from egnn_prune.uncertainty import PredictionRigidity, calibrate

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 1)

        def forward(self, batch: Any) -> Any:
            return self.last(global_add_pool(self.first(batch.pos.float()).tanh(), batch.batch))[
                :, 0
            ]

    graphs = waters(40)
    for graph in graphs:
        graph.y = graph.pos.norm().reshape(1)
    loaders = {n: DataLoader(graphs, 20) for n in ("train_loader", "validation_loader")}
    given = {"PredictionRigidity": PredictionRigidity, "calibrate": calibrate, "network": Net()}
    return given | loaders | {"batch": Batch.from_data_list(graphs)}


#: What the examples of a module take as given.
GIVEN: dict[str, Callable[[], dict[str, Any]]] = {
    "egnn_prune.adapters.loading": of_adapters,
    "egnn_prune.adapters.own_regressor": of_own_regressors,
    "egnn_prune.adapters.traced": of_tracing,
    "egnn_prune.ase.adopted": of_adapters,
    "egnn_prune.ase.calculator": of_calculators,
    "egnn_prune.ase.guard": of_calculators,
    "egnn_prune.ase.many": of_many,
    "egnn_prune.ase.specialist": of_specialists,
    "egnn_prune.audit.auditing": of_audits,
    "egnn_prune.models.egnn": of_networks,
    "egnn_prune.models.forces": of_forces,
    "egnn_prune.models.irreps_net": of_networks,
    "egnn_prune.system.growing_file": lambda: {"folder": Path()},
    "egnn_prune.training.ensembles": of_fits,
    "egnn_prune.training.fit_checkpoint": of_fits,
    "egnn_prune.training.force_probes": of_pruning,
    "egnn_prune.training.pruning_callback": of_callbacks,
    "egnn_prune.vision.networks.registry": of_images,
}
#: Seconds each: SevenNet-0 is read, a ResNet traced, two calculators audited.
SLOW = {
    "egnn_prune.adapters.loading",
    "egnn_prune.adapters.traced",
    "egnn_prune.ase.adopted",
    "egnn_prune.audit.auditing",
}


def cases() -> list[Any]:
    slow = pytest.mark.slow
    return [pytest.param(name, marks=slow if name in SLOW else ()) for name in modules()]


@pytest.mark.parametrize("name", cases())
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        module = importlib.import_module(name)
    except MissingExtraError as error:
        pytest.skip(str(error))
    found = [t for t in doctest.DocTestFinder().find(module) if t.examples]
    assert found, f"{name} has >>> and no example that doctest finds"
    given = GIVEN.get(name, dict)()
    runner, said = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE), []
    for test in found:
        test.globs |= given
        runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)


def test_a_wrong_example_fails():
    parser, said = doctest.DocTestParser(), []
    test = parser.get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert doctest.DocTestRunner().run(test, out=said.append).failed == 1
