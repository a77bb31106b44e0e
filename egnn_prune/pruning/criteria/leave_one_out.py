"""What removing each channel really does: the oracle that estimates are checked against."""

from __future__ import annotations

import torch
from torch import Tensor

from egnn_prune.channels import evaluating
from egnn_prune.pruning.criteria.batches import PerSample, sample_count
from egnn_prune.pruning.criteria.context import Context
from egnn_prune.pruning.criteria.gate_passes import opened_gates


@torch.no_grad()
def leave_one_out(context: Context, function: PerSample) -> dict[str, Tensor]:
    r"""Exact change of a number per sample when a single channel is removed.

    One forward pass for each channel (its gate is closed, which is what removal does), so only for
    small networks: for a criterion take an estimate.

    Args:
        context: with batches and gated groups.
        function: ``f(model, batch) -> [samples]``, such as a loss or the logarithm of a variance.

    Returns:
        :math:`f_b(\text{without } c) - f_b` for each gated group, ``[samples, n]``. Source: the
        "oracle" of Molchanov et al. 2017, Section 2.1.

    Raises:
        ConfigError: there is no data.
    """
    like = next(context.model.parameters())
    found: dict[str, list[Tensor]] = {name: [] for name in context.gates}
    with evaluating(context.model):
        for batch in context.data:
            dense = function(context.model, batch)
            for name, gate in context.gates.items():
                changes = []
                for channel in range(len(gate.kept)):
                    values = like.new_ones(sample_count(batch), len(gate.kept))
                    values[:, channel] = 0.0
                    with opened_gates([gate], [values]):
                        changes.append(function(context.model, batch) - dense)
                found[name].append(torch.stack(changes, dim=1).double().cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}
