"""Somebody else's pruned network in a file: widths and weights, and no code.

Nobody but its owner knows how such a network is built. So the file says which tensors there are and
how they hang together, and a fresh network of the same architecture takes them in.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.adapters import TracedNetwork
from egnn_prune.channels import ChannelGroup, Member
from egnn_prune.errors import InputError
from egnn_prune.pruning.masks import register_masks, remove_masks

#: The class that a file names.
TRACED = "TracedNetwork"


def described(model: TracedNetwork) -> dict[str, Any]:
    """Groups and gates as JSON, next to the tensors of ``model.state_dict()``."""
    return {
        "network": type(model.network).__name__,
        "skipped": model.skipped,
        "kinds": model.kinds,
        "dropout": [gate.p for gate in model.gates],
        "groups": [
            {
                "name": group.name,
                "kind": group.kind,
                "n": group.n,
                "members": [
                    {
                        "name": m.name.removeprefix("network."),
                        "axis": m.axis,
                        "index": m.index.tolist(),
                        "view": m.view,
                        "reads": m.reads,
                    }
                    for m in group.members
                    if m.name.startswith("network.")
                ],
            }
            for group in model.channel_groups()
        ],
    }


def state(model: TracedNetwork) -> dict[str, Tensor]:
    """The tensors of a network, each once: PyG's ``Linear`` also lists what is parametrised."""
    tensors = model.state_dict()
    behind = {
        name.replace("parametrizations.", "").removesuffix(".original")
        for name in tensors
        if ".parametrizations." in name and name.endswith(".original")
    }
    return {name: tensor for name, tensor in tensors.items() if name not in behind}


def refilled(
    network: nn.Module, header: dict[str, Any], tensors: dict[str, Tensor], path: Any
) -> TracedNetwork:
    """The saved network, in the modules of a fresh one.

    Args:
        network: of the architecture that was saved, before pruning; it is changed.
        header: what :func:`described` returned, with the names of held tensors.
        tensors: the saved state.
        path: for messages.

    Raises:
        InputError: the network is another one.
        ValueError, KeyError, TypeError, RuntimeError: the file is damaged.
    """
    if type(network).__name__ != header["network"]:
        raise InputError(
            f"{path} holds a {header['network']}, not a {type(network).__name__}; give a fresh "
            f"{header['network']}, built as before pruning"
        )
    remove_masks(network)
    saved = {
        n.removeprefix("network.").replace("parametrizations.", "").removesuffix(".original"): t
        for n, t in tensors.items()
        if n.startswith("network.") and (".parametrizations." not in n or n.endswith(".original"))
    }
    fresh = network.state_dict()
    strange = sorted(set(saved) ^ set(fresh)) or sorted(
        name
        for name, tensor in saved.items()
        if tensor.dim() != fresh[name].dim()
        or any(a > b for a, b in zip(tensor.shape, fresh[name].shape, strict=True))
    )
    if strange:
        raise InputError(
            f"{path} holds a {header['network']} that a {type(network).__name__} like this cannot "
            f"take in ({strange[0]} differs); give a fresh one, built as before pruning"
        )
    groups = [
        ChannelGroup(
            g["name"],
            g["kind"],
            g["n"],
            tuple(
                Member(
                    m["name"],
                    m["axis"],
                    _checked_index(m, g["n"], saved[m["name"]]),
                    tuple(m["view"]) if m["view"] else None,
                    m["reads"],
                )
                for m in g["members"]
            ),
        )
        for g in header["groups"]
    ]
    model = TracedNetwork.assembled(
        network, groups, header["dropout"], header["kinds"], header["skipped"], saved
    )
    model.to(getattr(torch, header["dtype"]))
    register_masks(model, header["held"])
    model.load_state_dict(tensors)
    return model.eval()


def _checked_index(member: dict[str, Any], n: int, tensor: Tensor) -> Tensor:
    index = torch.tensor(member["index"])
    size = (member["view"] or tensor.shape)[member["axis"]]
    if index.dim() != 2 or len(index) != n or not 0 <= int(index.min()) <= int(index.max()) < size:
        raise ValueError(f"the entries of {member['name']} do not fit")
    return index
