"""How sure a run is of what pruning changed: 95 % intervals over its structures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egnn_prune.report.common.files import (
    CALIBRATED,
    Metrics,
    Predictions,
    has_split,
    number,
)
from egnn_prune.report.common.statistics import bootstrap_interval
from egnn_prune.report.run.error_bars import graphs_of

MOST_BINS, SAMPLES_PER_BIN = 20, 30
"""Of ``uncertainty.metrics.ence``, whose bins are meant here."""

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
Intervals = Mapping[str, tuple[float, float]]

INTERVALS = "intervals"
"""Where ``metrics.json`` keeps them."""
HARM = "calibration_harm"
"""Log of the factor that pruning put on the ENCE, minus that of the test MAE."""
FACTOR = "_factor"
"""Suffix of a quantity whose ratio is meant where the plain name is a difference."""
MENDED = "ence_mended"
"""The calibrated pruned model's ENCE over that of the dense model as trained."""
SCRATCH = "_scratch"
"""Suffix of a change against the scratch model instead of the dense one."""


def with_intervals(metrics: Metrics, predictions: Predictions) -> dict[str, Any]:
    """The metrics with the intervals of their changes, found here where the run has none."""
    if isinstance(metrics.get(INTERVALS), Mapping):
        return dict(metrics)
    return {**metrics, INTERVALS: change_intervals(metrics, predictions)}


def interval(metrics: Metrics, key: str) -> tuple[float, float]:
    """An interval of `metrics`; NaN where there is none."""
    found = (metrics.get(INTERVALS) or {}).get(key)
    if not isinstance(found, list | tuple) or len(found) != 2:
        return math.nan, math.nan
    return number(found[0]), number(found[1])


def certain(change: tuple[float, float]) -> int:
    """1 or -1 where an interval lies above or below zero, else 0: it cannot be told."""
    return 1 if change[0] > 0 else -1 if change[1] < 0 else 0


def change_intervals(metrics: Metrics, predictions: Predictions) -> dict[str, list[float]]:
    """Intervals of what pruning changed, paired: both models see the same structures.

    Args:
        metrics: ``dataset`` and ``models`` are read.
        predictions: The arrays of ``predictions.npz``.

    Returns:
        Lower and upper end by the name of the quantity in ``metrics.json``: of ``pruned / dense -
        1`` for errors and the latency, of ``pruned - dense`` for scores of the error bars. Further
        `HARM`, `MENDED`, and names with `FACTOR` or `SCRATCH`. What cannot be told is left out.
    """
    found: dict[str, tuple[float, float]] = {}
    for split in ("test", "ood"):
        if has_split(predictions, split):
            structures = _Split(metrics, predictions, split)
            found |= structures.errors_changed() | structures.error_bars_changed()
    times = [predictions.get(f"latency_{name}") for name in ("pruned", "dense")]
    if times[0] is not None and times[1] is not None and np.shape(times[0]) == np.shape(times[1]):
        new, old = (medians(np.asarray(one, dtype=np.float64)) for one in times)
        found["latency_ms"] = bootstrap_interval(_change(new, old), len(times[0]))
    return {key: list(ends) for key, ends in found.items() if all(map(math.isfinite, ends))}


class _Split:
    """The structures of one split, and what is found from some draws of them."""

    def __init__(self, metrics: Metrics, predictions: Predictions, name: str) -> None:
        self.predictions, self.name = predictions, name
        self.target = np.asarray(predictions[f"{name}_target"], dtype=np.float64)
        self.graph = graphs_of(metrics, predictions, name)
        self.n = self.target.size if self.graph is None else int(self.graph.max()) + 1

    def errors(self, model: str) -> dict[str, Statistic]:
        """Errors of one deterministic pass by their names: those that the run has."""
        found: dict[str, Statistic] = {}
        predicted = point(self.predictions, self.name, model)
        if predicted is not None:
            off = np.abs(predicted - self.target)
            found["mae"] = self._mean(off)
            found["rmse"], found["mse"] = self._mean(off**2, root=True), self._mean(off**2)
        count = self.predictions.get(f"{self.name}_force_count")
        for what, key in (("abs", "force_mae"), ("square", "force_rmse")):
            sums = self.predictions.get(f"{self.name}_{model}_force_{what}")
            if sums is not None and count is not None and len(sums) == len(count) == self.n:
                found[key] = ratio(np.asarray(sums), np.asarray(count), what == "square")
        return found

    def errors_changed(self) -> dict[str, tuple[float, float]]:
        """Relative changes of the errors; the MAEs against the scratch model too."""
        pruned = self.errors("pruned")
        others = {"": self.errors("dense"), SCRATCH: self.errors("scratch")}
        main = ("mae", "force_mae")
        return {
            f"{self.name}_{key}{suffix}": bootstrap_interval(_change(pruned[key], old[key]), self.n)
            for key in (*main, *(("rmse", "mse", "force_rmse") if self.name == "test" else ()))
            for suffix, old in others.items()
            if key in pruned and key in old and (key in main or not suffix)
        }

    def scores(self, model: str, suffix: str) -> dict[str, Statistic]:
        """Scores of the error bars by their names; empty where the model has none."""
        mean, std = (
            self.predictions.get(f"{self.name}_{model}_{key}") for key in ("mean", f"std{suffix}")
        )
        if mean is None or std is None or len(std) != len(self.target) or not (std > 0).all():
            return {}
        error, std = np.asarray(mean - self.target, dtype=np.float64), std.astype(np.float64)
        return {
            "nll": self._mean(_nll(error, std)),
            "crps": self._mean(_crps(error, std)),
            "ence": _ence(error, std, self.graph, self.n),
        }

    def error_bars_changed(self) -> dict[str, tuple[float, float]]:
        """Changes of the scores that are means over structures, and of the ENCE."""
        prefix = "" if self.name == "test" else "ood_"
        pruned, dense = (
            {suffix: self.scores(model, suffix) for suffix in ("", CALIBRATED)}
            for model in ("pruned", "dense")
        )
        wanted = {
            f"{prefix}{key}{suffix}": difference(new, dense[suffix][key])
            for suffix, scores in pruned.items()
            for key, new in scores.items()
            if dense[suffix]
        }
        for key, new, old in (
            (f"ence{FACTOR}", pruned[""], dense[""]),
            (f"ence{CALIBRATED}{FACTOR}", pruned[CALIBRATED], dense[CALIBRATED]),
            (MENDED, pruned[CALIBRATED], dense[""]),
        ):
            if new and old and self.name == "test":
                wanted[key] = _change(new["ence"], old["ence"])
        errors = [self.errors(model).get("mae") for model in ("pruned", "dense")]
        if pruned[""] and dense[""] and errors[0] and errors[1] and self.name == "test":
            wanted[HARM] = _harm(pruned[""]["ence"], dense[""]["ence"], errors[0], errors[1])
        return {key: bootstrap_interval(statistic, self.n) for key, statistic in wanted.items()}

    def _mean(self, values: Array, root: bool = False) -> Statistic:
        return _mean(values, self.graph, self.n, root)


def point_key(predictions: Predictions, split: str, name: str) -> str:
    """The array of what one deterministic pass predicts.

    Runs from before it was kept have the mean of the members only.
    """
    key = f"{split}_{name}_point"
    return key if key in predictions else f"{split}_{name}_mean"


def point(predictions: Predictions, split: str, name: str) -> Array | None:
    """What one deterministic pass predicts, ``[K]``; None where the run has no such model."""
    found = predictions.get(point_key(predictions, split, name))
    if found is None or np.shape(found) != np.shape(predictions[f"{split}_target"]):
        return None
    return np.asarray(found, dtype=np.float64)


def difference(new: Statistic, old: Statistic) -> Statistic:
    """``new - old`` of the same draws."""
    return lambda counts: new(counts) - old(counts)


def _harm(new: Statistic, old: Statistic, new_error: Statistic, old_error: Statistic) -> Statistic:
    return lambda c: np.log(new(c) / old(c)) - np.log(new_error(c) / old_error(c))


def _change(new: Statistic, old: Statistic) -> Statistic:
    return lambda counts: new(counts) / old(counts) - 1


def ratio(sums: Array, counts: Array, root: bool = False) -> Statistic:
    """Mean over the values of the drawn structures, each with its sum and number of values."""

    def statistic(drawn: Array) -> Array:
        mean = (drawn @ sums) / (drawn @ counts)
        return np.sqrt(mean) if root else mean

    return statistic


def _mean(values: Array, graph: NDArray[np.int64] | None, n: int, root: bool = False) -> Statistic:
    if graph is None:
        return ratio(values, np.ones(n), root)
    sums, counts = np.bincount(graph, values, n), np.bincount(graph, minlength=n)
    return ratio(np.asarray(sums, np.float64), np.asarray(counts, np.float64), root)


def medians(times: Array) -> Statistic:
    """The median of the drawn ones, of ``[n]`` numbers."""
    order = np.argsort(times, kind="stable")
    ordered = times[order]

    def statistic(drawn: Array) -> Array:
        below = drawn[:, order].cumsum(1)
        half = below[:, -1:] / 2
        low, high = (below >= half).argmax(1), (below > half).argmax(1)
        return (ordered[low] + ordered[high]) / 2

    return statistic


def _nll(error: Array, std: Array) -> Array:
    return 0.5 * (np.log(2 * np.pi * std**2) + (error / std) ** 2)


def _crps(error: Array, std: Array) -> Array:
    z = error / std
    erf = np.vectorize(math.erf, otypes=[float])(z / math.sqrt(2))
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return std * (z * erf + 2 * density - 1 / math.sqrt(math.pi))


def _ence(error: Array, std: Array, graph: NDArray[np.int64] | None, n: int) -> Statistic:
    """The score of ``uncertainty.metrics.ence``, of many resamples at once.

    The order of the error bars is that of all values, so a resample needs no sorting of its own.
    """
    order = np.argsort(std, kind="stable")
    square, variance = error[order] ** 2, std[order] ** 2
    owner = order if graph is None else graph[order]
    _, first = np.unique(variance, return_index=True)
    tied = np.repeat(first, np.diff(np.append(first, len(variance))))

    def statistic(drawn: Array) -> Array:
        counts = drawn[:, owner]
        total = counts.sum(1, keepdims=True)
        below = np.hstack([np.zeros_like(total), counts.cumsum(1)])[:, tied]
        bins = np.clip(total // SAMPLES_PER_BIN, 1, MOST_BINS)
        index = np.minimum(below * bins // total, bins - 1).astype(np.int64)
        index += MOST_BINS * np.arange(len(drawn))[:, None]
        size, squares, variances = (
            np.bincount(index.ravel(), column.ravel(), MOST_BINS * len(drawn)).reshape(
                -1, MOST_BINS
            )
            for column in (counts, counts * square, counts * variance)
        )
        full = size > 0
        rmv, rmse = (
            np.sqrt(np.divide(a, size, where=full, out=np.ones_like(size)))
            for a in (variances, squares)
        )
        return np.where(full, size * np.abs(rmv - rmse) / rmv, 0).sum(1) / total[:, 0]

    return statistic
