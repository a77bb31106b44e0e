"""A simulation that saves at every fourth step, and is killed at one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from egnn_prune.ase.dynamics_state import DynamicsState


@contextmanager
def killed(monkeypatch: pytest.MonkeyPatch, at: int | None) -> Iterator[pytest.MonkeyPatch]:
    """Inside, simulations end with ``SystemExit`` at that step, if at one; more can be patched."""
    saved = DynamicsState.save_when_due

    def save_when_due(self, atoms, dynamics, seconds):
        self.every = 0.0 if dynamics.nsteps % 4 == 0 else 1e9
        saved(self, atoms, dynamics, seconds)
        if dynamics.nsteps == at:
            raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(DynamicsState, "save_when_due", save_when_due)
        yield patched
