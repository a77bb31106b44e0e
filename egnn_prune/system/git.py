"""Provenance of a result: the git commit and the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def git_commit() -> str | None:
    """The commit of the checkout that this package runs from, with ``-dirty`` where it changed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # installed somewhere, perhaps inside another repository
        return None
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() or None


def command_line() -> str:
    """What was called, with its settings: a script, or a command such as ``egnn-prune vision``."""
    called = " ".join(sys.argv)
    return f"python {called}" if sys.argv[0].endswith(".py") else called
