"""Potentials as checkpoints of SevenNet, where SevenNet's own configuration can express them."""

from __future__ import annotations

import copy
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from egnn_prune.adapters.activations import Activation
from egnn_prune.adapters.e3nn_layout import (
    Matrix,
    UnknownLayout,
    gate_wires,
    paths_of,
)
from egnn_prune.adapters.e3nn_writing import (
    matrix_of,
    radial_matrix,
    write_linear,
    write_network,
)
from egnn_prune.adapters.interaction_layer import InteractionLayer
from egnn_prune.adapters.interaction_network import InteractionNetwork
from egnn_prune.adapters.potential import AdoptedPotential
from egnn_prune.adapters.sevennet import read_activations, run_sevennet
from egnn_prune.adapters.trial import try_out
from egnn_prune.errors import ConfigError
from egnn_prune.models.irreps_paths import eager_e3nn, format_irreps
from egnn_prune.system.files import atomic
from egnn_prune.system.lazy_imports import naming_extras

#: What to do about a shape that is not SevenNet's.
INSTEAD = "save it with egnn_prune.save, which egnn_prune.adapters.calculator opens"


def write_sevennet(potential: AdoptedPotential, path: str | Path | None = None) -> nn.Module:
    """The potential as SevenNet's own model, and as a checkpoint that its programs open.

    SevenNet's configuration builds all paths between the irreps that it is told, lets as many
    copies into a convolution as the layer before made, and has one width of radial networks: what
    was pruned alike in the kinds ``conv`` and ``stream`` fits, and what lost elements. A read-out
    that was collapsed is expanded, exactly. SevenNet computes in float32.

        write_sevennet(small, "small.pth")
        atoms.calc = SevenNetCalculator("small.pth")

    Args:
        potential: of SevenNet's shape; it is not changed.
        path: of the checkpoint, ``.pth``: a pickle, since SevenNet reads no other. Not written
            unless given.

    Returns:
        The model, as ``sevenn.util.model_from_checkpoint`` gives it.

    Raises:
        ConfigError: SevenNet's configuration cannot express the potential; says what of it.
        MissingExtraError: the package sevenn is not installed.
        InputError: the file cannot be written.
    """
    if path is not None and Path(path).suffix != ".pth":
        raise ConfigError(f"a checkpoint of SevenNet ends in .pth, not {Path(path).name}")
    if wrong := inexpressible(potential):
        raise ConfigError(f"SevenNet's configuration cannot express this potential: {wrong}")
    with naming_extras("a checkpoint of SevenNet is written by"):
        import sevenn
        from sevenn.model_build import build_E3_equivariant_model
    potential = copy.deepcopy(potential).cpu().float().eval().requires_grad_(False)
    config = _config(potential, sevenn.__version__)
    with warnings.catch_warnings(), eager_e3nn():  # it runs once: not worth a compilation
        warnings.simplefilter("ignore")  # of libraries: TorchScript, accelerators
        model = build_E3_equivariant_model(copy.deepcopy(config))
        _fill(dict(model.named_children()), potential)
        try:
            try_out(potential, lambda graph: run_sevennet(model, graph, None), "potential")
        except UnknownLayout as error:
            raise ConfigError(
                "SevenNet's own model gives other numbers than this potential, whose parts it "
                f"cannot express in a way that is not known here; {INSTEAD}"
            ) from error
    if path is not None:
        content = {"model_state_dict": model.state_dict(), "config": config, "epoch": 0}
        buffer = io.BytesIO()
        torch.save(content | {"time": "", "hash": ""}, buffer)
        with atomic(Path(path)) as temporary:
            temporary.write_bytes(buffer.getvalue())
    return model.eval()


def inexpressible(potential: AdoptedPotential) -> str:
    """What of a potential SevenNet's configuration has no words for; empty where it has."""
    network = potential.network
    if not isinstance(network, InteractionNetwork):
        return f"it is a {type(network).__name__}; {INSTEAD}"
    options, layers = network.options, [network.layer(i) for i in range(len(network.layers))]
    if options.self_connection != "linear":
        return f"its self connection is of the kind {options.self_connection}; {INSTEAD}"
    if abs(options.radial.factor * options.radial.cutoff - 2.0) > 1e-6:
        return f"its radial functions are not multiplied with 2 / cutoff; {INSTEAD}"
    if any(z < 1 for z in potential.elements):
        return f"one of its types is no element; {INSTEAD}"
    for t, layer in enumerate(layers):
        gone = [path for path in layer.shape.paths if not path[3]]
        if gone:
            source, order, target, _ = gone[0]
            return (
                f"layer {t} lacks {len(gone)} of {len(layer.shape.paths)} paths, such as {source} "
                f"over l = {order} to {target}, and SevenNet builds all of them; {INSTEAD}"
            )
        for ir in {**layer.copies, **layer.conv}:
            wire, stream = layer.conv.get(ir, 0), layer.copies.get(ir, 0)
            if wire != stream:
                return (
                    f"{wire} copies of {ir} enter the convolution of layer {t} and {stream} are in "
                    "the stream before it, where SevenNet has as many; prune conv and stream "
                    f"alike, or {INSTEAD}"
                )
    if len({layer.shape.radial for layer in layers}) > 1:
        return f"the radial networks of its layers have different widths; {INSTEAD}"
    if layers[-1].made["0e"] < 2 or any(ir != "0e" for ir in layers[-1].made):
        return f"its last layer makes no two scalars, or more than scalars; {INSTEAD}"
    return ""


def _config(potential: AdoptedPotential, version: str) -> dict[str, Any]:
    """SevenNet's configuration of a model; its readers fill in what is not said."""
    network: InteractionNetwork = potential.network
    options, first = network.options, network.layer(0)
    layers = [network.layer(t) for t in range(len(network.layers))]
    radial, functions = options.radial, options.activations
    envelope = (
        {"cutoff_function_name": "XPLOR", "cutoff_on": radial.parameter}
        if radial.envelope == "xplor"
        else {"cutoff_function_name": "poly_cut", "poly_cut_p_value": int(radial.parameter)}
    )
    basis = {"radial_basis_name": "bessel", "bessel_basis_num": radial.bessel}
    numbers = list(potential.elements)
    return {
        "version": version,  # of older ones SevenNet would sort the weights of convolutions
        "_model_type": "E3_equivariant_model",
        "chemical_species": [chemical_symbols[z] for z in numbers],
        "_chemical_species_by_atomic_number": numbers,
        "_number_of_species": len(numbers),
        "_type_map": {z: i for i, z in enumerate(numbers)},
        "channel": network.embedding.copies,
        "lmax": options.lmax,
        "lmax_edge": -1,
        "lmax_node": -1,
        "is_parity": options.parity,
        "irreps_manual": [
            format_irreps({"0e": network.embedding.copies}),
            *(format_irreps(layer.made) for layer in layers),
        ],
        "num_convolution_layer": len(layers),
        "radial_basis": basis | ({} if radial.trainable else {"trainable_coeff": False}),
        "cutoff_function": envelope,
        "cutoff": radial.cutoff,
        "weight_nn_hidden_neurons": list(first.shape.radial),
        "act_radial": functions.radial.name,
        "act_scalar": {"e": functions.even.name, "o": functions.odd.name},
        "act_gate": {"e": functions.gate.name, "o": functions.odd.name},
        "conv_denominator": [float(layer.denominator) for layer in layers],
        "train_denominator": False,
        "shift": list(potential.scale.per_element),
        "scale": (potential.atom_scale * potential.scale.scale).tolist(),
        "train_shift_scale": False,
        "use_species_wise_shift_scale": True,
        "use_bias_in_linear": options.bias,
        "use_modality": False,
        "use_modal_node_embedding": False,
        "use_modal_self_inter_intro": False,
        "use_modal_self_inter_outro": False,
        "use_modal_output_block": False,
        "readout_as_fcn": False,
        "self_connection_type": "linear",
        "interaction_type": "nequip",
        "_normalize_sph": True,
        "use_flash_tp": False,
        "use_oeq": False,
        "cuequivariance_config": {},
        "dtype": "single",
    }


@torch.no_grad()
def _fill(parts: dict[str, Any], potential: AdoptedPotential) -> None:
    """Give SevenNet's parts the potential's numbers."""
    network: InteractionNetwork = potential.network
    parts["edge_embedding"].basis_function.coeffs.copy_(network.basis.frequencies)
    write_linear(parts["onehot_to_feature_x"].linear, {"0e": matrix_of(network.embedding)})
    for t in range(len(network.layers)):
        _fill_layer(parts, t, network.layer(t))
    _check_activations(parts, network)
    hidden = parts["reduce_input_to_hidden"].linear
    first, second = _readout(network, hidden.irreps_out.dim)
    write_linear(hidden, {"0e": first})
    write_linear(parts["reduce_hidden_to_energy"].linear, {"0e": second})


def _fill_layer(parts: dict[str, Any], t: int, layer: InteractionLayer) -> None:
    convolution, wires = parts[f"{t}_convolution"], gate_wires(parts[f"{t}_equivariant_gate"].gate)
    product = convolution.convolution
    listed = [path[:3] for path in paths_of(product)]
    here = _arrivals(layer)
    if set(listed) != set(here):
        strange = sorted(set(listed) ^ set(here))[0]
        raise ConfigError(
            f"SevenNet's configuration cannot express this potential: layer {t} and SevenNet's own "
            f"differ by the path {strange[0]} over l = {strange[1]} to {strange[2]}; {INSTEAD}"
        )
    write_linear(
        parts[f"{t}_self_interaction_1"].linear, {ir: matrix_of(m) for ir, m in layer.up.items()}
    )
    order = {ir: [name for name in listed if name[2] == ir] for ir in layer.radial_out}
    columns = {ir: torch.cat([here[name] for name in names]) for ir, names in order.items()}
    last = {ir: matrix_of(linear) for ir, linear in layer.radial_out.items()}
    rows = {name: last[name[2]].weight[here[name]] for name in listed}
    hidden = [matrix_of(linear) for linear in layer.radial]
    write_network(convolution.weight_nn, [*hidden, radial_matrix(product, rows)])
    convolution.denominator.fill_(float(layer.denominator))

    mixed = {ir: matrix_of(m) for ir, m in layer.mix.items()}
    gates = {ir: matrix_of(m) for ir, m in layer.mix_gate.items()}
    arriving = {ir: m.columns(columns[ir]) for ir, m in mixed.items()}
    gating = {ir: m.columns(columns["0e"]) for ir, m in gates.items()}
    own = {ir: matrix_of(m) for ir, m in layer.own.items()}
    own_gates = {ir: matrix_of(m) for ir, m in layer.own_gate.items()}
    linear = parts[f"{t}_self_interaction_2"].linear
    write_linear(linear, _ungated(arriving, gating, wires))
    write_linear(parts[f"{t}_self_connection_intro"].linear, _ungated(own, own_gates, wires))


def _arrivals(layer: InteractionLayer) -> dict[tuple[str, int, str], Tensor]:
    """For each (source, l, target) which of the copies that arrive at the target are its own."""
    found: dict[tuple[str, int, str], Tensor] = {}
    ends: dict[str, int] = {}
    for path in layer.paths:
        start = ends.get(path.target, 0)
        ends[path.target] = start + layer.conv[path.source]
        found[path.source, path.l, path.target] = torch.arange(start, ends[path.target])
    return found


def _ungated(mixed: dict[str, Matrix], gates: dict[str, Matrix], wires: Any) -> dict[str, Matrix]:
    """The rows of each irrep where a gate of e3nn expects them, its gate scalars among them."""
    found = {}
    for ir, matrix in mixed.items():
        parts = [(matrix, (wires.scalars | wires.gated)[ir])]
        if ir == "0e":
            parts += [(gates[gated], wires.gates[gated]) for gated in gates]
        wide, n = matrix.weight.shape[1], sum(len(index) for _, index in parts)
        weight, bias = matrix.weight.new_zeros(n, wide), matrix.weight.new_zeros(n)
        for part, index in parts:
            weight[index] = part.weight
            if part.bias is not None:
                bias[index] = part.bias
        found[ir] = Matrix(weight, matrix.coefficient, bias)
    return found


def _readout(network: InteractionNetwork, hidden: int) -> tuple[Matrix, Matrix]:
    """Two linear maps over so many hidden scalars, whatever the network has."""
    maps = [matrix_of(linear) for linear in network.readout]
    if len(maps) == 2 and len(maps[0].weight) == hidden:
        return maps[0], maps[1]
    whole = network.readout_weights()[None]
    nobody = torch.zeros(1, dtype=torch.long)
    constant = network.energies(torch.zeros_like(whole), nobody)
    first, second = whole.new_zeros(hidden, whole.shape[1]), whole.new_zeros(1, hidden)
    first[0], second[0, 0] = whole, 1.0
    bias = constant if network.options.bias else None
    return (
        Matrix(first, torch.ones_like(whole[0])),
        Matrix(second, torch.ones_like(second[0]), bias),
    )


def _check_activations(parts: dict[str, Any], network: InteractionNetwork) -> None:
    found, wanted = read_activations(parts), network.options.activations
    for name, function in vars(wanted).items():
        other: Activation = getattr(found, name)
        same = function.name == other.name and abs(function.factor - other.factor) < 1e-5
        if not same and (name != "odd" or network.options.parity):
            raise ConfigError(
                "SevenNet's configuration cannot express this potential: its activation of "
                f"{name} is {function.factor:g} {function.name}, SevenNet's {other.factor:g} "
                f"{other.name}; {INSTEAD}"
            )
