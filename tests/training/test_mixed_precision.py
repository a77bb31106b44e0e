"""Steps in bfloat16: what is learned, in which precision, and what stays exact."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from slow_cases import slow_but
from torch import nn
from torch_geometric.data import Batch, Data

from egnn_prune.configs.settings import Settings
from egnn_prune.configs.unused import refuse_unused
from egnn_prune.data.collation import held
from egnn_prune.errors import ConfigError
from egnn_prune.models import EGNNOptions, IrrepsOptions, PropertyModel, energy_and_forces
from egnn_prune.testing import assert_equivariant
from egnn_prune.training import (
    FitSettings,
    ForceLosses,
    LearningCurve,
    RegressionTask,
    fit,
    graph_batches,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def springs() -> list:
    """Five atoms on springs: energies and forces that depend on each other."""
    generator, found = torch.Generator().manual_seed(1), []
    for _ in range(40):
        pos = torch.randn(5, 3, generator=generator, dtype=torch.float64)
        pairs = pos[:, None] - pos[None]
        found.append(
            Data(
                z=torch.tensor([6, 8, 1, 1, 1]),
                pos=pos,
                y=0.02 * pairs.square().sum()[None] / 2,
                forces=-0.04 * pairs.sum(1),
            )
        )
    return found


def network(kind: str) -> PropertyModel:
    torch.manual_seed(0)
    if kind == "irreps":
        options = IrrepsOptions(cutoff=5.0, lmax=1)
        return PropertyModel.build_irreps(
            (1, 6, 8), copies=4, layers=2, radial=8, hidden=8, options=options
        )
    return PropertyModel.build(
        (1, 6, 8), hidden=16, layers=2, options=EGNNOptions(radial=8, cutoff=5.0)
    )


class Precisions(Callback):
    """In which precision linear layers compute, in steps and in looks."""

    def __init__(self) -> None:
        self.seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}

    def on_fit_start(self, trainer, module) -> None:
        for part in module.model.modules():
            if isinstance(part, nn.Linear):
                part.register_forward_hook(
                    lambda _, inputs, output: self.seen[trainer.training].add(output.dtype)
                )


def fitted(model, graphs, mixed="bf16", steps=30, more=()) -> list[dict]:
    torch.manual_seed(0)
    curve = LearningCurve()
    fit(
        RegressionTask(model, FitSettings(steps, 0.01, mixed_precision=mixed), ForceLosses(10.0)),
        graph_batches(graphs[:30], 10),
        held(graphs[30:], 10),
        device=CPU,
        callbacks=[curve, *more],
    )
    return curve.rows


def force_error(model, graphs) -> float:
    batch = Batch.from_data_list(graphs)
    return float((energy_and_forces(model, batch)[1] - batch.forces).abs().mean())


@pytest.mark.parametrize("kind", slow_but(["egnn", "irreps"], "egnn"))
def test_a_fit_in_bfloat16_learns_forces_and_keeps_the_symmetry(kind, springs):
    model, precisions = network(kind), Precisions()
    start = force_error(copy.deepcopy(model).eval(), springs[30:])
    rows = fitted(model, springs, more=[precisions])
    # steps in bfloat16, looks and weights in float32
    assert torch.bfloat16 in precisions.seen[True]
    assert precisions.seen[False] == {torch.float32}
    assert {w.dtype for w in model.parameters()} == {torch.float32}
    end = force_error(model, springs[30:])
    assert end < 0.8 * start
    assert rows[-1]["val_force_mae"] == pytest.approx(end, rel=1e-5)
    assert_equivariant(model, Batch.from_data_list(springs[30:34]))


def test_networks_in_float64_stay_exact(springs):
    plain, mixed = network("egnn").double(), network("egnn").double()
    fitted(plain, springs, "none", steps=3)
    fitted(mixed, springs, steps=3)
    assert all(
        torch.equal(a, b) for a, b in zip(plain.parameters(), mixed.parameters(), strict=True)
    )


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="mixed_precision must be none or bf16, not 'fp8'"):
        FitSettings(1, mixed_precision="fp8")
    settings = Settings(precision="float64")
    settings.training.mixed_precision = "bf16"
    with pytest.raises(ConfigError, match=r"training.mixed_precision=bf16 would change nothing"):
        refuse_unused(settings)
