"""A potential as NequIP's own model, where NequIP can express its shape."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from egnn_prune.adapters.e3nn_layout import copies_of, gate_wires, paths_of
from egnn_prune.adapters.e3nn_writing import (
    effective,
    radial_matrix,
    write_linear,
    write_product,
)
from egnn_prune.adapters.interaction_layer import InteractionLayer
from egnn_prune.adapters.interaction_network import InteractionNetwork
from egnn_prune.adapters.nequip_own import (
    activations_of,
    nequip_defaults,
    original_energy_and_forces,
)
from egnn_prune.adapters.potential import AdoptedPotential
from egnn_prune.adapters.trial import try_out
from egnn_prune.errors import ConfigError
from egnn_prune.models.irreps_paths import format_irreps
from egnn_prune.system.lazy_imports import naming_extras


def write_nequip(potential: AdoptedPotential) -> nn.Module:
    """NequIP's own model with a potential's numbers, for its calculators and its training.

    NequIP can give every layer its own irreps, but within a layer the convolution has as many
    copies as the stream, and every path that the irreps allow.

    Args:
        potential: dense or compact, from NequIP; it is not changed.

    Returns:
        What ``nequip.model.FullNequIPGNNModel`` builds, in evaluation mode, in the potential's
        precision.

    Raises:
        MissingExtraError: NequIP is not installed.
        ConfigError: NequIP cannot express the network's shape; says what.
    """
    network = potential.network
    if not isinstance(network, InteractionNetwork):
        _refuse(f"it is a {type(network).__name__}")
    _check(network)
    with naming_extras("NequIP's own model is built by"), nequip_defaults():
        from nequip.model import FullNequIPGNNModel

        model = FullNequIPGNNModel(**_arguments(potential)).eval()
    parts = dict(next(m for m in model.modules() if hasattr(m, "type_embed")).named_children())
    layers = [parts[f"layer{t}_convnet"] for t in range(len(network.layers))]
    _check_layers(network, layers)
    embedding = effective(network.embedding).T
    with torch.no_grad():
        parts["type_embed"].embed_module.weight.copy_(embedding)
        waves = network.basis.frequencies.detach() * (network.options.cutoff / math.pi)
        parts["bessel_encode"].bessel_weights.copy_(waves[None])
        read = parts["per_atom_energy_readout"].mlp_module.mlp[0]
        read.weight.copy_(_readout(network)[:, None] / read.alpha.double())
    for t, layer in enumerate(layers):
        _write_layer(layer, network, t, embedding)
    tried = copy.deepcopy(potential)
    try_out(tried, lambda graph: original_energy_and_forces(model, tried, graph), "potential")
    return model


def _refuse(what: str) -> None:
    raise ConfigError(f"NequIP cannot express this network: {what}; save it with egnn_prune.save")


def _check(network: InteractionNetwork) -> None:
    """What can be seen before NequIP's model is built."""
    options = network.options
    if options.radial.envelope != "polynomial":
        _refuse(f"its cutoff function is {options.radial.envelope}, NequIP's is polynomial")
    if options.bias:
        _refuse("its scalars have biases")
    layers = [network.layer(t) for t in range(len(network.layers))]
    flags = [bool(layer.own) for layer in layers]
    if len(set(flags[1:])) > 1 or (flags[0] and not all(flags)):
        _refuse("some of its layers have a self connection and others have none")
    for t, layer in enumerate(layers):
        for ir, n in layer.conv.items():
            if n != layer.copies.get(ir):
                _refuse(
                    f"{n} copies of {ir} enter the convolution of layer {t} where the stream has "
                    f"{layer.copies.get(ir, 0)} (prune both alike)"
                )
        if len(set(layer.shape.radial)) > 1:
            _refuse(f"the hidden layers of layer {t}'s radial network have different widths")
    if any(flags) and torch.linalg.matrix_rank(effective(network.embedding)) < network.species:
        _refuse(
            f"its {network.species} elements are embedded in {network.embedding.copies} scalars, "
            "from which NequIP could not make a self connection for each element"
        )


def _arguments(potential: AdoptedPotential) -> dict[str, Any]:
    network = potential.network
    layers = [network.layer(t) for t in range(len(network.layers))]
    options, names = network.options, [chemical_symbols[z] for z in potential.elements]
    parities = [(-1) ** l if options.parity else 1 for l in range(options.lmax + 1)]  # noqa: E741
    alone = torch.eye(len(names), dtype=torch.float64)
    shifts = potential.scale.reference(alone).tolist()
    return {
        "seed": 0,
        "model_dtype": str(potential.atom_scale.dtype).removeprefix("torch."),
        "type_names": names,
        "r_max": options.cutoff,
        "irreps_edge_sh": "+".join(f"1x{l}{'oe'[p == 1]}" for l, p in enumerate(parities)),  # noqa: E741
        "type_embed_num_features": network.embedding.copies,
        "feature_irreps_hidden": [format_irreps(layer.made) for layer in layers],
        "radial_mlp_depth": [len(layer.shape.radial) for layer in layers],
        "radial_mlp_width": [max([*layer.shape.radial, 1]) for layer in layers],
        "num_bessels": options.radial.bessel,
        "bessel_trainable": options.radial.trainable,
        "polynomial_cutoff_p": options.radial.parameter,
        "avg_num_neighbors": float(network.layer(0).denominator.double() ** 2),
        "per_type_energy_scales": dict(zip(names, potential.atom_scale.tolist(), strict=True)),
        "per_type_energy_shifts": dict(zip(names, shifts, strict=True)),
        "convnet_sc": any(layer.own for layer in layers),
        "learnable_shift": bool(network.layer(0).own),
    }


def _check_layers(network: InteractionNetwork, layers: list[Any]) -> None:
    """NequIP's layers have the paths and the activations of the network's."""
    for t, theirs in enumerate(layers):
        layer, product = network.layer(t), theirs.conv.tp_scatter.tp
        kept = [(path.source, path.l, path.target) for path in layer.paths]
        if missing := [path[:3] for path in paths_of(product) if path[:3] not in kept]:
            source, order, target = missing[0]
            _refuse(f"layer {t} lacks the path {source} x l={order} -> {target}, which NequIP has")
        gate = theirs.equivariant_nonlin
        made = copies_of(gate.irreps_scalars) | copies_of(gate.irreps_gated)
        if made != layer.made or kept != [path[:3] for path in paths_of(product)]:
            _refuse(f"layer {t} makes irreps or has paths that NequIP would not make")
    ours, theirs = network.options.activations, activations_of(layers)
    for name in ("even", "odd", "gate"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        if mine.name != other.name or abs(mine.factor - other.factor) > 1e-9:
            _refuse(f"its activation of {name} scalars is {mine}, not {other}")
    if ours.radial.name != "silu":
        _refuse(f"its radial networks have the activation {ours.radial.name}, not silu")


def _readout(network: InteractionNetwork) -> Tensor:
    """All linear maps from the last scalars to the energy as one, ``[features]``."""
    weights = torch.ones(1, 1, dtype=torch.float64)
    for linear in reversed(network.readout):
        weights = weights @ effective(linear)
    return weights[0]


def _write_layer(theirs: Any, network: InteractionNetwork, t: int, embedding: Tensor) -> None:
    layer, conv = network.layer(t), theirs.conv
    # NequIP divides by the same number in every layer
    ratio = float(network.layer(0).denominator.double() / layer.denominator.double())
    write_linear(conv.linear_1, {ir: effective(up) * ratio for ir, up in layer.up.items()})
    _write_radial(conv, network, layer)
    wires = gate_wires(theirs.equivariant_nonlin)
    write_linear(conv.linear_2, _joined(layer.mix, layer.mix_gate, wires))
    if conv.sc is None:
        return
    wide = copies_of(conv.sc.irreps_in1)
    own, own_gate = (
        {ir: _by_element(linear, network.species) for ir, linear in part.items()}
        for part in (layer.own, layer.own_gate)
    )
    joined = _joined(own, own_gate, wires)
    # the embedding of each element times these weights is the element's own matrix
    inverse = torch.linalg.pinv(embedding)
    rows = copies_of(conv.sc.irreps_out)
    none = {
        ir: torch.zeros(network.species, n, wide.get(ir, 0), dtype=torch.float64)
        for ir, n in rows.items()
    }
    write_product(
        conv.sc,
        {ir: torch.einsum("kz,zoi->koi", inverse, m) for ir, m in (none | joined).items()},
    )


def _by_element(linear: Any, species: int) -> Tensor:
    matrix = effective(linear)
    return matrix if matrix.dim() == 3 else matrix.expand(species, *matrix.shape)


def _joined(mixes: Any, gates: Any, wires: Any) -> dict[str, Tensor]:
    """Matrices to all of a gate's inputs, at the places where its sorter finds them."""
    places: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for listed, where in ((mixes, wires.scalars | wires.gated), (gates, wires.gates)):
        for ir, linear in listed.items():
            matrix = linear if isinstance(linear, Tensor) else effective(linear)
            target = ir if listed is mixes else "0e"
            places.setdefault(target, []).append((where[ir], matrix))
    found = {}
    for ir, parts in places.items():
        index = torch.cat([where for where, _ in parts])
        rows = torch.cat([matrix for _, matrix in parts], dim=-2)
        found[ir] = torch.empty_like(rows)
        found[ir][..., index, :] = rows
    return found


@torch.no_grad()
def _write_radial(conv: Any, network: InteractionNetwork, layer: InteractionLayer) -> None:
    options = network.options
    rows = {
        (path.source, path.l, path.target): effective(layer.radial_out[path.target])[place]
        for path, place in layer.places().items()
    }
    last = radial_matrix(conv.tp_scatter.tp, rows).weight
    maps = [*(effective(linear) for linear in layer.radial), last]
    # what NequIP multiplies its radial functions with; nothing after its activations
    factors = [options.radial.factor * options.cutoff / 2]
    factors += [options.activations.radial.factor] * len(layer.radial)
    targets = [part for part in conv.edge_mlp.mlp if hasattr(part, "alpha")]
    for target, matrix, factor in zip(targets, maps, factors, strict=True):
        target.weight.copy_(matrix.T * factor / target.alpha.double())
