"""Cases of a test that repeat what a neighbour proves: run with the slow tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow(*values: Any) -> Any:
    """A case of ``parametrize`` that is a slow test."""
    return pytest.param(*values, marks=pytest.mark.slow)


def slow_but(every: Iterable[Any], *quick: Any) -> list[Any]:
    """All cases, single values or tuples; those that are not among the quick ones are slow."""
    return [v if v in quick else slow(*(v if isinstance(v, tuple) else [v])) for v in every]
