"""The table of channel groups, and what is refused."""

from __future__ import annotations

import pytest
from torch import nn

from egnn_prune.api.pruning import channel_groups
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import apply_masks, choose


def test_a_table_that_a_person_understands(make_property_model):
    model = make_property_model(hidden=16)
    groups = channel_groups(model)
    lines = str(groups).splitlines()
    assert lines[0].split() == "group kind channels kept weights each tensors that shrink".split()
    row = next(line for line in lines if line.startswith("trunk.layers.0.edge "))
    # an edge channel: 2 * 16 + 1 weights and a bias make it, 16 weights read it
    assert row.split()[1:5] == ["edge", "16", "16", "50"]
    assert "edge_in.weight, edge_in.bias, edge_out.weight" in row
    channels = 16 * len(groups)
    assert lines[-1] == (
        f"{len(groups)} groups, {channels} of {channels} channels kept; "
        "the tensors that shrink hold 99% of the weights"
    )
    assert max(map(len, lines)) <= 120
    scores = {g.name: g.members[0].index[:, 0].double() for g in groups}
    apply_masks(model, choose(scores, 0.5, "group"))
    assert f"{8 * len(groups)} of" in str(channel_groups(model))


def test_modules_that_cannot_be_pruned():
    with pytest.raises(ConfigError, match=r"declares no channel groups.*needs a batch"):
        channel_groups(nn.Linear(2, 2))

    class Empty(nn.Linear):
        def channel_groups(self):
            return []

        def resized(self, keep):
            return self

    with pytest.raises(ConfigError, match="Empty declares no channel group"):
        channel_groups(Empty(2, 2))


def test_two_groups_of_one_name(make_egnn, monkeypatch):
    model = make_egnn()
    monkeypatch.setattr(model, "channel_groups", lambda: 2 * type(model).channel_groups(model))
    with pytest.raises(ConfigError, match="two groups named layers"):
        channel_groups(model)
