"""What is pruned, frozen and trainable, layer by layer, and what it costs to compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized
from torch.utils.flop_counter import FlopCounterMode

from egnn_prune.channels import evaluating
from egnn_prune.pruning.masks import MaskParametrization


def count_macs(
    model: nn.Module, run: Callable[[nn.Module], Any], layers: list[str] | None = None
) -> dict[str, int]:
    """Multiply-accumulates of the matrix products in one call, in total and per layer.

    Counted by ``torch.utils.flop_counter`` (two FLOPs are one MAC); elementwise work, gathers and
    scatters, which are linear in the widths, are not counted.

    Args:
        model: the network.
        run: calls it once, such as ``lambda m: m(batch)``.
        layers: dotted names of submodules to count separately.

    Returns:
        ``{"": total, layer name: MACs, ...}``.
    """
    counter = FlopCounterMode(display=False)
    with evaluating(model), torch.no_grad(), counter:
        run(model)
    flops = counter.get_flop_counts()
    root = type(model).__name__
    macs = {"": counter.get_total_flops() // 2}
    for name in layers or []:
        macs[name] = sum(flops.get(f"{root}.{name}", {}).values()) // 2
    return macs


def layer_names(model: nn.Module) -> list[str]:
    """The rows of a ledger: modules that own parameters, a level below every list of layers.

    A wrapper is no row: its only child with parameters is taken for the network.
    """
    names: list[str] = []

    def visit(module: nn.Module, prefix: str) -> None:
        for child_name, child in _owners(module):
            name = f"{prefix}{child_name}"
            lists = (m for m in child.modules() if isinstance(m, nn.ModuleList))
            if any(not isinstance(m, ParametrizationList) for m in lists):
                visit(child, f"{name}.")
            else:
                names.append(name)

    network, prefix = model, ""
    while not network._parameters and len(_owners(network)) == 1:
        name, child = _owners(network)[0]
        if is_parametrized(child) or not _owners(child):
            break
        network, prefix = child, f"{prefix}{name}."
    visit(network, prefix)
    return names


def _owners(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The children that have parameters."""
    return [(n, c) for n, c in module.named_children() if any(True for _ in c.parameters())]


def ledger(masked: nn.Module, compact: nn.Module, run: Callable[[nn.Module], Any]) -> list[dict]:
    """One row per layer: weights in total, pruned, frozen, trainable, and MACs before and after.

    ``masked`` and ``compact`` are the same pruned model; ``run`` as for :func:`count_macs`.
    """
    rows = []
    layers = layer_names(compact)
    macs_dense, macs_pruned = count_macs(masked, run, layers), count_macs(compact, run, layers)
    for name in layers:
        pruned = frozen = 0
        module = masked.get_submodule(name)
        total = sum(p.numel() for p in module.parameters())
        for part in module.modules():
            if isinstance(part, MaskParametrization):
                pruned += int(part.pruned.sum())
                frozen += int((part.frozen & ~part.pruned).sum())
        rows.append(
            {
                "layer": name,
                "total": total,
                "pruned": pruned,
                "frozen": frozen,
                "trainable": total - pruned - frozen,
                "macs_dense": macs_dense[name],
                "macs_pruned": macs_pruned[name],
            }
        )
    return rows
