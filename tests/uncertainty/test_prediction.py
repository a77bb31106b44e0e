"""One Prediction type: the formulas by hand, pooling, joining, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from egnn_prune import Prediction
from egnn_prune.errors import InputError

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
