"""Potentials on structures whose energies and forces are known: errors, symmetry, cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from egnn_prune.channels import evaluating
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.evaluation.drawn_structures import frames_and_cells
from egnn_prune.evaluation.equivariance import PROPER, equivariance_error
from egnn_prune.models import energy_and_forces
from egnn_prune.system.memory import peak_megabytes
from egnn_prune.system.timing import alternating_medians
from egnn_prune.training.distillation import bare, label
from egnn_prune.training.potential_loss import check_labels

Arrays = dict[str, NDArray[Any]]


def potential_errors(
    model: nn.Module,
    graphs: Sequence[Data],
    batch_size: int = 16,
    *,
    device: torch.device | None = None,
    progress: str = "test",
) -> tuple[dict[str, float | None], Arrays]:
    r"""Errors of energies, forces and stresses, and what they were computed of.

    Force errors are over all components of all atoms, energies over structures and per atom,
    :math:`(E_b - E_b^\text{ref}) / N_b`, stresses over the nine components of the structures that
    are periodic and have a reference.

    Args:
        model: predicts energies in eV.
        graphs: structures with ``y [1]``, ``forces [N, 3]`` and maybe ``stress [1, 3, 3]``.
        batch_size: structures per pass.
        device: where to run, by default where the model is.
        progress: what the progress bar says.

    Returns:
        ``force_rmse_mev_per_angstrom``, ``force_mae_mev_per_angstrom``,
        ``energy_mae_mev_per_atom``, ``energy_rmse_mev_per_atom`` and
        ``stress_rmse_mev_per_angstrom3`` (``None`` without reference); and the arrays ``energy
        [B]`` in eV and ``forces [sum N, 3]`` in eV/Angstrom that the model predicts.

    Raises:
        DataError: a label is missing, NaN or infinite.
        InputError: a prediction is NaN or infinite.
    """
    check_labels(graphs, "test")
    found = label(model, graphs, batch_size, device=device, progress=progress)
    atoms = torch.tensor([len(graph.pos) for graph in graphs])
    energy, forces = _joined(found, "y"), _joined(found, "forces")
    wrong = 1000 * (forces - _joined(graphs, "forces"))
    per_atom = 1000 * (energy - _joined(graphs, "y").flatten()) / atoms
    stress = [
        1000 * (out.stress - graph.stress.double().view(1, 3, 3))
        for out, graph in zip(found, graphs, strict=True)
        if out.get("stress") is not None and graph.get("stress") is not None
    ]
    errors: dict[str, float | None] = {
        "force_rmse_mev_per_angstrom": _rms(wrong),
        "force_mae_mev_per_angstrom": float(wrong.abs().mean()),
        "energy_mae_mev_per_atom": float(per_atom.abs().mean()),
        "energy_rmse_mev_per_atom": _rms(per_atom),
        "stress_rmse_mev_per_angstrom3": _rms(torch.cat(stress)) if stress else None,
    }
    return errors, {"energy": energy.numpy(), "forces": forces.numpy()}


def reference_arrays(graphs: Sequence[Data]) -> Arrays:
    """What the predictions of :func:`potential_errors` are compared with, for ``predictions.npz``.

    Returns:
        ``atoms [B]``, ``energy_reference [B]`` in eV, ``forces_reference [sum N, 3]`` in
        eV/Angstrom, ``pos [sum N, 3]`` in Angstrom, ``z [sum N]``, and what
        :func:`~egnn_prune.evaluation.drawn_structures.frames_and_cells` finds.
    """
    return {
        "atoms": np.array([len(graph.pos) for graph in graphs]),
        "energy_reference": _joined(graphs, "y").flatten().numpy(),
        "forces_reference": _joined(graphs, "forces").numpy(),
        "pos": _joined(graphs, "pos").numpy(),
        "z": torch.cat([graph.z.cpu() for graph in graphs]).numpy(),
        **frames_and_cells(graphs),
    }


def _joined(graphs: Sequence[Data], name: str) -> Tensor:
    return torch.cat([graph[name].detach().cpu().double() for graph in graphs])


def _rms(errors: Tensor) -> float:
    return float(errors.square().mean().sqrt())


def force_symmetry(
    model: nn.Module,
    graphs: Sequence[Data],
    *,
    scale: float | None = None,
    transforms: int = 4,
    seed: int = 0,
) -> dict[str, float]:
    """How far forces are from turning with the structure, and from being mirrored with it.

    The two are measured apart, because a network of SO(3), such as one without parities, turns
    exactly and owes nothing to a mirror.

    Args:
        model: predicts energies.
        graphs: structures; where some have a cell and others not, those like the first are taken.
        scale: deviations are divided by it, in eV/Angstrom; ``None``: by the largest force
            component. 0.001 gives meV/Angstrom.
        transforms: how many changes of view.
        seed: of the random draws.

    Returns:
        ``equivariance_error`` under rotations, translations and permutations, and
        ``reflection_error``: the largest deviation of a force component, over the scale.
    """
    batch = Batch.from_data_list(_alike(graphs))

    def forces(seen: Batch) -> Data:
        with evaluating(model):
            return Data(forces=energy_and_forces(model, seen)[1])

    options: Any = {"scale": scale, "transforms": transforms, "seed": seed}
    return {
        "equivariance_error": equivariance_error(forces, batch, symmetry=PROPER, **options),
        "reflection_error": equivariance_error(forces, batch, symmetry="reflection", **options),
    }


def _alike(graphs: Sequence[Data]) -> list[Data]:
    """The geometries that have a cell as the first has, or none: what a batch can hold."""
    if not len(graphs):
        raise DataError("there are no structures to be measured; give at least one")
    found = [bare(graph) for graph in graphs]
    return [graph for graph in found if graph.keys() == found[0].keys()]


def batch_of_atoms(graphs: Sequence[Data], atoms: int = 0) -> Batch:
    """Structures in one batch of at least so many atoms, in turn and again where they run out.

    Args:
        graphs: single structures; where some have a cell and others not, those like the first are
            taken.
        atoms: the fewest; 0 takes the first structure alone.

    Raises:
        DataError: there are none.
    """
    taken, total = [], 0
    for graph in cycle(_alike(graphs)):
        taken.append(graph)
        total += len(graph.pos)
        if total >= atoms:
            return Batch.from_data_list(taken)
    raise AssertionError("a cycle has no end")  # for type checkers


def potential_latency(
    models: dict[str, nn.Module],
    batch: Batch | Data,
    repeats: int = 20,
    *,
    warmup: int = 3,
    neighbours: bool = False,
    device: str | torch.device = "cpu",
) -> dict[str, float]:
    """Median wall time of energies *and* forces of a batch, in ms; the models take turns.

    Turns hit all models alike with whatever else the machine does. For compiled models hand over
    ``torch.compile(model)``: compilation happens in the first turn, which does not count.

    Args:
        models: by name, in evaluation mode during the measurement.
        batch: what they predict, see :func:`batch_of_atoms`.
        repeats: timed passes of each.
        warmup: passes before, at least one.
        neighbours: whether each pass also searches its neighbours, as a first call does; without,
            lists are there already, as in dynamics that reuse them.
        device: where to run; the models stay there.

    Raises:
        ConfigError: fewer than one pass.
    """
    if min(repeats, warmup) < 1:
        raise ConfigError(f"a latency needs 1 or more passes, not {repeats} after {warmup}")
    runs: dict[str, Callable[[], object]] = {}
    batch = batch.clone().to(device)
    training = {name: model.training for name, model in models.items()}
    for name, model in models.items():
        prepare: Any = getattr(model.to(device).eval(), "prepared", lambda same: same)
        runs[name] = partial(energy_and_forces, model, batch if neighbours else prepare(batch))
    try:
        return alternating_medians(runs, repeats, warmup, device)
    finally:
        for name, model in models.items():
            model.train(training[name])


def potential_memory(
    model: nn.Module, batch: Batch | Data, *, device: str | torch.device = "cpu"
) -> float:
    """Memory that energies and forces of a batch need at the worst moment, in MB.

    Without weights and neighbour lists, see :func:`~egnn_prune.system.memory.peak_megabytes`.
    """
    prepare: Any = getattr(model.to(device), "prepared", lambda same: same)
    batch = prepare(batch.clone().to(device))
    with evaluating(model):
        return peak_megabytes(lambda: energy_and_forces(model, batch), device)
