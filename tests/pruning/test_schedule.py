"""Schedules: pure functions of progress that end exactly where they were asked to."""

from __future__ import annotations

import itertools

import pytest

from egnn_prune.errors import ConfigError
from egnn_prune.pruning.schedule import SCHEDULES, cubic, incremental, iterative, linear, sparsities


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("sparsity", [0.0, 0.29, 0.875])
def test_starts_at_zero_rises_and_ends_exactly(name, sparsity):
    schedule = SCHEDULES[name]
    assert schedule(0.0, sparsity) == 0
    values = [schedule(k / 50, sparsity) for k in range(51)]
    assert all(a <= b for a, b in itertools.pairwise(values))
    assert sparsities(name, sparsity, 7)[-1] == sparsity
    assert sparsities(name, sparsity, 1) == [sparsity]


def test_known_values():
    assert sparsities("iterative", 0.875, 3) == pytest.approx([0.5, 0.75, 0.875])
    assert sparsities("linear", 0.6, 3) == pytest.approx([0.2, 0.4, 0.6])
    assert sparsities("one_shot", 0.6, 3) == [0.6, 0.6, 0.6]
    assert cubic(0.5, 0.8) == pytest.approx(0.8 * 7 / 8)
    assert linear(0.5, 0.8) == pytest.approx(0.4)
    # each of n rounds removes 1 - (1 - s)^(1/n) of what is left
    left = [1 - iterative(k / 4, 0.9) for k in range(5)]
    shares = [1 - b / a for a, b in itertools.pairwise(left)]
    assert shares == pytest.approx([1 - 0.1**0.25] * 4)


def test_any_function_is_a_schedule():
    assert sparsities(lambda t, s: s * t**2, 0.8, 2) == pytest.approx([0.2, 0.8])
    with pytest.raises(ConfigError, match="must not let channels return"):
        sparsities(lambda t, s: s * (1 - t), 0.8, 3)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
def test_bad_sparsity(sparsity):
    with pytest.raises(ConfigError, match="fraction removed"):
        sparsities("linear", sparsity, 2)


def test_bad_rounds_and_names():
    with pytest.raises(ConfigError, match="at least one round"):
        sparsities("linear", 0.5, 0)
    with pytest.raises(ConfigError, match="one_shot, iterative, linear, cubic, not 'quartic'"):
        sparsities("quartic", 0.5, 2)


def test_incremental_of_the_original_and_of_what_is_left():
    original = [incremental(e, 0.1, every=5, of="original") for e in (0, 4, 5, 14, 15, 45)]
    assert original == pytest.approx([0, 0, 0.1, 0.2, 0.3, 0.9])
    left = [incremental(e, 0.1, every=5) for e in (0, 4, 5, 14, 15)]
    assert left == pytest.approx([0, 0, 0.1, 1 - 0.9**2, 1 - 0.9**3])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"epoch": 5, "rate": 1.0}, "fraction removed each time"),
        ({"epoch": -1, "rate": 0.1}, "epochs count from 0"),
        ({"epoch": 5, "rate": 0.1, "every": 0}, "'every' from 1"),
        ({"epoch": 5, "rate": 0.1, "of": "half"}, "'original' or 'remaining'"),
        ({"epoch": 50, "rate": 0.1, "every": 5, "of": "original"}, "is all of it"),
    ],
)
def test_bad_increments(arguments, words):
    with pytest.raises(ConfigError, match=words):
        incremental(**arguments)
