"""What error bars of energies and forces cost, next to a plain call of one network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch_geometric.data import Batch, Data

from egnn_prune.deployment.atom_pass import AtomPass, atom_pass
from egnn_prune.errors import ConfigError
from egnn_prune.models import energy_and_forces
from egnn_prune.prediction import members_of
from egnn_prune.system.timing import alternating_medians
from egnn_prune.uncertainty import AtomErrorBars, Calibrated, Estimator


def error_bar_latencies(
    estimators: dict[str, Estimator],
    batch: Batch | Data,
    repeats: int = 20,
    *,
    warmup: int = 3,
    device: str | torch.device = "cpu",
) -> dict[str, float]:
    """Median wall time of energies and forces with calibrated error bars of both, in ms.

    All take turns, which hits them alike with whatever else the machine does. Neighbour lists are
    there already, as in dynamics that reuse them.

    Args:
        estimators: by name, in evaluation mode, with or without error bars of forces; they stay on
            the device.
        batch: what they predict, see
            :func:`~egnn_prune.evaluation.potential_errors.batch_of_atoms`.
        repeats: timed calls of each.
        warmup: calls before, at least one.
        device: where to run.

    Returns:
        For each NAME its time, and as ``NAME_plain`` that of energies and forces alone of its
        network (of an ensemble: of the first).

    Raises:
        ConfigError: fewer than one call.
    """
    if min(repeats, warmup) < 1:
        raise ConfigError(f"a latency needs 1 or more calls, not {repeats} after {warmup}")
    runs: dict[str, Callable[[], object]] = {}
    for name, estimator in estimators.items():
        network: Any = members_of(estimator.to(device).eval().network)[0]
        prepare: Any = getattr(network, "prepared", lambda same: same)
        prepared = prepare(batch.clone().to(device))
        runs[f"{name}_plain"] = partial(energy_and_forces, network, prepared)
        runs[name] = partial(with_error_bars, estimator, prepared)
    return alternating_medians(runs, repeats, warmup, device)


def with_error_bars(estimator: Estimator, batch: Batch | Data) -> AtomPass:
    """Energies and forces of a batch, and both error bars as they are calibrated."""
    method = estimator.estimator if isinstance(estimator, Calibrated) else estimator
    bars = estimator.atoms if isinstance(estimator.atoms, AtomErrorBars) else None
    found = atom_pass(method, batch, members=bars is not None and bars.source == "members")
    if isinstance(estimator, Calibrated):
        with torch.no_grad():
            estimator.calibration(found.prediction)
    if bars is not None:
        found.error_bars(bars, batch.z)
    return found
