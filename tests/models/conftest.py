"""Networks of irreps, in both precisions."""

from __future__ import annotations

import pytest
import torch
from irreps_helpers import FEATURES

from egnn_prune.models import IrrepsNet, IrrepsOptions, PropertyModel


@pytest.fixture
def make_net(dtype):
    """``make_net(copies=4, layers=3, **options)``: reads ``x`` with FEATURES columns."""

    def make(copies: int = 4, layers: int = 3, **options) -> IrrepsNet:
        torch.manual_seed(1)
        options = {"cutoff": 4.0, "vectors": 2 * (options.get("lmax", 2) > 0), **options}
        net = IrrepsNet(FEATURES, copies, layers, radial=6, **options)
        with torch.no_grad():  # biases that start at zero could hide a mistake
            for name, parameter in net.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_()
        return net.to(dtype).eval()

    return make


@pytest.fixture
def make_model(dtype):
    """``make_model(**options)``: a property model on an IrrepsNet."""

    def make(copies: int = 4, layers: int = 3, members: int = 1, **options) -> PropertyModel:
        torch.manual_seed(1)
        model = PropertyModel.build_irreps(
            (1, 6, 8),
            copies=copies,
            layers=layers,
            radial=6,
            hidden=8,
            members=members,
            readout_dropout=options.get("dropout", 0.0),
            options=IrrepsOptions(**{"cutoff": 4.0, **options}),
        )
        return model.to(dtype).eval()

    return make
