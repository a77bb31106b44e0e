"""SevenNet's networks (https://github.com/MDIL-SNU/SevenNet) as prunable potentials."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from egnn_prune.adapters.activations import Activation, Activations
from egnn_prune.adapters.e3nn_layout import (
    Matrix,
    UnknownLayout,
    activation_of,
    copies_of,
    fill,
    gate_wires,
    known_layout,
    linear_matrices,
    network_matrices,
    paths_of,
    product_matrices,
    radial_rows,
)
from egnn_prune.adapters.element_linear import ElementLinear
from egnn_prune.adapters.interaction_layer import LayerShape
from egnn_prune.adapters.interaction_network import InteractionNetwork, InteractionOptions
from egnn_prune.adapters.potential import AdoptedPotential
from egnn_prune.adapters.radial import RadialOptions
from egnn_prune.adapters.trial import try_out
from egnn_prune.errors import ConfigError
from egnn_prune.models.irreps_paths import format_irreps

#: How the parts of a SevenNet are called; a part of another name is one that is not known here.
PARTS = re.compile(
    r"edge_embedding|onehot_idx_to_onehot|one_hot_modality|onehot_to_feature_x"
    r"|\d+_(self_connection_intro|self_interaction_1|convolution|self_interaction_2"
    r"|self_connection_outro|equivariant_gate)"
    r"|reduce_input_to_hidden|reduce_hidden_to_energy|rescale_atomic_energy"
    r"|reduce_total_enegy|force_output"
)


def read_sevennet(network: nn.Module, modal: str | None = None) -> AdoptedPotential:
    """Translate a SevenNet, and try it on a small structure.

    Args:
        network: what ``sevenn.util.model_from_checkpoint`` gives; it is not changed.
        modal: of a network of several levels of theory, which one, such as ``"PBE"``.

    Raises:
        ConfigError: the network needs a ``modal``, or has no such one.
        UnknownLayout: its parts are not those of the versions known here, or the translation does
            not give the same energy and forces.
    """
    parts: dict[str, Any] = dict(network.named_children())
    strange = [name for name in parts if not PARTS.fullmatch(name)]
    missing = {"onehot_to_feature_x", "reduce_hidden_to_energy", "0_convolution"} - set(parts)
    if strange or missing:
        what = f"has a part {strange[0]!r}" if strange else f"lacks a part {min(missing)!r}"
        raise UnknownLayout(f"this SevenNet {what}, which this version of egnn_prune does not know")
    place = _modal(network, modal)
    elements = sorted(network.type_map, key=network.type_map.get)  # type: ignore[union-attr, arg-type]
    with known_layout("SevenNet", "sevenn 0.13"):
        potential = _translated(parts, elements, place)
    try_out(potential, lambda graph: run_sevennet(network, graph, modal), "SevenNet")
    return potential.eval()


def _modal(network: Any, modal: str | None) -> int | None:
    """The number of a level of theory, ``None`` for a network of one."""
    known = network.modal_map
    if not known:
        if modal is not None:
            raise ConfigError("this network has one level of theory; leave modal= away")
        return None
    if modal not in known:
        names = ", ".join(known)
        raise ConfigError(
            f"this network has several levels of theory; choose one by modal=, of {names}"
            + ("" if modal is None else f" (not {modal!r})")
        )
    return int(known[modal])


def _translated(parts: dict[str, Any], elements: list[int], modal: int | None) -> AdoptedPotential:
    layers = sum(name.endswith("_convolution") for name in parts)
    embedding = _matrices(parts["onehot_to_feature_x"], modal)["0e"]
    shapes, biased = [], embedding.bias is not None
    for t in range(layers):
        shape, bias = _shape(parts, t, modal)
        shapes.append(shape)
        biased |= bias
    readout = [
        _matrices(parts[f"reduce_{name}"], modal)["0e"]
        for name in ("input_to_hidden", "hidden_to_energy")
    ]
    biased |= any(matrix.bias is not None for matrix in readout)
    options = InteractionOptions(
        _radial(parts["edge_embedding"]),
        parts["edge_embedding"].spherical.lmax,
        read_activations(parts),
        _self_connection(parts["0_self_connection_intro"]),
        biased,
        str(parts["edge_embedding"].spherical.irreps_in) == "1x1o",
    )
    network = InteractionNetwork(
        len(elements), len(embedding.weight), shapes, [len(readout[0].weight)], options
    )
    fill(network.embedding, embedding)
    for linear, matrix in zip(network.readout, readout, strict=True):
        fill(linear, matrix)
    with torch.no_grad():
        network.basis.frequencies.copy_(parts["edge_embedding"].basis_function.coeffs)
    for t in range(layers):
        _fill_layer(network.layer(t), parts, t, modal)
    rescale = parts["rescale_atomic_energy"]
    shift, scale = (
        _each(getattr(rescale, name).detach(), len(elements), modal) for name in ("shift", "scale")
    )
    potential = AdoptedPotential(network, elements, shift.double().tolist(), scale)
    return potential.to(embedding.weight.dtype)


def _each(value: Tensor, n: int, modal: int | None) -> Tensor:
    """One number for each element, of one level of theory."""
    value = value[modal] if modal is not None and value.dim() == 2 else value
    return value.expand(n).clone()


def _matrices(part: Any, modal: int | None) -> dict[str, Matrix]:
    """Matrices of a linear part; the constant input of a level of theory becomes a bias."""
    found = linear_matrices(part.linear)
    if getattr(part, "num_modalities", 0) > 1:
        assert modal is not None
        scalars, n = found["0e"], part.num_modalities
        constant = scalars.weight[:, -n:] * scalars.coefficient[-n:]
        bias = constant[:, modal] + (0 if scalars.bias is None else scalars.bias)
        found["0e"] = Matrix(scalars.weight[:, :-n], scalars.coefficient[:-n], bias)
    return found


def _shape(parts: dict[str, Any], t: int, modal: int | None) -> tuple[LayerShape, bool]:
    convolution, gate = parts[f"{t}_convolution"], parts[f"{t}_equivariant_gate"].gate
    product = convolution.convolution
    conv = copies_of(product.irreps_in1)
    made = copies_of(gate.irreps_scalars) | copies_of(gate.irreps_gated)
    names = (f"{t}_self_interaction_1", f"{t}_self_interaction_2")
    bias = any(m.bias is not None for name in names for m in _matrices(parts[name], modal).values())
    shape = LayerShape(
        format_irreps(conv),
        format_irreps(made),
        tuple(convolution.weight_nn.hs[1:-1]),
        paths_of(product),
    )
    return shape, bias


def _fill_layer(layer: Any, parts: dict[str, Any], t: int, modal: int | None) -> None:
    convolution, wires = parts[f"{t}_convolution"], gate_wires(parts[f"{t}_equivariant_gate"].gate)
    for ir, matrix in _matrices(parts[f"{t}_self_interaction_1"], modal).items():
        fill(layer.up[ir], matrix)
    *hidden, last = network_matrices(convolution.weight_nn)
    for linear, matrix in zip(layer.radial, hidden, strict=True):
        fill(linear, matrix)
    for ir, matrix in radial_rows(convolution.convolution, last).items():
        fill(layer.radial_out[ir], matrix)
    layer.denominator.copy_(convolution.denominator.detach()[0])
    intro = parts[f"{t}_self_connection_intro"]
    own = (
        _matrices(intro, modal)
        if hasattr(intro, "linear")
        else product_matrices(intro.fc_tensor_product)
    )
    for mixes, gates, matrices in (
        (layer.mix, layer.mix_gate, _matrices(parts[f"{t}_self_interaction_2"], modal)),
        (layer.own, layer.own_gate, own),
    ):
        for ir in mixes:
            fill(mixes[ir], matrices[ir].rows((wires.scalars | wires.gated)[ir]))
        for ir in gates:
            fill(gates[ir], matrices["0e"].rows(wires.gates[ir]))


def _radial(embedding: Any) -> RadialOptions:
    basis, envelope = embedding.basis_function, embedding.cutoff_function
    if type(basis).__name__ != "BesselBasis" or not embedding.spherical.sph.normalize:
        raise UnknownLayout("its edges are not described by Bessel functions and unit vectors")
    known = {
        "XPLORCutoff": ("xplor", "r_on", "r_cut"),
        "PolynomialCutoff": ("polynomial", "p", "cutoff_length"),
    }
    if type(envelope).__name__ not in known:
        raise UnknownLayout(f"it has the cutoff function {type(envelope).__name__}")
    name, parameter, cutoff = known[type(envelope).__name__]
    return RadialOptions(
        float(getattr(envelope, cutoff)),
        len(basis.coeffs),
        name,
        float(getattr(envelope, parameter)),
        float(basis.prefactor),
        isinstance(basis.coeffs, nn.Parameter),
    )


def read_activations(parts: dict[str, Any]) -> Activations:
    gate, network = parts["0_equivariant_gate"].gate, parts["0_convolution"].weight_nn
    by_parity = {
        str(ir): act
        for (_, ir), act in zip(gate.irreps_scalars, gate.act_scalars.acts, strict=True)
    }
    even = activation_of(by_parity["0e"])
    odd = activation_of(by_parity["0o"]) if "0o" in by_parity else Activation("tanh")
    gates = [activation_of(act) for act in gate.act_gates.acts]
    return Activations(even, odd, gates[0] if gates else even, activation_of(network.layer0.act))


def _self_connection(part: Any) -> str:
    known = {"SelfConnectionLinearIntro": "linear", "SelfConnectionIntro": "elements"}
    if type(part).__name__ not in known:
        raise UnknownLayout(f"it has the self connection {type(part).__name__}")
    return known[type(part).__name__]


def run_sevennet(network: Any, graph: Data, modal: str | None) -> tuple[Tensor, Tensor]:
    """Energy and forces as SevenNet's own code computes them."""
    import sevenn._keys as keys
    from ase import Atoms
    from sevenn.atom_graph_data import AtomGraphData
    from sevenn.train.dataload import unlabeled_atoms_to_graph

    atoms = Atoms(graph.z.numpy(), graph.pos.numpy(), cell=graph.cell[0].numpy(), pbc=True)
    data = AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(atoms, network.cutoff))
    dtype = next(network.parameters()).dtype
    data[keys.EDGE_VEC] = data[keys.EDGE_VEC].to(dtype)
    batched = network.is_batch_data
    network.set_is_batch_data(False)
    try:
        if network.modal_map:
            data[keys.DATA_MODALITY] = modal
        out = network(data)
    finally:
        network.set_is_batch_data(batched)
    return out[keys.PRED_TOTAL_ENERGY].detach(), out[keys.PRED_FORCE].detach()


__all__ = ["ElementLinear", "read_sevennet"]
