"""One Prediction type: the formulas by hand, pooling, joining, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from egnn_prune import Prediction
from egnn_prune.errors import InputError
from egnn_prune.prediction import ClassPrediction

MEANS = torch.tensor([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]], dtype=torch.float64)
VARIANCES = torch.tensor([[0.5, 0.1], [0.1, 0.2], [0.3, 0.6]], dtype=torch.float64)


def test_formulas_by_hand():
    p = Prediction.from_members(MEANS, VARIANCES)
    assert p.mean.tolist() == pytest.approx([3.0, 5.0])
    assert p.aleatoric.tolist() == pytest.approx([0.3, 0.3])
    # ((1 - 3)^2 + (2 - 3)^2 + (6 - 3)^2) / (3 - 1)
    assert p.epistemic.tolist() == pytest.approx([7.0, 0.0])
    assert p.variance.tolist() == pytest.approx([7.3, 0.3])
    assert torch.equal(p.members, MEANS) and torch.equal(p.member_variance, VARIANCES)


def test_one_member_has_no_epistemic_variance():
    p = Prediction.from_members(MEANS[:1], VARIANCES[:1])
    assert p.epistemic.tolist() == [0.0, 0.0]
    assert torch.equal(p.variance, VARIANCES[0])


def test_without_variances_the_aleatoric_part_is_zero():
    assert Prediction.from_members(MEANS).aleatoric.tolist() == [0.0, 0.0]


def test_stack_pools_members_of_the_same_graphs():
    whole = Prediction.from_members(MEANS, VARIANCES)
    parts = [Prediction.from_members(MEANS[s], VARIANCES[s]) for s in (slice(2), slice(2, 3))]
    pooled = Prediction.stack(parts)
    for key, value in vars(whole).items():
        assert torch.equal(getattr(pooled, key), value), key


def test_cat_joins_different_graphs():
    whole = Prediction.from_members(MEANS, VARIANCES)
    parts = [Prediction.from_members(MEANS[:, [i]], VARIANCES[:, [i]]) for i in range(2)]
    joined = Prediction.cat(parts)
    for key, value in vars(whole).items():
        assert torch.equal(getattr(joined, key), value), key


def test_detach_forgets_the_history():
    p = Prediction.from_members(MEANS.clone().requires_grad_(), VARIANCES)
    assert p.mean.requires_grad
    assert not any(value.requires_grad for value in vars(p.detach()).values())


@pytest.mark.parametrize("means", [torch.tensor(1.0), torch.zeros(0, 4)])
def test_no_member(means):
    with pytest.raises(InputError, match="at least one member"):
        Prediction.from_members(means)


def test_shapes_must_agree():
    with pytest.raises(InputError, match=r"\(3, 2\) and variances \(2, 2\)"):
        Prediction.from_members(MEANS, VARIANCES[:2])


def test_doubt_is_epistemic_where_there_is_any():
    several = Prediction.from_members(MEANS, VARIANCES)
    assert torch.equal(several.ood_variance, several.epistemic)
    one = Prediction.from_members(MEANS[:1], VARIANCES[:1])
    assert torch.equal(one.ood_variance, one.variance)


LOGITS = torch.tensor([[[0.0, 0.0], [3.0, 0.0]], [[2.0, 0.0], [0.0, 3.0]]], dtype=torch.float64)


def test_classes_by_hand():
    p = ClassPrediction(LOGITS)
    first = [0.5, 1 / (1 + math.exp(-2))]  # the members' probabilities of class 0
    mean = sum(first) / 2
    assert p.probabilities[0].tolist() == pytest.approx([mean, 1 - mean])
    assert p.label.tolist()[0] == 0 and float(p.confidence[0]) == pytest.approx(mean)

    def entropy(q: float) -> float:
        return -q * math.log(q) - (1 - q) * math.log(1 - q)

    assert float(p.entropy[0]) == pytest.approx(entropy(mean))
    expected = entropy(mean) - sum(entropy(q) for q in first) / 2
    assert float(p.mutual_information[0]) == pytest.approx(expected)
    energies = [-math.log(2), -math.log(math.exp(2) + 1)]
    assert float(p.energy[0]) == pytest.approx(sum(energies) / 2)


def test_members_that_contradict_each_other_are_an_epistemic_matter():
    p = ClassPrediction(LOGITS)
    assert float(p.entropy[1]) == pytest.approx(math.log(2))
    assert float(p.mutual_information[1]) > 0.4
    alone = ClassPrediction(LOGITS[:1])
    assert alone.mutual_information.abs().max() < 1e-12


def test_certain_classes_have_no_entropy_and_no_nan():
    p = ClassPrediction(torch.tensor([[[1000.0, 0.0]], [[1000.0, -1000.0]]]))
    assert float(p.entropy) == 0 and float(p.mutual_information) == 0


def test_joining_classes():
    p = ClassPrediction.cat([ClassPrediction(LOGITS[:, :1]), ClassPrediction(LOGITS[:, 1:])])
    assert torch.equal(p.logits, LOGITS) and not p.detach().logits.requires_grad


@pytest.mark.parametrize("shape", [(2, 3), (0, 4, 3), (2, 4, 1), (2, 4, 3, 1)])
def test_logits_of_the_wrong_shape_are_refused(shape):
    with pytest.raises(InputError, match="members, samples, classes"):
        ClassPrediction(torch.zeros(shape))
