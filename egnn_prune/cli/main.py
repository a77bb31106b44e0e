"""The command ``egnn-prune``: hands over to the command that is named."""

from __future__ import annotations

import sys
from collections.abc import Callable

from egnn_prune import __version__
from egnn_prune.cli.registry import COMMANDS, NAME, SHELLS
from egnn_prune.cli.script import fail, one_sentence
from egnn_prune.cli.streams import FLAGS, FLAGS_HELP
from egnn_prune.cli.suggest import did_you_mean


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

            with one_sentence():  # the settings' names need Hydra
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
