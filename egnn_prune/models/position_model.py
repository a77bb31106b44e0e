"""A network that says where every node will be, with an error bar."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data

from egnn_prune.channels import ChannelGate, ChannelGroup, linear_members
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.graphs import check_graphs, graph_of_node, has_values, replicate, with_edges
from egnn_prune.models.egnn import EGNN
from egnn_prune.models.egnn_layer import EGNNOptions
from egnn_prune.models.heads import MIN_VARIANCE
from egnn_prune.prediction import Prediction, Predictor


class PositionModel(Predictor):
    r"""Predicts the future position of every node (Satorras et al. 2021, Section 5.1).

    The mean is the position :math:`x_i^L` that the last layer of an EGNN leaves the node at. Its
    variance is read from the node's invariant features, so it is the same along every axis:

    .. math::
        \mu_i = x_i^L, \qquad
        \sigma_i^2 = s^2 \left[\text{softplus}(b \cdot \text{SiLU}(W h_i) + \beta) + 10^{-6}\right]

    The mean turns and moves with the graph, the variances do not change. Pruned, saved and
    calibrated like a :class:`~egnn_prune.models.PropertyModel`.

    Args:
        trunk: an EGNN that updates positions.
        hidden: width of the variance's read-out.
        dropout: probability that one of its channels is dropped.
        scale: s, the typical length of a displacement, in the unit of the positions.

    Raises:
        ConfigError: the trunk does not move nodes, or a number is out of range.

    Shapes:
        batch with ``x [N, f]`` and ``pos [N, n]`` -> :class:`Prediction` of ``[N, n]``.
    """

    def __init__(
        self, trunk: EGNN, hidden: int = 64, dropout: float = 0.0, scale: float = 1.0
    ) -> None:
        super().__init__()
        if not trunk.options.update_positions or not trunk.widths[-1].position:
            raise ConfigError("a network that predicts positions needs update_positions=True")
        if hidden < 1 or not 0 <= dropout < 1 or not scale > 0:
            raise ConfigError(
                f"hidden ({hidden}) must be at least 1, dropout ({dropout}) in [0, 1) and scale "
                f"({scale}) positive"
            )
        self.trunk, self.scale = trunk, scale
        self.variance_in = nn.Linear(trunk.hidden, hidden)
        self.gate = ChannelGate(hidden, dropout)
        self.variance_out = nn.Linear(hidden, 1)

    @classmethod
    def build(
        cls,
        in_features: int,
        *,
        hidden: int = 64,
        layers: int = 4,
        readout_dropout: float = 0.0,
        options: EGNNOptions | None = None,
        scale: float = 1.0,
    ) -> PositionModel:
        """A fresh EGNN of uniform width.

        Args:
            in_features: width of ``batch.x``.
            hidden: width of every part.
            layers: message-passing layers.
            readout_dropout: of the variance's read-out.
            options: what the trunk computes.
            scale: the typical length of a displacement.
        """
        trunk = EGNN(in_features, hidden, layers, options=options)
        return cls(trunk, hidden, readout_dropout, scale)

    def forward(self, batch: Batch | Data, samples: int = 1) -> Prediction:
        """Predict positions in their own unit, in float64.

        Raises:
            DataError: the batch cannot be used.
        """
        means, variances = self.normalised(batch, samples)
        means = means.double() * self.scale + batch.pos.double()
        return Prediction.from_members(means, variances.double() * self.scale**2)

    def normalised(self, batch: Batch | Data, samples: int = 1) -> tuple[Tensor, Tensor]:
        """Members' displacements and variances in units of the scale, each ``[M, N, n]``."""
        batch = self.prepared(batch)
        nodes, n = batch.pos.shape
        out = self.trunk(replicate(batch, samples))
        moved = (out.pos - batch.pos.repeat(samples, 1)).to(out.x.dtype) / self.scale
        # in training the variance learns from the features and does not shape them: its likelihood
        # would trade the accuracy of the mean for its own (Stirn et al. 2023, Section 4)
        features = out.x.detach() if self.training else out.x
        hidden = self.gate(F.silu(self.variance_in(features)), graph_of_node(out))
        variance = F.softplus(self.variance_out(hidden)) + MIN_VARIANCE
        return moved.view(samples, nodes, n), variance.view(samples, nodes, 1).expand(-1, -1, n)

    def normalise(self, batch: Batch | Data, y: Tensor | None) -> Tensor:
        """Targets as displacements ``[N, n]`` in units of the scale, in the network's precision.

        Raises:
            DataError: there is not one target for each node.
        """
        if y is None or y.shape != batch.pos.shape:
            found = "there is none" if y is None else f"not {tuple(y.shape)}"
            raise DataError(
                f"training needs targets in batch.y of shape {tuple(batch.pos.shape)}, {found}"
            )
        moved = (y.double() - batch.pos.double()) / self.scale
        return moved.to(self.variance_out.weight.dtype)

    def reference(self, batch: Batch | Data) -> Tensor:
        """What would be predicted without a network: that nothing moves, ``[N, n]``."""
        return batch.pos.double()

    def prepared(self, batch: Batch | Data) -> Batch | Data:
        """The batch, checked, with edges and in the network's precision."""
        if has_values():
            check_graphs(batch)
        if getattr(batch, "x", None) is None:
            raise DataError("this network reads node features in batch.x, and there are none")
        dtype = self.variance_out.weight.dtype
        batch = with_edges(batch, self.trunk.options.cutoff)
        if batch.x.dtype != dtype:
            batch = batch.clone()
            for name in ("x", "vel", "edge_attr"):
                if getattr(batch, name, None) is not None:
                    batch[name] = batch[name].to(dtype)
        return batch

    def channel_groups(self) -> list[ChannelGroup]:
        """The trunk's groups; the read-out shrinks with what it reads and is not pruned itself."""
        stream, *inner = [g.prefixed("trunk") for g in self.trunk.channel_groups()]
        members = (*stream.members, *linear_members("variance_in", self.trunk.hidden))
        return [replace(stream, members=members), *inner]

    def message_passing_modules(self) -> list[str]:
        """The submodules that freezing message passing locks: all but the read-out."""
        return ["trunk"]

    def resized(self, keep: dict[str, Tensor]) -> PositionModel:
        """A new model with ``len(keep[group])`` channels in each group (weights not copied)."""
        trunk = self.trunk.resized({k.removeprefix("trunk."): v for k, v in keep.items()})
        return PositionModel(trunk, self.variance_in.out_features, self.gate.p, self.scale)

    def config(self) -> dict[str, object]:
        """What :meth:`from_architecture` needs to build this model again, as plain JSON."""
        return {
            "trunk": self.trunk.config(),
            "hidden": self.variance_in.out_features,
            "dropout": self.gate.p,
            "scale": self.scale,
        }

    @classmethod
    def from_config(cls, spec: dict) -> PositionModel:
        """Build the model that :meth:`config` described (weights not loaded)."""
        trunk = EGNN.from_config(spec["trunk"])
        return cls(trunk, spec["hidden"], spec["dropout"], spec["scale"])
