"""Question 1: pretrained and pruned, or from scratch?"""

from __future__ import annotations

from torch import nn

from egnn_prune.errors import ConfigError
from egnn_prune.runs.result_store import Row
from egnn_prune.studies.questions.context import Asked, Question
from egnn_prune.studies.questions.networks import SHARE, fitted, judged

ARMS = ("inherited", "scratch", "other", "full")


def cells(asked: Asked) -> list[Row]:
    """Arms by sizes and lengths; each rate for the first seed and size, else that chosen there."""
    form = asked.form
    return [
        {"size": size, "steps": steps, "arm": arm, "rate": rate}
        for arm in ARMS  # those of the primary comparisons first: a study cut short has answers
        for size in form.sizes
        for steps in form.lengths
        for rate in (form.rates if asked.is_first and size == form.sizes[0] else [0.0])
    ]


def find(asked: Asked, size: int, steps: int, arm: str, rate: float) -> Row:
    """Train an arm and judge it; a rate of 0 is the one that validation chose before."""
    networks = asked.networks(train=size)
    model, rate = _begun(asked, size, arm), rate or chosen(asked, steps, arm)
    text = f"{arm}, {size} structures, {steps} steps, seed {asked.seed}"
    row = fitted(model, networks.found, steps, rate, asked.seed, text)
    return {**row, **judged(model, networks.found.test), "chosen_rate": rate}


def chosen(asked: Asked, steps: int, arm: str) -> float:
    """The rate with the lowest validation error, of the first seed and size.

    Raises:
        ConfigError: that seed is not done.
    """
    form = asked.form
    if len(form.rates) == 1:
        return form.rates[0]
    tried = [
        row
        for row in asked.rows(asked.first).rows
        if (row["size"], row["steps"], row["arm"]) == (form.sizes[0], steps, arm)
    ]
    if len(tried) < len(form.rates):
        raise ConfigError(
            f"learning rates are chosen by seed {asked.first}, which is not done; run "
            f"seeds=[{asked.first}] first"
        )
    return float(min(tried, key=lambda row: row["val"])["rate"])


def _begun(asked: Asked, size: int, arm: str) -> nn.Module:
    networks = asked.networks(train=size)
    if arm == "other":
        return networks.other_shape()
    model = networks.cut_at(0 if arm == "full" else SHARE)
    return networks.fresh(model) if arm == "scratch" else model


QUESTION = Question(cells, find)
