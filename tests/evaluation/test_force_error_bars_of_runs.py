"""Error bars of forces: which source they come from, and from which structures."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from egnn_prune import data
from egnn_prune.errors import SuspiciousDataWarning
from egnn_prune.evaluation import force_uncertainty
from egnn_prune.evaluation.force_uncertainty import (
    fit_likelier_bars,
    has_members,
    likelihood,
    score_force_uncertainty,
    spread_out,
    states_forces,
)
from egnn_prune.models import EGNNOptions, PropertyModel
from egnn_prune.uncertainty import (
    AtomErrorBars,
    AtomEvidence,
    Calibrated,
    DeepEnsemble,
    LastLayer,
    MCDropout,
    SinglePass,
    VarianceScaling,
)


def network(seed: int = 0, **options) -> PropertyModel:
    torch.manual_seed(seed)
    return PropertyModel.build([1, 6], hidden=6, layers=1, options=EGNNOptions(radial=3), **options)


def molecules(count: int, seed: int = 0) -> list[Data]:
    """Clouds of atoms with forces that nothing made."""
    draw = torch.Generator().manual_seed(seed)
    random = [torch.randn(2, 5, 3, generator=draw, dtype=torch.float64) for _ in range(count)]
    z = torch.tensor([1, 6, 1, 6, 1])
    return [Data(z=z, pos=2 * pos, forces=forces, y=forces[:1, 0]) for pos, forces in random]


def without(method) -> Calibrated:
    return Calibrated(method, VarianceScaling())


@pytest.mark.parametrize(
    ("target", "expected"), [("energy", True), ("atomisation_energy", True), ("gap", False)]
)
def test_forces_are_gradients_of_total_energies_alone(target, expected):
    assert states_forces(data.load("xtb", None, target)) is expected


def test_a_split_without_forces_has_none():
    dataset = SimpleNamespace(outputs="graph", target="energy", split=lambda _: molecules(2))
    assert states_forces(dataset)
    bare = [Data(z=g.z, pos=g.pos, y=g.y) for g in molecules(2)]
    dataset.split = lambda name: bare if name == "ood" else molecules(2)
    assert not states_forces(dataset)
    dataset.outputs, dataset.split = "positions", lambda _: molecules(2)
    assert not states_forces(dataset)


def test_structures_are_spread_out_and_lack_no_element():
    graphs = [Data(z=torch.tensor([6 if row != 17 else 8]), row=row) for row in range(100)]
    assert [g.row for g in spread_out(graphs, 100)] == list(range(100))
    rows = [g.row for g in spread_out(graphs, 10)]
    assert rows == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99, 17]


@pytest.mark.parametrize(
    ("build", "several"),
    [
        (lambda: SinglePass(network()), False),
        (lambda: LastLayer(network()), False),
        (lambda: SinglePass(network(members=3)), True),
        (lambda: SinglePass(DeepEnsemble([network(), network(1)])), True),
        (lambda: MCDropout(network(readout_dropout=0.2), 3), True),
    ],
    ids=["mean_variance", "last_layer", "shallow", "deep", "dropout"],
)
def test_both_sources_are_tried_where_there_are_members(build, several):
    train, val = molecules(12), molecules(12, seed=1)
    method = build().eval()
    if isinstance(method, LastLayer):
        method.fit([force_uncertainty.Batch.from_data_list(train)])
    assert has_members(method, train[0]) is several
    found = fit_likelier_bars(estimator := without(method), train, val)
    assert set(found) == ({"distance", "members"} if several else {"distance"})
    best, *others = found.values()
    assert all(best <= other for other in others)
    assert isinstance(estimator.atoms, AtomErrorBars)
    assert estimator.atoms.source == next(iter(found))


def test_the_likelier_source_is_kept(monkeypatch):
    """Whichever knows the errors: here one that validation alone can tell from the other."""
    draw = torch.Generator().manual_seed(0)
    scale = torch.rand(200, generator=draw, dtype=torch.float64) * 3 + 0.1
    noise = torch.rand(200, generator=draw, dtype=torch.float64) + 0.1
    directions = torch.randn(200, 4, generator=draw)
    z, structure = torch.full((200,), 6), torch.arange(200) // 4
    wrong = scale[:, None] * torch.randn(200, 3, generator=draw, dtype=torch.float64)
    method = without(SinglePass(network(members=2)))

    def chosen(far: torch.Tensor, spread: torch.Tensor) -> str:
        unit = directions / directions.norm(dim=1, keepdim=True)
        train = AtomEvidence(directions, z, structure, wrong)
        val = AtomEvidence(far[:, None].float() * unit, z, structure, wrong, spread)
        parts = iter((train, val))
        monkeypatch.setattr(force_uncertainty, "evidence", lambda *_, **__: next(parts))
        return next(iter(fit_likelier_bars(method, molecules(2), molecules(2))))

    assert chosen(far=scale, spread=noise) == "distance"
    assert chosen(far=noise, spread=scale) == "members"


def test_the_likelihood_is_that_of_a_gaussian():
    found = AtomEvidence(
        torch.zeros(2, 1), torch.tensor([1, 9]), torch.tensor([0, 0]), torch.ones(2, 3)
    )
    bars = SimpleNamespace(std=lambda *_: torch.tensor([2.0, torch.inf], dtype=torch.float64))
    expected = 0.5 * (math.log(2 * math.pi * 4) + 1 / 4)  # no unknown element
    assert likelihood(bars, found) == pytest.approx(expected, rel=1e-12)


def test_a_model_without_such_bars_has_no_scores():
    assert score_force_uncertainty("dense", without(SinglePass(network())), None, None) == ({}, {})


def test_atoms_of_an_element_without_training_atoms_are_left_out_and_this_is_said():
    carbon = [Data(z=torch.full((5,), 6), pos=g.pos, forces=g.forces) for g in molecules(12)]
    strange = molecules(4, seed=2)  # three atoms of five are hydrogen
    model = without(SinglePass(network()).eval())
    fit_likelier_bars(model, carbon, carbon)
    parts = {"test": carbon, "ood": strange}
    dataset = SimpleNamespace(split=parts.__getitem__)
    with pytest.warns(SuspiciousDataWarning, match=r"12 of 20 atoms \(own, ood\) have an element"):
        scores, arrays = score_force_uncertainty("own", model, dataset, torch.device("cpu"))
    assert math.isfinite(scores["ood_force_coverage_90_calibrated"])
    assert 0.5 < scores["force_ood_auroc_calibrated"] <= 1
    std = arrays["ood_own_forces_std_calibrated"].reshape(4, 5)
    assert (np.isinf(std) == (strange[0].z.numpy() == 1)).all()
    parts["ood"] = [Data(z=torch.ones_like(g.z), pos=g.pos, forces=g.forces) for g in strange]
    with pytest.warns(SuspiciousDataWarning, match="20 of 20 atoms"):
        scores, _ = score_force_uncertainty("own", model, dataset, torch.device("cpu"))
    assert not any(name.startswith("ood_") for name in scores)
