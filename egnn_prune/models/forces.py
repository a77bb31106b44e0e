"""Forces as gradients of predicted energies, and how far the members disagree on them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from egnn_prune.channels import dropout_masks, evaluating, gates
from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.graphs import graph_of_node, must_check, with_edges
from egnn_prune.prediction import Prediction, members_of


def forces(model: nn.Module, batch: Batch | Data) -> Tensor:
    """Forces as the exact negative gradient of the mean energy, ``-dE/dpos [N, n]``.

    Unit: the target's unit per unit of length. Works in training (the graph is kept) and, with
    MC-dropout samples, for one sample as for the mean of several: each is conservative.

    Raises:
        DataError: the batch cannot be used.
    """
    return energy_and_forces(model, batch)[1]


def energy_and_forces(
    model: nn.Module, batch: Batch | Data, *, history: bool | None = None
) -> tuple[Prediction, Tensor]:
    """Energies and their forces from one pass forwards and one back.

    Args:
        model: predicts energies.
        batch: the graphs.
        history: whether both keep their autograd history, so that losses of both can be summed and
            walked back; by default in training, and not in evaluation.

    Returns:
        The energies ``[B]``, and ``-dE/dpos [N, n]`` in their unit per unit of length.

    Raises:
        DataError: the batch cannot be used.
    """
    batch = _movable(batch)
    prediction, (gradient,) = _mean_and_slopes(model, batch, [batch.pos], history)
    return prediction, -gradient


def energy_forces_stress(
    model: nn.Module, batch: Batch | Data, *, history: bool | None = None
) -> tuple[Prediction, Tensor, Tensor]:
    r"""Energies, forces and stresses of periodic graphs from one pass forwards and one back.

    .. math:: \sigma = \frac1V \left. \frac{\partial E}{\partial \epsilon} \right|_{\epsilon=0},
        \qquad x \to (1 + \epsilon)\, x \text{ for atoms and lattice vectors,}
        \quad \epsilon = \epsilon^T

    with ASE's sign: negative when the cell wants to grow. Source: Knuth et al. 2015, Eq. 5.

    Args:
        model: predicts energies.
        batch: the graphs.
        history: see :func:`energy_and_forces`.

    Returns:
        The energies ``[B]``, the forces ``[N, 3]``, and the stresses ``[B, 3, 3]``, symmetric, in
        the energy's unit per unit of length cubed (eV/Angstrom^3).

    Raises:
        DataError: a graph is not periodic, its cell has no volume, or the batch cannot be used.
    """
    batch, leaves, volume = _strained(model, batch)
    prediction, (gradient, slope) = _mean_and_slopes(model, batch, leaves, history)
    return prediction, -gradient, slope / volume[:, None, None]


def _strained(
    model: nn.Module, batch: Batch | Data
) -> tuple[Batch | Data, tuple[Tensor, Tensor], Tensor]:
    """The batch under a strain of zero, its positions and the strain as leaves, and volumes."""
    volume = _volumes(batch)
    # the strain moves the edges' shifts: edges that a network would find for itself stayed behind
    cutoff = _longest_cutoff(model)
    if cutoff:
        batch = with_edges(batch, cutoff)
    elif batch.get("edge_shift") is None:
        raise DataError("stress needs batch.edge_shift for these positions; call with_edges first")
    batch = _movable(batch)
    # volume.shape, not len(), which torch.export would freeze
    strain = batch.pos.new_zeros(volume.shape[0], 3, 3, requires_grad=True)
    pos = batch.pos
    with torch.enable_grad():
        symmetric = (strain + strain.mT) / 2
        graph = graph_of_node(batch)
        edge_graph = graph.index_select(0, batch.edge_index[1])
        batch.pos = pos + _turned(symmetric, graph, pos)
        batch.edge_shift = batch.edge_shift + _turned(symmetric, edge_graph, batch.edge_shift)
    return batch, (pos, strain), volume


def _longest_cutoff(model: nn.Module) -> float:
    """The longest cutoff of the networks of a model."""
    options = [getattr(m, "options", None) for m in model.modules()]
    return max((getattr(o, "cutoff", None) or 0.0 for o in options), default=0.0)


def _turned(matrices: Tensor, graph: Tensor, vectors: Tensor) -> Tensor:
    """Each vector ``[R, 3]`` times the matrix ``[B, 3, 3]`` of its graph."""
    return torch.einsum("rij,rj->ri", matrices.index_select(0, graph), vectors)


def _volumes(batch: Batch | Data) -> Tensor:
    """``[B]``, the volume of every graph's cell.

    Raises:
        DataError: a graph is not periodic, or its cell has no volume.
    """
    cell, pbc = batch.get("cell"), batch.get("pbc")
    if cell is None or (
        pbc is not None and must_check() and not bool(pbc.reshape(-1, 3).any(1).all())
    ):
        raise DataError("stress needs periodic graphs with batch.cell and pbc; molecules have none")
    volume = torch.linalg.det(cell.reshape(-1, 3, 3).to(batch.pos)).abs()
    if must_check() and not bool((volume > 0).all()):
        graph = int((~(volume > 0)).nonzero()[0])
        raise DataError(f"stress needs cells with a volume; that of graph {graph} has none")
    return volume


def _mean_and_slopes(
    model: nn.Module, batch: Batch | Data, leaves: Sequence[Tensor], history: bool | None
) -> tuple[Prediction, tuple[Tensor, ...]]:
    """The prediction, and the gradients of its summed mean."""
    samples, keep = sample_count(model), model.training if history is None else history
    with torch.enable_grad():
        prediction = model(batch, samples=samples) if samples > 1 else model(batch)
        # zeros where nothing reads the positions: pruning may cut the last path to the read-out
        slopes = torch.autograd.grad(
            prediction.mean.sum(), leaves, create_graph=keep, materialize_grads=True
        )
    if not keep:
        prediction = Prediction(**{k: v.detach() for k, v in vars(prediction).items()})
    return prediction, slopes


def force_prediction(model: nn.Module, batch: Batch | Data) -> Prediction:
    r"""Forces with the disagreement of the members, each member's own exact gradient.

    .. math::
        F_{mi} = -\partial E_m / \partial x_i, \qquad
        F_i = \tfrac1M \sum_m F_{mi}, \qquad
        \sigma^2_{ic} = \tfrac1{M-1} \sum_m (F_{mic} - F_{ic})^2

    The mean is that of :func:`forces`. It turns with the molecule, and so does the covariance of
    the members, but ``epistemic`` holds its diagonal only: single components depend on the axes,
    their sum over an atom does not. The members' energies carry no noise model of their slopes,
    so ``aleatoric`` is zero. Source: Kellner and Ceriotti 2024 (forces of each member).

    Members are those of a shallow or deep ensemble, or the MC-dropout samples of Monte Carlo
    dropout:

        >>> with dropout_samples(model, draw_networks(model, 20, generator)):
        ...     prediction = force_prediction(model, batch)
        ...

    An estimator is a model too, but hand over its network where you can: of whatever pools its
    members, every member's gradient walks through all networks of the pool.

    Args:
        model: returns a :class:`Prediction` of energies ``[B]``.
        batch: the graphs.

    Returns:
        Mean and variances ``[N, n]`` and members ``[M, N, n]``, without autograd history, in the
        energy's unit per unit of length (squared).

    Raises:
        ConfigError: there is only one member.
        InputError: a member's forces are NaN or infinite.
        DataError: the batch cannot be used.
    """
    return energies_and_member_forces(model, batch)[1]


def energies_and_member_forces(
    model: nn.Module, batch: Batch | Data
) -> tuple[Prediction, Prediction]:
    """The energies ``[B]`` and what :func:`force_prediction` returns, from the same passes.

    Raises:
        ConfigError: there is only one member.
        InputError: a member's forces are NaN or infinite.
        DataError: the batch cannot be used.
    """
    batch = _movable(batch)
    energies, (slopes,) = _members(model, batch, [batch.pos])
    return energies, Prediction.from_members(-slopes)


def energies_member_forces_stress(
    model: nn.Module, batch: Batch | Data
) -> tuple[Prediction, Prediction, Tensor]:
    """What :func:`energies_and_member_forces` returns, and the stresses of the mean energy.

    From the same passes; the stresses ``[B, 3, 3]`` are those of :func:`energy_forces_stress`.

    Raises:
        ConfigError: there is only one member.
        InputError: a member's forces are NaN or infinite.
        DataError: a graph is not periodic, its cell has no volume, or the batch cannot be used.
    """
    batch, leaves, volume = _strained(model, batch)
    energies, (slopes, strains) = _members(model, batch, leaves)
    return energies, Prediction.from_members(-slopes), strains.mean(0) / volume[:, None, None]


def _members(
    model: nn.Module, batch: Batch | Data, leaves: Sequence[Tensor]
) -> tuple[Prediction, list[Tensor]]:
    """Energies, and each member's gradient by every leaf ``[M, ...]``, checked."""
    prepare: Any = getattr(model, "prepared", lambda same: same)  # one neighbour list for all
    with evaluating(model), torch.enable_grad():
        energies, slopes = _member_slopes(model, prepare(batch), leaves)
    if len(slopes[0]) < 2:
        raise ConfigError(
            "force uncertainty needs at least two members: an ensemble, or MC-dropout samples (see "
            "egnn_prune.uncertainty.dropout_samples)"
        )
    # a shared trunk spreads one member's NaN to all
    if must_check() and not all(bool(each.isfinite().all()) for each in slopes):
        raise InputError(
            "the members' forces are NaN or infinite; check the input and the weights of the model"
        )
    return energies, slopes


def _member_slopes(
    model: nn.Module, batch: Batch | Data, leaves: Sequence[Tensor]
) -> tuple[Prediction, list[Tensor]]:
    """Energies, and each member's gradient by every leaf ``[M, ...]``.

    What shares no weights runs alone: the gradient of one never sees another.
    """
    if (networks := members_of(model)) != [model]:
        return _joined([_member_slopes(network, batch, leaves) for network in networks])
    # one after another: side by side, the activations of MC-dropout samples leave the caches
    trunk_samples = sample_count(getattr(model, "trunk", model))
    if trunk_samples > 1:
        parts = []
        for sample in range(trunk_samples):
            with _one_of(model, sample):
                parts.append(_member_slopes(model, batch, leaves))
        return _joined(parts)
    samples = sample_count(model)
    prediction = model(batch, samples=samples) if samples > 1 else model(batch)
    sums = prediction.members.flatten(1).sum(1)
    # one pass back per member: one that carries all of them (is_grads_batched) is no faster
    slopes = [
        torch.autograd.grad(energy, leaves, retain_graph=True, materialize_grads=True)
        for energy in sums
    ]
    energies = Prediction(**{k: v.detach() for k, v in vars(prediction).items()})
    return energies, [torch.stack(each) for each in zip(*slopes, strict=True)]


def _joined(parts: list[tuple[Prediction, list[Tensor]]]) -> tuple[Prediction, list[Tensor]]:
    """The members of all parts."""
    slopes = zip(*(slopes for _, slopes in parts), strict=True)
    return Prediction.stack([p for p, _ in parts]), [torch.cat(each) for each in slopes]


@contextmanager
def _one_of(model: nn.Module, sample: int) -> Iterator[None]:
    """Within this context only one of the MC-dropout samples is left."""
    masks = {gate: gate.dropout_mask for _, gate in gates(model)}
    left = {gate: mask[sample : sample + 1] for gate, mask in masks.items() if mask is not None}
    with dropout_masks(left):
        yield


def sample_count(model: nn.Module) -> int:
    """How many networks a model holds side by side now: 1 where none of its gates is thinned."""
    return max(
        (len(g.dropout_mask) for _, g in gates(model) if g.dropout_mask is not None), default=1
    )


def _movable(batch: Batch | Data) -> Batch | Data:
    """A copy of the batch whose positions are a leaf of the autograd graph."""
    batch = copy.copy(batch)
    batch.pos = batch.pos.detach().requires_grad_(True)
    return batch
