"""Effective sparsity: what is cut off counts as removed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from egnn_prune.channels import ChannelGroup, linear_members
from egnn_prune.pruning import (
    apply_masks,
    choose,
    effective_masks,
    effective_sparsity,
    register_masks,
)
from egnn_prune.pruning.masks import mask_of


class Chain(nn.Module):
    """in 2, a 3, b 4, out 1; without biases a channel nobody feeds is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3, bias=False)
        self.second = nn.Linear(3, 4, bias=False)
        self.third = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x).relu()).relu())

    def channel_groups(self) -> list[ChannelGroup]:
        def group(name: str, made: str, read: str, n: int) -> ChannelGroup:
            rows = linear_members(made, n, rows=True, bias=False)
            return ChannelGroup(name, "hidden", n, (*rows, *linear_members(read, n)))

        return [group("a", "first", "second", 3), group("b", "second", "third", 4)]


def prune_weights(model: nn.Module, name: str, entries: list[tuple[int, int]]) -> None:
    register_masks(model, [name])
    for i, j in entries:
        mask_of(model, name).pruned[i, j] = True


def test_nothing_is_dead_in_a_dense_network():
    assert effective_sparsity(Chain()) == 0


def test_a_channel_that_nothing_feeds_and_one_that_nobody_reads():
    model = Chain()
    prune_weights(model, "second.weight", [(1, 0), (1, 1), (1, 2)])  # b[1] is fed by nothing
    prune_weights(model, "third.weight", [(0, 3)])  # nobody reads b[3]
    masks = effective_masks(model)
    assert masks["b"].tolist() == [True, False, True, False]
    assert masks["a"].all()
    assert effective_sparsity(model) == pytest.approx(2 / 7)


def test_death_spreads_to_neighbours():
    model = Chain()
    # a[2] is read by b[0] only, and nobody reads b[0]
    prune_weights(model, "second.weight", [(1, 2), (2, 2), (3, 2)])
    assert effective_masks(model)["a"].all()
    prune_weights(model, "third.weight", [(0, 0)])
    assert effective_masks(model)["a"].tolist() == [True, True, False]


def test_a_bias_keeps_a_channel_alive():
    model = Chain()
    model.second = nn.Linear(3, 4)
    groups = model.channel_groups()
    rows = linear_members("second", 4, rows=True)
    groups[1] = ChannelGroup("b", "hidden", 4, (*rows, *linear_members("third", 4)))
    prune_weights(model, "second.weight", [(1, 0), (1, 1), (1, 2)])
    assert effective_masks(model, groups)["b"].all()


def test_structured_masks_are_what_they_are(make_property_model):
    model = make_property_model()
    scores = {g.name: torch.rand(g.n) for g in model.channel_groups()}
    keep = choose(scores, 0.5, "group")
    apply_masks(model, keep)
    masks = effective_masks(model)
    assert all(torch.equal(masks[k], keep[k]) for k in keep)
