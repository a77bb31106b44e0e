"""Forty training molecules, and a small model that can learn from them."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch

from egnn_prune import data
from egnn_prune.models import EGNNOptions, PropertyModel, TargetScale


@pytest.fixture(scope="module")
def graphs() -> tuple[list, list]:
    dataset = data.load("xtb").limited(40)
    return dataset.split("train"), dataset.split("val")[:10]


@pytest.fixture
def model(graphs) -> PropertyModel:
    torch.manual_seed(0)
    batch = Batch.from_data_list(graphs[0])
    options = EGNNOptions(radial=8, cutoff=None)
    model = PropertyModel.build((1, 6, 7, 8, 9), hidden=8, layers=2, options=options)
    model.scale = TargetScale.fit(model.element_counts(batch), batch.y)
    return model
