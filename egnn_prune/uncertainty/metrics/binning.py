"""Ranks and bins that do not depend on the order of the samples, even where values are tied."""

from __future__ import annotations

import torch
from torch import Tensor

from egnn_prune.errors import ConfigError


def average_ranks(values: Tensor) -> Tensor:
    """Ranks from 1 to N, ``[N]`` in float64; tied values share the mean of their ranks."""
    ordered = values.sort().values
    first = torch.searchsorted(ordered, values)
    last = torch.searchsorted(ordered, values, right=True)
    return (first + last + 1).double() / 2


def equal_mass_bins(values: Tensor, bins: int) -> Tensor:
    """Bin of every value ``[N]``, with the same number of values in each (to within one).

    Tied values share a bin, so that shuffling the samples changes nothing; with many ties some
    bins are therefore fuller and some empty.

    Raises:
        ConfigError: there are no bins, or more than values.
    """
    if not 1 <= bins <= len(values):
        raise ConfigError(f"{len(values)} samples can fill 1 to {len(values)} bins, not {bins}")
    below = torch.searchsorted(values.sort().values, values)
    return below * bins // len(values)


def equal_width_bins(values: Tensor, bins: int) -> Tensor:
    """Bin of every value ``[N]`` between 0 and 1: ``[0, 1/bins)`` and so on; the last holds 1.

    Raises:
        ConfigError: there are no bins.
    """
    if bins < 1:
        raise ConfigError(f"at least one bin is needed, not {bins}")
    edges = torch.linspace(0, 1, bins + 1, dtype=values.dtype, device=values.device)
    return (torch.bucketize(values, edges, right=True) - 1).clamp(0, bins - 1)


def bin_means(index: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
    """Number of samples and mean of every column in the bins that hold any, ``[bins]`` each."""
    _, index = index.unique(return_inverse=True)
    count = index.bincount()
    sums = [torch.zeros_like(count, dtype=c.dtype).index_add_(0, index, c) for c in columns]
    return count, *(s / count for s in sums)
