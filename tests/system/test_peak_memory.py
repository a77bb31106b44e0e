"""The most memory that a computation holds at once."""

from __future__ import annotations

import pytest
import torch

from egnn_prune.system.memory import peak_megabytes

X = torch.ones(1000, dtype=torch.float64)  # 8 kB


def test_what_died_does_not_count_and_views_are_no_new_memory():
    def run() -> None:
        doubled = X * 2
        more = doubled + 1
        del doubled
        turned = more.view(10, 100).T
        turned.mul_(2)
        turned * turned

    assert peak_megabytes(run, "cpu") == pytest.approx(0.016)
    assert peak_megabytes(lambda: X.view(10, 100), "cpu") == 0


def test_what_autograd_keeps_counts():
    weight = X.clone().requires_grad_(True)

    def chain(links: int) -> None:
        value = weight
        for _ in range(links):
            value = value.exp()
        value.sum().backward()

    shorter, longer = (peak_megabytes(lambda n=n: chain(n), "cpu") for n in (10, 20))
    assert longer - shorter == pytest.approx(0.08)
