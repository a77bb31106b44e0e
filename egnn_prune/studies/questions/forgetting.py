"""Question 4: what does a pruned potential forget?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from egnn_prune.adapters import AdoptedPotential
from egnn_prune.evaluation.atom_error_bars import rms_of_structures
from egnn_prune.evaluation.potential_errors import potential_errors
from egnn_prune.runs.result_store import Row
from egnn_prune.studies.out_of_distribution_structures import changed, other_molecules, stretched
from egnn_prune.studies.questions.atom_damage import atom_damage, rank
from egnn_prune.studies.questions.context import Asked, Question
from egnn_prune.studies.questions.error_bars import ErrorBars
from egnn_prune.studies.questions.networks import SHARE, Networks, judged
from egnn_prune.studies.questions.observables import observables
from egnn_prune.studies.questions.structures import hot
from egnn_prune.studies.questions.survival import survival
from egnn_prune.training.distillation import label

#: Networks that are compared with the full one.
NETWORKS = ("cut", "small", "distilled")
#: Whose dynamics are compared with the full one's; ``again``: the same network, other velocities;
#: ``seed``: the full network of another seed.
SIMULATED = ("small", "scratch", "again", "seed")
#: What is simulated hot; ``longer`` is the shape from scratch when it is about as accurate as the
#: small one.
HEATED = ("small", "scratch", "longer", "full")


def cells(asked: Asked) -> list[Row]:
    """Damage by network, of labelled structures and of unlabelled ones, and observables."""
    form = asked.form
    labelled: list[Row] = [
        {"part": "damage", "system": form.second, "network": name} for name in NETWORKS
    ]
    far: list[Row] = [
        {"part": "far", "system": form.system, "network": name} for name in (*NETWORKS, "seed")
    ]
    moved: list[Row] = [
        {"part": "dynamics", "system": form.system, "network": name} for name in SIMULATED
    ]
    atoms: list[Row] = [{**cell, "part": "atoms"} for cell in labelled]
    heated: list[Row] = [
        {"part": "heated", "system": form.system, "network": name} for name in HEATED
    ]
    return labelled + far + moved + atoms + heated


def find(asked: Asked, part: str, system: str, network: str) -> Row:
    """Compare a network with the full one of the same seed."""
    networks = asked.networks(system)
    full, model = networks.network("full"), _model(asked, networks, network)
    start, steps = networks.found.test[0], asked.form.dynamics
    if part == "dynamics":
        return observables(full, model, start, steps, asked.seed)
    if part == "heated":
        row = survival(model, start, steps // 2, asked.seed)
        return {**row, "force_rmse": judged(model, networks.found.test)["force_rmse"]}
    if part == "far":
        return deviations(full, model, networks)
    if part == "atoms":
        return atom_damage(full, model, networks, cold_and_hot(networks))
    return damage(full, model, networks)


def _model(asked: Asked, networks: Networks, network: str) -> AdoptedPotential:
    """One that a cell names."""
    if network == "cut":
        return networks.cut_at(SHARE).eval()
    if network == "seed":
        next_seed = (asked.seed + 1) % len(asked.form.seeds)
        return Networks(asked.form, networks.folder, networks.name, next_seed).network("full")
    full = network in ("full", "again")
    return networks.network("full" if full else f"{network}@{SHARE}")


def cold_and_hot(networks: Networks) -> list[Data]:
    """Test structures, and as many hot ones."""
    test = networks.found.test
    return test + hot(networks.name)[: len(test)]


def damage(full: nn.Module, model: AdoptedPotential, networks: Networks) -> Row:
    """Of labelled structures, like the training ones and hotter: damage, and what goes with it."""
    found, test = networks.found, cold_and_hot(networks)
    was, now = (structure_errors(network, test) for network in (full, model))
    worse = now - was
    bars = ErrorBars.fitted(networks, [model], "last_layer")
    std, distance = bars.of_structures(test)
    least = min(float(graph.y) for graph in found.train)
    strain = torch.tensor([float(graph.y) - least for graph in test])
    cold = len(found.test)
    return {
        "error_bar": rank(worse, std),
        "distance": rank(worse, distance),
        "strain": rank(worse, strain),
        "tail": worst_tenth(worse),
        "tail_of_full": worst_tenth(was),  # its own worst tenth: chosen by damage it would be less
        "tail_of_this": worst_tenth(now),
        "test": [1000 * rms(was[:cold]), 1000 * rms(now[:cold])],
        "hot": [1000 * rms(was[cold:]), 1000 * rms(now[cold:])],
        "elements": by_element(full, model, test),
        "damage": [round(1000 * float(x), 2) for x in worse],
        "bars": [round(1000 * float(x), 2) for x in std],
    }


def deviations(full: nn.Module, model: nn.Module, networks: Networks) -> Row:
    """How far forces of structures without labels are from the full network's, in meV/Angstrom."""
    found, count, seed = networks.found, networks.form.test, 7000 + networks.seed
    kinds = {"test": found.test}
    kinds["stretched bond"] = [c.graph for c in changed(stretched, found.test, count, seed)]
    elements = sorted({int(z) for graph in found.train for z in graph.z})
    made = other_molecules(elements, found.test[0], count, seed)
    kinds |= {kind: [c.graph for c in changes] for kind, changes in made.items()}
    row: Row = {}
    for kind, graphs in kinds.items():
        row[kind] = 1000 * rms(structure_errors(model, label(full, graphs)))
    return row


def structure_errors(model: nn.Module, graphs: Sequence[Data]) -> Tensor:
    """Root mean square force error of each structure, ``[B]``, in eV/Angstrom."""
    _, arrays = potential_errors(model, graphs)
    wrong = torch.from_numpy(arrays["forces"]) - torch.cat([g.forces.double() for g in graphs])
    sizes = torch.tensor([len(graph.pos) for graph in graphs])
    structure = torch.arange(len(graphs)).repeat_interleave(sizes)
    return rms_of_structures(wrong.square().mean(1).sqrt(), structure)


def by_element(full: nn.Module, model: nn.Module, graphs: Sequence[Data]) -> dict[str, list[float]]:
    """Force errors of the full and the other network on atoms of each element, in meV/Angstrom."""
    z = torch.cat([graph.z for graph in graphs])
    truth = torch.cat([graph.forces.double() for graph in graphs])
    wrong = [
        torch.from_numpy(potential_errors(network, graphs)[1]["forces"]) - truth
        for network in (full, model)
    ]
    return {
        str(element): [1000 * rms(errors[z == element]) for errors in wrong]
        for element in z.unique().tolist()
    }


def rms(values: Tensor) -> float:
    """Root mean square."""
    return float(values.square().mean().sqrt())


def worst_tenth(values: Tensor) -> float:
    """Share of the sum that the largest tenth of the values has."""
    ordered = np.sort(values.numpy())[::-1]
    return float(ordered[: max(1, len(ordered) // 10)].sum() / ordered.sum())


QUESTION = Question(cells, find)
