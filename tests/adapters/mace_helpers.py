"""Small MACE networks of our own parts, made without mace."""

from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor

from egnn_prune.adapters import AdoptedPotential
from egnn_prune.adapters.activations import Activation
from egnn_prune.adapters.mace_contraction import SymmetricContraction
from egnn_prune.adapters.mace_layer import MaceShape
from egnn_prune.adapters.mace_network import MaceNetwork, MaceOptions
from egnn_prune.adapters.radial import RadialOptions
from egnn_prune.models.irreps_paths import parse_irreps, paths

ELEMENTS = (1, 6, 8)
SHIFTS = (-13.6, -1030.0, -2040.0)
CUTOFF = 3.5
ORDERS = ("0e", "1o")


def couplings(orders: tuple[str, ...], target: str, degree: int) -> Tensor:
    """Every way to couple features to an irrep, one after another, ``[2l+1, D, ..., D, terms]``."""
    irreps = o3.Irreps("+".join(orders))
    eye = torch.eye(irreps.dim, dtype=torch.float64)
    slots = [(ir, eye[where]) for (_, ir), where in zip(irreps, irreps.slices(), strict=True)]
    found = slots
    for _ in range(degree - 1):
        found = [
            (made, torch.einsum("abc,a...,bd->c...d", symbol(ir, factor, made), tensor, row))
            for ir, tensor in found
            for factor, row in slots
            for made in ir * factor
        ]
    return torch.stack([tensor for ir, tensor in found if str(ir) == target], -1)


def symbol(*irreps: o3.Irrep) -> Tensor:
    return o3.wigner_3j(*(ir.l for ir in irreps), dtype=torch.float64)


def potential(
    dtype: torch.dtype = torch.float64,
    *,
    residual: bool = True,
    degree: int = 3,
    copies: int = 4,
    layers: int = 2,
) -> AdoptedPotential:
    """Random weights, all kinds of groups."""
    torch.manual_seed(0)
    shapes, made = [], "4x0e".replace("4", str(copies))
    for t in range(layers):
        last = t == layers - 1
        out = f"{copies}x0e" if last else f"{copies}x0e+{copies}x1o"
        listed = [(p.source, p.l, p.target, True) for p in paths(parse_irreps(made), ORDERS, 1)]
        terms = tuple(
            tuple(couplings(ORDERS, ir, nu).shape[-1] for nu in range(1, degree + 1))
            for ir in parse_irreps(out)
        )
        shapes.append(
            MaceShape(
                conv=made,
                made=out,
                message=copies,
                orders=ORDERS,
                radial=(5, 6),
                paths=tuple(listed),
                terms=terms,
                residual=residual,
                inner="" if residual else f"{copies}x0e+{copies}x1o",
                hidden=6 if last else 0,
            )
        )
        made = out
    radial = RadialOptions(CUTOFF, 5, "polynomial", 5.0, (2 / CUTOFF) ** 0.5, False)
    network = MaceNetwork(
        len(ELEMENTS), copies, shapes, MaceOptions(radial, 1, Activation("silu", 1.68))
    ).to(dtype)
    for layer in network.layers:
        layer.denominator.fill_(4.0)
        for ir, product in layer.product.items():
            assert isinstance(product, SymmetricContraction)
            product.couple([couplings(ORDERS, ir, nu) for nu in range(1, degree + 1)])
    model = AdoptedPotential(network, ELEMENTS, SHIFTS, torch.full((3,), 0.7, dtype=dtype))
    return model.to(dtype).eval()
