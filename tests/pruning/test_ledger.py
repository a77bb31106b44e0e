"""The ledger adds up, and multiply-accumulates agree with a count by hand."""

from __future__ import annotations

import pytest
import torch
from slow_cases import slow_but
from torch import nn

from egnn_prune.adapters.traced import TracedNetwork
from egnn_prune.pruning import apply_masks, choose, compact, count_macs, latency_of, ledger
from egnn_prune.pruning.freezing import freeze
from egnn_prune.pruning.ledger import layer_names
from egnn_prune.pruning.memory import peak_memory
from egnn_prune.uncertainty import mc_dropout


def size(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("mode", ["pruned", "message_passing", "important"])
@pytest.mark.parametrize("sparsity", slow_but([0.0, 0.3, 0.7], 0.3))
def test_adds_up(make_property_model, make_batch, mode, sparsity):
    model, batch = make_property_model(hidden=9, layers=3, attention=True), make_batch(2, 4)
    dense = size(model)
    generator = torch.Generator().manual_seed(0)
    scores = {g.name: torch.rand(g.n, generator=generator) for g in model.channel_groups()}
    keep = choose(scores, sparsity)
    apply_masks(model, keep)
    freeze(model, mode, scores=scores, keep=keep)
    small = compact(model)
    rows = ledger(model, small, lambda m: m(batch))
    for row in rows:
        assert row["total"] == row["pruned"] + row["frozen"] + row["trainable"]
        removed = size(model.get_submodule(row["layer"])) - size(small.get_submodule(row["layer"]))
        assert row["pruned"] == removed, row["layer"]
        assert row["macs_pruned"] <= row["macs_dense"]
    assert sum(r["total"] for r in rows) == dense
    assert sum(r["pruned"] for r in rows) == dense - size(small)
    assert [r["layer"] for r in rows] == [
        "trunk.embedding",
        *(f"trunk.layers.{i}" for i in range(3)),
        "head",
    ]
    for key, m in (("macs_dense", model), ("macs_pruned", small)):
        assert sum(r[key] for r in rows) == count_macs(m, lambda m: m(batch))[""]
    head = rows[-1]
    if mode == "message_passing":
        assert head["frozen"] == 0 and sum(r["trainable"] for r in rows[:-1]) == 0
    if mode == "pruned":
        assert sum(r["frozen"] for r in rows) == 0


def test_macs_of_a_small_stack(dtype):
    model = nn.Sequential(nn.Linear(5, 7), nn.SiLU(), nn.Linear(7, 3)).to(dtype)
    macs = count_macs(model, lambda m: m(torch.zeros(4, 5, dtype=dtype)), ["0", "2"])
    assert macs == {"": 4 * (5 * 7 + 7 * 3), "0": 4 * 5 * 7, "2": 4 * 7 * 3}


def layer_macs(layer, nodes, edges):
    """The linear maps of an EGNN layer; the first is applied to nodes, not to edges."""
    s, w, options = layer.stream, layer.widths, layer.options
    per_edge = layer.radial.size + options.edge_features
    total = nodes * 2 * s * w.edge + edges * w.edge * w.message
    total += edges * per_edge * w.edge if per_edge > 1 else 0  # one column is no matrix product
    total += edges * w.message if options.attention else 0
    if layer.moves:
        total += edges * (w.message * w.position + w.position)
        total += nodes * (s * w.velocity + w.velocity) if options.velocity else 0
    return total + nodes * ((s + w.message) * w.node + w.node * s)


@pytest.mark.parametrize(
    "options",
    [{}, {"attention": True, "velocity": True, "edge_features": 2, "radial": 4}],
    ids=["paper", "everything"],
)
def test_macs_of_an_egnn(make_egnn, make_batch, options):
    model = make_egnn(hidden=8, layers=2, **options)
    batch = make_batch(3, 5, edge_features=options.get("edge_features", 0))
    nodes, edges = 8, 3 * 2 + 5 * 4
    scores = {g.name: torch.rand(g.n) for g in model.channel_groups()}
    apply_masks(model, choose(scores, 0.4))
    for m in (model, compact(model)):
        macs = count_macs(m, lambda m: m(batch), ["embedding", "layers.0", "layers.1"])
        for i in range(2):
            assert macs[f"layers.{i}"] == layer_macs(m.layers[i], nodes, edges)
        assert macs["embedding"] == nodes * 5 * m.hidden
        assert macs[""] == sum(v for k, v in macs.items() if k)


def test_counting_keeps_the_mode(make_egnn, make_batch):
    model = make_egnn().train()
    count_macs(model, lambda m: m(make_batch(3)))
    assert model.training


def test_measuring_keeps_the_mode_of_every_module(make_property_model, make_batch):
    model, batch = make_property_model(dropout=0.2).train(), make_batch(3)
    model.head.eval()
    before = [m.training for m in model.modules()]

    def run(m):
        return m(batch)

    count_macs(model, run)
    peak_memory(model, run)
    latency_of(run, repeats=1)(model)
    mc_dropout(model, batch, 2)
    assert [m.training for m in model.modules()] == before


def test_a_wrapper_is_no_row():
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    model = TracedNetwork(network, torch.randn(2, 4))
    assert layer_names(model) == ["network.0", "network.2"]
    rows = ledger(model, model, lambda m: m(torch.randn(2, 4)))
    assert [r["macs_dense"] for r in rows] == [2 * 4 * 6, 2 * 6 * 2]
