"""What training records for the movement criterion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from egnn_prune.errors import ConfigError
from egnn_prune.pruning.tensors import get_original, get_tensor, parameter_names


class Movement:
    r"""Accumulates :math:`-w\, \partial L / \partial w` of every weight over training steps.

    Call :meth:`update` between ``backward`` and ``step``, then give the recorder to the context::

        movement = Movement()
        for batch in loader:
            optimizer.zero_grad()
            loss(model, batch).mean().backward()
            movement.update(model)
            optimizer.step()
        score_channels("movement", Context(model, groups, movement=movement))

    Attributes:
        sums: by the parameter's name, shaped like the parameter.
        steps: how many updates there were.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the present weights times their gradients.

        Raises:
            ConfigError: no parameter has a gradient, or the network has been resized in between.
        """
        moved = False
        for name in parameter_names(model):
            gradient = get_original(model, name).grad
            if gradient is None:
                continue
            step, moved = -get_tensor(model, name) * gradient, True
            before = self.sums.get(name)
            if before is not None and before.shape != step.shape:
                raise ConfigError(
                    f"{name} had the shape {tuple(before.shape)} when the movement was first "
                    f"recorded and has {tuple(step.shape)} now; start a new Movement()"
                )
            self.sums[name] = step if before is None else before.to(step.device) + step
        if not moved:
            raise ConfigError("no gradients: call movement.update(model) between backward and step")
        self.steps += 1
