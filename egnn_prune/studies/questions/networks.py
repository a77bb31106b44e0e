"""The networks that the questions share: cut and trained once, and kept as files."""

from __future__ import annotations

import copy
import math
import time
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from egnn_prune.adapters import (
    AdoptedPotential,
    from_scratch,
)
from egnn_prune.configs.specialisation_study import SpecialisationStudySettings
from egnn_prune.deployment import checkpoint
from egnn_prune.evaluation.potential_errors import potential_errors
from egnn_prune.models import IrrepsOptions, PropertyModel, TargetScale
from egnn_prune.runs.result_store import Row
from egnn_prune.studies.questions.forms import Form
from egnn_prune.studies.questions.structures import structures
from egnn_prune.studies.specialisation import Bench, neighbours
from egnn_prune.studies.specialisation_systems import System
from egnn_prune.training.distillation import augmented, label
from egnn_prune.training.potential_task import PotentialSettings, fit_potential
from egnn_prune.training.shifts import refit_shifts

TEACHER = "7net-0"
#: The share of the copies that goes where a question does not vary it; of the paths two thirds.
SHARE = 0.75
#: How many times the steps of all others the network ``longer`` takes.
LONGER = 3


class Networks(Bench):
    """A system of a seed: its structures, the teacher, cuts of it, and networks trained further.

    Args:
        form: how many structures and steps.
        folder: where trained networks are kept.
        name: of the system.
        seed: of structures and fits.
        train: training structures, if not those of the form.
    """

    def __init__(
        self, form: Form, folder: Path, name: str, seed: int, train: int | None = None
    ) -> None:
        train = train or form.train
        super().__init__(SpecialisationStudySettings(teacher=TEACHER, train=50), name, seed)
        self.form, self.folder, self.train = form, folder, train
        self._kept: dict[str, AdoptedPotential] = {}

    def drawn(self, teacher: AdoptedPotential) -> System:
        """The structures; all have labels."""
        return structures(self.form, self.name, self.seed, self.train)

    @property
    def found(self) -> System:
        """The structures."""
        return self.data[0]

    def cut_at(self, share: float) -> AdoptedPotential:
        """A cut, not trained, compensated where validation says so; 0 is the teacher."""
        if not share:
            return copy.deepcopy(self.data[1])
        return self.best_cut(share, 2 / 3 * share)

    def network(self, which: str) -> AdoptedPotential:
        """A trained network: ``full``, ``small@0.75``, ``member1@0.75``, ``distilled@0.75``.

        ``scratch@0.75`` and ``longer@0.75`` have the small shape and fresh weights, the second one
        three times the steps. A number behind the name is the share of the copies that is gone.
        """
        if which not in self._kept:
            steps, rate = self._budget(which.partition("@")[0])
            how = f"{steps}x{rate:g}"
            path = self.folder / f"{self.name}{self.train}-{which}-{how}-{self.seed}.safetensors"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                checkpoint.save(self._made(which), path, target="energy", unit="eV")
            self._kept[which] = cast(AdoptedPotential, checkpoint.load(path)).eval()
        return self._kept[which]

    def _made(self, which: str) -> AdoptedPotential:
        kind, _, share = which.partition("@")
        found, model, seed = self.found, self.cut_at(float(share or 0)), self.seed
        if kind in ("scratch", "longer"):
            model = self.fresh(model)
        if kind == "distilled":
            found = self._distilled()
        if kind.startswith("member"):
            seed = 1000 * int(kind.removeprefix("member")) + self.seed
            rows = np.random.default_rng(seed).integers(len(found.train), size=len(found.train))
            found = System(found.name, [found.train[i] for i in rows], found.val, [], "data")
        steps, rate = self._budget(kind)
        fitted(model, found, steps, rate, seed, f"{self.name} {which} {self.seed}")
        return model

    def _budget(self, kind: str) -> tuple[int, float]:
        """Optimiser steps of a kind of network, and its learning rate."""
        form = self.form
        if kind in ("scratch", "longer"):
            return form.steps * (LONGER if kind == "longer" else 1), form.scratch_rate
        return form.steps, form.full_rate if kind == "full" else form.small_rate

    def _distilled(self) -> System:
        """The training structures and rattled copies, labelled by the full network."""
        found, full = self.found, self.network("full")
        copies = augmented(found.train, rattles=(0.03, 0.08), strains=0, seed=self.seed)
        return System(found.name, label(full, copies), label(full, found.val), [], "teacher")

    def fresh(self, model: AdoptedPotential) -> AdoptedPotential:
        """The same shape from fresh weights, in the data's own units of forces and neighbours."""
        new = from_scratch(model, neighbours(model, self.found), self.seed)
        new.atom_scale.fill_(self.force_size)
        refit_shifts(new, self.found.train)
        return new

    def other_shape(self) -> PropertyModel:
        """A small network of this package with fresh weights."""
        elements = sorted({int(z) for graph in self.found.train for z in graph.z})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = PropertyModel.build_irreps(
                elements,
                copies=32,
                layers=3,
                radial=32,
                hidden=32,
                pool="sum",
                options=IrrepsOptions(cutoff=5.0, lmax=2),
                scale=TargetScale((0.0,) * len(elements), scale=self.force_size),
            )
        refit_shifts(model, self.found.train)
        return model

    @cached_property
    def force_size(self) -> float:
        """Root mean square component of the training forces, in eV/Angstrom."""
        forces = torch.cat([graph.forces.double() for graph in self.found.train])
        return math.sqrt(float(forces.square().mean()))


def fitted(
    model: nn.Module,
    found: System,
    steps: int,
    rate: float,
    seed: int,
    text: str,
    freeze: tuple[str, ...] = (),
    validations: int | None = None,
) -> Row:
    """Train a network in place; it ends with the weights that were best on validation.

    With ``validations=1`` these are those of the last step (or of the first, were they better).

    Returns:
        ``val`` (meV/Angstrom), ``best_step``, processor ``seconds``, and the ``curve`` of steps and
        validation errors.
    """
    looks = validations or max(4, steps // 100)
    how = PotentialSettings(steps=steps, lr=rate, validations=looks, ema=0.0, freeze=freeze)
    start = time.process_time()
    result = fit_potential(model, found.train, found.val, how, seed=seed, label=text)
    curve = [[int(row["step"]), round(row["val_force_rmse"], 2)] for row in result.curve]
    return {
        "val": result.force_rmse,
        "best_step": result.best_step,
        "seconds": time.process_time() - start,
        "curve": curve,
    }


def judged(model: nn.Module, graphs: Any) -> Row:
    """``force_rmse`` (meV/Angstrom), ``energy_mae`` (meV/atom) and ``params`` of a network."""
    errors, _ = potential_errors(model, graphs)
    return {
        "force_rmse": errors["force_rmse_mev_per_angstrom"],
        "energy_mae": errors["energy_mae_mev_per_atom"],
        "params": sum(p.numel() for p in model.parameters()),
    }
