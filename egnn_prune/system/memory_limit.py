"""How much memory there is, and sentences about what would take more."""

from __future__ import annotations

import math
import os
from pathlib import Path

from egnn_prune.errors import ConfigError, InputError

#: The environment variable that replaces what :func:`free_bytes` finds, in GB (10^9 bytes).
LIMIT_GB = "EGNN_PRUNE_MEMORY_GB"
#: What the kernel says of the machine and of a container.
MACHINE = Path("/proc/meminfo")
CONTAINER = Path("/sys/fs/cgroup")


def free_bytes() -> float:
    """Memory that a computation on the CPU can still take; infinity where nobody says.

    What the machine has left, or the container (control groups, version 2), unless the environment
    variable ``EGNN_PRUNE_MEMORY_GB`` says how much it shall be.

    Raises:
        ConfigError: the variable is no positive number.
    """
    if stated := os.environ.get(LIMIT_GB):
        try:
            limit = 1e9 * float(stated)
        except ValueError:
            limit = math.nan
        if not limit > 0:
            raise ConfigError(f"{LIMIT_GB} must be a positive number of GB, not {stated!r}")
        return limit
    left = [_first_number(line) * 1024 for line in _lines(MACHINE) if "MemAvailable" in line]
    most, used = (_lines(CONTAINER / f"memory.{name}") for name in ("max", "current"))
    if most and used and most[0].isdigit():
        left.append(max(_first_number(most[0]) - _first_number(used[0]), 0.0))
    return min(left, default=math.inf)


def gigabytes(number: float) -> str:
    """Bytes as a user reads them: three digits, in GB (10^9 bytes)."""
    return f"{number / 1e9:,.0f} GB" if number >= 1e11 else f"{number / 1e9:.3g} GB"


def refuse_beyond_memory(needed: float, what: str, advice: str = "") -> None:
    """Refuse what cannot fit into memory, before any of it is taken.

    Args:
        needed: bytes.
        what: that takes them; begins the sentence.
        advice: what to do about it, besides freeing memory.

    Raises:
        InputError: there is less.
    """
    if needed <= (free := free_bytes()):
        return
    raise InputError(
        f"{what} would take some {gigabytes(needed)} of memory, and {gigabytes(free)} are "
        f"free; {advice or 'free some, or use a larger machine'} ({LIMIT_GB}=N sets another limit)"
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # another system
        return []


def _first_number(text: str) -> float:
    return float(next((word for word in text.split() if word.isdigit()), "inf"))
