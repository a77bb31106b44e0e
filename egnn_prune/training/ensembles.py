"""Ensembles that are a way of training: snapshots of one fit, and fits on resampled data."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from egnn_prune.errors import ConfigError
from egnn_prune.uncertainty.ensemble import DeepEnsemble


def snapshot_ensemble(
    model: nn.Module,
    fit_cycle: Callable[[nn.Module, int], object],
    *,
    steps: int,
    cycles: int,
) -> DeepEnsemble:
    """Train one network in cycles and keep a copy from the end of each (Huang et al. 2017).

    The budget is that of *one* network: ``steps`` are divided among the cycles. Each cycle begins
    where the last one ended, with a fresh optimiser and a learning rate that rises again, which
    carries the network out of its minimum. :func:`egnn_prune.training.fit` is such a cycle (a short
    rise, then the half cosine to zero of the paper's Eq. 2).

    Args:
        model: the network; it is trained in place and is left equal to the last member.
        fit_cycle: ``fit_cycle(model, steps)`` trains in place for that many steps, from the
            highest learning rate to about zero.
        steps: optimiser steps of all cycles together.
        cycles: number of members.

    Raises:
        ConfigError: fewer than two cycles, or fewer steps than cycles.

    Example:
        >>> def fit_cycle(model, steps):
        ...     fit(RegressionTask(model, FitSettings(steps)), train, device=device)
        ...
        >>> ensemble = snapshot_ensemble(model, fit_cycle, steps=4000, cycles=5)  # 800 steps each
    """
    _check_members(cycles)
    if steps < cycles:
        raise ConfigError(f"{steps} optimiser steps cannot be divided among {cycles} cycles")
    members = []
    for cycle in range(cycles):
        # the shares differ by one step at most, and add up to the budget
        fit_cycle(model, steps * (cycle + 1) // cycles - steps * cycle // cycles)
        members.append(copy.deepcopy(model))
    return DeepEnsemble(members)


def bootstrap_ensemble(
    build: Callable[[], nn.Module],
    fit_member: Callable[[nn.Module, Tensor], object],
    *,
    n: int,
    members: int,
    generator: torch.Generator,
) -> DeepEnsemble:
    """Train every member on its own resample of the data (Breiman 1996, "bagging").

    A resample holds n of the n training samples, drawn with replacement: about 63 % of them, some
    several times. For networks that also start from different weights this often costs accuracy
    for little more diversity (Lakshminarayanan et al. 2017, Section 2.4).

    Args:
        build: a fresh network, with new random weights each time.
        fit_member: ``fit_member(member, rows)`` trains in place on the samples ``rows [n]``, row
            numbers with repeats. Index with them: as drawing *probabilities* they would be
            resampled a second time.
        n: number of training samples.
        members: number of networks.
        generator: source of the resamples.

    Raises:
        ConfigError: fewer than two members, or fewer than two samples.

    Example:
        >>> def fit_member(member, rows):
        ...     train = graph_batches([graphs[i] for i in rows.tolist()], 32)
        ...     fit(RegressionTask(member, FitSettings(1000)), train, device=device)
        ...
        >>> ensemble = bootstrap_ensemble(
        ...     build, fit_member, n=len(graphs), members=5, generator=generator
        ... )
    """
    _check_members(members)
    if n < 2:
        raise ConfigError(f"a bootstrap resamples at least 2 training samples, not {n}")
    # all drawn before any fit: what a fit does to the generator cannot change later resamples
    resamples = torch.randint(n, (members, n), generator=generator)
    networks = []
    for rows in resamples:
        network = build()
        fit_member(network, rows)
        networks.append(network)
    return DeepEnsemble(networks)


def _check_members(members: int) -> None:
    """Refuse before an hour of training what :class:`DeepEnsemble` would refuse after it."""
    if members < 2:
        raise ConfigError(f"an ensemble needs at least 2 members, not {members}")
