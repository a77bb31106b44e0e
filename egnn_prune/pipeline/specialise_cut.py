"""Smaller and smaller cuts of a teacher, and the first of them that is fast enough."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from tqdm import tqdm

from egnn_prune.adapters import AdoptedPotential, copies_and_paths, drop_odd_paths
from egnn_prune.adapters.choice import path_cost
from egnn_prune.channels import Prunable
from egnn_prune.errors import ConfigError
from egnn_prune.pipeline import specialise_measure as measuring
from egnn_prune.pruning import Context, apply_masks, compact, compensate, score_channels
from egnn_prune.training import ForceProbes

#: Shares of the convolution's copies that go, rung by rung.
COPIES = (0.0, 0.25, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.94, 0.97)

Masks = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Rung:
    """One size of network.

    Attributes:
        conv: share of the convolution's copies that go.
        paths: share of the paths' cost that goes with them, odd ones included.
        keep: masks of the channels.
        latency_ms: of energy and forces, measured by turns with the teacher.
        share: of the teacher's time.
    """

    conv: float
    paths: float
    keep: Masks
    latency_ms: float
    share: float


def scored(model: Prunable, graphs: Sequence[Data], device: torch.device, seed: int) -> Masks:
    """How much the forces depend on each channel, without labels: ``{group name: [n]}``."""
    batches = [batch.to(device) for batch in DataLoader(list(graphs), 4)]
    context = Context(
        model.to(device),
        model.channel_groups(),
        batches=tqdm(batches, "scoring channels", leave=False, delay=2),
        loss=ForceProbes(seed),
    )
    # half the mean square of what a channel does to the forces along random directions
    found = {name: score.cpu() for name, score in score_channels("fisher", context).items()}
    model.to("cpu")
    return found


def ladder(
    model: AdoptedPotential,
    scores: Masks,
    teacher: Prunable,
    batch: Batch,
    device: torch.device,
    paths_per_copy: float,
    dropped: float,
    repeats: int,
) -> list[Rung]:
    """All rungs with what they take, measured together, the largest network first.

    Args:
        model: what is cut.
        scores: of its channels.
        teacher: whose time is the measure.
        batch: what is predicted.
        device: where.
        paths_per_copy: share of the paths' cost that goes, for each share of the copies.
        dropped: share of it that is gone already, with the odd paths.
        repeats: timed passes of each.
    """
    sizes = [(conv, paths_per_copy * conv) for conv in COPIES]
    left = [1 - min(1.0, (1 - paths) / (1 - dropped)) for _, paths in sizes]
    masks = [copies_and_paths(model, scores, c, p) for (c, _), p in zip(sizes, left, strict=True)]
    networks = {str(k): cut(model, keep) for k, keep in enumerate(masks)}
    times = measuring.latencies({"teacher": teacher, **networks}, batch, device, repeats)
    return [
        Rung(conv, max(paths, dropped), keep, times[str(k)], times[str(k)] / times["teacher"])
        for k, ((conv, paths), keep) in enumerate(zip(sizes, masks, strict=True))
    ]


def within(rungs: Iterable[Rung], budget: float) -> Rung | None:
    """The largest network that takes no more than this share of the teacher's time."""
    return next((rung for rung in rungs if rung.share <= budget), None)


def refuse_impossible(rungs: Sequence[Rung], budget: float, teacher: str) -> Rung:
    """The rung that meets the budget.

    Raises:
        ConfigError: none does; says how small the budget can be.
    """
    found = within(rungs, budget)
    if found is None:
        least = min(rung.share for rung in rungs)
        raise ConfigError(
            f"budget={budget:g} cannot be met: the smallest network that is cut out of {teacher} "
            f"takes {least:.2f} of its time on these structures; ask for "
            f"budget={least + 0.005:.2f} or more"
        )
    return found


def cut(model: Prunable, keep: Masks) -> Prunable:
    """The model with only the channels that are kept; it does not change itself."""
    masked = copy.deepcopy(model)
    apply_masks(masked, keep)
    return compact(masked)


def compensated_cut(
    model: Prunable,
    keep: Masks,
    graphs: Sequence[Data],
    val: Sequence[Data],
    device: torch.device,
) -> tuple[Prunable, dict[str, Any]]:
    """The cut network, whose kept channels stand in for removed ones where that helps.

    Args:
        model: what is cut.
        keep: masks.
        graphs: structures that the stand-ins are fitted on, without labels.
        val: labelled structures, which say whether they help.
        device: where.

    Returns:
        The network, and the validation errors without and with stand-ins, in meV/Angstrom.
    """
    plain = cut(model, keep)
    without = measuring.force_rmse(plain, val, device)
    if all(bool(mask.all()) for mask in keep.values()):
        return plain, _compared(without, without)
    batches = [batch.to(device) for batch in DataLoader(list(graphs), 4)]
    helped = cut(compensate(model.to(device), keep, batches).to("cpu"), keep)
    model.to("cpu")
    found = _compared(without, measuring.force_rmse(helped, val, device))
    return (helped if found["used"] else plain), found


def _compared(without: float, helped: float) -> dict[str, Any]:
    return {
        "used": helped < without,
        "force_rmse_without_mev_per_angstrom": without,
        "force_rmse_with_mev_per_angstrom": helped,
    }


def without_odd_paths(
    model: AdoptedPotential, val: Sequence[Data], device: torch.device, allowed: float
) -> tuple[AdoptedPotential, float]:
    """The model without paths of odd l1+l2+l3, where held-out forces say that it costs little.

    In networks that tell mirror images apart anyway these take a third of the time.

    Args:
        model: the teacher.
        val: structures; their labels are not read.
        device: where.
        allowed: largest root mean square change of the forces, as a share of their own.

    Returns:
        The model (itself, where the change is larger), and the change in meV/Angstrom.
    """
    try:
        smaller = drop_odd_paths(model)
    except ConfigError:  # it is mirror-symmetric as it is
        return model, 0.0
    before = measuring.forces(model, val, device)
    change = (measuring.forces(smaller, val, device) - before).square().mean().sqrt()
    kept = float(change) <= allowed * float(before.square().mean().sqrt())
    return (smaller if kept else model), 1000 * float(change)


def layout(model: Any) -> list[dict[str, Any]]:
    """Copies and paths of each layer."""
    found: list[dict[str, Any]] = model.network.layout()
    return found


def share_of_paths(whole: AdoptedPotential, model: AdoptedPotential) -> float:
    """Which share of what the tensor products take on an edge is gone in a smaller model."""

    def cost(network: AdoptedPotential) -> float:
        names = (g.name for g in network.channel_groups() if g.kind == "path")
        return sum(path_cost(network, name) for name in names)

    before = cost(whole)
    return 1 - cost(model) / before if before else 0.0


def paths_of(model: Any) -> int:
    """How many paths a model has."""
    return sum(path["kept"] for layer in layout(model) for path in layer["paths"])


def what_was_cut(teacher: Any, small: Any) -> list[dict[str, Any]]:
    """For each layer what is left of the teacher's copies, radial widths and paths."""

    def left(new: dict[str, int], old: dict[str, int]) -> dict[str, list[int]]:
        return {ir: [new.get(ir, 0), n] for ir, n in old.items()}

    rows = []
    for old, new in zip(layout(teacher), layout(small), strict=True):
        radial = [[n, m] for n, m in zip(new["radial"], old["radial"], strict=True)]
        rows.append(
            {
                "conv": left(new["conv"], old["conv"]),
                "stream": left(new["stream"], old["stream"]),
                "radial": radial,
                "paths": new["paths"],
            }
        )
    return rows
