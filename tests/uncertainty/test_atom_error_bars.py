"""Error bars of forces on atoms: laws, intervals and limits against what is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from egnn_prune.errors import ConfigError, InputError
from egnn_prune.uncertainty import AtomDistance, AtomErrorBars, AtomEvidence

WIDTH = 6
C, H, O, SI = 6, 1, 8, 14  # noqa: E741


def evidence(
    count: int = 2000,
    sizes: Callable[[Tensor, Tensor], Tensor] = lambda score, z: score,
    elements: tuple[int, ...] = (H, C),
    seed: int = 0,
) -> AtomEvidence:
    """Atoms in structures of ten, with Gaussian errors of given sizes of their spread."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    z = torch.tensor(elements)[torch.arange(count) % len(elements)]
    features = normal(count, WIDTH) * torch.arange(1, WIDTH + 1) + z[:, None]
    spread = (0.7 * normal(count)).exp()
    wrong = sizes(spread, z)[:, None] * normal(count, 3)
    return AtomEvidence(features, z, torch.arange(count) // 10, wrong, spread)


def fitted(source: str = "members", **keywords) -> AtomErrorBars:
    return AtomErrorBars(source).fit(evidence(seed=1), evidence(**keywords))


def test_every_element_gets_its_own_power_law():
    powers = {H: 0.5, C: 2.0}

    def law(score: Tensor, z: Tensor) -> Tensor:
        return torch.where(z == H, 0.3 * score ** powers[H], 2 * score ** powers[C])

    bars = fitted(count=6000, sizes=law)
    assert bars.elements == (H, C)
    for element, power in powers.items():
        found = float(bars.laws[str(element)].exponent)
        assert found == pytest.approx(power, abs=0.06)
    test = evidence(seed=2, sizes=law)
    std = bars.std(test.features, test.z, test.spread)
    within = test.spread < 1.5  # beyond the knee no error bar grows slower than the score
    torch.testing.assert_close(std[within], law(test.spread, test.z)[within], rtol=0.12, atol=0)


def test_elements_with_few_atoms_share_the_law_of_all():
    many, few = evidence(elements=(H,)), evidence(10, lambda score, _: 30 * score, (C,), seed=3)
    bars = AtomErrorBars("members").fit(evidence(seed=1), AtomEvidence.cat([many, few]))
    assert bars.elements == (H,)
    z = torch.tensor([H, C, O])
    spread = torch.ones(3, dtype=torch.float64)
    std = bars.std(torch.zeros(3, WIDTH), z, spread)
    assert std[1] == std[2] and std[0] != std[1]
    half = bars.half_width(std, z, 0.9)
    assert half[1] == half[2]


@pytest.mark.parametrize("source", ["members", "distance"])
def test_intervals_cover_fresh_atoms(source):
    def size(score: Tensor, z: Tensor) -> Tensor:
        return torch.where(z == H, 1.0, 3.0) * score

    bars = fitted(source, count=6000, sizes=size)
    test = evidence(6000, size, seed=7)
    std = bars.std(test.features, test.z, test.spread)
    for coverage in (0.5, 0.8, 0.9, 0.95):
        half = bars.half_width(std, test.z, coverage)[:, None]
        for element in (H, C):
            inside = (test.wrong.abs() <= half)[test.z == element]
            assert float(inside.double().mean()) == pytest.approx(coverage, abs=0.02)


def test_long_tails_widen_the_far_intervals_only():
    """Errors of Student's t: quantiles are of the atoms, not of a Gaussian."""

    def size(score: Tensor, _: Tensor) -> Tensor:
        chi = torch.distributions.Chi2(torch.tensor(3.0)).sample(score.shape).double()
        return score * (3 / chi).sqrt()

    torch.manual_seed(0)
    bars = fitted(count=6000, sizes=size)
    one, z = torch.ones(1, dtype=torch.float64), torch.tensor([H])
    assert float(bars.half_width(one, z, 0.5)) < 0.6745
    assert float(bars.half_width(one, z, 0.99)) > 2.576


def test_wider_intervals_for_more_coverage():
    bars = fitted()
    std, z = torch.tensor([0.5, 2.0]).double(), torch.tensor([H, O])
    grid = [0.0005, 0.005, 0.01, 0.3, 0.301, 0.9, 0.99, 0.995, 0.999, 0.9999]
    widths = torch.stack([bars.half_width(std, z, c) for c in grid])
    assert bool((widths > 0).all()) and bool((widths.diff(dim=0) > 0).all())
    torch.testing.assert_close(bars.half_width(2 * std, z, 0.7), 2 * bars.half_width(std, z, 0.7))
    for wrong in (0.0, 1.0, math.nan):
        with pytest.raises(ConfigError, match="coverage must lie between 0 and 1"):
            bars.half_width(std, z, wrong)


@pytest.mark.parametrize(("structures", "rank"), [(150, 150), (99, 99), (20, 20), (500, 496)])
def test_limits_are_conformal_ranks(structures, rank):
    val = evidence(10 * structures, seed=5)
    bars = AtomErrorBars().fit(evidence(seed=1), val)
    distance, std = bars.distance(val.features, val.z), bars.std(val.features, val.z)
    for values, limit in ((distance, bars.distance_limit), (std, bars.std_limit)):
        ordered = sorted(float(part.max()) for part in values.split(10))
        assert float(limit) == ordered[rank - 1]
    assert int(bars.strange(distance).sum()) == int((distance > bars.distance_limit).sum())


def test_distances_against_the_formula():
    train = evidence(4000, seed=1)
    found = AtomDistance().fit(train.features, train.z)(train.features, train.z)
    for element in (H, C):
        own = train.features[train.z == element]
        away = own - own.mean(0)
        inverse = torch.linalg.inv(away.T @ away / len(away))
        expected = torch.einsum("ni,ij,nj->n", away, inverse, away) / WIDTH
        torch.testing.assert_close(found[train.z == element] ** 2, expected, rtol=0.02, atol=1e-3)
    assert float(found.square().mean()) == pytest.approx(1, abs=0.02)


def test_far_atoms_are_strange_and_get_longer_error_bars():
    bars = AtomErrorBars().fit(evidence(seed=1), evidence())
    near, far = torch.zeros(1, WIDTH) + H, torch.full((1, WIDTH), 60.0)
    z = torch.tensor([H])
    assert not bars.strange(bars.distance(near, z)) and bars.strange(bars.distance(far, z))
    farther = bars.std(2 * far, z)
    assert farther >= 1.9 * bars.std(far, z) > bars.std_limit
    assert bars.strange(torch.tensor([math.nan]))


def test_an_element_without_training_atoms():
    bars = AtomErrorBars().fit(evidence(seed=1), evidence())
    z = torch.tensor([H, SI])
    std = bars.std(torch.zeros(2, WIDTH), z)
    assert std.isfinite().tolist() == [True, False] and not bool(std.isnan().any())
    assert bars.half_width(std, z).tolist()[1] == math.inf
    assert bars.raw_std(torch.zeros(2, WIDTH), z).tolist()[1] == math.inf
    assert bars.strange(bars.distance(torch.zeros(2, WIDTH), z)).tolist() == [False, True]


def test_validation_structures_with_a_new_element_do_not_set_limits():
    val = evidence(900)
    strange = evidence(10, elements=(SI,), seed=2)
    bars = AtomErrorBars().fit(evidence(seed=1), AtomEvidence.cat([val, strange]))
    assert all(bool(v.isfinite().all()) for v in bars.state_dict().values())
    with pytest.raises(InputError, match="no validation atom is of an element"):
        AtomErrorBars().fit(evidence(seed=1), evidence(elements=(SI,)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_casting_the_model_keeps_what_was_fitted(dtype):
    bars = fitted("distance")
    test = evidence(seed=4)
    before, kept = bars.std(test.features, test.z), bars.state_dict()
    network = torch.nn.ModuleList([torch.nn.Linear(2, 2), bars]).to(dtype)
    assert network[0].weight.dtype == dtype
    for name, value in bars.state_dict().items():
        assert value.dtype == kept[name].dtype and torch.equal(value, kept[name])
    assert torch.equal(bars.std(test.features, test.z), before)
    torch.testing.assert_close(bars.std(test.features.float(), test.z), before, rtol=1e-4, atol=0)
    assert next(iter(network.to("meta")[1].buffers())).device.type == "meta"


def test_another_networks_training_atoms():
    """Features that turned and grew: the same atoms are as far away as before."""
    bars, train, test = fitted("distance"), evidence(seed=1), evidence(seed=4)
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, dtype=torch.float64)).Q
    other = 7 * train.features @ turn
    moved = bars.moved_to(AtomEvidence(other, train.z, train.structure, train.wrong))
    seen = 7 * test.features @ turn
    torch.testing.assert_close(moved.std(seen, test.z), bars.std(test.features, test.z))
    for name, value in bars.state_dict().items():
        same = torch.equal(moved.state_dict()[name], value)
        assert same == (name not in ("distance.centre", "distance.whitening"))
    narrow = AtomEvidence(train.features[:, :3], train.z, train.structure, train.wrong)
    assert bars.moved_to(narrow).std(test.features[:, :3], test.z).isfinite().all()


def test_members_need_their_spread():
    bars = fitted()
    test = evidence(30)
    with pytest.raises(ConfigError, match="come from members; give their spread"):
        bars.std(test.features, test.z)
    with pytest.raises(ConfigError, match="distance or members, not 'luck'"):
        AtomErrorBars("luck")
    for wrong in (["6"], [0], [6, 6], [True]):
        with pytest.raises(ConfigError, match="different atomic numbers"):
            AtomErrorBars("members", wrong)


def test_features_of_another_network_are_refused():
    with pytest.raises(InputError, match="fitted to 6 features, but the network has 5"):
        fitted("distance").std(torch.zeros(3, 5), torch.tensor([1, 1, 6]))
    with pytest.raises(ConfigError, match="fit the distance on training atoms"):
        AtomErrorBars().std(torch.zeros(3, 5), torch.tensor([1, 1, 6]))


def test_what_cannot_be_fitted_to():
    good = vars(evidence(60))
    cases = {
        "a force of the validation structures is NaN": good | {"wrong": good["wrong"] / 0},
        "what the network says of the validation atoms": good | {"features": good["features"] / 0},
        "every force of the validation structures is exact": good | {"wrong": 0 * good["wrong"]},
        "the members of most validation atoms is zero": good | {"spread": 0 * good["spread"]},
        "more validation atoms than 3": {k: v[:3] for k, v in good.items()},
    }
    for message, parts in cases.items():
        with pytest.raises(InputError, match=message):
            AtomErrorBars("members").fit(evidence(60), AtomEvidence(**parts))
    with pytest.raises(InputError, match="there are none"):
        AtomEvidence.cat([])
    alone = AtomEvidence(**good | {"spread": None})
    with pytest.raises(InputError, match="of some of the structures only"):
        AtomEvidence.cat([alone, evidence(60)])


def test_an_element_whose_forces_are_exact_shares_the_law_of_all():
    bars = fitted(sizes=lambda score, z: torch.where(z == C, score, 0.0))
    assert bars.elements == (C,)
    bars.check()


def test_structures_of_joined_evidence_stay_apart():
    joined = AtomEvidence.cat([evidence(30), evidence(25, seed=1), evidence(5)])
    assert joined.structure.bincount().tolist() == [10, 10, 10, 10, 10, 5, 5]


def damaged(bars: AtomErrorBars, name: str, value: Tensor) -> AtomErrorBars:
    owner, _, buffer = name.rpartition(".")
    bars.get_submodule(owner)._buffers[buffer] = value
    return bars


def test_numbers_that_no_fit_leaves_are_refused():
    with pytest.raises(InputError, match="damaged, or were not fitted"):
        AtomErrorBars().check()
    fitted("distance").check()
    names = list(fitted("distance").state_dict())
    assert len(names) == 17
    for name in names:
        value = fitted("distance").state_dict()[name]
        for wrong in (value[:0], value[None], value.float(), value.double() * math.nan):
            with pytest.raises(InputError, match="damaged"):
                damaged(fitted("distance"), name, wrong).check()
    for name in ("scale", "floor", "distance_limit", "std_limit", "quantiles"):
        with pytest.raises(InputError, match="negative or zero"):
            damaged(fitted("distance"), name, -fitted("distance").state_dict()[name]).check()
