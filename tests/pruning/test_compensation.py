"""Kept channels stand in for removed ones: exactly where they can, by least squares elsewhere."""

import copy

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data

from egnn_prune.channels import ChannelGroup, Prunable, linear_members
from egnn_prune.errors import ConfigError
from egnn_prune.models import IrrepsNet
from egnn_prune.models.irreps_linear import CopyLinear
from egnn_prune.pruning import apply_masks, compact, compensate
from egnn_prune.testing import assert_equivariant


class Two(Prunable):
    """A linear map, and another that reads it."""

    def __init__(self, width: int = 6, reader: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, width), reader or nn.Linear(width, 2)

    def forward(self, x):
        return self.second(self.first(x))

    def channel_groups(self):
        n = self.first.out_features
        rows = linear_members("first", n, rows=True)
        reads = (
            self.second.input_members("second", n, [0])
            if isinstance(self.second, CopyLinear)
            else linear_members("second", n)
        )
        return [ChannelGroup("hidden", "hidden", n, (*rows, *reads))]

    def resized(self, keep):
        n = len(keep["hidden"])
        copies = isinstance(self.second, CopyLinear)
        return Two(n, CopyLinear(2, [n]) if copies else nn.Linear(n, 2))


def keep(*kept: int, of: int = 6) -> dict[str, torch.Tensor]:
    mask = torch.zeros(of, dtype=torch.bool)
    mask[list(kept)] = True
    return {"hidden": mask}


def pruned(model, mask):
    apply_masks(model, mask)
    return compact(model)


@pytest.mark.parametrize("reader", [None, CopyLinear(2, [6])], ids=["linear", "coefficients"])
def test_channels_that_others_repeat_are_not_missed(reader):
    """Six channels span four dimensions (three inputs and a bias): four of them say everything."""
    torch.manual_seed(0)
    model, x = Two(reader=reader).double(), torch.randn(50, 3, dtype=torch.float64)
    if reader is not None:
        model.second.coefficient.mul_(torch.linspace(0.5, 2.0, 6))
    dense = model(x)
    mask = keep(0, 1, 3, 4)
    changed = compensate(model, mask, [x], ridge=1e-12)
    assert torch.allclose(pruned(changed, mask)(x), dense, atol=1e-4)
    assert torch.equal(model(x), dense), "the model itself is as it was"
    assert not torch.allclose(pruned(model, mask)(x), dense, atol=1e-2)


def test_it_is_the_ridge_regression_that_the_docstring_says():
    torch.manual_seed(1)
    model, x = Two().double(), torch.randn(40, 3, dtype=torch.float64)
    hidden = model.first(x).detach()
    kept, gone, weight = hidden[:, :2], hidden[:, 2:], model.second.weight.detach()
    gram = kept.T @ kept
    gram += 0.3 * gram.diagonal().mean() * torch.eye(2, dtype=torch.float64)
    standing = gone.T @ kept @ torch.linalg.inv(gram)
    wanted = weight[:, :2] + weight[:, 2:] @ standing
    found = compensate(model, keep(0, 1), [x[:10], x[10:]], ridge=0.3).second.weight
    assert torch.allclose(found[:, :2], wanted, atol=1e-12)


def test_nothing_removed_changes_nothing():
    torch.manual_seed(0)
    model, x = Two(), torch.randn(9, 3)
    changed = compensate(model, keep(*range(6)), [x])
    assert torch.equal(changed.second.weight, model.second.weight)


@pytest.mark.parametrize(
    ("batches", "ridge", "words"), [([], 1e-4, "not a single batch"), ([1], 0.0, "positive")]
)
def test_it_says_what_is_missing(batches, ridge, words):
    with pytest.raises(ConfigError, match=words):
        compensate(Two(), keep(0), batches, ridge=ridge)


def test_an_irreps_network_stays_equivariant_and_comes_closer(irreps_batch):
    torch.manual_seed(0)
    model = IrrepsNet(irreps_batch.x.shape[1], copies=8, layers=2, lmax=1, cutoff=3.0).double()
    groups = model.channel_groups()
    mask = {g.name: torch.ones(g.n, dtype=torch.bool) for g in groups}
    for name in ("layers.0.0e", "layers.0.1o"):
        mask[name][6:] = False
    dense = model(irreps_batch).x
    plain = (pruned(copy.deepcopy(model), mask)(irreps_batch).x - dense).square().mean()
    small = pruned(compensate(model, mask, [irreps_batch]), mask)
    helped = (small(irreps_batch).x - dense).square().mean()
    assert helped < 0.5 * plain
    assert_equivariant(small, irreps_batch)


@pytest.fixture
def irreps_batch():
    draws = torch.Generator().manual_seed(0)
    graphs = [
        Data(
            x=torch.randn(n, 2, generator=draws, dtype=torch.float64),
            pos=1.5 * torch.randn(n, 3, generator=draws, dtype=torch.float64),
        )
        for n in (7, 9, 11, 8)
    ]
    return Batch.from_data_list(graphs)
