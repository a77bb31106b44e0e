"""Which structures of a pool are labelled: the strange ones, different ones, and sound refusals."""

from __future__ import annotations

import pytest
import torch
from small_adopted import potential, structures
from torch_geometric.loader import DataLoader

from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.evaluation.atom_error_bars import evidence, fit_atom_error_bars, rms_of_structures
from egnn_prune.evaluation.pool import CHOICES, choose_structures, structure_scores
from egnn_prune.training.distillation import label
from egnn_prune.uncertainty import DeepEnsemble, Estimator, PredictionRigidity, SinglePass


@pytest.fixture(scope="module")
def train():
    return label(potential(seed=0), structures(*[6] * 30).to_data_list())


@pytest.fixture(scope="module")
def estimator(train) -> Estimator:
    found = PredictionRigidity(potential(seed=1)).fit(DataLoader(train[:20], 16))
    fit_atom_error_bars(found, train[:20], train[20:])
    return found


@pytest.fixture(scope="module")
def pool(train):
    """Ordinary structures of two sizes; numbers 3, 8 and 11 are pressed together."""
    graphs = structures(*[5] * 7, *[6] * 7).to_data_list()
    for number in (3, 8, 11):
        graphs[number].pos = 0.6 * graphs[number].pos
    return graphs


def test_the_uncertain_ones_are_those_of_the_largest_error_bars(estimator, pool):
    scores, seen = structure_scores(estimator, pool)
    assert choose_structures(estimator, pool, 3) == scores.argsort(descending=True)[:3].tolist()
    assert {3, 8, 11} & set(choose_structures(estimator, pool, 3))
    labelled = label(potential(seed=0), pool)
    found = evidence(estimator, labelled)
    std = estimator.atoms.std(found.features, found.z)
    assert torch.allclose(scores, rms_of_structures(std, found.structure))
    first = found.features[found.structure == 0].double().mean(0)
    assert torch.allclose(seen[0], first)


@pytest.mark.parametrize("strategy", CHOICES)
def test_choices_are_different_structures_and_the_same_for_the_same_seed(
    estimator, pool, train, strategy
):
    one, two = (choose_structures(estimator, pool, 5, strategy, train=train) for _ in range(2))
    assert one == two and len(set(one)) == 5 and all(0 <= k < len(pool) for k in one)
    drawn = [tuple(choose_structures(estimator, pool, 5, strategy, seed=s)) for s in range(4)]
    assert (len(set(drawn)) > 1) is (strategy in ("proportional", "random"))


def test_diverse_ones_are_not_copies_of_each_other(estimator, pool):
    (first,) = choose_structures(estimator, pool, 1)
    several = [*pool, *[pool[first].clone() for _ in range(4)]]
    copies = {first, 14, 15, 16, 17}
    top = choose_structures(estimator, several, 4, "uncertain")
    diverse = choose_structures(estimator, several, 4, "diverse")
    assert len(copies & set(diverse)) <= 1 < len(copies & set(top))


def test_the_spread_of_members_chooses_too(train, pool):
    committee = SinglePass(DeepEnsemble([potential(seed=1), potential(seed=2)]))
    fit_atom_error_bars(committee, train[:20], train[20:])
    assert committee.atoms.source == "members"
    assert len(set(choose_structures(committee, pool, 4))) == 4


def test_what_cannot_be_chosen_among(estimator, pool):
    for graphs, count, text in (
        (pool[:1], 1, "a pool of 1 structure leaves"),
        ([], 1, "a pool of 0 structures"),
        (pool, 15, "15 structures are to be labelled of a pool of 14; ask for 1 to 14"),
        (pool, 0, "ask for 1"),
    ):
        with pytest.raises(InputError, match=text):
            choose_structures(estimator, graphs, count)
    with pytest.raises(ConfigError, match="one of uncertain, diverse, proportional, random"):
        choose_structures(estimator, pool, 2, "best")
    with pytest.raises(ConfigError, match="no error bars of forces"):
        choose_structures(SinglePass(potential()), pool, 2)
    assert len(choose_structures(SinglePass(potential()), pool, 2, "random")) == 2


def test_structures_that_cannot_be_used_are_named(estimator, pool, train):
    strange = [graph.clone() for graph in pool]
    strange[4].z = torch.full_like(strange[4].z, 14)
    with pytest.raises(DataError, match="structure 4 of the pool has the element Si"):
        choose_structures(estimator, strange, 2, "random")
    broken = [graph.clone() for graph in pool]
    broken[9].pos[0, 0] = torch.nan
    with pytest.raises(DataError, match="structure 9 of the pool"):
        choose_structures(estimator, broken, 2)
    without = [g.clone() for g in train]
    for graph in without:
        graph.z = torch.where(graph.z == 8, 6, graph.z)
    bars = SinglePass(potential(seed=1))
    fit_atom_error_bars(bars, label(potential(), without[:20]), label(potential(), without[20:]))
    with pytest.raises(DataError, match=r"structure 0 of the pool .* in no training structure"):
        choose_structures(bars, pool, 2)
