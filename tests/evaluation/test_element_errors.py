"""Errors of forces by element."""

from __future__ import annotations

import pytest
import torch

from egnn_prune.evaluation.element_errors import force_errors_by_element


def test_each_element_has_the_errors_of_its_own_atoms():
    error = torch.tensor([[3.0, 0, 0], [0, -1, 1], [0, 0, 6]])
    found = force_errors_by_element(error, torch.tensor([8, 1, 8]))
    assert list(found) == ["H", "O"]
    assert found["H"] == {"atoms": 1, "mae": pytest.approx(2 / 3), "rmse": pytest.approx(1.5**-0.5)}
    assert found["O"] == {"atoms": 2, "mae": pytest.approx(1.5), "rmse": pytest.approx(7.5**0.5)}
