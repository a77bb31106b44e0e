"""Question 5: when does uncertainty pay?"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from egnn_prune.configs.what_to_label_study import WhatToLabelSettings
from egnn_prune.evaluation.atom_error_bars import fit_atom_error_bars
from egnn_prune.evaluation.pool import choose_structures, structure_scores
from egnn_prune.runs.result_store import Row
from egnn_prune.studies.questions.context import Asked, Question
from egnn_prune.studies.questions.error_bars import ErrorBars
from egnn_prune.studies.questions.forgetting import structure_errors
from egnn_prune.studies.questions.networks import (
    SHARE,
    Networks,
    fitted,
)
from egnn_prune.studies.questions.structures import hot
from egnn_prune.studies.specialisation import force_rmse
from egnn_prune.studies.specialisation_systems import System
from egnn_prune.studies.what_to_label import BEFORE, Learner
from egnn_prune.uncertainty import SinglePass

#: Ways to choose what is fine-tuned on, and whose structures the channels' scores are taken on.
CHOICES = ("uncertain", "diverse", "loss", "random")
SCORED_ON = ("uncertain", "random")
#: Share of hot frames of the primary comparisons, where a control that ought to do worst is run.
PRIMARY_SHARE, CONTROL = 0.05, "least uncertain"
#: Share of the structures that are given to the teacher.
ASKED_FOR = 0.1


def cells(asked: Asked) -> list[Row]:
    """Choosing what to fine-tune on, what to score on, when to ask, and (3BPA) what to label."""
    form = asked.form
    tune: list[Row] = [
        {"part": "tune", "rare": rare, "choice": choice} for rare in form.rare for choice in CHOICES
    ]
    if PRIMARY_SHARE in form.rare:
        tune.append({"part": "tune", "rare": PRIMARY_SHARE, "choice": CONTROL})
    score: list[Row] = [{"part": "score", "choice": choice} for choice in SCORED_ON]
    ask: list[Row] = [{"part": "ask"}]
    label: list[Row] = []
    if form.second == "3bpa":
        how = WhatToLabelSettings()
        for kind in how.kinds:
            label.append({"part": "label", "kind": kind, "rare": 0.0, "choice": BEFORE})
            label += [
                {"part": "label", "kind": kind, "rare": share, "choice": strategy}
                for share in how.shares
                for strategy in how.strategies
            ]
    # those of the primary comparisons first: a study cut short has answers
    return sorted(
        tune + score + ask + label,
        key=lambda cell: cell["part"] != "ask" and cell.get("rare") not in (0.0, PRIMARY_SHARE),
    )


def find(asked: Asked, part: str, rare: float = 0.0, choice: str = "", kind: str = "") -> Row:
    """One choice, and what came of it."""
    if part == "label":
        folder = asked.folder / "networks" / asked.name
        how = WhatToLabelSettings(out=str(folder))
        return Learner(how, kind, asked.seed).taught(rare, choice)
    networks = asked.networks(asked.form.second)
    if part == "tune":
        return tuned(asked, networks, rare, choice)
    if part == "score":
        return scored(asked, networks, choice)
    return asking(networks)


def tuned(asked: Asked, networks: Networks, rare: float, choice: str) -> Row:
    """Fine-tune the cut network on structures that the full network's error bars choose."""
    form, full, found = asked.form, networks.network("full"), networks.found
    pool, test, hots = mixture(asked, networks, rare)
    if choice == "loss":
        errors = structure_errors(full, pool)
        rows = errors.argsort(descending=True)[: form.chosen].tolist()
    else:
        estimator = SinglePass(full)
        fit_atom_error_bars(estimator, found.train, found.val)
        if choice == CONTROL:
            rows = structure_scores(estimator, pool)[0].argsort()[: form.chosen].tolist()
        else:
            rows = choose_structures(
                estimator, pool, form.chosen, choice, train=found.train, seed=asked.seed
            )
    learned = System(networks.name, [pool[row] for row in rows], found.val, [], "data")
    model = networks.cut_at(SHARE)
    text = f"{choice}, {rare:.0%} hot, seed {asked.seed}"
    # the weights of the last step are kept: validation structures are all cold
    row = fitted(model, learned, form.steps, form.small_rate, asked.seed, text, validations=1)
    is_hot = {id(graph) for graph in hots}
    return {
        **row,
        "force_rmse": force_rmse(model, test),
        "cold": force_rmse(model, found.test),
        "hot": force_rmse(model, hots_for_test(asked, networks)),
        "hot_chosen": sum(id(pool[row]) in is_hot for row in rows),
    }


def mixture(
    asked: Asked, networks: Networks, rare: float
) -> tuple[list[Data], list[Data], list[Data]]:
    """A pool with a share of hot structures, test structures with as many, and the pool's hot ones.

    Cold ones of the pool are training structures of the full network's system that it did not
    see, as far as there are any.
    """
    form = asked.form
    count = round(rare * form.pool)
    cold = extra(asked, networks)
    hots = hot(networks.name)[form.test :]
    order = np.random.default_rng(asked.seed).permutation(len(hots))
    chosen = [hots[i] for i in order[:count]]
    tested = hots_for_test(asked, networks)
    tested = tested[: round(rare * len(networks.found.test))]
    rest = networks.found.test[: len(networks.found.test) - len(tested)]
    return chosen + cold[: form.pool - count], rest + tested, chosen


def extra(asked: Asked, networks: Networks) -> list[Data]:
    """Structures that the full network was not trained on."""
    larger = asked.networks(networks.name, networks.train + asked.form.pool)
    return larger.found.train[networks.train :]


def hots_for_test(asked: Asked, networks: Networks) -> list[Data]:
    """Hot structures that are in no pool."""
    return hot(networks.name)[: asked.form.test]


def scored(asked: Asked, networks: Networks, choice: str) -> Row:
    """Cut by scores that were taken on some of the training structures, then fine-tune."""
    found, full = networks.found, networks.network("full")
    count = max(1, len(found.train) // 4)
    if choice == "random":
        rows = np.random.default_rng(asked.seed).permutation(len(found.train))[:count].tolist()
    else:
        estimator = SinglePass(full)
        fit_atom_error_bars(estimator, found.train, found.val)
        scores = structure_scores(estimator, found.train)[0]
        rows = scores.argsort(descending=True)[:count].tolist()
    one = Networks(asked.form, networks.folder, networks.name, asked.seed)
    one.scored_on = [found.train[row] for row in rows]
    model = one.cut(SHARE, 2 / 3 * SHARE, "force", True)
    text = f"scored on {choice} structures, seed {asked.seed}"
    row = fitted(model, found, asked.form.steps, asked.form.small_rate, asked.seed, text)
    tested = hots_for_test(asked, networks)
    return {**row, "cold": force_rmse(model, found.test), "hot": force_rmse(model, tested)}


def asking(networks: Networks) -> Row:
    """Share of the squared force error that goes where somebody else answers for a tenth.

    ``error_bar``, ``distance``, ``best`` and ``random``: by what the tenth is chosen, if the
    answers are true; ``hot_first``: hot ones at random, then cold ones; ``full``: by error bars, if
    the full network answers; ``all_full``: if it answers for all. These are of as many hot as cold
    structures; ``few_hot`` has them for few hot ones.
    """
    model, full = networks.network(f"small@{SHARE}"), networks.network("full")
    cold = networks.found.test
    hots = hot(networks.name)[: len(cold)]
    few = round(PRIMARY_SHARE / (1 - PRIMARY_SHARE) * len(cold))
    bars = ErrorBars.fitted(networks, [model], "last_layer")
    rows = []
    for test, count in ((cold + hots, len(hots)), (cold + hots[:few], few)):
        std, distance = bars.of_structures(test)
        wrong, still = (structure_errors(network, test).square() for network in (model, full))
        asked = max(1, round(ASKED_FOR * len(wrong)))
        first, then = min(asked, count), max(0, asked - count)
        hot_share = float(wrong[len(cold) :].sum() / wrong.sum())
        rows.append(
            {
                "error_bar": removed(wrong, std),
                "distance": removed(wrong, distance),
                "best": removed(wrong, wrong),
                "random": ASKED_FOR,
                "hot_first": first / max(1, count) * hot_share + then / len(cold) * (1 - hot_share),
                "full": removed(wrong, std, still),
                "all_full": float(1 - still.sum() / wrong.sum()),
            }
        )
    return {**rows[0], "few_hot": rows[1]}


def removed(wrong: Tensor, by: Tensor, still: Tensor | None = None) -> float:
    """Share of the errors that goes with the structures that have the largest numbers.

    Args:
        wrong: squared errors.
        by: numbers.
        still: the squared errors of those who answer instead; by default none.
    """
    count = max(1, round(ASKED_FOR * len(wrong)))
    chosen = torch.topk(by, count).indices
    gone = wrong if still is None else wrong - still
    return float(gone[chosen].sum() / wrong.sum())


QUESTION = Question(cells, find)
