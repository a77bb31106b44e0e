"""Error bars of forces for a model: fitted on structures, and compared with its errors."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from tqdm import tqdm

from egnn_prune.channels import evaluating
from egnn_prune.data.collation import loader
from egnn_prune.deployment.atom_pass import atom_pass, need_atom_features
from egnn_prune.errors import DataError, InputError, SuspiciousDataWarning
from egnn_prune.graphs import graph_of_node
from egnn_prune.prediction import members_of
from egnn_prune.uncertainty import AtomErrorBars, AtomEvidence, Calibrated, Estimator
from egnn_prune.uncertainty.metrics import (
    out_of_distribution_scores,
    regression_scores,
    spearman,
)

#: Structures per batch at most, and atoms per batch, about.
BATCH, BATCH_ATOMS = 16, 800
#: Coverages that are compared with the share of force components inside, in percent.
PERCENT = (50, 80, 90, 95)
#: Atoms count as wrong beyond this quantile of the errors.
WRONG = 0.9


def fit_atom_error_bars(
    estimator: Estimator,
    train: Sequence[Data],
    val: Sequence[Data],
    *,
    source: str | None = None,
    device: torch.device | None = None,
) -> AtomErrorBars:
    """Fit error bars of forces and put them into the estimator, with which they are saved.

    Args:
        estimator: an uncertainty method of a network of energies, calibrated or not.
        train: structures that it was trained on, with ``forces [N, 3]``.
        val: others, with forces.
        source: ``"distance"`` or ``"members"``; by default members where networks are independent
            (their forces cost nothing more), else the distance.
        device: where to run, by default where the network is; the estimator stays there.

    Raises:
        ConfigError: the network names no layer of atoms, or has no members.
        DataError: a structure has no forces.
        InputError: see :meth:`AtomErrorBars.fit`.
    """
    several = len(members_of(estimator.network)) > 1
    bars = AtomErrorBars(source or ("members" if several else "distance"))
    found = [
        evidence(estimator, graphs, members=bars.source == "members", device=device, label=label)
        for graphs, label in ((train, "atoms of the training"), (val, "atoms to calibrate on"))
    ]
    bars.fit(*found)
    estimator.atoms = bars.to(next(estimator.network.parameters()).device)
    return bars


def evidence(
    estimator: Estimator,
    graphs: Sequence[Data],
    *,
    members: bool = False,
    device: torch.device | None = None,
    label: str = "atoms",
    batch_size: int = BATCH,
) -> AtomEvidence:
    """Features, force errors and spread of every atom of structures with forces, on the CPU.

    Raises:
        ConfigError: the network names no layer of atoms, or has no members although asked for.
        DataError: a structure has no forces.
    """
    need_atom_features(estimator.network)
    method = estimator.estimator if isinstance(estimator, Calibrated) else estimator
    if not len(graphs) or any(g.get("forces") is None for g in graphs):
        raise DataError("error bars of forces need structures with forces; there are none")
    device = device or next(method.network.parameters()).device
    method.to(device)
    parts = []
    for batch in batches(graphs, label, batch_size):
        batch = batch.to(device)
        with evaluating(method):
            found = atom_pass(method, batch, members=members)
        assert found.forces is not None and found.features is not None
        parts.append(
            AtomEvidence(
                found.features.cpu(),
                batch.z.cpu(),
                graph_of_node(batch).cpu(),
                (found.forces.double() - batch.forces.double()).cpu(),
                None if found.spread is None else found.spread.double().cpu(),
            )
        )
    return AtomEvidence.cat(parts)


def batches(graphs: Sequence[Data], label: str, size: int = BATCH) -> Iterable[Batch]:
    """Structures in order, with a progress bar; crystals and molecules share no batch."""
    alike = len({g.get("cell") is None for g in graphs}) == 1
    largest = max((len(g.pos) for g in graphs), default=1)
    size = max(1, min(size, BATCH_ATOMS // largest)) if alike else 1
    return tqdm(loader(list(graphs), size), label, leave=False)


def known_atoms(bars: AtomErrorBars, found: AtomEvidence, name: str) -> AtomEvidence | None:
    """The atoms that error bars hold for; ``None`` where there are none.

    Others, whose element is in no training structure, have infinite ones, which no score can hold:
    they are left out, and how many is said.

    Args:
        bars: fitted.
        found: atoms.
        name: of their structures, for the message.
    """
    known = bars.std(found.features, found.z, found.spread).isfinite()
    left_out = int((~known).sum())
    if left_out:
        warnings.warn(
            f"{left_out} of {len(known)} atoms ({name}) have an element that no training structure "
            "holds: their error bars of forces are infinite, and scores leave them out",
            SuspiciousDataWarning,
            stacklevel=2,
        )
    return found.rows(known) if left_out < len(known) else None


def force_scores(
    bars: AtomErrorBars, found: AtomEvidence, beyond: AtomEvidence | None = None
) -> dict[str, float]:
    r"""What ``metrics.json`` says about error bars of forces, raw and (``_calibrated``) fitted.

    Every component of every atom counts: ``force_coverage_50`` ... ``force_coverage_95``,
    ``force_ence``, ``force_nll``, ``force_ause`` ... of
    :func:`~egnn_prune.uncertainty.regression_scores`. ``force_spearman_atoms`` and
    ``force_spearman_structures`` are rank correlations with the size of the error of an atom and
    with the root mean square of a structure; ``force_auroc_wrong`` is the chance that an atom whose
    error is among the largest 10 % has the longer error bar; ``force_ood_auroc`` that one of
    ``beyond`` has. Calibrated coverages are of the intervals of
    :meth:`AtomErrorBars.half_width`.

    Args:
        bars: fitted.
        found: atoms of test structures.
        beyond: atoms of structures from elsewhere.

    Raises:
        InputError: an error bar is infinite, as for an element that was not fitted to.
    """
    wrong = found.wrong.double()
    size = wrong.square().sum(1).sqrt()
    zero = torch.zeros_like(wrong)
    scores: dict[str, float] = {}
    for suffix, deviation in (("", bars.raw_std), ("_calibrated", bars.std)):
        std = deviation(found.features, found.z, found.spread)
        if not bool(std.isfinite().all()):
            raise InputError(
                "an atom has no error bar: its element is in no training structure; leave such "
                "structures out"
            )
        variance = std.square()[:, None].expand_as(wrong)
        rows = regression_scores(zero.flatten(), variance.flatten(), wrong.flatten())
        rows.pop("spearman_error_uncertainty")  # of components, which depend on the axes
        if suffix:
            for percent in PERCENT:
                half = bars.half_width(std, found.z, percent / 100)
                rows[f"coverage_{percent}"] = float((wrong.abs() <= half[:, None]).double().mean())
        rows["spearman_atoms"] = rank_correlation(std, size)
        rows["spearman_structures"] = rank_correlation(
            rms_of_structures(std, found.structure), rms_of_structures(size, found.structure)
        )
        large = size > size.quantile(WRONG)
        if bool(large.any()):  # else the largest errors are all alike
            rows["auroc_wrong"] = out_of_distribution_scores(std[~large], std[large])["auroc"]
        if beyond is not None:
            other = bars.raw_std if not suffix else bars.std
            far = other(beyond.features, beyond.z, beyond.spread)
            far = far.clamp(max=torch.finfo(far.dtype).max)  # infinite for new elements
            rows["ood_auroc"] = out_of_distribution_scores(std, far)["auroc"]
        scores |= {f"force_{name}{suffix}": value for name, value in rows.items()}
    return scores


def rank_correlation(deviation: Tensor, error: Tensor) -> float:
    """Spearman's rank correlation of error bars ``[N]`` and sizes of errors ``[N]``."""
    arguments: Any = (torch.zeros_like(error), deviation.square(), error)
    return float(spearman(*arguments))


def rms_of_structures(values: Tensor, structure: Tensor) -> Tensor:
    """Root mean square of ``values [N]`` over the atoms of each structure, ``[B]``."""
    count = structure.bincount().to(values)
    total = values.new_zeros(len(count)).index_add(0, structure, values.square())
    return (total / count).sqrt()
