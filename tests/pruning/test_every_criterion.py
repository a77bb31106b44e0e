"""Every structured criterion on every kind of network: masked and compact agree at 5 sparsities."""

from __future__ import annotations

import copy
import itertools
import math
from functools import partial

import pytest
import torch

from egnn_prune.channels import gates
from egnn_prune.models import EGNNOptions, IrrepsOptions, PropertyModel
from egnn_prune.pruning import (
    CRITERIA,
    Context,
    Movement,
    TracedNetwork,
    apply_masks,
    choose,
    compact,
    score_channels,
)
from egnn_prune.testing import assert_equivariant
from egnn_prune.training import graph_losses, predictive_variance
from egnn_prune.training.batch_losses import tuple_losses

SPARSITIES = (0.1, 0.3, 0.5, 0.7, 0.85)
ELEMENTS = (1, 6, 8)


def egnn() -> PropertyModel:
    options = EGNNOptions(attention=True, radial=4, cutoff=4.0)
    return PropertyModel.build(ELEMENTS, hidden=12, layers=2, members=2, options=options)


def irreps(lmax: int) -> PropertyModel:
    options = IrrepsOptions(lmax=lmax, cutoff=4.0, neighbours=4.0)
    return PropertyModel.build_irreps(
        ELEMENTS, copies=6, layers=2, radial=12, hidden=12, members=2, options=options
    )


def scores_of(model, batch, criterion, loss, variance):
    """A criterion's scores, after a backward pass for the one that watches training."""
    movement = Movement()
    loss(model, batch).mean().backward()
    movement.update(model)
    model.zero_grad()
    generator = torch.Generator().manual_seed(0)
    groups = model.channel_groups()
    context = Context(model, groups, [batch], loss, generator, variance=variance, movement=movement)
    return groups, score_channels(criterion, context)


#: Criteria that networks of others are tried with by default.
USUAL = ("taylor", "magnitude")


def graph_cases():
    """EGNN with every criterion; of IrrepsNet one with several, and scalars alone with one."""
    quick = {0: ("taylor",), 2: ("taylor", "fisher", "magnitude", "uncertainty")}
    yield from (pytest.param(egnn, name, id=f"EGNN-{name}") for name in CRITERIA)
    for lmax, name in itertools.product(range(4), CRITERIA):
        marks = () if name in quick.get(lmax, ()) else pytest.mark.slow
        label = f"IrrepsNet lmax {lmax}-{name}"
        yield pytest.param(partial(irreps, lmax), name, id=label, marks=marks)


@pytest.mark.parametrize(("build", "criterion"), list(graph_cases()))
def test_graph_networks(build, criterion, make_batch, dtype, assert_close):
    model = build().to(dtype).eval()
    batch = make_batch(5, 8)
    groups, scores = scores_of(model, batch, criterion, graph_losses, predictive_variance)
    total = sum(g.n for g in groups)
    for sparsity in SPARSITIES:
        keep = choose(scores, sparsity, groups=groups)
        masked = copy.deepcopy(model)
        apply_masks(masked, keep)
        small = compact(masked)
        left = sum(g.n for g in small.channel_groups())
        assert total - left == math.floor(sparsity * total)
        with torch.no_grad():
            assert_close(small.normalised(batch)[0], masked.normalised(batch)[0])
    assert_equivariant(small, batch, scale=1.0)  # the target has unit scale


@pytest.mark.parametrize(
    "criterion",
    [pytest.param(name, marks=() if name in USUAL else pytest.mark.slow) for name in CRITERIA],
)
@pytest.mark.parametrize(
    "name", ["resnet10", *(pytest.param(f"resnet{n}", marks=pytest.mark.slow) for n in (18, 50))]
)
@pytest.mark.parametrize("dtype", [torch.float32], indirect=True, ids=["float32"])
def test_torchvision_networks(name, criterion, assert_close):
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    if name == "resnet10":
        network = models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=10)
    else:
        network = getattr(models, name)(num_classes=10)
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():  # fresh statistics and affine weights would hide mistakes
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=generator)
    images = torch.randn(2, 3, 32, 32, generator=generator)
    model = TracedNetwork(network.eval(), images)
    batch = (images, torch.tensor([1, 7]))

    def variance(m, b):
        return m(b[0]).softmax(1).max(1).values

    scored = model
    if (
        criterion == "synflow"
    ):  # the flow through fifty layers of positive weights overflows float32
        scored, batch = copy.deepcopy(model).double(), (images.double(), batch[1])
    groups, scores = scores_of(scored, batch, criterion, tuple_losses, variance)
    for sparsity in SPARSITIES:
        masked = copy.deepcopy(model)
        apply_masks(masked, choose(scores, sparsity, groups=groups))
        small = compact(masked).network
        with torch.no_grad():
            assert_close(small(images), masked(images))
    assert sum(1 for _ in gates(model)) == len(groups)
