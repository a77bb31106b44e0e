"""A recorded function gives what the function gives, for other numbers of the same shapes."""

from __future__ import annotations

import pytest
import torch

from egnn_prune.deployment.cuda_graph import CudaGraph
from egnn_prune.errors import ConfigError, DataError


def test_there_are_no_graphs_on_the_cpu():
    with pytest.raises(ConfigError, match=r"needs its examples on a CUDA device, not on \['cpu'\]"):
        CudaGraph(torch.square, torch.ones(2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_recording_takes_other_numbers_and_no_other_shapes():
    graph = CudaGraph(lambda x: (x.square(), x + 1), torch.ones(3, device="cuda"))
    first = graph(torch.arange(3.0, device="cuda"))
    second = graph(torch.zeros(3, device="cuda"))
    assert first[0].tolist() == [0, 1, 4] and second[1].tolist() == [1, 1, 1]
    with pytest.raises(DataError, match="record another one"):
        graph(torch.ones(4, device="cuda"))
