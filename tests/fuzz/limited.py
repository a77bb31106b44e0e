"""Readers that are given damaged files: what they may do, how long and how much it may take."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from egnn_prune.errors import InputError

#: For one input.
SECONDS = 5
#: That all inputs of one reader may take beyond what the process has when they begin, in bytes.
MEMORY = 3_000_000_000


class Hang(BaseException):
    """An input took longer than it may; nothing that a reader catches."""


@dataclass
class Outcome:
    """What a reader did with its inputs.

    Attributes:
        counts: of ``read`` and ``refused``, with a sentence of ours.
        failures: every other end by its kind and place, with the first input that had it.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, tuple[Any, str]] = field(default_factory=dict)


def fuzz(inputs: SearchStrategy[Any], read: Callable[[Any], object], examples: int) -> Outcome:
    """Give a reader so many inputs, the same ones every time.

    Args:
        inputs: damaged files or settings.
        read: returns, or raises an ``InputError`` of one line.
        examples: how many.
    """
    outcome = Outcome()

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def each(content: Any) -> None:
        try:
            with _in_time(), warnings.catch_warnings(action="ignore"):
                read(content)
            outcome.counts["read"] += 1
        except InputError as error:
            outcome.counts["refused"] += 1
            if "\n" in str(error) or not str(error):
                _note(outcome, "more than one line", content, str(error))
        except (Exception, Hang) as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f for f in frames if "/egnn_prune/" in f.filename] or frames
            place = f"{os.path.basename(ours[-1].filename)}:{ours[-1].lineno}"
            _note(outcome, f"{type(error).__name__} {place}", content, str(error)[:300])

    each()
    return outcome


def fuzz_within_memory(
    inputs: SearchStrategy[Any], read: Callable[[Any], object], examples: int
) -> Outcome:
    """:func:`fuzz` in a process of its own that may take :data:`MEMORY` at most."""
    receive, send = os.pipe()
    if (child := os.fork()) == 0:
        status = 1
        try:
            os.close(receive)
            with open("/proc/self/statm") as file:
                now = int(file.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
            outcome = fuzz(inputs, read, examples)
            with os.fdopen(send, "wb") as pipe:
                pickle.dump(outcome, pipe)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the process ended with status {status}"
    return pickle.loads(content)


def _note(outcome: Outcome, kind: str, content: Any, message: str) -> None:
    outcome.counts["failed"] += 1
    outcome.failures.setdefault(kind, (content, message))


@contextmanager
def _in_time() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
