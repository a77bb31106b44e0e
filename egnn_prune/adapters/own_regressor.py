"""Somebody else's network of one number a graph, as uncertainty methods want one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from egnn_prune.adapters.dependency import is_graph_linear
from egnn_prune.channels import evaluating
from egnn_prune.errors import ConfigError
from egnn_prune.prediction import Prediction
from egnn_prune.pruning.calling import call, rows

#: Where e3nn keeps ``o3.Linear``.
E3NN_LINEAR = ("e3nn.o3._linear", "Linear")
#: Largest share of the outputs' size by which what follows the last layer may not be linear.
TOLERANCE = 1e-3


class OwnRegressor(nn.Module):
    r"""Gives error bars to a network that returns one number a graph, or a sample.

    Its output becomes a :class:`~egnn_prune.prediction.Prediction`, which
    :class:`~egnn_prune.uncertainty.ModuleDropout` samples and
    :class:`~egnn_prune.uncertainty.DeepEnsemble` pools. What its last linear layer reads becomes
    the features of :class:`~egnn_prune.uncertainty.PredictionRigidity`: with rows :math:`\phi_r`
    (nodes, or graphs) that enter that layer and the derivative :math:`a_r` of the output by what
    leaves it, the features of graph b are :math:`\sum_{r \in b} a_r \phi_r`, whether nodes are
    summed or averaged afterwards, scaled or shifted.

    Args:
        network: returns ``[B]`` or ``[B, 1]``; it is not copied. Called with a batch as
            :func:`egnn_prune.prune` calls it. A masked network will do, and so will a compact one.
        last: dotted name of the linear layer (torch's, PyG's, or e3nn's of scalars) with one
            output that ends it; by default, of those
            that lie least deep in the network, the one that it lists last.

    Shapes:
        batch -> Prediction of ``[B]``, in the network's own unit.

    Raises:
        ConfigError: there is no such layer, the network returns something else, or (in
            :meth:`last_layer`) what follows the layer is not linear or mixes graphs.

    Example:
        >>> estimator = PredictionRigidity(OwnRegressor(network)).fit(train_loader)
        >>> estimator = calibrate(estimator, validation_loader, "robust")
        >>> error_bars = estimator.predict(batch).variance.sqrt()
    """

    def __init__(self, network: nn.Module, last: str | None = None) -> None:
        super().__init__()
        self.network = network
        linear = {n: m for n, m in network.named_modules() if _makes_one_number(m)}
        if last is None and not linear:
            raise ConfigError(
                f"{type(network).__name__} has no linear layer with one output, as a network that "
                "returns one number a graph ends with"
            )
        if last is not None and last not in linear:
            raise ConfigError(
                f"{type(network).__name__} has no linear layer {last!r} with one output; it has "
                f"{', '.join(linear) or 'none'}"
            )
        self.last = last or min(reversed(linear), key=lambda name: name.count("."))
        self._is_linear = False

    def forward(self, batch: Any) -> Prediction:
        """One pass, without error bars of its own."""
        return Prediction.from_members(self._output(batch)[None])

    def last_layer_weights(self) -> Tensor:
        """``[features]``."""
        weight: Tensor = self.network.get_submodule(self.last).weight  # type: ignore[assignment]
        # e3nn's are one flat vector, and divided by the root of their number
        return weight[0] if weight.dim() == 2 else weight / weight.numel() ** 0.5

    def last_layer(self, batch: Any) -> tuple[Tensor, Prediction]:
        """Features ``[B, features]`` and the prediction."""
        differentiable = torch.is_grad_enabled()
        with evaluating(self), torch.enable_grad():
            read, left, output = self._watched(batch)
            # of every row, by one pass back: a row belongs to one graph
            (slope,) = torch.autograd.grad(output.sum(), left, retain_graph=True, allow_unused=True)
            if slope is None:
                raise ConfigError(
                    f"what {self.last} of {type(self.network).__name__} makes does not reach the "
                    "output; name the layer that ends the network with last=..."
                )
            place = self._graph_of_rows(batch, len(read), len(output)).to(read.device)
            if not self._is_linear:
                self._check_linear(batch, slope * left, place, output)
        if not differentiable:
            read, output = read.detach(), output.detach()
        features = read.new_zeros(len(output), read.shape[1])
        return features.index_add(0, place, slope * read), Prediction.from_members(output[None])

    def _output(self, batch: Any) -> Tensor:
        output = call(self.network, batch)
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        if not isinstance(output, Tensor) or shape[1:] not in ((), (1,)) or not output.dim():
            raise ConfigError(
                f"error bars are for networks that return one number a graph, [B] or [B, 1], not "
                f"{shape}"
            )
        return output.reshape(-1)

    def _watched(self, batch: Any, factor: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """What enters the last layer, what leaves it, times a factor, and the output."""
        seen: list[tuple[Tensor, Tensor]] = []

        def hook(_: nn.Module, inputs: tuple[Tensor, ...], left: Tensor) -> Tensor:
            left = factor * left
            left = left if left.requires_grad else left.requires_grad_()
            seen.append((inputs[0], left))
            return left

        handle = self.network.get_submodule(self.last).register_forward_hook(hook)
        try:
            output = self._output(batch)
        finally:
            handle.remove()
        if len(seen) != 1 or seen[0][0].dim() != 2:
            raise ConfigError(
                f"{self.last} of {type(self.network).__name__} is called {len(seen)} times a pass; "
                "name with last=... a linear layer that is called once, with rows of features"
            )
        return (*seen[0], output)

    def _graph_of_rows(self, batch: Any, count: int, graphs: int) -> Tensor:
        """``[rows]``."""
        if count == graphs:
            return torch.arange(graphs)
        inputs = batch if isinstance(batch, tuple | list) else (batch,)
        known = rows(inputs)
        for place in known.values():
            if len(place) == count and len(known["samples"]) == graphs:
                return place
        raise ConfigError(
            f"{self.last} of {type(self.network).__name__} sees {count} rows for {graphs} graphs; "
            "to tell which belongs to which, hand over PyG batches"
        )

    def _check_linear(self, batch: Any, parts: Tensor, place: Tensor, output: Tensor) -> None:
        """Doubled, what leaves the layer has to add to each graph just its own rows' share."""
        _, _, doubled = self._watched(batch, 2.0)
        share = output.new_zeros(len(output)).index_add(0, place, parts[:, 0])
        size = share.abs().max() + output.abs().max()
        if bool(((doubled - output - share).abs() > TOLERANCE * size).any()):
            raise ConfigError(
                f"what {type(self.network).__name__} does after {self.last} is not linear, or "
                "mixes graphs: the last layer cannot tell its error bars; use an ensemble, or name "
                "the layer with last=..."
            )
        self._is_linear = True


def _makes_one_number(layer: Any) -> bool:
    if (type(layer).__module__, type(layer).__name__) == E3NN_LINEAR:
        scalars = all(irrep.is_scalar() for _, irrep in layer.irreps_in)
        return scalars and layer.irreps_out.dim == 1 and layer.weight.numel() == layer.irreps_in.dim
    if not isinstance(layer, nn.Linear) and not is_graph_linear(layer):
        return False
    return len(layer.weight) == 1
