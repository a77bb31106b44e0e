"""Averages, best weights and early ends beside rounds of pruning, killed and gone on with."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from slow_cases import slow_but
from torch_geometric.data import Batch

from egnn_prune.configs.settings import TrainingSettings
from egnn_prune.data.collation import held
from egnn_prune.errors import ConfigError
from egnn_prune.pipeline.fit_callbacks import with_the_asked
from egnn_prune.pruning import compact, keep_masks
from egnn_prune.pruning.tensors import parameter_names
from egnn_prune.training import (
    AveragedWeights,
    FitCheckpoint,
    FitSettings,
    KeepBest,
    LearningCurve,
    Pruning,
    PruningCallback,
    RegressionTask,
    StopEarly,
    fit,
    graph_batches,
)

STEPS = 20  # passes of two
STILL = 1e-12  # a rate that changes no weight, so that no look is better than another


class Trained(Callback):
    """The weights after every step."""

    def __init__(self) -> None:
        self.seen: list[list[torch.Tensor]] = []

    def on_train_batch_end(self, trainer, module, *_) -> None:
        self.seen.append([w.detach().clone() for w in module.model.parameters()])


def rounds(until=0.8) -> PruningCallback:
    return PruningCallback("random", 0.5, scope="group", rounds=3, until=until)


def fitted(model, graphs, callbacks, *, steps=STEPS, lr=0.02, saving=None, **how):
    """The steps of all looks, with their errors."""
    torch.manual_seed(3)
    curve = LearningCurve()
    fit(
        RegressionTask(model, FitSettings(steps, lr, weight_decay=0.0, **how)),
        graph_batches(graphs[0][:20], 10),
        held(graphs[1], 10),
        device=torch.device("cpu"),
        callbacks=[*callbacks, curve],
        checkpoint=saving,
    )
    return {int(row["step"]): row["val_mae"] for row in curve.rows}


def error(model, graphs) -> float:
    batch = Batch.from_data_list(graphs)
    with torch.no_grad():
        return float((model.eval()(batch).mean - batch.y).abs().mean())


# ------------------------------------------------------------------ averages


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_pruned_weights_of_the_average_are_zero(model, graphs, kind):
    pruning, trained = rounds(), Trained()
    asked = TrainingSettings(average=kind)
    begun = [w.detach().clone() for w in model.parameters()]
    looks = fitted(model, graphs, with_the_asked([pruning, trained], asked))
    for step, weights in enumerate(trained.seen, start=1):
        decay = min(0.999, (1 + step) / (10 + step))
        begun = [a.lerp(w, 1 - decay) for a, w in zip(begun, weights, strict=True)]
    if kind == "swa":  # the last quarter of twenty steps
        begun = [torch.stack(five).mean(0) for five in zip(*trained.seen[15:], strict=True)]
    average = [w.detach().clone() for w in model.parameters()]
    for found, value, last in zip(average, begun, trained.seen[-1], strict=True):
        torch.testing.assert_close(found, value)
        assert not torch.equal(found, last)
    assert error(model, graphs[1]) == pytest.approx(looks[STEPS], rel=1e-5)
    keep = keep_masks(model)
    assert all(torch.equal(keep[name], kept) for name, kept in pruning.keep.items())
    assert sum(int((~kept).sum()) for kept in keep.values()) > 0
    zeros = 0
    for name in parameter_names(model):
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        mask = module.parametrizations[leaf][0].pruned
        assert bool((getattr(module, leaf)[mask] == 0).all())
        zeros += int(mask.sum())
    assert zeros > 0
    small, batch = compact(model).eval(), Batch.from_data_list(graphs[1])
    torch.testing.assert_close(small(batch).mean, model(batch).mean)


def test_rounds_see_the_trained_weights(model, graphs):
    """Importance is that of the weights that learn, whether or not they are averaged."""
    masks = []
    for average in ("ema", "swa", "none"):
        pruning = PruningCallback("magnitude", 0.5, rounds=3, until=0.8)
        asked = TrainingSettings(average=average)
        trained = Trained()
        fitted(copy.deepcopy(model), graphs, with_the_asked([pruning, trained], asked), lr=0.1)
        masks.append((pruning.keep, trained.seen[-1]))
    *averaged, (without, alone) = masks
    for keep, weights in averaged:
        assert all(torch.equal(kept, without[name]) for name, kept in keep.items())
        assert all(map(torch.equal, weights, alone))


def test_before_the_last_quarter_looks_are_at_the_trained_weights(model, graphs):
    """Each look sees the mean of the steps 16, 17, ... so far, and before these the weights."""
    plain = fitted(copy.deepcopy(model), graphs, [], lr=0.1)
    asked = TrainingSettings(average="swa")
    looks = fitted(model, graphs, with_the_asked([], asked), lr=0.1)
    assert [plain[step] == looks[step] for step in plain] == [step <= 16 for step in plain]


@pytest.mark.parametrize("wrong", [{"decay": 1.0}, {"last": 0.0}, {"last": 1.5}])
def test_averages_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="averaged"):
        AveragedWeights(**wrong)


def test_the_best_average_is_kept(model, graphs):
    """With a rate so high that the last average is not the best."""
    asked = TrainingSettings(average="ema", monitor="val_mae")
    looks = fitted(model, graphs, with_the_asked([], asked), lr=0.3)
    assert min(looks.values()) < looks[STEPS]
    assert error(model, graphs[1]) == pytest.approx(min(looks.values()), rel=1e-5)


# ------------------------------------------------------------------ early ends


def test_a_fit_ends_where_nothing_gets_better(model, graphs):
    callbacks = with_the_asked([], TrainingSettings(monitor="val_mae", patience=3))
    assert list(fitted(model, graphs, callbacks, lr=STILL)) == [2, 4, 6, 8]
    assert callbacks[-1].stopped
    assert len(with_the_asked([], TrainingSettings(monitor="val_mae"))) == 1


def test_a_fit_that_gets_better_goes_on(model, graphs):
    callbacks = with_the_asked([], TrainingSettings(monitor="val_mae", patience=10))
    assert max(fitted(model, graphs, callbacks)) == STEPS
    assert not callbacks[-1].stopped


def test_no_end_before_the_last_round(model, graphs):
    pruning = rounds()  # the last one before step 16
    callbacks = with_the_asked([pruning], TrainingSettings(monitor="val_mae", patience=1))
    looks = fitted(model, graphs, callbacks, lr=STILL)
    assert max(looks) == 18 and pruning.finished and callbacks[-1].stopped
    assert [int(kept.sum()) for kept in pruning.keep.values()] == [
        kept.numel() - int(0.5 * kept.numel()) for kept in pruning.keep.values()
    ]


def test_a_fit_that_ended_early_has_the_best_weights(model, graphs):
    callbacks = with_the_asked([], TrainingSettings(monitor="val_mae", patience=2))
    looks = fitted(model, graphs, callbacks, steps=60, lr=0.3, schedule="constant")
    last, best = max(looks), min(looks, key=looks.__getitem__)
    assert last == best + 4 < 60
    assert error(model, graphs[1]) == pytest.approx(looks[best], rel=1e-5)


# ------------------------------------------------------------------ going on


class Killed(BaseException):
    """Nobody catches it."""


class KilledAt(Callback):
    def __init__(self, step: int, hook: str) -> None:
        self.step = step
        setattr(self, hook, self._look)

    def _look(self, trainer, *_) -> None:
        if trainer.global_step == self.step:
            raise Killed


@pytest.fixture(scope="module")
def undisturbed() -> dict:
    return {}


#: Between two looks that are no better, at the last of them, and after the average was put there.
MOMENTS = [
    *(("on_train_batch_end", step) for step in (1, 7, 11, 13, 14, 15, 16)),
    *(("on_validation_end", step) for step in (10, 12, 14, 16)),
    ("on_train_end", 16),
]


@pytest.mark.parametrize(
    "hook", slow_but(["on_train_batch_end", "on_validation_end"], "on_train_batch_end")
)
@pytest.mark.parametrize("step", slow_but([14, 16, 18], 18))
def test_a_mean_of_the_last_steps_is_gone_on_with(model, graphs, tmp_path, hook, step):
    """Killed before, in and near the end of the quarter that is averaged, in mixed precision."""
    asked = TrainingSettings(average="swa", mixed_precision="bf16")

    def run(saving=None, more=()):
        network = copy.deepcopy(model)
        callbacks = [*with_the_asked([rounds(0.6)], asked), *more]
        looks = fitted(network, graphs, callbacks, saving=saving, mixed_precision="bf16")
        return looks, network.state_dict()

    expected, path = run(), tmp_path / "fit.ckpt"
    with pytest.raises(Killed):
        run(FitCheckpoint(path, 0.0), [KilledAt(step, hook)])
    looks, state = run(FitCheckpoint(path, 0.0))
    assert looks == expected[0]
    assert all(torch.equal(value, expected[1][name]) for name, value in state.items())


@pytest.mark.parametrize("schedule", slow_but(["onecycle", "cosine", "constant"], "cosine"))
@pytest.mark.parametrize(("hook", "step"), slow_but(MOMENTS, *MOMENTS[-2:], MOMENTS[5]))
def test_killed_and_gone_on_with(model, graphs, tmp_path, undisturbed, hook, step, schedule):
    asked = TrainingSettings(average="ema", monitor="val_mae", patience=2)

    def run(saving=None, more=()):
        network, callbacks = copy.deepcopy(model), with_the_asked([rounds(0.6)], asked)
        how = {"lr": STILL, "saving": saving, "schedule": schedule}
        looks = fitted(network, graphs, [*callbacks, *more], **how)
        stop = next(c for c in callbacks if isinstance(c, StopEarly))
        return looks, network.state_dict(), stop.stopped

    if schedule not in undisturbed:
        undisturbed[schedule] = run()
    expected = undisturbed[schedule]
    assert max(expected[0]) == 16 < STEPS and expected[2]
    path = tmp_path / "fit.ckpt"
    with pytest.raises(Killed):
        run(FitCheckpoint(path, 0.0), [KilledAt(step, hook)])
    for _ in range(2):  # the second time it only takes what was found
        found = run(FitCheckpoint(path, 0.0))
        assert found[0] == expected[0] and found[2]
        assert all(torch.equal(value, expected[1][name]) for name, value in found[1].items())


def test_the_average_comes_first_and_the_end_last():
    """Rounds of pruning see the weights that learn; the best ones are kept before a fit ends."""
    asked = TrainingSettings(average="ema", monitor="val_mae", patience=2)
    found = with_the_asked([PruningCallback(Pruning())], asked)
    kinds = [AveragedWeights, PruningCallback, KeepBest, StopEarly]
    assert [type(callback) for callback in found] == kinds
