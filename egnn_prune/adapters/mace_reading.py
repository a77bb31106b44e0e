"""From MACE's modules to the parts of this package, with every normalisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from egnn_prune.adapters.e3nn_layout import (
    UnknownLayout,
    activation_of,
    copies_of,
    fill,
    linear_matrices,
    network_matrices,
    paths_of,
    product_matrices,
    radial_rows,
)
from egnn_prune.adapters.mace_layer import MaceLayer, MaceShape
from egnn_prune.adapters.mace_network import MaceNetwork, MaceOptions
from egnn_prune.adapters.potential import AdoptedPotential
from egnn_prune.adapters.radial import RadialOptions
from egnn_prune.models.irreps_paths import dimension, format_irreps

#: Interaction blocks, and whether the features themselves reach the result (a residual connection).
BLOCKS = {"RealAgnosticInteractionBlock": False, "RealAgnosticResidualInteractionBlock": True}


def translated(model: Any, head: int = 0) -> AdoptedPotential:
    """A ``MACE`` or ``ScaleShiftMACE`` in parts of this package, not yet tried."""
    elements = [int(z) for z in model.atomic_numbers]
    embedding = linear_matrices(model.node_embedding.linear)["0e"]
    acts = [activation_of(block.conv_tp_weights.layer0.act) for block in model.interactions]
    options = MaceOptions(_radial(model.radial_embedding), model.spherical_harmonics._lmax, acts[0])
    readouts = _readouts(model)
    shapes = [
        _shape(block, product, readout, len(getattr(model, "heads", None) or [0]))
        for block, product, readout in zip(
            model.interactions, model.products, readouts, strict=True
        )
    ]
    dtype = embedding.weight.dtype
    network = MaceNetwork(len(elements), len(embedding.weight), shapes, options).to(dtype)
    fill(network.embedding, embedding)
    with torch.no_grad():
        network.basis.frequencies.copy_(model.radial_embedding.bessel_fn.bessel_weights)
        for t, (block, product) in enumerate(zip(model.interactions, model.products, strict=True)):
            _fill_convolution(network.layer(t), block)
            _fill_products(network.layer(t), product)
            _fill_readout(network.layer(t), readouts[t], head)
    energies = torch.atleast_2d(model.atomic_energies_fn.atomic_energies)[head].double()
    scale, shift = 1.0, 0.0
    if hasattr(model, "scale_shift"):
        scale = float(torch.atleast_1d(model.scale_shift.scale)[head])
        shift = float(torch.atleast_1d(model.scale_shift.shift)[head])
    potential = AdoptedPotential(network, elements, (energies + shift).tolist()).to(dtype)
    potential.atom_scale.fill_(scale)
    return potential


def _readouts(model: Any) -> list[Any]:
    """The read-out of each layer, ``None`` where only the last has one."""
    missing = len(model.interactions) - len(model.readouts)
    if missing and len(model.readouts) > 1:
        raise UnknownLayout("this MACE has read-outs in some layers only")
    for readout in model.readouts:
        if type(readout).__name__ not in ("LinearReadoutBlock", "NonLinearReadoutBlock"):
            raise UnknownLayout(f"this MACE has the read-out {type(readout).__name__}")
    return [None] * missing + list(model.readouts)


def _shape(block: Any, product: Any, readout: Any, heads: int) -> MaceShape:
    residual = BLOCKS[type(block).__name__]
    contraction = product.symmetric_contractions
    terms = tuple(
        tuple(c.U_tensors(nu).shape[-1] for nu in range(1, c.correlation + 1))
        for c in contraction.contractions
    )
    orders = copies_of(block.irreps_out)
    hidden = getattr(readout, "hidden_irreps", None)
    return MaceShape(
        conv=format_irreps(copies_of(block.linear_up.irreps_out)),
        made=format_irreps(copies_of(product.linear.irreps_out)),
        message=contraction.contractions[0].num_features,
        orders=tuple(orders),
        radial=tuple(block.conv_tp_weights.hs[1:-1]),
        paths=paths_of(block.conv_tp),
        terms=terms,
        residual=residual,
        inner="" if residual else format_irreps(copies_of(block.linear.irreps_out)),
        hidden=-1 if readout is None else 0 if hidden is None else hidden.dim // heads,
        shared=bool(getattr(product, "use_agnostic_product", False)),
    )


def _fill_convolution(layer: MaceLayer, block: Any) -> None:
    for ir, matrix in linear_matrices(block.linear_up).items():
        fill(layer.up[ir], matrix)
    *hidden, last = network_matrices(block.conv_tp_weights)
    for linear, matrix in zip(layer.radial, hidden, strict=True):
        fill(linear, matrix)
    for ir, matrix in radial_rows(block.conv_tp, last).items():
        fill(layer.radial_out[ir], matrix)
    layer.denominator.fill_(float(block.avg_num_neighbors))
    mixed = linear_matrices(block.linear)
    for ir, mix in layer.mix.items():
        fill(mix, mixed[ir])
    elements = product_matrices(block.skip_tp)
    maps = layer.own if layer.shape.residual else layer.inner
    for ir, linear in maps.items():
        fill(linear, elements[ir])


def _fill_products(layer: MaceLayer, block: Any) -> None:
    matrices = linear_matrices(block.linear)
    contractions = block.symmetric_contractions.contractions
    for ir, theirs in zip(layer.product, contractions, strict=True):
        product = layer.products(ir)
        weights = [*reversed(list(theirs.weights)), theirs.weights_max]
        for mine, weight in zip(product.weights, weights, strict=True):
            mine.copy_(weight)
        tensors = [theirs.U_tensors(nu) for nu in range(1, len(weights) + 1)]
        if dimension(ir) == 1:  # of scalars, their axis M is missing
            tensors = [u[None] for u in tensors]
        product.couple(tensors)
        fill(layer.out[ir], matrices[ir])


def _fill_readout(layer: MaceLayer, readout: Any, head: int) -> None:
    if readout is None:
        return
    if layer.shape.hidden == 0:
        fill(layer.readout, linear_matrices(readout.linear)["0e"].rows(torch.tensor([head])))
        return
    n = layer.shape.hidden
    own = torch.arange(head * n, (head + 1) * n)  # the hidden units of one head
    act = activation_of(readout.non_linearity.acts[0])
    if act != layer.activation:
        raise UnknownLayout(f"its read-out has another activation ({act.name}) than its layers")
    fill(layer.readout_hidden, linear_matrices(readout.linear_1)["0e"].rows(own))
    last = linear_matrices(readout.linear_2)["0e"]
    fill(layer.readout, last.rows(torch.tensor([head])).columns(own))


def _radial(embedding: Any) -> RadialOptions:
    names = (type(embedding.bessel_fn).__name__, type(embedding.cutoff_fn).__name__)
    if names != ("BesselBasis", "PolynomialCutoff"):
        raise UnknownLayout(f"its edges are described by a {names[0]} and a {names[1]}")
    if hasattr(embedding, "distance_transform"):
        raise UnknownLayout(
            f"its distances go through a {type(embedding.distance_transform).__name__}"
        )
    if not getattr(embedding, "apply_cutoff", True):
        raise UnknownLayout("its radial functions do not end at the cutoff (apply_cutoff=False)")
    basis, envelope = embedding.bessel_fn, embedding.cutoff_fn
    return RadialOptions(
        float(envelope.r_max),
        len(basis.bessel_weights),
        "polynomial",
        float(envelope.p),
        float(basis.prefactor),
        isinstance(basis.bessel_weights, nn.Parameter),
    )
