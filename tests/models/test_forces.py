"""Forces are exact: through every option, at the cutoff's edge, on top of each other."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from egnn_prune import prune
from egnn_prune.api.pruning import compact
from egnn_prune.errors import DataError
from egnn_prune.graphs import replicate, with_edges
from egnn_prune.models import (
    EGNNOptions,
    IrrepsOptions,
    PropertyModel,
    TargetScale,
    energy_and_forces,
    forces,
)

ELEMENTS = (1, 6, 8)
STEP = 1e-5
coincident = pytest.mark.filterwarnings("ignore::egnn_prune.errors.SuspiciousDataWarning")


def egnn(dtype: torch.dtype = torch.float64, **options) -> PropertyModel:
    """A small model whose atoms move by visible lengths, in eV of a molecule's size."""
    torch.manual_seed(2)
    dropout = options.get("dropout", 0.0)
    model = PropertyModel.build(
        ELEMENTS,
        hidden=8,
        layers=3,
        readout_dropout=dropout,
        options=EGNNOptions(**options),
        scale=TargetScale(scale=10.0),
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("position_out.weight", "velocity_out.weight")):
                parameter.mul_(100.0 if "position" in name else 3.0)
    return model.to(dtype).eval()


def irreps(dtype: torch.dtype = torch.float64, **options) -> PropertyModel:
    torch.manual_seed(2)
    options = {"cutoff": 4.0, "neighbours": 4.0, **options}
    model = PropertyModel.build_irreps(
        ELEMENTS,
        copies=3,
        layers=2,
        radial=6,
        hidden=8,
        readout_dropout=options.get("dropout", 0.0),
        options=IrrepsOptions(**options),
        scale=TargetScale(scale=10.0),
    )
    return model.to(dtype).eval()


OPTIONS: dict[str, Callable[[], PropertyModel]] = {
    "plain": lambda: egnn(),
    "attention": lambda: egnn(attention=True),
    "invariant": lambda: egnn(update_positions=False),
    "velocity": lambda: egnn(velocity=True),
    "gaussians": lambda: egnn(radial=20),
    "cutoff": lambda: egnn(cutoff=4.0),
    "cutoff gaussians attention": lambda: egnn(cutoff=4.0, radial=20, attention=True),
    "means": lambda: egnn(aggregation="mean"),
    "means within a cutoff": lambda: egnn(aggregation="mean", cutoff=4.0),
    "sums of moves": lambda: egnn(position_aggregation="sum", cutoff=4.0),
    "not residual": lambda: egnn(residual=False),
    "not normalised": lambda: egnn(normalise=False, cutoff=4.0),
    "dropout": lambda: egnn(dropout=0.3, cutoff=4.0),
    "edge features": lambda: egnn(edge_features=2),
    "edge features within a cutoff": lambda: egnn(edge_features=2, cutoff=4.0, radial=5),
    "wide eps": lambda: egnn(eps=0.5),
    **{
        f"irreps lmax={lmax} parity={parity}": lambda lmax=lmax, parity=parity: irreps(
            lmax=lmax, parity=parity
        )
        for lmax in (0, 1, 2)
        for parity in (True, False)
    },
    "irreps dropout": lambda: irreps(dropout=0.3),
    "irreps few functions, short": lambda: irreps(bessel=3, cutoff=2.5),
}


def moved(batch: Batch, pos: Tensor) -> Batch:
    out = copy.copy(batch)
    out.pos = pos
    return out


def slopes(model: PropertyModel, batch: Batch | Data, step: float = STEP) -> Tensor:
    """Minus the central differences of the summed energy, ``[N, 3]``, in one batch of copies."""
    pos, count = batch.pos, batch.pos.numel()
    shift = step * torch.eye(count, dtype=pos.dtype).view(count, *pos.shape)
    copies = replicate(batch, 2 * count)
    copies.pos = torch.cat([pos + shift, pos - shift]).flatten(0, 1)
    with torch.no_grad():
        up, down = model(copies).mean.view(2, count, -1).sum(-1)
    return -((up - down) / (2 * step)).view_as(pos)


@pytest.fixture
def double_batch(make_batch) -> Callable[..., Batch]:
    def make(*sizes: int, **options) -> Batch:
        batch = make_batch(*sizes, **options)
        for name in ("pos", "vel", "edge_attr"):
            if batch.get(name) is not None:
                batch[name] = batch[name].double()
        return batch

    return make


@pytest.mark.parametrize("state", ["dense", "masked", "compact"])
@pytest.mark.parametrize("name", OPTIONS)
def test_forces_are_slopes(name, state, double_batch):
    """Central differences in float64; float32 agrees with float64."""
    model, features = OPTIONS[name](), 2 * ("edge features" in name)
    batch = double_batch(2, 3, edge_features=features)
    if state != "dense":
        model = prune(model, "magnitude", 0.4)
        model = (compact(model) if state == "compact" else model).eval()
    exact = forces(model, batch)
    scale = float(exact.abs().max())
    assert scale > 1e-4, "nothing to compare"
    # the difference quotient of energies of about 10 knows 1e-9; curvature adds its share
    assert (exact - slopes(model, batch)).abs().max() < 1e-6 * scale + 1e-8
    single = moved(batch, batch.pos.float())
    for key in ("vel", "edge_attr"):
        if single.get(key) is not None:
            single[key] = single[key].float()
    found = forces(model.float(), single)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 2e-4 * scale


def test_one_pass_for_energies_and_forces(dtype, make_batch, assert_close):
    model, batch, passes = egnn(dtype, cutoff=4.0), make_batch(3, 5), []
    model.trunk.register_forward_hook(lambda *_: passes.append(1))
    energy, force = energy_and_forces(model, batch)
    assert len(passes) == 1
    assert_close(force, forces(model, batch))
    assert torch.equal(energy.mean, model(batch).mean.detach())
    assert not force.requires_grad and not any(v.requires_grad for v in vars(energy).values())
    assert not batch.pos.requires_grad


@pytest.mark.parametrize("build", [egnn, irreps])
def test_both_can_be_trained_together(build, dtype, make_batch):
    """The gradient of a loss of energies and forces, against central differences in a weight."""
    model, batch = build(torch.float64, cutoff=4.0), make_batch(4)
    batch.pos = batch.pos.double()
    model.train()

    def loss() -> Tensor:
        energy, force = energy_and_forces(model, batch)
        return energy.mean.square().sum() + force.square().sum()

    weight = model.trunk.embedding.weight
    (gradient,) = torch.autograd.grad(loss(), weight)
    for index in ((0, 0), (2, 1)):
        ends = []
        for sign in (STEP, -STEP):
            with torch.no_grad():
                weight[index] += sign
            ends.append(loss().item())
            with torch.no_grad():
                weight[index] -= sign
        slope = (ends[0] - ends[1]) / (2 * STEP)
        assert abs(gradient[index] - slope) < 1e-5 * gradient.abs().max()


# the cutoff's edge --------------------------------------------------------------------------------

EDGES = {
    "egnn": lambda: egnn(cutoff=2.0),
    "egnn sums": lambda: egnn(cutoff=2.0, position_aggregation="sum", radial=20, attention=True),
    "egnn means": lambda: egnn(cutoff=2.0, aggregation="mean"),
    "egnn at rest": lambda: egnn(cutoff=2.0, update_positions=False),
    "egnn not normalised": lambda: egnn(cutoff=2.0, normalise=False),
    "irreps": lambda: irreps(cutoff=2.0),
    "irreps scalars": lambda: irreps(cutoff=2.0, lmax=0),
}


@pytest.mark.parametrize("name", EDGES)
def test_an_atom_leaves_through_the_cutoff(name):
    """Energy and force are continuous, and the force is the slope on the very edge.

    The third atom walks away; one neighbour is out of reach, one leaves, one stays.
    """
    model = EDGES[name]()
    places = [[0.0, 0, 0], [0.9, 0.3, 0], [0, 0, 0], [-0.4, 0.8, 0.5]]

    def at(distance: float) -> Data:
        graph = Data(z=torch.tensor([6, 1, 8, 1]), pos=torch.tensor(places, dtype=torch.float64))
        graph.pos[2] = distance * torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
        return graph

    inside, outside = at(2.0 - 1e-6), at(2.0 + 1e-6)
    lost = (
        with_edges(inside, 2.0).edge_index.shape[1] - with_edges(outside, 2.0).edge_index.shape[1]
    )
    assert lost == 2
    (e1, f1), (e2, f2) = energy_and_forces(model, inside), energy_and_forces(model, outside)
    scale = float(f1.abs().max())
    # the energy goes on with the slope of the forces, and the forces do not jump
    direction = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    assert abs((e2.mean - e1.mean)[0] + 2e-6 * (f1[2] @ direction)) < 1e-9
    assert (f1 - f2).abs().max() < 1e-4 * scale
    edge = at(2.0)
    assert (forces(model, edge) - slopes(model, edge, 1e-6)).abs().max() < 1e-5 * scale
    # and the pair matters before it parts
    assert (forces(model, at(1.5)) - f1).abs().max() > 1e-3 * scale


@pytest.mark.parametrize("name", EDGES)
def test_a_walk_through_the_cutoff_keeps_its_energy(name):
    """The integral of the force along the walk is the difference of the energies."""
    model, n = EDGES[name](), 400
    direction = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    distances = torch.linspace(1.6, 2.4, n + 1, dtype=torch.float64)
    graphs = []
    for distance in distances:
        pos = torch.tensor([[0.0, 0, 0], [0.9, 0.3, 0], [0, 0, 0]], dtype=torch.float64)
        pos[2] = distance * direction
        graphs.append(Data(z=torch.tensor([6, 1, 8]), pos=pos))
    energy, force = energy_and_forces(model, Batch.from_data_list(graphs))
    along = force.view(n + 1, 3, 3)[:, 2] @ direction
    work = torch.trapezoid(along, distances)
    drop = energy.mean[0] - energy.mean[-1]
    assert abs(work - drop) < 1e-4 * max(abs(drop), float(along.abs().max()) * 0.1)


# atoms on top of each other -----------------------------------------------------------------------


@coincident
@pytest.mark.parametrize("name", [k for k in OPTIONS if "edge features" not in k])
def test_coincident_atoms(name, dtype):
    """Finite forces, and finite gradients of a loss of forces."""
    model = OPTIONS[name]().to(dtype)
    pos = torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 0.2, 0], [0, 0, 0]], dtype=dtype)
    graph = Data(z=torch.tensor([1, 6, 8, 1]), pos=pos, vel=torch.ones_like(pos))
    found = forces(model, graph)
    assert found.isfinite().all() and found.abs().max() > 0
    model.train()
    energy, force = energy_and_forces(model, graph)
    (force.square().sum() + energy.mean.sum()).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(gradients) > 5 and all(g.isfinite().all() for g in gradients)
    if dtype == torch.float64 and "dropout" not in name:
        exact = slopes(model.eval(), graph, 1e-7)
        assert (found - exact).abs().max() < 1e-3 * found.abs().max()


@coincident
@pytest.mark.parametrize("build", [egnn, irreps])
def test_nearly_coincident_atoms(build, dtype):
    """No division of rounding noise by itself on the way to distance zero."""
    model, sizes = build(dtype, cutoff=4.0), []
    for distance in (0.0, 1e-12, 1e-8, 1e-6, 1e-4, 1e-3):
        pos = torch.tensor([[0.0, 0, 0], [distance, 0, 0], [1, 0.2, 0]], dtype=dtype)
        found = forces(model, Data(z=torch.tensor([1, 6, 8]), pos=pos))
        assert found.isfinite().all()
        sizes.append(float(found.abs().max()))
    assert max(sizes[:4]) < 3 * min(sizes[:4])


def test_bad_input_is_said(make_batch, dtype):
    model, batch = egnn(dtype), make_batch(3)
    batch.pos[1, 0] = torch.nan
    with pytest.raises(DataError, match="NaN or infinite position"):
        energy_and_forces(model, batch)
