r"""How far a model of 3D graphs is from its symmetries: turn, mirror, shift, renumber its input.

What a model must do under a change of
view :math:`x_i \to Q x_{\pi(i)} + t`, with orthogonal Q, shift t and renumbering :math:`\pi`:

==================================  ============================================
output                              must
==================================  ============================================
``Prediction`` (mean, variances)    stay; values per node follow their nodes
``Tensor``                          stay; rows per node follow their nodes
PyG batch: ``x``                    stay, and follow the nodes
PyG batch: ``pos``                  turn, shift, and follow the nodes
PyG batch: ``vel``, ``vec``,        turn, and follow the nodes (no shift)
``forces``
PyG batch: ``stress``, ``virial``   turn on both sides, one matrix a graph
==================================  ============================================

Of the input, everything that has a direction turns: ``pos``, ``vel``, ``vec``, ``forces`` of the
nodes, ``edge_shift`` and ``edge_vec`` of the edges, the lattice vectors in ``cell`` and tensors
``stress`` and ``virial`` of the graphs. Whatever else it holds are numbers, which stay.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from egnn_prune.graphs import graph_of_node, graph_pointer
from egnn_prune.graphs.batch_record import CHECKED
from egnn_prune.prediction import Prediction

#: The longest translation, in the length unit of the positions.
MAX_SHIFT = 10.0
#: What turns with the graph: vectors in the last axis, one or more for each node, edge or graph ...
NODE_VECTORS = ("vel", "vec", "forces", "force")
EDGE_VECTORS = ("edge_shift", "edge_vec", "edge_vectors")
GRAPH_VECTORS = ("cell", "listed_in", "dipole")
#: ... and matrices that are turned from both sides.
TENSORS = ("stress", "virial")
#: What stays as it is; the last is a mark of lists that were looked at.
SKIPPED = ("batch", "ptr", CHECKED)
#: What is compared of a batch that a model returns.
OUTPUTS = ("x", "pos", *NODE_VECTORS, *TENSORS)

#: Every symmetry at once ...
EVERYTHING = "all of them together"
#: ... and without mirrors, which is what a network of SO(3) obeys.
PROPER = "all but reflections"
HINTS = {
    "rotation": "a direction in space matters to it: let invariant outputs use distances and inner "
    "products only, and vector outputs sums of differences times invariant numbers",
    "reflection": "it tells left from right: look for a cross product or a determinant",
    "translation": "the origin matters to it: let it see differences x_i - x_j, not positions",
    "permutation": "the order of the nodes matters to it: combine neighbours and nodes by sum, "
    "mean or maximum, and keep per-node outputs in the order of the input",
    EVERYTHING: "only the combination shows it: look at numerical precision first",
}


@dataclass(frozen=True)
class _View:
    """One change of view, different for every graph of a batch.

    Attributes:
        matrix: ``[graphs, n, n]``, orthogonal, float64.
        shift: ``[graphs, n]``, float64.
        order: ``[N]``: node k of the new batch is node ``order[k]`` of the old one.
    """

    matrix: Tensor
    shift: Tensor
    order: Tensor


def random_transform(
    n: int,
    generator: torch.Generator | None = None,
    *,
    determinant: int | None = None,
    max_shift: float = MAX_SHIFT,
) -> tuple[Tensor, Tensor]:
    """Draw an orthogonal matrix (uniformly, by QR) and a translation, in float64.

    Args:
        n: number of dimensions.
        generator: a CPU generator, for reproducible draws.
        determinant: 1 for a rotation, -1 for one with a reflection, ``None`` for either.
        max_shift: the longest translation, in the length unit of the positions.

    Returns:
        The matrix Q ``[n, n]`` and the shift t ``[n]``, for ``x -> Q x + t``.
    """

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    matrix, upper = torch.linalg.qr(draw(n, n))
    matrix = matrix * upper.diagonal().sign()
    wanted = determinant if determinant is not None else draw(1).sign()
    if torch.linalg.det(matrix) * wanted < 0:
        matrix[:, 0] *= -1
    direction = draw(n)
    length = max_shift * torch.rand(1, dtype=torch.float64, generator=generator)
    return matrix, direction / direction.norm() * length


def equivariance_error(
    model: Callable[[Any], Any],
    batch: Batch | Data,
    *,
    scale: float | None = None,
    transforms: int = 5,
    seed: int = 0,
    symmetry: str = EVERYTHING,
) -> float:
    """The largest deviation from exact equivariance over random changes of view.

    Every graph gets its own orthogonal matrix (by turns with and without a reflection), translation
    of up to 10 length units, and order of nodes. A module is put into evaluation mode meanwhile.

    Args:
        model: maps a PyG batch to a ``Prediction``, a tensor or a PyG batch.
        batch: graphs with ``pos [N, n]``, in any dimension; ``edge_index`` and features go along.
        scale: deviations are divided by it (variances by its square), such as the standard
            deviation of the reference-subtracted target. ``None``: each output by its own largest
            absolute value, which is too lenient for outputs with a large constant part.
        transforms: how many changes of view.
        seed: of the random draws.
        symmetry: one of :data:`HINTS` alone, or :data:`PROPER` for all but reflections.

    Returns:
        The error, without unit; infinite if an output is NaN or infinite.
    """
    errors = symmetry_errors(model, batch, symmetry, scale, transforms, seed)
    return max(errors.values())


def symmetry_errors(
    model: Callable[[Any], Any],
    batch: Batch | Data,
    symmetry: str,
    scale: float | None,
    transforms: int,
    seed: int,
) -> dict[str, float]:
    """For each output the largest deviation over its scale."""
    generator = torch.Generator().manual_seed(seed)
    training = model.training if isinstance(model, nn.Module) else False
    if isinstance(model, nn.Module):
        model.eval()
    try:
        with torch.no_grad():
            before = model_outputs(model(batch))
            scales = {k: output_scale(k, before, scale) for k in before}
            errors = dict.fromkeys(before, 0.0)
            for turn in range(transforms):
                view = _draw(batch, symmetry, turn, generator)
                after = model_outputs(model(_seen(batch, view)))
                for name, value in before.items():
                    back = _undone(name, after[name], batch, view)
                    deviation = float((back - value).abs().max()) / scales[name]
                    finite = math.isfinite(deviation) and bool(value.isfinite().all())
                    errors[name] = max(errors[name], deviation if finite else math.inf)
    finally:
        if isinstance(model, nn.Module):
            model.train(training)
    return errors


def _draw(batch: Batch | Data, symmetry: str, turn: int, generator: torch.Generator) -> _View:
    """A change of view that has the one symmetry only, or all of them."""
    everything = symmetry not in ("rotation", "reflection", "translation", "permutation")
    n, graphs = batch.pos.shape[1], len(graph_pointer(batch)) - 1
    mirror = symmetry == "reflection" or (symmetry == EVERYTHING and turn % 2 == 1)
    drawn = [random_transform(n, generator, determinant=-1 if mirror else 1) for _ in range(graphs)]
    matrix = torch.stack([q for q, _ in drawn])
    shift = torch.stack([t for _, t in drawn])
    graph = graph_of_node(batch).cpu()
    # sorting by graph plus a random number below one shuffles the nodes within each graph
    noise = torch.rand(len(graph), generator=generator, dtype=torch.float64)
    order = (graph + noise).argsort()
    if not everything:
        if symmetry not in ("rotation", "reflection"):
            matrix = torch.eye(n, dtype=torch.float64).expand_as(matrix)
        if symmetry != "translation":
            shift = torch.zeros_like(shift)
        if symmetry != "permutation":
            order = torch.arange(len(graph))
    device = batch.pos.device
    return _View(matrix.to(device), shift.to(device), order.to(device))


def _turned(x: Tensor, matrix: Tensor) -> Tensor:
    """``Q_i x_i`` for vectors ``[N, ..., n]`` and matrices ``[N, n, n]``, in float64."""
    return torch.einsum("nij,n...j->n...i", matrix, x.double())


def _turned_tensor(x: Tensor, matrix: Tensor) -> Tensor:
    """``Q_g T_g Q_g^T`` for matrices ``[B, n, n]``, in float64."""
    return matrix @ x.double() @ matrix.mT


def _seen(batch: Batch | Data, view: _View) -> Batch | Data:
    """The batch after a change of view; edges are renumbered and stay sorted by target."""
    out, nodes, graph = copy.copy(batch), len(batch.pos), graph_of_node(batch)
    n, graphs = batch.pos.shape[1], len(view.matrix)
    edges, by_target = batch.edge_index, None
    if edges is not None:
        edge_matrix = view.matrix[graph[edges[1]]]
        edges = view.order.argsort()[edges]
        by_target = edges[1].argsort(stable=True)
    matrix = view.matrix[graph]
    for key, value in batch.to_dict().items():
        if not isinstance(value, Tensor) or value.dim() == 0 or key in SKIPPED:
            continue
        if key == "edge_index":
            out[key] = edges[:, by_target]
        elif key == "listed_in" and not value.any():
            out[key] = value  # one for all graphs, where none has a cell
        elif key in GRAPH_VECTORS and value.shape[-1] == n:  # rows of a cell are vectors
            out[key] = _turned(value.reshape(graphs, -1, n), view.matrix).view_as(value).to(value)
        elif key in TENSORS:
            turned = _turned_tensor(value.reshape(graphs, n, n), view.matrix)
            out[key] = turned.view_as(value).to(value)
        elif "edge" in key:
            if key in EDGE_VECTORS and by_target is not None:
                value = _turned(value, edge_matrix).to(value)
            out[key] = value if by_target is None else value[by_target]
        elif len(value) == nodes:
            if key in ("pos", "listed_at"):
                value = (_turned(value, matrix) + view.shift[graph]).to(value)
            elif key in NODE_VECTORS:
                value = _turned(value, matrix).to(value)
            out[key] = value[view.order]
    return out


def _undone(name: str, value: Tensor, batch: Batch | Data, view: _View) -> Tensor:
    """An output as the original viewer would have seen it."""
    graph = graph_of_node(batch)
    if name == "pos":
        value = value - view.shift[graph]
    if name in ("pos", *NODE_VECTORS):
        value = _turned(value, view.matrix[graph].transpose(1, 2))
    if name in TENSORS:
        return _turned_tensor(value.view(view.matrix.shape), view.matrix.mT).view_as(value)
    if value.dim() > 0 and len(value) == len(graph):
        value = value[view.order.argsort()]
    return value


def model_outputs(result: Any) -> dict[str, Tensor]:
    """What a model returned, by name, in float64."""
    if isinstance(result, Prediction):
        found = {k: getattr(result, k) for k in ("mean", "aleatoric", "epistemic")}
    elif isinstance(result, Tensor):
        found = {"output": result}
    elif isinstance(result, Data):
        found = {k: result[k] for k in OUTPUTS if result.get(k) is not None}
    else:
        found = {}
    if not found:
        raise TypeError(
            "the model must return a Prediction, a tensor, or a PyG batch with x, pos, vel, vec, "
            f"forces or stress, not {type(result).__name__}"
        )
    return {k: v.detach().double() for k, v in found.items()}


def output_scale(name: str, outputs: dict[str, Tensor], scale: float | None) -> float:
    """What the deviations of an output are divided by."""
    variance = name in ("aleatoric", "epistemic")
    if scale is not None:
        return scale**2 if variance else scale
    value = outputs["aleatoric"] + outputs["epistemic"] if variance else outputs[name]
    size = float(value.abs().max())
    return size if math.isfinite(size) and size > 0 else 1.0
