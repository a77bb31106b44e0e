"""Forces in other units than the teacher's, which the file alone does not show."""

from __future__ import annotations

import warnings

import pytest
import torch
from tiny_teacher import structures, tiny_teacher

from egnn_prune.ase.structures import graph_of
from egnn_prune.errors import SuspiciousDataWarning
from egnn_prune.pipeline.specialise_units import warn_of_foreign_units
from egnn_prune.training.distillation import label

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def taught():
    teacher = tiny_teacher()
    graphs = label(teacher, [graph_of(atoms) for atoms in structures(12)], device=CPU)
    noise = torch.Generator().manual_seed(0)
    for graph in graphs:  # another level of theory
        size = graph.forces.square().mean().sqrt()
        graph.forces += 0.3 * size * torch.randn(graph.forces.shape, generator=noise)
    return teacher, graphs


def times(graphs, factor: float):
    copies = [graph.clone() for graph in graphs]
    for graph in copies:
        graph.forces *= factor
    return copies


@pytest.mark.parametrize(
    ("factor", "said"), [(23.06, "kcal/mol"), (0.0194, "kcal/mol"), (-1.0, "gradients")]
)
def test_other_units_are_noticed(taught, factor, said):
    teacher, graphs = taught
    with pytest.warns(SuspiciousDataWarning, match=f"mine.xyz: forces .*{said}"):
        warn_of_foreign_units(teacher, times(graphs, factor), "mine.xyz", CPU)


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.5, 0.0])
def test_nothing_is_said_of_another_level_of_theory(taught, factor):
    teacher, graphs = taught
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_foreign_units(teacher, times(graphs, factor), "mine.xyz", CPU)
