"""Fine-tuning of potentials: what is kept, what stays, when it stops."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from small_potentials import ELEMENTS, SHIFTS, parameters_of, potential, water
from torch_geometric.data import Batch, Data

from egnn_prune.errors import ConfigError, DataError
from egnn_prune.models import energy_and_forces
from egnn_prune.pruning import apply_masks, keep_masks
from egnn_prune.training import PotentialSettings, fit_potential, refit_shifts


def taught(count: int, seed: int = 0) -> list[Data]:
    """Shaken molecules with the energies and forces of another network."""
    teacher, graphs = potential(seed=5), []
    for number in range(count):
        graph = water(seed=100 * seed + number)
        prediction, forces = energy_and_forces(teacher, Batch.from_data_list([graph]))
        graph.y, graph.forces = prediction.mean, forces
        graphs.append(graph)
    return graphs


@pytest.fixture(scope="module")
def data() -> tuple[list[Data], list[Data]]:
    return taught(12), taught(4, seed=1)


def force_rmse(model: torch.nn.Module, graphs: list[Data]) -> float:
    """In meV/Angstrom."""
    batch = Batch.from_data_list(graphs)
    wrong = energy_and_forces(model, batch)[1] - batch.forces
    return 1000 * float(wrong.square().mean().sqrt())


def settings(steps: int = 8, **options: object) -> PotentialSettings:
    return PotentialSettings(steps, **{"lr": 3e-3, "batch_size": 4, **options})


def test_a_fit_lowers_the_error_and_says_what_it_did(data):
    model = potential()
    before = force_rmse(model, data[1])
    found = fit_potential(model, *data, settings(60, lr=1e-2, validations=5))
    assert force_rmse(model, data[1]) == pytest.approx(found.force_rmse, rel=1e-6)
    assert found.force_rmse < 0.5 * before
    assert found.steps == 60
    assert [row["step"] for row in found.curve] == [0, 12, 24, 36, 48, 60]
    assert found.curve[-1]["val_energy_mae"] > 0
    assert not model.training


def test_the_last_step_is_validated_where_the_steps_do_not_divide(data):
    found = fit_potential(potential(), *data, settings(7, validations=3))
    assert [row["step"] for row in found.curve] == [0, 2, 4, 6, 7]


class Spoiler(Callback):
    """Something goes wrong with the weights before the last steps."""

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        if trainer.global_step == 9:
            with torch.no_grad():
                for weight in pl_module.model.parameters():
                    weight += 0.3


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_best_weights_come_back(data, ema):
    model = potential()
    options = settings(12, validations=6, ema=ema)
    found = fit_potential(model, *data, options, callbacks=[Spoiler()])
    errors = {int(row["step"]): row["val_force_rmse"] for row in found.curve}
    assert 0 < found.best_step < 9 and errors[12] > found.force_rmse
    assert errors[found.best_step] == found.force_rmse == min(errors.values())
    assert force_rmse(model, data[1]) == pytest.approx(found.force_rmse, rel=1e-6)


def test_weights_that_no_step_makes_better_stay(data):
    model = potential(seed=5)  # the teacher itself
    before = parameters_of(model)
    found = fit_potential(model, *data, settings(3, lr=0.1, validations=3))
    assert found.best_step == 0 and found.force_rmse < 1e-6 < found.curve[-1]["val_force_rmse"]
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


class Recorder(Callback):
    """The trained weights after every step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        self.seen.append(parameters_of(pl_module.model))


def test_the_average_is_the_one_computed_by_hand(data):
    model, trained = potential(), Recorder()
    expected = parameters_of(model)
    # one validation, at the end: what is left is the average after the last step
    options = settings(12, validations=1, ema=0.3)
    found = fit_potential(model, *data, options, callbacks=[trained])
    for step, weights in enumerate(trained.seen, start=1):
        decay = min(0.3, (1 + step) / (10 + step))
        expected = {k: decay * v + (1 - decay) * weights[k] for k, v in expected.items()}
    assert len(trained.seen) == 12
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.detach(), expected[name], rtol=1e-10, atol=1e-12)
    assert force_rmse(model, data[1]) == pytest.approx(found.force_rmse, rel=1e-6)


def test_averages_do_not_change_what_is_trained(data):
    """Validation swaps the weights; training goes on with its own."""
    runs = []
    for ema in (0.9, 0.0):
        recorder = Recorder()
        fit_potential(potential(), *data, settings(6, ema=ema, validations=6), callbacks=[recorder])
        runs.append(recorder.seen[-1])
    for name, value in runs[0].items():
        assert torch.equal(value, runs[1][name])


def test_the_same_seed_gives_the_same_weights(data):
    models = [potential() for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        fit_potential(model, *data, settings(4), seed=seed)
    first, second, third = (torch.cat([p.flatten() for p in m.parameters()]) for m in models)
    assert torch.equal(first, second) and not torch.equal(first, third)


def test_a_fit_stops_early_where_nothing_gets_better(data):
    found = fit_potential(potential(), *data, settings(60, lr=1e-9, validations=60, patience=3))
    assert found.steps == 4 and len(found.curve) == 5


@pytest.mark.parametrize("frozen", ["message_passing", ("trunk.layers.0", "head")])
def test_frozen_weights_stay_bit_for_bit(data, frozen):
    model = potential()
    prefixes = ("trunk",) if frozen == "message_passing" else frozen
    before = parameters_of(model)
    fit_potential(model, *data, settings(4, lr=0.1, weight_decay=0.1, freeze=frozen))
    starts = tuple(f"{prefix}." for prefix in prefixes)
    held = {name for name in before if name.startswith(starts)}
    assert held and held != set(before)
    for name, value in model.named_parameters():
        assert value.requires_grad
        if "variance" not in name:  # nothing in the loss trains these
            assert torch.equal(value, before[name]) == (name in held), name


def test_pruned_channels_stay_zero(data):
    model = potential()
    keep = {g.name: torch.arange(g.n) > 0 for g in model.channel_groups() if g.n > 1}
    apply_masks(model, keep)
    fit_potential(model, *data, settings(4, lr=0.1))
    for name, kept in keep_masks(model).items():
        assert torch.equal(kept, keep.get(name, torch.ones_like(kept)))


def test_bad_input_is_one_sentence(data):
    with pytest.raises(ConfigError, match=r"no submodule 'layers\.7' to be frozen"):
        fit_potential(potential(), *data, settings(freeze=("layers.7",)))
    with pytest.raises(ConfigError, match="all weights are frozen"):
        fit_potential(potential(), *data, settings(freeze=("trunk", "head")))
    with pytest.raises(ConfigError, match="1 or more structures a step"):
        settings(batch_size=0)
    broken = copy.copy(data[0][0])
    broken.y = broken.y * math.nan
    with pytest.raises(DataError, match="labels energy of training structure 0 hold a NaN"):
        fit_potential(potential(), [broken], data[1], settings())
    with pytest.raises(DataError, match="no validation structures"):
        fit_potential(potential(), data[0], [], settings())


def mixtures() -> list[Data]:
    """Water, hydrogen and oxygen atoms in several amounts."""
    return [Data(z=torch.tensor(z), pos=20 * torch.rand(len(z), 3).double()) for z in (
        [8, 1, 1], [8, 8, 1], [1, 1], [8, 1, 1, 1],
    )]  # fmt: skip


def test_shifts_are_exact_on_energies_near_seventeen_thousand_electronvolts():
    model, graphs = potential(torch.float32), mixtures()
    true = {1: -13.6057, 8: -17660.123456789}
    for graph in graphs:
        with torch.no_grad():
            network = model(Batch.from_data_list([graph])).mean
        counts = {z: int((graph.z == z).sum()) for z in ELEMENTS}
        # what the network adds to its own shifts, and other shifts
        change = sum(n * (true[z] - SHIFTS[k]) for k, (z, n) in enumerate(counts.items()))
        graph.y = network + change
    refit_shifts(model, graphs, batch_size=3)
    assert model.scale.per_element == pytest.approx([true[1], true[8]], abs=1e-6)
    with torch.no_grad():
        batch = Batch.from_data_list(graphs)
        assert float((model(batch).mean - batch.y).abs().max()) < 1e-6


def test_collinear_elements_share_the_change():
    model = potential()
    graphs = [water(seed=k) for k in range(5)]
    for graph in graphs:
        with torch.no_grad():
            graph.y = model(Batch.from_data_list([graph])).mean + 5.0
    refit_shifts(model, graphs)
    # of all changes with 2 h + o = 5, the shortest
    assert model.scale.per_element == pytest.approx([SHIFTS[0] + 2, SHIFTS[1] + 1], abs=1e-9)


def test_absent_elements_keep_their_energy_and_bad_input_is_one_sentence():
    model = potential()
    graphs = [Data(z=torch.tensor([1, 1]), pos=torch.eye(2, 3).double(), y=torch.zeros(1).double())]
    refit_shifts(model, graphs)
    assert model.scale.per_element[1] == SHIFTS[1] and model.scale.per_element[0] != SHIFTS[0]
    graphs[0].y = graphs[0].y * math.nan
    with pytest.raises(DataError, match="the energy of structure 0"):
        refit_shifts(model, graphs)
    del graphs[0].y
    with pytest.raises(DataError, match=r"needs an energy y \[1\]"):
        refit_shifts(model, graphs)
    with pytest.raises(DataError, match="at least one structure"):
        refit_shifts(model, [])
    with pytest.raises(ConfigError, match="no energies per element"):
        refit_shifts(torch.nn.Linear(2, 2), graphs)
