"""Errors by type of structure, of sums that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from egnn_prune.evaluation import type_errors
from egnn_prune.evaluation.element_errors import sums_of
from egnn_prune.evaluation.type_errors import errors_by_type

UNITS = {"energy": "eV"}
TYPES = ["a", "b", "a", "", "a"]


def sums(*errors: float) -> dict:
    return {"energy": sums_of(np.array(errors), np.arange(len(errors)), len(errors))}


def test_sums_are_over_the_components_of_each_owner():
    error = np.array([[1.0, -2, 0], [3, 0, 0], [0, 0, -4]])
    absolute, square, count = sums_of(error, np.array([1, 0, 1]), 3)
    assert absolute.tolist() == [3, 7, 0] and square.tolist() == [9, 21, 0]
    assert count.tolist() == [3, 6, 0]


def test_each_type_has_the_errors_of_its_own_structures():
    models = {"pruned": sums(1, 9, -2, 50, 3), "dense": sums(2, 1, -3, 0, 4)}
    found = errors_by_type(TYPES, models, UNITS, ("pruned", "dense"))
    assert list(found["types"]) == ["a", "b"] and found["compared"] == ["pruned", "dense"]
    own = found["types"]["a"]
    assert own["structures"] == 3 and "force_mae" not in own
    value, low, high = own["energy_mae"]["pruned"]
    assert value == pytest.approx(2) and 1 <= low < 2 < high <= 3
    assert own["energy_rmse"]["dense"][0] == pytest.approx((29 / 3) ** 0.5)
    # every structure is 1 better: paired, nothing is uncertain
    assert own["energy_mae"]["difference"] == pytest.approx([-1, -1, -1])
    # one structure has an error, but no interval
    assert found["types"]["b"]["energy_mae"]["pruned"] == [9, None, None]


def test_nothing_without_types_and_no_difference_without_a_pair():
    models = {"specialised": sums(1, 2, 3, 4, 5)}
    assert errors_by_type(["", ""], {"one": sums(1, 2)}, UNITS, None) == {}
    assert errors_by_type([], {}, UNITS, None) == {}
    found = errors_by_type(TYPES, models, UNITS, None)
    assert list(found["types"]["a"]["energy_mae"]) == ["specialised"] and not found["compared"]


def test_the_most_frequent_types_are_told_apart(monkeypatch):
    monkeypatch.setattr(type_errors, "MOST_TYPES", 1)
    found = errors_by_type(TYPES, {"one": sums(1, 2, 3, 4, 5)}, UNITS, None)
    assert list(found["types"]) == ["a"] and found["left_out"] == 1
