"""Error bars of the forces on single atoms, and whether an atom is like those of the training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from egnn_prune.errors import ConfigError, InputError
from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty.atom_distance import AtomDistance
from egnn_prune.uncertainty.calibration.base import checked_coverage
from egnn_prune.uncertainty.calibration.points import MIN_POINTS
from egnn_prune.uncertainty.calibration.power import PowerVariance

#: What the error bar of an atom is read from.
SOURCES = ("distance", "members")
#: Atoms of an element, at least, for a map of its own; fewer share that of all atoms.
OWN_MAP = 30
#: Coverages whose intervals are kept; others lie between.
LEVELS = torch.cat([torch.arange(1, 100) / 100, torch.tensor([0.995, 0.999])]).double()
#: Share of validation structures without any atom beyond the limits.
WITHIN = 0.99
#: The least score, as a share of the median one: members may agree on an atom by symmetry.
FLOOR = 1e-3


@dataclass(frozen=True)
class AtomEvidence:
    """What error bars of forces are fitted to: atoms of structures with known forces.

    Attributes:
        features: ``[N, F]``, what the network's last layer reads of every atom.
        z: ``[N]``, elements.
        structure: ``[N]``, the structure that every atom belongs to.
        wrong: ``[N, 3]``, predicted less true forces, in the target's unit per unit of length.
        spread: ``[N]``, standard deviation of the members' forces, as the root mean square over
            the components; ``None`` for a single network.
    """

    features: Tensor
    z: Tensor
    structure: Tensor
    wrong: Tensor
    spread: Tensor | None = None

    @classmethod
    def cat(cls, parts: Sequence[AtomEvidence]) -> AtomEvidence:
        """Evidence of several lists of structures as of one.

        Raises:
            InputError: there is none.
        """
        if not parts:
            raise InputError("error bars of forces are fitted on structures; there are none")
        found: dict[str, Any] = {}
        for field in fields(cls):
            columns = [getattr(part, field.name) for part in parts]
            found[field.name] = None if columns[0] is None else torch.cat(columns)
        first, structures = 0, []
        for part in parts:
            structures.append(part.structure + first)
            first += int(part.structure.max()) + 1
        return cls(**found | {"structure": torch.cat(structures)})


class AtomErrorBars(nn.Module):
    r"""Standard deviation of the force on every atom, and a limit beyond which it is strange.

    A score s of each atom, either the distance of its features from the training atoms'
    (:class:`~egnn_prune.uncertainty.AtomDistance`: no pass more) or the spread of the members'
    forces, becomes one standard deviation for all components of its force,

    .. math:: \sigma_i^2 = e^{a_z} s_i^{2 b_z},

    with a law for each element (:class:`~egnn_prune.uncertainty.PowerVariance`), so that error
    bars turn with the structure. Errors of forces have longer tails than a Gaussian, so intervals
    are :math:`\pm q_z(c)\, \sigma_i` with the quantiles q of the validation atoms'
    :math:`|e| / \sigma` at the coverage c. A structure is strange where one of its atoms is
    farther away than any atom of 99 % of the validation structures.

    Args:
        source: ``"distance"`` or ``"members"``.
        elements: atomic numbers with a law of their own; :meth:`fit` finds them.
        width: of the features; :meth:`fit` finds it.

    Raises:
        ConfigError: there is no such source.
    """

    scale: Tensor
    floor: Tensor
    quantiles: Tensor
    distance_limit: Tensor
    std_limit: Tensor

    def __init__(self, source: str = "distance", elements: Sequence[int] = ()) -> None:
        super().__init__()
        if source not in SOURCES:
            known = " or ".join(SOURCES)
            raise ConfigError(f"error bars of forces come from {known}, not {source!r}")
        self.source = source
        self.distance = AtomDistance()
        self._named(elements)
        for name in ("scale", "floor", "distance_limit", "std_limit"):
            self.register_buffer(name, torch.ones(1, dtype=torch.float64))
        self.register_buffer("quantiles", torch.empty(0, len(LEVELS), dtype=torch.float64))

    def _named(self, elements: Sequence[int]) -> None:
        self.elements = tuple(int(z) for z in elements)
        self.laws = nn.ModuleDict({name: PowerVariance() for name in ("all", *map(str, elements))})

    def settings(self) -> dict[str, Any]:
        """Constructor arguments, as plain JSON."""
        return {"source": self.source, "elements": list(self.elements)}

    def fit(self, train: AtomEvidence, val: AtomEvidence) -> Self:
        """Distances from training atoms, laws and limits from validation ones.

        Args:
            train: the structures that the network was trained on.
            val: structures that it was *not* trained on.

        Raises:
            ConfigError: the source is members, and there is one only.
            InputError: there are too few atoms, a number is NaN or infinite, or all forces are
                exact.
        """
        for name, evidence in (("training", train), ("validation", val)):
            if 3 * len(evidence.z) < MIN_POINTS:
                count = len(evidence.z)
                raise InputError(f"error bars of forces need more {name} atoms than {count}")
            if not bool(evidence.wrong.isfinite().all()):
                raise InputError(f"a force of the {name} structures is NaN or infinite")
        if not bool(val.wrong.any()):
            raise InputError(
                "every validation force is exact, so no error bar fits them; calibrate on labels "
                "that the model did not make itself"
            )
        self.distance.fit(train.features, train.z)
        self.scale = self.floor = torch.zeros(1, dtype=torch.float64)
        self.scale = self.scale + self._scale(train)
        score = self.score(val.features, val.z, val.spread)
        self.floor = FLOOR * score[score.isfinite()].median()[None]
        score = self.score(val.features, val.z, val.spread)
        counts = {int(z): int((val.z == z).sum()) for z in val.z.unique()}
        self._named([z for z, n in counts.items() if n >= OWN_MAP])
        wrong = val.wrong.double()
        known = score.isfinite()
        for name, law in self.laws.items():
            own = known & ((val.z == int(name)) if name != "all" else True)
            variance = score[own].square().repeat_interleave(wrong.shape[1])
            law.store(score, **law.fit_residuals(wrong[own].flatten(), variance))
        std = self.std(val.features, val.z, val.spread)
        ratio = wrong.abs() / std[:, None]
        parts = [ratio[known], *(ratio[known & (val.z == z)] for z in self.elements)]
        self.quantiles = torch.stack([part.flatten().quantile(LEVELS) for part in parts])
        self.distance_limit = _limit(self.distance(val.features, val.z), val.structure)[None]
        self.std_limit = _limit(std, val.structure)[None]
        return self

    def _scale(self, train: AtomEvidence) -> float:
        """What makes a score a deviation before any validation: the size of training errors."""
        if self.source == "members":
            return 1.0
        size = train.wrong.double().square().mean()
        return float((size / self.distance(train.features, train.z).square().mean()).sqrt())

    def score(self, features: Tensor, z: Tensor, spread: Tensor | None = None) -> Tensor:
        """What the laws read, ``[N]``: the distance, or the members' spread.

        Raises:
            ConfigError: the source is members, and no spread is given.
        """
        if self.source == "distance":
            found = self.distance(features, z)
        elif spread is None:
            raise ConfigError("these error bars of forces come from members; give their spread")
        else:
            found = spread.double()
        return found.maximum(self.floor.to(found))

    def raw_std(self, features: Tensor, z: Tensor, spread: Tensor | None = None) -> Tensor:
        """Deviations ``[N]`` without validation: the members', or distances scaled in training."""
        return self.scale.to(features.device) * self.score(features, z, spread)

    def std(self, features: Tensor, z: Tensor, spread: Tensor | None = None) -> Tensor:
        """Calibrated standard deviation of each component of the force on an atom, ``[N]``.

        In the target's unit per unit of length, float64.

        Args:
            features: ``[N, F]``.
            z: ``[N]``.
            spread: ``[N]``, where the source is members.
        """
        score = self.score(features, z, spread)
        variance = score.square()
        found = torch.empty_like(variance)
        for name, law in self.laws.items():  # "all" first
            own = (z == int(name)) if name != "all" else torch.ones_like(z, dtype=torch.bool)
            rows = own.nonzero().flatten()
            assert isinstance(law, PowerVariance)
            part = variance.index_select(0, rows)
            stated = Prediction.from_members(torch.zeros_like(part)[None], part[None])
            found = found.index_copy(0, rows, law(stated).variance.sqrt())
        return found

    def half_width(self, std: Tensor, z: Tensor, coverage: float = 0.9) -> Tensor:
        """Half the interval of each component of the force on an atom, ``[N]``.

        Args:
            std: ``[N]``, from :meth:`std`.
            z: ``[N]``.
            coverage: share of components inside, in (0, 1).
        """
        coverage = checked_coverage(coverage)
        levels = LEVELS.to(std.device)
        right = int(torch.searchsorted(levels, coverage).clamp(1, len(levels) - 1))
        share = (coverage - levels[right - 1]) / (levels[right] - levels[right - 1])
        table = self.quantiles.to(std.device)
        q = torch.lerp(table[:, right - 1], table[:, right], share)
        place = torch.zeros_like(z)
        for k, element in enumerate(self.elements, 1):
            place = place.masked_fill(z == element, k)
        return std * q[place]

    def strange(self, distance: Tensor) -> Tensor:
        """Which atoms ``[N]`` are farther from the training atoms than validation atoms are."""
        return ~(distance <= self.distance_limit.to(distance.device))


def _limit(values: Tensor, structure: Tensor) -> Tensor:
    """What 99 % of the structures stay below with all their atoms; the most where there are few."""
    largest = values.new_zeros(int(structure.max()) + 1)
    largest = largest.scatter_reduce(0, structure, values, "amax")
    ordered = largest[largest.isfinite()].sort().values
    rank = math.ceil((len(ordered) + 1) * WITHIN)  # split conformal
    return ordered[min(rank, len(ordered)) - 1]
