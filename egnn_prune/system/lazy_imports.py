"""Libraries and modules that are imported when they are first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from egnn_prune.errors import MissingExtraError

#: The extra of ``pip install`` that brings a library, by the name under which it is imported.
EXTRAS = {
    "datasets": "vision",
    "huggingface_hub": "hub",
    "hydra": "train",
    "jinja2": "report",
    "submitit": "train",
    "tensorboard": "train",
    "lightning": "train",
    "matplotlib": "report",
    "nequip": "nequip",
    "omegaconf": "train",
    "sevenn": "sevennet",
    "sklearn": "vision",
    "torch_sim": "torchsim",
    "torchmetrics": "train",
    "torchvision": "vision",
}


@contextmanager
def naming_extras(what: str = "this needs", extra: str | None = None) -> Iterator[None]:
    """Say in one sentence which extra brings a library that turns out not to be installed.

    Args:
        what: the beginning of the sentence.
        extra: the one that brings all that is needed here, where a library comes with several.

    Raises:
        MissingExtraError: an import below failed, and an extra of this package brings the library.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS:
            raise
        raise MissingExtraError(
            f"{what} the package {library}; run "
            f"`pip install 'egnn_prune[{extra or EXTRAS[library]}]'`"
        ) from error


def lazy_names(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """A package's ``__getattr__``, which imports its public names when they are first used.

    Args:
        package: its ``__name__``.
        modules: names by the module below the package that defines them. A module must not have
            the name of something that is imported so: it would be found in its place.
    """
    homes = {name: module for module, names in modules.items() for name in names}
    known = vars(sys.modules[package])
    known["__dir__"] = lambda: sorted({*known, *homes})  # for tab completion

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with naming_extras():
            return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return __getattr__
