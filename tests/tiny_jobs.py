"""Settings of jobs that take seconds, and what such a job leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from egnn_prune.configs.settings import Settings, described
from egnn_prune.configs.unused import unused_by


def tiny(out: Path, **changes: Any) -> Settings:
    """Settings of a job of two seconds; ``changes`` are dotted names with ``__`` for the dots."""
    settings = Settings(out=str(out), device="cpu", threads=1)
    settings.data.limit = 60
    settings.model.hidden, settings.model.layers, settings.model.radial = 8, 2, 4
    settings.uncertainty.samples, settings.uncertainty.members = 3, 2
    settings.pruning.sparsity, settings.pruning.scope = 0.5, "group"
    settings.selection.fraction, settings.pruning.rounds = 0.3, 4
    settings.training.max_epochs = settings.training.finetune_epochs = 1
    settings.training.batch_size = 12
    for name, value in changes.items():
        *path, last = name.split("__")
        node = settings
        for part in path:
            node = getattr(node, part)
        assert hasattr(node, last), name
        setattr(node, last, value)
    return used_only(settings, *(name.replace("__", ".") for name in changes))


def used_only(settings: Any, *kept: str) -> Any:
    """The settings with the defaults of those that their job refuses, since it never reads them.

    What makes one job tiny would be refused by another. The settings named in ``kept`` stay.
    """
    unused = unused_by(settings)
    for name, default, _ in described(type(settings)()):
        section, _, last = name.rpartition(".")
        if name not in kept and (name in unused or f"{section}.*" in unused):
            setattr(getattr(settings, section) if section else settings, last, default)
    return settings


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())
