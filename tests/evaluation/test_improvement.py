"""Learning new structures: better where they are, no worse where they are not, nothing touched."""

from __future__ import annotations

import copy

import pytest
import torch
from small_adopted import potential, structures
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.evaluation import improvement
from egnn_prune.evaluation.atom_error_bars import fit_atom_error_bars
from egnn_prune.evaluation.improvement import Improvement, improved
from egnn_prune.training.distillation import label
from egnn_prune.training.potential_task import PotentialSettings
from egnn_prune.uncertainty import (
    Calibrated,
    DeepEnsemble,
    Estimator,
    PredictionRigidity,
    SinglePass,
    calibrate,
)

FEW = PotentialSettings(steps=12, lr=3e-3, validations=1, ema=0.0, batch_size=4)


def teacher() -> torch.nn.Module:
    return potential(seed=0)


def student(seed: int = 1) -> torch.nn.Module:
    """The teacher, a little off."""
    model = teacher()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            weight += 0.1 * noise
    return model


@pytest.fixture(scope="module")
def parts() -> tuple[list[Data], list[Data], list[Data]]:
    """Training, validation, and tighter new structures, labelled by the teacher."""
    graphs = structures(*[6] * 32).to_data_list()
    new = [g.clone() for g in graphs[:8]]
    for graph in new:
        graph.pos = 0.85 * graph.pos
    found = label(teacher(), [*graphs, *new])
    return found[:20], found[20:32], found[32:]


@pytest.fixture(scope="module")
def estimator(parts: tuple[list[Data], ...]) -> Estimator:
    return with_error_bars(PredictionRigidity(student()), *parts[:2])


def with_error_bars(method: Estimator, train: list[Data], val: list[Data]) -> Estimator:
    found = calibrate(method.fit(DataLoader(train, 16)), DataLoader(val, 16))
    fit_atom_error_bars(found, train, val)
    return found


def state(estimator: Estimator) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in estimator.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_what_is_learned_is_better_and_has_error_bars_of_its_own(estimator, parts) -> None:
    train, val, new = parts
    before = state(estimator)
    found = improved(estimator, new, train, val, FEW, held_out=0.25)
    assert found.accepted and found.reason == ""
    assert found.after["new"] < found.before["new"]
    assert found.after["old"] <= 1.1 * found.before["old"]
    assert (found.trained_on, found.held_out) == (6, 2)
    assert same(state(estimator), before), "the given estimator was touched"
    assert isinstance(found.estimator, Calibrated)
    assert type(found.estimator.estimator) is PredictionRigidity
    assert not torch.equal(found.estimator.estimator.covariance, estimator.estimator.covariance)
    assert found.estimator.atoms.source == "distance"
    assert not torch.equal(found.estimator.atoms.quantiles, estimator.atoms.quantiles)
    assert found.estimator.network.scale == estimator.network.scale, "shifts were refitted"


def test_the_same_seed_learns_the_same(estimator, parts) -> None:
    train, val, new = parts
    one, two, other = (improved(estimator, new, train, val, FEW, seed=s) for s in (3, 3, 4))
    assert same(state(one.estimator), state(two.estimator)) and one.after == two.after
    assert one.after != other.after


def test_a_worse_network_is_not_taken(estimator, parts) -> None:
    train, val, new = parts
    thrown = PotentialSettings(steps=3, lr=0.5, validations=1, ema=0.0)
    found = improved(estimator, new, train, val, thrown)
    assert not found.accepted and found.estimator is estimator
    assert found.after == found.before, "the fit ends with the weights that it began with"
    assert "label more structures" in found.reason


def test_forgetting_is_not_accepted(estimator, parts, monkeypatch) -> None:
    train, val, new = parts
    monkeypatch.setattr(improvement, "TOLERANCE", -0.99)
    found = improved(estimator, new, train, val, FEW)
    assert not found.accepted and found.estimator is estimator
    assert "old validation" in found.reason


def test_every_member_of_a_committee_learns(parts) -> None:
    train, val, new = parts
    committee = SinglePass(DeepEnsemble([student(1), student(2)]))
    old = with_error_bars(committee, train, val)
    found = improved(old, new, train, val, FEW)
    assert found.accepted
    assert found.estimator.atoms.source == "members"
    for a, b in zip(old.network.members, found.estimator.network.members, strict=True):
        assert not same(a.state_dict(), b.state_dict())


def test_a_method_without_calibration_gets_none(parts) -> None:
    train, val, new = parts
    found = improved(SinglePass(student()), new, train, val, FEW)
    assert isinstance(found, Improvement) and type(found.estimator) is SinglePass
    assert found.estimator.atoms is None


def test_two_structures_are_enough_and_one_is_not(estimator, parts) -> None:
    train, val, new = parts
    found = improved(estimator, new[:2], train, val, FEW)
    assert (found.trained_on, found.held_out) == (1, 1)
    with pytest.raises(InputError, match="label 2 or more"):
        improved(estimator, new[:1], train, val, FEW)
    with pytest.raises(ConfigError, match="held out"):
        improved(estimator, new, train, val, FEW, held_out=1.0)


@pytest.mark.parametrize("wrong", ["missing", "nan", "level", "cell"])
def test_labels_that_cannot_be_learned(estimator, parts, wrong) -> None:
    train, val, new = parts
    new = copy.deepcopy(new)
    if wrong == "missing":
        del new[2].forces
    elif wrong == "nan":
        new[2].forces[0, 0] = torch.nan
    elif wrong == "level":
        for graph in new:
            graph.y = graph.y + 100.0
    else:
        for graph in new:
            graph.cell = 9 * torch.eye(3, dtype=torch.float64)[None]
    text = {
        "missing": "new structure 2",
        "nan": "new structure 2 hold a NaN",
        "level": "another level of theory",
        "cell": "train on structures of one kind",
    }
    with pytest.raises(DataError, match=text[wrong]):
        improved(estimator, new, train, val, FEW)
