"""A job that is killed again and again ends with the numbers of one that nobody touched."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from tiny_jobs import metrics, tiny

from egnn_prune.pipeline.main_job import run
from egnn_prune.runs.status import status_of

KILLS = 20
#: Long enough that most kills come in the middle of a fit; saved after every step.
CHANGES = {
    "training__max_epochs": 30,
    "training__finetune_epochs": 20,
    "trainer__save_minutes": 1e-4,
}
WORK = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from tiny_jobs import tiny
from egnn_prune.pipeline.main_job import run
try:
    run(tiny(Path({out!r}), **{changes!r}))
except KeyboardInterrupt:
    sys.exit(130)
"""


def without_times(content):
    times = ("latency_ms", "train_seconds")
    content = {k: v for k, v in content.items() if k not in ("git_commit", "intervals")}
    models = content["models"].items()
    content["models"] = {n: {k: v for k, v in m.items() if k not in times} for n, m in models}
    return content


@pytest.mark.slow
def test_killed_again_and_again(tmp_path):
    expected = run(tiny(tmp_path / "alone", **CHANGES))
    tests = os.path.dirname(os.path.dirname(__file__))
    code = WORK.format(tests=tests, out=str(tmp_path / "killed"), changes=CHANGES)
    draw, seen, stages = random.Random(0), 0, set()
    for attempt in range(200):
        start = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as job:
            wait = draw.uniform(0.0, 8.0) if seen < KILLS else 600.0
            while job.poll() is None and not (tmp_path / "killed" / "stages").exists():
                time.sleep(0.02)
            try:
                job.wait(wait + (7.0 if attempt else 0.0))  # it has to import torch first
            except subprocess.TimeoutExpired:
                stages.add(status_of(tmp_path / "killed").stage)
                job.send_signal(draw.choice([signal.SIGKILL, signal.SIGTERM]))
                seen += 1
            error = job.stderr.read().decode()
        assert "Traceback" not in error, error[-2000:]
        if job.returncode == 0:
            break
        assert time.monotonic() - start < 600
    assert seen >= KILLS // 2 and len(stages) > 2, (seen, stages)
    assert without_times(metrics(tmp_path / "killed")) == without_times(metrics(expected))
    for name in ("dense.safetensors", "pruned.safetensors"):
        mine, theirs = (tmp_path / "killed" / name).read_bytes(), (expected / name).read_bytes()
        assert mine == theirs
    assert not (tmp_path / "killed" / "unfinished").exists()
