"""Sanity checks of pruning from the literature: what ``scripts/sanity_checks.py`` runs.

Sources: Frankle and Carbin 2019 (rewinding, random re-initialisation), Liu et al. 2019 (the shape
from scratch), Su et al. 2020 (shuffled masks).
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch_geometric.loader import DataLoader

from egnn_prune.api.pruning import compact, prune
from egnn_prune.channels import Prunable
from egnn_prune.configs.settings import SanitySettings, main_job
from egnn_prune.configs.unused import refuse_unused
from egnn_prune.deployment import checkpoint
from egnn_prune.errors import ConfigError
from egnn_prune.evaluation.predict import point_predictions
from egnn_prune.pipeline.build import build_model
from egnn_prune.pipeline.check_settings import validate
from egnn_prune.pipeline.main_job import Job
from egnn_prune.pipeline.run_context import seed_stage
from egnn_prune.pruning import (
    apply_masks,
    keep_masks,
    reinitialise,
    rewind,
    shuffle_masks,
    snapshot,
)
from egnn_prune.report.common.files import write_atomic
from egnn_prune.report.common.formatting import text_table
from egnn_prune.report.common.statistics import summarise
from egnn_prune.runs.folder_lock import alone_in
from egnn_prune.runs.run_folder import RunFolder
from egnn_prune.system.device import choose_device
from egnn_prune.system.files import read_json, write_json

#: Does an arm start over (and so get the dense model's steps as well)?
ARMS = {
    "keep": False,
    "shuffled": False,
    "rewound": True,
    "shuffled, rewound": True,
    "reinitialised": True,
    "scratch": True,
}


@alone_in("runs/sanity")
def run_checks(settings: SanitySettings) -> Path:
    """Train all arms of all seeds and write ``sanity.txt``.

    Args:
        settings: seeds, and those of the main job; ``pruning`` is one-shot here.

    Returns:
        The folder.

    Raises:
        ConfigError: no seed, or a setting out of range.
    """
    if not settings.seeds or len(set(settings.seeds)) < len(settings.seeds):
        raise ConfigError(f"seeds needs one or more different values, not {settings.seeds}")
    if settings.pruning.criterion == "movement":
        raise ConfigError("movement watches training; choose another pruning.criterion here")
    refuse_unused(settings)
    out = Path(settings.out or "runs/sanity").expanduser()
    results = [check_seed(settings, seed, out) for seed in settings.seeds]
    body = []
    for arm in results[0]:
        errors = summarise([r[arm] for r in results])
        change = summarise([100 * (r[arm] / r["keep"] - 1) for r in results])
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
    text = text_table(["arm", "test MAE", "% above keep [95 %]"], body)
    write_atomic(out / "sanity.txt", f"{text}\n".encode())
    print(f"{text}\nWritten: {out / 'sanity.txt'}")
    return out


def check_seed(settings: SanitySettings, seed: int, out: Path) -> dict[str, float]:
    """Test error of every arm of a seed; finished arms are re-used."""
    s = main_job(settings)
    s.seed, s.out = seed, str(out / f"seed{seed}")
    validate(s)
    if s.threads is not None:
        torch.set_num_threads(s.threads)
    job = Job(s, RunFolder(s), choose_device(s.device))
    seed_stage(seed, 1)  # what the dense model below starts from
    start = snapshot(build_model(s, job.dataset))
    job.train_dense()
    job.select_uncertain_graphs()
    dense = job.load("stages/trained.safetensors")
    with np.load(job.folder.path / "stages/selection.npz", allow_pickle=False) as archive:
        scored = DataLoader([job.train[i] for i in archive["selected"].tolist()], 64)
    p = s.pruning
    pruned = prune(
        dense,
        p.criterion,
        p.sparsity,
        data=scored,
        scope=p.scope,
        loss=job.losses,
        batches=len(scored),
        seed=seed,
        round_to=p.round_to,
    )
    path = job.folder.path / "sanity.json"
    errors = read_json(path) if path.exists() else {"dense": error_of(job, dense)}
    for arm, starts_over in ARMS.items():
        if arm in errors:
            continue
        print(f"seed {seed}: {arm}", flush=True)
        model = arm_model(arm, dense, pruned, start, seed)
        torch.manual_seed(seed)
        if starts_over:
            start_over = f"{arm}, from the start"
            job.fit(start_over, model, job.train, s.training.max_epochs, lr=s.training.lr)
        job.fit(arm, model, job.train, s.training.finetune_epochs, lr=s.training.finetune_lr)
        errors[arm] = error_of(job, compact(model))
        write_json(path, errors)
    return errors


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
        return checkpoint.rebuilt(compact(pruned)).to(next(dense.parameters()))
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


def error_of(job: Job, model: nn.Module) -> float:
    """Mean absolute error on the test split."""
    test = job.dataset.split("test")
    y = torch.cat([g.y for g in test]).double()
    return float((point_predictions(model, test, job.device) - y).abs().mean())
