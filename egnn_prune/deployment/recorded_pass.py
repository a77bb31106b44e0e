"""A pass over one structure, recorded once as a list of tensor operations and then replayed.

A small structure costs overhead, not arithmetic: modules, autograd and checks are Python, and take
longer than the operations they lead to. What a pass does to its positions is the same in every
step, so it is recorded (:func:`torch.fx.experimental.proxy_tensor.make_fx`, energy and gradient
together), all that depends on weights and elements alone is computed, and the rest is replayed.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, library
from tqdm import tqdm

from egnn_prune.errors import ConfigError
from egnn_prune.graphs import tracing

aten: Any = torch.ops.aten
#: Tensors of one number, whatever is in the tensor that they are made like.
FILLED = {aten.new_zeros.default: 0, aten.new_ones.default: 1, aten.ones_like.default: 1}
FILLED[aten.zeros_like.default] = 0
# the tracer takes SiLU's derivative apart, into eight operations; under another name it does not
_OPERATIONS = library.Library("egnn_prune", "FRAGMENT")
_OPERATIONS.define("silu_backward(Tensor slope, Tensor x) -> Tensor")
_OPERATIONS.impl(
    "silu_backward",
    lambda slope, x: aten.silu_backward.default(slope, x),
    "CompositeExplicitAutograd",
)
WHOLE: Any = {aten.silu_backward.default: torch.ops.egnn_prune.silu_backward.default}

#: A function of tensors that returns tensors.
Function = Callable[..., Sequence[Tensor]]


class RecordedPass:
    """A function of tensors of fixed shapes, replayed.

    The operations and their order are those of the function itself, so its numbers are, too; a
    compiled one fuses them and is equal to rounding.

    Args:
        function: returns tensors; reads no values, draws nothing, and has no other inputs than its
            arguments and ``weights``.
        inputs: of the shapes that all others will have.
        weights: tensors that the function reads; see :meth:`is_current`.
        compiled: whether the operations are compiled (``torch.compile``), which takes minutes.

    Raises:
        ConfigError: it cannot be recorded, or not be compiled; says why.
    """

    def __init__(
        self,
        function: Function,
        inputs: Sequence[Tensor],
        weights: Sequence[Tensor] = (),
        compiled: bool = False,
    ) -> None:
        from torch.fx.experimental.proxy_tensor import make_fx  # seconds, which few need

        self._fused = compiled
        self.shapes = [tensor.shape for tensor in inputs]
        self._weights = list(weights)
        self._state = self._versions()
        try:
            with torch.no_grad(), tracing():  # what is arranged by values would stay as it is
                graph = make_fx(function, WHOLE, "real", _allow_non_fake_inputs=True)(*inputs)
            self._constants, self._live = folded(graph)
            self._run: Any = (
                self._compiled(graph, inputs) if compiled else interpreted(graph, inputs)
            )
        except Exception as error:  # tracers and compilers raise errors of every type
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(f"the model's pass cannot be recorded: {reason}") from error

    def is_current(self) -> bool:
        """Whether the weights are what they were; numbers that follow from them are kept here."""
        return self._versions() == self._state

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """What the function returns for these inputs."""
        with torch.no_grad() if self._fused else torch.inference_mode():
            found = self._run(*inputs) if self._live else ()
        outputs: list[Any] = list(self._constants)
        for place, value in zip(self._live, found, strict=True):
            outputs[place] = value
        return outputs

    def _versions(self) -> list[tuple[int, int]]:
        return [(tensor._version, tensor.data_ptr()) for tensor in self._weights]

    @staticmethod
    def _compiled(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> Any:
        """The graph through ``torch.compile``; says how long that took."""
        start = time.perf_counter()
        program = torch.compile(graph, dynamic=False)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's, about what it compiles
            program(*inputs)
        seconds = time.perf_counter() - start
        tqdm.write(
            f"compiled the model for {len(inputs[0])} atoms in {seconds:.0f} s", file=sys.stderr
        )
        return program


def interpreted(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> Any:
    """The graph run by PyTorch's own interpreter, operation by operation, without Python.

    TorchScript's is the only one that there is. Should a version of PyTorch be without it, the
    graph is run by Python, which is slower.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, its interpreter has no heir
        try:
            with torch.inference_mode():
                traced = torch.jit.trace(graph.eval(), tuple(inputs), check_trace=False)
                program = torch.jit.freeze(traced.eval())
                program(*inputs)
        except (AttributeError, RuntimeError):
            return graph
    return program


def folded(graph: fx.GraphModule) -> tuple[list[Tensor | None], list[int]]:
    """Compute in place what depends on no input, and return outputs that are such.

    Returns:
        The outputs, ``None`` where they depend on the inputs, and the places of those: the graph
        returns them alone.

    Raises:
        ConfigError: something is drawn at random.
    """
    for node in graph.graph.nodes:
        node.target = {v: k for k, v in WHOLE.items()}.get(node.target, node.target)
    values = _constants(graph)
    for number, (node, value) in enumerate(values.items()):
        if node.op != "get_attr" and isinstance(value, Tensor):
            name = f"_folded{number}"
            graph.register_buffer(name, value.detach())
            with graph.graph.inserting_before(node):
                constant = graph.graph.get_attr(name)
            constant.meta["value"] = value
            node.replace_all_uses_with(constant)
    (end,) = (node for node in graph.graph.nodes if node.op == "output")
    outputs: list[fx.Node] = list(end.args[0])
    constants: list[Tensor | None] = [
        _attribute(graph, node.target) if node.op == "get_attr" else None for node in outputs
    ]
    live = [place for place, value in enumerate(constants) if value is None]
    end.args = (tuple(outputs[place] for place in live),)
    _once(graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return [None if c is None else c.detach() for c in constants], live


def _constants(graph: fx.GraphModule) -> dict[fx.Node, Any]:
    """The values of the nodes that depend on no input and are not written to."""
    values: dict[fx.Node, Any] = {}
    written: set[int] = set()
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            values[node] = _attribute(graph, node.target)
        elif node.op == "call_function":
            if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
                raise ConfigError(f"it draws random numbers ({node.target})")
            known = [values[n] for n in node.all_input_nodes if n in values]
            if _writes(node):
                written |= {v.untyped_storage().data_ptr() for v in known if isinstance(v, Tensor)}
            elif node.target in FILLED and "val" in node.meta:
                like = node.meta["val"]
                values[node] = torch.full(
                    like.shape, FILLED[node.target], dtype=like.dtype, device=like.device
                )
            elif len(known) == len(node.all_input_nodes):
                args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = node.target(*args, **kwargs)
    constants: dict[fx.Node, Any] = {}
    for node, value in values.items():  # in their order: what is read of a written one is none
        whole = all(n in constants for n in node.all_input_nodes) or node.target in FILLED
        own = isinstance(value, Tensor) and value.untyped_storage().data_ptr() in written
        if whole and not own:
            constants[node] = value
    return constants


def _once(graph: fx.GraphModule) -> None:
    """Let what is computed twice be computed once."""
    seen: dict[Any, fx.Node] = {}
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or _writes(node) or any(map(_writes, node.users)):
            continue
        first = seen.setdefault((node.target, repr(node.args), repr(node.kwargs)), node)
        if first is not node:
            node.replace_all_uses_with(first)


def _writes(node: fx.Node) -> bool:
    """Whether an operation changes one of its arguments in place."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _attribute(graph: fx.GraphModule, name: Any) -> Any:
    found: Any = graph
    for part in str(name).split("."):
        found = getattr(found, part)
    return found
