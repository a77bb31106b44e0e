"""Methods of uncertainty as the study of error bars compares them: the same steps for all."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from egnn_prune.deployment.atom_pass import atom_pass
from egnn_prune.evaluation.atom_error_bars import BATCH, batches
from egnn_prune.graphs import graph_of_node
from egnn_prune.prediction import Prediction
from egnn_prune.studies.specialist_networks import Specialists
from egnn_prune.uncertainty import (
    AtomErrorBars,
    AtomEvidence,
    Calibration,
    Estimator,
    PredictionRigidity,
    SinglePass,
    VarianceScaling,
)

#: By method, what the error bars of forces are read from.
SOURCES = {"last_layer": "distance", "committee": "members"}


@dataclass(frozen=True)
class Seen:
    """What a method says of structures before calibration.

    Attributes:
        energies: ``[B]``, in eV.
        atoms: of every atom; ``wrong`` is NaN where the structures have no labels.
    """

    energies: Prediction
    atoms: AtomEvidence


@dataclass(frozen=True)
class Laws:
    """What turns scores into error bars.

    Attributes:
        energies: the calibration of energies.
        atoms: error bars of forces.
        energy_limit: the epistemic deviation that 99 % of the structures which the laws were fitted
            on stay below, in eV: the old flag's threshold.
    """

    energies: Calibration
    atoms: AtomErrorBars
    energy_limit: Tensor

    @classmethod
    def fitted(cls, source: str, train: Seen, val: Seen, y: Tensor) -> Laws:
        """Distances from training structures; laws, quantiles and limits from validation ones."""
        energies = VarianceScaling().fit(val.energies, y)
        atoms = AtomErrorBars(source).fit(train.atoms, val.atoms)
        limit = energies(val.energies).ood_variance.sqrt().quantile(0.99)
        return cls(energies, atoms, limit)

    def moved_to(self, train: Seen) -> Laws:
        """The same laws, with distances from the training structures as another network sees them.

        What a user has who prunes or fine-tunes a network and does not calibrate again.
        """
        atoms = copy.deepcopy(self.atoms)
        atoms.distance.fit(train.atoms.features, train.atoms.z)
        return Laws(self.energies, atoms, self.energy_limit)

    def energy_std(self, seen: Seen) -> Tensor:
        """Calibrated deviation of every energy, ``[B]``."""
        std: Tensor = self.energies(seen.energies).variance.sqrt()
        return std.double()

    def forces_std(self, seen: Seen) -> Tensor:
        """Calibrated deviation of every atom's force, ``[N]``."""
        return self.atoms.std(seen.atoms.features, seen.atoms.z, seen.atoms.spread)

    def distance(self, seen: Seen) -> Tensor:
        """Of every atom from the training atoms, in units of the limit, ``[N]``."""
        found = self.atoms.distance(seen.atoms.features, seen.atoms.z)
        return found / self.atoms.distance_limit


def estimators(method: str, specialists: Specialists, which: str) -> list[Estimator]:
    """What a method needs of a network: itself with a posterior, or a committee beside it."""
    if method == "last_layer":
        rigidity = PredictionRigidity(specialists.network(which))
        return [rigidity.fit(DataLoader(specialists.found.train, BATCH))]
    assert which == "small", "only specialists have committees here"
    return [SinglePass(specialists.network(name)) for name in specialists.committee]


@torch.no_grad()
def look(methods: Sequence[Estimator], batch: Batch | Data) -> Seen:
    """One batch; several methods are the members of a committee."""
    found = [atom_pass(method, batch) for method in methods]
    energies, spread = found[0].prediction.detach(), None
    slopes = torch.stack([part.forces.double() for part in found if part.forces is not None])
    if len(found) > 1:
        energies = Prediction.from_members(torch.stack([p.prediction.mean.detach() for p in found]))
        spread = Prediction.from_members(slopes).epistemic.mean(-1).sqrt()
    forces, features = slopes.mean(0), found[0].features
    assert features is not None
    labels = batch.get("forces")
    wrong = torch.full_like(forces, torch.nan) if labels is None else forces - labels.double()
    return Seen(energies, AtomEvidence(features, batch.z, graph_of_node(batch), wrong, spread))


def look_at(methods: Sequence[Estimator], graphs: Sequence[Data], text: str) -> Seen:
    """Structures that are all periodic, or none."""
    parts = [look(methods, batch) for batch in batches(graphs, text)]
    energies = Prediction.cat([part.energies for part in parts])
    return Seen(energies, AtomEvidence.cat([part.atoms for part in parts]))
