"""What a pretrained potential loses and gains when it is made small for one system."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

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
from egnn_prune.studies.specialisation_speed import latencies
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
    rows: list[Row] = []
    for name in settings.systems:
        saved = saved_rows(settings, name, seed)
        bench = Bench(settings, name, seed)
        saved.fill([{"part": "odd paths", "arm": "odd paths dropped"}], bench.odd)
        if "fits" in settings.parts:
            saved.fill(fits(settings, seed, bench.data[0].labels), bench.fitted)
        if "scores" in settings.parts:
            saved.fill(cuts(bench.data[0].labels), bench.cut_only)
        # the times of the shapes hardly depend on which copies are left, and so not on the seed
        first = (settings.systems[0], settings.seeds[0])
        if "speed" in settings.parts and (name, seed) == first:
            for compiled in (False, True):
                if saved.find(part="speed", compiled=compiled) is None:
                    for row in bench.speed(compiled):
                        saved.add(row)
        rows += saved.rows
    return rows


def saved_rows(settings: SpecialisationStudySettings, name: str, seed: int) -> Rows:
    """What was found of a system and seed so far."""
    shared = ("teacher", "train", "steps", "batch_size")
    asked = {key: getattr(settings, key) for key in shared}
    path = study_folder(settings) / f"{name}-seed{seed}.json"
    return Rows(path, asked, system=name, seed=seed)


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


def cuts(labels: str) -> list[Row]:
    """The cuts that are compared without training."""
    # the loss of labels that the teacher made is flat there: its gradient is rounding
    scores = [score for score in SCORES if labels == "data" or score != "taylor"]
    return [
        {"part": "scores", "arm": score, "conv": conv, "compensated": compensated}
        for conv in SIZES
        for score in scores
        for compensated in (False, True)
    ]


class Bench:
    """A system, its teacher, and what is made of it."""

    def __init__(self, settings: SpecialisationStudySettings, name: str, seed: int) -> None:
        self.settings, self.name, self.seed = settings, name, seed
        self.scored_on: list[Data] = []  #: instead of the first training structures
        self._scores: dict[str, dict[str, Tensor]] = {}
        self._small: dict[str, AdoptedPotential] = {}

    @cached_property
    def data(self) -> tuple[System, AdoptedPotential]:
        """The structures, and the teacher of their elements with shifts refitted to them."""
        s = self.settings
        teacher = load(s.teacher)
        found = self.drawn(teacher)
        elements = {int(z) for graph in found.train for z in graph.z}
        teacher = collapse_linear_readout(drop_species(teacher, elements))
        if found.labels == "data":
            refit_shifts(teacher, found.train)
        return found, teacher

    def drawn(self, teacher: AdoptedPotential) -> System:
        """The structures of the seed; the teacher labels what has no labels."""
        return system(self.name, teacher, self.settings.train, self.seed)

    def scores(self, kind: str) -> dict[str, Tensor]:
        """Importance of every copy and path of the teacher, found once."""
        if kind not in self._scores:
            teacher = self.data[1]
            loss = ForceProbes(self.seed) if kind == "force" else PotentialLosses()
            generator = torch.Generator().manual_seed(self.seed)
            batches = self.batches()
            context = Context(teacher, teacher.channel_groups(), batches, loss, generator)
            criterion = {"force": "fisher"}.get(kind, kind)
            self._scores[kind] = score_channels(criterion, context)
        return self._scores[kind]

    def batches(self) -> list[Batch]:
        """What scores and compensation look at."""
        seen = self.scored_on or self.data[0].train[:SCORED]
        return [Batch.from_data_list(seen[i : i + BATCH]) for i in range(0, len(seen), BATCH)]

    def cut(self, conv: float, paths: float, kind: str, compensated: bool) -> AdoptedPotential:
        """A small network, not trained."""
        teacher = self.data[1]
        keep = copies_and_paths(teacher, self.scores(kind), conv, paths)
        model = compensate(teacher, keep, self.batches()) if compensated else copy.deepcopy(teacher)
        apply_masks(model, keep)
        small = compact(model)
        assert isinstance(small, AdoptedPotential)
        return small

    def best_cut(self, conv: float, paths: float) -> AdoptedPotential:
        """By the force score, not trained, compensated where validation says so."""
        val = self.data[0].val
        made = [self.cut(conv, paths, "force", compensated) for compensated in (False, True)]
        return min(made, key=lambda model: force_rmse(model, val))

    def small(self, shape: str) -> AdoptedPotential:
        """An arm's network, not trained: cut, and compensated where validation says so."""
        conv, paths = SHAPES[shape]
        if not conv:
            return copy.deepcopy(self.data[1])
        if shape not in self._small:
            self._small[shape] = self.best_cut(conv, paths)
        return copy.deepcopy(self._small[shape])

    def fitted(self, part: str, arm: str, weights: str, times: int, lr: float) -> Row:
        """Train an arm and judge it; a rate of 0 is the one that validation chose before."""
        found, _ = self.data
        model = self.small(arm)
        before, _ = potential_errors(model, found.test)
        if weights == "scratch":
            model = from_scratch(model, neighbours(model, found), self.seed)
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
        first = saved_rows(self.settings, self.name, self.settings.seeds[0])
        tried = [
            row
            for row in first.rows
            if row["part"] == "fits"
            and (row["arm"], row["weights"], row["times"]) == (arm, weights, 1)
        ]
        return float(min(tried, key=lambda row: row["val_force_rmse"])["rate"])

    def cut_only(self, part: str, arm: str, conv: float, compensated: bool) -> Row:
        """Force errors of a cut network that was not trained, against the teacher's own forces."""
        found, teacher = self.data
        model = self.cut(conv, 2 / 3 * conv, arm, compensated)
        return {"change": _change(model, teacher, found)}

    def odd(self, part: str, arm: str) -> Row:
        """What the forces change by when odd paths go."""
        found, teacher = self.data
        return {"change": _change(drop_odd_paths(teacher), teacher, found)}

    def speed(self, compiled: bool) -> list[Row]:
        """Times of the teacher and of what is made of it."""
        teacher = self.data[1]
        models = {"dense": teacher, "odd paths dropped": drop_odd_paths(teacher)}
        models |= {shape: self.small(shape) for shape in ("conv", "conv+paths")}
        return latencies(models, self.settings.teacher, compiled=compiled)


def force_rmse(model: nn.Module, graphs: Any) -> float:
    """Root mean square error of forces, in meV/Angstrom."""
    errors, _ = potential_errors(model, graphs)
    return float(errors["force_rmse_mev_per_angstrom"] or 0.0)


def _change(model: AdoptedPotential, teacher: AdoptedPotential, found: System) -> float:
    """Root mean square difference of the forces on the test structures, in meV/Angstrom."""
    (_, a), (_, b) = (potential_errors(m, found.test[:50]) for m in (model, teacher))
    return 1000 * float(((a["forces"] - b["forces"]) ** 2).mean() ** 0.5)


def neighbours(model: AdoptedPotential, found: System) -> float:
    """Mean number of neighbours of an atom."""
    batch = model.prepared(batch_of_atoms(found.train, 500))
    return batch.edge_index.shape[1] / len(batch.pos)


def results(settings: SpecialisationStudySettings, rows: list[Row]) -> Results:
    """A table of arms, and a figure."""
    return Results(rows, specialisation_table(rows), specialisation_plot(rows))


run_specialisation_study = Study("specialisation", run_seed, results)
