"""Intervals of what pruning changed: right where they can be known, paired, and reproducible."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from egnn_prune.report.common import intervals
from egnn_prune.report.common.intervals import change_intervals, with_intervals
from egnn_prune.report.common.statistics import bootstrap_interval
from egnn_prune.uncertainty.metrics import crps, ence, nll

N = 150


def run(new: np.ndarray, old: np.ndarray, std: float = 1.0) -> tuple[dict, dict]:
    """Metrics and predictions of a run whose models have these errors."""
    metrics = {"models": {"dense": {}, "pruned": {}}, "dataset": {"unit": "eV"}}
    arrays = {"test_target": np.zeros(len(new))}
    for name, error in (("pruned", new), ("dense", old)):
        arrays |= {f"test_{name}_mean": error, f"test_{name}_std": np.full(len(new), std)}
    return metrics, arrays


def test_the_mean_has_its_known_interval():
    values = np.random.default_rng(0).normal(size=N)
    low, high = bootstrap_interval(lambda c: c @ values / c.sum(1), N)
    half = 1.96 * values.std() / math.sqrt(N)
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)
    assert (low, high) == bootstrap_interval(lambda c: c @ values / c.sum(1), N)
    assert (low, high) != bootstrap_interval(lambda c: c @ values / c.sum(1), N, seed=1)


def test_every_resample_draws_as_many_structures():
    """Also where the resamples come in blocks."""
    seen = []

    def statistic(counts):
        seen.append(counts)
        return counts[:, 0]

    bootstrap_interval(statistic, 5000)
    counts = np.concatenate(seen[1:])
    assert len(seen) > 2 and counts.shape == (1000, 5000)
    assert (counts.sum(1) == 5000).all() and counts.min() == 0 and counts.max() > 1


def test_what_has_no_interval():
    assert all(map(math.isnan, bootstrap_interval(lambda c: c[:, 0], 1)))
    assert all(map(math.isnan, bootstrap_interval(lambda c: c[:, 0] / 0, 5)))


def test_differences_that_all_structures_share_are_certain():
    """Paired: errors scatter over five decades, their ratio does not."""
    error = np.exp(np.random.default_rng(0).normal(0, 3, N))
    found = change_intervals(*run(1.05 * error, error))
    for key in ("test_mae", "test_rmse"):
        assert found[key] == pytest.approx([0.05, 0.05])
    assert found["test_mse"] == pytest.approx([0.05 * 2.05] * 2)


def test_differences_of_other_structures_are_not():
    random = np.random.default_rng(0)
    new, old = random.normal(size=(2, N))
    low, high = change_intervals(*run(new, old))["test_mae"]
    assert low < 0 < high and 0.1 < high - low < 0.6


def test_one_deterministic_pass_is_what_counts():
    metrics, arrays = run(np.full(N, 9.0), np.ones(N))
    arrays |= {"test_pruned_point": np.full(N, 1.5), "test_dense_point": np.ones(N)}
    assert change_intervals(metrics, arrays)["test_mae"] == pytest.approx([0.5, 0.5])


def test_scores_are_those_of_the_metrics():
    random = np.random.default_rng(1)
    std = {name: np.exp(random.normal(size=N)) for name in ("pruned", "dense")}
    std["dense"][:40] = 1.0  # ties
    error = {name: 2 * std[name] * random.normal(size=N) for name in std}
    graph = np.arange(N) // 3
    drawn = random.integers(N // 3, size=N // 3)
    rows = np.concatenate([3 * i + np.arange(3) for i in drawn])
    counts = np.stack([np.ones(N // 3), np.bincount(drawn, minlength=N // 3)]).astype(float)
    for name, e in error.items():
        for made, metric in (
            (intervals._ence(e, std[name], graph, N // 3), ence),
            (intervals._mean(intervals._nll(e, std[name]), graph, N // 3), nll),
            (intervals._mean(intervals._crps(e, std[name]), graph, N // 3), crps),
        ):
            for value, chosen in zip(made(counts), (np.arange(N), rows), strict=True):
                mean, var = torch.from_numpy(e[chosen]), torch.from_numpy(std[name][chosen]) ** 2
                assert value == pytest.approx(float(metric(mean, var, 0 * mean)), rel=1e-12)


def test_medians_of_drawn_passes():
    times = np.array([3.0, 1.0, 2.0, 10.0])
    counts = np.array([[1, 1, 1, 1], [0, 1, 3, 0], [2, 0, 0, 2], [1, 1, 2, 0]], dtype=float)
    drawn = [np.repeat(times, c.astype(int)) for c in counts]
    assert intervals.medians(times)(counts).tolist() == [np.median(d) for d in drawn]


def test_graphs_are_drawn_and_not_their_coordinates():
    """Errors of one graph are equal: as many draws as graphs, so a wider interval."""
    random = np.random.default_rng(0)
    new, old = np.repeat(random.normal(size=(2, 30)), 10, axis=1)
    metrics, arrays = run(new, old)
    narrow = change_intervals(metrics, arrays)["test_mae"]
    wide = change_intervals(metrics, arrays | {"test_graph": np.repeat(np.arange(30), 10)})
    ratio = np.ptp(wide["test_mae"]) / np.ptp(narrow)
    assert ratio == pytest.approx(math.sqrt(10), rel=0.25)


def test_forces_and_latency():
    metrics, arrays = run(np.ones(N), np.ones(N))
    count = np.arange(1.0, N + 1)
    arrays |= {"test_force_count": count, "latency_pruned": np.array([1.0, 1.1, 0.9])}
    arrays |= {"latency_dense": 2 * arrays["latency_pruned"]}
    for name, factor in (("pruned", 1.2), ("dense", 1.0), ("scratch", 2.4)):
        arrays[f"test_{name}_force_abs"] = factor * count
        arrays[f"test_{name}_force_square"] = factor**2 * count
    found = change_intervals(metrics, arrays)
    for key in ("test_force_mae", "test_force_rmse"):
        assert found[key] == pytest.approx([0.2, 0.2])
    assert found["test_force_mae_scratch"] == pytest.approx([-0.5, -0.5])
    # interleaved passes are drawn together: the ratio of medians is 1/2 in every resample
    low, high = found["latency_ms"]
    assert low == pytest.approx(-0.5) and high == pytest.approx(-0.5)


def test_calibration_harm_compares_the_two_changes():
    """Error bars half as long, errors the same: the calibration error grows, the MAE does not."""
    random = np.random.default_rng(0)
    error = random.normal(size=600)
    metrics, arrays = run(error, error)
    arrays["test_dense_std"] = np.full(600, 1.2)
    arrays["test_pruned_std"] = np.full(600, 0.5)
    found = change_intervals(metrics, arrays)
    assert found["test_mae"] == [0, 0]
    assert found["calibration_harm"][0] > 0 and found["ence_factor"][0] > 0
    assert found["ence"][0] > 0.5


def test_stored_intervals_are_kept():
    metrics, arrays = run(np.ones(N), np.ones(N))
    metrics["intervals"] = {"test_mae": [1, 2]}
    assert with_intervals(metrics, arrays) == metrics
    del metrics["intervals"]
    assert with_intervals(metrics, arrays)["intervals"]["test_mae"] == [0, 0]
