"""Fitting and scoring error bars of forces on structures, and what they cost."""

from __future__ import annotations

import copy
import time
from functools import partial

import pytest
import torch
from small_adopted import potential, structures
from torch_geometric.data import Batch, Data
from trained_models import METHODS, calibrated

from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.evaluation import error_bar_cost
from egnn_prune.evaluation.atom_error_bars import (
    evidence,
    fit_atom_error_bars,
    force_scores,
    rms_of_structures,
)
from egnn_prune.evaluation.error_bar_cost import error_bar_latencies, with_error_bars
from egnn_prune.models import energy_and_forces
from egnn_prune.uncertainty import AtomErrorBars, AtomEvidence, DeepEnsemble, Estimator, SinglePass


def labelled(estimator: Estimator, count: int, seed: int, periodic: bool = False) -> list[Data]:
    """Structures whose true forces lie 0.1 eV/A off what is predicted."""
    torch.manual_seed(seed)
    graphs = []
    for k in range(count):
        (graph,) = structures(*[5] * (k + 1), periodic=periodic).to_data_list()[-1:]
        graph.pos = graph.pos + 0.02 * seed * torch.randn(graph.pos.shape)
        _, forces = energy_and_forces(estimator, Batch.from_data_list([graph]))
        graph.forces = forces + 0.1 * torch.randn(forces.shape)
        graphs.append(graph)
    return graphs


@pytest.fixture
def estimator() -> SinglePass:
    return SinglePass(potential()).eval()


def test_what_is_fitted_is_kept_with_the_model(estimator):
    train, val = labelled(estimator, 12, 1), labelled(estimator, 12, 2)
    before = [copy.deepcopy(vars(graph)) for graph in train]
    estimator.train()
    bars = fit_atom_error_bars(estimator, train, val)
    assert estimator.training and estimator.atoms is bars and bars.source == "distance"
    assert all(set(vars(g)) == set(b) for g, b in zip(train, before, strict=True))
    found = evidence(estimator, val)
    assert found.features.device.type == "cpu" and len(found.z) == 60
    scores = force_scores(bars, found)
    assert scores["force_coverage_90_calibrated"] == pytest.approx(0.9, abs=0.03)
    assert scores["force_ence_calibrated"] < 0.5
    assert not any(v != v for v in scores.values())


def test_networks_of_their_own_are_members():
    committee = SinglePass(DeepEnsemble([potential(seed=s) for s in range(3)])).eval()
    train, val = labelled(committee, 8, 1), labelled(committee, 8, 2)
    estimator = calibrated(committee)
    assert fit_atom_error_bars(estimator, train, val).source == "members"
    found = evidence(estimator, val, members=True)
    assert found.spread.dtype == torch.float64 and bool((found.spread > 0).all())
    assert fit_atom_error_bars(estimator, train, val, source="distance").source == "distance"


def test_crystals_and_molecules_among_each_other(estimator):
    graphs = [labelled(estimator, 6, 1), labelled(estimator, 6, 1, periodic=True)]
    mixed = [graph for pair in zip(*graphs, strict=True) for graph in pair]
    found = evidence(estimator, mixed)
    apart = AtomEvidence.cat([evidence(estimator, part) for part in graphs])
    assert found.structure.tolist() == [k // 5 for k in range(60)]
    order = torch.cat([found.structure * 0 + torch.arange(60)]).view(12, 5)
    order = torch.cat([order[::2], order[1::2]]).flatten()
    torch.testing.assert_close(found.features[order], apart.features)
    torch.testing.assert_close(found.wrong[order], apart.wrong)


def test_structures_without_forces_are_refused(estimator):
    with pytest.raises(DataError, match="need structures with forces"):
        evidence(estimator, structures(4, 5).to_data_list())
    with pytest.raises(DataError, match="need structures with forces"):
        evidence(estimator, [])
    with pytest.raises(ConfigError, match="at least two members"):
        fit_atom_error_bars(estimator, *[labelled(estimator, 3, 1)] * 2, source="members")


def test_elements_that_were_not_fitted(estimator):
    """No scores of structures that have no error bar; new elements are beyond all others."""
    train, val = labelled(estimator, 12, 1), labelled(estimator, 12, 2)
    found = evidence(estimator, val)
    hydrogen = AtomEvidence(*(column[found.z != 1] for column in list(vars(found).values())[:4]))
    bars = AtomErrorBars().fit(hydrogen, hydrogen)
    with pytest.raises(InputError, match="its element is in no training structure"):
        force_scores(bars, evidence(estimator, train))
    scores = force_scores(bars, hydrogen, found)
    assert scores["force_ood_auroc"] > 0.5


def test_scores_of_structures_by_hand():
    values = torch.tensor([3.0, 4.0, 1.0, 1.0, 1.0]).double()
    found = rms_of_structures(values, torch.tensor([0, 0, 1, 1, 1]))
    torch.testing.assert_close(found, torch.tensor([12.5**0.5, 1.0]).double())


def test_latencies_take_turns_and_include_the_error_bars(estimator, monkeypatch):
    train, val = labelled(estimator, 12, 1), labelled(estimator, 12, 2)
    fit_atom_error_bars(estimator, train, val)
    batch = structures(5, 4)
    stated = with_error_bars(estimator, batch)
    assert stated.features is not None and stated.forces is not None
    calls = []

    def slow(estimator, batch, original):
        calls.append("bars")
        time.sleep(0.02)
        return original(estimator, batch)

    monkeypatch.setattr(error_bar_cost, "with_error_bars", partial(slow, original=with_error_bars))
    shallow = METHODS["shallow"](torch.float64)
    found = error_bar_latencies({"own": estimator, "shallow": shallow}, batch, 2, warmup=1)
    assert set(found) == {"own", "own_plain", "shallow", "shallow_plain"} and len(calls) == 6
    assert found["own"] >= 20 and all(value > 0 for value in found.values())
    with pytest.raises(ConfigError, match="1 or more calls, not 0"):
        error_bar_latencies({"own": estimator}, batch, 0)
