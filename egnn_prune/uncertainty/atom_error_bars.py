"""Error bars of the forces on single atoms, and whether an atom is like those of the training."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from egnn_prune.errors import ConfigError, InputError
from egnn_prune.uncertainty.atom_distance import AtomDistance, FullPrecision
from egnn_prune.uncertainty.atom_evidence import AtomEvidence
from egnn_prune.uncertainty.calibration.base import checked_coverage
from egnn_prune.uncertainty.calibration.power import PowerVariance, law_ratio

#: What the error bar of an atom is read from.
SOURCES = ("distance", "members")
#: Atoms of an element, at least, for a map of its own; fewer share that of all atoms.
OWN_MAP = 30
#: Coverages whose intervals are kept; others lie between.
LEVELS = torch.cat([torch.arange(1, 100) / 100, torch.tensor([0.995, 0.999])]).double()
#: Share of validation structures without any atom beyond the limits.
WITHIN = 0.99
#: Atomic numbers are smaller.
MOST_ELEMENTS = 200
#: The least score, as a share of the median one: members may agree on an atom by symmetry.
FLOOR = 1e-3


class AtomErrorBars(FullPrecision):
    r"""Standard deviation of the force on every atom, and a limit beyond which it is strange.

    A score s of each atom, either the distance of its features from the training atoms'
    (:class:`~egnn_prune.uncertainty.AtomDistance`: no pass more) or the spread of the members'
    forces, becomes one standard deviation for all components of its force,

    .. math:: \sigma_i^2 = e^{a_z} s_i^{2 b_z},

    with a law for each element (:class:`~egnn_prune.uncertainty.PowerVariance`), so that error
    bars turn with the structure. Errors of forces have longer tails than a Gaussian, so intervals
    are :math:`\pm q_z(c)\, \sigma_i` with the quantiles q of the validation atoms'
    :math:`|e| / \sigma` at the coverage c. A structure is strange where one of its atoms is
    farther away than any atom of 99 % of the validation structures. From distances, an atom of an
    element without training atoms has an infinite error bar.

    Args:
        source: ``"distance"`` or ``"members"``.
        elements: atomic numbers with a law of their own; :meth:`fit` finds them.

    Raises:
        ConfigError: there is no such source, or an element is no atomic number.
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
        known = all(type(z) is int and 0 < z < MOST_ELEMENTS for z in elements)
        if not known or len(set(elements)) != len(elements):
            raise ConfigError("elements of error bars are different atomic numbers")
        self.elements = tuple(elements)
        self.laws = nn.ModuleDict({name: PowerVariance() for name in ("all", *map(str, elements))})

    def _laws(self) -> list[tuple[str, PowerVariance]]:
        """That of all atoms first, then one for each of the elements."""
        return [(name, cast(PowerVariance, law)) for name, law in self.laws.items()]

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
            InputError: see :meth:`AtomEvidence.checked`; or no validation atom is of an element of
                the training structures, or their scores do not differ from zero.
        """
        train, val = train.checked("training"), val.checked("validation")
        self.distance.fit(train.features, train.z)
        self.floor = torch.zeros(1, dtype=torch.float64)
        self.scale = self.floor + self._scale(train)
        score = self.score(val.features, val.z, val.spread)
        known = score.isfinite()
        if not bool(known.any()):
            raise InputError(
                "no validation atom is of an element of the training structures; draw both from "
                "the same data"
            )
        self.floor = FLOOR * score[known].median()[None]
        if not bool(self.floor > 0):
            raise InputError(
                f"the {self.source} of most validation atoms is zero, so it says nothing of the "
                "errors of their forces; check that the network was trained"
            )
        score = score.maximum(self.floor)
        wrong = val.wrong.double()
        self._named([z for z in val.z.unique().tolist() if self._has_own_law(z, val, known)])
        for name, law in self._laws():
            own = known & ((val.z == int(name)) if name != "all" else True)
            variance = score[own].square().repeat_interleave(wrong.shape[1])
            law.store(score, **law.fit_residuals(wrong[own].flatten(), variance))
        std = self.std(val.features, val.z, val.spread)
        ratio = wrong.abs() / std[:, None]
        parts = [ratio[known], *(ratio[known & (val.z == z)] for z in self.elements)]
        self.quantiles = torch.stack([_quantiles(part.flatten()) for part in parts])
        self.distance_limit = _limit(self.distance(val.features, val.z), val.structure)
        self.std_limit = _limit(std, val.structure)
        return self

    def moved_to(self, train: AtomEvidence) -> AtomErrorBars:
        """These laws, quantiles and limits on distances in another network's features.

        Asks what the calibration of one network is worth for another, such as that of a dense
        network after it was pruned: distances are in units of the training atoms' and carry over.

        Args:
            train: the training structures as the other network sees them.

        Raises:
            ConfigError: there are no atoms, or a feature is NaN or infinite.
        """
        twin = copy.deepcopy(self)
        twin.distance.fit(train.features, train.z)
        return twin

    @staticmethod
    def _has_own_law(z: int, val: AtomEvidence, known: Tensor) -> bool:
        own = known & (val.z == z)
        return int(own.sum()) >= OWN_MAP and bool(val.wrong[own].any())

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
        score = self.score(features, z, spread)
        return self.scale.to(score) * score

    def std(self, features: Tensor, z: Tensor, spread: Tensor | None = None) -> Tensor:
        """Calibrated standard deviation of each component of the force on an atom, ``[N]``.

        In the target's unit per unit of length, float64.

        Args:
            features: ``[N, F]``.
            z: ``[N]``.
            spread: ``[N]``, where the source is members.
        """
        score = self.score(features, z, spread)
        place = self._place(z)
        a, b, knee = (
            torch.cat([law.fitted(name, score) for _, law in self._laws()])[place]
            for name in PowerVariance.fitted_names
        )
        logs = 2 * score.log()
        known = (0.5 * (logs + law_ratio(logs, a, b, knee))).exp()
        return torch.where(score.isinf(), score, known)

    def _place(self, z: Tensor) -> Tensor:
        """The row of every atom's element in what is stored, 0 where it has none of its own."""
        own = torch.tensor((0, *self.elements), device=z.device)
        return (z[:, None] == own).int().argmax(1)

    def half_width(self, std: Tensor, z: Tensor, coverage: float = 0.9) -> Tensor:
        """Half the interval of each component of the force on an atom, ``[N]``.

        Args:
            std: ``[N]``, from :meth:`std`.
            z: ``[N]``.
            coverage: share of components inside, in (0, 1).
        """
        coverage = checked_coverage(coverage)
        levels = nn.functional.pad(LEVELS, (1, 0)).to(std.device)  # nothing lies within zero
        right = int(torch.searchsorted(levels, coverage).clamp(1, len(levels) - 1))
        share = (coverage - levels[right - 1]) / (levels[right] - levels[right - 1])
        table = nn.functional.pad(self.quantiles, (1, 0)).to(std.device)
        q = torch.lerp(table[:, right - 1], table[:, right], share)
        return torch.where(std.isinf(), std, std * q[self._place(z)])

    def strange(self, distance: Tensor) -> Tensor:
        """Which atoms ``[N]`` are farther from the training atoms than validation atoms are."""
        return ~(distance <= self.distance_limit.to(distance.device))

    def check(self) -> None:
        """Refuse numbers that :meth:`fit` cannot have left, as those of a damaged file may be.

        Raises:
            InputError: says which.
        """
        count, width = self.distance.centre.shape if self.distance.centre.dim() == 2 else (0, 0)
        rows = 1 + len(self.elements)
        shapes = {"distance.elements": (count,), "distance.centre": (count, width)}
        shapes |= {"distance.whitening": (count, width, width), "quantiles": (rows, len(LEVELS))}
        for name, numbers in self.state_dict().items():
            kind = torch.long if name == "distance.elements" else torch.float64
            fits = numbers.shape == shapes.get(name, (1,)) and numbers.dtype == kind
            if not fits or not count * width or not bool(numbers.isfinite().all()):
                raise InputError(f"error bars of forces are damaged, or were not fitted: {name}")
        positive = (self.scale, self.floor, self.distance_limit, self.std_limit)
        rising = bool((self.quantiles.diff(dim=1) >= 0).all() and (self.quantiles >= 0).all())
        if not rising or not all(bool(number > 0) for number in positive):
            raise InputError("error bars of forces are damaged: a size is negative or zero")


def _quantiles(values: Tensor) -> Tensor:
    """The linear quantiles of ``values [n]`` at all levels; torch's take no more than 2^24."""
    ordered = values.sort().values
    place = LEVELS * (len(ordered) - 1)
    left = place.long().clamp(max=max(len(ordered) - 2, 0))
    right = (left + 1).clamp(max=len(ordered) - 1)
    return torch.lerp(ordered[left], ordered[right], place - left)


def _limit(values: Tensor, structure: Tensor) -> Tensor:
    """What 99 % of the structures stay below with all their atoms; the most where there are few.

    Of ``values [N]``, as ``[1]``; structures with an infinite one do not count.
    """
    largest = values.new_zeros(int(structure.max()) + 1)
    largest = largest.scatter_reduce(0, structure, values, "amax")
    ordered = largest[largest.isfinite()].sort().values
    if not len(ordered):
        raise InputError(
            "every validation structure holds an element without training atoms; draw both from "
            "the same data"
        )
    rank = math.ceil((len(ordered) + 1) * WITHIN)  # split conformal
    return ordered[min(rank, len(ordered)) - 1].clamp(min=torch.finfo(values.dtype).tiny)[None]
