"""A fit takes the steps it was asked for, learns, respects masks, and stops on nonsense."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from egnn_prune.channels import ChannelGate
from egnn_prune.errors import ConfigError
from egnn_prune.models import PropertyModel
from egnn_prune.pruning import apply_masks, compact, freeze, keep_masks
from egnn_prune.training import FitSettings, RegressionTask, fit, graph_batches, graph_losses

CPU = torch.device("cpu")


class Recorder(Callback):
    """What a fit did, step by step."""

    def __init__(self) -> None:
        self.steps, self.sizes, self.norms, self.graphs = 0, [], [], []

    def on_train_batch_start(self, trainer, module, batch, *_) -> None:
        self.sizes.append(batch.num_graphs)
        self.graphs += batch.row.tolist()

    def on_train_batch_end(self, trainer, module, *_) -> None:  # gradients are clipped by now
        squares = [p.grad.square().sum() for p in module.parameters() if p.grad is not None]
        self.norms.append(float(torch.stack(squares).sum().sqrt()))

    def on_train_end(self, trainer, *_) -> None:
        self.steps = trainer.global_step


def fitted(
    model, graphs, steps=4, batch_size=10, callbacks=(), weights=None, losses=graph_losses, **how
) -> Recorder:
    recorder = Recorder()
    task = RegressionTask(model, FitSettings(steps, **({"lr": 3e-3} | how)), losses)
    train, val = graphs
    batches = graph_batches(train, batch_size, weights)
    fit(
        task, batches, DataLoader(val, 4 * batch_size), device=CPU, callbacks=[*callbacks, recorder]
    )
    return recorder


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, 25])
@pytest.mark.parametrize(("n", "batch_size", "size"), [(3, 10, 3), (25, 10, 10)])
def test_exactly_the_steps_asked_for(model, graphs, steps, n, batch_size, size):
    done = fitted(model, (graphs[0][:n], graphs[1][:2]), steps, batch_size)
    assert done.steps == steps
    assert done.sizes == [size] * steps


def test_every_graph_is_seen_once_in_a_pass(model, graphs):
    done = fitted(model, graphs, steps=4)
    assert sorted(done.graphs) == sorted(int(g.row) for g in graphs[0])


def test_weights_decide_how_often_graphs_are_drawn(model, graphs):
    weights = torch.zeros(40)
    weights[:3] = torch.tensor([1.0, 1.0, 2.0])
    drawn = fitted(model, graphs, steps=20, weights=weights).graphs
    shares = [drawn.count(int(g.row)) / len(drawn) for g in graphs[0]]
    assert len(drawn) == 200 and shares[3:] == [0.0] * 37
    assert shares[:3] == pytest.approx([0.25, 0.25, 0.5], abs=0.15)  # 4 sigma


def test_the_loss_falls(model, graphs):
    batch = Batch.from_data_list(graphs[0])
    before = float(graph_losses(model, batch).mean().detach())
    fitted(model, graphs, steps=60, lr=1e-2)
    assert float(graph_losses(model, batch).mean().detach()) < 0.7 * before


def test_the_same_seed_gives_the_same_weights(model, graphs):
    other = copy.deepcopy(model)
    for each in (model, other):
        torch.manual_seed(3)
        fitted(each, graphs)
    state = other.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("mode", ["pruned", "message_passing"])
def test_zeros_stay_zero_and_the_rest_moves(model, graphs, mode):
    groups = model.channel_groups()
    keep = {g.name: torch.arange(g.n) % 2 == 0 for g in groups}
    apply_masks(model, keep)
    freeze(model, mode)
    before = copy.deepcopy(model)
    fitted(model, graphs, steps=8)
    assert all(torch.equal(keep_masks(model)[name], mask) for name, mask in keep.items())
    weight, old = (m.trunk.embedding.weight.detach() for m in (model, before))
    assert float(weight[1::2].abs().max()) == 0.0
    assert torch.equal(weight, old) == (mode == "message_passing")
    assert (model.head.mean_out.weight != before.head.mean_out.weight).any()
    batch = Batch.from_data_list(graphs[1])
    assert torch.allclose(compact(model)(batch).mean, model(batch).mean, rtol=1e-5)


@pytest.mark.parametrize("clip", [1e-3, 1e9])
def test_gradients_are_clipped(model, graphs, clip):
    largest = max(fitted(model, graphs, clip=clip).norms)
    assert largest <= 1.001 * clip
    assert largest > 0.5 * min(clip, 1e-2)


def test_dropout_is_active_in_every_fit(graphs, monkeypatch):
    model = PropertyModel.build((1, 6, 7, 8, 9), hidden=8, layers=1, readout_dropout=0.2)
    drawn = []
    draw = ChannelGate.draw
    monkeypatch.setattr(ChannelGate, "draw", lambda *a: drawn.append(1) or draw(*a))
    fitted(model.eval(), graphs, steps=4)  # as a model is that comes from load()
    assert len(drawn) == 4
    assert not any(module.training for module in model.modules())
    fitted(model, graphs, steps=4)
    assert len(drawn) == 8


def test_a_loss_that_is_no_number_stops_the_fit(model, graphs):
    with torch.no_grad():
        model.head.mean_out.bias.fill_(torch.nan)
    with pytest.raises(ConfigError, match=r"became NaN or infinite; lower training\.lr"):
        fitted(model, graphs)


def test_ctrl_c_comes_through(model, graphs):
    class Interrupt(Callback):
        def on_train_batch_start(self, trainer, *_) -> None:
            if trainer.global_step == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(model, graphs, callbacks=[Interrupt()])


def test_the_loss_by_hand(model, graphs):
    batch = Batch.from_data_list(graphs[1])
    means, variances = (t.detach() for t in model.normalised(batch))
    error = (means[0] - model.normalise(batch, batch.y)).abs()
    huber = torch.where(error < 0.1, error**2 / 0.2, error - 0.05)
    likelihood = 0.5 * (variances[0].log() + error**2 / variances[0])
    found: Tensor = graph_losses(model, batch)
    assert found.shape == (10,)
    assert torch.allclose(found, huber + 0.1 * likelihood, rtol=1e-5)


def test_the_likelihood_does_not_train_the_mean(model, graphs, monkeypatch):
    from egnn_prune.training import loss

    batch = Batch.from_data_list(graphs[1])
    gradients = []
    for weight in (0.0, 0.1):
        monkeypatch.setattr(loss, "VARIANCE_WEIGHT", weight)
        model.zero_grad()
        graph_losses(model, batch).mean().backward()
        gradients.append(model.head.mean_out.weight.grad.clone())
    assert torch.equal(*gradients)
