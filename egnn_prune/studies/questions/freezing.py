"""Question 6: does freezing help?"""

from __future__ import annotations

import torch

from egnn_prune.adapters import AdoptedPotential
from egnn_prune.pruning import Context, apply_masks, freeze, score_channels
from egnn_prune.runs.result_store import Row
from egnn_prune.studies.questions.context import Asked, Question
from egnn_prune.studies.questions.networks import SHARE, Networks, fitted, judged
from egnn_prune.training import ForceProbes

#: What is frozen, and how many times the small network's rate suits the rest (0.003, 0.01, 0.03 and
#: 0.1 were tried on validation: seed 0, ethanol, 200 structures).
ARMS = {"nothing": 1, "message passing": 10, "important": 3, "all but the read-out": 10}


def cells(asked: Asked) -> list[Row]:
    """What is frozen, by training structures."""
    return [{"size": size, "frozen": arm} for size in asked.form.few for arm in ARMS]


def find(asked: Asked, size: int, frozen: str) -> Row:
    """Fine-tune the small network with some of its weights held."""
    networks = asked.networks(train=size)
    model = networks.cut_at(SHARE)
    held: tuple[str, ...] = ()
    if frozen == "message passing":
        held = tuple(name for name in model.message_passing_modules() if "embed" not in name)
    elif frozen == "all but the read-out":
        held = tuple(model.message_passing_modules())
    elif frozen == "important":
        hold_important(model, networks)
    text = f"{frozen} frozen, {size} structures, seed {asked.seed}"
    rate = asked.form.small_rate * ARMS[frozen]
    row = fitted(model, networks.found, asked.form.steps, rate, asked.seed, text, held)
    return {**row, "rate": rate, **judged(model, networks.found.test)}


def hold_important(model: AdoptedPotential, networks: Networks) -> None:
    """Freeze the quarter of the copies and paths on which the forces depend most, in place."""
    generator = torch.Generator().manual_seed(networks.seed)
    groups, loss = model.channel_groups(), ForceProbes(networks.seed)
    scores = score_channels("fisher", Context(model, groups, networks.batches(), loss, generator))
    keep = {group.name: torch.ones(group.n, dtype=torch.bool) for group in groups}
    apply_masks(model, keep)
    freeze(model, "important", scores=scores, keep=keep)


QUESTION = Question(cells, find)
