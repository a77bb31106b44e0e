"""Periodic cells: neighbours in all images, crystals as large cells, wrapped atoms, stress."""

from __future__ import annotations

import copy
from dataclasses import replace

import ase.build
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from egnn_prune.channels import dropout_masks, gates
from egnn_prune.errors import DataError
from egnn_prune.graphs import edge_vectors, neighbours, replicate, with_edges
from egnn_prune.models import (
    EGNNOptions,
    IrrepsOptions,
    PropertyModel,
    TargetScale,
    energy_and_forces,
    energy_forces_stress,
    forces,
)
from egnn_prune.uncertainty import DeepEnsemble, SinglePass

CUTOFF = 3.2  # more than half of the small cells below
KINDS = ["egnn", "egnn-radial-mean", "irreps"]


def build(kind: str, dtype: torch.dtype) -> PropertyModel:
    """A model whose atoms move by visible lengths where it is one that moves them."""
    torch.manual_seed(0)
    scale = TargetScale((-0.3, 0.2, 0.1), 0.0, 300.0)
    if kind == "irreps":
        irreps = IrrepsOptions(cutoff=CUTOFF, lmax=2, neighbours=20.0)
        model = PropertyModel.build_irreps(
            (1, 6, 8), copies=4, layers=2, radial=6, hidden=8, options=irreps, scale=scale
        )
    else:
        how = "mean" if "mean" in kind else "sum"
        radial = 8 if "radial" in kind else 0
        options = EGNNOptions(cutoff=CUTOFF, attention=True, radial=radial, aggregation=how)
        model = PropertyModel.build((1, 6, 8), hidden=8, layers=3, options=options, scale=scale)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("position_out.weight"):
                    parameter.mul_(100.0)
    return model.to(dtype).eval()


@pytest.fixture(params=KINDS)
def model(request, dtype) -> PropertyModel:
    return build(request.param, dtype)


def as_data(atoms: Atoms) -> Data:
    return Data(
        z=torch.from_numpy(atoms.numbers.astype(np.int64)),
        pos=torch.from_numpy(atoms.positions.copy()),
        cell=torch.from_numpy(atoms.cell.array.copy())[None],
        pbc=torch.from_numpy(atoms.pbc.copy())[None],
    )


def triclinic(atoms: int = 4, seed: int = 0, size: float = 4.0, pbc: object = True) -> Atoms:
    """Random atoms, some of them outside, in a skewed cell."""
    rng = np.random.default_rng(seed)
    cell = size * (np.eye(3) + rng.uniform(-0.35, 0.35, (3, 3)))
    places = rng.uniform(-0.7, 1.6, (atoms, 3)) @ cell
    return Atoms(rng.choice([1, 6, 8], atoms), places, cell=cell, pbc=pbc)


def rows(target: object, source: object, vectors: object) -> np.ndarray:
    """Edges in an order that does not depend on who found them."""
    table = np.column_stack([target, source, np.asarray(vectors).round(6) + 0.0])
    return table[np.lexsort(table.T[::-1])]


# neighbours ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cutoff", [1.5, 4.0, 9.0])
@pytest.mark.parametrize(
    "pbc", [True, False, (True, False, True), (False, True, False)], ids=["all", "0", "2", "1"]
)
def test_neighbours_are_those_of_ase(cutoff, pbc):
    edges = 0
    for seed in range(4):
        atoms = triclinic(5, seed, pbc=pbc)
        data = as_data(atoms)
        edge_index, shift = neighbours(data.pos, cutoff, data.cell, data.pbc)
        assert shift.dtype == data.pos.dtype and (edge_index[1].diff() >= 0).all()
        i, j, vectors = neighbor_list("ijD", atoms, cutoff)
        # ASE's D leads from i to j: i is the source, j the target
        found = rows(edge_index[1], edge_index[0], edge_vectors(data.pos, edge_index, shift))
        assert np.array_equal(found, rows(j, i, vectors))
        edges += len(i)
    assert edges


def test_one_atom_sees_its_own_images(dtype):
    edge_index, shift = neighbours(torch.ones(1, 3, dtype=dtype), 2.1, 2.0 * torch.eye(3)[None])
    assert edge_index.shape == (2, 6) and (edge_index == 0).all()
    assert shift.dtype == dtype and (shift.abs().sum(1) == 2.0).all()
    assert len(shift.unique(dim=0)) == 6


def test_lattice_vectors_that_are_not_periodic_do_not_matter():
    atoms = triclinic(5, pbc=(True, True, False))
    data = as_data(atoms)
    expected = neighbours(data.pos, 4.0, data.cell, data.pbc)
    for vector in ([0.0, 0.0, 0.0], list(atoms.cell[0]), [1e3, 7.0, torch.nan]):
        data.cell[0, 2] = torch.tensor(vector)
        found = neighbours(data.pos, 4.0, data.cell, data.pbc)
        assert all(torch.allclose(a, b) for a, b in zip(found, expected, strict=True))
    data.cell.zero_()
    edges, shift = neighbours(data.pos, 4.0, data.cell, torch.zeros(1, 3, dtype=torch.bool))
    assert torch.equal(edges, neighbours(data.pos, 4.0)[0]) and (shift == 0).all()


@pytest.mark.parametrize(
    "cell",
    [
        torch.zeros(3, 3),
        torch.ones(3, 3),
        torch.diag(torch.tensor([5.0, 5.0, 0.0])),
        torch.eye(3) * torch.nan,
    ],
    ids=["zero", "collinear", "flat", "nan"],
)
def test_a_cell_that_cannot_be_used(cell, dtype):
    model, data = build("egnn", dtype), as_data(triclinic())
    broken = copy.copy(data)
    broken.cell = cell[None].double()
    with pytest.raises(DataError, match=r"graph 1 .* cell has (no volume|a NaN)") as caught:
        model(Batch.from_data_list([data, broken]))
    assert "\n" not in str(caught.value)
    broken.pbc = torch.zeros(1, 3, dtype=torch.bool)
    assert model(broken).mean.isfinite().all()


def test_what_is_missing_is_said(dtype):
    data = as_data(triclinic())
    everyone = PropertyModel.build((1, 6, 8), hidden=8, layers=1).to(dtype)
    with pytest.raises(DataError, match="use a model with a cutoff"):
        everyone(data)
    no_shift = copy.copy(data)
    no_shift.edge_index = neighbours(data.pos, CUTOFF, data.cell)[0]
    with pytest.raises(DataError, match="no edge_shift"):
        build("egnn", dtype)(no_shift)
    no_cell = Data(z=data.z, pos=data.pos, pbc=data.pbc)
    with pytest.raises(DataError, match="need a cell"):
        build("egnn", dtype)(no_cell)
    flat = Data(pos=data.pos[:, :2], cell=data.cell, pbc=data.pbc)
    with pytest.raises(DataError, match="in 3 dimensions, not 2"):
        with_edges(flat, CUTOFF)
    several = Batch.from_data_list([data, data])
    several.cell = several.cell[:1]
    with pytest.raises(DataError, match=r"batch.cell must have the shape \(2, 3, 3\)"):
        with_edges(several, CUTOFF)


# models -------------------------------------------------------------------------------------------


def close(a: Tensor, b: Tensor, dtype: torch.dtype) -> None:
    tolerance = 2e-5 if dtype == torch.float32 else 1e-10
    assert a.shape == b.shape and a.isfinite().all()
    assert (a - b).abs().max() <= tolerance * b.abs().max()


def test_a_crystal_is_its_supercell(model, dtype):
    unit = triclinic(4)
    energy, force, stress = energy_forces_stress(model, as_data(unit))
    large = energy_forces_stress(model, as_data(unit * (2, 2, 2)))
    close(large[0].mean / 8, energy.mean, dtype)
    close(large[1], force.repeat(8, 1), dtype)
    close(large[2], stress, dtype)
    assert force.abs().max() > 1e-2 and stress.abs().max() > 1e-3


def test_one_atom_in_its_own_field(model, dtype):
    """A cubic crystal: no force, and a stress that is the same in all directions."""
    energy, force, stress = energy_forces_stress(model, as_data(ase.build.bulk("C", "fcc", 2.9)))
    assert force.abs().max() < 1e-5 and stress[0].diagonal().abs().min() > 1e-4
    assert (stress[0] - stress[0, 0, 0] * torch.eye(3)).abs().max() < 1e-5 * stress.abs().max()
    cubic = as_data(ase.build.bulk("C", "fcc", 2.9, cubic=True))
    close(model(cubic).mean / 4, energy.mean, dtype)


def test_atoms_across_the_boundary(model, dtype):
    """Moved together, wrapped into the cell, each put into another image: all the same."""
    atoms = triclinic(5)
    energy, force, stress = energy_forces_stress(model, as_data(atoms))
    wrapped = atoms.copy()
    wrapped.positions += (1.3, -0.4, 2.2)
    wrapped.wrap()
    assert np.abs(wrapped.positions - atoms.positions - (1.3, -0.4, 2.2)).max() > 1.0
    scattered = atoms.copy()
    scattered.positions += np.random.default_rng(1).integers(-2, 3, (5, 3)) @ atoms.cell.array
    for same in (wrapped, scattered):
        found = energy_forces_stress(model, as_data(same))
        close(found[0].mean, energy.mean, dtype)
        close(found[1], force, dtype)
        close(found[2], stress, dtype)


def test_another_cell_of_the_same_lattice(model, dtype):
    atoms = triclinic(5)
    other = atoms.copy()
    other.cell[1] += 2 * other.cell[0]
    close(model(as_data(other)).mean, model(as_data(atoms)).mean, dtype)
    close(forces(model, as_data(other)), forces(model, as_data(atoms)), dtype)


def test_turned_with_its_cell(model, dtype):
    atoms = triclinic(5)
    energy, force, stress = energy_forces_stress(model, as_data(atoms))
    turned = atoms.copy()
    turned.rotate(40, (1.0, 2.0, -0.5), rotate_cell=True)
    q = torch.from_numpy(np.linalg.solve(atoms.cell.array, turned.cell.array).T)
    found = energy_forces_stress(model, as_data(turned))
    close(found[0].mean, energy.mean, dtype)
    close(found[1], force @ q.T, dtype)
    close(found[2], q @ stress @ q.T, dtype)


def test_a_batch_of_crystals_slabs_and_molecules(model, dtype):
    graphs = [
        as_data(triclinic(3, 1)),
        as_data(triclinic(6, 2, pbc=(True, True, False))),
        as_data(triclinic(1, 3)),
        as_data(Atoms("CHO", [[0, 0, 0], [1, 0, 0], [0, 1.2, 0]])),
    ]
    batch = Batch.from_data_list(graphs)
    energy, force = energy_and_forces(model, batch)
    alone = [energy_and_forces(model, graph) for graph in graphs]
    close(energy.mean, torch.cat([e.mean for e, _ in alone]), dtype)
    close(force, torch.cat([f for _, f in alone]), dtype)
    molecule = Data(z=graphs[3].z, pos=graphs[3].pos)
    close(model(graphs[3]).mean, model(molecule).mean, dtype)
    # lists that the data set stores
    for graph in graphs:
        graph.edge_index, graph.edge_shift = neighbours(graph.pos, CUTOFF, graph.cell, graph.pbc)
    stored = Batch.from_data_list(graphs)
    close(forces(model, stored), force, dtype)
    copies = model(replicate(stored, 3))
    close(copies.mean, energy.mean.repeat(3), dtype)


def test_prepared_by_a_model_of_another_cutoff(dtype):
    short, data = build("irreps", dtype), as_data(triclinic(4))
    options = EGNNOptions(cutoff=2 * CUTOFF)
    far = PropertyModel.build((1, 6, 8), hidden=8, layers=2, options=options).to(dtype).eval()
    assert torch.equal(far(short.prepared(data)).mean, far(data).mean)
    assert len(far.prepared(data).edge_shift) > len(short.prepared(data).edge_shift)


def test_members_of_other_cutoffs(dtype):
    """The stress of an ensemble is the mean of its members' own, whoever sees farthest."""
    members = [build("egnn-radial", dtype) for _ in range(2)]
    members[1].trunk.options = replace(members[1].trunk.options, cutoff=1.5 * CUTOFF)
    for layer in members[1].trunk.layers:
        layer.options = members[1].trunk.options
    data = as_data(triclinic())
    own = [energy_forces_stress(member, data) for member in members]
    assert (own[0][2] - own[1][2]).abs().max() > 1e-3 * own[0][2].abs().max()
    for ensemble in (DeepEnsemble(members).eval(), DeepEnsemble(members[::-1]).eval()):
        _, force, stress = energy_forces_stress(SinglePass(ensemble), data)
        close(force, (own[0][1] + own[1][1]) / 2, dtype)
        close(stress, (own[0][2] + own[1][2]) / 2, dtype)


def test_a_batch_that_lost_its_cells_is_refused(dtype):
    """PyG keeps the fields that the first graph of a batch has."""
    model = build("egnn", dtype)
    molecule = as_data(triclinic(pbc=False))
    del molecule.cell, molecule.pbc
    found = [with_edges(graph, CUTOFF) for graph in (molecule, as_data(triclinic()))]
    with pytest.raises(DataError, match="lost their cells"):
        model(Batch.from_data_list(found))


def test_thinned_networks_of_a_crystal(dtype, draw_thinning):
    options = EGNNOptions(cutoff=CUTOFF, dropout=0.3)
    model = PropertyModel.build((1, 6, 8), hidden=8, layers=2, options=options).to(dtype).eval()
    batch = Batch.from_data_list([as_data(triclinic(3, 1)), as_data(triclinic(5, 2))])
    draw_thinning(model, 3)
    together = model(batch, samples=3).members
    masks = {gate: gate.dropout_mask for _, gate in gates(model)}
    for sample in range(3):
        with dropout_masks({gate: mask[sample : sample + 1] for gate, mask in masks.items()}):
            close(model(batch).members, together[sample : sample + 1], dtype)


# forces and stress --------------------------------------------------------------------------------


def strained(data: Data, strain: Tensor) -> Data:
    out = copy.copy(data)
    deformation = torch.eye(3, dtype=torch.float64) + strain
    out.pos, out.cell = data.pos @ deformation.T, data.cell @ deformation.T
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_forces_and_stress_are_slopes(kind):
    """Central differences in float64."""
    model, step = build(kind, torch.float64), 1e-5
    graphs = [as_data(triclinic(4, 1)), as_data(triclinic(2, 2, size=3.0))]
    batch = Batch.from_data_list(graphs)
    _, force, stress = energy_forces_stress(model, batch)
    assert torch.equal(stress, stress.mT) and not force.requires_grad
    scale = 300.0  # of the energies, whose rounding the differences magnify
    assert force.abs().max() > 1e-2 and stress.abs().max() > 1e-2
    for node in range(6):
        for axis in range(3):
            moved = copy.copy(batch)
            ends = []
            for sign in (step, -step):
                moved.pos = batch.pos.clone()
                moved.pos[node, axis] += sign
                ends.append(model(moved).mean.sum())
            assert abs(force[node, axis] + (ends[0] - ends[1]) / (2 * step)) < 1e-8 * scale
    for g, graph in enumerate(graphs):
        volume = torch.linalg.det(graph.cell[0]).abs()
        for a in range(3):
            for b in range(a + 1):
                strain = torch.zeros(3, 3, dtype=torch.float64)
                strain[a, b] += step / 2
                strain[b, a] += step / 2
                slope = model(strained(graph, strain)).mean - model(strained(graph, -strain)).mean
                assert abs(stress[g, a, b] - slope[0] / (2 * step * volume)) < 1e-8 * scale


def test_the_sign_is_that_of_ase():
    """A crystal that a repulsion wants to blow up: ASE's stress is negative, its pressure not."""
    atoms = ase.build.bulk("C", "fcc", 2.9)
    model = build("egnn", torch.float64)
    energy, _, stress = energy_forces_stress(model, as_data(atoms))
    wider = atoms.copy()
    wider.set_cell(atoms.cell * 1.001, scale_atoms=True)
    falls = model(as_data(wider)).mean < energy.mean
    assert (stress[0].diagonal().sum() < 0) == falls[0]


def test_stress_can_be_trained(model):
    data = as_data(triclinic(4))
    model.train()
    energy, force, stress = energy_forces_stress(model, data)
    (energy.mean.sum() + force.square().sum() + stress.square().sum()).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)
    assert "edge_shift" not in data and not data.pos.requires_grad


def test_molecules_have_no_stress(dtype):
    model, crystal = build("egnn", dtype), as_data(triclinic(4))
    molecule = Data(z=crystal.z, pos=crystal.pos)
    open_cell = copy.copy(crystal)
    open_cell.pbc = torch.zeros(1, 3, dtype=torch.bool)
    for batch in (molecule, open_cell, Batch.from_data_list([crystal, open_cell])):
        with pytest.raises(DataError, match="stress needs periodic graphs"):
            energy_forces_stress(model, batch)
    slab = copy.copy(crystal)
    slab.pbc = torch.tensor([[True, True, False]])
    slab.cell = crystal.cell.clone()
    slab.cell[0, 2] = 0.0
    with pytest.raises(DataError, match="that of graph 0 has none"):
        energy_forces_stress(model, slab)


def test_a_bare_network_asks_for_edges(dtype):
    class Bare(nn.Module):
        pass

    with pytest.raises(DataError, match="call with_edges first"):
        energy_forces_stress(Bare(), as_data(triclinic(4)))
