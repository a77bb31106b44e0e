"""Which structures of a pool should a specialised potential learn from?

A specialist of 3BPA at 300 K meets a pool of which a part is of a kind that it has not seen: hot
frames, or frames with a stretched bond. Equally many structures are labelled, and the specialist is
trained further on them (with replay, equal steps). Does choosing them by calibrated error bars of
forces beat random choice, and where?

**Fixed before the run.** The number that counts is the force RMSE on rare test structures after
the fine-tuning, minus that of random choice of the same seed, with a 95 % t-interval over the
seeds; the same on ordinary test structures says what was lost. Expected, from a prototype:
uncertain and diverse choices win clearly where the rare part is small (random choice then hardly
finds it: 15 of 200 with 2 % rare hold 0.3 rare structures on average) and by a few percent, or not
at all, where the pool is mostly rare; proportional lies between and loses less on ordinary
structures. A strategy is called better where the interval leaves out zero. Test structures choose
nothing: rate and steps are those of :mod:`egnn_prune.evaluation.improvement`, and the score was
chosen by validation (see :func:`~egnn_prune.evaluation.pool.structure_scores`).
"""

from __future__ import annotations

from functools import cached_property
from typing import cast

from egnn_prune.adapters import AdoptedPotential, load
from egnn_prune.configs.specialisation_study import SpecialisationStudySettings
from egnn_prune.configs.what_to_label_study import WhatToLabelSettings
from egnn_prune.deployment import checkpoint
from egnn_prune.evaluation.atom_error_bars import fit_atom_error_bars
from egnn_prune.evaluation.improvement import SETTINGS, fine_tuned
from egnn_prune.evaluation.pool import choose_structures
from egnn_prune.evaluation.potential_errors import potential_errors
from egnn_prune.report.studies.what_to_label import (
    BEFORE,
    what_to_label_plot,
    what_to_label_table,
)
from egnn_prune.runs.result_store import Row, Rows
from egnn_prune.studies.frame import Results, Study, study_folder
from egnn_prune.studies.specialisation import Bench
from egnn_prune.studies.what_to_label_pools import Pools, pools
from egnn_prune.training import PotentialSettings, fit_potential, refit_shifts
from egnn_prune.training.distillation import label
from egnn_prune.uncertainty import Estimator, SinglePass

SHAPE = "conv+paths"
ASKED = ("teacher", "pool", "label", "train", "test", "start_steps", "steps")


def run_seed(settings: WhatToLabelSettings, seed: int) -> list[Row]:
    """All cells of a seed; finished ones are read, not computed again."""
    rows: list[Row] = []
    asked = {name: getattr(settings, name) for name in ASKED}
    cells: list[Row] = [{"share": 0.0, "strategy": BEFORE}]
    cells += [{"share": x, "strategy": s} for x in settings.shares for s in settings.strategies]
    for kind in settings.kinds:
        path = study_folder(settings) / f"{kind}-seed{seed}.json"
        learner = Learner(settings, kind, seed)
        rows += Rows(path, asked, kind=kind, seed=seed).fill(cells, learner.taught)
    return rows


class Learner:
    """A specialist of a seed, before and after it learned of a pool."""

    def __init__(self, settings: WhatToLabelSettings, kind: str, seed: int) -> None:
        self.settings, self.kind, self.seed = settings, kind, seed
        how = SpecialisationStudySettings(teacher=settings.teacher, train=settings.train)
        self.bench = Bench(how, "3bpa", seed)

    @cached_property
    def teacher(self) -> AdoptedPotential:
        """Labels where no data do."""
        return cast(AdoptedPotential, load(self.settings.teacher))

    @cached_property
    def pools(self) -> Pools:
        """The structures."""
        s = self.settings
        return pools(self.kind, self.teacher, s.train, s.test, self.seed)

    @cached_property
    def start(self) -> AdoptedPotential:
        """The specialist before; kept in the study's folder."""
        path = study_folder(self.settings) / f"start-{self.kind}-seed{self.seed}.safetensors"
        if not path.exists():
            model, found = self.bench.small(SHAPE), self.pools
            refit_shifts(model, found.train)
            how = PotentialSettings(self.settings.start_steps, lr=1e-2, validations=4, ema=0.99)
            fit_potential(
                model, found.train, found.val, how, seed=self.seed, label=f"start {self.seed}"
            )
            refit_shifts(model, found.train)
            checkpoint.save(model, path)
        return cast(AdoptedPotential, checkpoint.load(path))

    @cached_property
    def estimator(self) -> Estimator:
        """The specialist with the error bars that choose."""
        found = SinglePass(self.start)
        fit_atom_error_bars(found, self.pools.train, self.pools.val)
        return found

    def errors(self, model: AdoptedPotential) -> Row:
        """Force errors on both test parts, in meV/Angstrom."""
        row: Row = {}
        for name in ("rare", "common"):
            found, _ = potential_errors(model, getattr(self.pools, f"test_{name}"))
            row[f"{name}_force_rmse"] = found["force_rmse_mev_per_angstrom"]
        return row

    def taught(self, share: float, strategy: str) -> Row:
        """What a specialist knows after the structures that a strategy chose of a pool."""
        if strategy == BEFORE:
            return self.errors(self.start)
        s = self.settings
        pool, rare = self.pools.pool(share, s.pool)
        rows = choose_structures(
            self.estimator, pool, s.label, strategy, train=self.pools.train, seed=self.seed
        )
        chosen = [pool[row] for row in rows]
        if self.pools.labels == "teacher":
            chosen = label(self.teacher, chosen)
        how = PotentialSettings(
            s.steps,
            lr=SETTINGS.lr,
            batch_size=SETTINGS.batch_size,
            validations=SETTINGS.validations,
            ema=SETTINGS.ema,
        )
        # judged by what it learned, which gets better: so the weights of the last step are kept
        model = fine_tuned(self.start, chosen, self.pools.train, chosen, how, seed=self.seed)
        found = {"rare_chosen": sum(row < rare for row in rows), "rare_in_pool": rare}
        return {**found, **self.errors(cast(AdoptedPotential, model))}


def results(settings: WhatToLabelSettings, rows: list[Row]) -> Results:
    """A table of errors and of differences to random choice, and a figure."""
    return Results(rows, what_to_label_table(rows), what_to_label_plot(rows, settings.label))


run_what_to_label = Study("what_to_label", run_seed, results)
