"""The commands with plain arguments, by argparse."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from egnn_prune.cli.script import fail, run_script
from egnn_prune.cli.streams import FLAGS_HELP, verbosity
from egnn_prune.cli.suggest import did_you_mean


class Parser(argparse.ArgumentParser):
    """Refuses in one sentence, and says which option was probably meant.

    Args:
        description: for ``--help``, with its line breaks.
    """

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description,
            epilog=FLAGS_HELP,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # what is an abbreviation today is ambiguous after a new option
        )

    def options(self) -> list[str]:
        """All that begin with two dashes."""
        return [s for action in self._actions for s in action.option_strings if s[:2] == "--"]

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        start = "unrecognized arguments: "
        meant = ""
        if message.startswith(start):
            first = message.removeprefix(start).split()[0].partition("=")[0]
            meant = did_you_mean(first, self.options())
        fail(f"{message}; --help lists all arguments{meant}")


def with_options(sentence: str, options: Sequence[str]) -> str:
    """A sentence about arguments of a function, for people who gave options.

    ``name=value`` becomes ``--name value``, and so does a name that no other word could be: one
    with an underscore, or one that the sentence begins with.
    """
    for option in sorted(options, key=len, reverse=True):
        name = option.removeprefix("--").replace("-", "_")
        sentence = re.sub(rf"(?<![\w.-]){name}=(?=\w)", f"{option} ", sentence)
        anywhere = "" if "_" in name else "^"
        verb = "" if "_" in name else "(?= must| is)"
        sentence = re.sub(rf"{anywhere}(?<![\w.-]){name}(?![\w=.-]){verb}", option, sentence)
    return sentence


@dataclass(frozen=True)
class Tool:
    """A command with plain arguments.

    Attributes:
        parser: makes its parser.
        work: does it; imports what it needs itself, so that ``--help`` does not wait for torch.
            Where the answer is no, it exits with code 1.
    """

    parser: Callable[[], Parser]
    work: Callable[[argparse.Namespace], object]

    def __call__(self) -> None:
        """Run it with the process's arguments."""
        level, arguments = verbosity(sys.argv[1:])
        found = self.parser().parse_args(arguments)
        run_script(lambda: self.work(found), level)

    def check(self, arguments: Sequence[str]) -> None:
        """Refuse arguments that the command does not know, without running it."""
        self.parser().parse_args([*arguments])

    def words(self) -> list[str]:
        """What can stand behind the command, for completion."""
        return [*self.parser().options(), "--quiet", "--verbose"]
