"""One CUDA graph for many batches of equal shapes: where launching kernels is what takes time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from egnn_prune.errors import ConfigError, DataError

#: Runs before the capture, in which libraries choose their kernels and allocate what they keep.
WARMUP = 3


class CudaGraph:
    """A function of tensors, recorded once and played again with other numbers.

    The recording does exactly what the function did with the examples: the function must not
    look at values (no ``if`` on a tensor, no ``.item()``), and all shapes are the examples'.
    Checks of a batch belong before the call. Without gradients.

    Args:
        function: from tensors to tensors, for example ``EGNN.features`` of a network in evaluation.
        examples: its arguments, on one CUDA device.

    Raises:
        ConfigError: an example is not on a CUDA device.

    Example:
        >>> fast = CudaGraph(network.features, x, pos, edge_index, graph)  # doctest: +SKIP
        >>> h, moved, _ = fast(x, other_pos, edge_index, graph)  # doctest: +SKIP
    """

    def __init__(self, function: Callable[..., object], *examples: Tensor) -> None:
        if not examples or any(t.device.type != "cuda" for t in examples):
            where = sorted({str(t.device) for t in examples})
            raise ConfigError(f"a CUDA graph needs its examples on a CUDA device, not on {where}")
        self.inputs = [t.detach().clone() for t in examples]
        self.graph = torch.cuda.CUDAGraph()
        device = self.inputs[0].device
        with torch.no_grad(), torch.cuda.device(device):
            # what the warm-up allocates must not belong to the stream that everybody uses
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARMUP):
                    function(*self.inputs)
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(self.graph):
                self.outputs = function(*self.inputs)

    def __call__(self, *tensors: Tensor) -> object:
        """What the function returns; copies, so that the next call leaves them alone.

        Raises:
            DataError: a tensor's shape or type is not the example's.
        """
        if len(tensors) != len(self.inputs):
            raise DataError(f"the graph takes {len(self.inputs)} tensors, not {len(tensors)}")
        for k, (own, given) in enumerate(zip(self.inputs, tensors, strict=True)):
            if (own.shape, own.dtype) != (given.shape, given.dtype):
                raise DataError(
                    f"tensor {k} has shape {tuple(given.shape)} and {given.dtype}, but the graph "
                    f"was recorded with {tuple(own.shape)} and {own.dtype}; record another one"
                )
        for own, given in zip(self.inputs, tensors, strict=True):
            own.copy_(given, non_blocking=True)
        self.graph.replay()
        return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, self.outputs)
