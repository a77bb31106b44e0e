"""What the networks under a read-out share: options, checks, edges, and a description in JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Self

from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from egnn_prune.channels import Prunable
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.graphs import edge_vectors, must_check, warn_of_coincident_points, with_edges


class Trunk(Prunable):
    """A message-passing network: ``x [N, in_features]`` in, invariant ``x [N, hidden]`` out."""

    Options: ClassVar[type[Any]]
    Widths: ClassVar[type[Any]]
    #: The constructor's argument for the width of the embedding.
    WIDTH: ClassVar[str]
    embedding: nn.Linear
    hidden: int
    options: Any
    widths: Sequence[Any]

    def __init__(self, in_features: int, options: Any, keywords: Mapping[str, object]) -> None:
        super().__init__()
        if options is not None and keywords:
            raise ConfigError("give either options or keyword arguments, not both")
        for name in keywords:
            if name not in self.Options.__dataclass_fields__:
                raise ConfigError(f"{type(self).__name__} has no option {name!r}")
        self.in_features, self.options = in_features, options or self.Options(**keywords)

    def resized(self, keep: dict[str, Tensor]) -> Trunk:
        """A new network with only the channels ``keep[group name]`` (indices)."""
        raise NotImplementedError

    def check(self, batch: Batch | Data) -> None:
        """Refuse a batch that this network cannot use."""
        raise NotImplementedError

    def connected(self, batch: Batch | Data) -> Batch | Data:
        """The batch, checked, with its edges."""
        if must_check():
            self.check(batch)
        batch = with_edges(batch, self.options.cutoff)
        if must_check():
            warn_of_coincident_points(
                edge_vectors(batch.pos, batch.edge_index, batch.get("edge_shift"))
            )
        return batch

    def config(self) -> dict[str, object]:
        """What :meth:`from_architecture` needs to build this network again, as plain JSON."""
        return {
            "in_features": self.in_features,
            self.WIDTH: self.embedding.out_features,
            "options": asdict(self.options),
            "widths": [asdict(w) for w in self.widths],
        }

    @classmethod
    def from_config(cls, spec: dict[str, Any]) -> Self:
        """Build the network that :meth:`config` described (weights not loaded)."""
        build: Any = cls
        return build(
            spec["in_features"],
            options=cls.Options(**spec["options"]),
            widths=[cls.Widths(**w) for w in spec["widths"]],
            **{cls.WIDTH: spec[cls.WIDTH]},
        )


def check_field(batch: Batch | Data, name: str, shape: tuple[int, ...]) -> None:
    """Raise a DataError unless the batch has a field of this shape."""
    value = getattr(batch, name, None)
    if value is None or tuple(value.shape) != shape:
        found = "there is none" if value is None else f"not {tuple(value.shape)}"
        raise DataError(f"this network reads batch.{name} of shape {shape}, {found}")
