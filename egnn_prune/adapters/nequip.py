"""NequIP's networks (https://github.com/mir-group/nequip) as prunable potentials."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from egnn_prune.adapters.e3nn_layout import (
    Matrix,
    UnknownLayout,
    copies_of,
    fill,
    gate_wires,
    known_layout,
    linear_matrices,
    paths_of,
    product_matrices,
    radial_rows,
)
from egnn_prune.adapters.interaction_layer import LayerShape
from egnn_prune.adapters.interaction_network import InteractionNetwork, InteractionOptions
from egnn_prune.adapters.nequip_own import (
    activations_of,
    nequip_defaults,
    original_energy_and_forces,
)
from egnn_prune.adapters.nequip_writing import write_nequip
from egnn_prune.adapters.potential import AdoptedPotential
from egnn_prune.adapters.radial import RadialOptions
from egnn_prune.adapters.trial import try_out
from egnn_prune.errors import InputError
from egnn_prune.models.irreps_paths import format_irreps
from egnn_prune.system.lazy_imports import naming_extras

#: How the parts of a NequIP are called, and of which class each is.
PARTS = {
    r"type_embed": "NodeTypeEmbed",
    r"spharm": "SphericalHarmonicEdgeAttrs",
    r"edge_norm": "EdgeLengthNormalizer",
    r"bessel_encode": "BesselEdgeLengthEncoding",
    r"factor": "ApplyFactor",
    r"layer\d+_convnet": "ConvNetLayer",
    r"per_atom_energy_readout": "ScalarMLP",
    r"per_type_energy_scale_shift": "PerTypeScaleShift",
    r"total_energy_sum": "AtomwiseReduce",
}


def read_nequip_file(path: str | Path) -> AdoptedPotential:
    """The potential in a package (``.nequip.zip``) or a checkpoint (``.ckpt``) of NequIP.

    NequIP itself opens the file, which can run code that is in it.

    Raises:
        MissingExtraError: NequIP is not installed.
        InputError: NequIP cannot read it, or see :func:`read_nequip`.
    """
    import warnings

    with naming_extras(f"{path} is read by"):
        from nequip.model.saved_models.load_utils import load_saved_model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries: versions, typed storages
        with nequip_defaults():
            try:
                network = load_saved_model(str(path))
            except Exception as error:  # a pickle may raise anything
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise InputError(f"nequip cannot read {path}: {reason}") from error
        return read_nequip(network.eval())


def read_nequip(model: nn.Module) -> AdoptedPotential:
    """Translate a NequIP, and try it on a small structure.

    Args:
        model: what ``nequip.model.NequIPGNNModel`` builds; it is not changed.

    Raises:
        UnknownLayout: its parts are not those of the versions known here, or the translation does
            not give the same energy and forces.
    """
    if getattr(model, "is_compile_graph_model", False):
        raise UnknownLayout(
            "this NequIP is compiled; build it, or load it from its file, with compile_mode='eager'"
        )
    found = (m for m in model.modules() if hasattr(m, "type_embed"))
    parts = dict(next(found, nn.Module()).named_children())
    _check_parts(parts)
    with known_layout("NequIP", "nequip 0.19"):
        potential = _translated(parts)
    try_out(potential, lambda graph: original_energy_and_forces(model, potential, graph), "NequIP")
    return potential.eval()


def _check_parts(parts: dict[str, Any]) -> None:
    """Refuse parts that are missing, of another name or of another class."""

    def refuse(what: str) -> None:
        raise UnknownLayout(f"this NequIP {what}, which this version of egnn_prune does not know")

    needed = {"type_embed", "layer0_convnet", "per_atom_energy_readout", "total_energy_sum"}
    if missing := sorted(needed - set(parts)):
        refuse(f"lacks a part {missing[0]!r}")
    for name, part in parts.items():
        kind = next((k for pattern, k in PARTS.items() if re.fullmatch(pattern, name)), None)
        found = getattr(part, "original_name", type(part).__name__)
        if kind is None:
            refuse(f"has a part {name!r} ({found})")
        if found != kind:
            refuse(f"has a {found} as its part {name!r}")


def _translated(parts: dict[str, Any]) -> AdoptedPotential:
    layers = [parts[f"layer{t}_convnet"] for t in range(sum("_convnet" in name for name in parts))]
    embed, scales = parts["type_embed"], parts["per_type_energy_scale_shift"]
    if embed.do_categorical_graph_field_embed:
        raise UnknownLayout("this NequIP embeds properties of the whole structure")
    embedding = embed.embed_module.weight.detach()
    elements = [_number(name) for name in scales.type_names]
    readout = _readout(parts["per_atom_energy_readout"].mlp_module)
    network = InteractionNetwork(
        len(elements),
        embedding.shape[1],
        _shapes(layers),
        [len(matrix.weight) for matrix in readout[:-1]],
        _options(parts, layers),
    ).to(embedding.dtype)  # before the numbers come, which would lose digits
    fill(network.embedding, Matrix(embedding.T, embedding.new_ones(len(elements))))
    for linear, matrix in zip(network.readout, readout, strict=True):
        fill(linear, matrix)
    waves, cutoff = parts["bessel_encode"].bessel_weights.detach(), network.options.cutoff
    with torch.no_grad():
        network.basis.frequencies.copy_(waves.flatten() * (math.pi / cutoff))
    for t, layer in enumerate(layers):
        _fill_layer(network.layer(t), layer, embedding)
    n = len(elements)
    shift = scales.shifts.detach().flatten().expand(n) if scales.has_shifts else torch.zeros(n)
    scale = scales.scales.detach().flatten().expand(n) if scales.has_scales else torch.ones(n)
    return AdoptedPotential(network, elements, shift.double().tolist(), scale.to(embedding.dtype))


def _number(name: str) -> int:
    if name not in chemical_symbols[1:]:
        raise UnknownLayout(
            f"this NequIP has a type {name!r}, which is no chemical element; only networks whose "
            "type_names are chemical symbols can be read"
        )
    return chemical_symbols.index(name)


def _shapes(layers: list[Any]) -> list[LayerShape]:
    """Widths, without the irreps that nothing reads (in the last layers of O(3) networks)."""
    shapes: list[LayerShape] = []
    made = {"0e": 0}
    for layer in reversed(layers):
        conv, product = layer.conv, layer.conv.tp_scatter.tp
        if layer.resnet:
            raise UnknownLayout("this NequIP adds features to those of the layer before (resnet)")
        if type(layer.equivariant_nonlin).__name__ != "Gate":
            name = type(layer.equivariant_nonlin).__name__
            raise UnknownLayout(f"this NequIP has the non-linearity {name}, not Gate")
        paths = paths_of(product)
        gate = layer.equivariant_nonlin
        every = copies_of(gate.irreps_scalars) | copies_of(gate.irreps_gated)
        read = {ir: n for ir, n in every.items() if ir in made}
        listed = tuple(path for path in paths if path[2] in read or path[2] == "0e")
        sources = {path[0] for path in listed}
        wire = {ir: n for ir, n in copies_of(product.irreps_in1).items() if ir in sources}
        hidden = tuple(conv.edge_mlp.dims[1:-1])
        shape = LayerShape(format_irreps(wire), format_irreps(read), hidden, listed)
        shapes.insert(0, replace(shape, own=conv.sc is not None))
        made = dict.fromkeys(["0e", *wire, *(read if conv.sc is not None else ())], 0)
    return shapes


def _options(parts: dict[str, Any], layers: list[Any]) -> InteractionOptions:
    norm, encode, edges = parts["edge_norm"], parts["bessel_encode"], parts["spharm"].irreps_edge_sh
    if norm._per_edge_type:
        raise UnknownLayout("this NequIP has a cutoff for each pair of types")
    envelope = encode.cutoff
    if getattr(envelope, "original_name", type(envelope).__name__) != "PolynomialCutoff":
        raise UnknownLayout(f"this NequIP has the cutoff function {type(envelope).__name__}")
    orders = [ir.l for _, ir in edges]
    if orders != list(range(len(orders))) or edges.num_irreps != len(orders):
        raise UnknownLayout(f"this NequIP has the spherical harmonics {edges}")
    if not parts["spharm"].sh.normalize:
        raise UnknownLayout("this NequIP's spherical harmonics grow with the distance")
    cutoff = float(norm.r_max)
    # sinc(k x) k of x = r / cutoff
    factor = cutoff / math.pi * (parts["factor"].factor if "factor" in parts else 1.0)
    radial = RadialOptions(
        cutoff,
        encode.bessel_weights.numel(),
        "polynomial",
        float(envelope.p),
        factor,
        isinstance(encode.bessel_weights, nn.Parameter),
    )
    parity = all(ir.p == (-1) ** ir.l for _, ir in edges)
    own = "elements" if any(layer.conv.sc is not None for layer in layers) else "none"
    return InteractionOptions(
        radial, len(orders) - 1, activations_of(layers), own, parity=parity or len(orders) == 1
    )


def _network_matrices(mlp: Any, functions: str) -> list[Matrix]:
    """The layers of a ``ScalarMLPFunction``, between which there must be certain functions."""
    found = []
    for k, part in enumerate(mlp.mlp):
        name = getattr(part, "original_name", type(part).__name__)
        if k % 2 and name != functions:
            raise UnknownLayout(f"this NequIP has a {name} between two linear maps")
        if not k % 2:
            assert part.bias is None
            weight = part.weight.detach()
            coefficient = part.alpha.to(weight).expand(len(weight)).clone()
            found.append(Matrix(weight.T, coefficient))
    return found


def _readout(mlp: Any) -> list[Matrix]:
    if type(mlp.mlp).__name__ == "DeepLinearMLP":
        weights = [weight.detach() for weight in mlp.mlp.weights]
        scales = [mlp.mlp.alpha.to(weights[0]), *[weights[0].new_ones(())] * (len(weights) - 1)]
        return [
            Matrix(weight.T, scale.expand(len(weight)).clone())
            for weight, scale in zip(weights, scales, strict=True)
        ]
    found = _network_matrices(mlp, "")
    return found


def _fill_layer(target: Any, layer: Any, embedding: Tensor) -> None:
    conv, wires = layer.conv, gate_wires(layer.equivariant_nonlin)
    product = conv.tp_scatter.tp
    ups = linear_matrices(conv.linear_1)
    for ir, linear in target.up.items():
        fill(linear, ups[ir])
    *hidden, last = _network_matrices(conv.edge_mlp, "SiLU")
    for linear, matrix in zip(target.radial, hidden, strict=True):
        fill(linear, matrix)
    rows = radial_rows(product, last)
    for ir, linear in target.radial_out.items():
        fill(linear, rows[ir])
    norm = conv.avg_num_neighbors_norm.norm_const
    if norm.numel() != 1:
        raise UnknownLayout("this NequIP has a number of neighbours for each type")
    target.denominator.copy_(norm.flatten()[0].reciprocal())
    own = {} if conv.sc is None else product_matrices(conv.sc)
    # the type embedding is the same for all atoms of an element: one matrix for each
    own = {
        ir: Matrix(torch.einsum("zk,koi->zoi", embedding, m.weight), m.coefficient)
        for ir, m in own.items()
    }
    for mixes, gates, matrices in (
        (target.mix, target.mix_gate, linear_matrices(conv.linear_2)),
        (target.own, target.own_gate, own),
    ):
        for ir in mixes:
            fill(mixes[ir], matrices[ir].rows((wires.scalars | wires.gated)[ir]))
        for ir in gates:
            fill(gates[ir], matrices["0e"].rows(wires.gates[ir]))


__all__ = ["read_nequip", "read_nequip_file", "write_nequip"]
