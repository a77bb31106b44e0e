"""A trained model as a file that runs without this package."""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch_geometric.data import Batch, Data

from egnn_prune.adapters.potential import AdoptedPotential
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.graphs import is_periodic, tracing, with_edges
from egnn_prune.models import PropertyModel, energy_and_forces, energy_forces_stress
from egnn_prune.prediction import members_of
from egnn_prune.system.files import atomic
from egnn_prune.uncertainty import Estimator, MCDropout, SinglePass

#: The name under which a program's file keeps its description (``extra_files`` of torch.export).
DESCRIPTION = "egnn_prune.json"
#: How well a program must agree with its model, relative to the largest number.
AGREEMENT = 1e-5

#: Derivatives, which ONNX does not know, and what ONNX Runtime has no float64 kernel for.
WRITTEN_OUT = [
    torch.ops.aten.softplus,
    torch.ops.aten.silu_backward,
    torch.ops.aten.sigmoid_backward,
    torch.ops.aten.tanh_backward,
    torch.ops.aten.softplus_backward,
    torch.ops.aten.index_select_backward,
]

Numbers = tuple[Tensor, ...]


def export_program(
    model: nn.Module | TrainedModel,
    path: str | Path,
    example: Batch | Data | None = None,
    forces: bool = True,
    stress: bool = False,
) -> Path:
    """Write a ``torch.export`` program of energies, variances, forces and stresses.

    ``torch.export`` refuses ``torch.autograd.grad``, so energy and gradient are first traced
    together into plain tensor operations. The program runs wherever torch does, also from C++:

        program = torch.export.load("ethanol.pt2").module()
        energy, variance, forces = program(z, pos, edge_index, batch, edge_shift)

    Inputs: ``z [N]`` int64 atomic numbers (``x [N, features]`` in the weights' precision where the
    model has no elements), ``pos [N, 3]`` float64, ``edge_index [2, E]`` int64, source above
    target, sorted by target, ``batch [N]`` int64, the graph of each atom, from 0 without gaps, and,
    for models with a cutoff, ``edge_shift [E, 3]`` float64 (zeros for molecules), see
    :func:`egnn_prune.graphs.neighbours`. N, E and the number of graphs B are free: one atom
    without edges will do. Edges longer than the cutoff change nothing, so that neighbour lists may
    have a skin.

    Outputs: energies ``[B]``, their total variances ``[B]`` (of an estimator the calibrated ones;
    zero of a potential of others, which states none) and forces ``[N, 3]``, the negative gradient
    of the energies' sum; all in float64. With ``stress`` there is one more input, ``cell
    [B, 3, 3]`` float64, and one more output, the stresses ``[B, 3, 3]`` with ASE's sign, in the
    energies' unit per Angstrom^3 (see :func:`egnn_prune.models.energy_forces_stress`).

    The file also holds a description (:func:`described`), as the extra file ``egnn_prune.json``.

    Args:
        model: a :class:`PropertyModel`, an
            :class:`~egnn_prune.adapters.AdoptedPotential`, a deep ensemble of them, or an
            estimator on either. Of
            Monte Carlo dropout export the network: its drawn networks are not in the program. A
            :class:`~egnn_prune.deployment.trained_model.TrainedModel` brings the unit of its
            energies along, and what its training structures looked like.
        path: where to write, ending in ``.pt2``.
        example: structures on which the program must agree with the model before it is written;
            a few made-up atoms unless given.
        forces: without them the program returns energies and variances only.
        stress: whether it also returns stresses, for periodic graphs and with the forces.

    Returns:
        The path.

    Raises:
        ConfigError: the model cannot be exported, or the path does not end in ``.pt2``.
        InputError: program and model disagree on the example, or the file cannot be written.
    """
    path, network = _checked_path(path, ".pt2"), _known(model).estimator
    if stress and not (forces and _cutoffs(network)):
        raise ConfigError("stress is exported with forces, and of models with a cutoff")
    exported = _agreeing(network, example, forces, stress=stress)
    buffer = io.BytesIO()
    about = described(model, forces, stress)
    torch.export.save(exported, buffer, extra_files={DESCRIPTION: json.dumps(about)})
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
    return path


def export_onnx(
    model: nn.Module | TrainedModel,
    path: str | Path,
    example: Batch | Data | None = None,
    forces: bool = True,
) -> Path:
    """Write an ONNX graph of energies, variances and forces.

    Inputs and outputs are those of :func:`export_program`, by name; the description lies in the
    graph's metadata. An atomic number that the model does not know makes all outputs NaN, since a
    graph cannot raise an error: check them against the description's ``elements``.

    Args:
        model: as for :func:`export_program`.
        path: where to write, ending in ``.onnx``.
        example: as for :func:`export_program`; compared in PyTorch, before the conversion.
        forces: without them the graph returns energies and variances only.

    Returns:
        The path.

    Raises:
        ConfigError: packages are missing, the model cannot be exported, or the path does not end in
            ``.onnx``.
        InputError: program and model disagree on the example, or the file cannot be written.
    """
    path = _checked_path(path, ".onnx")
    if any(importlib.util.find_spec(package) is None for package in ("onnx", "onnxscript")):
        raise ConfigError("ONNX export needs more packages; pip install 'egnn_prune[onnx]'")
    exported = _agreeing(_known(model).estimator, example, forces, simple=True)
    about = described(model, forces)
    with warnings.catch_warnings(), _refusing("ONNX"):
        warnings.simplefilter("ignore")  # about the converter's own deprecated calls
        graph = torch.onnx.export(
            exported,
            (),
            dynamo=True,
            input_names=about["inputs"],
            output_names=about["outputs"],
            verbose=False,
        )
    assert graph is not None
    graph.model.metadata_props[DESCRIPTION] = json.dumps(about)
    with atomic(path) as temporary:
        graph.save(str(temporary))
    return path


def described(
    model: nn.Module | TrainedModel, forces: bool = True, stress: bool = False
) -> dict[str, Any]:
    """What a user of an exported file must know: names of inputs and outputs, elements, cutoff.

    And ``error_bars``, whether the variances mean something; ``target`` and ``unit`` of the
    energies where the model says them; ``training_domain``, what its training structures looked
    like, where its file holds that.
    """
    known = _known(model)
    first = _networks(known.estimator)[0]
    about = {
        "inputs": list(_names(known.estimator, stress)),
        "outputs": ["energy", "variance", *["forces"] * forces, *["stress"] * stress],
        "elements": list(first.elements),
        "cutoff": max(_cutoffs(known.estimator), default=None),
        "error_bars": known.has_error_bars,
    }
    stated: dict[str, Any] = {"target": known.target, "unit": known.unit}
    stated["training_domain"] = known.domain.to_json() if known.domain else None
    return about | {name: value for name, value in stated.items() if value}


def _known(model: nn.Module | TrainedModel) -> TrainedModel:
    """A model with what is known of it: of one in memory, the unit that its network states."""
    if isinstance(model, TrainedModel):
        return model
    estimator = model if isinstance(model, Estimator) else SinglePass(model)
    return TrainedModel(estimator, unit=getattr(members_of(estimator.network)[0], "unit", ""))


def tensors(model: nn.Module, batch: Batch | Data, stress: bool = False) -> Numbers:
    """The inputs of an exported program for a batch, in their order (see :func:`described`).

    Raises:
        ConfigError: the graphs are periodic, and the model has no cutoff.
        DataError: their edges cannot be built, or they have no cells, which ``stress`` needs.
    """
    return inputs_of(batch, _names(model, stress), max(_cutoffs(model), default=None))


def inputs_of(batch: Batch | Data, names: Sequence[str], cutoff: float | None) -> Numbers:
    """:func:`tensors` of a program whose inputs have these names."""
    if cutoff is None and (is_periodic(batch) or batch.get("edge_shift") is not None):
        raise ConfigError("a model without a cutoff is exported for molecules, not periodic graphs")
    batch = copy.copy(batch)
    batch.pos = batch.pos.double()
    batch = with_edges(batch, cutoff)
    graph = batch.get("batch")
    values: dict[str, Any] = {
        "z": batch.get("z"),
        "x": batch.get("x"),
        "pos": batch.pos,
        "edge_index": batch.edge_index,
        "batch": torch.zeros(len(batch.pos), dtype=torch.long) if graph is None else graph,
        "edge_shift": batch.get("edge_shift"),
        "cell": batch.get("cell"),
    }
    if "cell" in names:
        if values["cell"] is None:
            raise DataError("stress needs periodic graphs with batch.cell and pbc")
        values["cell"] = values["cell"].reshape(-1, 3, 3).double()
    if values["edge_shift"] is None:
        values["edge_shift"] = batch.pos.new_zeros(batch.edge_index.shape[1], batch.pos.shape[1])
    return tuple(values[name] for name in names)


def _networks(model: nn.Module) -> list[Any]:
    """The networks whose numbers are combined.

    Raises:
        ConfigError: they cannot be exported.
    """
    inner: Any = getattr(model, "estimator", model)
    if isinstance(inner, MCDropout):
        raise ConfigError(
            "the drawn networks of Monte Carlo dropout cannot be exported; export the "
            "estimator's .network, or an ensemble"
        )
    network: Any = inner.network if isinstance(inner, Estimator) else inner
    networks: list[Any] = [*members_of(network)]
    for one in networks:
        if not isinstance(one, PropertyModel | AdoptedPotential):
            raise ConfigError(
                f"only models of energies of graphs can be exported, not {type(one).__name__}; for "
                "a network of your own call torch.onnx.export on what compact() returned"
            )
        options = _options(one)
        if getattr(options, "edge_features", 0) or getattr(options, "velocity", False):
            raise ConfigError("models that read edge features or velocities cannot be exported")
    return networks


def _options(network: PropertyModel | AdoptedPotential) -> Any:
    return (network.trunk if isinstance(network, PropertyModel) else network.network).options


def _names(model: nn.Module, stress: bool = False) -> tuple[str, ...]:
    networks = _networks(model)
    shifts = ["edge_shift"] * bool(_cutoffs(model))
    features = "z" if networks[0].elements else "x"
    return (features, "pos", "edge_index", "batch", *shifts, *["cell"] * stress)


def _cutoffs(model: nn.Module) -> list[float]:
    """The networks' cutoffs; none where one of them has none, and so needs all pairs."""
    cutoffs: list[float | None] = [_options(n).cutoff for n in _networks(model)]
    return [] if None in cutoffs else [cutoff for cutoff in cutoffs if cutoff is not None]


def _function(
    model: nn.Module, forces: bool, guarded: bool, stress: bool = False
) -> Callable[..., Numbers]:
    """The model as a function of the program's inputs."""
    names, elements = _names(model, stress), _networks(model)[0].elements

    def outputs(*inputs: Tensor) -> Numbers:
        values = dict(zip(names, inputs, strict=True))
        graph = values["batch"]
        if stress:
            graphs: Any = values["cell"].shape[0]
        else:
            graphs = graph.max().item() + 1  # int() would freeze it
            torch._check(graphs >= 1)
        sizes = graph.new_zeros(graphs).index_add(0, graph, torch.ones_like(graph))
        if "edge_shift" in values and not (guarded or stress):  # only ONNX needs it
            values |= _never_empty(values, max(_cutoffs(model)))
        batch = Batch(**values, ptr=torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]))
        if elements:
            known = (values["z"][:, None] == torch.tensor(elements)).any(1).all()
        if elements and guarded:
            torch._assert_async(known, f"an atomic number is not one of the model's, {elements}")
        found: Numbers
        if stress:
            prediction, force, pull = energy_forces_stress(model, batch)
            found = (prediction.mean, prediction.variance, force, pull)
        elif forces:
            prediction, force = energy_and_forces(model, batch)
            found = (prediction.mean, prediction.variance, force)
        else:
            prediction = model(batch)
            found = (prediction.mean, prediction.variance)
        if elements and not guarded:
            found = tuple(torch.where(known, number, torch.nan) for number in found)
        return found

    return outputs


def _never_empty(values: dict[str, Tensor], cutoff: float) -> dict[str, Tensor]:
    """Edges with one more, too long to matter: ONNX Runtime sums zero edges to a wrong shape.

    It leads from atom 0 to an image of itself, first in the list, which stays sorted by target.
    """
    shift, index = values["edge_shift"], values["edge_index"]
    return {
        "edge_index": torch.cat([index.new_zeros(2, 1), index], dim=1),
        "edge_shift": torch.cat([shift.new_full((1, 3), 2 * cutoff), shift]),
    }


def _exported(
    model: nn.Module, forces: bool, simple: bool = False, stress: bool = False
) -> tuple[torch.export.ExportedProgram, Numbers]:
    """The program, and the inputs that it was traced with.

    ``simple`` ones, for ONNX, have no assertions, and derivatives written out in plain arithmetic.

    Raises:
        ConfigError: the model cannot be exported.
    """
    names = _names(model, stress)  # first of all: it says what cannot be exported
    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    inputs = tensors(model, _made_up(model, stress), stress)
    table: Any = get_decompositions(WRITTEN_OUT) if simple else None
    with _refusing("torch.export"), tracing():
        graph = make_fx(
            _function(model, forces, not simple, stress),
            decomposition_table=table,
            tracing_mode="symbolic",
            _allow_non_fake_inputs=True,  # the weights, which become part of the program
        )(*inputs)
        for name, value in list(graph.named_buffers()):  # files warn of views and transposes
            setattr(graph, name, value.clone(memory_format=torch.contiguous_format))
        atoms, edges = torch.export.Dim("atoms", min=1), torch.export.Dim("edges", min=0)
        free: dict[str, Any] = {"edge_index": {1: edges}, "edge_shift": {0: edges}}
        free["cell"] = {0: torch.export.Dim("graphs", min=1)}
        shapes = tuple(free.get(name, {0: atoms}) for name in names)
        return torch.export.export(graph, inputs, dynamic_shapes=shapes), inputs


@contextmanager
def _refusing(converter: str) -> Iterator[None]:
    """Say in one sentence that a converter cannot work with the model."""
    try:
        yield
    except InputError:  # ours is clear already
        raise
    except Exception as error:  # converters raise errors of every type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{converter} cannot express this model: {reason}") from error


def _made_up(model: nn.Module, stress: bool = False) -> Batch:
    """Graphs of different sizes, in which every atom sees the others of its graph.

    In cells, where stress is asked for.
    """
    first, generator = _networks(model)[0], torch.Generator().manual_seed(0)
    cutoff = described(model)["cutoff"]
    length = 2.0 if cutoff is None else cutoff / 2
    graphs = []
    # with cells four: a number that no other dimension has, or tracing takes them for the same
    for size in (5, 4, 6, 7) if stress else (5, 4):
        graph = Data(pos=length * torch.rand(size, 3, generator=generator, dtype=torch.float64))
        if first.elements:
            graph.z = torch.tensor(first.elements)[torch.arange(size) % len(first.elements)]
        else:
            graph.x = torch.randn(size, first.trunk.in_features, generator=generator).to(
                first.trunk.embedding.weight.dtype
            )
        if stress:
            graph.cell = 1.5 * length * torch.eye(3, dtype=torch.float64)[None]
            graph.pbc = torch.ones(1, 3, dtype=torch.bool)
        graphs.append(graph)
    return Batch.from_data_list(graphs)


def _agreeing(
    model: nn.Module,
    example: Batch | Data | None,
    forces: bool,
    simple: bool = False,
    stress: bool = False,
) -> torch.export.ExportedProgram:
    """The program; raises an InputError where it and the model disagree on the example."""
    exported, inputs = _exported(model, forces, simple, stress)
    if example is not None:
        inputs = tensors(model, example, stress)
    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    wanted = _function(model, forces, guarded=False, stress=stress)(*inputs)
    for name, found, right in zip(
        described(model, forces, stress)["outputs"], exported.module()(*inputs), wanted, strict=True
    ):
        error = float((found - right).abs().max())
        if not error <= AGREEMENT * float(right.abs().max().clamp(min=1e-12)):
            raise InputError(
                f"the exported {name} differ from the model's by {error:.1e}; please report this"
            )
    return exported


def _checked_path(path: str | Path, suffix: str) -> Path:
    path = Path(path)
    if path.suffix != suffix:
        raise ConfigError(f"an exported file must end in {suffix}, not {path.name}")
    return path
