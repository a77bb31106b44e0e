"""Which copies and paths go until a measured time is met."""

import pytest
import torch
from small_adopted import potential

from egnn_prune.adapters import copies_and_paths, within_latency
from egnn_prune.errors import ConfigError


def weights_of(model) -> float:
    """A "time" that is the same on every machine: the weights behind the convolutions."""
    return float(sum(p.numel() for n, p in model.named_parameters() if "radial_out" in n))


@pytest.fixture
def case():
    model = potential()
    torch.manual_seed(0)
    return model, {g.name: torch.rand(g.n) for g in model.channel_groups()}


@pytest.mark.parametrize("share", [0.9, 0.6, 0.4])
def test_the_budget_is_met_with_little_more_than_has_to_go(case, share):
    model, scores = case
    keep, conv, time = within_latency(model, scores, share, weights_of)
    small = model.resized({name: mask.nonzero().flatten() for name, mask in keep.items()})
    assert time == weights_of(small) <= share * weights_of(model)
    # one channel more of every group would not have fitted
    larger = copies_and_paths(model, scores, 0.6 * conv, 0.6 * conv * 2 / 3)
    other = model.resized({name: mask.nonzero().flatten() for name, mask in larger.items()})
    assert weights_of(other) > share * weights_of(model)


def test_the_teachers_own_time_is_measured_once_where_it_is_not_given(case):
    model, scores = case
    seen = []

    def timed(network) -> float:
        seen.append(network)
        return weights_of(network)

    within_latency(model, scores, 0.5, timed)
    assert sum(network is model for network in seen) == 1
    seen.clear()
    within_latency(model, scores, 0.5, timed, dense=weights_of(model))
    assert not any(network is model for network in seen)


@pytest.mark.parametrize(
    ("share", "words"), [(0.0, r"in \(0, 1\]"), (1.5, r"in \(0, 1\]"), (0.01, "cannot be met")]
)
def test_what_cannot_be_met_is_said(case, share, words):
    with pytest.raises(ConfigError, match=words):
        within_latency(*case, share, weights_of)
