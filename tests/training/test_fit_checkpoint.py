"""A fit that is stopped at any moment and goes on is the fit that nobody stopped."""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
import signal
from collections.abc import Callable
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from slow_cases import slow_but
from torch_geometric.data import Data

from egnn_prune.data.collation import held
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.models import EGNNOptions, PropertyModel
from egnn_prune.training import (
    FitSettings,
    KeepBest,
    LearningCurve,
    PotentialSettings,
    Pruning,
    PruningCallback,
    RegressionTask,
    fit,
    fit_potential,
    graph_batches,
)
from egnn_prune.training.fit_checkpoint import FitCheckpoint
from egnn_prune.training.weight_averaging import AveragedWeights

CPU = torch.device("cpu")
STEPS = 10  # passes of three steps
HOOKS = ("on_train_batch_start", "on_train_batch_end", "on_validation_end")


class Killed(BaseException):
    """Nobody catches it."""


def killed() -> None:
    raise Killed


class KilledAt(Callback):
    def __init__(self, step: int, hook: str, kill: Callable[[], None] = killed) -> None:
        self.step, self.kill = step, kill
        setattr(self, hook, self._look)

    def _look(self, trainer, *_) -> None:
        if trainer.global_step == self.step:
            self.kill()


def setting(model, graphs, pruning=True):
    network = copy.deepcopy(model)
    callbacks = [AveragedWeights(0.9)]
    if pruning:
        how = Pruning("random", 0.5, rounds=3, until=0.8, scope="group")
        callbacks.append(PruningCallback(how))
    curve = LearningCurve()
    best = KeepBest("val_mae", lambda: all(c.finished for c in callbacks[1:]))
    weights = torch.linspace(0.5, 1, 15)
    train = graph_batches(graphs[0][:15], 5, weights)
    return network, train, held(graphs[1], 5), [*callbacks, best, curve]


def fitted(parts, saving=None, more=()):
    network, train, val, callbacks = parts
    task = RegressionTask(network, FitSettings(STEPS, 3e-3))
    fit(task, train, val, device=CPU, callbacks=[*more, *callbacks], checkpoint=saving)
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in callbacks[-1].rows]
    return network.state_dict(), rows, torch.rand(1)


@pytest.fixture
def dropping(model):
    other = PropertyModel.build(
        model.elements, hidden=8, layers=2, readout_dropout=0.2, options=EGNNOptions(radial=8)
    )
    other.scale = model.scale
    return other


@pytest.fixture
def expected(dropping, graphs, undisturbed):
    """What the fit of these tests finds that nobody stops; made once."""
    if not undisturbed:
        torch.manual_seed(3)
        undisturbed.append(fitted(setting(dropping, graphs)))
    return undisturbed[0]


@pytest.fixture(scope="module")
def undisturbed():
    return []


def moments(hooks, steps, quick):
    """Every hook at every step."""
    return slow_but(itertools.product(hooks, steps), *quick)


#: Within a pass, between passes (the rate's and the rounds' next step), after a pass's validation,
#: and when all steps are made. A validation ends at steps 3, 6, 9 and 10 alone.
KILLS = {
    *((HOOKS[0], 3), (HOOKS[0], 4), (HOOKS[1], 8), (HOOKS[1], 9), (HOOKS[1], 10)),
    *((HOOKS[2], 6), (HOOKS[2], 10)),
}


@pytest.mark.parametrize(("hook", "step"), moments(HOOKS, range(STEPS + 1), KILLS))
def test_killed_anywhere(dropping, graphs, tmp_path, expected, step, hook):
    saving = partial(FitCheckpoint, tmp_path / "fit.ckpt", 0.0)  # at every step
    torch.manual_seed(3)
    try:
        fitted(setting(dropping, graphs), saving(), [KilledAt(step, hook)])
    except Killed:
        pass
    torch.manual_seed(99)
    parts = setting(dropping, graphs)
    found = fitted(parts, saving())
    assert found[1] == expected[1] and torch.equal(found[2], expected[2])
    assert all(torch.equal(v, expected[0][k]) for k, v in found[0].items())
    again = setting(dropping, graphs)
    torch.manual_seed(98)
    taken = fitted(again, saving())
    assert all(torch.equal(v, expected[0][k]) for k, v in taken[0].items())
    assert torch.equal(taken[2], expected[2])
    assert again[3][-1].rows == parts[3][-1].rows


def test_a_damaged_file_is_lost_work_and_no_more(dropping, graphs, tmp_path):
    path = tmp_path / "fit.ckpt"
    torch.manual_seed(3)
    expected = fitted(setting(dropping, graphs), FitCheckpoint(path))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"\x80\x02c" + whole):
        path.write_bytes(content)
        torch.manual_seed(3)
        with pytest.warns(UserWarning, match=r"fit\.ckpt is damaged .*; the fit begins anew"):
            found = fitted(setting(dropping, graphs), FitCheckpoint(path))
        assert found[1] == expected[1]


def test_the_file_of_another_network_is_refused(dropping, graphs, tmp_path):
    path = tmp_path / "fit.ckpt"
    fitted(setting(dropping, graphs), FitCheckpoint(path))
    other = PropertyModel.build(dropping.elements, hidden=4, layers=1)
    other.scale = dropping.scale
    with pytest.raises(InputError, match=r"another fit or another version .* delete it to begin"):
        fitted(setting(other, graphs), FitCheckpoint(path))


def test_the_file_of_a_fit_of_other_steps_is_refused(dropping, graphs, tmp_path):
    path = tmp_path / "fit.ckpt"
    fitted(setting(dropping, graphs), FitCheckpoint(path))
    network, train, val, callbacks = setting(dropping, graphs)
    task = RegressionTask(network, FitSettings(STEPS + 1, 3e-3))
    with pytest.raises(InputError, match="it is of 10 steps, and 11 are asked for"):
        fit(task, train, val, device=CPU, callbacks=callbacks, checkpoint=FitCheckpoint(path))


def test_weights_that_are_lost_replace_no_good_ones(dropping, graphs, tmp_path):
    path, saved = tmp_path / "fit.ckpt", []

    class Breaks(Callback):
        def on_train_batch_end(self, trainer, task, *_):
            if trainer.global_step == 4:
                saved.append(path.read_bytes())
                next(iter(task.parameters())).data.view(-1)[0] = torch.nan

    with pytest.raises(ConfigError, match="a weight is NaN or infinite; lower the lr"):
        fitted(setting(dropping, graphs), FitCheckpoint(path, 0.0), [Breaks()])
    assert saved == [path.read_bytes()]
    torch.manual_seed(3)
    found = fitted(setting(dropping, graphs), FitCheckpoint(path))
    assert all(bool(v.isfinite().all()) for v in found[0].values())


@pytest.mark.parametrize("step", slow_but([2, 7, 10], 7))
def test_costs_of_channels_outlive_the_process(dropping, graphs, tmp_path, step):
    """As do the widths that were found fastest: nothing is measured twice."""
    asked = []

    def measure(models):
        asked.append(len(models))
        sizes = {n: sum(p.numel() for p in m.parameters()) for n, m in models.items()}
        return {n: [size / 1e3] * 9 for n, size in sizes.items()}

    def run(saving, more=()):
        network, train, val, callbacks = setting(dropping, graphs, pruning=False)
        how = Pruning("random", latency=0.8, rounds=3, until=0.8, round_to=0)
        rounds = PruningCallback(how, timed=graphs[0][0], measure=measure)
        parts = network, train, val, [callbacks[0], rounds, callbacks[-1]]
        fitted(parts, saving, more)
        return rounds

    expected, all_asked = run(None), len(asked)
    path = tmp_path / "fit.ckpt"
    told = KilledAt(step, "on_train_batch_end")
    with contextlib.suppress(Killed):
        run(FitCheckpoint(path, 0.0), [told] if step < STEPS else [])
    asked.clear()
    found = run(FitCheckpoint(path, 0.0))
    assert found.round_to == expected.round_to
    assert dict(found.latency.costs) == dict(expected.latency.costs) != {}
    assert all(torch.equal(v, expected.keep[k]) for k, v in found.keep.items())
    assert len(asked) < all_asked


def test_batches_that_cannot_go_on_are_refused(dropping, graphs, tmp_path):
    network, _, val, callbacks = setting(dropping, graphs)
    with pytest.raises(ConfigError, match="only a fit on graph_batches"):
        fitted((network, held(graphs[0], 5), val, callbacks), FitCheckpoint(tmp_path / "fit.ckpt"))


ASKED = [*HOOKS, "on_validation_start", "on_validation_batch_end", "on_train_epoch_end"]
SIGNALS = {
    *(("on_train_batch_end", 5), ("on_train_batch_end", 10), ("on_validation_batch_end", 9)),
    ("on_train_epoch_end", 3),
}


@pytest.mark.parametrize(("hook", "step"), moments(ASKED, (3, 5, 9, 10), SIGNALS))
def test_a_fit_that_the_system_ends_saves_first(dropping, graphs, tmp_path, expected, step, hook):
    path = tmp_path / "fit.ckpt"
    torch.manual_seed(3)
    with contextlib.suppress(KeyboardInterrupt):
        told = KilledAt(step, hook, lambda: os.kill(os.getpid(), signal.SIGTERM))
        fitted(setting(dropping, graphs), FitCheckpoint(path, minutes=1e6), [told])
    torch.manual_seed(99)
    found = fitted(setting(dropping, graphs), FitCheckpoint(path))
    assert found[1] == expected[1] and torch.equal(found[2], expected[2])
    assert all(torch.equal(v, expected[0][k]) for k, v in found[0].items())


def test_the_end_comes_before_the_next_step(dropping, graphs, tmp_path):
    path, steps = tmp_path / "fit.ckpt", []
    handler = signal.getsignal(signal.SIGTERM)

    class Counts(Callback):
        def on_train_batch_end(self, trainer, *_):
            steps.append(trainer.global_step)
            if trainer.global_step == 5:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        fitted(setting(dropping, graphs), FitCheckpoint(path, minutes=1e6), [Counts()])
    assert steps == [1, 2, 3, 4, 5] and signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize("step", slow_but([1, 4, 7], 7))
def test_a_potential_is_validated_where_it_would_have_been(tmp_path, step):
    """Its validations come every so many steps, whatever the passes."""
    model, graphs = potential()
    how = PotentialSettings(10, validations=5, batch_size=2)

    def run(saving, more=()):
        network = copy.deepcopy(model)
        found = fit_potential(network, graphs, graphs[:3], how, checkpoint=saving, callbacks=more)
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in found.curve]
        return rows, network.state_dict(), found.best_step

    expected = run(None)
    path = tmp_path / "fit.ckpt"
    with pytest.raises(Killed):
        run(FitCheckpoint(path, 0.0), [KilledAt(step, "on_train_batch_end")])
    found = run(FitCheckpoint(path, 0.0))
    assert [row["step"] for row in found[0]] == [0, 2, 4, 6, 8, 10]
    assert found[0] == expected[0] and found[2] == expected[2]
    assert all(torch.equal(v, expected[1][k]) for k, v in found[1].items())


def potential():
    generator = torch.Generator().manual_seed(0)
    model = PropertyModel.build((1, 6), hidden=8, layers=1, options=EGNNOptions(cutoff=4.0))
    graphs = []
    for _ in range(7):
        pos = 2 * torch.rand(4, 3, generator=generator)
        graphs.append(Data(z=torch.tensor([6, 1, 1, 1]), pos=pos))
    for graph in graphs:
        graph.y = graph.pos.square().sum().reshape(1).double()
        graph.forces = -2 * graph.pos
    return model, graphs


def test_time_goes_by_between_saves(dropping, graphs, tmp_path):
    now = [0.0]

    class Ticks(Callback):
        def on_train_batch_end(self, *_):
            now[0] += 60.0

    saving = FitCheckpoint(tmp_path / "fit.ckpt", 4.0, lambda: now[0])
    saved = []
    write, saving.save = (
        saving.save,
        lambda trainer, ended=False: (
            saved.append(trainer.global_step),
            write(trainer, ended),
        ),
    )
    fitted(setting(dropping, graphs), saving, [Ticks()])
    assert saved == [4, 8, 10] and saving.seconds == 600.0
