"""Functions of a distance: radial bases and the smooth cutoff."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SquaredDistance(nn.Module):
    r"""The EGNN paper's radial feature, :math:`r^2` itself (Satorras et al. 2021, Eq. 3).

    Shapes:
        input ``[E, 1]`` squared distances (length unit squared), output ``[E, 1]``.
    """

    size = 1

    def forward(self, r2: Tensor) -> Tensor:
        """Return the squared distance unchanged."""
        return r2


class GaussianBasis(nn.Module):
    r"""Evenly spaced Gaussians, :math:`\exp(-(\tilde r - c_k)^2 / 2\Delta^2)`.

    The distance is :math:`\tilde r = \sqrt{r^2 + \epsilon^2}`, smooth where points coincide.
    Source: Schuett et al. 2017 (SchNet), Section 3.

    Args:
        size: number of Gaussians.
        stop: centre of the last one, in the length unit of the positions.

    Shapes:
        input ``[E, 1]`` squared distances, output ``[E, size]``.
    """

    def __init__(self, size: int, stop: float, eps: float = 1e-4) -> None:
        super().__init__()
        self.size, self.stop, self.eps = size, stop, eps

    def forward(self, r2: Tensor) -> Tensor:
        """Expand squared distances."""
        # in units of sqrt(2) Delta, with Delta = stop / size
        unit = 2**0.5 * self.stop / self.size
        centres = torch.linspace(0.0, self.stop / unit, self.size, dtype=r2.dtype, device=r2.device)
        scaled = (r2 + self.eps**2).sqrt() / unit - centres
        exponent = torch.addcmul(scaled.new_zeros(()), scaled, scaled, value=-1)
        # e^-40 is nothing, but an exponential that underflows is ten times slower on a CPU
        return torch.exp(exponent.clamp(min=-40.0))


class BesselBasis(nn.Module):
    r"""Spherical Bessel functions, :math:`\sqrt{2/3}\, r_c \sin(k \pi \tilde r / r_c) / \tilde r`.

    The distance is :math:`\tilde r = \sqrt{r^2 + \epsilon^2}`, smooth where points coincide. The
    factor makes the mean square over the ball one, whatever the unit of length; the paper's is
    :math:`\sqrt{2 / r_c}`. Source: Gasteiger et al. 2020 (DimeNet), Eq. 7.

    Args:
        size: number of functions.
        cutoff: :math:`r_c`, where all of them are zero, in the length unit of the positions.
        eps: smoothing length.

    Shapes:
        input ``[E, 1]`` squared distances, output ``[E, size]``.
    """

    def __init__(self, size: int, cutoff: float, eps: float = 1e-3) -> None:
        super().__init__()
        self.size, self.cutoff, self.eps = size, cutoff, eps

    def forward(self, r2: Tensor) -> Tensor:
        """Expand squared distances."""
        r = (r2 + self.eps**2).sqrt()
        k = torch.arange(1, self.size + 1, dtype=r2.dtype, device=r2.device)
        return (2 / 3) ** 0.5 * self.cutoff * torch.sin(k * (torch.pi / self.cutoff) * r) / r


def smooth_cutoff(r2: Tensor, cutoff: float) -> Tensor:
    r"""Polynomial envelope, 1 at zero distance and 0 beyond the cutoff, twice differentiable.

    :math:`1 - 10 u^3 + 15 u^4 - 6 u^5` with :math:`u = r / r_c`.
    Source: Gasteiger et al. 2020 (DimeNet), Eq. 8 with p = 3.

    Shapes:
        input ``[E, 1]`` squared distances, output ``[E, 1]``.
    """
    # the tiny offset keeps sqrt differentiable at r = 0; u^3 makes its effect vanish there
    u = ((r2 + 1e-16).sqrt() / cutoff).clamp(max=1.0)
    return 1.0 - u.pow(3) * (10.0 - 15.0 * u + 6.0 * u.square())
