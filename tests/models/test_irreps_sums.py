"""Sums over neighbours in blocks: equal to the plain sums, to rounding, in all derivatives."""

from dataclasses import replace

import pytest
import torch
from torch_geometric.data import Batch, Data

from egnn_prune.models import IrrepsNet
from egnn_prune.models import irreps_product as product_module
from egnn_prune.models.irreps_edges import IrrepsEdges
from egnn_prune.models.irreps_paths import Couplings
from egnn_prune.models.irreps_terms import Terms
from egnn_prune.models.neighbour_rows import neighbour_rows

NODES = 9
#: Sources, targets: sorted by neither; nodes 0 and 5 have no neighbours.
LISTS = {
    "none": [],
    "one": [(3, 4)],
    "few": [(1, 2), (2, 1), (0, 2), (4, 3), (5, 3), (0, 3), (3, 8)],
    "many": [(i, j) for j in (7, 1, 2, 3, 4, 6, 8) for i in range(NODES) if (i + j) % 3],
}


@pytest.fixture
def layer():
    """A layer with both parities, whose sources do not all take part in every path."""
    torch.manual_seed(0)
    net = IrrepsNet(3, copies=4, layers=4, lmax=2, vectors=1, radial=5).double()
    return net.layers[2]


def parts(layer, edges, rows, requires_grad=True):
    """Edges, and the tensors that their sums depend on."""
    torch.manual_seed(1)
    index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T
    couplings = Couplings(path.orders for path in layer.paths)

    def leaf(*shape):
        return torch.randn(*shape, dtype=torch.float64).requires_grad_(requires_grad)

    hidden, harmonics = leaf(index.shape[1], 5), leaf(index.shape[1], 9)
    weight = leaf(layer.terms.width, 5)
    features = {
        ir: leaf(NODES, 2 * int(ir[0]) + 1, n)
        for ir, n in layer.copies.items()
        if any(ir in order.sources for order in layer.terms.orders)
    }
    graph = torch.zeros(NODES, dtype=torch.long)
    shared = IrrepsEdges.of(index, graph, hidden, harmonics, couplings)
    shared = shared if rows else replace(shared, rows=None)
    return shared, hidden, weight, features, [hidden, harmonics, weight, *features.values()]


def derivatives(layer, edges, rows, second):
    """Sums, their slopes by everything, and slopes of the slopes."""
    shared, hidden, weight, features, leaves = parts(layer, edges, rows)
    # not the leaves themselves: as in a network, where torch tells what is asked for
    found = shared.summed(layer.terms, hidden * 1, weight * 1, features, False)
    assert list(found) == layer.terms.paths
    values = list(found.values())
    total = sum((value.sin() * (1 + k)).sum() for k, value in enumerate(values))
    slopes = torch.autograd.grad(total, leaves, create_graph=second, materialize_grads=True)
    if not second:
        return values, slopes
    again = sum(slope.square().sum() for slope in slopes)
    return values, slopes, torch.autograd.grad(again, leaves, materialize_grads=True)


@pytest.mark.parametrize("edges", LISTS.values(), ids=LISTS)
@pytest.mark.parametrize("second", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("cache", [1, 2**21], ids=["many blocks", "one block"])
def test_equal_to_messages_on_edges(layer, edges, second, cache, monkeypatch):
    monkeypatch.setattr(product_module, "CACHE", cache)
    expected = derivatives(layer, edges, False, second)
    for found, wanted in zip(derivatives(layer, edges, True, second), expected, strict=True):
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_only_what_is_asked_for(layer):
    """Slopes of some inputs alone, as forces ask for them."""
    slopes = []
    for rows in (True, False):
        shared, hidden, weight, features, leaves = parts(layer, LISTS["many"], rows)
        values = shared.summed(layer.terms, hidden * 1, weight * 1, features, False).values()
        total = sum(value.sin().sum() for value in values)
        slopes.append(torch.autograd.grad(total, leaves[:2]))
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("edges", LISTS.values(), ids=LISTS)
def test_every_edge_has_one_row_that_counts(edges):
    source, target = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T
    rows = neighbour_rows(source, target, NODES)
    values = torch.arange(1.0, len(edges) + 1)[:, None]
    spread = rows.spread(values)
    assert spread.sum() == values.sum()
    assert torch.equal(spread[rows.row], values)
    assert torch.equal(rows.source, source[rows.edge])
    order = rows.place.argsort()
    sums = torch.zeros(NODES, 1)
    for block in rows.blocks(1):  # one node after another
        assert block.rows.stop - block.rows.start == block.degree
        sums[order[block.nodes]] = spread[block.rows].sum(0)
    assert torch.equal(sums, torch.zeros(NODES, 1).index_add(0, target, values))


def test_little_padding():
    """Nodes of very different numbers of neighbours do not share a number of rows."""
    torch.manual_seed(0)
    degree = torch.cat([torch.randint(3, 30, (500,)), torch.tensor([400])])
    target = torch.repeat_interleave(degree)
    rows = neighbour_rows(torch.zeros_like(target), target, len(degree))
    assert len(target) <= len(rows.edge) < 1.08 * len(target)
    assert len(rows.groups) > 3


def test_terms_of_sources_apart():
    """A term reads sources side by side; those with a gap between them are two terms."""
    paths = [p for p in IrrepsNet(3, 2, 3, lmax=1, vectors=1).layers[1].paths]
    terms = Terms.of(paths, {path.source: 2 for path in paths})
    assert sorted(map(str, terms.paths)) == sorted(map(str, paths))
    assert terms.width == 2 * len(paths)


def test_network_without_gradients_and_with(monkeypatch):
    """Energies are the same whether or not torch records, and slopes do not touch the inputs."""
    torch.manual_seed(0)
    graphs = [
        Data(x=torch.randn(n, 3), pos=torch.randn(n, 3) * 1.5, edge_index=None) for n in (5, 1, 7)
    ]
    net, batch = IrrepsNet(3, copies=4, layers=3, lmax=2).eval(), Batch.from_data_list(graphs)
    with torch.no_grad():
        expected = net(batch).x
    batch.pos.requires_grad_(True)
    found = net(batch).x
    torch.testing.assert_close(found, expected)
    first, second = (torch.autograd.grad(net(batch).x.sum(), batch.pos)[0] for _ in range(2))
    torch.testing.assert_close(first, second)
