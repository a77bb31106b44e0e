"""One pass of a model over structures, with what it says of every atom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from egnn_prune.channels import evaluating
from egnn_prune.errors import ConfigError
from egnn_prune.graphs import must_check
from egnn_prune.models import (
    energies_and_member_forces,
    energies_member_forces_stress,
    energy_and_forces,
    energy_forces_stress,
)
from egnn_prune.models.forces import sample_count
from egnn_prune.prediction import Prediction, members_of
from egnn_prune.uncertainty import (
    AtomErrorBars,
    Estimator,
    MCDropout,
    ModuleDropout,
    SinglePass,
    dropout_samples,
)
from egnn_prune.uncertainty.estimator import finite


@dataclass(frozen=True)
class AtomPass:
    """What a pass found, before any calibration.

    Attributes:
        prediction: the energies ``[B]``.
        forces: ``[N, 3]``, where they were asked for.
        stress: ``[B, 3, 3]``, where it was.
        features: ``[N, F]``, what the last layer reads of every atom; ``None`` where the network
            does not say.
        spread: ``[N]``, root mean square deviation of the members' force components, where it was
            asked for.
    """

    prediction: Prediction
    forces: Tensor | None
    stress: Tensor | None
    features: Tensor | None
    spread: Tensor | None

    def error_bars(self, bars: AtomErrorBars, z: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Of every atom on the CPU: standard deviations of forces, and distances over the limit.

        Args:
            bars: of this model.
            z: ``[N]``.

        Returns:
            Deviations ``[N]``, ``None`` where they come from members whose forces were not asked
            for; distances ``[N]``; both ``None`` where the network does not say what it sees.
        """
        if self.features is None:
            return None, None
        with torch.no_grad():
            distance = bars.distance(self.features, z)
            distance = distance.cpu() / bars.distance_limit.cpu()
            if bars.source == "members" and self.spread is None:
                return None, distance
            return bars.std(self.features, z, self.spread).cpu(), distance


def atom_pass(
    method: Estimator,
    batch: Batch | Data,
    *,
    forces: bool = True,
    stress: bool = False,
    members: bool = False,
) -> AtomPass:
    """Energies, and forces, stress, features of atoms and the members' spread as asked for.

    Networks of an ensemble give their spread with the forces themselves; members that share a
    network take one pass back each.

    Args:
        method: an uncertainty method, not calibrated.
        batch: the structures, where the network is.
        forces: whether they are computed.
        stress: whether it and the forces are.
        members: whether the members' forces are, and their mean and spread.

    Raises:
        ConfigError: there is one member only.
        DataError: the batch cannot be used.
        InputError: a member's forces are NaN or infinite.
    """
    prediction: Any
    slopes = spread = strain = None
    with atom_features(method.network) as kept:
        if members:
            prediction, several, strain = member_pass(method, batch, stress=stress)
            slopes, spread = several.mean, several.epistemic.mean(-1).sqrt()
        elif stress:
            prediction, slopes, strain = energy_forces_stress(method, batch)
        elif forces:
            prediction, slopes = energy_and_forces(method, batch)
        else:
            with torch.no_grad():
                prediction = method(batch)
            if must_check():
                finite(prediction)
    return AtomPass(prediction, slopes, strain, _averaged(kept, len(batch.pos)), spread)


def member_pass(
    method: Estimator, batch: Batch | Data, *, stress: bool = False
) -> tuple[Prediction, Prediction, Tensor | None]:
    """Energies and forces of every member of a method, and the stress where it is asked for.

    Raises:
        ConfigError: there is only one.
    """
    network = method.network
    if isinstance(method, MCDropout):
        thinned: Any = dropout_samples(network, method.masks())  # as it draws them itself
    else:
        thinned = nullcontext()
    direct = isinstance(method, SinglePass | MCDropout)  # else the method makes the members
    model = network if direct else method
    with thinned:
        if stress:
            return energies_member_forces_stress(model, batch)
        return *energies_and_member_forces(model, batch), None


def atom_energies(method: Estimator, batch: Batch | Data) -> Tensor:
    """Energies of single atoms ``[N]``, whose sums are the energies that a method states.

    Args:
        method: an uncertainty method, not calibrated.
        batch: the structures, where the network is.

    Raises:
        ConfigError: the network's energies are no sums over atoms, or it is thinned where it does
            not say so.
        DataError: the batch cannot be used.
    """
    network: Any = method.network
    if isinstance(method, ModuleDropout):
        raise ConfigError("networks thinned by ModuleDropout state no energies of single atoms")
    thinned: Any = nullcontext()
    if isinstance(method, MCDropout):
        thinned = dropout_samples(network, method.masks())
    with torch.no_grad(), evaluating(network), thinned:
        members: Tensor = network.atom_energies(batch, sample_count(network))
    return members.mean(0)


@contextmanager
def atom_features(network: nn.Module) -> Iterator[list[Tensor]]:
    """Within this context what the last layer reads of atoms is kept, pass by pass.

    Of an ensemble that is what its first network says.
    """
    first = members_of(network)[0]
    kept: list[Tensor] = []
    name = getattr(first, "atom_layer", None)
    if name is None:
        yield kept
        return
    layer = first.get_submodule(name)
    hook = layer.register_forward_hook(lambda _, __, output: kept.append(output.detach()))
    try:
        yield kept
    finally:
        hook.remove()


def _averaged(kept: list[Tensor], atoms: int) -> Tensor | None:
    """Features of every atom ``[N, F]``, over the MC-dropout samples."""
    if not kept:
        return None
    joined = torch.cat(kept)
    return joined.view(-1, atoms, joined.shape[-1]).mean(0)


def has_atom_features(network: nn.Module) -> bool:
    """Whether a network says what its last layer reads of atoms."""
    return getattr(members_of(network)[0], "atom_layer", None) is not None


def need_atom_features(network: nn.Module) -> None:
    """Refuse a network that does not say what its last layer reads of atoms.

    Raises:
        ConfigError: it does not.
    """
    if not has_atom_features(network):
        kind = type(members_of(network)[0]).__name__
        raise ConfigError(
            f"{kind} does not name its atom_layer, whose output error bars of atoms are read from"
        )
