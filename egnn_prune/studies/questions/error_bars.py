"""Error bars of a network of the study: fitted, moved to another network, judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from egnn_prune.adapters import AdoptedPotential
from egnn_prune.evaluation.atom_error_bars import BATCH, rank_correlation, rms_of_structures
from egnn_prune.runs.result_store import Row
from egnn_prune.studies.questions.networks import Networks
from egnn_prune.studies.specialist_methods import READOUTS, SOURCES, Laws, Seen, look_at
from egnn_prune.uncertainty import (
    Estimator,
    PredictionRigidity,
    ReadoutEnsemble,
    SinglePass,
)


@dataclass(frozen=True)
class ErrorBars:
    """A method on a network (or a committee), with the training structures as it sees them."""

    methods: Sequence[Estimator]
    train: Seen
    laws: Laws

    @classmethod
    def fitted(
        cls, networks: Networks, models: Sequence[AdoptedPotential], method: str
    ) -> ErrorBars:
        """Of the validation structures."""
        methods = [_method(networks, model, method) for model in models]
        found = networks.found
        train, val = (look_at(methods, part, method) for part in (found.train, found.val))
        y = torch.cat([graph.y.double() for graph in found.val])
        return cls(methods, train, Laws.fitted(SOURCES[method], train, val, y))

    def of(self, networks: Networks, model: AdoptedPotential) -> ErrorBars:
        """These laws on another network, as one has who does not calibrate again."""
        methods = [_method(networks, model, "last_layer")]
        train = look_at(methods, networks.found.train, "training")
        return ErrorBars(methods, train, self.laws.moved_to(train))

    def look(self, graphs: Sequence[Data]) -> Seen:
        """What the method says of structures before calibration."""
        return look_at(self.methods, graphs, "structures")

    def judged(self, graphs: Sequence[Data]) -> Row:
        r"""How true the error bars are.

        With :math:`z = e / \sigma` of force components, ``m`` is their mean square and ``log_std``
        the mean logarithm of :math:`\sigma` in eV/Angstrom: :math:`\tfrac12 (m - 1 - \ln m)` is
        what miscalibration costs in negative log-likelihood, :math:`\ln \sigma + \tfrac12 \ln m`
        (plus a constant) what is left where the best factor is put right.
        """
        seen = self.look(graphs)
        std, wrong = self.laws.forces_std(seen), seen.atoms.wrong.double()
        half = self.laws.atoms.half_width(std, seen.atoms.z, 0.9)
        size = wrong.square().sum(1).sqrt()
        y = torch.cat([graph.y.double() for graph in graphs])
        energy_z = (seen.energies.mean.double() - y) / self.laws.energy_std(seen)
        low, high = self.laws.energies.interval(seen.energies, 0.9)
        return {
            "m": float((wrong.square() / std.square()[:, None]).mean()),
            "log_std": float(std.log().mean()),
            "force_rmse": 1000 * float(wrong.square().mean().sqrt()),
            "coverage_90": float((wrong.abs() <= half[:, None]).double().mean()),
            "spearman": rank_correlation(std, size),
            "energy_m": float(energy_z.square().mean()),
            "energy_coverage_90": float(((low <= y) & (y <= high)).double().mean()),
        }

    def of_structures(self, graphs: Sequence[Data]) -> tuple[Tensor, Tensor]:
        """Root mean square error bars of structures' forces (eV/Angstrom), mean distances."""
        seen = self.look(graphs)
        structure = seen.atoms.structure
        std = rms_of_structures(self.laws.forces_std(seen), structure)
        sums = std.new_zeros(len(std)).index_add(0, structure, self.laws.distance(seen).to(std))
        return std, sums / structure.bincount()


def _method(networks: Networks, model: AdoptedPotential, method: str) -> Estimator:
    if method == "committee":
        return SinglePass(model)
    made = {
        "last_layer": PredictionRigidity(model),
        "shallow": ReadoutEnsemble(model, READOUTS, networks.seed),
    }
    return made[method].fit(DataLoader(networks.found.train, BATCH))
