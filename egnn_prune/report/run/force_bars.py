"""Errors and error bars of forces, atom by atom, and whether intervals hold what they promise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egnn_prune.errors import DataError
from egnn_prune.report.common.files import CALIBRATED, Metrics, Predictions, number
from egnn_prune.report.run.calibration import Curve, mae_half_interval
from egnn_prune.report.run.error_bars import COMPARED, ErrorBars

Array = NDArray[np.float64]
Shares = Mapping[int, float]
"""By promised coverage in percent."""

PERCENT = (50, 80, 90, 95)
"""Promised coverages in ``metrics.json``."""
JUDGED = (50, 80, 90)
"""Those that decide whether the promise is kept."""
TOLERANCE = 0.03
"""How far a coverage may be off: three points of a hundred."""
SOURCES = {
    "distance": "the distance of an atom's last-layer features from those of training atoms",
    "members": "the spread of the members' forces",
}
"""What error bars of forces come from, in words."""
_MOST_POINTS = 300


@dataclass(frozen=True)
class ForceBars:
    """Forces that one model predicts, in the unit of the data set.

    Attributes:
        error: ``[N, 3]`` prediction minus label.
        std: ``[N]`` standard deviation of each component of an atom's force, as it comes.
        calibrated: ``[N]`` the same after calibration; None if there is none.
        structure: ``[N]`` from 0, whose atom each is.
        distance: ``[N]`` from what was trained on, in units of the limit; None if unknown.
    """

    error: Array
    std: Array
    calibrated: Array | None
    structure: NDArray[np.int64]
    distance: Array | None = None

    @property
    def size(self) -> Array:
        """``[N]`` root mean square of the components of an atom's error.

        That is what its error bar speaks of: the expected square of each component.
        """
        return np.sqrt((self.error**2).mean(axis=1))

    @property
    def atoms(self) -> ErrorBars:
        """One error and one error bar an atom, the same whichever way the structure is turned."""
        return ErrorBars(self.size, self.std, self.calibrated)

    def scaled(self, factor: float) -> ForceBars:
        """The same in another unit."""
        calibrated = None if self.calibrated is None else factor * self.calibrated
        return ForceBars(
            *(factor * self.error, factor * self.std, calibrated, self.structure, self.distance)
        )


def force_bars(predictions: Predictions, split: str, name: str) -> ForceBars | None:
    """Those of a main run; None where it has none.

    Raises:
        DataError: If arrays do not fit together; the message names one.
    """
    if f"{split}_{name}_forces_std" not in predictions:
        return None
    for key in (f"{split}_forces_reference", f"{split}_forces_atoms", f"{split}_{name}_forces"):
        if key not in predictions:
            raise DataError(f"predictions: array {key!r} is missing")
    atoms = np.asarray(predictions[f"{split}_forces_atoms"]).astype(np.int64)
    if atoms.ndim != 1 or not (atoms > 0).all():
        raise DataError(f"predictions: '{split}_forces_atoms' must count the atoms of structures")
    total = int(atoms.sum())

    def array(key: str, *shape: int) -> Array:
        found = np.asarray(predictions[key], dtype=np.float64)
        if found.shape != (total, *shape):
            raise DataError(
                f"predictions: {key!r} has shape {found.shape}, but '{split}_forces_atoms' counts "
                f"{total} atoms"
            )
        return found

    def optional(key: str) -> Array | None:
        return array(key) if key in predictions else None

    prefix = f"{split}_{name}_forces"
    return ForceBars(
        array(prefix, 3) - array(f"{split}_forces_reference", 3),
        array(f"{prefix}_std"),
        optional(f"{prefix}_std{CALIBRATED}"),
        np.repeat(np.arange(len(atoms)), atoms),
        optional(f"{prefix}_distance"),
    )


def force_bars_of(predictions: Predictions) -> dict[str, dict[str, ForceBars]]:
    """By split and model: the splits of a main run of which both models have error bars."""
    found = {}
    for split in ("test", "ood"):
        models = {name: force_bars(predictions, split, name) for name in COMPARED}
        known = {name: bars for name, bars in models.items() if bars is not None and len(bars.std)}
        if len(known) == len(COMPARED):
            found[split] = known
    return found


def has_force_bars(metrics: Metrics, predictions: Predictions) -> bool:
    """Whether a main run measured its error bars of forces."""
    measured = any(coverages(metrics["models"][name], "force_") for name in COMPARED)
    return measured and "test" in force_bars_of(predictions)


def coverages(model: Mapping[str, Any], prefix: str, suffix: str = "") -> dict[int, float]:
    """Shares that intervals hold, of the promises that ``metrics.json`` has numbers for."""
    found = {p: number(model.get(f"{prefix}coverage_{p}{suffix}")) for p in PERCENT}
    return {percent: share for percent, share in found.items() if math.isfinite(share)}


def final_coverages(model: Mapping[str, Any], prefix: str) -> dict[int, float]:
    """Calibrated ones, or the others where there are none."""
    return coverages(model, prefix, CALIBRATED) or coverages(model, prefix)


def force_halves(bars: ForceBars) -> dict[int, float]:
    r"""Half widths of 95 % intervals of coverages over structures, whose atoms err together.

    With the intervals that hold the promised share of these very components,
    :math:`|e| / \sigma \le q`, the share of each structure is a draw
    (:func:`~egnn_prune.report.run.calibration.mae_half_interval`).
    """
    std = bars.atoms.final
    known = np.isfinite(std) & (std > 0) & np.isfinite(bars.error).all(axis=1)
    if not known.any():
        return {}
    _, structure = np.unique(bars.structure[known], return_inverse=True)
    owner, values = np.repeat(structure, 3), (np.abs(bars.error[known]) / std[known, None]).ravel()
    return {
        p: mae_half_interval((values <= np.quantile(values, p / 100)).astype(float), owner)
        for p in PERCENT
    }


def energy_halves(structures: int) -> dict[int, float]:
    """The same of one number a structure: of a binomial share with the promised mean."""
    return {p: 1.96 * math.sqrt(p / 100 * (1 - p / 100) / structures) for p in PERCENT}


def verdict(observed: Shares, half: Shares, structures: int) -> str:
    """Whether intervals keep their promise, as far as the structures can tell."""
    judged = {p: observed[p] - p / 100 for p in JUDGED if p in observed}
    if not judged:
        return "whether the promise is kept was not measured"
    unsure = {p: half.get(p, math.nan) for p in judged}
    off = {p: gap for p, gap in judged.items() if abs(gap) > TOLERANCE and abs(gap) > unsure[p]}
    if off:
        worst = max(off.values(), key=abs)
        length = "too short" if worst < 0 else "longer than they need to be"
        return f"the promise is not kept, error bars are {length}"
    if all(u <= TOLERANCE for u in unsure.values()):
        return "the promise is kept"
    if all(abs(gap) <= TOLERANCE for gap in judged.values()):
        return (
            f"as promised, though {structures} test structures cannot tell it to "
            f"{100 * TOLERANCE:.0f} points"
        )
    return f"{structures} test structures are too few to tell whether the promise is kept"


def promise(what: str, observed: Shares, before: Shares, half: Shares, structures: int) -> str:
    """One sentence: what intervals promised to hold, what they hold, and whether that is true.

    Args:
        what: What they hold shares of, such as ``force components``.
        observed: Shares, calibrated where they are.
        before: Shares before calibration; empty where there is none.
        half: Half widths of the 95 % intervals of `observed`.
        structures: In the test split.
    """
    widest = max((half[p] for p in observed if p in half), default=math.nan)
    margin = f" (± {100 * widest:.1f} points at most)" if math.isfinite(widest) else ""
    raw = f" Before calibration they held {_percent(before)}." if before else ""
    return (
        f"Intervals that promise {' / '.join(map(str, observed))} % of the {what} hold "
        f"{_percent(observed)} of those of the test structures{margin}: "
        f"{verdict(observed, half, structures)}.{raw}"
    )


def _percent(shares: Shares) -> str:
    return f"{' / '.join(f'{100 * share:.1f}' for share in shares.values())} %"


def thinned(curve: Curve) -> Curve:
    """A long curve with a few hundred of its points, ends included."""
    x, y = curve
    if len(x) <= _MOST_POINTS:
        return curve
    kept = np.linspace(0, len(x) - 1, _MOST_POINTS).round().astype(np.int64)
    return x[kept], y[kept]
