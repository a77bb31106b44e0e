"""Energies, errors and uncertainties of copies: what adds, what doubles, what stays."""

from __future__ import annotations

import ase.build
import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from egnn_prune.models import EGNNOptions, IrrepsOptions, PropertyModel, TargetScale

COUNTS = torch.tensor([[1.0, 0], [4, 0], [8, 0], [0, 1], [0, 4], [0, 8]])
ENERGIES = torch.tensor([-3.0, -14.2, -28.9, -2.0, -9.5, -19.5])


@pytest.fixture(params=["egnn", "irreps"])
def model(request, dtype) -> PropertyModel:
    scale = TargetScale.fit(COUNTS, ENERGIES)
    if request.param == "irreps":
        options = IrrepsOptions(cutoff=4.0, neighbours=20.0)
        model = PropertyModel.build_irreps(
            (13, 29), copies=2, layers=2, hidden=8, members=3, options=options, scale=scale
        )
    else:
        options = EGNNOptions(cutoff=4.0)
        model = PropertyModel.build(
            (13, 29), hidden=8, layers=2, members=3, options=options, scale=scale
        )
    return model.to(dtype).eval()


def atoms(pos: torch.Tensor) -> Data:
    return Data(z=torch.full((len(pos),), 29), pos=pos)


def test_energies_have_no_constant_per_structure():
    scale = TargetScale.fit(COUNTS, ENERGIES)
    assert scale.shift == 0 and scale.scale > 0
    assert torch.equal(scale.reference(COUNTS * 2), 2 * scale.reference(COUNTS))
    assert scale.reference(torch.zeros(1, 2)).item() == 0


def test_what_does_not_grow_keeps_its_mean():
    scale = TargetScale.fit(COUNTS[:, :0], ENERGIES)
    assert scale.per_element == () and scale.shift == pytest.approx(float(ENERGIES.mean()))


def test_files_of_before_keep_their_shift():
    old = PropertyModel.build((13, 29), hidden=4, layers=1, scale=TargetScale((1.0, 2.0), 0.3, 2.0))
    again = PropertyModel.from_architecture(old.architecture())
    assert again.scale.reference(torch.tensor([[2.0, 1.0]])).item() == pytest.approx(4.3)


def test_far_atoms_add(model, dtype, tolerance):
    """And so do their members; copies err together, their noise is stated once per structure."""
    one = model(atoms(torch.zeros(1, 3, dtype=dtype)))
    two = model(atoms(torch.tensor([[0.0, 0, 0], [100, 0, 0]], dtype=dtype)))
    assert torch.allclose(two.mean, 2 * one.mean, rtol=tolerance)
    assert torch.allclose(two.epistemic.sqrt(), 2 * one.epistemic.sqrt(), rtol=10 * tolerance)
    assert one.epistemic > 0
    assert torch.allclose(two.aleatoric, one.aleatoric, rtol=10 * tolerance)


def test_energy_per_atom_of_supercells(model, dtype, tolerance):
    unit = ase.build.bulk("Cu", cubic=True)
    unit.positions += np.random.default_rng(0).normal(scale=0.1, size=(4, 3))
    found = []
    for n in (1, 2, 3):
        big = unit * (n, n, n)
        data = Data(
            z=torch.from_numpy(big.numbers.astype(np.int64)),
            pos=torch.from_numpy(big.positions).to(dtype),
            cell=torch.from_numpy(big.cell.array).to(dtype)[None],
            pbc=torch.ones(1, 3, dtype=torch.bool),
        )
        found.append(model(data).mean / len(big))
    assert all(torch.allclose(f, found[0], rtol=tolerance) for f in found)
