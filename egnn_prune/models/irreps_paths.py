"""Which irreps couple to which, with e3nn's conventions and numbers, and in which order.

Irreps are named as e3nn prints them: ``"1o"`` is l = 1 with odd parity, a vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import e3nn
import torch
from e3nn import o3
from torch import Tensor, nn

from egnn_prune.errors import ConfigError


def parse_irreps(irreps: str) -> dict[str, int]:
    """Copies of each irrep: ``"8x0e+4x1o"`` -> ``{"0e": 8, "1o": 4}``.

    Raises:
        ConfigError: e3nn cannot read it, an irrep stands there twice, or nothing does.
    """
    try:
        parsed = [(str(ir), mul) for mul, ir in o3.Irreps(irreps)]
    except ValueError:
        raise ConfigError(f"{irreps!r} are no irreps; write them like 8x0e+4x1o") from None
    copies = dict(parsed)
    if len(copies) != len(parsed) or not any(copies.values()):
        raise ConfigError(f"irreps must name each irrep once and at least one, not {irreps!r}")
    return copies


def format_irreps(copies: dict[str, int]) -> str:
    """The inverse of :func:`parse_irreps`."""
    return "+".join(f"{n}x{ir}" for ir, n in copies.items())


def dimension(ir: str) -> int:
    """2l + 1."""
    return o3.Irrep(ir).dim


#: l1 of the features, l2 of the spherical harmonic, l3 of the result.
Orders = tuple[int, int, int]


@dataclass(frozen=True)
class Path:
    r"""One way to make an irrep on an edge: :math:`\text{source} \otimes Y_l \to \text{target}`."""

    source: str
    l: int  # noqa: E741 - the name that the literature has
    target: str

    @property
    def orders(self) -> Orders:
        """(l1, l2, l3)."""
        return o3.Irrep(self.source).l, self.l, o3.Irrep(self.target).l


def paths(sources: Iterable[str], targets: Iterable[str], lmax: int) -> list[Path]:
    """All paths with spherical harmonics up to ``lmax``, sorted by target, then source, then l."""
    targets, found = list(targets), []
    for source in sources:
        for l, harmonic in enumerate(o3.Irreps.spherical_harmonics(lmax)):  # noqa: E741
            made = [str(ir) for ir in o3.Irrep(source) * harmonic.ir]
            found += [Path(source, l, target) for target in made if target in targets]
    return sorted(found, key=lambda path: targets.index(path.target))


def reachable(sources: Iterable[str], lmax: int, parity: bool) -> list[str]:
    """The irreps up to ``lmax`` that one layer can make, in e3nn's order.

    Args:
        sources: what the layer reads.
        lmax: the highest order, of features as of spherical harmonics.
        parity: also irreps whose parity is not :math:`(-1)^l` (pseudo-scalars, axial vectors ...).
    """
    every = [o3.Irrep(l, p) for l in range(lmax + 1) for p in (1, -1)]  # noqa: E741
    if not parity:
        every = [ir for ir in every if ir.p == (-1) ** ir.l]
    made = {path.target for path in paths(sources, [str(ir) for ir in every], lmax)}
    return [str(ir) for ir in every if str(ir) in made]


def useful(sources: Iterable[str], targets: Iterable[str], lmax: int) -> list[str]:
    """The sources from which something leads to one of the targets in one layer."""
    targets = list(targets)
    reads = {path.source for path in paths(sources, targets, lmax)} | set(targets)
    return [ir for ir in sources if ir in reads]


class Couplings(nn.Module):
    r"""Per edge the matrices that turn features of order l1 into those of order l3.

    .. math:: M_{l_1 l_2 l_3,\, ki} = \sqrt{2 l_3 + 1} \sum_j C^{l_1 l_2 l_3}_{ijk} Y^{l_2}_j

    with e3nn's Wigner 3j symbols C and its "component" normalisation. All layers share them: they
    depend on the geometry alone. No path normalisation is in them, and no width.

    Args:
        orders: (l1, l2, l3) of the paths that there are.
        used: those that are computed; all, unless given.

    Shapes:
        ``Y [E, (lmax + 1)^2]`` -> for each (l1, l2, l3) ``[E, 2 l3 + 1, 2 l1 + 1]``.
    """

    def __init__(self, orders: Iterable[Orders], used: Iterable[Orders] | None = None) -> None:
        super().__init__()
        known = set(orders)
        self.orders = sorted(known if used is None else set(used))
        for l1, l2, l3 in sorted(known):
            # in float64 until the model is cast: a float64 network needs all the digits
            symbol = o3.wigner_3j(l1, l2, l3, dtype=torch.float64).permute(1, 2, 0)
            table = (2 * l3 + 1) ** 0.5 * symbol
            self.register_buffer(f"table_{l1}_{l2}_{l3}", table, persistent=False)

    def forward(self, harmonics: Tensor) -> dict[Orders, Tensor]:
        """The matrices for each (l1, l2, l3)."""
        return {orders: self.matrices(harmonics, orders) for orders in self.orders}

    def matrices(self, harmonics: Tensor, orders: Orders) -> Tensor:
        """Those for one (l1, l2, l3)."""
        _, l2, _ = orders
        table = self._table(orders).to(harmonics.dtype)
        rows = harmonics[:, l2**2 : (l2 + 1) ** 2] @ table.flatten(1)
        return rows.unflatten(1, table.shape[1:])

    def turned(self, harmonics: Tensor, orders: Orders) -> Tensor:
        """Their transposes ``[E, 2 l1 + 1, 2 l3 + 1]``, one after another in memory."""
        _, l2, _ = orders
        table = self._table(orders).to(harmonics.dtype).mT
        rows = harmonics[:, l2**2 : (l2 + 1) ** 2] @ table.flatten(1)
        return rows.unflatten(1, table.shape[1:])

    def _table(self, orders: Orders) -> Tensor:
        l1, l2, l3 = orders
        table: Tensor = getattr(self, f"table_{l1}_{l2}_{l3}")
        return table


@contextmanager
def eager_e3nn() -> Iterator[None]:
    """Build e3nn's modules as plain Python within: copied, compiled and exported by torch alone."""
    before = e3nn.get_optimization_defaults()["jit_mode"]
    e3nn.set_optimization_defaults(jit_mode="eager")
    try:
        yield
    finally:
        e3nn.set_optimization_defaults(jit_mode=before)
