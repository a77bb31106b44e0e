"""Energies, forces and error bars of extensive targets grow with the structure and nothing else."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch_geometric.data import Batch, Data

from egnn_prune.models import (
    EGNNOptions,
    IrrepsOptions,
    MeanVarianceHead,
    PropertyModel,
    TargetScale,
    forces,
)
from egnn_prune.uncertainty import LastLayer, MCDropout

COUNTS = torch.tensor([[1.0, 0], [4, 0], [8, 0], [0, 1], [0, 4], [0, 8]])
#: Pure elements in cells of several sizes, with an effect of the size: an intercept would fit best.
ENERGIES = torch.tensor([-3.0, -14.2, -28.9, -2.0, -9.5, -19.5])
SCALE = TargetScale.fit(COUNTS, ENERGIES)


def build(kind: str, dtype: torch.dtype, **options: object) -> PropertyModel:
    torch.manual_seed(0)
    dropout = float(options.pop("dropout", 0.0))
    read_out = {"hidden": 8, "layers": 2, "members": 2, "readout_dropout": dropout, "scale": SCALE}
    if kind == "irreps":
        irreps = IrrepsOptions(cutoff=4.0)
        model = PropertyModel.build_irreps((13, 29), copies=4, radial=8, options=irreps, **read_out)
    else:
        radial, how = (8, "mean") if kind == "egnn-radial-mean" else (0, "sum")
        egnn = EGNNOptions(cutoff=4.0, attention=True, radial=radial, aggregation=how)
        model = PropertyModel.build((13, 29), options=egnn, **read_out)
    return model.to(dtype).eval()


@pytest.fixture(params=["egnn", "egnn-radial-mean", "irreps"])
def model(request, dtype) -> PropertyModel:
    return build(request.param, dtype)


def molecule(dtype: torch.dtype, copies: int = 1) -> Data:
    """A molecule of five atoms, 100 Angstrom from each of its copies; float32 holds it exactly."""
    pos = 1.5 * torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pos = (pos * 1024).round() / 1024
    z = torch.tensor([13, 29, 29, 13, 13])
    far = [pos + 100.0 * k for k in range(copies)]
    return Data(z=z.repeat(copies), pos=torch.cat(far).to(dtype))


def supercell(dtype: torch.dtype, copies: int) -> Data:
    """A skewed crystal of two elements, repeated in all directions; float32 holds it exactly."""
    cell = torch.tensor([[3.625, 0, 0], [0.375, 3.5, 0], [0, 0.25, 3.875]], dtype=torch.float64)
    share = torch.tensor([[0, 0, 0], [0, 0.5, 0.4375], [0.5, 0, 0.5], [0.5625, 0.5, 0]]).double()
    shifts = torch.tensor(list(itertools.product(range(copies), repeat=3))).double()
    return Data(
        z=torch.tensor([13, 29, 29, 29]).repeat(len(shifts)),
        pos=((shifts[:, None] + share).flatten(0, 1) @ cell).to(dtype),
        cell=(copies * cell)[None].to(dtype),
        pbc=torch.ones(1, 3, dtype=torch.bool),
    )


def test_the_fit_of_an_extensive_target_has_no_shift():
    assert SCALE.shift == 0.0
    assert SCALE.atoms == pytest.approx(26 / 6)
    left = ENERGIES.double() - SCALE.reference(COUNTS)
    assert SCALE.scale == pytest.approx(float(left.square().mean().sqrt()))
    assert float(SCALE.reference(torch.zeros(1, 2))) == 0.0  # of nothing


def test_the_fit_of_an_intensive_target_keeps_its_shift():
    scale = TargetScale.fit(COUNTS[:, :0], ENERGIES)
    assert scale.shift == pytest.approx(float(ENERGIES.mean()))
    assert scale.scale == pytest.approx(float(ENERGIES.std()))
    assert scale.atoms == 0.0


def test_atoms_far_apart(model):
    """Two isolated atoms have twice the energy of one, and each its element's."""
    one = float(model(Data(z=torch.tensor([29]), pos=torch.zeros(1, 3))).mean.detach())
    far = torch.tensor([[0.0, 0, 0], [100.0, 0, 0]])
    two = float(model(Data(z=torch.tensor([29, 29]), pos=far)).mean.detach())
    assert two == pytest.approx(2 * one, rel=1e-6)


def test_molecules_far_apart(model, dtype, assert_close):
    one, three = molecule(dtype), molecule(dtype, 3)
    assert_close(model(three).mean, 3 * model(one).mean)
    assert_close(forces(model, three), forces(model, one).repeat(3, 1))


@pytest.mark.parametrize("copies", [2, 3])
def test_supercells(model, dtype, assert_close, copies):
    """8 and 27 copies have the energy and the forces of the cell, for each of their atoms."""
    one, many = supercell(dtype, 1), supercell(dtype, copies)
    assert_close(model(many).mean / copies**3, model(one).mean)
    assert_close(forces(model, many), forces(model, one).repeat(copies**3, 1))


def test_error_bars_of_copies(model, dtype, assert_close):
    """The noise of independent copies adds in variance; the members err alike in each of them."""
    one, many = model(supercell(dtype, 1)), model(supercell(dtype, 2))
    assert_close(many.aleatoric, 8 * one.aleatoric)
    assert_close(many.epistemic.sqrt(), 8 * one.epistemic.sqrt())


@pytest.mark.parametrize("kind", ["egnn", "irreps"])
def test_error_bars_of_every_method(kind, dtype, assert_close):
    """Whatever states them: MC-dropout samples, and a covariance of the last layer."""
    network = build(kind, dtype, dropout=0.3)
    last = LastLayer(network)
    last.covariance = 0.01 * torch.eye(len(network.last_layer_weights()), dtype=torch.float64)
    for estimator in (MCDropout(network, 6, seed=1), last):
        one, two = (estimator.predict(molecule(dtype, k)) for k in (1, 2))
        assert_close(two.aleatoric, 2 * one.aleatoric)
        assert_close(two.epistemic.sqrt(), 2 * one.epistemic.sqrt())


def test_a_batch_is_its_graphs(model, dtype, assert_close):
    """Sizes belong to their graphs, and to their members."""
    graphs = [molecule(dtype, k) for k in (1, 3, 2)]
    together = model(Batch.from_data_list(graphs))
    for k, graph in enumerate(graphs):
        alone = model(graph)
        assert_close(together.mean[k : k + 1], alone.mean)
        assert_close(together.member_variance[:, k : k + 1], alone.member_variance)


def test_targets_that_do_not_grow_keep_their_noise(dtype, assert_close):
    model = PropertyModel.build((13, 29), hidden=8, layers=2, pool="mean", scale=SCALE).to(dtype)
    assert isinstance(model.head, MeanVarianceHead)
    one, two = (model.eval()(molecule(dtype, k)) for k in (1, 2))
    assert not torch.allclose(two.aleatoric, 2 * one.aleatoric)


def test_old_files_keep_their_shift_and_their_noise(dtype, assert_close):
    """What version 0.1 wrote has a shift per structure and no size."""
    model = build("egnn", dtype)
    spec = model.config()
    scale = dict(spec["scale"], shift=-0.7)
    del scale["atoms"]
    old = PropertyModel.from_config({**spec, "scale": scale}).to(dtype)
    old.load_state_dict(model.state_dict())
    one = molecule(dtype)
    assert_close(old(one).mean, model(one).mean - 0.7)
    assert_close(old(one).aleatoric, model(one).aleatoric * SCALE.atoms / 5)
