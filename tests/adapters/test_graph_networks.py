"""PyTorch Geometric's networks and layers: masked equals compact, or one sentence."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torch_geometric.data import Batch, Data

pytest.importorskip("torch_pruning", reason="needs the package torch-pruning")

from egnn_prune import channel_groups, compact, fine_tune, prune
from egnn_prune.errors import ConfigError
from egnn_prune.pruning.calling import call

DEGREES = torch.tensor([0, 1, 2, 5, 8, 10, 8, 3, 2, 1, 1, 1, 1, 1, 1])
PNA = {"aggregators": ["mean", "max", "std"], "scalers": ["identity"], "deg": DEGREES}


def graphs(count=5, features=6, edge_features=0) -> Batch:
    generator = torch.Generator().manual_seed(0)

    def graph(k: int) -> Data:
        n = 4 + k
        edges = torch.randint(0, n, (2, 3 * n), generator=generator)
        edges = torch.cat([edges, edges.flip(0)], 1)[:, edges.repeat(1, 2).diff(dim=0)[0] != 0]
        edges = edges.unique(dim=1)
        data = Data(torch.randn(n, features, generator=generator), edges, y=torch.randn(1))
        if edge_features:
            data.edge_attr = torch.randn(edges.shape[1], edge_features, generator=generator)
        return data

    return Batch.from_data_list([graph(k) for k in range(count)])


class Pooled(nn.Module):
    """What users write: graph convolutions, a sum over nodes, a head; a batch goes in."""

    def __init__(self, *convolutions, edges=False):
        super().__init__()
        self.convolutions, self.edges = nn.ModuleList(convolutions), edges
        self.lower, self.head = pyg.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, batch):
        x, more = batch.x, (batch.edge_attr,) if self.edges else ()
        for convolution in self.convolutions:
            x = torch.relu(convolution(x, batch.edge_index, *more))
        x = pyg.global_add_pool(x, batch.batch, batch.num_graphs)
        return self.head(torch.relu(self.lower(x)))[:, 0]


def mlp(before):
    return nn.Sequential(nn.Linear(before, 8), nn.ReLU(), nn.Linear(8, 8))


def pair(convolution, **options):
    return lambda: Pooled(convolution(6, 8, **options), convolution(8, 8, **options))


def heads(convolution, **options):
    edges = "edge_dim" in options
    return lambda: Pooled(
        convolution(6, 4, heads=2, **options), convolution(8, 4, heads=2, **options), edges=edges
    )


#: Layers by whether the convolutions themselves get narrower, or only the head does.
LAYERS = {
    "GCNConv": (pair(pyg.GCNConv), True),
    "SAGEConv": (pair(pyg.SAGEConv), True),
    "SAGEConv, projected": (pair(pyg.SAGEConv, aggr="max", project=True), True),
    "GINConv": (lambda: Pooled(pyg.GINConv(mlp(6)), pyg.GINConv(mlp(8))), True),
    "GATConv": (pair(pyg.GATConv), True),
    "GATConv, 2 heads": (heads(pyg.GATConv), True),
    "GATConv, edges": (heads(pyg.GATConv, edge_dim=3), True),
    "SuperGATConv": (heads(pyg.SuperGATConv), True),
    "ResGatedGraphConv": (pair(pyg.ResGatedGraphConv), True),
    "GraphConv": (pair(pyg.GraphConv), True),
    "SGConv": (pair(pyg.SGConv), True),
    "EdgeConv": (lambda: Pooled(pyg.EdgeConv(mlp(12)), pyg.EdgeConv(mlp(16))), True),
    "LEConv": (pair(pyg.LEConv), True),
    "ClusterGCNConv": (pair(pyg.ClusterGCNConv), True),
    "GENConv": (pair(pyg.GENConv), True),
    "PNAConv": (pair(pyg.PNAConv, **PNA), True),
    "GATConv, mean of heads": (pair(pyg.GATConv, heads=2, concat=False), False),
    "GATv2Conv": (heads(pyg.GATv2Conv), False),
    "TransformerConv": (pair(pyg.TransformerConv), False),
    "TAGConv": (pair(pyg.TAGConv), False),
    "ChebConv": (pair(pyg.ChebConv, K=3), False),
    "GatedGraphConv": (lambda: Pooled(pyg.GCNConv(6, 8), pyg.GatedGraphConv(8, 2)), False),
}
NETWORKS = {
    "GCN": (pyg.GCN, {}),
    "GCN with batch norm": (pyg.GCN, {"norm": "batch_norm"}),
    "GCN, joined": (pyg.GCN, {"jk": "cat"}),
    "GIN": (pyg.GIN, {}),
    "GAT": (pyg.GAT, {}),
    "GAT, 2 heads": (pyg.GAT, {"heads": 2}),
    "GraphSAGE": (pyg.GraphSAGE, {}),
    "EdgeCNN": (pyg.EdgeCNN, {}),
    "PNA": (pyg.PNA, PNA),
}


def agree(network, data, dtype, criterion="taylor"):
    pruned = prune(network, criterion, 0.4, data=data, scope="group").eval()
    small = compact(pruned).eval()
    assert type(small) is type(network)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in network.parameters())
    inputs = data[0][0] if isinstance(data[0], tuple) else data[0]
    with torch.no_grad():
        masked, tolerance = call(pruned, inputs), 1e-10 if dtype == torch.float64 else 1e-4
        assert (call(small, inputs) - masked).abs().max() <= tolerance * masked.abs().max()
    return pruned


def cast(batch, dtype):
    return batch.clone().apply(lambda t: t.to(dtype) if t.is_floating_point() else t)


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, dtype):
    torch.manual_seed(0)
    make, narrower = LAYERS[name]
    network = make().to(dtype)
    batch = cast(graphs(edge_features=3 if network.edges else 0), dtype)
    pruned = agree(network, [batch], dtype)
    names = [g.name for g in pruned.channel_groups()]
    assert "lower" in names
    assert any(n.startswith("convolutions") for n in names) == narrower
    if not narrower:
        assert any(k.startswith("convolutions") for k in pruned.skipped)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, dtype):
    """``forward(x, edge_index)``: a batch gives both by name, or a tuple is spread out."""
    torch.manual_seed(0)
    kind, options = NETWORKS[name]
    network = kind(6, 8, 3, 1, **options).to(dtype)
    batch = cast(graphs(), dtype)
    batch.y = torch.randn(len(batch.x), 1).to(dtype)  # a target for each node
    agree(network, [batch], dtype)
    agree(network, [((batch.x, batch.edge_index), batch.y)], dtype, "magnitude")


def test_a_batch_gives_what_it_has_of_optional_arguments(dtype):
    batch = cast(graphs(edge_features=3), dtype)
    batch.edge_weight = torch.rand(batch.num_edges, dtype=dtype)
    network = pyg.GCN(6, 8, 2, 1).to(dtype).eval()
    expected = network(batch.x, batch.edge_index, batch.edge_weight)
    assert torch.equal(call(network, batch), expected)
    network = pyg.GAT(6, 8, 2, 1, edge_dim=3).to(dtype).eval()
    expected = network(batch.x, batch.edge_index, edge_attr=batch.edge_attr)
    assert torch.equal(call(network, batch), expected)
    network = pyg.GAT(6, 8, 2, 1).to(dtype).eval()  # built for no edge features, which it refuses
    assert torch.equal(call(network, batch), network(batch.x, batch.edge_index))


def test_a_required_argument_that_a_batch_lacks():
    class Placed(nn.Module):
        def forward(self, x, pos, batch):
            return pyg.global_add_pool(x, batch)

    with pytest.raises(ConfigError, match=r"Placed\.forward needs pos, but the batch") as caught:
        call(Placed(), graphs())
    assert "\n" not in str(caught.value)
    assert len(call(Placed(), Data(torch.ones(3, 2), pos=torch.zeros(3, 3)))) == 1


def test_what_cannot_be_pruned_says_why():
    batch = graphs()
    for options, words in (({"norm": "layer_norm"}, "mixes its channels"), ({"jk": "lstm"}, "jk")):
        with pytest.raises(ConfigError, match=words):
            prune(pyg.GCN(6, 8, 3, 1, **options), "magnitude", 0.4, data=[batch])


def test_the_table_says_how_much_of_a_network_it_is_about():
    """Heads that are averaged stay, and with them nearly all of this network."""
    torch.manual_seed(0)
    network, batch = pair(pyg.GATConv, heads=2, concat=False)(), graphs()
    weights = {n: p.numel() for n, p in network.named_parameters()}
    shrink = sum(weights[n] for n in weights if n.startswith(("lower", "head")))
    shrink -= weights["head.bias"]
    table = str(channel_groups(network, batch))
    assert f"hold {shrink / sum(weights.values()):.0%} of the weights" in table
    assert "left as it is: convolutions.0.lin (an operation mixes its channels" in table
    assert "what the network returns" not in table


def test_every_way_to_hand_a_batch_over_comes_to_the_same():
    torch.manual_seed(0)
    network, batch = pair(pyg.GCNConv)(), graphs()
    ways = [batch, (batch, batch.y), ((batch,), batch.y)]
    results = [prune(network, "taylor", 0.4, data=[way])(batch) for way in ways]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    tuned = fine_tune(prune(network, "taylor", 0.4, data=[batch]), [batch], steps=2, device="cpu")
    assert torch.isfinite(fine_tune(compact(tuned), [batch], steps=2, device="cpu")(batch)).all()


def on_edges() -> nn.Module:
    return Pooled(pyg.EdgeConv(mlp(12)), pyg.EdgeConv(mlp(16)))


class OwnEGCL(pyg.MessagePassing):
    """As users write an EGNN's layer: a message is summed at nodes and weighs edges, too."""

    def __init__(self, before, width):
        super().__init__(aggr="add")
        self.message_mlp = nn.Sequential(nn.Linear(2 * before + 1, width), nn.SiLU(), mlp(width))
        self.node_mlp, self.weight = mlp(before + 8), nn.Linear(8, 1)

    def forward(self, h, pos, edge_index):
        source, target = edge_index
        away = pos[target] - pos[source]
        squares = away.square().sum(1, keepdim=True)
        m = self.message_mlp(torch.cat([h[target], h[source], squares], 1))
        size = (len(h), len(h))
        moved = self.propagate(edge_index, m=away * torch.tanh(self.weight(m)), size=size)
        summed = self.propagate(edge_index, m=m, size=size)
        return self.node_mlp(torch.cat([h, summed], 1)), pos + moved

    def message(self, m):
        return m


class OwnEGNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([OwnEGCL(6, 8), OwnEGCL(8, 8)])
        self.lower, self.head = nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, batch):
        h, pos = batch.x, torch.cat([batch.x[:, :3]])
        for layer in self.layers:
            h, pos = layer(h, pos, batch.edge_index)
        x = pyg.global_add_pool(h, batch.batch, batch.num_graphs)
        return self.head(torch.relu(self.lower(x)))[:, 0]


class Recurring(nn.Module):
    """One layer, called again and again, whose channels the head reads after the pooling."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.head = nn.Linear(6, 8), pyg.GCNConv(8, 8), nn.Linear(8, 1)

    def forward(self, batch):
        x = self.first(batch.x)
        for _ in range(3):
            x = x + torch.relu(self.again(x, batch.edge_index))
        return self.head(pyg.global_add_pool(x, batch.batch, batch.num_graphs))[:, 0]


@pytest.mark.parametrize("make", [OwnEGNN, Recurring])
def test_readers_of_different_rows(make, dtype):
    """Messages are read at nodes and along edges, a stream at nodes and, pooled, of graphs."""
    torch.manual_seed(0)
    pruned = agree(make().to(dtype), [cast(graphs(), dtype)], dtype)
    assert any("," in kind for kind in pruned.kinds.values())
    assert all(g.gate for g in pruned.channel_groups())


MANY = {"nodes": pair(pyg.GCNConv), "edges": on_edges, "both": OwnEGNN, "recurring": Recurring}


@pytest.mark.parametrize("make", MANY.values(), ids=MANY)
def test_a_closed_gate_is_a_channel_removed_for_that_graph(make):
    """Whichever rows a layer sees, each belongs to its graph."""
    torch.manual_seed(0)
    model = prune(make().double(), "random", 0.0, data=[cast(graphs(), torch.double)])
    model, batch = model.eval(), cast(graphs(), torch.double)
    dense = model(batch)
    for group in model.channel_groups():
        gate = model.get_submodule(group.gate)
        gate.opened = torch.ones(5, group.n, dtype=torch.double)
        torch.testing.assert_close(model(batch), dense)
        gate.opened[2, 1:] = 0.0
        changed = (model(batch) - dense).abs() > 1e-9
        gate.opened = None
        assert changed.tolist() == [False, False, True, False, False], group.name


def test_targets_that_do_not_fit():
    network, batch = pair(pyg.GCNConv)(), graphs()
    batch.y = batch.y[:3]
    with pytest.raises(ConfigError, match="3 targets for 5 outputs"):
        prune(network, "taylor", 0.4, data=[batch])
    batch.y = None
    with pytest.raises(ConfigError, match="no targets y"):
        prune(network, "taylor", 0.4, data=[batch])
