"""Back from the parts of this package to MACE's modules, where their shape can be expressed."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.adapters.convolution import linear_of, weight_of
from egnn_prune.adapters.e3nn_layout import slots
from egnn_prune.adapters.mace_layer import MaceLayer
from egnn_prune.adapters.mace_network import MaceNetwork
from egnn_prune.adapters.potential import AdoptedPotential
from egnn_prune.errors import ConfigError
from egnn_prune.models.irreps_paths import format_irreps

#: MACE's names of the blocks with and without a residual connection.
NAMES = {
    True: "RealAgnosticResidualInteractionBlock",
    False: "RealAgnosticInteractionBlock",
}


def native_settings(potential: AdoptedPotential) -> dict[str, Any]:
    """What MACE is built with to have the shape of a potential, as plain numbers and strings.

    Raises:
        ConfigError: MACE cannot express the shape; the sentence says why.
    """
    network = potential.network
    if not isinstance(network, MaceNetwork):
        raise ConfigError("only a potential that came from MACE can be written as one")
    layers = [network.layer(i) for i in range(len(network.layers))]
    first, later, last = layers[0], layers[1:], layers[-1]
    k = network.embedding.copies

    def need(holds: bool, what: str) -> None:
        if not holds:
            raise ConfigError(
                f"MACE cannot express this shape: {what}; save it with egnn_prune.save instead"
            )

    for layer in layers:
        inner = [] if layer.shape.residual else [linear_of(m).copies for m in layer.mix.values()]
        counts = {*layer.made.values(), layer.shape.message, *inner}
        need(
            counts == {k},
            f"stream and message must have equally many copies everywhere, but there are {k} "
            f"scalars at first and {sorted(counts)} later",
        )
        need(all(path[3] for path in layer.shape.paths), "whole paths are missing")
        need(layer.shape.radial == first.shape.radial, "radial networks differ in width")
        need(layer is first or layer.conv == later[0].conv, "convolutions differ in width")
        need(layer.listed == layer.made, "an irrep of the stream is missing")
    need(len({x.shape.residual for x in later}) < 2, "blocks of both kinds follow each other")
    edges = {ir: n for ir, n in layers[min(1, len(later))].conv.items() if n}
    scalars = {"0e": edges.get("0e", 0)}
    need(first.conv in ({"0e": k}, scalars), "the first convolution has a width of its own")
    reads = [layer.shape.hidden for layer in layers]
    need(all(h == 0 for h in reads[:-1]) or all(h < 0 for h in reads[:-1]), "read-outs are missing")
    scale = potential.atom_scale.unique()
    need(len(scale) == 1, "elements have scales of their own")
    return {
        "r_max": network.options.cutoff,
        "num_bessel": network.options.radial.bessel,
        "num_polynomial_cutoff": int(network.options.radial.parameter),
        "max_ell": network.options.lmax,
        "interaction_cls_first": NAMES[first.shape.residual],
        "interaction_cls": NAMES[last.shape.residual],
        "num_interactions": len(layers),
        "num_elements": len(potential.elements),
        "hidden_irreps": format_irreps(first.made),
        "MLP_irreps": f"{max(reads[-1], 1)}x0e",
        "atomic_energies": list(potential.scale.per_element),
        "avg_num_neighbors": float(first.denominator),
        "atomic_numbers": list(potential.elements),
        "correlation": [len(layer.shape.terms[0]) for layer in layers],
        "edge_irreps": format_irreps(edges),
        "use_edge_irreps_first": first.conv == scalars,
        "use_agnostic_product": first.shape.shared,
        "use_last_readout_only": len(layers) > 1 and reads[0] < 0,
        "keep_last_layer_irreps": len(layers) > 1 and last.made == first.made,
        "radial_MLP": list(first.shape.radial),
        "atomic_inter_scale": float(scale),
        "atomic_inter_shift": 0.0,
    }


@torch.no_grad()
def fill_native(model: Any, network: MaceNetwork) -> None:
    """Give a fresh MACE of the same shape the weights of a network."""
    _fill_linear(model.node_embedding.linear, {"0e": weight_of(network.embedding)})
    model.radial_embedding.bessel_fn.bessel_weights.copy_(network.basis.frequencies)
    readouts = list(model.readouts)
    for t, (block, product) in enumerate(zip(model.interactions, model.products, strict=True)):
        layer = network.layer(t)
        block.avg_num_neighbors = float(layer.denominator)
        _fill_linear(block.linear_up, _matrices(layer.up))
        _fill_linear(block.linear, _matrices(layer.mix))
        _fill_radial(block, layer)
        _fill_product(block.skip_tp, _matrices(layer.own if layer.shape.residual else layer.inner))
        for ir, theirs in zip(
            layer.product, product.symmetric_contractions.contractions, strict=True
        ):
            targets = [*reversed(list(theirs.weights)), theirs.weights_max]
            for weight, target in zip(layer.products(ir).weights, targets, strict=True):
                target.copy_(weight)
        _fill_linear(product.linear, _matrices(layer.out))
        if layer.shape.hidden >= 0:
            _fill_readout(readouts.pop(0), layer)


def _fill_readout(readout: Any, layer: MaceLayer) -> None:
    last = {"0e": weight_of(layer.readout)}
    if layer.shape.hidden:
        _fill_linear(readout.linear_1, {"0e": weight_of(layer.readout_hidden)})
        _fill_linear(readout.linear_2, last)
    else:
        _fill_linear(readout.linear, last)


def _fill_radial(block: Any, layer: MaceLayer) -> None:
    net, product = block.conv_tp_weights, block.conv_tp
    for i, linear in enumerate(layer.radial):
        weight = weight_of(linear).T
        getattr(net, f"layer{i}").weight.copy_(weight * weight.shape[0] ** 0.5)
    rows = _matrices(layer.radial_out)
    place = dict(enumerate(slots(product.irreps_out)))
    blocks = []
    for instruction in product.instructions:
        ir, where = place[instruction.i_out]
        factor = instruction.path_weight / product.irreps_out[instruction.i_out].ir.dim ** 0.5
        blocks.append(rows[ir][where] / factor)
    weight = torch.cat(blocks).T
    getattr(net, f"layer{len(layer.radial)}").weight.copy_(weight * weight.shape[0] ** 0.5)


def _fill_linear(linear: Any, matrices: dict[str, Tensor]) -> None:
    """The inverse of :func:`~egnn_prune.adapters.e3nn_layout.linear_matrices`."""
    inputs, outputs = list(slots(linear.irreps_in)), list(slots(linear.irreps_out))
    blocks = []
    for instruction in linear.instructions:
        (ir, rows), (_, columns) = outputs[instruction.i_out], inputs[instruction.i_in]
        block = matrices[ir][rows, columns].T / instruction.path_weight
        blocks.append(block.reshape(prod(instruction.path_shape)))
    linear.weight.copy_(torch.cat(blocks))


def _fill_product(product: Any, matrices: dict[str, Tensor]) -> None:
    """The inverse of :func:`~egnn_prune.adapters.e3nn_layout.product_matrices`."""
    inputs, outputs = list(slots(product.irreps_in1)), list(slots(product.irreps_out))
    blocks = []
    for instruction in product.instructions:
        (ir, rows), (_, columns) = outputs[instruction.i_out], inputs[instruction.i_in1]
        factor = instruction.path_weight / product.irreps_out[instruction.i_out].ir.dim ** 0.5
        blocks.append((matrices[ir][:, rows, columns].permute(2, 0, 1) / factor).flatten())
    product.weight.copy_(torch.cat(blocks))


def _matrices(maps: nn.ModuleDict) -> dict[str, Tensor]:
    return {ir: weight_of(linear) for ir, linear in maps.items()}
