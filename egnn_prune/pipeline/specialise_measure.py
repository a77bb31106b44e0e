"""Potentials side by side: errors, time, memory, steps of dynamics and symmetry, in one run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from tqdm import tqdm

from egnn_prune.ase import PrunedCalculator
from egnn_prune.ase.dynamics import set_thermal_velocities
from egnn_prune.evaluation.equivariance import symmetry_errors
from egnn_prune.models import energy_and_forces, energy_forces_stress
from egnn_prune.pruning.memory import peak_memory
from egnn_prune.system.timing import alternating_medians
from egnn_prune.uncertainty import SinglePass

#: Atoms of the batch whose latency is measured, at least, and of a batch that is predicted.
LATENCY_ATOMS, BATCH_ATOMS = 100, 400
#: Timed passes of each model, by turns; steps of dynamics likewise.
REPEATS, WARMUP = 12, 2
#: Structures that symmetry is judged on, and changes of view.
SYMMETRY_GRAPHS, VIEWS = 4, 3
#: Femtoseconds and Kelvin of the dynamics that is timed.
TIME_STEP, TEMPERATURE = 0.5, 300.0


@dataclass(frozen=True)
class Predicted:
    """What a potential says of many structures, one after another, in eV and Angstrom.

    Attributes:
        energies: ``[B]``.
        forces: ``[sum N, 3]``.
        stress: ``[B, 3, 3]``; ``None`` where a structure is not periodic.
    """

    energies: Tensor
    forces: Tensor
    stress: Tensor | None


def predicted(
    model: nn.Module, graphs: Sequence[Data], device: torch.device, label: str = "predicting"
) -> Predicted:
    """Energies and forces of graphs in their order, and stresses where all are periodic."""
    model = model.to(device).eval()
    stressed = all(g.get("pbc") is not None and bool(g.pbc.all()) for g in graphs)
    size = max(1, BATCH_ATOMS // max(len(g.pos) for g in graphs))
    found: list[list[Tensor]] = []
    for batch in tqdm(DataLoader(list(graphs), size), label, leave=False, delay=2):
        outputs = (energy_forces_stress if stressed else energy_and_forces)(model, batch.to(device))
        parts = [outputs[0].mean, *outputs[1:]]
        found.append([part.detach().double().cpu() for part in parts])
    model.to("cpu")
    energies, forces, *stress = (torch.cat(column) for column in zip(*found, strict=True))
    return Predicted(energies, forces, stress[0] if stress else None)


def errors(found: Predicted, graphs: Sequence[Data]) -> dict[str, float | None]:
    """Errors of forces, energies and, where labelled, stresses, in meV and Angstrom."""
    force = 1000 * (found.forces - torch.cat([g.forces for g in graphs]).double())
    atoms = torch.tensor([len(g.pos) for g in graphs])
    energy = 1000 * (found.energies - torch.cat([g.y for g in graphs]).double()) / atoms
    stress = None
    if found.stress is not None and all(g.get("stress") is not None for g in graphs):
        wanted = torch.cat([g.stress.reshape(1, 3, 3) for g in graphs]).double()
        stress = 1000 * float((found.stress - wanted).square().mean().sqrt())
    return {
        "force_rmse_mev_per_angstrom": float(force.square().mean().sqrt()),
        "force_mae_mev_per_angstrom": float(force.abs().mean()),
        "energy_mae_mev_per_atom": float(energy.abs().mean()),
        "energy_rmse_mev_per_atom": float(energy.square().mean().sqrt()),
        "stress_rmse_mev_per_angstrom3": stress,
    }


def force_rmse(model: nn.Module, graphs: Sequence[Data], device: torch.device) -> float:
    """Error of the forces of labelled graphs, in meV/Angstrom."""
    value = errors(predicted(model, graphs, device), graphs)["force_rmse_mev_per_angstrom"]
    assert value is not None
    return value


def timed_batch(graphs: Sequence[Data]) -> Batch:
    """So many of the structures, from the first on and over again, that they have 100 atoms."""
    chosen: list[Data] = []
    while sum(len(g.pos) for g in chosen) < LATENCY_ATOMS:
        chosen.append(graphs[len(chosen) % len(graphs)])
    return Batch.from_data_list(chosen)


def typical(graphs: Sequence[Data]) -> Data:
    """A structure of median size."""
    return sorted(graphs, key=lambda g: len(g.pos))[len(graphs) // 2]


def latencies(
    models: dict[str, nn.Module],
    batch: Batch,
    device: torch.device,
    repeats: int = REPEATS,
) -> dict[str, float]:
    """Median milliseconds of energies and forces; the models take turns, so drift hits all."""
    batch = batch.to(device)
    runs = {n: partial(energy_and_forces, m.to(device).eval(), batch) for n, m in models.items()}
    found = alternating_medians(runs, repeats, min(WARMUP, repeats), device)
    for model in models.values():
        model.to("cpu")
    return found


def dynamics_speed(
    models: dict[str, nn.Module], graph: Data, device: torch.device, seed: int
) -> dict[str, float]:
    """Steps of molecular dynamics a second with ASE, by turns, neighbour lists included."""
    runs: dict[str, Callable[[], object]] = {}
    for name, model in models.items():
        atoms = Atoms(graph.z.numpy(), graph.pos.numpy())
        if graph.get("pbc") is not None and bool(graph.pbc.any()):
            atoms.set_cell(graph.cell[0].numpy())
            atoms.pbc = graph.pbc[0].numpy()
        calculator = SinglePass(copy.deepcopy(model).to(device).eval())
        atoms.calc = PrunedCalculator(calculator, device=str(device), unit="eV")
        if len(atoms) > 1:
            set_thermal_velocities(atoms, TEMPERATURE, seed)
        runs[name] = partial(VelocityVerlet(atoms, TIME_STEP * units.fs).run, 1)
    times = alternating_medians(runs, REPEATS, WARMUP, device)
    return {name: 1000 / time for name, time in times.items()}


def memory(model: nn.Module, batch: Batch, device: torch.device) -> float:
    """Megabytes of tensors alive at the worst moment of energies and forces, weights aside."""
    batch = batch.to(device)
    found = peak_memory(model.to(device), lambda m: energy_and_forces(m, batch)) / 1e6
    model.to("cpu")
    return found


def asymmetry(model: nn.Module, graphs: Sequence[Data], seed: int) -> dict[str, float]:
    """How far energies and forces are from turning with the structures, and from mirroring.

    Returns:
        ``equivariance_error``, over turns, shifts and renumberings, and ``reflection_error``: the
        largest deviations of forces, and of energies per atom, over the root mean square of the
        forces (in eV/Angstrom, or in eV).
    """
    batch = Batch.from_data_list(list(graphs))
    forces = energy_and_forces(model.eval(), batch)[1]
    scale = float(forces.square().mean().sqrt()) or 1.0

    def outputs(seen: Batch) -> Data:
        prediction, found = energy_and_forces(model, seen)
        atoms: Any = seen.ptr.diff()
        return Data(x=(prediction.mean / atoms)[seen.batch], forces=found)

    def worst(*symmetries: str) -> float:
        found = (symmetry_errors(outputs, batch, s, scale, VIEWS, seed) for s in symmetries)
        return max(value for errors in found for value in errors.values())

    return {
        "equivariance_error": worst("rotation", "translation", "permutation"),
        "reflection_error": worst("reflection"),
    }


def compare(
    models: dict[str, nn.Module], graphs: list[Data], device: torch.device, seed: int
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray], dict[str, int]]:
    """All that is measured of models, on the same labelled structures.

    Returns:
        For each model its numbers, the arrays of ``predictions.npz``, and how many atoms and
        structures latencies are of, as ``metrics.json`` names them.
    """
    one = typical(graphs)
    batch, single = timed_batch(graphs), Batch.from_data_list([one])
    many, few = latencies(models, batch, device), latencies(models, single, device)
    steps = dynamics_speed(models, one, device, seed)
    arrays = {
        "atoms": np.array([len(g.pos) for g in graphs]),
        "energy_reference": torch.cat([g.y for g in graphs]).numpy(),
        "forces_reference": torch.cat([g.forces for g in graphs]).numpy(),
        "z": torch.cat([g.z for g in graphs]).numpy(),
    }
    results: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        found = predicted(model, graphs, device, name)
        arrays[f"{name}_energy"] = found.energies.numpy()
        arrays[f"{name}_forces"] = found.forces.numpy()
        results[name] = {
            **errors(found, graphs),
            "latency_ms": many[name],
            "latency_single_ms": few[name],
            "params": sum(p.numel() for p in model.parameters()),
            **asymmetry(model, graphs[:SYMMETRY_GRAPHS], seed),
            "memory_mb": memory(model, batch, device),
            "md_steps_per_second": steps[name],
        }
    sizes = {
        "latency_atoms": len(batch.pos),
        "latency_structures": batch.num_graphs,
        "latency_single_atoms": len(one.pos),
    }
    return results, arrays, sizes
