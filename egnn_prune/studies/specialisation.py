"""What a pretrained potential loses and gains when it is made small for one system."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch

from egnn_prune.adapters import (
    AdoptedPotential,
    collapse_linear_readout,
    copies_and_paths,
    drop_odd_paths,
    drop_species,
    from_scratch,
    load,
)
from egnn_prune.configs.specialisation_study import SpecialisationStudySettings
from egnn_prune.evaluation.potential_errors import batch_of_atoms, potential_errors
from egnn_prune.pruning import Context, apply_masks, compact, compensate, score_channels
from egnn_prune.report.studies.specialisation import specialisation_plot, specialisation_table
from egnn_prune.runs.result_store import Row, Rows
from egnn_prune.studies.frame import Results, Study, study_folder
from egnn_prune.studies.specialisation_systems import System, system
from egnn_prune.training import ForceProbes, PotentialLosses
from egnn_prune.training.potential_task import PotentialSettings, fit_potential
from egnn_prune.training.shifts import refit_shifts

#: Shares of the copies and of the paths' cost that go.
SHAPES = {"full": (0.0, 0.0), "conv": (0.75, 0.0), "conv+paths": (0.75, 0.5)}
#: Five sizes for the comparison of scores: shares of the copies; of the paths two thirds as much.
SIZES = (0.3, 0.5, 0.65, 0.75, 0.85)
SCORES = ("force", "taylor", "magnitude", "random")
#: Structures that scores and compensation look at, in batches.
SCORED, BATCH = 50, 10


def run_seed(settings: SpecialisationStudySettings, seed: int) -> list[Row]:
    """All cells of a seed; finished ones are read, not computed again."""
    s = settings
    asked = {"teacher": s.teacher, "train": s.train, "steps": s.steps, "batch_size": s.batch_size}
    rows: list[Row] = []
    for name in s.systems:
        saved = Rows(study_folder(s) / f"{name}-seed{seed}.json", asked, system=name, seed=seed)
        bench = Bench(s, name, seed)
        first = {"part": "odd paths", "arm": "odd paths dropped"}
        saved.fill([first], lambda part, arm, bench=bench: bench.odd())
        saved.fill(fits(s, seed, bench.data()[0].labels), bench.fitted)
        if "scores" in s.parts:
            saved.fill(cuts(s, seed), bench.cut_only)
        rows += saved.rows
    return rows


def fits(settings: SpecialisationStudySettings, seed: int, labels: str) -> list[Row]:
    """The arms that are trained; each learning rate, of which validation chooses.

    Rates are compared for the first seed; the others take what it chose, see :meth:`Bench.fitted`.
    """
    s, first = settings, seed == settings.seeds[0]
    # where the teacher made the labels, it has no error of its own
    shapes = [shape for shape in SHAPES if labels == "data" or shape != "full"]
    arms = [(shape, "inherited", 1, s.rates) for shape in shapes]
    arms.append(("conv+paths", "scratch", 1, s.rates))
    if first:  # at the rate that was best
        arms += [("conv+paths", weights, 5, [0.0]) for weights in ("inherited", "scratch")]
    return [
        {"part": "fits", "arm": shape, "weights": weights, "times": times, "lr": lr}
        for shape, weights, times, rates in arms
        for lr in (rates if first or times > 1 else [0.0])
    ]


def cuts(settings: SpecialisationStudySettings, seed: int) -> list[Row]:
    """The cuts that are compared without training."""
    return [
        {"part": "scores", "arm": score, "conv": conv, "compensated": compensated}
        for conv in SIZES
        for score in SCORES
        for compensated in (False, True)
    ]


class Bench:
    """A system, its teacher, and what is made of it."""

    def __init__(self, settings: SpecialisationStudySettings, name: str, seed: int) -> None:
        self.settings, self.name, self.seed = settings, name, seed

    @cache
    def data(self) -> tuple[System, AdoptedPotential]:
        """The structures, and the teacher of their elements with shifts refitted to them."""
        s = self.settings
        teacher = load(s.teacher)
        found = system(self.name, teacher, s.train, self.seed)
        elements = {int(z) for graph in found.train for z in graph.z}
        teacher = collapse_linear_readout(drop_species(teacher, elements))
        if found.labels == "data":
            refit_shifts(teacher, found.train)
        return found, teacher

    @cache
    def scores(self, kind: str) -> dict[str, Tensor]:
        """Importance of every copy and path of the teacher."""
        found, teacher = self.data()
        batches = [
            Batch.from_data_list(found.train[i : i + BATCH]) for i in range(0, SCORED, BATCH)
        ]
        loss = ForceProbes(self.seed) if kind == "force" else PotentialLosses()
        criterion = {"force": "fisher"}.get(kind, kind)
        generator = torch.Generator().manual_seed(self.seed)
        groups = teacher.channel_groups()
        context = Context(teacher, groups, batches, loss, generator)
        return score_channels(criterion, context)

    def cut(self, conv: float, paths: float, kind: str, compensated: bool) -> AdoptedPotential:
        """A small network, not trained."""
        found, teacher = self.data()
        keep = copies_and_paths(teacher, self.scores(kind), conv, paths)
        batches = [
            Batch.from_data_list(found.train[i : i + BATCH]) for i in range(0, SCORED, BATCH)
        ]
        model = compensate(teacher, keep, batches) if compensated else copy.deepcopy(teacher)
        apply_masks(model, keep)
        small = compact(model)
        assert isinstance(small, AdoptedPotential)
        return small

    def small(self, shape: str) -> AdoptedPotential:
        """An arm's network: cut, compensated where validation says so, shifts refitted."""
        found, teacher = self.data()
        conv, paths = SHAPES[shape]
        if not conv:
            return copy.deepcopy(teacher)
        made = [self.cut(conv, paths, "force", compensated) for compensated in (False, True)]
        best = min(made, key=lambda model: _rmse(model, found.val))
        return best

    def fitted(self, part: str, arm: str, weights: str, times: int, lr: float) -> Row:
        """Train an arm and judge it; a rate of 0 is the one that validation chose before."""
        found, _ = self.data()
        model = self.small(arm)
        before, _ = potential_errors(model, found.test)
        if weights == "scratch":
            model = from_scratch(model, _neighbours(model, found), self.seed)
            refit_shifts(model, found.train)
        chosen = lr or self.chosen(arm, weights)
        how = PotentialSettings(
            steps=self.settings.steps * times,
            lr=chosen,
            batch_size=self.settings.batch_size,
            validations=4 * times,
            ema=0.0,
        )
        label = f"{self.name} {arm} {weights} {chosen:g}"
        result = fit_potential(model, found.train, found.val, how, seed=self.seed, label=label)
        errors, _ = potential_errors(model, found.test)
        return {
            **errors,
            "rate": chosen,
            "before": before["force_rmse_mev_per_angstrom"],
            "val_force_rmse": result.force_rmse,
            "params": sum(p.numel() for p in model.parameters()),
            "train_seconds": result.seconds,
            "best_step": result.best_step,
            "curve": [[row["step"], row["val_force_rmse"]] for row in result.curve],
        }

    def chosen(self, arm: str, weights: str) -> float:
        """The rate with the lowest validation error, of the first seed."""
        s = self.settings
        asked = {
            "teacher": s.teacher,
            "train": s.train,
            "steps": s.steps,
            "batch_size": s.batch_size,
        }
        first = Rows(study_folder(s) / f"{self.name}-seed{s.seeds[0]}.json", asked)
        tried = [
            row
            for row in first.rows
            if row["part"] == "fits"
            and (row["arm"], row["weights"], row["times"]) == (arm, weights, 1)
        ]
        return float(min(tried, key=lambda row: row["val_force_rmse"])["rate"])

    def cut_only(self, part: str, arm: str, conv: float, compensated: bool) -> Row:
        """Force errors of a cut network that was not trained, against the teacher's own forces."""
        found, teacher = self.data()
        model = self.cut(conv, 2 / 3 * conv, arm, compensated)
        return {"change": _change(model, teacher, found)}

    def odd(self) -> Row:
        """What the forces change by when odd paths go."""
        found, teacher = self.data()
        return {"change": _change(drop_odd_paths(teacher), teacher, found)}


def _rmse(model: AdoptedPotential, graphs: Any) -> float:
    errors, _ = potential_errors(model, graphs)
    return float(errors["force_rmse_mev_per_angstrom"] or 0.0)


def _change(model: AdoptedPotential, teacher: AdoptedPotential, found: System) -> float:
    """Root mean square difference of the forces on the test structures, in meV/Angstrom."""
    (_, a), (_, b) = (potential_errors(m, found.test[:50]) for m in (model, teacher))
    return 1000 * float(((a["forces"] - b["forces"]) ** 2).mean() ** 0.5)


def _neighbours(model: AdoptedPotential, found: System) -> float:
    """Mean number of neighbours of an atom."""
    batch = model.prepared(batch_of_atoms(found.train, 500))
    return batch.edge_index.shape[1] / len(batch.pos)


def results(settings: SpecialisationStudySettings, rows: list[Row]) -> Results:
    """A table of arms, and a figure."""
    return Results(rows, specialisation_table(rows), specialisation_plot(rows))


SPECIALISATION: Study[SpecialisationStudySettings] = Study("specialisation", run_seed, results)
