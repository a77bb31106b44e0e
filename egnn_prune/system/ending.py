"""Work that is asked to end ends where it can go on from."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: What asks a process to end: Ctrl-C, and what systems send (SLURM, a closed terminal).
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


@contextmanager
def asked_to_end() -> Iterator[Callable[[], bool]]:
    """Within this context a signal to end is remembered; who works asks for it between two steps.

    A second one is what it always was. In other threads than the main one, signals are left alone.

    Yields:
        Says whether a signal came.
    """
    before: dict[int, Any] = {}
    asked: list[int] = []

    def remember(number: int, _: Any) -> None:
        asked.append(number)
        give_back()

    def give_back() -> None:
        while before:
            number, handler = before.popitem()
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # nohup stays nohup
                before[number] = signal.signal(number, remember)
    try:
        yield lambda: bool(asked)
    finally:
        give_back()
