"""The kernels of the edge block compute what the plain version does, forward and backward.

They run in Triton's interpreter, in one process of its own: it has to be chosen before Triton is
imported, and other libraries' kernels must not know.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from egnn_prune.models import kernels
from egnn_prune.models.basis import BesselBasis, GaussianBasis, SquaredDistance
from egnn_prune.models.edge_sums import Geometry, edge_sums

ROOT = Path(__file__).parents[2]
triton_is_there = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, float]]:
    """What the cases of the device check find in the interpreter."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "egnn_prune.device_checks.edge_kernels"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)
