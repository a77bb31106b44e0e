"""Threads that share a network: what one draws, the others never see.

Nothing is left to chance: a hook holds one thread in the middle of its pass until another is done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from egnn_prune.channels import gates
from egnn_prune.models import force_prediction
from egnn_prune.pruning import TracedNetwork
from egnn_prune.uncertainty import MCDropout, draw_networks, dropout_samples, mc_dropout

PATIENCE = 20.0


class Held:
    """A thread that runs ``work`` and stops when it first reaches ``module``, until released."""

    def __init__(self, module: nn.Module, work: Callable[[], Any], wait: bool = True) -> None:
        self.reached, self.go, self.work = threading.Event(), threading.Event(), work
        self.found: Any = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.handle = module.register_forward_pre_hook(self._stop)
        self.thread.start()
        if wait:
            assert self.reached.wait(PATIENCE), self.found

    def _run(self) -> None:
        try:
            self.found = self.work()
        except Exception as error:
            self.found = error

    def _stop(self, *_: object) -> None:
        if threading.current_thread() is self.thread and not self.reached.is_set():
            self.reached.set()
            self.go.wait(PATIENCE)

    def released(self) -> Any:
        """What the work returned, after it may go on."""
        self.go.set()
        self.thread.join(PATIENCE)
        self.handle.remove()
        return self.found


@pytest.fixture
def model(make_property_model) -> nn.Module:
    return make_property_model(dropout=0.3)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("together", [1, 4], ids=["one by one", "side by side"])
def test_thinned_and_whole_passes_beside_each_other(model, make_batch, together):
    batch = make_batch(3, 5)

    def sampled(seed: int) -> Tensor:
        return mc_dropout(
            model, batch, 4, generator=seeded(seed), samples_per_call=together
        ).members

    first, second, whole = sampled(1), sampled(2), model(batch).mean
    other = Held(model.head, lambda: sampled(1))
    assert torch.equal(model(batch).mean, whole)
    assert torch.equal(sampled(2), second)
    assert all(gate.dropout_mask is None for _, gate in gates(model))
    assert torch.equal(other.released(), first)


def test_forces_of_thinned_networks_beside_a_whole_one(model, make_batch):
    batch = make_batch(4)

    def spread() -> Tensor:
        with dropout_samples(model, draw_networks(model, 3, seeded(0))):
            return force_prediction(model, batch).members

    expected, whole = spread(), model(batch).mean
    other = Held(model.head, spread)
    assert torch.equal(model(batch).mean, whole)
    assert torch.equal(spread(), expected)
    assert torch.equal(other.released(), expected)


def test_modes_come_back_when_the_last_call_ends(model, make_batch):
    """A network in training mode: the first call to end must not switch the second one's mode."""
    estimator, batch = MCDropout(model, 3, seed=1), make_batch(3, 5)
    expected = estimator.predict(batch).members
    model.train()
    first = Held(model.head, lambda: estimator.predict(batch).members)
    second = Held(model.head, lambda: estimator.predict(batch).members)
    assert torch.equal(first.released(), expected)
    assert not any(module.training for module in model.modules())
    assert torch.equal(second.released(), expected)
    assert all(module.training for module in model.modules())


def test_a_traced_network(dtype):
    """Its gates are hooked into its layers while it is thinned: those of the caller alone act."""
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    x = torch.randn(5, 6, dtype=dtype)
    traced = TracedNetwork(network.to(dtype).eval(), x, dropout=0.5)

    @torch.no_grad()
    def passed(seed: int) -> Tensor:
        with dropout_samples(traced, draw_networks(traced, 1, seeded(seed))):
            return traced(x)

    whole, first, second = traced(x), passed(1), passed(2)
    assert not torch.equal(first, second)
    last = [m for m in traced.modules() if isinstance(m, nn.Linear)][-1]
    other = Held(last, lambda: passed(1))
    assert torch.equal(traced(x), whole)
    assert torch.equal(passed(2), second)
    assert torch.equal(other.released(), first)
