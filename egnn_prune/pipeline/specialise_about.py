"""What ``metrics.json`` says of a run of ``specialise`` beside its results."""

from __future__ import annotations

from typing import Any

import torch
from ase.data import chemical_symbols

from egnn_prune.pipeline.specialise_context import SPLITS, SpecialiseContext
from egnn_prune.system.git import git_commit


def about(job: SpecialiseContext) -> dict[str, Any]:
    """The run, its structures and its error bars."""
    s, dataset = job.settings, job.dataset
    graphs = [g for split in SPLITS for g in dataset.split(split)]
    atoms = [len(g.pos) for g in graphs]
    return {
        "schema_version": 1,
        "kind": "specialise",
        "config_hash": job.folder.hash,
        "git_commit": git_commit(),
        "seed": s.seed,
        "device": str(job.device),
        "threads": torch.get_num_threads(),
        "teacher": s.teacher,
        "labels": s.labels,
        "budget": s.budget,
        "steps": s.training.steps,
        "uncertainty": about_error_bars(job),
        "dataset": {
            "name": dataset.name,
            **{split: len(dataset.splits[split]) for split in SPLITS},
            "elements": [chemical_symbols[z] for z in job.outputs("teacher")["elements"]],
            "atoms": [min(atoms), max(atoms)],
            "periodic": any(g.get("pbc") is not None and bool(g.pbc.any()) for g in graphs),
        },
    }


def about_error_bars(job: SpecialiseContext) -> dict[str, Any]:
    """How the error bars were made, and on how much they were calibrated."""
    u, val = job.settings.uncertainty, job.dataset.split("val")
    if u.method == "none":
        return {"method": "none"}
    return {
        "method": u.method,
        "members": u.members,
        "source": job.outputs("error_bars")["source"],
        "calibration": u.calibration,
        "fitted_on": "val",
        "points": len(val),
        "atoms": sum(len(graph.pos) for graph in val),
    }
