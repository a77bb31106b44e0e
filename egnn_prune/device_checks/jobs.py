"""Training on a device: the main job, fine-tuning on selected graphs, forces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase
import ase.io
import numpy as np
import torch
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from egnn_prune.api import pruning as api
from egnn_prune.configs.settings import Settings
from egnn_prune.data.local import local_data
from egnn_prune.device_checks.checking import CheckContext, Found, require
from egnn_prune.device_checks.graphs import egnn, molecules
from egnn_prune.evaluation.predict import point_predictions, predict_all, targets
from egnn_prune.pipeline.main_job import run
from egnn_prune.pruning import keep_masks
from egnn_prune.report import comparison_table
from egnn_prune.selection import select
from egnn_prune.system.files import read_json
from egnn_prune.uncertainty import MCDropout

ETHANOL = "molecules/rmd17/rmd17_ethanol.npz"


def settings_for(context: CheckContext, name: str) -> Settings:
    """Settings of a job on the device, small where the checks are quick."""
    settings = Settings(out=str(context.folder / name), device=str(context.device))
    if context.quick:
        settings.data.limit = 60
        settings.model.hidden, settings.model.layers, settings.model.radial = 8, 2, 4
        settings.pruning.scope = "group"
        settings.training.batch_size = 12
    return settings


def scored(settings: Settings, found: Found) -> dict[str, Any]:
    """Run a job; its numbers go into ``found``, and it must have used the device."""
    folder = run(settings)
    metrics: dict[str, Any] = read_json(folder / "metrics.json")
    for name in ("dense", "pruned", "scratch"):
        for key in ("test_mae", "test_force_mae", "latency_ms", "equivariance_error"):
            value = metrics["models"].get(name, {}).get(key)
            if value is not None:
                found[f"{name} {key}"] = value
                require(bool(np.isfinite(value)), f"{key} of {name} is not finite")
    found["table"] = {"text": comparison_table(metrics)}
    require(metrics["device"].split(":")[0] == settings.device.split(":")[0], "another device")
    for name, model in metrics["models"].items():
        require(model["equivariance_error"] < 1e-4, f"{name} is not equivariant")
    for file in ("dense.safetensors", "pruned.safetensors", "report.html"):
        require((folder / file).is_file(), f"{file} is missing")
    return metrics


def main_job(context: CheckContext, found: Found) -> None:
    """The main job, end to end, with fewer epochs than by default."""
    settings = settings_for(context, "main")
    settings.uncertainty.samples = context.pick(20, 2)
    settings.training.max_epochs = context.pick(6, 2)
    settings.training.finetune_epochs = context.pick(4, 1)
    metrics = scored(settings, found)
    found["train_seconds"] = metrics["models"]["dense"]["train_seconds"]
    models = metrics["models"]
    require(models["pruned"]["params"] < models["dense"]["params"], "the pruned one is no smaller")


def forces(context: CheckContext, found: Found) -> None:
    """A potential: ethanol of rMD17 where it is at hand, else metal clusters with EMT's forces."""
    settings = settings_for(context, "forces")
    given = None if context.quick else local_data(ETHANOL)
    if given:
        settings.data.name, settings.data.subset = "rmd17", "ethanol"
        settings.data.path, settings.data.limit = str(given), 500
    else:
        path = context.folder / "clusters.xyz"
        write_clusters(path, context.pick(400, 100))
        settings.data.name, settings.data.path = "extxyz", str(path)
    found["data"] = settings.data.name
    settings.uncertainty.method = "shallow"
    settings.uncertainty.members = context.pick(5, 2)
    settings.training.force_weight, settings.training.scratch = 10.0, False
    settings.training.max_epochs = context.pick(10, 1)
    settings.training.finetune_epochs = context.pick(4, 1)
    scored(settings, found)
    require("pruned test_force_mae" in found, "no force was measured")


def write_clusters(path: Path, frames: int) -> None:
    """Shaken tetrahedra of copper and nickel with energies and forces of EMT."""
    random = np.random.default_rng(0)
    corners = 1.7 * np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1]])
    structures = []
    for _ in range(frames):
        atoms = ase.Atoms("Cu2Ni2", positions=corners + random.normal(scale=0.15, size=(4, 3)))
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        structures.append(atoms)
    ase.io.write(path, structures, format="extxyz")


def selected_graphs(context: CheckContext, found: Found) -> None:
    """Uncertain graphs are found and fine-tuned on; the loss falls, what is pruned stays zero."""
    train = molecules().split("train")[: context.pick(2000, 60)]
    model = egnn(context, readout_dropout=0.1)
    estimator = MCDropout(model, samples=context.pick(20, 3), seed=0)
    epistemic_std = predict_all(estimator, train, context.device, "uncertainty").epistemic.sqrt()
    chosen = select(epistemic_std, "top", fraction=0.3, generator=torch.Generator().manual_seed(0))
    least = float(epistemic_std[chosen].min())
    rest = torch.ones(len(train), dtype=torch.bool)
    rest[chosen] = False
    require(
        least >= float(epistemic_std[rest].max()),
        "the selected graphs are not the most uncertain ones",
    )
    graphs = [train[int(i)] for i in chosen]
    loader = DataLoader(graphs, 32, shuffle=True)
    sample = [Batch.from_data_list(graphs[:32]).to(context.device)]
    pruned = api.prune(model.to(context.device), "taylor", 0.5, data=sample, scope="group")
    masks = keep_masks(pruned)
    y = targets(graphs)
    before = float((point_predictions(pruned, graphs, context.device) - y).abs().mean())
    api.fine_tune(pruned, loader, steps=context.pick(300, 20), device=str(context.device))
    after = float((point_predictions(pruned, graphs, context.device) - y).abs().mean())
    found |= {"graphs": len(graphs), "mae before": before, "mae after": after}
    again = keep_masks(pruned)
    same = all(bool((masks[k].cpu() == again[k].cpu()).all()) for k in masks)
    require(same, "fine-tuning changed the masks")
    small = api.compact(pruned)
    difference = (
        point_predictions(small, graphs, context.device)
        - point_predictions(pruned, graphs, context.device)
    ).abs()
    found["masked - compact"] = float(difference.max() / y.abs().max())
    require(found["masked - compact"] < 1e-5, "masked and compact network differ")
    require(after < before, "the error on the selected graphs did not fall")
