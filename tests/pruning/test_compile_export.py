"""Compact EGNNs compile and export: from tensors, with any number of atoms and edges."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from egnn_prune import prune
from egnn_prune.api.pruning import compact


class FromTensors(nn.Module):
    """A model of PyG batches as a function of tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor, pos: Tensor, edge_index: Tensor, batch: Tensor, ptr: Tensor):
        graphs = Batch(z=z, pos=pos, edge_index=edge_index, batch=batch, ptr=ptr)
        return self.model(graphs).mean


@pytest.fixture
def small(make_property_model) -> nn.Module:
    model = make_property_model(attention=True, radial=4)
    return FromTensors(compact(prune(model, "magnitude", 0.5))).eval()


@pytest.fixture
def tensors(make_batch):
    def make(*sizes: int) -> tuple[Tensor, ...]:
        from egnn_prune.graphs import with_edges

        batch = with_edges(make_batch(*sizes), None)
        return batch.z, batch.pos, batch.edge_index, batch.batch, batch.ptr

    return make


def test_export_with_dynamic_sizes(small, tensors, assert_close):
    nodes, edges = torch.export.Dim("nodes"), torch.export.Dim("edges")
    ends = torch.export.Dim("ends", min=3)  # two graphs or more: torch treats sizes of 1 as fixed
    shapes = ({0: nodes}, {0: nodes}, {1: edges}, {0: nodes}, {0: ends})
    program = torch.export.export(small, tensors(5, 7), dynamic_shapes=shapes)
    for sizes in ((5, 7), (4, 9, 6)):
        assert_close(program.module()(*tensors(*sizes)), small(*tensors(*sizes)))


# the copies of PyG batches stay outside the compiled graphs, and dynamo says so
@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace:UserWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.slow
def test_compile(small, tensors, assert_close):
    compiled = torch.compile(small)
    for sizes in ((5, 7), (4, 9, 6)):
        assert_close(compiled(*tensors(*sizes)), small(*tensors(*sizes)))
