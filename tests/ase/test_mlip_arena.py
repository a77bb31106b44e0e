"""A task of mlip-arena on our calculator. Skipped, saying so, where it is missing."""

from __future__ import annotations

import numpy as np
import pytest
from ase.optimize import BFGS
from trained_models import ethanol, trained

from egnn_prune.ase import PrunedCalculator

pytest.importorskip("prefect", reason="mlip-arena's tasks need prefect (pip install mlip-arena)")
pytest.importorskip("mlip_arena", reason="mlip-arena is not installed (pip install mlip-arena)")


@pytest.mark.filterwarnings("ignore")  # of prefect and of mlip-arena's own imports
def test_its_relaxation_ends_where_that_of_ase_ends():
    from mlip_arena.tasks.optimize import run

    def calculator() -> PrunedCalculator:
        return PrunedCalculator(trained(), on_uncertain="ignore", unit="eV")

    rule = {"fmax": 1e-4, "steps": 3}
    # the task's function: as a task, it would start a server
    found = run.fn(ethanol(), calculator(), optimizer="BFGS", filter=None, criterion=rule)
    ours = ethanol()
    ours.calc = calculator()
    BFGS(ours, logfile=None).run(**rule)
    moved = np.abs(ours.positions - ethanol().positions).max()
    assert moved > 1e-5
    assert np.allclose(found["atoms"].positions, ours.positions, atol=1e-6 * moved)
