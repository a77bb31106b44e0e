"""Single weights instead of channels: scores, masks with exact counts, and N:M patterns.

Unstructured zeros make no tensor smaller; they are what the literature compares with, and, in the
2:4 pattern, what sparse tensor cores can use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from egnn_prune.errors import ConfigError
from egnn_prune.pruning.channel_choice import check_sparsity, keep_highest
from egnn_prune.pruning.criteria.context import Context
from egnn_prune.pruning.criteria.grasp import gradient_flow
from egnn_prune.pruning.criteria.lamp import lamp_of
from egnn_prune.pruning.criteria.movement import recorded_movement
from egnn_prune.pruning.criteria.snip import connection_sensitivity
from egnn_prune.pruning.criteria.synflow import synaptic_flow
from egnn_prune.pruning.criteria.weight_passes import input_norms, weight_moments
from egnn_prune.pruning.masks import mask_of, register_masks
from egnn_prune.pruning.tensors import get_tensor, is_parameter, parameter_names

Scores = dict[str, Tensor]
WeightCriterion = Callable[[Context, list[str]], Scores]


def magnitude_of_weights(context: Context, names: list[str]) -> Scores:
    r""":math:`|w|`. Source: Han et al. 2015."""
    return {name: get_tensor(context.model, name).detach().abs() for name in names}


def random_of_weights(context: Context, names: list[str]) -> Scores:
    """Uniform random scores from the context's generator."""
    return {
        name: torch.rand(get_tensor(context.model, name).shape, generator=context.generator)
        for name in names
    }


def lamp_of_weights(context: Context, names: list[str]) -> Scores:
    r""":math:`w^2` over the sum of all squares at least as large in its tensor.

    Source: Lee et al. 2021, Eq. 3.
    """
    found = {}
    for name in names:
        weight = get_tensor(context.model, name).detach().cpu().double()
        found[name] = lamp_of(weight.square().flatten()).view_as(weight)
    return found


def taylor_of_weights(context: Context, names: list[str]) -> Scores:
    r"""Mean over samples of :math:`|w\, \partial L_b / \partial w|`; a backward pass a sample.

    Source: Molchanov et al. 2017, Eq. 8, for single weights.
    """
    absolute, _ = context.once(_moments)
    return {k: get_tensor(context.model, k).detach().abs() * absolute[k] for k in names}


def fisher_of_weights(context: Context, names: list[str]) -> Scores:
    r""":math:`\tfrac12 w^2` times the mean squared gradient; a backward pass a sample.

    Source: LeCun et al. 1990, Eq. 5, with the empirical Fisher information for the Hessian.
    """
    _, square = context.once(_moments)
    return {k: 0.5 * get_tensor(context.model, k).detach().square() * square[k] for k in names}


def computed_once(scores: Callable[[Context], Scores]) -> WeightCriterion:
    """A criterion that scores all parameters at once, as the channels' criteria do."""
    return lambda context, names: {name: context.once(scores)[name] for name in names}


def wanda_of_weights(context: Context, names: list[str]) -> Scores:
    r""":math:`|w_{ij}|\, \|x_j\|_2`, the norm of input j over all data.

    For weights of ``nn.Linear`` and ``nn.Conv`` modules that are *called* (a model may also use
    such a weight by hand, where its input cannot be seen). Source: Sun et al. 2024, Eq. 1.

    Raises:
        ConfigError: a tensor is no such weight.
    """
    norms = input_norms(context.model, names, context.data)
    return {name: get_tensor(context.model, name).detach().abs() * norms[name] for name in names}


WEIGHT_CRITERIA: dict[str, WeightCriterion] = {
    "fisher": fisher_of_weights,
    "grasp": computed_once(gradient_flow),
    "lamp": lamp_of_weights,
    "magnitude": magnitude_of_weights,
    "movement": computed_once(recorded_movement),
    "random": random_of_weights,
    "snip": computed_once(connection_sensitivity),
    "synflow": computed_once(synaptic_flow),
    "taylor": taylor_of_weights,
    "wanda": wanda_of_weights,
}


def score_weights(
    criterion: str | WeightCriterion, context: Context, names: Iterable[str] | None = None
) -> Scores:
    """Score every weight by itself.

    Args:
        criterion: a name in :data:`WEIGHT_CRITERIA`, or any function ``(context, names) ->
            {name: scores}``.
        context: what the criterion may look at; its groups are not needed.
        names: parameters to score; by default all with at least two axes, so neither biases nor
            the scales of normalisations, which are few and matter much.

    Returns:
        For each name a tensor shaped like the parameter, higher is more important.

    Raises:
        ConfigError: there is no such criterion or parameter, or the context lacks what it needs.
    """
    if isinstance(criterion, str):
        if criterion not in WEIGHT_CRITERIA:
            raise ConfigError(
                f"a criterion for single weights must be one of {', '.join(WEIGHT_CRITERIA)}, "
                f"not {criterion!r}"
            )
        criterion = WEIGHT_CRITERIA[criterion]
    known = parameter_names(context.model)
    if names is None:
        names = [name for name in known if get_tensor(context.model, name).dim() > 1]
    names = list(names)
    for name in names:
        if name not in known:
            raise ConfigError(f"the network has no parameter {name!r}")
    return criterion(context, names)


def choose_weights(
    scores: Scores,
    sparsity: float,
    scope: str = "global",
    keep: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Keep the highest-scored weights: exactly ``floor(sparsity * n)`` of n are removed.

    Weights are ranked, not compared with a threshold: of equal ones the first go first, and the
    count is exact. Every tensor keeps at least its best weight, for an empty one disconnects the
    network.

    Args:
        scores: from :func:`score_weights`.
        sparsity: the fraction *removed*, in [0, 1), counted from the dense tensors.
        scope: ``"global"`` ranks all weights together, ``"tensor"`` each tensor's own.
        keep: masks of an earlier round; what it removed stays removed.

    Returns:
        For each name a boolean tensor, true for weights that stay.

    Raises:
        ConfigError: sparsity or scope are out of range, a score is not finite, or an earlier round
            removed more.
    """
    check_sparsity(sparsity)
    if scope not in ("global", "tensor"):
        raise ConfigError(f"the scope of single weights is 'global' or 'tensor', not {scope!r}")
    for name, score in scores.items():
        if not bool(score.isfinite().all()):
            raise ConfigError(f"a score of {name} is NaN or infinite; check the data and the loss")
        if keep is not None and (name not in keep or keep[name].shape != score.shape):
            raise ConfigError(f"the earlier masks do not fit {name} of shape {tuple(score.shape)}")
    pools = [list(scores)] if scope == "global" else [[name] for name in scores]
    masks: dict[str, Tensor] = {}
    for pool in pools:
        pooled, alone = {name: scores[name] for name in pool}, [[name] for name in pool]
        masks |= keep_highest(pooled, sparsity, keep or {}, alone, "weights", "tensors")
    return {name: mask.view(scores[name].shape) for name, mask in masks.items()}


def n_m_mask(score: Tensor, n: int = 2, m: int = 4) -> Tensor:
    """Keep the best ``n`` of every ``m`` consecutive inputs of each output.

    Args:
        score: ``[out, in, ...]``, for a linear layer ``[out, in]``; groups lie along axis 1.
        n: how many stay.
        m: of how many; 2 of 4 is what NVIDIA's sparse tensor cores compute (Mishra et al. 2021).

    Returns:
        A boolean tensor like ``score``, true for weights that stay; of equal ones the first stay.

    Raises:
        ConfigError: the inputs are no multiple of m, n is not in 1..m, or a score is not finite.

    Example:
        >>> n_m_mask(torch.tensor([[1.0, 4.0, 2.0, 3.0]]))
        tensor([[False,  True, False,  True]])
    """
    if not 1 <= n <= m:
        raise ConfigError(f"an N:M pattern keeps n of m weights with 1 <= n <= m, not {n}:{m}")
    if score.dim() < 2 or score.shape[1] % m:
        raise ConfigError(
            f"a {n}:{m} pattern needs [out, in] weights with a multiple of {m} inputs, not the "
            f"shape {tuple(score.shape)}; leave this tensor out, or round widths to {m}"
        )
    if not bool(score.isfinite().all()):
        raise ConfigError("a score is NaN or infinite; check the data and the loss")
    grouped = score.detach().movedim(1, -1).unflatten(-1, (-1, m))
    best = grouped.argsort(dim=-1, descending=True, stable=True)[..., :n]
    mask = torch.zeros_like(grouped, dtype=torch.bool).scatter_(-1, best, True)
    return mask.flatten(-2).movedim(-1, 1)


@torch.no_grad()
def apply_weight_masks(model: nn.Module, masks: dict[str, Tensor]) -> None:
    """Zero single weights, and hold them there whatever the optimiser does.

    Adds to what is pruned already, channels or weights; :func:`.lift_masks` lets all of it go.
    What is not pruned already stays zero when :func:`.apply_masks` brings its channel back.

    Args:
        model: any module.
        masks: for each parameter's name a boolean tensor of its shape, true for weights that stay.

    Raises:
        ConfigError: a name is no parameter, or a mask has another shape or type.
    """
    known = set(parameter_names(model))
    for name, mask in masks.items():
        if name not in known or not is_parameter(model, name):
            raise ConfigError(f"the network has no parameter {name!r}")
        shape = get_tensor(model, name).shape
        if mask.shape != shape or mask.dtype != torch.bool:
            raise ConfigError(f"{name} needs a boolean mask of shape {tuple(shape)}")
    register_masks(model, masks)
    for name, mask in masks.items():
        state = mask_of(model, name)
        assert state is not None
        gone = ~mask.to(state.pruned.device)
        state.single |= gone & ~state.pruned
        state.pruned |= gone


def _moments(context: Context) -> tuple[Scores, Scores]:
    return weight_moments(context.model, *context.data_and_loss)
