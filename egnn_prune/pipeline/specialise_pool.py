"""A specialised potential learns from a pool: chosen structures, labelled and learned in rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from torch import nn
from torch_geometric.data import Data

from egnn_prune.ase.sampling import atoms_of
from egnn_prune.configs.specialise_settings import SpecialiseSettings
from egnn_prune.deployment import checkpoint
from egnn_prune.errors import ConfigError
from egnn_prune.evaluation.improvement import Improvement, improved
from egnn_prune.evaluation.pool import choose_structures
from egnn_prune.pipeline import specialise_measure as measuring
from egnn_prune.pipeline.run_context import Outputs, say
from egnn_prune.pipeline.specialise_context import (
    LEARNED,
    NEW_LABELS,
    SPECIALISED,
    TEACHER,
    SpecialiseContext,
)
from egnn_prune.pipeline.specialise_pool_file import Pool, read_pool
from egnn_prune.prediction import members_of
from egnn_prune.system import files
from egnn_prune.training import PotentialLosses
from egnn_prune.training.distillation import bare, label
from egnn_prune.uncertainty import Calibrated, Estimator

#: The teacher's force error against the data, over that of the small network, from which its labels
#: are of another level of theory.
DISAGREE = 2.0
#: Labels of a structure.
LABELS = ("y", "forces", "stress")


def refuse_other_level(
    teacher: nn.Module, small: nn.Module, val: Sequence[Data], device: torch.device
) -> float:
    """Refuse a teacher's labels beside data of another level of theory.

    Args:
        teacher: would label the pool.
        small: the specialised network.
        val: structures with labels of the data.
        device: where to run.

    Returns:
        The teacher's force error against the data, in meV/Angstrom.

    Raises:
        ConfigError: it is more than :data:`DISAGREE` times that of the small network.
    """
    theirs, own = (measuring.force_rmse(model, val, device) for model in (teacher, small))
    if theirs > DISAGREE * own:
        raise ConfigError(
            f"the pool has no labels, and the teacher's forces are {theirs:.0f} meV/A from those "
            f"of the data, where the specialised network is at {own:.0f} meV/A: they are of "
            "another level of theory; add energies and forces of the data's method to the pool's "
            "file, or specialise with labels=teacher"
        )
    return theirs


def learn_from_pool(job: SpecialiseContext) -> Outputs:
    """The stage: the pool is read, learned of, and the better model takes the place of the old.

    Returns:
        What ``metrics.json`` says of it.

    Raises:
        InputError: the pool cannot be used, or its labels would be of another level of theory.
    """
    s, dataset = job.settings, job.dataset
    train, val, test = (list(dataset.split(name)) for name in ("train", "val", "test"))
    estimator = checkpoint.load_estimator(job.folder.path / SPECIALISED)
    small: Any = members_of(estimator.network)[0]
    pool = read_pool(s, small.elements, train, [*val, *test])
    if pool.left_out:
        say(f"  {pool.left_out} structures of the pool are in the run, or copies: left out")
    label_them: Callable[[list[Data]], list[Data]] = list
    if not pool.labelled:
        teacher = job.load(TEACHER)
        if s.labels == "data":
            wrong = refuse_other_level(teacher, estimator.network, val, job.device)
            say(
                f"  the pool has no labels: the teacher's, {wrong:.0f} meV/A from the data, with "
                "its energies per element fitted to the data"
            )
        label_them = teachers_labels(teacher, job.device)
    folder = job.folder.path / "stages"
    found, rounds, new = learn(estimator, pool, train, val, label_them, s, folder, job.device)
    write_structures(job.folder.path / NEW_LABELS, new)
    job.save(members_of(found.network)[0], LEARNED)
    if taught := up_to_the_last_accepted(rounds):  # what came later, the network never learned
        model = found if isinstance(found, Calibrated) else found.network
        job.save(model, SPECIALISED, new[:taught])
    labels = "data" if pool.labelled else "teacher"
    size, left = len(pool.graphs), pool.left_out
    about = {"size": size, "left_out": left, "selection": s.selection, "labels": labels}
    return {"pool": {**about, "rounds": rounds}}


def learn(
    estimator: Estimator,
    pool: Pool,
    train: Sequence[Data],
    val: Sequence[Data],
    label_them: Callable[[list[Data]], list[Data]],
    settings: SpecialiseSettings,
    folder: Path,
    device: torch.device,
) -> tuple[Estimator, list[dict[str, Any]], list[Data]]:
    """Choose, label and learn, round by round; rounds that a folder holds are read.

    What was labelled in a round is replayed in the next ones, whether it helped or not.

    Args:
        estimator: the specialised potential with its error bars.
        pool: what to choose from.
        train: labelled structures that it was trained on.
        val: labelled structures that it was calibrated on.
        label_them: copies of structures with labels.
        settings: of the run.
        folder: where each round is kept.
        device: where to run.

    Returns:
        The potential after the last round, what happened in each, and all labelled structures.
    """
    t = settings.training
    results: list[dict[str, Any]] = []
    labelled: list[Data] = []
    taken: list[int] = []
    counts = [len(part) for part in np.array_split(np.arange(settings.label), settings.rounds)]
    for number, count in enumerate(counts, 1):
        marker = folder / f"pool_round{number}.json"
        model, arrays = (marker.with_suffix(suffix) for suffix in (".safetensors", ".npz"))
        if marker.exists():
            kept = files.read_json(marker)
            new = read_labels(arrays, [pool.graphs[row] for row in kept["rows"]])
            if kept["result"]["accepted"]:
                estimator = checkpoint.load_estimator(model)
        else:
            left = [row for row in range(len(pool.graphs)) if row not in set(taken)]
            rows = choose_structures(
                estimator,
                [pool.graphs[row] for row in left],
                count,
                settings.selection,
                train=[*train, *labelled],
                seed=settings.seed + number,
                device=device,
            )
            chosen = [left[row] for row in rows]
            new = label_them([pool.graphs[row] for row in chosen])
            found = improved(
                estimator,
                new,
                [*train, *labelled],
                val,
                seed=settings.seed + number,
                device=device,
                losses=PotentialLosses(t.energy_weight, stress_weight=t.stress_weight),
            )
            estimator = found.estimator
            if found.accepted:
                checkpoint.save(estimator, model, target="energy", unit="eV")
            write_labels(arrays, new)
            kept = {"rows": chosen, "result": round_of(found, count)}
            files.write_json(marker, kept)  # last: what it stands for is complete
        taken += kept["rows"]
        labelled += new
        results.append(kept["result"])
        say(f"  round {number} of {settings.rounds}: {sentence(kept['result'])}")
    return estimator, results, labelled


def up_to_the_last_accepted(rounds: Sequence[dict[str, Any]]) -> int:
    """How many structures were labelled up to the last round whose network was kept."""
    accepted = [number for number, result in enumerate(rounds, 1) if result["accepted"]]
    return sum(result["labelled"] for result in rounds[: max(accepted, default=0)])


def round_of(found: Improvement, count: int) -> dict[str, Any]:
    """What ``metrics.json`` says of a round; errors in meV/Angstrom."""
    unit = "mev_per_angstrom"
    return {
        "labelled": count,
        "accepted": found.accepted,
        "reason": found.reason,
        f"force_rmse_new_before_{unit}": found.before["new"],
        f"force_rmse_new_after_{unit}": found.after["new"],
        f"force_rmse_val_before_{unit}": found.before["old"],
        f"force_rmse_val_after_{unit}": found.after["old"],
    }


def sentence(result: dict[str, Any]) -> str:
    """A round in words."""
    errors = {
        part: [result[f"force_rmse_{part}_{when}_mev_per_angstrom"] for when in ("before", "after")]
        for part in ("new", "val")
    }
    said = "; ".join(
        f"{name} {errors[part][0]:.1f} to {errors[part][1]:.1f}"
        for name, part in (("held-out new ones", "new"), ("validation", "val"))
    )
    end = "" if result["accepted"] else f": the network stays as it was, since {result['reason']}"
    return f"{result['labelled']} structures labelled; force errors (meV/A): {said}{end}"


def write_labels(path: Path, graphs: Sequence[Data]) -> None:
    """Keep the labels of structures."""
    found = {
        name: torch.cat([graph[name] for graph in graphs]).numpy()
        for name in LABELS
        if all(graph.get(name) is not None for graph in graphs)
    }
    files.write_arrays(path, **found)


def read_labels(path: Path, graphs: Sequence[Data]) -> list[Data]:
    """Structures with the labels that :func:`write_labels` kept."""
    arrays = {name: torch.from_numpy(value) for name, value in files.read_arrays(path).items()}
    sizes = [len(graph.pos) for graph in graphs]
    parts = {name: value.split(sizes if name == "forces" else 1) for name, value in arrays.items()}
    found = []
    for k, graph in enumerate(graphs):
        out = bare(graph)
        for name, values in parts.items():
            out[name] = values[k]
        found.append(out)
    return found


def write_structures(path: Path, graphs: Sequence[Data]) -> None:
    """Write labelled structures as extended XYZ, in eV and Angstrom."""
    made = []
    for graph in graphs:
        atoms = atoms_of(graph)
        atoms.calc = SinglePointCalculator(
            atoms, energy=float(graph.y), forces=graph.forces.double().numpy()
        )
        made.append(atoms)
    with files.atomic(path) as temporary:
        ase.io.write(temporary, made, format="extxyz")


def teachers_labels(teacher: nn.Module, device: torch.device) -> Callable[..., list[Data]]:
    """Labels of structures by a teacher."""
    return lambda graphs: label(teacher, graphs, device=device, progress="labels of the pool")
