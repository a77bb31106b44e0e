"""e3nn's radial networks in plain layers: the same numbers, and channels that can go."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3
from e3nn.nn import FullyConnectedNet
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.utils import scatter

from egnn_prune import compact, prune
from egnn_prune.adapters import plain_radials
from egnn_prune.errors import ConfigError


class Own(nn.Module):
    """As users write it: a tensor product whose weights a radial network makes."""

    def __init__(self, **options):
        super().__init__()
        self.product = o3.FullyConnectedTensorProduct("4x0e", "0e+1o", "4x0e", shared_weights=False)
        sizes = [6, 16, 16, self.product.weight_numel]
        self.radial = FullyConnectedNet(sizes, torch.nn.functional.silu, **options)
        self.out = o3.Linear("4x0e", "0e")

    def forward(self, batch):
        source, target = batch.edge_index
        away = batch.pos[source] - batch.pos[target]
        harmonics = o3.spherical_harmonics("0e+1o", away, True, "component")
        centres = torch.linspace(0.5, 3.0, 6, dtype=away.dtype)
        weights = self.radial(torch.exp(-((away.norm(dim=1, keepdim=True) - centres) ** 2)))
        h = self.product(batch.x[source], harmonics, weights)
        h = scatter(h, target, 0, len(batch.x))
        return scatter(self.out(h), batch.batch, 0, batch.num_graphs)[:, 0]


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    edges = torch.tensor([[i, j] for i in range(5) for j in range(5) if i != j]).T
    return Batch.from_data_list(
        [
            Data(
                x=torch.randn(5, 4, generator=generator),
                pos=torch.randn(5, 3, generator=generator),
                edge_index=edges,
                y=torch.zeros(1),
            )
            for _ in range(3)
        ]
    )


@pytest.mark.parametrize("options", [{}, {"variance_in": 3, "variance_out": 2}, {"out_act": True}])
def test_the_same_numbers(options, batch):
    torch.manual_seed(0)
    network = Own(**options)
    torch.testing.assert_close(plain_radials(network)(batch), network(batch))
    assert isinstance(network.radial, FullyConnectedNet)  # was not changed


def test_what_is_shared_stays_shared(batch):
    torch.manual_seed(0)
    network = Own()
    network.again = network.radial
    network.more = nn.ModuleList([network.radial])
    plain = plain_radials(network)
    assert isinstance(plain.radial, nn.Sequential) and not isinstance(
        plain.radial, FullyConnectedNet
    )
    assert plain.again is plain.radial is plain.more[0]
    torch.testing.assert_close(plain(batch), network(batch))


def test_hidden_channels_go(batch):
    torch.manual_seed(0)
    network = plain_radials(Own())
    masked = prune(network, "taylor", 0.5, data=[batch]).eval()
    small = compact(masked).eval()
    assert [small.radial[0].out_features, small.radial[2].out_features] != [16, 16]
    assert small.radial[0].out_features + small.radial[2].out_features == 16
    torch.testing.assert_close(small(batch), masked(batch))


def test_what_stays_is_said():
    activated = Own(out_act=True, variance_out=2)
    for nothing in (nn.Linear(2, 2), activated):
        with pytest.raises(ConfigError, match=r"has no e3nn\.nn\.FullyConnectedNet inside"):
            plain_radials(nothing)
