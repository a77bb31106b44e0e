"""The command ``egnn-prune``: which commands there are, and where each is."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from egnn_prune import __version__
from egnn_prune.cli.script import fail
from egnn_prune.cli.streams import FLAGS, FLAGS_HELP
from egnn_prune.cli.suggest import did_you_mean

NAME = "egnn-prune"


class Entry(NamedTuple):
    """A command.

    Attributes:
        home: ``module:name`` in ``egnn_prune.cli``: a Job or a Tool, imported when it is called.
        summary: one line for ``--help``.
    """

    home: str
    summary: str

    def load(self) -> Any:
        """The :class:`~egnn_prune.cli.jobs.Job` or :class:`~egnn_prune.cli.arguments.Tool`."""
        module, _, name = self.home.partition(":")
        return getattr(importlib.import_module(f"egnn_prune.cli.{module}"), name)


COMMANDS = {
    "train": Entry("jobs:TRAIN", "train, select, prune, fine-tune, compact, compare: the main job"),
    "compare": Entry("jobs:COMPARE", "criteria against the dense baseline, over seeds"),
    "predict": Entry("predict:main", "predict a file of structures, each with its error bar"),
    "md": Entry("md:main", "molecular dynamics with a trained model"),
    "vision": Entry("jobs:VISION", "the same engine on images"),
    "study criteria": Entry("jobs:CRITERIA", "error against sparsity for several criteria"),
    "study sanity": Entry("jobs:SANITY", "controls that a pruning method has to beat"),
    "study calibration": Entry("jobs:CALIBRATION", "error bars of dense and pruned networks"),
    "study selection": Entry("jobs:SELECTION", "which graphs to fine-tune a pruned network on"),
    "study acquisition": Entry("jobs:ACQUISITION", "which structures to label next"),
    "study centroid": Entry("jobs:CENTROID", "training on uncertain graphs, on a toy"),
    "sweep": Entry("jobs:CRITERIA", "short for study criteria"),
    "bench": Entry("bench:main", "time training steps, pruned networks, and error bars"),
    "export": Entry("export:main", "write a model as a torch.export program or as ONNX"),
    "report": Entry("report:main", "draw a run's tables, figures and page again, without torch"),
}
SHELLS = ("bash", "zsh", "fish")


def help_text() -> str:
    """All commands with one line each."""
    width = max(map(len, COMMANDS)) + 2
    return "\n".join(
        [
            f"Usage: {NAME} COMMAND [...]",
            "",
            "Smaller equivariant networks whose accuracy, symmetry and error bars stay true.",
            "",
            *(f"  {name:<{width}}{entry.summary}" for name, entry in COMMANDS.items()),
            "",
            f"{NAME} COMMAND --help lists the settings of a command.",
            FLAGS_HELP,
            "--version says which this is; --completion bash, zsh or fish prints a script for a",
            f'shell, such as eval "$({NAME} --completion bash)" in ~/.bashrc.',
        ]
    )


def main() -> None:
    """Hand over to the command that the first word (or two) names."""
    loudness = [a for a in sys.argv[1:] if a in FLAGS]
    words = [a for a in sys.argv[1:] if a not in FLAGS]
    match words:
        case [] | ["-h" | "--help", *_]:
            print(help_text())
        case ["--version", *_]:
            print(f"{NAME} {__version__}")
        case ["--completion", shell] if shell in SHELLS:
            from egnn_prune.cli.completion import script

            print(script(shell))
        case ["--completion", *_]:
            fail(f"--completion is followed by one of {', '.join(SHELLS)}")
        case ["study"] | ["study", "-h" | "--help"]:
            print(help_text())
        case _:
            name, rest = _split(words)
            sys.argv[:] = [f"{NAME} {name}", *loudness, *rest]
            command: Callable[[], None] = COMMANDS[name].load()
            command()


def _split(words: list[str]) -> tuple[str, list[str]]:
    """The command's name, of one word or two, and what follows it."""
    length = 2 if words[0] == "study" else 1
    name = " ".join(words[:length])
    if name not in COMMANDS:
        fail(f"there is no command {name!r}; --help lists all{did_you_mean(name, COMMANDS)}")
    return name, words[length:]
