"""Whether a smaller network is faster, said by a clock that is made up."""

from __future__ import annotations

import pytest
import torch

from egnn_prune import break_even, compact, prune
from egnn_prune.errors import ConfigError


@pytest.fixture
def loader(make_batch):
    return [make_batch(5, 7, seed=s) for s in range(3)]


def measured(times):
    """A stopwatch that has these times, and what it was asked to look at."""
    seen = {}

    def measure(models):
        seen.update(models)
        return times

    return measure, seen


def test_the_clock_decides_and_not_the_count(make_property_model, loader):
    model = make_property_model(hidden=16)
    small = compact(prune(model, "magnitude", 0.5, data=loader))
    measure, seen = measured({"dense": [2.0] * 15, "small": [0.5] * 15})
    found = break_even(model, small, loader[0], measure=measure)
    assert seen == {"dense": model, "small": small}
    assert found.pays and found.share == 0.25 and str(found).startswith("4.00x faster")
    measure, _ = measured({"dense": [1.0] * 15, "small": [1.1] * 15})
    found = break_even(model, small, loader[0], measure=measure)
    assert not found.pays and "takes 1.10 of the dense time" in str(found)


def test_both_networks_are_run_on_the_batch(make_property_model, loader):
    model = make_property_model(hidden=16)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    found = break_even(model, make_property_model(hidden=8), loader[0])
    assert len(calls) == 17 and not any(calls)  # two of them to warm up
    assert 0 < found.low <= found.share <= found.high


def test_compiling_for_the_clock_leaves_the_networks_as_they_were(
    make_property_model, loader, monkeypatch
):
    model, small = make_property_model(hidden=16), make_property_model(hidden=8)
    seen = []

    def pretend(self, **_):
        self._compiled_call_impl = lambda *a: seen.append(self) or self._call_impl(*a)

    monkeypatch.setattr(torch.nn.Module, "compile", pretend)
    break_even(model, small, loader[0], compiled=True)
    assert seen.count(model) == seen.count(small) == 17
    assert model._compiled_call_impl is None and small._compiled_call_impl is None


def test_what_is_no_network_is_refused(loader):
    with pytest.raises(ConfigError, match="has no parameters"):
        break_even(torch.nn.Identity(), torch.nn.Identity(), loader[0])
