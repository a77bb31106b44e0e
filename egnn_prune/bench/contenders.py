"""The networks that are compared, each as a function of the same graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from egnn_prune.api import compact
from egnn_prune.bench.cases import FEATURES, RECOMPUTE, Case
from egnn_prune.bench.contender import Contender, Unavailable, program
from egnn_prune.bench.inputs import Inputs
from egnn_prune.channels import Prunable
from egnn_prune.models import EGNN, IrrepsNet
from egnn_prune.pruning import apply_masks
from egnn_prune.testing.textbook import TextbookEGNN

REMOVED = {"ours": 0, "ours-50": 50, "ours-75": 75, "ours-90": 90}
"""Percent of all channels that each of ours lacks."""


def contender(variant: str, case: Case, device: str, compiled: bool = False) -> Contender:
    """Build a network, always with the same weights.

    Raises:
        Unavailable: its package is not there, or nothing is known of how to compile it.
    """
    torch.manual_seed(0)
    if variant == "textbook":
        return _textbook(_dense_egnn(case).to(device), compiled)
    if variant == "egnn-pytorch":
        from egnn_prune.bench.egnn_pytorch import egnn_pytorch

        return egnn_pytorch(case, device, compiled)
    if variant == "nequip":
        from egnn_prune.bench.nequip import nequip

        return nequip(case, device, compiled)
    if case.network == "irreps":
        return _irreps(REMOVED[variant], case, device, compiled)
    return _ours(variant, case, device, compiled)


def _dense_egnn(case: Case) -> EGNN:
    # as the authors' layer is by default: no attention, mean displacements, plain differences
    return EGNN(FEATURES, case.hidden, case.layers, normalise=False)


def _textbook(twin: EGNN, compiled: bool) -> Contender:
    network = TextbookEGNN(twin)
    run = program(network, compiled)
    itself = _textbook(twin, compiled=False) if compiled else None
    return Contender(
        lambda inputs: run(inputs.x, inputs.pos, inputs.edge_index),
        list(network.parameters()),
        network.embedding.weight,
        network,
        expected=itself,
        twin=twin,
    )


def _ours(variant: str, case: Case, device: str, compiled: bool) -> Contender:
    masked = _dense_egnn(case).to(device)
    columns = None
    network = masked
    if variant == RECOMPUTE:
        for layer in network.layers:
            if not hasattr(layer, "recompute"):
                raise Unavailable("this version recomputes nothing on the way back")
            cast(Any, layer).recompute = True
    elif removed := REMOVED[variant]:
        keep = uniform_masks(masked, removed)
        apply_masks(masked, keep)
        columns = keep["stream"].nonzero().flatten().to(device)
        network = cast(EGNN, compact(masked))
    if compiled:
        # tensors in, tensors out, as one compiles it
        run = program(network.features, compiled)

        def outputs(inputs: Inputs) -> Sequence[Tensor]:
            return run(inputs.x, inputs.pos, inputs.edge_index, inputs.batch.batch)[:2]

    else:

        def outputs(inputs: Inputs) -> Sequence[Tensor]:
            out = network(inputs.batch)
            return out.x, out.pos

    expected = _textbook(masked, compiled=False)
    return Contender(
        outputs,
        list(network.parameters()),
        network.embedding.weight,
        network,
        expected,
        columns,
        twin=network,
    )


def _irreps(removed: int, case: Case, device: str, compiled: bool) -> Contender:
    network = IrrepsNet(
        FEATURES, case.hidden, case.layers, lmax=2, parity=False, cutoff=case.cutoff or 5.0
    ).to(device)
    if removed:
        apply_masks(network, uniform_masks(network, removed))
        network = cast(IrrepsNet, compact(network))
    run = program(network.features, compiled)

    def outputs(inputs: Inputs) -> Sequence[Tensor]:
        if compiled:
            return run(inputs.x, inputs.pos, inputs.edge_index, inputs.batch.batch)[:1]
        return (network(inputs.batch).x,)

    return Contender(outputs, list(network.parameters()), network.embedding.weight, network)


def uniform_masks(network: Prunable, removed: int) -> dict[str, Tensor]:
    """Which channels stay when the same percentage of every group goes, evenly spread."""
    masks = {}
    for group in network.channel_groups():
        kept = max(1, round(group.n * (100 - removed) / 100))
        mask = torch.zeros(group.n, dtype=torch.bool)
        mask[(torch.arange(kept) * group.n) // kept] = True
        masks[group.name] = mask
    return masks


def difference(
    found: Sequence[Tensor], expected: Sequence[Tensor], columns: Tensor | None
) -> float:
    """The largest absolute difference of outputs, over the channels that both have."""
    worst = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        if columns is not None and ours.shape != theirs.shape:
            # node features lack columns, the gradient of the embedding rows
            theirs = theirs.index_select(int(ours.shape[1:] == theirs.shape[1:]) ^ 1, columns)
        worst = max(worst, float((ours - theirs).abs().max()))
    return worst
