"""IrrepsNet: its symmetries, its forces, e3nn's conventions, files and compilers."""

from __future__ import annotations

import copy

import pytest
import torch
from e3nn import o3
from irreps_helpers import FEATURES, SPARSITIES, masked_at, seen, slopes
from torch import nn
from torch_geometric.data import Data

from egnn_prune import forces
from egnn_prune.deployment.checkpoint import load, save
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.graphs import complete_edges, with_edges
from egnn_prune.models import IrrepsNet, IrrepsWidths, PropertyModel
from egnn_prune.models.basis import BesselBasis
from egnn_prune.models.irreps_linear import CopyLinear
from egnn_prune.models.irreps_paths import parse_irreps, paths
from egnn_prune.pruning import (
    compact,
)
from egnn_prune.testing import assert_equivariant

orders = pytest.mark.parametrize("lmax", [0, 1, 2, 3])


# symmetry ---------------------------------------------------------------------------------------


@orders
@pytest.mark.parametrize("parity", [True, False])
def test_equivariant_dense_masked_and_compact(make_net, make_batch, tolerance, lmax, parity):
    net, batch = make_net(lmax=lmax, parity=parity), make_batch(1, 5, 8)
    masked = masked_at(net, 0.5)
    for model in (net, masked, compact(masked)):
        assert_equivariant(seen(model), batch, tolerance=tolerance, transforms=2)


def test_equivariance_fails_when_a_component_is_lost(make_net, make_batch):
    """The check above can fail: a channel is a copy of an irrep, not a number."""
    net, batch = make_net(), make_batch(6)
    hook = net.layers[1].register_forward_hook(
        lambda _, __, out: {**out, "1o": out["1o"] * out["1o"].new_tensor([1.0, 1.0, 0.0])[:, None]}
    )
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_equivariant(seen(net), batch)
    hook.remove()


def test_pseudoscalars_see_chirality(dtype):
    """All parities: a layer of pseudo-scalars tells a molecule from its mirror image."""
    torch.manual_seed(0)
    widths = [IrrepsWidths(s, 4, 4) for s in ("4x0e+4x1o+4x2e", "4x0e+4x1e+4x1o+4x2o", "4x0e+4x0o")]
    net = IrrepsNet(FEATURES, widths=widths, embedding=4, cutoff=20.0).to(dtype)
    pos, x = 2 * torch.randn(6, 3, dtype=dtype), torch.randn(6, FEATURES, dtype=dtype)
    caught = []
    net.layers[-1].register_forward_hook(lambda _, __, out: caught.append(out["0o"]))
    for sign in (1, -1):
        net(Data(x=x, pos=sign * pos, edge_index=None))
    assert torch.allclose(caught[0], -caught[1], atol=1e-5) and caught[0].abs().max() > 1e-4


def test_vectors_and_depth_matter(make_net, make_batch):
    """Equivariance says nothing about outputs that are zero."""
    out = make_net()(make_batch(6))
    assert out.vec.shape == (6, 2, 3) and out.vec.abs().max() > 1e-3
    assert out.x.std(0).min() > 1e-3


# e3nn's parts -------------------------------------------------------------------------------------


def test_messages_are_e3nn_tensor_products(make_net, make_batch, assert_close):
    """Sums over neighbours against o3.TensorProduct in uvu mode, path by path."""
    net, batch = make_net(lmax=2, layers=4), make_batch(6)
    layer, lmax, dtype = net.layers[2], net.options.lmax, batch.pos.dtype
    edges = net._edges(batch.pos, complete_edges(batch.ptr), batch.batch)
    x = {ir: torch.randn(6, o3.Irrep(ir).dim, n, dtype=dtype) for ir, n in layer.copies.items()}
    found = layer._messages(x, edges)
    difference = batch.pos[edges.target] - batch.pos[edges.source]
    r2 = difference.square().sum(1, keepdim=True)
    y = o3.spherical_harmonics(
        list(range(lmax + 1)), difference / (r2 + 1e-6).sqrt(), False, "component"
    )
    u = (r2.sqrt() / 4.0).clamp(max=1)
    y = y * (1 - 10 * u**3 + 15 * u**4 - 6 * u**5) / net.options.neighbours**0.5
    hidden = layer.silu(layer.radial_mid(layer.silu(layer.radial_in(edges.radial))))
    assert len(found) == len(layer.paths) > 15
    for path, rows in layer._radial_rows().items():
        n = layer.copies[path.source]
        product = o3.TensorProduct(
            f"{n}x{path.source}",
            o3.Irreps.spherical_harmonics(lmax),
            f"{n}x{path.target}",
            [(0, path.l, 0, "uvu", True)],
            shared_weights=False,
            path_normalization="none",
        ).to(dtype)
        carried = x[path.source][edges.source].transpose(1, 2).flatten(1)
        message = product(carried, y, hidden @ rows.T).view(len(y), n, -1).transpose(1, 2)
        assert_close(
            found[path],
            torch.zeros(6, *message.shape[1:], dtype=dtype).index_add(0, edges.target, message),
            1e-5 if dtype == torch.float32 else 1e-7,  # e3nn keeps its symbols in float32
        )


def test_mixing_is_e3nn_linear(dtype, assert_close):
    ours = CopyLinear(3, [5]).to(dtype)
    theirs = o3.Linear("5x2e", "3x2e").to(dtype)
    theirs.weight.data = ours.weight.data.T.flatten()
    x = torch.randn(4, 5, 5, dtype=dtype)
    expected = theirs(x.transpose(1, 2).flatten(1)).view(4, 3, 5).transpose(1, 2)
    assert_close(ours(x), expected, 1e-6)


def test_paths_follow_the_selection_rules():
    found = paths(["0e", "1o"], ["0e", "1o", "1e"], 1)
    assert [(p.source, p.l, p.target) for p in found] == [
        ("0e", 0, "0e"),
        ("1o", 1, "0e"),
        ("0e", 1, "1o"),
        ("1o", 0, "1o"),
        ("1o", 1, "1e"),
    ]
    assert found[1].orders == (1, 1, 0)


def test_bessel_functions_are_orthogonal(dtype):
    """Mean products over the ball: the unit matrix; and no jump or NaN at zero."""
    r = torch.linspace(0, 3.0, 20001, dtype=dtype)[:, None]
    basis = BesselBasis(4, 3.0, eps=1e-5)(r.square())
    gram = torch.trapezoid(
        (3 * r**2 / 27)[:, :, None] * basis[:, :, None] * basis[:, None], r[:, :, None], dim=0
    )
    assert torch.allclose(gram, torch.eye(4, dtype=dtype), atol=1e-3)
    assert basis.isfinite().all()


# forces -------------------------------------------------------------------------------------------


@orders
def test_forces_are_slopes(make_model, make_batch, assert_close, dtype, lmax):
    if dtype == torch.float32:
        pytest.skip("central differences need float64")
    model, batch = make_model(lmax=lmax, layers=2), make_batch(2, 5)
    masked = masked_at(model, 0.4)
    for m in (model, compact(masked)):
        found = forces(m, batch)
        assert found.abs().max() > 1e-3
        assert_close(found, slopes(m, batch), 1e-6)


def test_forces_of_masked_and_compact_agree(make_model, make_batch, assert_close, tolerance):
    model, batch = make_model(members=2), make_batch(3, 6)
    for sparsity in SPARSITIES:
        masked = masked_at(model, sparsity)
        assert_close(forces(compact(masked), batch), forces(masked, batch), 10 * tolerance)
    assert_equivariant(
        lambda b: Data(vel=forces(compact(masked), b)), batch, tolerance=10 * tolerance
    )


def test_no_force_where_nothing_reads_the_positions(make_model, make_batch):
    """Axial vectors cannot become scalars in one layer: pruning may leave no path."""
    model, batch = make_model(vectors=1), make_batch(5)
    gone = [g.name for g in model.channel_groups() if g.family == "trunk.layers.1"]
    masked = masked_at(model, 0.0, empty=[name for name in gone if not name.endswith(".1e")])
    for m in (masked, compact(masked)):
        assert (forces(m, batch) == 0).all()


def pair(distance, dtype):
    pos = torch.tensor([[0.0, 0, 0], [distance, 0, 0], [0, 1.5, 0.3]], dtype=dtype)
    return Data(pos=pos, z=torch.tensor([1, 6, 8]))


def test_nothing_jumps_at_the_cutoff(make_model):
    """Energy and force are continuous where an edge leaves the list, and the force is the slope."""
    model = make_model().double()
    inside, outside = (pair(4.0 + d, torch.float64) for d in (-1e-4, 1e-4))
    assert with_edges(inside, 4.0).edge_index.shape != with_edges(outside, 4.0).edge_index.shape
    energies = [model(b).mean for b in (inside, outside)]
    assert (energies[0] - energies[1]).abs() < 1e-10
    assert (forces(model, inside) - forces(model, outside)).abs().max() < 1e-6
    near = pair(3.9, torch.float64)
    assert (forces(model, near) - slopes(model, near)).abs().max() < 1e-7
    assert (model(pair(3.0, torch.float64)).mean - energies[1]).abs() > 1e-6, "the pair matters"


@pytest.mark.filterwarnings("ignore::egnn_prune.errors.SuspiciousDataWarning")
def test_coincident_points(make_net, make_model, make_batch, tolerance, dtype):
    """Orders l > 0 vanish at r = 0, smoothly; no NaN, no direction."""
    batch = make_batch(1, 5)
    batch.pos[2] = batch.pos[1]
    net, model = make_net(), make_model()
    assert_equivariant(seen(net), batch, tolerance=tolerance)
    found = forces(model, batch)
    assert found.isfinite().all()
    if dtype == torch.float64:
        assert (found - slopes(model, batch, 1e-6)).abs().max() <= 1e-5 * found.abs().max()
    couplings = net._edges(batch.pos, torch.tensor([[1], [2]]), batch.batch).couplings
    assert all((c != 0).any() == (l2 == 0) for (_, l2, _), c in couplings.items()), "only Y0 stays"


def test_precise_positions_far_away(make_model, make_batch):
    """Differences are taken before the cast: float64 positions help float32 weights."""
    model, batch = make_model().float(), make_batch(6)
    batch.pos = batch.pos.double() * 0.5
    far = copy.copy(batch)
    far.pos = batch.pos + 2.0**20  # where float32 knows an eighth of a length unit
    assert torch.allclose(forces(model, far), forces(model, batch), rtol=1e-4, atol=1e-6)


# files, compilers, mistakes ---------------------------------------------------------------------


def test_checkpoints(make_net, make_model, make_batch, tmp_path):
    batch = make_batch(3, 6)
    for model in (make_net(), make_model(members=2)):
        masked = masked_at(model, 0.5)
        for k, m in enumerate((model, masked, compact(masked))):
            path = tmp_path / f"{type(model).__name__}{k}.safetensors"
            save(m, path)
            again = load(path)
            assert type(again) is type(model)
            pairs = zip(again.state_dict().items(), m.state_dict().items(), strict=True)
            assert all(torch.equal(a, b) for (_, a), (_, b) in pairs)
            if isinstance(m, PropertyModel):
                assert torch.equal(again(batch).members, m(batch).members)
            else:
                assert torch.equal(again(batch).x, m(batch).x)


def test_old_architectures_mean_an_egnn(make_property_model):
    spec = make_property_model().config()
    assert spec.pop("trunk_class") == "EGNN"
    assert type(PropertyModel.from_config(spec).trunk).__name__ == "EGNN"


class Plain(nn.Module):
    """From tensors to tensors."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, pos, edge_index, graph):
        return self.net.features(x, pos, edge_index, graph)


def tensors(batch):
    batch = with_edges(batch, 4.0)
    return batch.x, batch.pos, batch.edge_index, batch.batch


@pytest.mark.slow
def test_export(make_net, make_batch, assert_close):
    small = compact(masked_at(make_net(layers=2), 0.4))
    nodes, pairs = torch.export.Dim("nodes"), torch.export.Dim("pairs")
    shapes = ({0: nodes}, {0: nodes}, {1: pairs}, {0: nodes})
    program = torch.export.export(
        Plain(small), tensors(make_batch(4, 7)), dynamic_shapes=shapes
    ).module()
    other = tensors(make_batch(3, 9, seed=1))
    for found, expected in zip(program(*other), Plain(small)(*other), strict=True):
        assert_close(found, expected)


@pytest.mark.slow
def test_compile(make_net, make_batch, assert_close):
    small = compact(masked_at(make_net(layers=2, lmax=1), 0.4))
    run = torch.compile(Plain(small), fullgraph=True, dynamic=True)
    for seed in (0, 1):
        args = tensors(make_batch(4, 7 + seed, seed=seed))
        for found, expected in zip(run(*args), Plain(small)(*args), strict=True):
            assert_close(found, expected)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"lmax": 4}, "lmax must be"),
        ({"cutoff": 0.0}, "cutoff must be"),
        ({"neighbours": -1.0}, "neighbours must be"),
        ({"lmax": 0, "vectors": 1}, "vectors need"),
        ({"dropout": 1.0}, "dropout must lie"),
        ({"bessel": 0}, "at least 1 Bessel"),
        ({"copies": 0}, "at least one"),
        ({"layers": 0}, "at least one"),
        ({"depth": 2}, "no option 'depth'"),
        ({"widths": [IrrepsWidths("4x1o")]}, "needs scalars"),
        ({"widths": [IrrepsWidths("4x0e", 0)]}, "at least one"),
        ({"widths": [IrrepsWidths("scalars")]}, "are no irreps"),
        ({"widths": [IrrepsWidths("4x0e+2x0e")]}, "each irrep once"),
    ],
)
def test_bad_options(keywords, message):
    with pytest.raises(ConfigError, match=message):
        IrrepsNet(FEATURES, **keywords)


def test_bad_input(make_net, make_batch):
    with pytest.raises(DataError, match="3 dimensions, not 2"):
        make_net()(make_batch(4, n=2))
    batch = make_batch(4)
    batch.x = batch.x[:, :3]
    with pytest.raises(DataError, match=r"batch\.x of shape"):
        make_net()(batch)


def test_single_nodes_have_no_edges(make_net, make_batch):
    out = make_net()(make_batch(1, 1))
    assert out.x.isfinite().all() and (out.vec == 0).all()


def test_layers_make_what_they_can_reach():
    net = IrrepsNet(FEATURES, 2, 4, lmax=1)
    made = [parse_irreps(w.irreps) for w in net.widths]
    # nothing leads to 0o in two layers; scalars cannot be made of 0o and 1e, vectors can of 1e
    assert [list(m) for m in made] == [["0e", "1o"], ["0e", "1e", "1o"], ["0e", "1o"], ["0e"]]
    with_vectors = IrrepsNet(FEATURES, 2, 4, lmax=1, vectors=1)
    assert list(parse_irreps(with_vectors.widths[2].irreps)) == ["0e", "1e", "1o"]
