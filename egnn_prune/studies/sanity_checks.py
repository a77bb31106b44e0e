"""Sanity checks of pruning from the literature: what ``scripts/sanity_checks.py`` runs.

Sources: Frankle and Carbin 2019 (rewinding, random re-initialisation), Liu et al. 2019 (the shape
from scratch), Su et al. 2020 (shuffled masks).
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from egnn_prune.api.pruning import compact
from egnn_prune.channels import Prunable
from egnn_prune.configs.over_seeds import SanitySettings
from egnn_prune.deployment import checkpoint
from egnn_prune.errors import ConfigError
from egnn_prune.pipeline.build import build_model
from egnn_prune.pipeline.run_context import seed_stage
from egnn_prune.pruning import (
    apply_masks,
    keep_masks,
    reinitialise,
    rewind,
    shuffle_masks,
    snapshot,
)
from egnn_prune.report.common.formatting import text_table
from egnn_prune.report.common.statistics import summarise
from egnn_prune.runs.result_store import Row, Rows
from egnn_prune.studies.frame import Results, Study, open_job, seed_settings
from egnn_prune.studies.networks import TRAINED, errors, pruned_on, selected

#: Does an arm start over (and so get the dense model's steps as well)?
ARMS = {
    "keep": False,
    "shuffled": False,
    "rewound": True,
    "shuffled, rewound": True,
    "reinitialised": True,
    "scratch": True,
}


def check(settings: SanitySettings) -> None:
    """Refuse a criterion that cannot prune in one shot."""
    if settings.pruning.criterion == "movement":
        raise ConfigError("movement watches training; choose another pruning.criterion here")


def results(_: SanitySettings, rows: list[Row]) -> Results:
    """Errors of all arms, and how much larger they are than with the kept weights."""
    by_arm = {a: [r["test_mae"] for r in rows if r["arm"] == a] for a in ("dense", *ARMS)}
    body = []
    for arm, found in by_arm.items():
        errors = summarise(found)
        pairs = zip(found, by_arm["keep"], strict=True)
        change = summarise([100 * (error / kept - 1) for error, kept in pairs])
        body.append(
            [
                arm,
                f"{errors.mean:.4f}" + (f" +- {errors.sd:.4f}" if errors.n > 1 else ""),
                f"{change.mean:+.1f} "
                + (
                    f"[{change.mean - change.half:+.1f}, {change.mean + change.half:+.1f}]"
                    if change.n > 1
                    else "(one seed: cannot be told)"
                ),
            ]
        )
    return Results(rows, text_table(["arm", "test MAE", "% above keep [95 %]"], body))


def run_seed(settings: SanitySettings, seed: int) -> list[Row]:
    """Test error of every arm of a seed; finished arms are re-used."""
    s = seed_settings(settings, seed)
    job = open_job(s)
    seed_stage(seed, 1)  # what the dense model below starts from
    start = snapshot(build_model(s, job.dataset))
    graphs, _ = selected(job)
    dense = job.load(TRAINED)
    pruned = pruned_on(graphs, dense, job)

    def find_out(arm: str) -> Row:
        model: nn.Module = dense
        if arm != "dense":
            print(f"seed {seed}: {arm}", flush=True)
            masked = arm_model(arm, dense, pruned, start, seed)
            torch.manual_seed(seed)
            if ARMS[arm]:
                start_over = f"{arm}, from the start"
                job.fit(start_over, masked, job.train, s.training.max_epochs, lr=s.training.lr)
            job.fit(arm, masked, job.train, s.training.finetune_epochs, lr=s.training.finetune_lr)
            model = compact(masked)
        return errors(model, job, ["test"])

    saved = Rows(job.folder.path / "sanity.json", {}, seed=seed)
    return saved.fill(({"arm": arm} for arm in ("dense", *ARMS)), find_out)


def arm_model(
    arm: str, dense: Prunable, pruned: Prunable, start: dict[str, torch.Tensor], seed: int
) -> Prunable:
    """The network that an arm trains.

    Args:
        arm: a name in :data:`ARMS`.
        dense: the trained dense model.
        pruned: the same with the masks of a criterion.
        start: the dense model's initial weights.
        seed: of shuffles and new weights.
    """
    if arm == "scratch":
        torch.manual_seed(seed)
        return checkpoint.from_config(compact(pruned)).to(next(dense.parameters()))
    model = copy.deepcopy(pruned)
    if arm.startswith("shuffled"):
        keep = shuffle_masks(keep_masks(pruned), torch.Generator().manual_seed(seed))
        model = copy.deepcopy(dense)
        apply_masks(model, keep)
    if arm.endswith("rewound"):
        rewind(model, start)
    if arm == "reinitialised":
        reinitialise(model, seed)
    return model


#: Trains all arms of all seeds; ``pruning`` is one-shot here, and there is no figure.
run_checks = Study("sanity", run_seed, results, check)
