"""A job that is killed again and again ends with the numbers of one that nobody touched."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from tiny_jobs import metrics

from egnn_prune.runs.status import status_of

KILLS = 20
#: Long enough that most kills come in the middle of a fit; saved after every step.
CHANGES = {
    "training__max_epochs": 60,
    "training__finetune_epochs": 40,
    "trainer__save_minutes": 1e-9,
}
#: The job in a process of its own, which says when all is imported, and writes down every step that
#: it begins.
WORK = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tiny_jobs import tiny
from egnn_prune.pipeline.main_job import run
from egnn_prune.training import FitCheckpoint
file = os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
begins = FitCheckpoint.on_train_batch_start
def noted(self, trainer, *more):
    begins(self, trainer, *more)
    os.write(file, f"{{self.path.stem}} {{trainer.global_step}}\\n".encode())
FitCheckpoint.on_train_batch_start = noted
settings = tiny(Path(sys.argv[2]), **{changes!r})
print("begun", file=sys.__stdout__, flush=True)
try:
    run(settings)
except KeyboardInterrupt:
    sys.exit(130)
"""


def without_times(content):
    times = ("latency_ms", "train_seconds")
    content = {k: v for k, v in content.items() if k not in ("git_commit", "intervals")}
    models = content["models"].items()
    content["models"] = {n: {k: v for k, v in m.items() if k not in times} for n, m in models}
    return content


def worked(out: Path, steps: Path, wait: float, draw: random.Random) -> tuple[int, str, str]:
    """The job, killed after so many seconds of work: its exit status, signal and stage."""
    command = [sys.executable, "-W", "ignore", "-c", WORK.format(changes=CHANGES)]
    with (
        open(steps.with_suffix(".out"), "w+") as said,
        open(steps.with_suffix(".err"), "w+") as error,
        subprocess.Popen(
            [*command, Path(__file__).parents[1], out, steps], stdout=said, stderr=error
        ) as job,
    ):
        while job.poll() is None and "begun" not in Path(said.name).read_text():
            time.sleep(0.02)
        kind, stage = "", ""
        try:
            job.wait(wait)
        except subprocess.TimeoutExpired:
            kind, stage = draw.choice(["SIGKILL", "SIGTERM"]), status_of(out).stage
            job.send_signal(getattr(signal, kind))
            job.wait(600)
        text = Path(error.name).read_text()
    assert "Traceback" not in text, text[-2000:]
    return job.returncode, kind, stage


@pytest.mark.slow
def test_killed_again_and_again(tmp_path):
    """Where a job ends before there were kills enough, another one begins."""
    expected, start = tmp_path / "alone", time.monotonic()
    assert worked(expected, tmp_path / "steps", 3600, random.Random()) == (0, "", "")
    whole = time.monotonic() - start
    draw, kills, stages, jobs, begun = random.Random(0), Counter(), Counter(), 0, Counter()
    while jobs == 0 or kills.total() < KILLS:
        out, steps = tmp_path / f"killed{jobs}", tmp_path / f"steps{jobs}"
        status, jobs = -1, jobs + 1
        while status != 0:
            wait = draw.uniform(0, whole / 4) if kills.total() < KILLS else 60 * whole
            status, kind, stage = worked(out, steps, wait, draw)
            kills[kind] += bool(kind)
            stages[stage] += bool(kind)
        begun.update(f"{jobs} {line}" for line in steps.read_text().splitlines())
        assert without_times(metrics(out)) == without_times(metrics(expected))
        for name in ("dense.safetensors", "pruned.safetensors"):
            assert (out / name).read_bytes() == (expected / name).read_bytes()
        assert not (out / "unfinished").exists()
    again = begun.total() - len(begun)
    print(f"{jobs} jobs survived {dict(+kills)}, in {dict(+stages)}")
    print(f"{begun.total()} steps begun, of which {again} a second time")
    assert len(+stages) > 2 and again <= kills["SIGKILL"], (stages, again)
