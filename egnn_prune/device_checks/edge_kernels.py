"""The Triton kernels of the edge block against the plain version: values and gradients."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from egnn_prune.device_checks.checking import CheckContext, Found, Skipped, require
from egnn_prune.models import kernels
from egnn_prune.models.basis import GaussianBasis, SquaredDistance
from egnn_prune.models.edge_sums import EdgeInputs, EdgeWeights, Geometry, edge_sums

#: Largest deviation of values and gradients, see :func:`deviation`.
TOLERANCES = {"float32": 2e-5, "tf32": 2e-3, "bfloat16": 2e-2}


@dataclass(frozen=True)
class Case:
    """A random graph and what its edges carry; widths as pruning leaves them."""

    edge: int = 16
    message: int = 33
    position: int = 5
    nodes: int = 18
    edges: int = 60
    dims: int = 3
    gate: bool = True
    envelope: bool = True
    moves: bool = True
    attributes: int = 0
    shift: bool = False
    gaussians: int = 0
    eps: float | None = 1e-3


#: Between them, every branch of the kernels.
CASES = {
    "all there is": Case(attributes=2, shift=True, gaussians=4),
    "many edges a node": Case(33, 5, 16, nodes=17, edges=150),
    "no gate, no envelope": Case(gate=False, envelope=False, attributes=1),
    "plain differences in a plane": Case(eps=None, dims=2),
    "invariant": Case(5, 16, moves=False, gaussians=3),
    "one edge": Case(5, 5, 5, edges=1),
    "no edges": Case(5, 5, 5, edges=0),
}


@dataclass(frozen=True)
class Problem:
    """The arguments of :func:`edge_sums` in double precision, and derivatives to start from."""

    inputs: EdgeInputs
    weights: EdgeWeights
    geometry: Geometry
    source: Tensor
    target: Tensor
    seeds: Sequence[Tensor]


def problem(case: Case, device: torch.device) -> Problem:
    """Random numbers of a case, the same on every device."""
    random = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=random) / max(shape[-1], 1) ** 0.5
        return drawn.double().to(device)  # every number exists in float32, too

    # the last nodes receive nothing
    target = torch.randint(max(case.nodes - 3, 1), (case.edges,), generator=random).sort().values
    further = torch.randint(1, case.nodes, (case.edges,), generator=random)
    source = (target + further) % case.nodes  # never the node itself: directions are random there
    radial = GaussianBasis(case.gaussians, 4.0) if case.gaussians else SquaredDistance()
    n, e = case.nodes, case.edges
    inputs = EdgeInputs(
        to_target=4 * normal(n, case.edge),
        to_source=4 * normal(n, case.edge),
        pos=2 * normal(n, case.dims),
        shift=normal(e, case.dims) if case.shift else None,
        attr=normal(e, case.attributes) if case.attributes else None,
        envelope=normal(e, 1).sigmoid().float().double() if case.envelope else None,
    )
    weights = EdgeWeights(
        radial=normal(case.edge, radial.size + case.attributes),
        out=normal(case.message, case.edge),
        out_bias=normal(case.message),
        gate=normal(1, case.message) if case.gate else None,
        gate_bias=normal(1) if case.gate else None,
        position_in=normal(case.position, case.message) if case.moves else None,
        position_bias=normal(case.position) if case.moves else None,
        position_out=normal(1, case.position) if case.moves else None,
    )
    seeds = [normal(n, case.message), *([normal(n, case.dims)] if case.moves else [])]
    geometry = Geometry(radial, case.eps)
    return Problem(inputs, weights, geometry, source.to(device), target.to(device), seeds)


def in_precision(p: Problem, dtype: torch.dtype) -> tuple[EdgeInputs, EdgeWeights]:
    """Copies without a history."""

    def cast(group: Any) -> Any:
        return type(group)(*(None if t is None else t.detach().to(dtype) for t in group))

    return cast(p.inputs), cast(p.weights)


def values_and_gradients(
    p: Problem, precision: str | None = None, deterministic: bool = False
) -> list[Tensor]:
    """Of the plain version in double precision, or of the kernels in a given one."""
    dtype = torch.float64 if precision is None else torch.float32

    inputs, weights = in_precision(p, dtype)
    leaves = [t.requires_grad_() for t in (*inputs, *weights) if t is not None]
    if precision is None:
        sums = edge_sums(inputs, weights, p.geometry, p.source, p.target)
    else:
        from egnn_prune.models.kernels.edge_sums_cuda import edge_sums_cuda

        sums = edge_sums_cuda(
            inputs, weights, p.geometry, p.source, p.target, precision, deterministic
        )
    outputs = [y for y in sums if y is not None]
    seeds = [s.to(dtype) for s in p.seeds]
    return [*outputs, *torch.autograd.grad(outputs, leaves, seeds)]


def forces(p: Problem, precision: str | None = None, training: bool = False) -> list[Tensor]:
    """Forces of an energy made of the sums and, in training, what they teach the weights.

    The envelope depends on positions, as in a network: its part must not count twice. Without
    training weights are frozen, as in dynamics.
    """
    dtype = torch.float64 if precision is None else torch.float32
    inputs, weights = in_precision(p, dtype)
    pos = inputs.pos.requires_grad_()
    r2 = (pos[p.target] - pos[p.source]).square().sum(-1, keepdim=True)
    inputs = inputs._replace(envelope=torch.exp(-r2))
    # the radial weights are some columns of the first layer's, as in a network
    learnt = torch.cat([weights.radial, weights.radial], dim=1).requires_grad_(training)
    weights = weights._replace(
        radial=learnt[:, weights.radial.shape[1] :], out=weights.out.requires_grad_(training)
    )
    if precision is None:
        received, _ = edge_sums(inputs, weights, p.geometry, p.source, p.target)
    else:
        from egnn_prune.models.kernels.edge_sums_cuda import edge_sums_cuda

        received, _ = edge_sums_cuda(
            inputs, weights, p.geometry, p.source, p.target, precision, False
        )
    energy = received.square().sum()
    (force,) = torch.autograd.grad(energy, pos, create_graph=training)
    if not training:
        return [force]
    return [force, *torch.autograd.grad(force.square().sum(), [learnt, weights.out])]


def deviation(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest of all tensors: the length of the difference, relative to that of the tensor.

    The numbers are of order one; a sum that happens to cancel counts as one.
    """
    relative = [
        float((a.double() - b).norm() / b.norm().clamp(min=1.0))
        for a, b in zip(found, expected, strict=True)
        if b.numel()
    ]
    return max(relative)


def deviations(device: torch.device) -> dict[str, dict[str, float]]:
    """Of every case; the first at every precision, and whether deterministic runs are equal."""
    found: dict[str, dict[str, float]] = {}
    for name, case in CASES.items():
        given = problem(case, device)
        expected = values_and_gradients(given)
        found[name] = {"float32": deviation(values_and_gradients(given, "float32"), expected)}
    first, *_ = CASES
    given = problem(CASES[first], device)
    expected = values_and_gradients(given)
    runs = [values_and_gradients(given, "float32", deterministic=True) for _ in range(2)]
    found[first]["deterministic"] = deviation(runs[0], expected)
    for what, training in (("forces", False), ("forces in training", True)):
        found[first][what] = deviation(
            forces(given, "float32", training), forces(given, None, training)
        )
    same = all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    found[first]["two runs"] = 0.0 if same else 1.0
    # the interpreter knows no TF32
    for precision in ("tf32", "bfloat16") if device.type == "cuda" else ("bfloat16",):
        found[first][precision] = deviation(values_and_gradients(given, precision), expected)
    return found


def limit(what: str) -> float:
    """The tolerance of one of the numbers of :func:`deviations`."""
    return 0.0 if what == "two runs" else TOLERANCES.get(what, TOLERANCES["float32"])


def edge_kernels(context: CheckContext, found: Found) -> None:
    """Every case; on the CPU by Triton's interpreter, if it was asked for."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not kernels.available(context.device, interpreted):
        raise Skipped(
            "needs Triton and a GPU of compute capability 8.0, or TRITON_INTERPRET=1 on the CPU"
        )
    for name, numbers in deviations(context.device).items():
        for what, value in numbers.items():
            found[what] = max(value, found.get(what, 0.0))
            require(value <= limit(what), f"{name}, {what}: {value:.1e} from the plain version")


if __name__ == "__main__":
    print(json.dumps(deviations(torch.device("cpu"))))
