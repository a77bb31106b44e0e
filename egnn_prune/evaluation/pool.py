"""Which structures of a pool are worth a label, by what a model says of its own errors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ase.data import chemical_symbols
from torch import Tensor
from torch_geometric.data import Batch, Data

from egnn_prune.deployment.atom_pass import AtomPass, atom_pass, need_atom_features
from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.evaluation.atom_error_bars import batches, rms_of_structures
from egnn_prune.graphs import graph_of_node
from egnn_prune.prediction import members_of
from egnn_prune.selection import SampleScores, select
from egnn_prune.training.distillation import bare
from egnn_prune.uncertainty import AtomErrorBars, Calibrated, Estimator

#: Strategies by the names of the settings, and those of :mod:`egnn_prune.selection`.
CHOICES = {
    "uncertain": "top",
    "diverse": "diverse",
    "proportional": "proportional",
    "random": "random",
}


def choose_structures(
    estimator: Estimator,
    graphs: Sequence[Data],
    count: int,
    strategy: str = "uncertain",
    *,
    train: Sequence[Data] | None = None,
    seed: int = 0,
    device: torch.device | None = None,
) -> list[int]:
    """Structures of a pool to label next; no labels are needed to choose them.

    ``uncertain`` takes those with the largest score (:func:`structure_scores`). ``diverse`` takes,
    of twice as many uncertain ones, those far from each other and from the training structures
    (greedy k-centre in the mean of what the last layer reads of atoms; Sener and Savarese 2018).
    ``proportional`` draws with probabilities in proportion to the squared score, so that more than
    the extremes are learned, and ``random`` draws blindly.

    Args:
        estimator: an uncertainty method with error bars of forces, see
            :func:`~egnn_prune.evaluation.atom_error_bars.fit_atom_error_bars`.
        graphs: the pool.
        count: how many to choose.
        strategy: a name in :data:`CHOICES`.
        train: what the model was trained on, for ``diverse``.
        seed: of the strategies that draw.
        device: where to run, by default where the network is.

    Returns:
        Their numbers in the pool, most wanted first.

    Raises:
        ConfigError: there is no such strategy, or nothing that it could go by.
        DataError: a structure cannot be read, or has an element that the model does not know.
        InputError: there are fewer structures than asked for, or nothing to choose among.
    """
    if strategy not in CHOICES:
        raise ConfigError(f"selection is one of {', '.join(CHOICES)}, not {strategy!r}")
    if len(graphs) < 2:
        raise InputError(
            f"a pool of {len(graphs)} structure{'s' * (len(graphs) != 1)} leaves nothing to "
            "choose; give at least 2"
        )
    if not 1 <= count <= len(graphs):
        raise InputError(
            f"{count} structures are to be labelled of a pool of {len(graphs)}; ask for 1 to "
            f"{len(graphs)}"
        )
    refuse_unknown_elements(estimator, graphs)
    if strategy == "random":
        scores = SampleScores(torch.ones(len(graphs)))
    else:
        score, seen = structure_scores(estimator, graphs, device=device)
        covered = None
        if strategy == "diverse" and train:
            covered = structure_scores(estimator, train, device=device, label="training")[1]
        if strategy == "proportional":
            score = score.square()
        scores = SampleScores(score, None, seen, covered)
    generator = torch.Generator().manual_seed(seed)
    rows = select(scores, CHOICES[strategy], fraction=count / len(graphs), generator=generator)
    return [int(row) for row in rows]


def structure_scores(
    estimator: Estimator,
    graphs: Sequence[Data],
    *,
    device: torch.device | None = None,
    label: str = "pool",
) -> tuple[Tensor, Tensor]:
    r"""How wrong the forces of structures may be, and where the network sees these structures.

    The score is the root mean square of the calibrated deviations of forces over the atoms,

    .. math:: s_b = \sqrt{\tfrac{1}{N_b} \sum_{i \in b} \sigma_i^2},

    the deviation that a force component of the structure has. (Rank correlations with the true
    force error, small SevenNet-0 on 3BPA, mean of four: on 50 validation structures .49, on others
    of 300 to 1200 K .95; of the largest deviation .45 and .94, of the mean distance .49 and .95.)
    Error bars by distance cost a pass without forces.

    Returns:
        Scores ``[B]`` in the target's unit per unit of length, and mean features of atoms
        ``[B, F]``.

    Raises:
        ConfigError: there are no error bars of forces.
        DataError: a structure cannot be read; its number is said.
    """
    bars = estimator.atoms
    if not isinstance(bars, AtomErrorBars):
        raise ConfigError(
            "the model has no error bars of forces to choose by; fit them by fit_atom_error_bars, "
            "or choose at random"
        )
    need_atom_features(estimator.network)
    method = estimator.estimator if isinstance(estimator, Calibrated) else estimator
    home = next(method.network.parameters()).device
    device = device or home
    estimator.to(device)
    scores, seen, first = [], [], 0
    for batch in batches([bare(graph) for graph in graphs], f"looking at the {label}"):
        found = _pass(method, batch.to(device), bars.source == "members", first)
        assert found.features is not None
        std = bars.std(found.features, batch.z, found.spread)
        structure = graph_of_node(batch)
        known = rms_of_structures(std, structure).isfinite()
        if not bool(known.all()):
            number = first + int((~known).nonzero()[0])
            raise DataError(
                f"structure {number} of the {label} has an atom that no error bar holds for, as "
                "its element is in no training structure; leave it out"
            )
        scores.append(rms_of_structures(std, structure).cpu())
        sums = found.features.new_zeros(len(known), found.features.shape[1])
        sums = sums.index_add(0, structure, found.features)
        seen.append((sums / structure.bincount()[:, None]).double().cpu())
        first += len(known)
    estimator.to(home)
    return torch.cat(scores), torch.cat(seen)


def _pass(method: Estimator, batch: Batch, members: bool, first: int) -> AtomPass:
    """One pass; says which structure it is that cannot be used."""
    try:
        return atom_pass(method, batch, forces=members, members=members)
    except InputError as error:
        for number, graph in enumerate(batch.to_data_list()):
            try:
                atom_pass(method, Batch.from_data_list([graph]), forces=members, members=members)
            except InputError as single:
                raise DataError(f"structure {first + number} of the pool: {single}") from None
        raise error


def refuse_unknown_elements(estimator: Estimator, graphs: Sequence[Data]) -> None:
    """Refuse structures with elements that the network has no weights for, naming the first.

    Raises:
        DataError: there is one.
    """
    known = set(getattr(members_of(estimator.network)[0], "elements", ()))
    for number, graph in enumerate(graphs):
        if known and (unknown := sorted(set(graph.z.tolist()) - known)):
            listed = ", ".join(chemical_symbols[z] for z in sorted(known)[:12])
            raise DataError(
                f"structure {number} of the pool has the element {chemical_symbols[unknown[0]]}, "
                f"and the model knows {listed} only; leave such structures out"
            )
