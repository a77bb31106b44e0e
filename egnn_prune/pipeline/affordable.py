"""Networks for which this machine has no memory are refused before any of it is taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from egnn_prune.configs.settings import Settings
from egnn_prune.errors import ConfigError
from egnn_prune.system.bounded import AsksForTooMuch, Bounded
from egnn_prune.system.memory_limit import LIMIT_GB, free_bytes, gigabytes

#: What training keeps of every weight: itself, its gradient, and Adam's two moments.
COPIES = 4
#: Uncertainty methods whose members are whole networks.
WHOLE_NETWORKS = ("deep", "snapshot", "bootstrap")


@contextmanager
def affordable(settings: Settings) -> Iterator[None]:
    """Within this context one network of these settings is built, if all of them fit into memory.

    Weights with what training keeps of them are counted; activations come on top.

    Args:
        settings: precision, sizes and members.

    Raises:
        ConfigError: the memory that they would take, and which settings make it.
    """
    s, u = settings.model, settings.uncertainty
    members = u.members if u.method in WHOLE_NETWORKS else 1
    bytes_each = COPIES * members * getattr(torch, settings.precision).itemsize
    free = free_bytes()
    try:
        with Bounded(free / bytes_each):
            yield
    except AsksForTooMuch as error:
        sizes = {"model.hidden": s.hidden, "model.layers": s.layers, "model.radial": s.radial}
        if s.network == "irreps":
            sizes["model.copies"] = s.copies
        if members > 1 or u.method == "shallow":
            sizes["uncertainty.members"] = u.members
        named = ", ".join(f"{name}={value:,}" for name, value in sizes.items())
        raise ConfigError(
            f"training a network of {named} would take at least "
            f"{gigabytes(bytes_each * error.asked)} of memory, and {gigabytes(free)} are "
            f"free; lower one of these settings ({LIMIT_GB}=N sets another limit)"
        ) from None
