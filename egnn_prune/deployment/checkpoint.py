"""Models as safetensors files, with their architecture in JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from egnn_prune.adapters import TracedNetwork
from egnn_prune.channels import Prunable
from egnn_prune.deployment.file_format import FORMAT, is_known, migrated, verify
from egnn_prune.deployment.model_header import (
    CHECKSUM,
    MOST_TENSORS,
    TENSOR_KINDS,
    as_large_as_its_weights,
    checksum,
    complaint,
    parts,
)
from egnn_prune.deployment.traced_checkpoint import TRACED, described, refilled, state
from egnn_prune.errors import InputError
from egnn_prune.models import EGNN, IrrepsNet, PositionModel, PropertyModel
from egnn_prune.pruning.masks import mask_of, register_masks
from egnn_prune.pruning.tensors import parameter_names
from egnn_prune.system.bounded import AsksForTooMuch
from egnn_prune.system.files import atomic
from egnn_prune.system.memory_limit import refuse_beyond_memory
from egnn_prune.uncertainty import DeepEnsemble, Estimator, SinglePass
from egnn_prune.uncertainty.saved_form import describe, fitted, load_fitted, restored

#: Begins the names of an estimator's own tensors; no module's name can hold a colon.
FITTED = "estimator:"


def _build_ensemble(spec: dict[str, Any]) -> DeepEnsemble:
    members = [BUILDERS[m["class"]](m["architecture"]) for m in spec["members"]]
    return DeepEnsemble(members)


def _build_adopted(spec: dict[str, Any]) -> Prunable:
    from egnn_prune.adapters import AdoptedPotential  # the networks of others, when one is read

    return AdoptedPotential.from_config(spec)


def _build_committee(spec: dict[str, Any]) -> DeepEnsemble:
    from egnn_prune.adapters import Committee

    if any(m["class"] != "AdoptedPotential" for m in spec["members"]):
        raise ValueError("members of a committee are adopted potentials")
    return Committee([_build_adopted(m["architecture"]) for m in spec["members"]])


#: Classes that :func:`load` may build: nothing in a file can name any other code.
BUILDERS: dict[str, Callable[[dict[str, Any]], Prunable]] = {
    "EGNN": EGNN.from_config,
    "PositionModel": PositionModel.from_config,
    "PropertyModel": PropertyModel.from_config,
    "IrrepsNet": IrrepsNet.from_config,
    "DeepEnsemble": _build_ensemble,
    "AdoptedPotential": _build_adopted,
    "Committee": _build_committee,
}


def save(model: nn.Module, path: str | Path, **metadata: Any) -> None:
    """Write a model to one ``.safetensors`` file, its architecture as JSON in the header.

    Masks travel with a masked model. An estimator is written with its network into one file: what
    was fitted (a covariance, a calibration) lies beside the network's weights.

    Args:
        model: an :class:`EGNN`, :class:`IrrepsNet`, :class:`PropertyModel`,
            :class:`PositionModel`, :class:`DeepEnsemble`,
            :class:`~egnn_prune.adapters.AdoptedPotential` or
            :class:`~egnn_prune.adapters.Committee`, an
            :class:`~egnn_prune.uncertainty.Estimator` of one, or a masked network of others (a
            :class:`~egnn_prune.pruning.TracedNetwork`), see :func:`load`.
        path: the file.
        metadata: anything else that JSON can hold, such as the target's unit.

    Raises:
        InputError: the file cannot be written, or the class is not one that can be loaded.
    """
    estimator, model = (model, model.network) if isinstance(model, Estimator) else (None, model)
    kind = next((base.__name__ for base in type(model).__mro__ if base.__name__ in BUILDERS), None)
    traced = isinstance(model, TracedNetwork) and estimator is None
    if kind is None and estimator is not None:
        raise InputError(
            f"a {type(estimator).__name__} of {type(model).__name__} cannot be saved, only "
            "estimators of networks of this package can; save its network (estimator.network)"
        )
    if kind is None and not traced:
        raise InputError(
            f"{type(model).__name__} cannot be saved; one of {', '.join(BUILDERS)} can, and a "
            "network of others while it is masked, that is before compact()"
        )
    header = {
        "format": FORMAT,
        "class": TRACED if traced else kind,
        "architecture": described(model)
        if isinstance(model, TracedNetwork)
        else _architecture(model),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "held": [name for name in parameter_names(model) if mask_of(model, name) is not None],
        "metadata": metadata,
    }
    tensors = state(model) if isinstance(model, TracedNetwork) else model.state_dict()
    if estimator is not None:
        header["estimator"] = describe(estimator)
        tensors |= {FITTED + k: v for k, v in fitted(estimator).items()}
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    if wrong := complaint(header):
        raise InputError(f"the model cannot be saved: {wrong}")
    header[CHECKSUM] = checksum(header, tensors)
    with atomic(Path(path)) as temporary:
        try:
            save_file(tensors, temporary, metadata={"egnn_prune": json.dumps(header)})
        except SafetensorError as error:
            raise InputError(f"cannot write {path}: {error}") from None


def read_header(path: str | Path) -> dict[str, Any]:
    """Class, architecture and metadata of a saved model, of a file of any version.

    The checksum is compared by :func:`load`, which reads all of the file.

    Raises:
        InputError: the file is missing, damaged, or not a model of this package.
    """
    return migrated(_stored_header(path))


def _stored_header(path: str | Path) -> dict[str, Any]:
    """The header as it is in the file."""
    path = Path(path)
    if not path.is_file():
        of_a_run = path.name in ("dense.safetensors", "pruned.safetensors")
        way = f"; `egnn-prune train out={path.parent}` makes one, in minutes" if of_a_run else ""
        raise InputError(f"there is no model file {path}{way}")
    try:
        with safe_open(path, "pt") as archive:
            header = dict(json.loads((archive.metadata() or {})["egnn_prune"]))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged or was not written by egnn_prune ({_line(error)})"
        ) from None
    kind = header.get("class")
    known = isinstance(kind, str) and kind in {*BUILDERS, TRACED}
    if not is_known(header.get("format")) or not known:
        raise InputError(f"{path} was written by another version of egnn_prune; update the package")
    if wrong := complaint(header):
        raise InputError(f"{path} is damaged: {wrong}; get a fresh copy")
    return header


def _content(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The present form of the header, and the tensors: what was written, or nothing.

    Raises:
        InputError: see :func:`load`.
    """
    header, tensors = _stored_header(path), _tensors(path)
    verify(header, tensors, path)
    return migrated(header), tensors


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def from_config(model: nn.Module) -> Prunable:
    """A model of the same architecture with fresh weights."""
    kind = next(base.__name__ for base in type(model).__mro__ if base.__name__ in BUILDERS)
    return BUILDERS[kind](_architecture(model))


def _architecture(model: Any) -> dict[str, Any]:
    """What one of :data:`BUILDERS` takes."""
    return model.config()


def load(path: str | Path, into: nn.Module | None = None) -> Prunable:
    """Load a model for prediction: on the CPU, in evaluation mode, bit for bit as it was saved.

    Nothing is unpickled. Of an estimator's file this is the network alone; see
    :func:`load_estimator`.

    Args:
        path: a file written by :func:`save`.
        into: for a network of others that :func:`egnn_prune.prune` masked: a fresh one, built as
            before pruning, which takes the saved widths and weights in. The file names no code.

    Raises:
        InputError: the file is missing, damaged (new files have a checksum), not a model of this
            package, not one of ``into``, or holds NaN or infinite weights.
    """
    return _network(path, *_content(path), into)


def _network(
    path: str | Path,
    header: dict[str, Any],
    tensors: dict[str, Tensor],
    into: nn.Module | None = None,
) -> Prunable:
    """The network that a file's content describes, once all of it is checked."""
    if (header["class"] == TRACED) != (into is not None):
        raise InputError(
            f"{path} holds a {header['class']}, which is loaded "
            + (
                "into a network of yours, built as before pruning: load(path, into=Network(...))"
                if into is None
                else "without into=..."
            )
        )
    weights = {k: v for k, v in tensors.items() if not k.startswith(FITTED)}
    try:
        if into is not None:
            model: Prunable = refilled(into, header["architecture"] | header, weights, path)
        else:
            model = _built(header, weights)
    except AsksForTooMuch as error:
        raise InputError(f"{path} is damaged: {error}") from None
    except Exception as error:  # torch, e3nn and our own classes raise some ten different ones
        if into is not None and isinstance(error, InputError):  # another network than the file's
            raise
        raise InputError(f"{path} is damaged: its weights do not fit its architecture") from error
    for name, value in weights.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise InputError(f"{path} holds a NaN or infinite weight ({name}); train it again")
    model.load_state_dict(weights)
    return model.eval()


def _built(header: dict[str, Any], weights: Mapping[str, Tensor]) -> Prunable:
    """One of our models as its header describes it, with weights yet to be loaded.

    Raises:
        Exception: of any kind, where the header describes no model with these weights.
    """
    if parts(header["architecture"]) > len(weights) + 8:  # every layer and member has weights
        raise ValueError("more layers or members than weights")
    with as_large_as_its_weights(sum(v.numel() for v in weights.values())):
        model = BUILDERS[header["class"]](header["architecture"])
    model.to(getattr(torch, header["dtype"]))
    register_masks(model, header["held"])
    if _forms(model.state_dict()) != _forms(weights):
        raise ValueError("other tensors than the architecture has")
    return model


def _forms(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in tensors.items()}


def _tensors(path: str | Path) -> dict[str, Tensor]:
    refuse_beyond_memory(Path(path).stat().st_size, f"{path}")
    try:
        with safe_open(path, "pt") as archive:
            names = list(archive.keys())
            if len(names) > MOST_TENSORS:
                raise ValueError(f"it has {len(names):,} tensors, more than {MOST_TENSORS:,}")
            kinds = {name: archive.get_slice(name).get_dtype() for name in names}
            if strange := [name for name in names if kinds[name] not in TENSOR_KINDS]:
                raise ValueError(f"{strange[0]} is of {kinds[strange[0]]}, as no model has it")
            return {name: archive.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({_line(error)}); get a fresh copy") from None


def load_estimator(path: str | Path) -> Estimator:
    """Load a model with its error bars: its uncertainty method and calibration, as they were saved.

    Args:
        path: a file that :func:`save` wrote from an estimator, such as the ``pruned.safetensors``
            of a run. Of a network that states no variance (somebody else's potential) it is one
            :class:`~egnn_prune.uncertainty.SinglePass`.

    Raises:
        InputError: the file is missing, damaged, or holds a network without an estimator.
    """
    return read_estimator(path)[0]


def read_estimator(path: str | Path) -> tuple[Estimator, dict[str, Any]]:
    """What :func:`load_estimator` loads, and the metadata that :func:`save` was given."""
    header, tensors = _content(path)
    network, spec = _network(path, header, tensors), header.get("estimator")
    if spec is None and not getattr(network, "states_noise", True):  # no error bars are lost
        return SinglePass(network).eval(), header["metadata"]
    if spec is None:
        raise InputError(
            f"{path} holds a network without an uncertainty method; load it with load() and wrap "
            "it in one of egnn_prune.uncertainty, such as SinglePass(network)"
        )
    try:
        with as_large_as_its_weights(sum(v.numel() for v in tensors.values())):
            estimator = restored(spec, network)
        numbers = {k.removeprefix(FITTED): v for k, v in tensors.items() if k.startswith(FITTED)}
        if any(v.is_floating_point() and bool(v.isnan().any()) for v in numbers.values()):
            raise ValueError("a fitted number is NaN")
        load_fitted(estimator, numbers)
    except AsksForTooMuch as error:
        raise InputError(f"{path} is damaged: {error}") from None
    except Exception as error:  # as in load(); the settings of a file may be anything
        raise InputError(f"{path} is damaged: its error bars do not fit its network") from error
    return estimator.eval(), header["metadata"]
