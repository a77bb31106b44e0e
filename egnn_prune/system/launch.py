"""Starts a command again as several processes of one machine, and ends them together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

#: Seconds between two looks at the processes; how long they have to end when one has failed.
LOOK_S, PATIENCE_S = 0.1, 10.0
#: Exit code of a process that ended because another one of the job did.
LOST_ANOTHER = 3
#: Says that this module started a process, and which one that was.
LAUNCHED = "EGNN_PRUNE_LAUNCHED"
#: What is handed on to them. Ctrl-C comes from the terminal, which sends it to all.
HANDED_ON = [getattr(signal, n) for n in ("SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, n)]


def launch(count: int, command: Sequence[str]) -> int:
    """Run a command as processes that know their ranks, and wait for them.

    The first one has the terminal. What the others say is shown where one of them is the reason for
    the end. Where one fails, all are ended.

    Args:
        count: how many.
        command: with its arguments, such as ``sys.orig_argv``.

    Returns:
        The exit code of the one that failed, or 0.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    # each its share of the cores; torch's default takes all
    share = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
    # DDP warns that it looks for unused weights in vain, as long as none is frozen
    share["TORCH_CPP_LOG_LEVEL"] = "ERROR"
    heard = [tempfile.TemporaryFile() for _ in range(count - 1)]
    running: list[subprocess.Popen[bytes]] = []
    with _handing_on(running):
        for rank in range(count):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), LAUNCHED: str(os.getpid())}
            own |= {"TQDM_DISABLE": "1"} if rank else {}
            where: Any = {"stdout": subprocess.DEVNULL, "stderr": heard[rank - 1]} if rank else {}
            environment = share | dict(os.environ) | told | own
            running.append(subprocess.Popen(command, env=environment, **where))
        try:
            _wait(running)
        finally:
            killed = [process for process in running if process.poll() is None]
            for process in killed:
                process.kill()
                process.wait()
    codes = [process.returncode for process in running]
    # who ended because another one did is not the reason
    ours = {k for k, process in enumerate(running) if process in killed}
    reasons = [k for k, code in enumerate(codes) if code not in (0, LOST_ANOTHER) and k not in ours]
    reasons = reasons or [k for k, code in enumerate(codes) if code]
    if reasons and reasons[0]:
        heard[reasons[0] - 1].seek(0)
        sys.stderr.write(heard[reasons[0] - 1].read().decode(errors="replace"))
    for file in heard:
        file.close()
    code = codes[reasons[0]] if reasons else 0
    if code < 0:
        name = signal.Signals(-code).name
        print(f"error: process {reasons[0]} of {count} was ended by {name}", file=sys.stderr)
    return code if code >= 0 else 128 - code


def end_with_the_launcher() -> None:
    """In a process that :func:`launch` started: whoever kills that one means this one, too."""
    if LAUNCHED in os.environ:
        parent = int(os.environ[LAUNCHED])
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _wait(running: Sequence[subprocess.Popen[bytes]]) -> None:
    """Until all have ended; soon after one has failed."""
    until: float | None = None
    while True:
        with suppress(KeyboardInterrupt):  # they got it, too, and end at a good place
            codes = [process.poll() for process in running]
            if until is None and any(codes):
                until = time.monotonic() + PATIENCE_S
            if None not in codes or (until is not None and time.monotonic() > until):
                return
            time.sleep(LOOK_S)


@contextmanager
def _handing_on(running: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Signals to end go to all processes."""

    def hand_on(number: int, _: Any) -> None:
        for process in running:
            with suppress(ProcessLookupError):
                process.send_signal(number)

    heard = [n for n in HANDED_ON if signal.getsignal(n) is not signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, hand_on) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
