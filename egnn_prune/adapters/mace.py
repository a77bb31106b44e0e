"""MACE's networks (https://github.com/ACEsuit/mace) as prunable potentials.

MACE is no dependency of this package: whoever has a MACE model has it installed. Its files
(``.model``) are pickles of whole modules, with Python source that is run when they are read:
torch's restricted loader cannot read them, nor any list of allowed classes make them harmless. So
a file is refused here until its user says that its origin is trusted, by the environment variable
``EGNN_PRUNE_TRUST_PICKLES=1``, or reads it and hands the network over, see :func:`read_mace`. A
potential that was translated here is saved by :func:`egnn_prune.save` without any pickle, and needs
no mace.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from egnn_prune.adapters.e3nn_layout import UnknownLayout, known_layout
from egnn_prune.adapters.mace_reading import BLOCKS, translated
from egnn_prune.adapters.mace_writing import fill_native, native_settings
from egnn_prune.adapters.potential import AdoptedPotential
from egnn_prune.adapters.trial import try_out
from egnn_prune.errors import ConfigError, DataError, MissingExtraError
from egnn_prune.graphs import with_edges

#: Set to 1 by users who trust whoever wrote the ``.model`` files that they name.
TRUST = "EGNN_PRUNE_TRUST_PICKLES"
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
            is a pickle, and reading it runs what it holds: it is refused unless the environment
            says ``EGNN_PRUNE_TRUST_PICKLES=1``.
        head: of a model of several heads, which one.

    Raises:
        ConfigError: the model needs a ``head``, or has no such one; or it is a file, and nobody
            said that it is trusted.
        DataError: the file is no MACE.
        MissingExtraError: a file was named and mace is not installed.
        UnknownLayout: the model has parts that are not known here, or the translation does not
            give the same energy and forces.
    """
    network: Any = model if isinstance(model, nn.Module) else _loaded(Path(model))
    number = _head(network, head)
    _refuse_strange(network)
    with known_layout("MACE", "mace-torch 0.3.16"):
        potential = translated(network, number)
    try_out(potential, lambda graph: _original(network, graph, number), "MACE")
    return potential.eval()


def write_mace(potential: AdoptedPotential) -> nn.Module:
    """The same potential as a ``ScaleShiftMACE``, for MACE's own calculators and training.

    Of what pruning may remove, MACE can express fewer copies of stream and message where all layers
    have the same number of every irrep, fewer copies in the convolutions where all layers after the
    first have the same, and narrower radial networks; it cannot express missing paths.

    Raises:
        ConfigError: it is no MACE, or of a shape that MACE cannot express.
        MissingExtraError: mace is not installed.
        UnknownLayout: the result does not give the same energy and forces.
    """
    settings = native_settings(potential)
    _require_mace("writing a MACE model needs the package mace")
    from e3nn import o3
    from mace import modules

    classes = {k: modules.interaction_classes[v] for k, v in settings.items() if "_cls" in k}
    irreps = {k: v and o3.Irreps(v) for k, v in settings.items() if k.endswith("_irreps")}
    irreps.pop("keep_last_layer_irreps")
    energies = torch.tensor(settings["atomic_energies"], dtype=torch.float64).numpy()
    before = torch.get_default_dtype()
    torch.set_default_dtype(potential.atom_scale.dtype)  # MACE builds in no other way
    try:
        model = modules.ScaleShiftMACE(
            **{**settings, **classes, **irreps, "atomic_energies": energies},
            gate=nn.functional.silu,
            use_reduced_cg=False,
        )
    finally:
        torch.set_default_dtype(before)
    fill_native(model, potential.network)
    try_out(potential, lambda graph: _original(model, graph, 0), "MACE")
    return model.eval()


def _require_mace(what: str) -> None:
    if find_spec("mace") is None:
        raise MissingExtraError(f"{what}, which is not installed; run `pip install mace-torch`")


def _loaded(path: Path) -> nn.Module:
    _require_mace(f"{path.name} is read by the package mace")
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if os.environ.get(TRUST) != "1":
        raise ConfigError(
            f"{path} is a pickle, as all files of MACE are, and reading it runs whatever code is "
            f"in it; if you trust whoever wrote it, set the environment variable {TRUST}=1"
        )
    try:
        # the user trusts this file; MACE has no other format
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
            f"this MACE has the heads {names}; choose one by head= (modal= of adapters.load)"
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
