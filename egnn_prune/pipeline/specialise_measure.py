"""Potentials side by side: errors, time, memory, steps of dynamics and symmetry, in one run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from tqdm import tqdm

from egnn_prune.ase import PrunedCalculator
from egnn_prune.ase.velocities import set_thermal_velocities
from egnn_prune.evaluation.element_errors import Errors, force_errors_by_element, sums_of
from egnn_prune.evaluation.potential_errors import (
    batch_of_atoms,
    force_symmetry,
    potential_errors,
    potential_latency,
    potential_memory,
    reference_arrays,
)
from egnn_prune.evaluation.type_errors import errors_by_type
from egnn_prune.pipeline.specialise_bars import WithErrorBars, scored
from egnn_prune.prediction import members_of
from egnn_prune.system.timing import alternating_medians
from egnn_prune.uncertainty import Calibrated, SinglePass

#: Atoms of the batch whose latency is measured, at least, and of a batch that is predicted, about.
LATENCY_ATOMS, BATCH_ATOMS = 100, 400
#: Timed passes of each model, by turns; steps of dynamics likewise.
REPEATS, WARMUP = 12, 2
#: Structures that symmetry is judged on.
SYMMETRY_GRAPHS = 4
#: Femtoseconds and Kelvin of the dynamics that is timed.
TIME_STEP, TEMPERATURE = 0.5, 300.0


def errors(
    model: nn.Module, graphs: Sequence[Data], device: torch.device, label: str = "predicting"
) -> tuple[dict[str, float | None], dict[str, np.ndarray]]:
    """Errors on labelled structures in meV and Angstrom, and energies and forces; see the callee.

    Args:
        model: predicts energies; ends on the CPU.
        graphs: structures.
        device: where to run.
        label: for the progress bar.
    """
    size = max(1, BATCH_ATOMS // max(len(g.pos) for g in graphs))
    found = potential_errors(model, list(graphs), size, device=device, progress=label)
    model.to("cpu")
    return found


def force_rmse(model: nn.Module, graphs: Sequence[Data], device: torch.device) -> float:
    """Error of the forces of labelled structures, in meV/Angstrom."""
    value = errors(model, graphs, device)[0]["force_rmse_mev_per_angstrom"]
    assert value is not None
    return value


def forces(model: nn.Module, graphs: Sequence[Data], device: torch.device) -> Tensor:
    """Forces on the atoms of labelled structures, ``[sum N, 3]``."""
    return torch.from_numpy(errors(model, graphs, device)[1]["forces"])


def latencies(
    models: dict[str, nn.Module], batch: Batch, device: torch.device, repeats: int | None = None
) -> dict[str, float]:
    """Median milliseconds of energies and forces; the models take turns and end on the CPU."""
    repeats = REPEATS if repeats is None else repeats
    passes = len(models) * (repeats + WARMUP)
    with tqdm(total=passes, desc="taking times", unit="pass", leave=False) as bar:

        def count(*_: Any) -> None:  # what a hook returns would take the output's place
            bar.update()

        hooks = [m.register_forward_hook(count) for m in models.values()]
        found = potential_latency(models, batch, repeats, warmup=WARMUP, device=device)
    for hook, model in zip(hooks, models.values(), strict=True):
        hook.remove()
        model.to("cpu")
    return found


def timed_batch(graphs: Sequence[Data]) -> Batch:
    """So many of the structures that they have 100 atoms."""
    return batch_of_atoms(graphs, LATENCY_ATOMS)


def typical(graphs: Sequence[Data]) -> Data:
    """A structure of median size."""
    return sorted(graphs, key=lambda g: len(g.pos))[len(graphs) // 2]


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
    total = len(runs) * (REPEATS + WARMUP)
    with tqdm(total=total, desc="dynamics", unit="step", leave=False) as bar:
        for name, step in runs.items():
            runs[name] = partial(_counted, step, bar)
        times = alternating_medians(runs, REPEATS, WARMUP, device)
    return {name: 1000 / time for name, time in times.items()}


def _counted(step: Callable[[], object], bar: Any) -> None:
    step()
    bar.update()


def compare(
    models: dict[str, nn.Module],
    graphs: list[Data],
    device: torch.device,
    seed: int,
    barred: Mapping[str, Calibrated] = MappingProxyType({}),
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray], dict[str, int]]:
    """All that is measured of models, on the same labelled structures.

    Times and sizes are of single networks without error bars. ``latency_with_error_bars_ms`` is
    what the model takes that a user opens, and the errors are that model's: of a committee those
    of the mean, with ``force_rmse_of_one_network_mev_per_angstrom`` beside them.

    Args:
        models: the networks, by name.
        graphs: labelled structures.
        device: where to run.
        seed: of velocities and rotations.
        barred: those of the models that have error bars, with them.

    Returns:
        For each model its numbers, the arrays of ``predictions.npz``, and how many atoms and
        structures latencies are of, as ``metrics.json`` names them.
    """
    one = typical(graphs)
    batch, single = timed_batch(graphs), batch_of_atoms([one])
    whole = {f"{n} with error bars": WithErrorBars(bars) for n, bars in barred.items()}
    many = latencies({**models, **whole}, batch, device)
    few = latencies(models, single, device)
    steps = dynamics_speed(models, one, device, seed)
    arrays = reference_arrays(graphs)
    results: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        opened = barred[name].network if name in barred else model
        wrong, found = errors(opened, graphs, device, name)
        arrays |= {f"{name}_{key}": values for key, values in found.items()}
        results[name] = {
            **wrong,
            "force_by_element": _by_element(found, arrays),
            "latency_ms": many[name],
            "latency_single_ms": few[name],
            "params": sum(p.numel() for p in model.parameters()),
            **force_symmetry(model, graphs[:SYMMETRY_GRAPHS], seed=seed),
            "memory_mb": potential_memory(model, batch, device=device),
            "md_steps_per_second": steps[name],
        }
        model.to("cpu")
        if name in barred:
            scores, bars = scored(barred[name], graphs, device, name)
            arrays |= bars
            results[name] |= scores
            results[name]["latency_with_error_bars_ms"] = many[f"{name} with error bars"]
        if len(members_of(opened)) > 1:
            single_rmse = force_rmse(model, graphs, device)
            results[name]["force_rmse_of_one_network_mev_per_angstrom"] = single_rmse
    sizes = {
        "latency_atoms": len(batch.pos),
        "latency_structures": batch.num_graphs,
        "latency_single_atoms": len(one.pos),
    }
    return results, arrays, sizes


def _by_element(found: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> Errors:
    """In meV/Angstrom."""
    wrong = torch.from_numpy(1000 * (found["forces"] - labels["forces_reference"]))
    return force_errors_by_element(wrong, torch.from_numpy(labels["z"]))


def by_type(
    types: Sequence[str], arrays: Mapping[str, np.ndarray], models: Sequence[str]
) -> dict[str, Any]:
    """Errors by type of structure, energies per atom; nothing where no structure has a type.

    Args:
        types: what each structure is, ``[B]``.
        arrays: of ``predictions.npz``.
        models: whose errors are wanted; the specialised one is compared with the first other.
    """
    atoms = arrays["atoms"]
    count, owner = len(atoms), np.repeat(np.arange(len(atoms)), atoms)
    sums = {}
    for name in models:
        energy = 1000 * (arrays[f"{name}_energy"] - arrays["energy_reference"]) / atoms
        force = 1000 * (arrays[f"{name}_forces"] - arrays["forces_reference"])
        sums[name] = {
            "energy": sums_of(energy, np.arange(count), count),
            "force": sums_of(force, owner, count),
        }
    other = next((name for name in ("finetuned", "scratch") if name in models), None)
    pair = ("specialised", other) if other else None
    return errors_by_type(types, sums, {"energy": "meV/atom", "force": "meV/Angstrom"}, pair)
