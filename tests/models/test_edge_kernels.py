"""The kernels of the edge block compute what the plain version does, forward and backward.

They run in Triton's interpreter, in a process of its own: it has to be chosen before Triton is
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

from egnn_prune.device_checks.edge_kernels import CASES, Case, limit, problem
from egnn_prune.models import kernels
from egnn_prune.models.basis import BesselBasis
from egnn_prune.models.edge_sums import EdgeInputs, EdgeWeights, Geometry, edge_sums
from egnn_prune.models.kernels.traffic import counted_traffic, kernel_traffic

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed")


def python(*arguments: str, interpret: bool = True) -> str:
    """What a new process prints."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_INTERPRET": str(int(interpret))}
    command = [sys.executable, "-W", "ignore", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=900, env=variables, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, float]]:
    """How far the kernels are from the plain version in double precision, in every case."""
    return json.loads(python("-m", "egnn_prune.device_checks.edge_kernels"))


@needs_triton
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_the_plain_versions(found, case):
    for what, value in found[case].items():
        assert value <= limit(what), f"{what}: {value}"
    assert found[case]["float32"] < 5e-6


@needs_triton
def test_the_first_case_looks_at_everything(found):
    first, *_ = CASES
    numbers = {"float32", "deterministic", "two runs", "bfloat16", "forces", "forces in training"}
    assert set(found[first]) == numbers
    # the interpreter does round to bfloat16: its result must not be float32's
    assert found[first]["bfloat16"] > 1e-3


# ------------------------------------------------------------------------------------ the choice


def arguments(dtype: torch.dtype = torch.float32, case: Case | None = None) -> tuple:
    """Of :func:`edge_sums`."""
    p = problem(case or CASES["one edge"], CPU)

    def cast(t: torch.Tensor | None) -> torch.Tensor | None:
        return None if t is None else t.to(dtype)

    inputs, weights = EdgeInputs(*map(cast, p.inputs)), EdgeWeights(*map(cast, p.weights))
    return inputs, weights, p.geometry, p.source, p.target


def test_on_the_cpu_there_are_no_kernels():
    assert not kernels.available(CPU)
    assert kernels.available(CPU, interpreted=True) == HAS_TRITON


def test_the_kernels_have_to_be_asked_for():
    given = arguments()[:3]
    assert not kernels.pays(*given, interpreted=True)
    with kernels.use():
        assert kernels.pays(*given, interpreted=True) == HAS_TRITON
        assert not kernels.pays(*given)
        with kernels.use(False):
            assert not kernels.pays(*given, interpreted=True)


def test_what_the_kernels_cannot_compute_they_leave():
    given = arguments()
    assert kernels.suits(*given[:3])
    assert not kernels.suits(*arguments(torch.float64)[:3])
    assert not kernels.suits(*arguments(torch.float16)[:3])
    bessel = Geometry(BesselBasis(1, 4.0), 1e-3)
    assert not kernels.suits(*given[:2], bessel)
    assert not kernels.suits(*arguments(case=Case(5, 200, 5))[:3])
    for doubtful in (arguments(torch.float64), (*given[:2], bessel, *given[3:])):
        with kernels.use():
            got = kernels.edge_sums(*doubtful, interpreted=True)
        assert all(map(torch.equal, got, edge_sums(*doubtful)))


def test_without_triton_nothing_imports_it():
    code = """
import sys
sys.modules["triton"] = None
import importlib.util, torch
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "triton" else find(name, *a)
from egnn_prune.models import EGNN, kernels
print(kernels.available(torch.device("cpu"), interpreted=True))
"""
    assert python("-c", code, interpret=False).strip() == "False"


# ------------------------------------------------------------------------------------ the counts


def test_counted_traffic_of_a_million_edges():
    counted = counted_traffic(10**6, 128)
    plain, ours = counted["plain"], counted["kernels"]
    products = 2 * 10**6 * 128 * 128
    assert plain["forward"].flops >= 2 * products and plain["backward"].flops >= 4 * products
    # messages alone are written and read several times; nodes' rows are a seventeenth of that
    assert plain["forward"].written > 8 * 10**6 * 128 * 4
    assert 50 * ours["forward"].moved < plain["forward"].moved
    assert 50 * ours["backward"].moved < plain["backward"].moved


def test_the_roofline_is_the_slower_of_two():
    traffic = kernel_traffic(1000, 100, 64)["forward"]
    assert traffic.seconds(1.0, 1e30) == traffic.moved
    assert traffic.seconds(1e30, 1.0) == traffic.flops
