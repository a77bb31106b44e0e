"""Every criterion against numbers worked out another way, on a network of two channels."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from egnn_prune.channels import ChannelGate, ChannelGroup, gate_members, linear_members
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import Context, apply_masks, score_channels
from egnn_prune.pruning.criteria import Movement
from egnn_prune.pruning.criteria.lamp import lamp_of
from egnn_prune.pruning.masks import freeze_entries

N = 2


class Tiny(nn.Module):
    """``x [B, 3] -> [B]`` through two gated channels."""

    def __init__(self, activation=torch.tanh, bias=True, n=N):
        super().__init__()
        self.n, self.activation = n, activation
        self.make = nn.Linear(3, n, bias=bias)
        self.gate = ChannelGate(n)
        self.read = nn.Linear(n, 1, bias=bias)

    def hidden(self, x: Tensor) -> Tensor:
        return self.activation(self.make(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.gate(self.hidden(x), torch.arange(len(x))))[:, 0]

    def channel_groups(self) -> list[ChannelGroup]:
        members = (
            *linear_members("make", self.n, rows=True, bias=self.make.bias is not None),
            *linear_members("read", self.n),
            *gate_members("gate", self.n),
        )
        return [ChannelGroup("hidden", "hidden", self.n, members, "gate")]


def squared_error(model, batch):
    return (model(batch[0]) - batch[1]).square()


@pytest.fixture
def tiny(dtype):
    return Tiny().to(dtype).eval()


@pytest.fixture
def batches(dtype):
    """Two batches of different size: a mean over batches is no mean over samples."""
    return [(torch.randn(k, 3, dtype=dtype), torch.randn(k, dtype=dtype)) for k in (4, 3)]


@pytest.fixture
def everything(batches):
    return [tuple(torch.cat(parts) for parts in zip(*batches, strict=True))]


def score(criterion, model, batches=None, **options):
    context = Context(model, model.channel_groups(), batches, squared_error, **options)
    return score_channels(criterion, context)["hidden"]


def weights_of_channels(model):
    """``[n, 5]``: row, bias and column of each channel."""
    parts = [model.make.weight, model.make.bias[:, None], model.read.weight.T]
    return torch.cat(parts, dim=1).detach().double()


def shares(score):
    return score / score.mean()


def assert_same(a, b, dtype):
    assert a.dtype == torch.float64
    assert torch.allclose(a, b.double(), rtol=1e-4 if dtype == torch.float32 else 1e-10, atol=1e-9)


def test_magnitude_l1(tiny, dtype):
    assert_same(score("magnitude_l1", tiny), shares(weights_of_channels(tiny).abs().sum(1)), dtype)


def test_group_norm(tiny, dtype):
    row, bias, column = (
        shares(part.norm(dim=1)) for part in weights_of_channels(tiny).split([3, 1, 1], dim=1)
    )
    assert_same(score("group_norm", tiny), (row + bias + column) / 3, dtype)


def test_group_norm_hears_every_tensor_and_magnitude_the_loudest(tiny):
    with torch.no_grad():
        tiny.make.weight.copy_(torch.tensor([[100.0, 0, 0], [101.0, 0, 0]]))
        tiny.make.bias.copy_(torch.tensor([3.0, 1.0]))
        tiny.read.weight.copy_(torch.tensor([[3.0, 1.0]]))
    assert score("magnitude", tiny).argmax() == 1
    assert score("group_norm", tiny).argmax() == 0


def test_group_norm_with_a_tensor_of_zeros(tiny):
    nn.init.zeros_(tiny.make.bias)
    assert score("group_norm", tiny).isfinite().all()


def test_lamp_by_hand(tiny, dtype):
    with torch.no_grad():
        for p in tiny.parameters():
            p.zero_()
        tiny.make.weight[0, 0], tiny.read.weight[0, 0] = 2.0, 1.0
        tiny.make.weight[1, 2] = 1.0
    assert_same(score("lamp", tiny), torch.tensor([1.0, 1 / 6], dtype=torch.float64), dtype)


def test_lamp_formula():
    square = torch.tensor([4.0, 1.0, 9.0, 0.0], dtype=torch.float64)
    expected = torch.tensor([4 / 13, 1 / 14, 1.0, 0.0], dtype=torch.float64)
    assert torch.allclose(lamp_of(square), expected)
    assert lamp_of(torch.zeros(3, dtype=torch.float64)).tolist() == [0, 0, 0]
    ties = lamp_of(torch.ones(4, dtype=torch.float64))
    assert torch.allclose(ties, 1 / torch.tensor([4.0, 3, 2, 1], dtype=torch.float64))


def test_activation_norm(tiny, batches, everything, dtype):
    rms = tiny.hidden(everything[0][0]).detach().double().square().mean(0).sqrt()
    assert_same(score("activation_norm", tiny, batches), shares(rms), dtype)


def test_wanda(tiny, batches, everything, dtype):
    norm = tiny.hidden(everything[0][0]).detach().double().norm(dim=0)
    read = tiny.read.weight.detach().double()[0].abs()
    assert_same(score("wanda", tiny, batches), shares(norm * read), dtype)


def gate_gradient(model, x, y):
    """By hand: the derivative of ``(sum_c w_c h_c g_c + b - y)^2``."""
    with torch.no_grad():
        return 2 * (model(x) - y)[:, None] * model.read.weight * model.hidden(x)


def test_taylor_and_fisher(tiny, batches, everything, dtype):
    gradient = gate_gradient(tiny, *everything[0]).double()
    assert_same(score("taylor", tiny, batches), gradient.abs().mean(0), dtype)
    assert_same(score("fisher", tiny, batches), 0.5 * gradient.square().mean(0), dtype)


def test_fisher_is_obd_for_a_likelihood_at_its_optimum():
    """For Gaussian noise of variance 1, the mean squared gate gradient is the Hessian's."""
    model = Tiny().double()
    x = torch.randn(40_000, 3, dtype=torch.float64)
    y = (model(x) + torch.randn(len(x), dtype=torch.float64)).detach()
    found = score("fisher", model, [(x, y)]) / 4  # the squared error is twice the log likelihood

    def mean_loss(gates):
        return 0.5 * (model.read(model.hidden(x) * gates)[:, 0] - y).square().mean()

    hessian = torch.autograd.functional.hessian(mean_loss, torch.ones(N, dtype=torch.float64))
    assert torch.allclose(found, 0.5 * hessian.diagonal(), rtol=0.05)


def scaled(model, channel, factor):
    """The model with all weights of a channel multiplied."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.make.weight[channel] *= factor
        other.make.bias[channel] *= factor
        other.read.weight[:, channel] *= factor
    return other


def mean_gradient(model, batch):
    loss = squared_error(model, batch).mean()
    return torch.autograd.grad(loss, list(model.parameters()))


def test_snip(tiny, batches, everything, dtype):
    gradient = dict(
        zip(dict(tiny.named_parameters()), mean_gradient(tiny, everything[0]), strict=True)
    )
    product = {k: (p * gradient[k]).abs().detach() for k, p in tiny.named_parameters()}
    expected = product["make.weight"].sum(1) + product["make.bias"] + product["read.weight"][0]
    assert_same(score("snip", tiny, batches), expected, dtype)


def test_grasp_with_the_whole_hessian(tiny, batches, everything, dtype):
    names = [name for name, _ in tiny.named_parameters()]
    shapes = [p.shape for p in tiny.parameters()]
    flat = torch.cat([p.detach().flatten() for p in tiny.parameters()])

    def unflatten(vector):
        parts = vector.split([s.numel() for s in shapes])
        return dict(
            zip(names, [p.view(s) for p, s in zip(parts, shapes, strict=True)], strict=True)
        )

    def loss(vector):
        x, y = everything[0]
        return (torch.func.functional_call(tiny, unflatten(vector), x) - y).square().mean()

    hessian = torch.autograd.functional.hessian(loss, flat)
    gradient = torch.autograd.functional.jacobian(loss, flat)
    product = unflatten(flat * (hessian @ gradient))
    expected = product["make.weight"].sum(1) + product["make.bias"] + product["read.weight"][0]
    assert_same(score("grasp", tiny, batches), expected, dtype)


def test_grasp_keeps_what_feeds_the_gradient(batches, everything):
    """Shrinking a channel by a little lowers the squared gradient norm by twice its score."""
    tiny, step = Tiny().double(), 1e-5
    batches = [(x.double(), y.double()) for x, y in batches]
    found = score("grasp", tiny, batches)
    everything = tuple(part.double() for part in everything[0])
    for channel in range(N):
        norms = [
            sum(g.square().sum() for g in mean_gradient(scaled(tiny, channel, f), everything))
            for f in (1 - step, 1 + step)
        ]
        assert torch.allclose((norms[1] - norms[0]) / (2 * step), 2 * found[channel], rtol=1e-5)


def test_grasp_of_a_linear_loss_is_zero(batches):
    model = Tiny(activation=nn.Identity())
    data = [(x.float(), y.float()) for x, y in batches]

    def loss(model, batch):
        return model.make(batch[0]).sum(1)

    context = Context(model, model.channel_groups(), data, loss)
    assert score_channels("grasp", context)["hidden"].tolist() == [0, 0]


def test_synflow_by_hand(batches, dtype):
    model = Tiny(torch.relu, bias=False).to(dtype)
    into = model.make.weight.detach().abs().sum(1)  # from an input of ones
    flow = (into * model.read.weight.detach().abs()[0]).double()
    # every channel's flow is counted at its entrance and at its exit
    assert_same(score("synflow", model, batches), 2 * flow, dtype)


def test_synflow_is_conserved(dtype):
    """What flows into a hidden channel flows out of it, and every layer carries all of R."""
    from egnn_prune.pruning.criteria.synflow import synaptic_flow

    layers = [nn.Linear(a, b, bias=False) for a, b in ((5, 8), (8, 6), (6, 3))]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2]).to(dtype)
    flow = synaptic_flow(Context(model, [], [torch.randn(4, 5, dtype=dtype)]))
    first, second, third = (flow[f"{i}.weight"].double() for i in (0, 2, 4))
    close = {"rtol": 1e-5, "atol": 0.0}
    assert torch.allclose(first.sum(1), second.sum(0), **close)
    assert torch.allclose(second.sum(1), third.sum(0), **close)
    size = torch.ones(5, dtype=torch.float64)
    for layer in layers:
        size = layer.weight.detach().double().abs() @ size
    for part in (first, second, third):
        assert torch.allclose(part.sum(), size.sum(), **close)


def test_synflow_reads_shapes_only(batches):
    model = Tiny(torch.relu).to(batches[0][0].dtype)
    other = [(torch.full_like(x, torch.nan), y) for x, y in batches]
    assert torch.equal(score("synflow", model, batches), score("synflow", model, other))


def test_synflow_says_when_it_overflows():
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)])
    for layer in model:
        nn.init.constant_(layer.weight, 1e20)
    before = [p.clone() for p in model.parameters()]
    group = ChannelGroup("all", "all", 4, tuple(linear_members("0", 4, rows=True)))
    with pytest.raises(ConfigError, match=r"overflows in this precision; score model.double"):
        score_channels("synflow", Context(model, [group], [torch.ones(1, 4)]))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_movement_by_hand(tiny, batches, dtype):
    record, expected = Movement(), torch.zeros(N, dtype=torch.float64)
    optimiser = torch.optim.SGD(tiny.parameters(), lr=0.1, momentum=0.9)
    for batch in batches * 2:
        optimiser.zero_grad()
        squared_error(tiny, batch).mean().backward()
        gradients = torch.cat(
            [tiny.make.weight.grad, tiny.make.bias.grad[:, None], tiny.read.weight.grad.T], 1
        )
        expected -= (weights_of_channels(tiny) * gradients.double()).sum(1)
        record.update(tiny)
        optimiser.step()
    assert record.steps == 4
    assert_same(score("movement", tiny, movement=record), expected, dtype)


def test_movement_keeps_what_grows_and_drops_what_shrinks(dtype):
    model, record = Tiny().to(dtype), Movement()
    with torch.no_grad():
        model.make.weight[0], model.make.weight[1] = 0.1, -5.0  # small and growing, large and not
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(5):
        optimiser.zero_grad()
        (model.make.weight[1].square().sum() - model.make.weight[0].square().sum()).backward()
        record.update(model)
        optimiser.step()
    grows, shrinks = score("movement", model, movement=record)
    assert grows > 0 > shrinks
    assert score("magnitude", model).argmax() == 1


def test_movement_needs_a_record(tiny, batches):
    with pytest.raises(ConfigError, match=r"reads what training recorded; call Movement\(\)"):
        score("movement", tiny, batches)
    with pytest.raises(ConfigError, match="reads what training recorded"):
        score("movement", tiny, batches, movement=Movement())
    with pytest.raises(ConfigError, match="between backward and step"):
        Movement().update(tiny)


def test_movement_of_another_shape(tiny, batches):
    record, wide = Movement(), Tiny(n=3).to(batches[0][0].dtype)
    squared_error(wide, batches[0]).mean().backward()
    record.update(wide)
    with pytest.raises(ConfigError, match=r"recorded at the shape .* record again"):
        score("movement", tiny, movement=record)
    squared_error(tiny, batches[0]).mean().backward()
    with pytest.raises(ConfigError, match=r"start a new Movement\(\)"):
        record.update(tiny)


def test_uncertainty_by_hand(tiny, batches, everything, dtype):
    def variance(model, batch):
        return 1 + model(batch[0]).square()

    x, y = everything[0]
    with torch.no_grad():
        output, effect = tiny(x), tiny.read.weight * tiny.hidden(x)
        loss = 2 * (output - y)[:, None] * effect
        log_variance = (2 * output / (1 + output.square()))[:, None] * effect
    harm, epistemic_std = loss.abs().mean(0), log_variance.clamp(min=0).mean(0)
    expected = shares(harm.double()) + shares(epistemic_std.double())
    assert_same(score("uncertainty", tiny, batches, variance=variance), expected, dtype)


WEIGHT_BASED = ("snip", "grasp", "synflow", "magnitude", "lamp")


@pytest.mark.parametrize("criterion", [*WEIGHT_BASED, "taylor", "wanda"])
def test_frozen_weights_count(tiny, batches, criterion):
    """A frozen entry has no gradient behind its mask, but the network needs it all the same."""
    before = score(criterion, tiny, batches)
    freeze_entries(tiny, "make.weight")
    freeze_entries(tiny, "read.weight")
    with torch.no_grad():  # what lies behind the mask must not be read
        tiny.make.parametrizations.weight.original.fill_(7.0)
    tiny.make.bias.requires_grad_(False)
    assert torch.allclose(score(criterion, tiny, batches), before)
    assert not tiny.make.bias.requires_grad


@pytest.mark.parametrize("criterion", [*WEIGHT_BASED, "fisher", "activation_norm", "wanda"])
def test_a_pruned_channel_scores_zero_and_survivors_as_if_it_were_not_there(batches, criterion):
    model = Tiny(n=4).to(batches[0][0].dtype)
    apply_masks(model, {"hidden": torch.tensor([True, False, True, True])})
    small = Tiny(n=3).to(batches[0][0].dtype)
    kept = torch.tensor([0, 2, 3])
    with torch.no_grad():
        small.make.weight.copy_(model.make.weight[kept])
        small.make.bias.copy_(model.make.bias[kept])
        small.read.weight.copy_(model.read.weight[:, kept])
        small.read.bias.copy_(model.read.bias)
    masked, compact = score(criterion, model, batches), score(criterion, small, batches)
    assert masked[1] == 0
    relative = criterion in ("magnitude", "activation_norm", "wanda")
    masked = masked[kept] * (3 / 4 if relative else 1)  # means over four channels, over three
    assert torch.allclose(masked, compact, rtol=1e-4)
