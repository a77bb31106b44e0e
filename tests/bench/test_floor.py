"""The floor: what an EGNN cannot do without, over the rates of a made-up machine."""

from __future__ import annotations

import pytest
import torch

from egnn_prune.bench.ceilings import SQUARE, Ceilings, least_ms
from egnn_prune.bench.work import Product, Work, egnn_work, recorded_work
from egnn_prune.models import EGNN


class Constant(Ceilings):
    """Two GFLOP/s for every product."""

    def gflops(self, product: Product) -> float:
        return 2.0


def test_products_of_one_layer_by_hand():
    network = EGNN(5, 8, 1)
    work = egnn_work(network, nodes=10, edges=100, name="infer")
    edges = 2 * 100 * (8 * 8 + 8 * 8 + 8)  # second edge layer, both of the coordinates
    nodes = 2 * 10 * (5 * 8 + 2 * 8 * 8 + 16 * 8 + 8 * 8)  # embedding, edge_in twice, node network
    assert work.flops == edges + nodes
    assert work.activations == 100 * 24 + 10 * 8 and not work.activation_gradients
    parameters = sum(p.numel() for p in network.parameters())
    assert work.bytes == 4 * 10 * 13 + 16 * 100 + 8 * 10 * 11 + 4 * parameters


def test_gradients_double_for_positions_and_triple_for_weights():
    network = EGNN(5, 8, 2)
    infer, forces, train = (egnn_work(network, 10, 100, p) for p in ("infer", "forces", "train"))
    embedding = 2 * 10 * 5 * 8
    assert forces.flops == 2 * infer.flops - embedding
    assert train.flops == 3 * infer.flops - embedding  # nobody needs the gradient of the input
    assert train.activation_gradients == infer.activations


def test_floor_adds_products_and_activations_and_lets_bytes_move_meanwhile():
    machine = Constant("cpu", silu=0.5, silu_gradient=0.25, copy=10.0)
    work = Work((Product(100, 100, 100),) * 3, 1_000_000, 500_000, 10)
    # 6e6 FLOP at 2 GFLOP/s, 1e6 at 0.5 and 0.5e6 at 0.25 a nanosecond
    assert machine.floor_ms(work) == pytest.approx(3.0 + 2.0 + 2.0)
    assert machine.floor_ms(Work((), bytes=10**9)) == pytest.approx(100.0)
    assert machine.floor_ms(Work((), other_flops=4_000_000)) == pytest.approx(2.0)


def test_a_shape_is_measured_once(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "egnn_prune.bench.ceilings.least_ms", lambda run, device: asked.append(run()) or 1.0
    )
    machine = Ceilings("cpu", silu=1.0, silu_gradient=1.0, copy=1.0)
    product = Product(2048, 4, 8)
    # in a millisecond the whole, or a block of half of the rows: the whole is faster
    assert machine.gflops(product) == pytest.approx(product.flops / 1e6)
    assert [tuple(out.shape) for out in asked] == [(2048, 8), (1024, 8)]
    assert machine.gflops(product) and len(asked) == 2
    assert SQUARE.flops == 2 * 1024 * 256 * 256


def test_work_of_another_network_is_recorded():
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.SiLU(), torch.nn.Linear(4, 2))
    x = torch.randn(10, 3)
    work = recorded_work(lambda: network(x).sum().backward())
    forward = 2 * 10 * (3 * 4 + 4 * 2)
    assert work.other_flops == 2 * forward + 2 * 10 * 4 * 2  # weights, and the hidden layer
    assert (work.activations, work.activation_gradients) == (40, 40)


def test_the_shortest_call_counts():
    assert 0 < least_ms(lambda: torch.ones(3), "cpu") < 1e3
