"""Importance by the curvature of the loss, as the empirical Fisher information sees it."""

from __future__ import annotations

from torch import Tensor

from egnn_prune.channels import ChannelGroup
from egnn_prune.pruning.criteria.context import Context


def fisher(group: ChannelGroup, context: Context) -> Tensor:
    r"""Half the mean squared gate gradient, ``[n]``.

    .. math:: s_c = \frac1{2B} \sum_b \left( \frac{\partial L_b}{\partial g_{bc}} \right)^2

    Optimal brain damage estimates the loss of removing a channel (its gate going from 1 to 0) by
    :math:`\tfrac12 H_{cc}`; for a likelihood at its optimum the Hessian's diagonal is the variance
    of the gradient, its empirical mean square. The unit is the loss squared, the same in every
    group. Source: LeCun et al. 1990, Eq. 5; Theis et al. 2018, Eq. 8 (in gates).

    Raises:
        ConfigError: the group has no gate, or the context no data and loss.
    """
    context.gate_of(group)
    return 0.5 * context.gate_gradients[group.name].double().square().mean(0)
