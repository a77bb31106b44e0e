"""MACE's networks (https://github.com/ACEsuit/mace) as prunable potentials.

MACE is no dependency of this package: whoever has a MACE model has it installed. Its files
(``.model``) are pickles of whole modules. They can be read by ``torch.load(weights_only=False)``
alone, which *runs code that the file holds*: name only files whose origin you trust. A potential
that was translated here is saved by :func:`egnn_prune.save` without any pickle, and needs no mace.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from egnn_prune.adapters.e3nn_layout import (
    UnknownLayout,
    copies_of,
    fill,
    linear_matrices,
    network_matrices,
    product_matrices,
    radial_rows,
)
from egnn_prune.adapters.interaction_layer import Activation
from egnn_prune.adapters.mace_layer import MaceLayer, MaceShape
from egnn_prune.adapters.mace_network import MaceNetwork, MaceOptions
from egnn_prune.adapters.potential import AdoptedPotential
from egnn_prune.adapters.radial import RadialOptions
from egnn_prune.adapters.trial import try_out
from egnn_prune.errors import ConfigError, DataError, MissingExtraError
from egnn_prune.graphs import with_edges
from egnn_prune.models.irreps_paths import dimension, format_irreps

#: Interaction blocks, and whether the features themselves reach the result (a residual connection).
BLOCKS = {"RealAgnosticInteractionBlock": False, "RealAgnosticResidualInteractionBlock": True}
#: Parts that change what is computed, and are not known here.
STRANGE = {
    "pair_repulsion_fn": "a pair repulsion",
    "joint_embedding": "an embedding of charge, spin or the like",
    "lora": "low-rank adapters",
}


def read_mace(model: nn.Module | str | Path, head: str | None = None) -> AdoptedPotential:
    """Translate a MACE, and try it on a small structure.

    Args:
        model: a ``MACE`` or ``ScaleShiftMACE``, which is not changed, or a ``.model`` file. A file
            is a pickle, and reading it runs what it holds: see the top of this module.
        head: of a model of several heads, which one.

    Raises:
        ConfigError: the model needs a ``head``, or has no such one.
        DataError: the file is no MACE.
        MissingExtraError: a file was named and mace is not installed.
        UnknownLayout: the model has parts that are not known here, or the translation does not
            give the same energy and forces.
    """
    network: Any = model if isinstance(model, nn.Module) else _loaded(Path(model))
    number = _head(network, head)
    _refuse_strange(network)
    try:
        potential = _translated(network, number)
    except (AttributeError, KeyError, AssertionError, IndexError) as error:
        raise UnknownLayout(
            f"this MACE is not put together as egnn_prune knows it ({error!r}); it was written for "
            "mace-torch 0.3.16"
        ) from error
    try_out(potential, lambda graph: _original(network, graph, number), "MACE")
    return potential.eval()


def _loaded(path: Path) -> nn.Module:
    if find_spec("mace") is None:
        raise MissingExtraError(
            f"{path.name} is a file of MACE, which is not installed; pip install mace-torch"
        )
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        # the user named this file; MACE has no other format
        found = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise DataError(f"{path} cannot be read as a MACE model: {error}") from error
    if not isinstance(found, nn.Module) or not hasattr(found, "interactions"):
        raise DataError(f"{path} holds a {type(found).__name__}, not a MACE model")
    return found


def _head(network: Any, head: str | None) -> int:
    """The number of a head."""
    known = list(getattr(network, "heads", None) or ["Default"])
    if head is None and len(known) == 1:
        return 0
    if head not in known:
        names = ", ".join(known)
        raise ConfigError(
            f"this MACE has the heads {names}; choose one by head="
            + ("" if head is None else f" (not {head!r})")
        )
    return known.index(head)


def _refuse_strange(network: Any) -> None:
    if type(network).__name__ not in ("MACE", "ScaleShiftMACE"):
        raise UnknownLayout(f"a {type(network).__name__} is no MACE of energies and forces")
    for name, what in STRANGE.items():
        if hasattr(network, name):
            raise UnknownLayout(f"this MACE has {what}, which egnn_prune does not know")
    for block in network.interactions:
        if type(block).__name__ not in BLOCKS:
            raise UnknownLayout(
                f"this MACE has interaction blocks {type(block).__name__}; egnn_prune knows "
                f"{' and '.join(BLOCKS)}"
            )
    for name in ("cueq_config", "oeq_config"):
        if getattr(getattr(network.interactions[0], name, None), "enabled", False):
            raise UnknownLayout("this MACE runs on cuEquivariance; convert it back to e3nn first")
    if getattr(network, "use_so3", False):
        raise UnknownLayout("this MACE has features without parity (use_so3)")


def _translated(model: Any, head: int) -> AdoptedPotential:
    elements = [int(z) for z in model.atomic_numbers]
    embedding = linear_matrices(model.node_embedding.linear)["0e"]
    acts = [_activation(block.conv_tp_weights.layer0.act) for block in model.interactions]
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
    tensor = block.conv_tp
    paths = []
    for instruction in sorted(tensor.instructions, key=lambda i: i.i_out):
        if instruction.connection_mode != "uvu" or tensor.irreps_in2[instruction.i_in2].mul != 1:
            raise UnknownLayout("a convolution is no uvu tensor product with spherical harmonics")
        source = str(tensor.irreps_in1[instruction.i_in1].ir)
        l = tensor.irreps_in2[instruction.i_in2].ir.l  # noqa: E741
        paths.append((source, l, str(tensor.irreps_out[instruction.i_out].ir), True))
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
        paths=tuple(paths),
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
    for (ir, product), theirs in zip(layer.product.items(), contractions, strict=True):
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
    act = _activation(readout.non_linearity.acts[0])
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


def _activation(module: Any) -> Activation:
    """A function that e3nn has normalised, by its name and constant."""
    function = getattr(module, "f", module)
    name = {nn.functional.silu: "silu", torch.tanh: "tanh"}.get(function)
    if name is None:
        raise UnknownLayout(f"it has the activation {getattr(function, '__name__', function)}")
    return Activation(name, float(getattr(module, "cst", 1.0)))


def mace_graph(model: Any, graph: Data, head: int = 0) -> Mapping[str, Tensor]:
    """One structure as MACE's own code takes it."""
    dtype = model.atomic_energies_fn.atomic_energies.dtype
    graph = with_edges(graph, float(model.r_max))
    zeros = graph.pos.new_zeros(graph.edge_index.shape[1], 3)
    shift = graph.get("edge_shift")
    one_hot = graph.z[:, None] == model.atomic_numbers
    return {
        "positions": graph.pos.to(dtype),
        "node_attrs": one_hot.to(dtype),
        "edge_index": graph.edge_index,
        "shifts": (zeros if shift is None else -shift).to(dtype),
        "unit_shifts": zeros.to(dtype),
        "cell": torch.zeros(3, 3, dtype=dtype),
        "batch": torch.zeros(len(graph.z), dtype=torch.long),
        "ptr": torch.tensor([0, len(graph.z)]),
        "head": torch.tensor([head]),
    }


def _original(model: Any, graph: Data, head: int) -> tuple[Tensor, Tensor]:
    """Energy and forces as MACE's own code computes them; its sums with E0 are in float32."""
    inputs = mace_graph(model, graph, head)
    out = model(inputs, training=False, compute_force=True)
    inner = out.get("interaction_energy")
    inner = out["contributions"][:, 1:].sum(-1) if inner is None else inner
    each = torch.atleast_2d(model.atomic_energies_fn.atomic_energies)[head].double()
    isolated = (inputs["node_attrs"].double() @ each).sum()
    return inner.detach().double() + isolated, out["forces"].detach()
