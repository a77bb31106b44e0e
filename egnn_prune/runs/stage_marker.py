"""The JSON file of a finished stage, with a check of its content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from egnn_prune.errors import InputError
from egnn_prune.system.files import read_json, write_json

#: The entry that tells whether the others are what was written.
CHECK = "check"


def digest(content: Any) -> str:
    """Twelve hexadecimal digits that name a piece of configuration."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_marker(path: Path, outputs: dict[str, Any]) -> None:
    """Write down, atomically, what a stage found; where the file stands, the stage is finished."""
    write_json(path, {**outputs, CHECK: _check(outputs)})


def read_marker(path: Path) -> dict[str, Any]:
    """What :func:`write_marker` wrote; files of early versions have no check.

    Raises:
        InputError: the file is missing or damaged.
    """
    found = read_json(path)
    said = found.pop(CHECK, None)
    if said is not None and said != _check(found):
        raise InputError(f"{path} is missing or damaged: it is not what was written")
    return found


def _check(outputs: dict[str, Any]) -> str:
    return digest(json.loads(json.dumps(outputs)))  # as it will be read
