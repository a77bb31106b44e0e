"""Question 2: which score, with and without compensation, at equal measured time?"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from scipy.optimize import isotonic_regression
from torch import nn
from torch_geometric.data import Batch

from egnn_prune.adapters import AdoptedPotential
from egnn_prune.models import energy_and_forces
from egnn_prune.runs.result_store import Row
from egnn_prune.studies.questions.context import Asked, Question
from egnn_prune.studies.questions.networks import (
    Networks,
    fitted,
    judged,
)
from egnn_prune.studies.specialisation import SCORES, force_rmse
from egnn_prune.system.timing import alternating_medians

#: Shares of the copies that go, from which budgets are met; of the paths two thirds as much.
LADDER = (0.0, 0.2, 0.3, 0.4, 0.5, 0.58, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.94)
#: Molecules that are timed, and passes.
MOLECULES, REPEATS, WARMUP = 5, 15, 3


def cells(asked: Asked) -> list[Row]:
    """A measured ladder of each score, fits within each budget, and compiled times."""
    fits: list[Row] = [
        {"part": "fit", "score": score, "budget": budget, "compensated": helped}
        for score in SCORES
        for budget in asked.form.budgets
        for helped in (False, True)
    ]
    ladders: list[Row] = [{"part": "ladder", "score": score} for score in SCORES]
    if asked.form.compiled and asked.is_first:
        fits.append({"part": "compiled", "score": "force"})
    return ladders + fits


def find(
    asked: Asked, part: str, score: str, budget: float = 0.0, compensated: bool = False
) -> Row:
    """Measure the sizes of a score, or train the largest network that is within a budget."""
    networks = asked.networks()
    if part == "ladder":
        return ladder(networks, score)
    if part == "compiled":
        return compiled_times(asked)
    share, time = size_within(asked, score, budget)
    model = networks.cut(share, 2 / 3 * share, score, compensated)
    before = force_rmse(model, networks.found.test)
    text = f"{score}, budget {budget:g}, {'' if compensated else 'not '}compensated"
    row = fitted(model, networks.found, asked.form.steps, asked.form.small_rate, asked.seed, text)
    found = {"share": share, "time": time, "before": before}
    return {**row, **judged(model, networks.found.test), **found}


def ladder(networks: Networks, score: str) -> Row:
    """Of each size the share of the teacher's time that energies and forces take.

    ``measured`` are medians. A smaller network cannot take longer, so ``shares``, by which sizes
    are chosen, are the nearest numbers that do not rise: a dip of the clock chooses nothing.
    """
    models: dict[str, nn.Module] = {
        f"{share:g}": plain_cut(networks, score, share) for share in LADDER
    }
    times = measured({"teacher": networks.data[1], **models}, networks)
    shares = [times[name] / times["teacher"] for name in models]
    falling = isotonic_regression(shares, increasing=False).x
    return {"shares": falling.tolist(), "measured": shares}


def size_within(asked: Asked, score: str, budget: float) -> tuple[float, float]:
    """The smallest share of the copies whose loss brings a score's network into a budget, its time.

    If none does, that of the largest share, and a time that is over the budget.
    """
    found = asked.rows().find(part="ladder", score=score)
    assert found is not None, "ladders are measured first"
    sizes = [*zip(LADDER, found["shares"], strict=True)]
    return next((size for size in sizes if size[1] <= budget), sizes[-1])


def plain_cut(networks: Networks, score: str, share: float) -> AdoptedPotential:
    """Without compensation, which changes no time."""
    return networks.cut(share, 2 / 3 * share, score, compensated=False)


def measured(models: dict[str, nn.Module], networks: Networks) -> Row:
    """Median milliseconds of energies and forces, models taking turns; neighbours are there."""
    batch = Batch.from_data_list(networks.found.val[:MOLECULES])  # test ones choose nothing
    prepared = networks.data[1].prepared(batch)  # cuts have the same cutoff
    runs = {
        name: partial(energy_and_forces, model.eval(), prepared) for name, model in models.items()
    }
    return alternating_medians(dict(runs), REPEATS, WARMUP, "cpu")


def compiled_times(asked: Asked) -> Row:
    """The networks of all budgets beside the teacher, both as they are and compiled, by turns."""
    networks = asked.networks()
    sizes = {b: size_within(asked, "force", b)[0] for b in asked.form.budgets}
    models = {f"{b:g}": plain_cut(networks, "force", share) for b, share in sizes.items()}
    models = {"teacher": networks.data[1], **models}
    compiled = {
        f"{name} compiled": cast(nn.Module, torch.compile(model, dynamic=False))
        for name, model in models.items()
    }
    times = measured({**models, **compiled}, networks)
    return {
        "eager_ms": {name: times[name] for name in models},
        "compiled_ms": {name: times[f"{name} compiled"] for name in models},
    }


QUESTION = Question(cells, find)
