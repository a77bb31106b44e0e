"""Functions of the distance, as NequIP, SevenNet and MACE have them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from egnn_prune.errors import ConfigError


def polynomial_envelope(r: Tensor, cutoff: float, p: float) -> Tensor:
    r""":math:`1 - \tfrac{(p+1)(p+2)}2 u^p + p(p+2) u^{p+1} - \tfrac{p(p+1)}2 u^{p+2}`, u = r / r_c.

    Source: Gasteiger et al. 2020 (DimeNet), Eq. 8.
    """
    u = r / cutoff
    first, second, third = (p + 1.0) * (p + 2.0) / 2.0, p * (p + 2.0), p * (p + 1.0) / 2.0
    return 1.0 - first * u.pow(p) + second * u.pow(p + 1.0) - third * u.pow(p + 2.0)


def xplor_envelope(r: Tensor, cutoff: float, on: float) -> Tensor:
    r"""1 up to ``on``, then :math:`(r_c^2 - r^2)^2 (r_c^2 + 2 r^2 - 3 r_o^2) / (r_c^2 - r_o^2)^3`.

    Source: HOOMD-blue's smoothing of pair potentials ("XPLOR").
    """
    r2, cutoff2, on2 = r.square(), cutoff**2, on**2
    falling = (cutoff2 - r2).square() * (cutoff2 + 2 * r2 - 3 * on2) / (cutoff2 - on2) ** 3
    return torch.where(r < on, torch.ones_like(r), falling)


#: ``f(r, cutoff, parameter)``.
ENVELOPES: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "polynomial": polynomial_envelope,
    "xplor": xplor_envelope,
}


@dataclass(frozen=True)
class RadialOptions:
    """Which functions of the distance a network reads.

    Attributes:
        cutoff: where all of them end, in Angstrom.
        bessel: how many there are.
        envelope: ``"polynomial"`` or ``"xplor"``.
        parameter: the power p, or where the envelope begins to fall, in Angstrom.
        factor: what the functions are multiplied with, such as 2 / cutoff, in 1 / Angstrom.
        trainable: whether their frequencies are trained.
    """

    cutoff: float
    bessel: int = 8
    envelope: str = "polynomial"
    parameter: float = 6.0
    factor: float = 1.0
    trainable: bool = True

    def __post_init__(self) -> None:
        """Refuse what is not known."""
        if self.envelope not in ENVELOPES:
            raise ConfigError(
                f"envelope must be one of {', '.join(ENVELOPES)}, not {self.envelope!r}"
            )
        if not self.cutoff > 0 or self.bessel < 1:
            raise ConfigError("a network of edges needs a positive cutoff and a radial function")


class RadialBasis(nn.Module):
    r"""Bessel functions that end smoothly, :math:`f\, \sin(k_n r) / r \cdot e(r)`.

    Source: Gasteiger et al. 2020 (DimeNet), Eq. 7.

    Args:
        options: which.

    Shapes:
        distances ``[E]`` in Angstrom -> ``[E, bessel]``.
    """

    frequencies: Tensor

    def __init__(self, options: RadialOptions) -> None:
        super().__init__()
        self.options = options
        frequencies = torch.arange(1, options.bessel + 1) * (torch.pi / options.cutoff)
        if options.trainable:
            self.frequencies = nn.Parameter(frequencies)
        else:
            self.register_buffer("frequencies", frequencies)

    def forward(self, r: Tensor) -> Tensor:
        """Expand the distances."""
        options = self.options
        envelope = ENVELOPES[options.envelope](r, options.cutoff, options.parameter)
        # a neighbour list may be longer than this network's
        envelope = torch.where(r < options.cutoff, envelope, torch.zeros_like(r))
        waves = torch.sin(r[:, None] * self.frequencies)
        return waves * (options.factor * envelope / r)[:, None]
