"""Made-up times: the median's interval, and what is said where nothing was gained."""

from __future__ import annotations

import math

import pytest

from egnn_prune.system.break_even import BreakEven, median_interval


def test_the_interval_of_a_median_by_its_definition():
    assert median_interval([3.0]) == (3.0, 3.0, 3.0)
    assert median_interval([5, 1, 4, 2, 3]) == (3, 1, 5)
    for n in (6, 9, 15, 16, 50):
        middle, low, high = median_interval(range(n))
        assert middle == (n - 1) / 2 and high == n - 1 - low
        # the chance that the true median lies below the low-th smallest of n
        beyond = [sum(math.comb(n, k) for k in range(end + 1)) / 2**n for end in (low, low + 1)]
        assert beyond[0] <= 0.025 < beyond[1]


def test_pairs_are_compared_and_not_medians():
    busy = [1.0, 10.0, 1.0, 10.0, 1.0, 10.0]
    found = BreakEven.of(busy, [0.5 * t for t in busy])
    assert (found.share, found.low, found.high) == (0.5, 0.5, 0.5) and found.pays
    assert found.sentence() == "" and str(found) == "2.00x faster, 95 % interval [2.00, 2.00]."


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            BreakEven(0.98, 0.95, 1.02),
            "half is slow takes 0.98 of the dense time (95 % interval 0.95 to 1.02): at this size "
            "the time is overhead, not channels; prune more, use larger batches, or compile.",
        ),
        (
            BreakEven(1.2, 1.1, 1.3),
            "half is slow takes 1.20 of the dense time (95 % interval 1.10 to 1.30): at this size "
            "the time is overhead, not channels; prune more, use larger batches, or compile.",
        ),
        (
            BreakEven(0.6, 0.3, 1.1),
            "half is slow takes 0.60 of the dense time (95 % interval 0.30 to 1.10): times scatter "
            "too much to tell; measure again on a machine without other work.",
        ),
    ],
)
def test_the_sentence(found, expected):
    assert found.sentence(what="half is slow") == expected
    gone = found.sentence(0.5, 0.55, "a batch of 32")
    assert gone.startswith("50 % of the channels and 55 % of the multiplications are gone, but a b")
