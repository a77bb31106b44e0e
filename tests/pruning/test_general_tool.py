"""Why the EGNN declares its groups: a general tool loses the residual stream, ours prunes it."""

from __future__ import annotations

import copy

import pytest
import torch

from egnn_prune.pruning import apply_masks, compact

torch_pruning = pytest.importorskip("torch_pruning", reason="torch-pruning is not installed")


@pytest.mark.parametrize("dtype", [torch.float32], indirect=True, ids=["float32"])
def test_the_residual_stream_of_an_egnn(make_property_model, make_batch):
    model, batch = make_property_model(), make_batch(5, 7)
    general = copy.deepcopy(model)
    graph = torch_pruning.DependencyGraph()
    graph.build_dependency(general, batch, forward_fn=lambda m, b: m(b).mean)
    group = graph.get_pruning_group(
        general.trunk.embedding, torch_pruning.prune_linear_out_channels, idxs=[0, 1]
    )
    # the first edge layer is applied per node, in slices: its columns are not found
    assert not any("edge_in" in str(dep.target.name) for dep, _ in group)
    group.prune()
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        general(batch)

    keep = {g.name: torch.ones(g.n, dtype=torch.bool) for g in model.channel_groups()}
    keep["trunk.stream"][:2] = False
    apply_masks(model, keep)
    small = compact(model)
    assert small.trunk.hidden == model.trunk.hidden - 2
    assert torch.allclose(small(batch).mean, model(batch).mean, rtol=1e-5)
