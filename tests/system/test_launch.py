"""Processes that are started together end together, and the right one is heard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from egnn_prune.system import launch as launching
from egnn_prune.system.launch import LOST_ANOTHER, launch

HEAD = "import os, sys, time; rank = int(os.environ['RANK']); "


def command(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", HEAD + code, *map(str, arguments)]


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    monkeypatch.setattr(launching, "PATIENCE_S", 0.5)


def test_each_knows_its_rank(tmp_path):
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS")
    code = f"open(sys.argv[1] + str(rank), 'w').write(' '.join(os.environ[n] for n in {names}))"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        patch.setenv("WORLD_SIZE", "7")  # of a job around this one
        assert launch(3, command(code, tmp_path / "of")) == 0
    threads = max(1, os.cpu_count() // 3)
    told = [(tmp_path / f"of{k}").read_text() for k in range(3)]
    assert told == [f"{k} {k} 3 127.0.0.1 {threads}" for k in range(3)]


def test_the_first_is_heard_and_the_others_are_not(capfd):
    assert launch(2, command("print('out', rank); print('err', rank, file=sys.stderr)")) == 0
    seen = capfd.readouterr()
    assert seen.out == "out 0\n" and seen.err == "err 0\n"


def test_where_one_fails_it_is_heard_and_all_end(capfd):
    code = "rank == 1 and sys.exit('error: no such thing'); time.sleep(60)"
    start = time.monotonic()
    assert launch(3, command(code)) == 1
    assert time.monotonic() - start < 30
    assert capfd.readouterr().err == "error: no such thing\n"


def test_who_ended_because_of_another_is_not_the_reason(capfd):
    code = (
        f"rank == 0 and (print('lost', file=sys.stderr), sys.exit({LOST_ANOTHER}));"
        "time.sleep(0.3); print('error: the reason', file=sys.stderr); sys.exit(2)"
    )
    assert launch(2, command(code)) == 2
    assert "error: the reason" in capfd.readouterr().err


def test_a_process_that_the_system_kills_is_named(capfd):
    code = "rank == 1 and os.kill(os.getpid(), 9); time.sleep(60)"
    assert launch(2, command(code)) == 137
    assert capfd.readouterr().err == "error: process 1 of 2 was ended by SIGKILL\n"


@pytest.mark.parametrize("number", launching.HANDED_ON, ids=lambda n: n.name)
def test_nohup_stays_nohup(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        code = f"rank == 0 and os.kill(int(os.environ['{launching.LAUNCHED}']), {int(number)})"
        assert launch(2, command(code)) == 0
    finally:
        signal.signal(number, before)


def test_a_signal_to_end_reaches_all(tmp_path):
    code = (
        "import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5));"
        "open(sys.argv[1] + str(rank), 'w').close(); time.sleep(60)"
    )

    def end() -> None:
        while len(list(tmp_path.glob("up*"))) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    ending = threading.Thread(target=end)
    ending.start()
    assert launch(2, command(code, tmp_path / "up")) == 5
    ending.join()
    assert signal.getsignal(signal.SIGTERM) == before


def test_who_kills_the_launcher_kills_them(tmp_path):
    inner = command(
        "from egnn_prune.system.launch import end_with_the_launcher; end_with_the_launcher();"
        "open(sys.argv[1] + str(os.getpid()), 'w').close(); time.sleep(60)",
        tmp_path / "up",
    )
    code = f"from egnn_prune.system.launch import launch; launch(2, {inner!r})"
    with subprocess.Popen([sys.executable, "-c", code]) as outer:
        while len(list(tmp_path.glob("up*"))) < 2:
            time.sleep(0.02)
        outer.kill()
    numbers = [int(path.name[2:]) for path in tmp_path.glob("up*")]
    until = time.monotonic() + 30
    while any(map(is_there, numbers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(is_there, numbers))


def is_there(number: int) -> bool:
    with suppress(OSError):
        os.kill(number, 0)
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"  # nobody may be there to fetch what is left of it
    return False
