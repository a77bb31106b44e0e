"""Monte Carlo dropout for any torch network that has dropout, in modules or in functions."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from egnn_prune.errors import ConfigError
from egnn_prune.prediction import ClassPrediction
from egnn_prune.uncertainty.ensemble import pooled
from egnn_prune.uncertainty.estimator import Predicted, Sampling, as_prediction

#: Functions of torch that drop where ``training=True`` says so.
BY_KEYWORD = {
    F.dropout,
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    F.alpha_dropout,
    F.feature_alpha_dropout,
    F.multi_head_attention_forward,
}
#: The same in C++: names of functions whose third argument says so, and of recurrent layers.
BY_PLACE = {f"{kind}dropout{end}" for kind in ("", "alpha_", "feature_") for end in ("", "_")}
BY_PLACE |= {"native_dropout", "feature_alpha_dropout", "feature_alpha_dropout_"}
RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
#: Names under which modules keep the probability of what they drop.
PROBABILITIES = ("p", "prob", "rate", "drop_prob")
#: Modules that hold others and never ask for their own mode.
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
#: Passes that decide whether a network whose few samples agree has any dropout at work.
LOOKS = 30

#: Passes draw from torch's global generator, and some modules have to be switched.
_ONE_AT_A_TIME = threading.RLock()


class _Dropping(TorchFunctionMode):
    """While it is active, in its thread alone, dropout drops whatever the modes of modules are.

    Fused paths of attention, which know no dropout, give way: torch takes them only where no
    function is looked at.

    Attributes:
        acted: whether anything was dropped with a probability above zero.
        called: dropout modules of torch's kind that this thread called.
        switched: modules that are in training mode until the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.acted = False
        self.called: set[nn.Module] = set()
        self.switched: list[nn.Module] = []
        self._thread = threading.get_ident()

    def note(self, module: nn.Module, _: Any) -> None:
        """A hook of dropout modules, which plain passes in other threads call, too."""
        if threading.get_ident() == self._thread:
            self.called.add(module)

    def switch(self, modules: list[nn.Module]) -> None:
        """Put modules into training mode, they alone and not their parts."""
        self.switched += modules
        for module in modules:
            module.training = True

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        keywords, name, p = dict(kwargs or {}), getattr(func, "__name__", ""), 0.0
        if func in BY_KEYWORD:
            keywords["training"] = True
            attention = func is F.multi_head_attention_forward
            p = args[10] if attention else keywords["p"]
        elif name in BY_PLACE:
            p = args[1] if len(args) > 1 else keywords["p"]
            args, keywords["train"] = args[:2], True
        elif name in RECURRENT:
            place = 6 if isinstance(args[3], bool) else 7  # of a packed sequence
            layers, p = args[place - 2 : place]
            args = (*args[:place], True, *args[place + 1 :])
            p = p if layers > 1 else 0.0
        self.acted = self.acted or p > 0
        return func(*args, **keywords)


def dropout_modules(network: nn.Module) -> list[nn.Module]:
    """The modules of a network that drop something with a probability above zero.

    ``nn.Dropout`` and its kin, attention and recurrent layers of torch with ``dropout=``, and
    other people's modules that are named or keep a probability as such: ``DropPath``,
    ``StochasticDepth``, a float ``attn_drop`` or ``dropout_p``.
    """
    return [m for m in network.modules() if _drops(m)]


def _drops(module: nn.Module) -> bool:
    if isinstance(module, nn.RNNBase):  # between layers only
        return module.dropout > 0 and module.num_layers > 1
    if isinstance(module, _DropoutNd):
        return module.p > 0
    named = _is_named_dropout(module)
    stated = [
        value
        for key, value in vars(module).items()
        if isinstance(value, float) and ("drop" in key.lower() or (named and key in PROBABILITIES))
    ]
    return any(value > 0 for value in stated) or (named and not stated)


def _is_named_dropout(module: nn.Module) -> bool:
    """Whether a module without parts is called a dropout, such as timm's ``DropPath``."""
    name = type(module).__name__.lower()
    return ("drop" in name or name == "stochasticdepth") and not list(module.children())


def _unseen(module: nn.Module) -> bool:
    """Whether a module may ask its own mode whether to drop, without a function of torch.

    One that only keeps the rate which it built its parts with, as outer models do, has none to ask
    for: what else it does in training alone is no dropout.
    """
    if not _drops(module) or type(module).__module__.startswith("torch.nn."):
        return False
    return not any(_drops(part) for child in module.children() for part in child.modules())


def _bypassed(network: nn.Module, called: set[nn.Module]) -> list[nn.Module]:
    """Modules in evaluation mode that have a dropout which no pass called.

    Fused attention of others hands ``attn_drop.p`` over where its own mode says so, and never calls
    ``attn_drop``. Containers are no owners: their mode is never asked for.
    """
    found: list[nn.Module] = []
    for name, module in network.named_modules(remove_duplicate=False):
        if isinstance(module, _DropoutNd) and module.p > 0 and module not in called:
            owner: nn.Module = module
            while name and (owner is module or isinstance(owner, CONTAINERS)):
                name = name.rpartition(".")[0]
                owner = network.get_submodule(name)
            of_torch = type(owner).__module__.startswith("torch.nn.")
            if not (of_torch or owner.training or owner in found):
                found.append(owner)
    return found


@contextlib.contextmanager
def _dropping(network: nn.Module) -> Iterator[_Dropping]:
    """Within this context the network drops, and nothing else about it is as in training."""
    # what torch.compile made of evaluation mode has no dropout in it
    compiled = any("_orig_mod" in m._modules or m._compiled_call_impl for m in network.modules())
    eager = torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()
    dropping = _Dropping()
    hooked = [m for m in network.modules() if isinstance(m, _DropoutNd)]
    hooks = [m.register_forward_pre_hook(dropping.note) for m in hooked]
    try:
        dropping.switch([m for m in network.modules() if _unseen(m) and not m.training])
        with eager, dropping:
            yield dropping
    finally:
        for module in dropping.switched:
            module.training = False
        for hook in hooks:
            hook.remove()


class ModuleDropout(Sampling):
    """Samples a network with ``nn.Dropout`` and its kin (Gal and Ghahramani 2016, Eq. 6).

    All that torch knows as dropout is active: modules, ``F.dropout`` with any ``training=``, inside
    attention, transformer and recurrent layers. Everything else is in evaluation mode: batch norm
    keeps its running statistics. Modules of others that drop without a function of torch
    (:func:`dropout_modules`) are put into training mode, they alone and not their parts; so are
    those that have an ``nn.Dropout`` but never call it, as fused attention does. The seed decides
    the masks, so the same batch gives the same prediction, and the global random state is left as
    it was. But dropout draws one mask for every *row* of a batch: unlike the MC-dropout samples of
    :class:`~egnn_prune.uncertainty.MCDropout`, a sample is no single network, and a row's
    prediction depends on its place in the batch.

    Threads may share a network: since torch's dropout draws from one global generator, samples of
    several threads wait for each other; plain passes beside them see no dropout, but for the
    modules of others that have to be switched.

    Args:
        network: returns logits ``[B, C]`` or a prediction.
        samples: passes through the network.
        seed: of the masks.

    Raises:
        ConfigError: the network has no dropout, there are fewer than two samples, or (when it
            predicts) all passes are the same and nothing was seen to drop (in a scripted layer,
            say). Where dropout does act, on zeros or in a network that is dead, zero is true.
    """

    def __init__(self, network: nn.Module, samples: int = 20, seed: int = 0) -> None:
        super().__init__(network, samples, seed)
        if not dropout_modules(network):
            raise ConfigError(
                f"{type(network).__name__} has no dropout to sample from; put an nn.Dropout with "
                "p above 0 into it"
            )
        self._acts = False

    def estimate(self, batch: Any) -> Predicted:
        """Pool the passes as members."""
        cuda = range(torch.cuda.device_count())
        with (
            _ONE_AT_A_TIME,
            torch.random.fork_rng(devices=cuda),
            _dropping(self.network) as dropping,
        ):
            torch.manual_seed(self.seed)

            def drawn() -> Predicted:
                return as_prediction(self.network(batch))

            first = drawn()
            if bypassed := _bypassed(self.network, dropping.called):
                dropping.switch(bypassed)
                torch.manual_seed(self.seed)
                first = drawn()
            prediction = pooled([first, *(drawn() for _ in range(self.samples - 1))])
            if not self._acts:  # others' modules drop unseen, and few passes may be spared
                looks = (drawn() for _ in range(LOOKS))
                self._acts = dropping.acted or any(
                    _differ(pooled([prediction, look])) for look in looks
                )
        if not self._acts:
            raise ConfigError(
                f"all {self.samples + LOOKS} passes of {type(self.network).__name__} give the same "
                "numbers: its dropout never acts, so there is no spread to state; use nn.Dropout "
                "or F.dropout outside of fused and scripted layers, or an ensemble"
            )
        return prediction


def _differ(prediction: Predicted) -> bool:
    """Whether any two members say something else (of no sample at all, nobody can tell)."""
    members = prediction.logits if isinstance(prediction, ClassPrediction) else prediction.members
    return not bool((members == members[:1]).all()) or members.numel() == 0
