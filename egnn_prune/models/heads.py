"""Read-outs: from node features to members' means and variances, per graph or per node."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.utils import scatter

from egnn_prune.channels import ChannelGate, Member, linear_members
from egnn_prune.errors import ConfigError

#: Smallest variance (in units of the target's variance) that a head can state.
MIN_VARIANCE = 1e-6


class MeanVarianceHead(nn.Module):
    r"""A two-layer read-out with ``members`` outputs of a mean and a variance each.

    .. math::
        u_i = \text{SiLU}(W h_i + b), \qquad
        \mu_{mg} = \text{pool}_{i \in g}\, (a_m \cdot u_i + \alpha_m), \qquad
        \sigma^2_{mg} = \text{softplus}(\text{mean}_{i \in g}(b_m \cdot u_i + \beta_m)) + 10^{-6}

    Several members that share the trunk are a *shallow ensemble* (Kellner and Ceriotti 2024). The
    mean and variance outputs are those of Nix and Weigend 1994.

    Args:
        features: width of the node features.
        hidden: width of the read-out.
        members: number of outputs.
        pool: ``"sum"`` for extensive targets, ``"mean"`` for intensive ones, ``"node"`` for one
            output per node.
        dropout: probability that a read-out channel is dropped.

    Shapes:
        ``x [N, features]``, ``graph [N]`` -> means and variances, each ``[members, graphs or N]``.
    """

    def __init__(
        self, features: int, hidden: int, members: int = 1, pool: str = "sum", dropout: float = 0.0
    ) -> None:
        super().__init__()
        if pool not in ("sum", "mean", "node"):
            raise ConfigError(f"pool must be 'sum', 'mean' or 'node', not {pool!r}")
        if members < 1 or hidden < 1:
            raise ConfigError("a head needs at least one member and one hidden channel")
        if not 0 <= dropout < 1:
            raise ConfigError(f"read-out dropout must lie in [0, 1), not {dropout}")
        self.features, self.members, self.pool = features, members, pool
        self.lin_in = nn.Linear(features, hidden)
        self.gate = ChannelGate(hidden, dropout)
        self.mean_out = nn.Linear(hidden, members)
        self.variance_out = nn.Linear(hidden, members)

    def forward(
        self, x: Tensor, graph: Tensor, graphs: int, samples: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Read out, ``samples`` thinned read-outs side by side where there are several.

        Args:
            x: ``[N, features]``.
            graph: ``[N]``, the graph of each node.
            graphs: the number of graphs.
            samples: number of thinning masks that the gate holds; outputs are for
                ``samples * graphs`` graphs.
        """
        return self.outputs(self.hidden(x, graph, graphs, samples), graph, graphs, samples)

    def hidden(self, x: Tensor, graph: Tensor, graphs: int, samples: int = 1) -> Tensor:
        """What the outputs are linear in, ``u [samples * N, hidden]``."""
        hidden = F.silu(self.lin_in(x))
        if samples > 1:
            hidden = hidden.repeat(samples, 1)
            graph = copies_of(graph, graphs, samples)
        return self.gate(hidden, graph)

    def outputs(
        self, hidden: Tensor, graph: Tensor, graphs: int, samples: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Means and variances from ``hidden``, each ``[members, samples * (graphs or N)]``."""
        mean, raw = self.mean_out(hidden), self.variance_out(hidden)
        if self.pool != "node":
            index, size = copies_of(graph, graphs, samples), graphs * samples
            mean = scatter(mean, index, dim=0, dim_size=size, reduce=self.pool)
            raw = scatter(raw, index, dim=0, dim_size=size, reduce="mean")
        return mean.T, (F.softplus(raw) + MIN_VARIANCE).T

    def pooled(self, hidden: Tensor, graph: Tensor, graphs: int) -> Tensor:
        """Features ``[B, hidden + 1]`` that the mean is linear in, the last one for the bias."""
        features = torch.cat([hidden, torch.ones_like(hidden[:, :1])], dim=1)
        if self.pool == "node":
            return features
        return scatter(features, graph, dim=0, dim_size=graphs, reduce=self.pool)

    def weights(self) -> Tensor:
        """The weights on :meth:`pooled` features, averaged over the members, ``[hidden + 1]``."""
        return torch.cat([self.mean_out.weight.mean(0), self.mean_out.bias.mean()[None]])

    def stream_members(self) -> list[Member]:
        """The tensor that shrinks with the node features."""
        return linear_members("lin_in", self.features)

    def config(self) -> dict[str, object]:
        """Constructor arguments, as plain JSON."""
        return {
            "features": self.features,
            "hidden": self.lin_in.out_features,
            "members": self.members,
            "pool": self.pool,
            "dropout": self.gate.p,
        }


def copies_of(graph: Tensor, graphs: int, samples: int) -> Tensor:
    """The graph of each node in ``samples`` copies of a batch, ``[samples * N]``."""
    if samples == 1:
        return graph
    shift = graphs * torch.arange(samples, device=graph.device)
    return graph.repeat(samples) + shift.repeat_interleave(len(graph))


def split_samples(x: Tensor, samples: int) -> Tensor:
    """``[members, samples * B] -> [samples * members, B]``: copies of a batch become members."""
    members = x.shape[0]
    return torch.stack(x.view(members, samples, -1).unbind(1)).flatten(0, 1)
