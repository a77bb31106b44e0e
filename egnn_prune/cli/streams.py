"""What a command shows: bars on a terminal, plain lines in a log, the final line with ``-q``."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

QUIET, NORMAL, VERBOSE, TRACES = -1, 0, 1, 2
_FLAGS = {"-q": QUIET, "--quiet": QUIET, "-v": VERBOSE, "--verbose": VERBOSE, "-vv": TRACES}
FLAGS = tuple(_FLAGS)
#: For the end of every ``--help``.
FLAGS_HELP = (
    "-q shows errors and the final line only, -v also messages and warnings of libraries,\n"
    "-v -v stack traces, too."
)
#: A bar becomes a line at every tenth of its way, but not more often; one without an end, rarely.
SECONDS, SECONDS_WITHOUT_END = 5.0, 60.0


def verbosity(arguments: Sequence[str]) -> tuple[int, list[str]]:
    """How loud a command shall be, and its other arguments."""
    asked = [_FLAGS[a] for a in arguments if a in _FLAGS]
    level = QUIET if QUIET in asked else min(sum(asked), TRACES)
    return level, [a for a in arguments if a not in _FLAGS]


class PlainLines:
    """A stream that is no terminal: tqdm's bars come as lines, now and then.

    Args:
        stream: what is written to.
        bars: whether they come at all.
        seconds: between the lines of bars.
    """

    def __init__(self, stream: TextIO, bars: bool = True, seconds: float = SECONDS) -> None:
        self._stream, self._bars, self._seconds = stream, bars, seconds
        self._told: dict[str, int] = {}
        self._last = time.monotonic()
        self._drawing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text as it is, and bars as lines."""
        moves = not text.strip("\n\x1b[A ")  # between bars, or after the last
        if "\r" in text or (self._drawing and moves):
            self._drawing = True
            for bar in filter(None, (part.strip("\n\x1b[A ") for part in text.split("\r"))):
                self._tell(bar)
        else:
            self._drawing = False
            self._stream.write(text)
        return len(text)

    def _tell(self, bar: str) -> None:
        label, passed = bar.partition(":")[0], time.monotonic() - self._last
        percent = re.search(r"(\d+)%\|", bar)
        tenth = int(percent[1]) // 10 if percent else -1
        if percent is None:
            due = passed >= SECONDS_WITHOUT_END
        else:
            due = tenth not in (0, self._told.get(label))
            due = due and (tenth == 10 or passed >= self._seconds)
        if self._bars and due:
            self._told[label], self._last = tenth, time.monotonic()
            self._stream.write(re.sub(r"\|[^|]*\|", "", bar) + "\n")
            self._stream.flush()


@contextlib.contextmanager
def streams(level: int) -> Iterator[None]:
    """Output as loud as asked for; afterwards all is as it was."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        if level < VERBOSE:  # deprecations of libraries by libraries: nothing that a user can mend
            for message in (r".torch\.jit\.", r".isinstance\(treespec, LeafSpec\)"):
                for kind in (FutureWarning, DeprecationWarning):
                    warnings.filterwarnings("ignore", message, kind)
            stack.callback(setattr, warnings, "formatwarning", warnings.formatwarning)
            warnings.formatwarning = _as_a_line
        else:
            logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
            logging.getLogger("egnn_prune").setLevel(logging.DEBUG)
        if level == QUIET:
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            stack.callback(logging.disable, logging.NOTSET)
            stack.enter_context(_final_line())
        if level == QUIET or not sys.stderr.isatty():
            stack.enter_context(_no_bars_of_workers())
            lines: Any = PlainLines(sys.stderr, bars=level != QUIET)
            stack.enter_context(contextlib.redirect_stderr(lines))
        yield


def _as_a_line(message: Warning | str, *_: Any, **__: Any) -> str:
    """A warning without the line of code that it comes from, which says nothing to a user."""
    return f"warning: {message}\n"


@contextlib.contextmanager
def _no_bars_of_workers() -> Iterator[None]:
    """Worker processes write to our descriptors, past PlainLines: without bars, then."""
    import tqdm  # noqa: F401 - which reads its environment when it is imported: ours keeps its bars

    before = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TQDM_DISABLE"]
        else:
            os.environ["TQDM_DISABLE"] = before


@contextlib.contextmanager
def _final_line() -> Iterator[None]:
    """Of what is printed, here and by worker processes, only our last line."""
    kept, real = io.StringIO(), sys.stdout is sys.__stdout__
    if real:
        sys.stdout.flush()
        descriptor, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
    try:
        with contextlib.redirect_stdout(kept):
            yield
    finally:
        if real:
            os.dup2(descriptor, 1)
            os.close(descriptor)
            os.close(nowhere)
        for line in kept.getvalue().split("\n")[::-1]:
            if line.strip():
                print(line)
                break
