"""A fit that two processes share learns what one process learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from several import in_several
from torch_geometric.data import Batch

from egnn_prune import data
from egnn_prune.data.collation import held
from egnn_prune.evaluation.predict import predict_all
from egnn_prune.models import EGNNOptions, PropertyModel, TargetScale
from egnn_prune.system.distributed import place
from egnn_prune.training import (
    FitSettings,
    ForceLosses,
    KeepBest,
    LearningCurve,
    Pruning,
    PruningCallback,
    RegressionTask,
    fit,
    graph_batches,
)
from egnn_prune.training.fit_checkpoint import FitCheckpoint
from egnn_prune.training.task import mean_of_all
from egnn_prune.uncertainty import SinglePass

CPU = torch.device("cpu")
STEPS = 9  # passes of three steps


class EndedAt(Callback):
    """All processes are asked to end, as by a signal that one of them got."""

    def __init__(self, step: int, saving: FitCheckpoint) -> None:
        self.step, self.saving = step, saving

    def on_train_batch_end(self, trainer, *_) -> None:
        if trainer.global_step == self.step and place()[0] == place()[1] - 1:
            self.saving.asked = True


def learned(folder: Path, kind: str, ended: int | None = None) -> dict:
    """What a small fit ends with; batches of five have parts of three and of two graphs."""
    dataset = data.load("xtb").limited(16)
    graphs, val = list(dataset.split("train")), list(dataset.split("val")[:10])
    torch.manual_seed(0)
    options = EGNNOptions(radial=8, cutoff=None)
    network = PropertyModel.build((1, 6, 7, 8, 9), hidden=8, layers=2, options=options).double()
    batch = Batch.from_data_list(graphs)
    network.scale = TargetScale.fit(network.element_counts(batch), batch.y)
    torch.manual_seed(1 + place()[0])  # only the first one's order counts
    curve, best = LearningCurve(), KeepBest("val_mae")
    pruning = PruningCallback(
        Pruning("taylor", 0.5, rounds=2, until=0.5, freezing="important"), batches=[batch]
    )
    losses = {"losses": ForceLosses(1.0)} if kind == "forces" else {}
    if kind == "forces":
        generator = torch.Generator().manual_seed(2)
        for graph in [*graphs, *val]:
            graph.forces = torch.randn(graph.pos.shape, generator=generator)
    weights = torch.linspace(0.5, 1, 16) if kind == "weights" else None
    task = RegressionTask(network, FitSettings(STEPS, 3e-3), **losses)
    saving = FitCheckpoint(folder / f"{kind}.ckpt", 1e6)
    more = [] if ended is None else [EndedAt(ended, saving)]
    ended_early = False
    try:
        fit(
            task,
            graph_batches(graphs, 5, weights),
            held(val, 5),
            device=CPU,
            callbacks=[*more, pruning, best, curve],
            checkpoint=saving,
        )
    except KeyboardInterrupt:
        ended_early = True
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in curve.rows]
    draw = torch.rand(3)
    many = list(dataset.split("val")[:300])  # three batches
    predicted = predict_all(SinglePass(network), many, CPU, "")
    return {
        "ended early": ended_early,
        "state": network.state_dict(),
        "keep": pruning.keep,
        "rows": rows,
        "best": best.value,
        "mean": predicted.mean,
        "draw": draw,
    }


KINDS = ("plain", "weights", "forces")


def all_kinds(folder: Path) -> dict:
    """Undisturbed, and ended once and begun again."""
    (folder / "again").mkdir(exist_ok=True)
    found = {kind: learned(folder, kind) for kind in KINDS}
    found["first half"] = learned(folder / "again", "weights", ended=4)
    found["again"] = learned(folder / "again", "weights")
    return found


@pytest.fixture(scope="module")
def of_two(tmp_path_factory) -> list[dict]:
    return in_several(2, "test_several_processes:all_kinds", tmp_path_factory.mktemp("two"))


def close(mine: dict, theirs: dict) -> None:
    """Float64: all that differs is the order of sums."""
    for name, value in theirs["state"].items():
        assert torch.allclose(mine["state"][name], value, rtol=1e-8, atol=1e-10), name
    assert mine["keep"].keys() == theirs["keep"].keys()
    assert all(torch.equal(mine["keep"][k], v) for k, v in theirs["keep"].items())
    assert len(mine["rows"]) == len(theirs["rows"]) == STEPS // 3
    for row, expected in zip(mine["rows"], theirs["rows"], strict=True):
        assert row == pytest.approx(expected, rel=1e-5)  # logged in float32
    assert mine["mean"].shape == theirs["mean"].shape
    assert torch.allclose(mine["mean"], theirs["mean"], rtol=1e-8, atol=1e-10)
    assert torch.equal(mine["draw"], theirs["draw"])


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_learn_what_one_learns(of_two, tmp_path, kind):
    expected = learned(tmp_path, kind)
    removed = sum(int((~k).sum()) for k in expected["keep"].values())
    assert removed > 0
    for mine in of_two:
        close(mine[kind], expected)
    one, two = (mine[kind] for mine in of_two)
    assert all(torch.equal(one["state"][k], v) for k, v in two["state"].items())
    assert one["rows"] == two["rows"] and torch.equal(one["mean"], two["mean"])


def test_asked_to_end_in_one_process_both_end_and_go_on(of_two):
    for mine in of_two:
        assert mine["first half"]["ended early"] and not mine["again"]["ended early"]
        state = mine["weights"]["state"]
        assert all(torch.equal(mine["again"]["state"][k], v) for k, v in state.items())
        assert mine["again"]["rows"] == mine["weights"]["rows"]
        assert torch.equal(mine["again"]["draw"], mine["weights"]["draw"])


def test_a_fit_of_two_goes_on_in_one(of_two, tmp_path_factory, tmp_path):
    """What two processes had begun is ended by one; the other way round is alike."""
    assert of_two
    folder = next(tmp_path_factory.getbasetemp().glob("two*"))
    half = learned(tmp_path, "weights")
    saved = torch.load(folder / "weights.ckpt", weights_only=True)
    assert len(saved["egnn_prune_fit"]["rng"]) == 2
    (tmp_path / "moved").mkdir()
    (folder / "weights.ckpt").rename(tmp_path / "moved" / "weights.ckpt")
    close(learned(tmp_path / "moved", "weights"), half)


def test_the_mean_of_all_is_that_of_samples_not_of_processes(monkeypatch):
    losses = [torch.tensor([1.0, 2.0, 6.0]), torch.tensor([3.0])]
    monkeypatch.setattr("egnn_prune.training.task.total", lambda _: 4)
    monkeypatch.setattr("egnn_prune.training.task.place", lambda: (0, 2))
    assert sum(float(mean_of_all(part)) for part in losses) / 2 == 3.0
