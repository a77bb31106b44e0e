"""Where graphs come from: one module a source, one registry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from egnn_prune.data.dataset import GraphDataset, random_splits
from egnn_prune.data.extxyz import load_extxyz
from egnn_prune.data.npz import load_npz
from egnn_prune.data.xtb import load_xtb
from egnn_prune.errors import ConfigError

#: Sources that read a file the user names.
FROM_FILE: dict[str, Callable[..., GraphDataset]] = {"extxyz": load_extxyz, "npz": load_npz}


def load(
    name: str = "xtb", path: str | Path | None = None, target: str | None = None, seed: int = 0
) -> GraphDataset:
    """Load a data set by the name of its source.

    Args:
        name: ``"xtb"`` (embedded), ``"extxyz"`` or ``"npz"``.
        path: the file, for sources that read one.
        target: which quantity is predicted; each source has a default.
        seed: of random splits, for sources without a fixed one.

    Raises:
        ConfigError: an unknown source, or a file source without a path.
        DataError: the data cannot be used.
    """
    if name == "xtb":
        return load_xtb(target)
    if name not in FROM_FILE:
        raise ConfigError(f"data must be one of xtb, {', '.join(FROM_FILE)}, not {name!r}")
    if path is None:
        raise ConfigError(f"data={name} reads a file; say which with data.path=FILE")
    return FROM_FILE[name](path, target=target, seed=seed)


__all__ = ["FROM_FILE", "GraphDataset", "load", "random_splits"]
