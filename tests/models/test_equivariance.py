"""Dense models are equivariant, with every option, in every dimension and precision."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch_geometric.data import Data

from egnn_prune.errors import SuspiciousDataWarning
from egnn_prune.graphs import with_edges
from egnn_prune.models import forces
from egnn_prune.prediction import Prediction
from egnn_prune.testing import assert_equivariant, equivariance_error, random_transform

SIZES = (1, 2, 5, 18)
OPTIONS = {
    "paper": {},
    "raw differences": {"normalise": False},
    "attention": {"attention": True},
    "velocity": {"velocity": True},
    "edge features": {"edge_features": 2},
    "radial": {"radial": 8},
    "cutoff": {"cutoff": 3.0, "radial": 4},
    "mean": {"aggregation": "mean", "position_aggregation": "sum"},
    "cutoff mean": {"cutoff": 3.0, "aggregation": "mean"},
    "still": {"update_positions": False},
    "all": {"attention": True, "velocity": True, "edge_features": 2, "radial": 8, "cutoff": 4.0},
}
named = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())


@named
@pytest.mark.parametrize("n", [2, 3, 4])
def test_egnn(make_egnn, make_batch, tolerance, options, n):
    if options.get("normalise") is False and n == 2:
        pytest.skip("long raw differences move points by many lengths")
    edges = options.get("edge_features", 0)
    if options.get("cutoff") and n == 4 and not edges:
        pytest.skip("no neighbour lists in four dimensions")
    model = make_egnn(**options)
    large = () if options and len(options) < 5 else (60,)
    batch = make_batch(*SIZES, *large, n=n, edge_features=edges)
    assert_equivariant(model, batch, tolerance=tolerance, transforms=2)


@named
def test_egnn_moves_only_if_asked(make_egnn, make_batch, options):
    """Without moves an equivariance test of the positions would say nothing."""
    batch = make_batch(4, 6, edge_features=options.get("edge_features", 0))
    batch.pos *= 0.5  # some pairs well within the cutoff
    moved = (make_egnn(**options)(batch).pos - batch.pos).abs().max()
    assert moved == 0 if options.get("update_positions") is False else moved > 3e-3


@named
@pytest.mark.parametrize("n", [2, 3, 4])
def test_property_model(make_property_model, make_batch, tolerance, options, n):
    edges = options.get("edge_features", 0)
    if options.get("cutoff") and n == 4 and not edges:
        pytest.skip("no neighbour lists in four dimensions")
    large = () if options and len(options) < 5 else (60,)
    batch = make_batch(*SIZES, *large, n=n, edge_features=edges)
    features = 0 if n == 3 else batch.x.shape[1]  # atoms are in three dimensions
    model = make_property_model(members=3, in_features=features, **options)
    assert_equivariant(model, batch, tolerance=tolerance, transforms=2)


@pytest.mark.parametrize("pool", ["sum", "mean", "node"])
def test_read_outs(make_property_model, make_batch, tolerance, pool):
    assert_equivariant(make_property_model(pool=pool), make_batch(1, 4, 9), tolerance=tolerance)


def test_forces_turn_with_the_molecule(make_property_model, make_batch, tolerance):
    model = make_property_model()

    def force_field(batch):
        return Data(vel=forces(model, batch))

    assert_equivariant(force_field, make_batch(2, 5, 9), tolerance=10 * tolerance)


@pytest.mark.filterwarnings("ignore::egnn_prune.errors.SuspiciousDataWarning")
def test_coincident_points_and_single_nodes(make_egnn, make_batch, tolerance):
    batch = make_batch(1, 5, 1)
    batch.pos[2] = batch.pos[1]
    assert_equivariant(make_egnn(velocity=True), batch, tolerance=tolerance)


def test_coincident_points_warn(make_egnn, make_batch):
    batch = make_batch(4)
    batch.pos[1] = batch.pos[0]
    with pytest.warns(SuspiciousDataWarning, match="duplicated atom"):
        make_egnn()(batch)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_random_transform_is_orthogonal_and_seeded(n):
    generator = torch.Generator().manual_seed(3)
    for determinant in (1, -1):
        matrix, shift = random_transform(n, generator, determinant=determinant)
        assert torch.allclose(matrix @ matrix.T, torch.eye(n, dtype=torch.float64), atol=1e-12)
        assert torch.linalg.det(matrix) == pytest.approx(determinant)
        assert shift.norm() <= 10
    again = random_transform(n, torch.Generator().manual_seed(3), determinant=1)
    first = random_transform(n, torch.Generator().manual_seed(3), determinant=1)
    assert torch.equal(again[0], first[0])
    signs = {round(float(torch.linalg.det(random_transform(n, generator)[0]))) for _ in range(20)}
    assert signs == {1, -1}


class Broken(nn.Module):
    """Breaks one symmetry on purpose."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def forward(self, batch):
        return self.rule(batch)


def centred(batch):
    return batch.pos - batch.pos.mean(0)


BROKEN = {
    "rotation": lambda b: centred(b)[:, 0].abs().sum(),
    "reflection": lambda b: (
        torch.linalg.det(centred(b).T @ (centred(b) * b.x[:, :1]))
        + torch.linalg.det(b.pos[b.z.argsort(stable=True)][1:4] - b.pos[b.z.argmin()])
    ),
    "translation": lambda b: b.pos.norm(dim=1).sum(),
    "permutation": lambda b: (b.pos[0] - b.pos[-1]).norm(),
}


@pytest.mark.parametrize("symmetry", BROKEN)
def test_names_the_broken_symmetry(make_batch, symmetry):
    batch = make_batch(5)
    batch.z = torch.tensor([1, 6, 7, 8, 9])
    with pytest.raises(AssertionError) as caught:
        assert_equivariant(Broken(BROKEN[symmetry]), batch)
    reported = [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:-1]]
    allowed = {"all of them together", symmetry}
    allowed |= {"reflection"} if symmetry == "rotation" else set()
    assert symmetry in reported and set(reported) <= allowed
    assert "output deviates by" in str(caught.value)


def vectors(rule):
    def model(batch):
        return rule(batch)

    return model


@pytest.mark.parametrize(
    ("model", "output"),
    [
        (lambda b: Data(pos=b.pos + 1.0), "pos"),
        (lambda b: Data(vel=b.pos), "vel"),
        (lambda b: Data(x=b.pos), "x"),
        (lambda b: Data(x=b.x.flip(0)), "x"),
        (lambda b: Prediction.from_members(b.pos[None, :, 0]), "mean"),
    ],
)
def test_names_the_output(make_batch, model, output):
    with pytest.raises(AssertionError, match=f"{output} deviates by"):
        assert_equivariant(vectors(model), make_batch(3, 4))


def test_right_vectors_pass(make_batch, tolerance):
    assert_equivariant(
        vectors(lambda b: Data(x=b.x, pos=b.pos, vel=b.vel)), make_batch(1, 3), tolerance=tolerance
    )


def test_not_a_number_is_an_error_not_a_pass(make_batch):
    def model(batch):
        return batch.pos.sum() * float("nan")

    assert equivariance_error(model, make_batch(3)) == float("inf")
    with pytest.raises(AssertionError, match="NaN or infinite"):
        assert_equivariant(model, make_batch(3))


def test_error_is_relative_to_the_given_scale(make_batch):
    batch = make_batch(4)

    def model(batch):
        return batch.pos[:, 0].sum()

    one = equivariance_error(model, batch, scale=1.0)
    assert one > 0.1
    assert equivariance_error(model, batch, scale=10.0) == pytest.approx(one / 10)


def test_a_batch_with_edges_that_were_found_before(make_property_model, make_batch, tolerance):
    model = make_property_model(cutoff=3.0, radial=4)
    assert_equivariant(model, with_edges(make_batch(4, 6), 3.0), tolerance=tolerance)


def test_mode_and_batch_are_left_alone(make_egnn, make_batch):
    model, batch = make_egnn(dropout=0.5).train(), make_batch(3, 4)
    before = {k: v.clone() for k, v in batch.to_dict().items()}
    assert_equivariant(model, batch, transforms=1)
    assert model.training
    assert all(torch.equal(batch[k], v) for k, v in before.items())


def test_unknown_outputs_are_explained(make_batch):
    with pytest.raises(TypeError, match="must return a Prediction"):
        equivariance_error(lambda batch: "energy", make_batch(2))
