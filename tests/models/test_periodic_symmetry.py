"""The symmetry check turns all that has a direction: crystals, slabs, wires and mixed batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from egnn_prune.graphs import with_edges
from egnn_prune.models import EGNNOptions, IrrepsOptions, PropertyModel, energy_forces_stress
from egnn_prune.testing import assert_equivariant, assert_prunable, equivariance_error

CUTOFF = 3.2


@pytest.fixture(params=["egnn", "irreps"])
def model(request, dtype) -> PropertyModel:
    if request.param == "irreps":
        options = IrrepsOptions(cutoff=CUTOFF, neighbours=20.0)
        model = PropertyModel.build_irreps(
            (1, 6, 8), copies=2, layers=2, radial=4, hidden=4, options=options
        )
    else:
        model = PropertyModel.build(
            (1, 6, 8), hidden=8, layers=2, options=EGNNOptions(cutoff=CUTOFF, radial=4)
        )
    return model.to(dtype).eval()


def structure(pbc: tuple[bool, bool, bool], dtype: torch.dtype, seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    cell = 4.0 * (np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3)))
    pos = rng.uniform(-0.5, 1.5, (4, 3)) @ cell
    return Data(
        z=torch.tensor([1, 6, 8, 6]),
        pos=torch.from_numpy(pos).to(dtype),
        cell=torch.from_numpy(cell).to(dtype)[None],
        pbc=torch.tensor([pbc]),
    )


KINDS = {
    "crystal": [(True, True, True)],
    "slab": [(True, True, False)],
    "wire": [(False, True, False)],
    "mixed": [(True, True, True), (False, False, False), (True, False, True)],
}


@pytest.mark.parametrize("given", [False, True], ids=["edges found", "edges given"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_equivariant_model_passes(model, dtype, tolerance, kind, given):
    batch = Batch.from_data_list([structure(p, dtype, k) for k, p in enumerate(KINDS[kind])])
    if given:
        batch = with_edges(batch, CUTOFF)
    assert batch.pos.dtype == dtype
    assert_equivariant(model, batch, tolerance=tolerance, transforms=2)


def test_forces_and_stress_turn(model, dtype, tolerance):
    batch = Batch.from_data_list([structure((True,) * 3, dtype, k) for k in range(2)])

    def slopes(batch):
        _, forces, stress = energy_forces_stress(model, batch)
        return Data(forces=forces, stress=stress)

    assert slopes(batch).stress.abs().max() > 1e-6
    assert_equivariant(slopes, batch, tolerance=20 * tolerance, transforms=2)

    def still(batch):
        return Data(stress=slopes(batch).stress.diagonal(dim1=1, dim2=2).diag_embed())

    with pytest.raises(AssertionError, match="stress deviates by"):
        assert_equivariant(still, batch, transforms=2)


def test_all_that_has_a_direction_turns(dtype, tolerance):
    """Each is compared with the positions, which turn: their inner products stay."""
    batch = Batch.from_data_list([structure((True,) * 3, dtype, k) for k in range(2)])
    batch = with_edges(batch, CUTOFF)
    batch.forces, batch.vel = torch.randn(2, 8, 3, dtype=dtype)
    source, target = batch.edge_index
    batch.edge_vec = batch.pos[target] - batch.pos[source] - batch.edge_shift
    batch.stress = torch.randn(2, 3, 3, dtype=dtype)

    def products(batch):
        source, target = batch.edge_index
        vectors = batch.pos[target] - batch.pos[source] - batch.edge_shift
        graph = batch.batch[target]
        per_edge = (
            (vectors - batch.edge_vec).norm(dim=1)
            + (vectors * batch.forces[target]).sum(1)
            + (vectors * batch.vel[source]).sum(1)
            + torch.einsum("ei,eij,ej->e", vectors, batch.stress[graph], vectors)
            + torch.einsum("ei,eki->ek", vectors, batch.cell[graph]).square().sum(1)
        )
        return torch.zeros(8, dtype=dtype).index_add(0, target, per_edge)

    assert equivariance_error(products, batch) <= 10 * tolerance


def test_a_direction_in_the_cell_is_still_caught(dtype):
    batch = Batch.from_data_list([structure((True,) * 3, dtype)])
    with pytest.raises(AssertionError, match="rotation"):
        assert_equivariant(lambda b: b.cell[:, 0, 0], batch, transforms=2)


@pytest.mark.parametrize("direction", [0.0, 1.0], ids=["right", "broken"])
def test_assert_prunable_checks_a_periodic_batch(model, dtype, direction):
    """Compact copies that see a direction in space fail, on crystals too."""

    class Tilted(PropertyModel):
        def normalised(self, batch, samples=1):
            means, variances = super().normalised(batch, samples)
            return means + direction * batch.cell[:, 0, 0].to(means), variances

    model.__class__ = Tilted
    model.resized = lambda keep: _tilted(PropertyModel.resized(model, keep), Tilted)
    batch = Batch.from_data_list([structure((True,) * 3, dtype)])
    if direction:
        with pytest.raises(AssertionError, match="not equivariant"):
            assert_prunable(model, batch, sparsities=(0.5,), equivariance=True)
    else:
        assert_prunable(model, batch, sparsities=(0.5,))


def _tilted(model: PropertyModel, kind: type) -> PropertyModel:
    model.__class__ = kind
    return model
