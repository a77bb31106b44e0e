"""The networks and structures of the study of error bars: made when first needed, kept as files."""

from __future__ import annotations

import copy
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk
from torch_geometric.data import Data

from egnn_prune.adapters import (
    AdoptedPotential,
    collapse_linear_readout,
    drop_species,
    load,
)
from egnn_prune.ase.structures import graph_of
from egnn_prune.configs.specialisation_study import SpecialisationStudySettings
from egnn_prune.configs.specialist_error_bars_study import SpecialistErrorBarsStudySettings
from egnn_prune.deployment import checkpoint
from egnn_prune.studies.frame import study_folder
from egnn_prune.studies.out_of_distribution_structures import (
    Changed,
    broken,
    changed,
    cluster,
    other_molecules,
    stretched,
    vacancy,
)
from egnn_prune.studies.specialisation import Bench
from egnn_prune.studies.specialisation_systems import System, frames_of_3bpa
from egnn_prune.training.distillation import label
from egnn_prune.training.potential_task import PotentialSettings, fit_potential
from egnn_prune.training.shifts import refit_shifts

#: Systems whose labels are the teacher's own: fewer structures and steps.
LABELLED = ("silicon", "water")
#: Share of the specialist's steps, and learning rate, of both networks that are fine-tuned; the
#: rates are those that validation chose in the study of specialised potentials.
FITS = {"full": (0.5, 3e-3), "small": (1.0, 1e-2)}
#: Structures of silicon: cells of two atoms on an edge, and how far atoms are shaken, in Angstrom.
CELLS, SHAKEN, HOTTER = 2, 0.08, 0.2
#: Of silicon: for every choice, and for what is reported.
VALIDATION, TESTED = 40, 60


class Specialists:
    """A system of a seed: its structures, and networks that are trained where no file has them.

    Args:
        settings: of the study.
        name: of the system.
        seed: of the draw of structures and of the fits.
    """

    def __init__(self, settings: SpecialistErrorBarsStudySettings, name: str, seed: int) -> None:
        self.settings, self.name, self.seed = settings, name, seed
        self._networks: dict[str, AdoptedPotential] = {}

    @cached_property
    def bench(self) -> Bench:
        """The teacher, and cuts of it."""
        train = self.settings.labelled if self.name in LABELLED else self.settings.train
        own = SpecialisationStudySettings(teacher=self.settings.teacher, train=train)
        return (_Silicon if self.name == "silicon" else Bench)(own, self.name, self.seed)

    @property
    def found(self) -> System:
        """Structures with labels."""
        return self.bench.data[0]

    @property
    def committee(self) -> list[str]:
        """Specialists trained on bootstraps of the same structures, for systems with data."""
        count = 1 if self.name in LABELLED else self.settings.members
        return ["small", *(f"member{k}" for k in range(1, count))]

    def network(self, which: str) -> AdoptedPotential:
        """One of ``full`` (fine-tuned), ``cut`` (not), ``small`` (fine-tuned), ``member1``, ..."""
        if which not in self._networks:
            folder = self.settings.models or str(study_folder(self.settings) / "models")
            path = Path(folder).expanduser() / f"{self.name}-{which}-{self.seed}.safetensors"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                checkpoint.save(self._made(which), path, target="energy", unit="eV")
            found = checkpoint.load(path)
            assert isinstance(found, AdoptedPotential)
            self._networks[which] = found.eval()
        return self._networks[which]

    def _made(self, which: str) -> AdoptedPotential:
        train, val = self.found.train, self.found.val
        if which == "full" and self.found.labels == "teacher":
            return self.bench.small("full")  # it has no error of its own
        if which in ("full", "cut"):
            model = self.bench.small("full" if which == "full" else "conv+paths")
            refit_shifts(model, train)
        if which == "cut":
            return model
        if which != "full":
            model = copy.deepcopy(self.network("cut"))
        share, rate = FITS["full" if which == "full" else "small"]
        share *= 1 / 3 if self.name in LABELLED else 1.0
        how = PotentialSettings(
            steps=max(1, round(share * self.settings.steps)), lr=rate, validations=4, ema=0.99
        )
        seed, seen = self.seed, train
        if which.startswith("member"):
            seed = 1000 * int(which.removeprefix("member")) + self.seed
            rows = np.random.default_rng(seed).integers(len(train), size=len(train))
            seen = [train[i] for i in rows]
        text = f"{self.name} {which} {self.seed}"
        fit_potential(model, seen, val, how, seed=seed, label=text)
        refit_shifts(model, train)
        return model

    @cached_property
    def kinds(self) -> dict[str, list[Changed]]:
        """Structures by kind: ``test`` is like the training, the others are not."""
        test, count, seed = self.found.test, self.settings.structures, 7000 + self.seed
        kinds = {"test": [Changed(graph) for graph in test]}
        if hotter := self._hotter():
            kinds["hotter"] = [Changed(graph) for graph in hotter]
        changes = {"stretched bond": stretched, "broken bond": broken}
        if self.name in LABELLED:
            changes["vacancy"] = vacancy
        else:
            changes["cluster"] = cluster
        for kind, change in changes.items():
            if made := changed(change, test, count, seed):
                kinds[kind] = made
        elements = sorted({int(z) for graph in self.found.train for z in graph.z})
        return kinds | other_molecules(elements, test[0], count, seed)

    def _hotter(self) -> list[Data]:
        """With labels: 3BPA at up to 1200 K without frames of 300 K, or silicon shaken more."""
        draws = np.random.default_rng(8000 + self.seed)
        if self.name == "3bpa":
            cold = {graph.pos.numpy().tobytes() for graph in frames_of_3bpa("train_300K")}
            hot = frames_of_3bpa("train_mixedT")
            hot = [graph for graph in hot if graph.pos.numpy().tobytes() not in cold]
            return [hot[i] for i in draws.permutation(len(hot))[: 2 * self.settings.structures]]
        if self.name == "silicon":
            made = shaken_silicon(self.settings.structures, HOTTER, draws)
            return label(self.bench.data[1], made)
        return []


class _Silicon(Bench):
    """Shaken crystals that the teacher labels."""

    @cached_property
    def data(self) -> tuple[System, AdoptedPotential]:
        teacher = collapse_linear_readout(drop_species(load(self.settings.teacher), [14]))
        parts = {"train": self.settings.train, "val": VALIDATION, "test": TESTED}
        made: dict[str, list[Data]] = {}
        for number, (part, count) in enumerate(parts.items()):
            # test structures are those of all seeds
            draws = np.random.default_rng(999 if part == "test" else 10 * self.seed + number)
            made[part] = label(teacher, shaken_silicon(count, SHAKEN, draws))
        return System("silicon", **made, labels="teacher"), teacher


def shaken_silicon(count: int, size: float, draws: np.random.Generator) -> list[Data]:
    """Periodic crystals whose atoms are moved by normal draws.

    Args:
        count: of them.
        size: standard deviation of each coordinate, in Angstrom.
        draws: the random numbers.
    """
    crystal, found = bulk("Si") * (CELLS, CELLS, CELLS), []
    for _ in range(count):
        graph = graph_of(crystal)
        graph.pos += size * torch.from_numpy(draws.normal(size=crystal.positions.shape))
        found.append(graph)
    return found
