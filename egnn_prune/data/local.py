"""Where a user keeps data sets that are too large to travel with the package."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "EGNN_PRUNE_DATA"


def data_folder() -> Path | None:
    """``EGNN_PRUNE_DATA``, else ``shared/data`` beside the checkout; ``None`` without either."""
    if folder := os.environ.get(VARIABLE):
        return Path(folder)
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    return beside if beside.is_dir() else None


def local_data(relative: str) -> Path | None:
    """The file of that name in :func:`data_folder`, or ``None`` where there is none."""
    folder = data_folder()
    path = folder / relative if folder else None
    return path if path is not None and path.exists() else None
