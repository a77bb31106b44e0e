"""A potential learns newly labelled structures, and what it states as its error with them."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn
from torch_geometric.data import Data

from egnn_prune.data.collation import loader
from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.evaluation.atom_error_bars import fit_atom_error_bars
from egnn_prune.evaluation.potential_errors import potential_errors
from egnn_prune.prediction import members_of
from egnn_prune.selection import replay_weights
from egnn_prune.training.batch_losses import Losses
from egnn_prune.training.distillation import bare
from egnn_prune.training.potential_loss import check_labels, check_one_kind
from egnn_prune.training.potential_task import PotentialSettings, fit_potential
from egnn_prune.uncertainty import AtomErrorBars, Calibrated, Estimator, calibrate

#: Short and careful: the network is trained already. One look at what is held out, after the end.
SETTINGS = PotentialSettings(steps=100, lr=3e-3, validations=1, ema=0.99)
#: Share of the draws that go to structures of the training before, so that they are not forgotten.
#: (A small SevenNet-0 of 3BPA at 300 K, 15 hot frames: force RMSE in meV/A on other hot frames and
#: on validation 158.6 and 65.4 before, 147.2 and 66.0 with 0.75, 150.0 and 71.4 with 0.5 at a third
#: of the rate, 149.7 and 73.2 with 0.5 at three times the rate.)
REPLAY = 0.75
#: The force error on the old validation structures may grow by this share.
TOLERANCE = 0.1
#: Energies farther than this from the model's, in eV per atom, come from another level of theory.
OTHER_LEVEL = 1.0
#: Structures per pass where error bars of energies are fitted.
BATCH = 16


@dataclass(frozen=True)
class Improvement:
    """What came of an attempt to learn new structures.

    Attributes:
        estimator: the better one: the new, or the old itself.
        accepted: whether it is the new one.
        before: root mean square force error of the old model, in meV/Angstrom, on held-out new
            structures (``"new"``) and on the old validation structures (``"old"``).
        after: the same of the new model, accepted or not.
        trained_on: new structures that it was fine-tuned on.
        held_out: new structures that it was judged by.
        seconds: wall time.
        reason: why the old model was kept, else empty.
    """

    estimator: Estimator
    accepted: bool
    before: dict[str, float]
    after: dict[str, float]
    trained_on: int
    held_out: int
    seconds: float
    reason: str = ""


def improved(
    estimator: Estimator,
    new: Sequence[Data],
    train: Sequence[Data],
    val: Sequence[Data],
    settings: PotentialSettings | None = None,
    *,
    held_out: float = 0.2,
    seed: int = 0,
    device: torch.device | None = None,
    losses: Losses | None = None,
) -> Improvement:
    """Fine-tune a copy on new structures, and keep it where it is better than what there was.

    Most draws (:data:`REPLAY`) are structures of the old training. The uncertainty method is fitted
    anew (on old and new training structures), energies are recalibrated and error bars of forces
    refitted (on old validation and held-out new structures). The new model is accepted where its
    forces are better on held-out new structures and, on the old validation structures, worse by no
    more than :data:`TOLERANCE`; the held-out ones choose nothing but between the two.

    Energies per element stay as they are, for the labels have to be of the level of theory that
    the model learned: a refit to a few structures far from equilibrium would hide their strain
    in the energies of single atoms.

    Args:
        estimator: an uncertainty method of a potential, calibrated or not; left as it is.
        new: at least two structures with ``y [1]`` in eV and ``forces [N, 3]`` in eV/Angstrom.
        train: labelled structures that the model was trained on.
        val: others, that it was calibrated on.
        settings: of the fine-tuning, by default :data:`SETTINGS`.
        held_out: share of the new structures, at least one, that the new model is judged by.
        seed: of who is held out and of the order in training.
        device: where to train and measure; the estimator stays where its network is.
        losses: what is minimised, see :func:`~egnn_prune.training.fit_potential`.

    Raises:
        ConfigError: the share is out of range, or the fit diverged.
        DataError: a label is missing, NaN, infinite or of another level of theory, or structures
            with and without a cell are mixed.
        InputError: there is one new structure only, or too few atoms for error bars.
    """
    start = time.perf_counter()
    new, train, val = plain({"new": new, "training": train, "validation": val})
    check_one_kind([*train, *new, *val], "old and new")
    learned, judged = parted(new, held_out, seed)
    home = next(estimator.network.parameters()).device
    device = device or home
    check_level(estimator.network, new, device)
    before = force_errors(estimator.network, judged, val, device)
    network = fine_tuned(
        estimator.network,
        learned,
        train,
        judged,
        settings or SETTINGS,
        seed=seed,
        device=device,
        losses=losses,
    )
    after = force_errors(network, judged, val, device)
    reason, better = why_not(before, after), estimator.to(home)
    if not reason:
        better = refitted(estimator, network, [*train, *learned], [*val, *judged], device).to(home)
    counts, seconds = (len(learned), len(judged)), time.perf_counter() - start
    return Improvement(better, not reason, before, after, *counts, seconds, reason)


def fine_tuned(
    network: nn.Module,
    new: Sequence[Data],
    train: Sequence[Data],
    val: Sequence[Data],
    settings: PotentialSettings = SETTINGS,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    losses: Losses | None = None,
) -> nn.Module:
    """A copy of a potential, trained on new structures and, most of the time, on old ones.

    Every member of an ensemble is trained by itself, in an order of its own.

    Args:
        network: predicts energies in eV; left as it is.
        new: labelled structures to learn.
        train: labelled structures not to forget.
        val: the copy ends with the weights that had the lowest force error on these, of those
            that it began with and those at each of the settings' validations.
        settings: how long and how fast.
        seed: of the order of the structures.
        device: where to train; the copy is on the CPU in the end.
        losses: what is minimised.
    """
    network = copy.deepcopy(network)
    rows = torch.arange(len(new))
    weights = replay_weights(rows, len(new) + len(train), REPLAY)
    members = members_of(network)
    for number, member in enumerate(members):
        of = f" {number + 1} of {len(members)}" if len(members) > 1 else ""
        fit_potential(
            member,
            [*new, *train],
            val,
            settings,
            losses=losses,
            device=device,
            seed=seed + number,
            label=f"learning {len(new)} structures{of}",
            weights=weights,
        )
    return network


def refitted(
    old: Estimator,
    network: nn.Module,
    train: Sequence[Data],
    val: Sequence[Data],
    device: torch.device,
) -> Estimator:
    """The uncertainty method that an old estimator is, of another network, with what it had.

    Args:
        old: says which method, which calibration (if any), and whether there are error bars of
            forces.
        network: trained.
        train: labelled structures that it was trained on.
        val: others, to calibrate on.
        device: where to run; the estimator ends there.
    """
    method = uncalibrated(old)
    network.to(device)
    found = type(method)(network, **method.settings()).to(device)
    found.fit([batch.to(device) for batch in loader(train, BATCH)])  # may read them again
    if isinstance(old, Calibrated):
        kind = type(old.calibration)(**old.calibration.settings())
        found = calibrate(found, (batch.to(device) for batch in loader(val, BATCH)), kind)
    if isinstance(old.atoms, AtomErrorBars):
        fit_atom_error_bars(found, train, val, source=old.atoms.source, device=device)
    return found.eval()


def uncalibrated(estimator: Estimator) -> Estimator:
    """The uncertainty method itself."""
    return estimator.estimator if isinstance(estimator, Calibrated) else estimator


def plain(parts: Mapping[str, Sequence[Data]]) -> list[list[Data]]:
    """Structures with labels in float64 and nothing else, so that one batch can hold all of them.

    Stresses stay where all have one.

    Raises:
        DataError: there is none in a part, or a label is missing, NaN or infinite.
    """
    for split, graphs in parts.items():
        check_labels(graphs, split)
    stress = all(g.get("stress") is not None for graphs in parts.values() for g in graphs)

    def one(graph: Data) -> Data:
        out = bare(graph)
        out.y, out.forces = graph.y.reshape(1).double(), graph.forces.double()
        if stress:
            out.stress = graph.stress.double().view(1, 3, 3)
        return out.cpu()

    return [[one(graph) for graph in graphs] for graphs in parts.values()]


def parted(new: Sequence[Data], share: float, seed: int) -> tuple[list[Data], list[Data]]:
    """New structures to learn and, at least one, to judge by.

    Raises:
        ConfigError: the share is out of range.
        InputError: there are fewer than two.
    """
    if not 0 < share < 1:
        raise ConfigError(f"a share in (0, 1) of the new structures is held out, not {share}")
    if len(new) < 2:
        raise InputError(
            "one new structure cannot be learned and judge what was learned; label 2 or more"
        )
    rows = np.random.default_rng(seed).permutation(len(new))
    count = min(max(1, round(share * len(new))), len(new) - 1)
    return [new[i] for i in sorted(rows[count:])], [new[i] for i in sorted(rows[:count])]


def check_level(network: nn.Module, new: Sequence[Data], device: torch.device) -> None:
    """Refuse energies of another level of theory, to which no force would be wrong.

    Raises:
        DataError: they are far from the model's.
    """
    errors, _ = potential_errors(network, new, device=device, progress="new structures")
    wrong = cast(float, errors["energy_mae_mev_per_atom"]) / 1000
    if wrong > OTHER_LEVEL:
        raise DataError(
            f"energies of the new structures are {wrong:.3g} eV per atom from the model's, which "
            "is another level of theory; label them by the method of the training data, or shift "
            "their energies to it"
        )


def force_errors(
    network: nn.Module, new: Sequence[Data], old: Sequence[Data], device: torch.device
) -> dict[str, float]:
    """Root mean square force errors on new and old structures, in meV/Angstrom."""
    found = {}
    for name, graphs in (("new", new), ("old", old)):
        errors, _ = potential_errors(network, graphs, device=device, progress=f"{name} structures")
        found[name] = cast(float, errors["force_rmse_mev_per_angstrom"])
    return found


def why_not(before: dict[str, float], after: dict[str, float]) -> str:
    """Why a new model is not accepted, in one sentence; empty where it is."""
    if not after["new"] < before["new"]:
        return (
            f"the force error on held-out new structures went from {before['new']:.1f} to "
            f"{after['new']:.1f} meV/A; label more structures, or train longer"
        )
    if after["old"] > (1 + TOLERANCE) * before["old"]:
        return (
            f"the force error on old validation structures went from {before['old']:.1f} to "
            f"{after['old']:.1f} meV/A, more than the {TOLERANCE:.0%} allowed; lower the learning "
            "rate"
        )
    return ""
