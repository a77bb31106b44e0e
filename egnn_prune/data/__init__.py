"""Where graphs come from: one registry of sources, and what becomes of what they read."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from egnn_prune.data.dataset import GraphDataset, random_splits
from egnn_prune.errors import ConfigError

#: Sources by name: each is the function ``load_NAME`` in a module of :mod:`.sources`. Modules are
#: imported when they are asked for: ASE's readers alone take half a second.
SOURCES: dict[str, str] = {
    "xtb": "xtb",
    "qm9": "qm9",
    "rmd17": "md17",
    "md17": "md17",
    "extxyz": "extxyz",
    "npz": "npz",
    "nbody": "nbody",
    "centroid": "centroid",
}
#: Sources that read a file which the user must name.
FROM_FILE = ("extxyz", "npz")
#: Sources that are drawn at random: their data is the same whatever the seed of a job.
SIMULATED = ("nbody", "centroid")

log = logging.getLogger(__name__)


def load(
    name: str = "xtb",
    path: str | Path | None = None,
    target: str | None = None,
    seed: int = 0,
    *,
    subset: str | None = None,
    test: str | Path | None = None,
    ood: str | Path | None = None,
) -> GraphDataset:
    """Load a data set by the name of its source.

    Args:
        name: a name in :data:`SOURCES`.
        path: the file, for sources that read one.
        target: which quantity is predicted; each source has a default.
        seed: of random splits, for sources without a fixed one.
        subset: which part of the source: the molecule of rmd17 and md17, the number of particles
            of nbody, full or 12k of qm9.
        test: another file with the test structures, for extxyz.
        ood: another file with structures out of distribution, for extxyz.

    Raises:
        ConfigError: an unknown source, a file source without a path, or an argument that the
            source has no use for.
        DataError: the data cannot be used.

    Warns:
        SuspiciousDataWarning: energies and forces that cannot belong together, see
            :func:`~egnn_prune.data.plausible.warn_of_other_units`.
    """
    if name not in SOURCES:
        raise ConfigError(f"data must be one of {', '.join(SOURCES)}, not {name!r}")
    if name in FROM_FILE and path is None:
        raise ConfigError(f"data={name} reads a file; say which with data.path=FILE")
    source = _source(name)
    given = {"path": path, "target": target, "subset": subset, "test": test, "ood": ood}
    arguments: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    understood = signature(source).parameters
    for argument in arguments:
        if argument not in understood:
            raise ConfigError(f"data={name} has no use for data.{argument}; leave it away")
    if "seed" in understood and name not in SIMULATED:
        arguments["seed"] = seed
    dataset = source(**arguments)
    for note in dataset.notes:
        log.info("%s", note)
    if "forces" in dataset.units and name != "xtb":
        import_module(f"{__name__}.plausible").warn_of_other_units(dataset)
    return dataset


def _source(name: str) -> Callable[..., GraphDataset]:
    module = import_module(f"{__name__}.sources.{SOURCES[name]}")
    found: Callable[..., GraphDataset] = getattr(module, f"load_{name}")
    return found


__all__ = ["FROM_FILE", "SOURCES", "GraphDataset", "load", "random_splits"]
