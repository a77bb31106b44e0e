"""A page for every room whose names users import, made of its docstrings."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

#: Modules, in the order in which they are needed. tests/test_site.py asks that none is missing.
ROOMS = (
    "egnn_prune",
    "egnn_prune.data",
    "egnn_prune.models",
    "egnn_prune.pruning",
    "egnn_prune.uncertainty",
    "egnn_prune.uncertainty.metrics",
    "egnn_prune.selection",
    "egnn_prune.training",
    "egnn_prune.adapters",
    "egnn_prune.ase",
    "egnn_prune.audit",
    "egnn_prune.deployment",
    "egnn_prune.checkpoint",
    "egnn_prune.inference",
    "egnn_prune.export",
    "egnn_prune.hub",
    "egnn_prune.torchsim",
    "egnn_prune.testing",
    "egnn_prune.channels",
    "egnn_prune.prediction",
    "egnn_prune.errors",
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The pages' places in the navigation."""
    for entry in config.nav or []:
        if entry.get("Python") == "API":
            entry["Python"] = [{title(room): file_name(room)} for room in ROOMS]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages themselves, which mkdocstrings fills."""
    for room in ROOMS:
        text = f"# {room}\n\n::: {room}\n"
        files.append(File.generated(config, file_name(room), content=text))
    return files


def title(room: str) -> str:
    """In the navigation, where all names begin alike."""
    return room.removeprefix("egnn_prune.")


def file_name(room: str) -> str:
    """Of a room's page."""
    return f"python/{room}.md"
