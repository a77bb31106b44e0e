"""The functions between the linear maps of potentials of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from egnn_prune.errors import ConfigError

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "tanh": torch.tanh}


@dataclass(frozen=True)
class Activation:
    """A function and the constant that it is multiplied with (e3nn's ``normalize2mom``)."""

    name: str = "silu"
    factor: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a function that is not known."""
        if self.name not in FUNCTIONS:
            raise ConfigError(f"activation must be one of {', '.join(FUNCTIONS)}, not {self.name}")

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        y = FUNCTIONS[self.name](x)
        return y if self.factor == 1.0 else y * self.factor


@dataclass(frozen=True)
class Activations:
    """Those of a layer: even scalars, odd scalars, gates of the other irreps, radial network."""

    even: Activation = Activation()
    odd: Activation = Activation("tanh")
    gate: Activation = Activation()
    radial: Activation = Activation()
