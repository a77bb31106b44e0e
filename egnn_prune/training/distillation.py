"""A teacher's own energies, forces and stresses as labels, so that no data are needed."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from tqdm import tqdm

from egnn_prune.channels import evaluating
from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.graphs import edge_vectors, neighbours
from egnn_prune.models import energy_and_forces
from egnn_prune.models.forces import energy_forces_stress

#: Share of the smallest distance among a user's atoms below which a made-up structure is no use.
CLOSEST = 0.6
#: What a structure is made of; all else, such as its labels and edges, belongs to one geometry.
GEOMETRY = ("z", "pos", "cell", "pbc")


def label(
    teacher: nn.Module,
    graphs: Sequence[Data],
    batch_size: int = 16,
    *,
    device: torch.device | None = None,
    progress: str = "teacher's labels",
) -> list[Data]:
    """Copies of structures with the teacher's labels, in place of any that they had.

    Args:
        teacher: predicts energies in eV.
        graphs: single structures, ``Data(z [N], pos [N, 3])``, periodic ones with ``cell`` and
            ``pbc``.
        batch_size: structures per pass; those with and without a cell go apart.
        device: where to run, by default where the teacher is.
        progress: what the progress bar says.

    Returns:
        For each structure ``y [1]`` (eV), ``forces [N, 3]`` (eV/Angstrom) and, where it is periodic
        in three directions, ``stress [1, 3, 3]`` (eV/Angstrom^3), in float64 and on the CPU.

    Raises:
        ConfigError: the batch size is not positive.
        DataError: the teacher cannot read a structure.
        InputError: a label is NaN or infinite.
    """
    if batch_size < 1:
        raise ConfigError(f"structures are labelled 1 or more at a time, not {batch_size}")
    home = next(teacher.parameters()).device
    labelled: dict[int, Data] = {}
    kinds: dict[tuple[bool, bool], list[int]] = {}
    for number, graph in enumerate(graphs):
        kinds.setdefault((graph.get("cell") is not None, is_crystal(graph)), []).append(number)
    with tqdm(total=len(graphs), desc=progress, unit="structure", leave=False) as bar:
        teacher.to(device or home)
        with evaluating(teacher):
            for (_, crystal), numbers in kinds.items():
                for first in range(0, len(numbers), batch_size):
                    part = numbers[first : first + batch_size]
                    found = _labels(teacher, [graphs[n] for n in part], crystal, device or home)
                    labelled |= zip(part, found, strict=True)
                    bar.update(len(part))
        teacher.to(home)
    for number in range(len(graphs)):
        for name in ("y", "forces", "stress"):
            value = labelled[number].get(name)
            if value is not None and not bool(value.isfinite().all()):
                raise InputError(
                    f"the teacher's {name} of structure {number} is NaN or infinite; look for "
                    "atoms that lie on top of each other, and leave it out"
                )
    return [labelled[number] for number in range(len(graphs))]


def _labels(
    teacher: nn.Module, graphs: list[Data], crystal: bool, device: torch.device
) -> list[Data]:
    batch = Batch.from_data_list([bare(graph) for graph in graphs]).to(device)
    stress: Tensor | None = None
    if crystal:
        prediction, forces, stress = energy_forces_stress(teacher, batch)
        stress = stress.double().cpu()
    else:
        prediction, forces = energy_and_forces(teacher, batch)
    energies = prediction.mean.double().cpu()
    parts = forces.double().cpu().split([len(graph.pos) for graph in graphs])
    found = []
    for number, graph in enumerate(graphs):
        out = copy.copy(graph)
        out.y, out.forces = energies[number : number + 1], parts[number]
        if stress is not None:
            out.stress = stress[number : number + 1]
        elif out.get("stress") is not None:
            del out.stress
        found.append(out)
    return found


def is_crystal(graph: Data) -> bool:
    """Whether a structure is periodic in all three directions."""
    pbc = graph.get("pbc")
    return graph.get("cell") is not None and (pbc is None or bool(pbc.all()))


def bare(graph: Data) -> Data:
    """Elements, positions in float64 and cell of a structure, and nothing else."""
    out = Data(**{name: graph[name] for name in GEOMETRY if graph.get(name) is not None})
    out.pos = out.pos.double()
    if out.get("cell") is not None:
        out.cell = out.cell.double().reshape(1, 3, 3)
        pbc = torch.ones(3, dtype=torch.bool) if out.get("pbc") is None else out.pbc
        out.pbc = pbc.reshape(1, 3)
    return out


def augmented(
    structures: Sequence[Data],
    *,
    rattles: Sequence[float] = (0.02, 0.05, 0.1),
    strains: int = 1,
    largest_strain: float = 0.03,
    copies: int = 1,
    closest: float | None = None,
    seed: int = 0,
) -> list[Data]:
    r"""A user's own structures, rattled copies, and strained copies of the periodic ones.

    Rattling adds :math:`x \to x + s\, g` with normal g. A strain
    moves atoms and lattice vectors together, :math:`x \to (1 + \epsilon)\, x` with a symmetric
    :math:`\epsilon` whose entries are uniform in :math:`[-e, e]`; the smallest rattle comes on top,
    so that forces are not zero by symmetry. A copy in which atoms come too close is left out.

    Frames of dynamics come from :func:`egnn_prune.ase.sampling.dynamics_frames`; hand both to
    :func:`label`.

    Args:
        structures: single structures, see :func:`label`.
        rattles: standard deviations s in Angstrom, one after another.
        strains: strained copies of each structure.
        largest_strain: e, such as 0.03 for 3 %.
        copies: how many of each rattled copy.
        closest: the smallest distance allowed, in Angstrom; by default :data:`CLOSEST` of the
            smallest in the structures.
        seed: of the draws; a structure's copies do not depend on what else is in the list, but for
            ``closest``.

    Returns:
        The structures, then their copies, with elements, positions (float64), ``cell`` and ``pbc``.

    Raises:
        ConfigError: a number is out of range.
        DataError: there are no structures.
    """
    sizes_fit = all(0 < s < float("inf") for s in rattles)
    if not sizes_fit or not 0 <= largest_strain < 1 or min(strains, copies, seed) < 0:
        raise ConfigError(
            "rattles must be positive lengths in Angstrom, the largest strain in [0, 1), and the "
            f"numbers of copies and the seed at least 0, not {list(rattles)}, {largest_strain}, "
            f"{strains}, {copies} and {seed}"
        )
    if not len(structures):
        raise DataError("there are no structures to be augmented; give at least one")
    own = [bare(graph) for graph in structures]
    limit = CLOSEST * smallest_distance(own) if closest is None else closest
    found = list(own)
    for number, graph in enumerate(own):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        made = [rattled(graph, s, generator) for s in rattles for _ in range(copies)]
        if is_crystal(graph):
            for _ in range(strains):
                moved = strained(graph, largest_strain, generator)
                made.append(rattled(moved, min(rattles), generator) if rattles else moved)
        found += [copied for copied in made if not has_pairs_within(copied, limit)]
    return found


def rattled(graph: Data, size: float, generator: torch.Generator) -> Data:
    """A copy with normal noise of a standard deviation, in Angstrom, on every coordinate."""
    out = copy.copy(graph)
    noise = torch.randn(graph.pos.shape, generator=generator, dtype=torch.float64)
    out.pos = graph.pos + size * noise
    return out


def strained(graph: Data, largest: float, generator: torch.Generator) -> Data:
    """A periodic copy whose cell, and atoms with it, got a random symmetric strain."""
    out = copy.copy(graph)
    drawn = 2 * torch.rand(3, 3, generator=generator, dtype=torch.float64) - 1
    matrix = torch.eye(3, dtype=torch.float64) + largest * (drawn.triu() + drawn.triu(1).mT)
    out.pos, out.cell = graph.pos @ matrix, graph.cell @ matrix  # rows are vectors
    return out


def distances(graph: Data, cutoff: float) -> Tensor:
    """Lengths in Angstrom of all pairs closer than a cutoff, periodic images included."""
    cell, pbc = graph.get("cell"), graph.get("pbc")
    edges, shift = neighbours(graph.pos, cutoff, cell, pbc)
    return edge_vectors(graph.pos, edges, shift).norm(dim=1)


def has_pairs_within(graph: Data, cutoff: float) -> bool:
    """Whether two atoms are closer than a distance, in Angstrom."""
    return cutoff > 0 and len(distances(graph, cutoff)) > 0


def smallest_distance(graphs: Sequence[Data]) -> float:
    """The smallest distance of two atoms in structures, in Angstrom; 0 where there is no pair."""
    found = 0.0
    for graph in graphs:
        for cutoff in (1.5, 4.0, 10.0):
            if len(lengths := distances(graph, cutoff)):
                shortest = float(lengths.min())
                found = min(found, shortest) if found else shortest
                break
    return found
