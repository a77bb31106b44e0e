"""Seeds as jobs: the same rows wherever they run, whatever happens to their processes."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import seed_work
from seed_work import WorkSettings, work

from egnn_prune.configs.settings import JobsSettings
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.runs import finished_seeds, seed_jobs
from egnn_prune.runs.finished_seeds import FINISHED
from egnn_prune.runs.seed_jobs import LOGS, over_seeds


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Jobs import the work by its name, as they import a module of the package."""
    monkeypatch.setattr(finished_seeds, "git_commit", lambda: None)  # somebody may work on it
    tests = str(Path(seed_work.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")]))


def rows(settings: WorkSettings, seeds):
    out = Path(settings.out)
    out.mkdir(exist_ok=True)
    return over_seeds(work, settings, seeds, out)


def calls(settings: WorkSettings, seed: int) -> int:
    return len((Path(settings.out) / f"calls{seed}").read_text())


def test_a_killed_worker_begins_again(tmp_path, capsys, monkeypatch):
    """The sweep completes with the rows of one process, and again without any process."""
    seeds = [3, 1, 2, 0, 7, 5, 6, 4]
    alone = rows(WorkSettings(str(tmp_path / "alone"), workers=1), seeds)
    settings = WorkSettings(str(tmp_path / "out"), workers=4, dies=2)
    assert rows(settings, seeds) == alone and [r["seed"] for r in alone[::2]] == seeds
    assert {seed: calls(settings, seed) for seed in seeds if calls(settings, seed) != 1} == {2: 2}
    assert "8/8" in capsys.readouterr().err and not (tmp_path / "out" / LOGS).exists()
    monkeypatch.setattr(seed_jobs, "_Jobs", lambda *_: pytest.fail("a process would begin"))
    assert rows(settings, seeds) == alone and not (tmp_path / "out" / LOGS).exists()


@pytest.mark.slow
def test_what_fails_is_told_and_the_others_finish(tmp_path):
    settings = WorkSettings(str(tmp_path / "out"), workers=4, fails=1, wrong=2, dies=3, always=True)
    settings.jobs.retries = 1
    with pytest.raises(InputError) as caught:
        rows(settings, [0, 1, 2, 3])
    told = str(caught.value)
    assert told.startswith("3 of 4 seeds failed (seed 1: ZeroDivisionError: a fault of ours, see ")
    assert "seed 2: the file has no forces; seed 3: its process was killed 2 times, see" in told
    log = Path(told.split("a fault of ours, see ")[1].split(";")[0])
    assert "ZeroDivisionError" in log.read_text()
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700 and not list(log.parent.glob("*.pkl"))
    assert (tmp_path / "out/seed0.json").exists() and calls(settings, 3) == 2
    kept = {file.name for file in (tmp_path / "out" / FINISHED).iterdir()}
    assert kept == {"seed0.json"}
    again = WorkSettings(settings.out, workers=1)
    assert len(rows(again, [0, 1, 2, 3])) == 8


def test_options_of_a_cluster_belong_to_it(tmp_path):
    settings = WorkSettings(str(tmp_path), jobs=JobsSettings(partition="gpu"))
    with pytest.raises(ConfigError, match=r"jobs\.partition belongs to jobs\.cluster=slurm"):
        rows(settings, [0])
    settings.jobs.cluster = "slurm"
    with pytest.raises(ConfigError, match="needs srun and sbatch, which are not here"):
        rows(settings, [0])


#: Stand-ins for a cluster's commands: jobs run on this machine, what was asked for is kept.
SBATCH = """#!{python}
import os, pathlib, subprocess, sys
here = pathlib.Path({here!r})
number = 100 + len(list(here.glob("*.sh")))
script = pathlib.Path(sys.argv[-1]).read_text()
(here / f"{{number}}.sh").write_text(script)
own = dict(SLURM_JOB_ID=str(number), SLURM_NTASKS="1", SLURM_JOB_NUM_NODES="1", SLURM_NODEID="0",
           SLURM_PROCID="0", SLURM_LOCALID="0", SLURM_JOB_NODELIST="here")
job = subprocess.Popen(["bash", str(here / f"{{number}}.sh")], env={{**os.environ, **own}},
                       stdout=open(here / f"{{number}}.out", "w"), stderr=subprocess.STDOUT,
                       start_new_session=True)
(here / f"{{number}}.new").write_text(str(job.pid))
(here / f"{{number}}.new").rename(here / f"{{number}}.pid")
print("Submitted batch job", number)
"""
SRUN = """#!{python}
import subprocess, sys
sys.exit(subprocess.call(sys.argv[sys.argv.index(sys.executable):]))
"""
SACCT = """#!{python}
import os, pathlib, sys
print("JobID|State|NodeList")
for file in sorted(pathlib.Path({here!r}).glob("*.pid")):
    try:
        state = open(f"/proc/{{file.read_text()}}/stat").read().split()[2]
    except OSError:
        state = "Z"
    print(f"{{file.stem}}|{{'FAILED' if state == 'Z' else 'RUNNING'}}|here")
"""
SCANCEL = """#!{python}
import os, pathlib, signal, sys
job = pathlib.Path({here!r}) / sys.argv[1]
job.with_suffix(".cancelled").touch()
os.killpg(int(job.with_suffix(".pid").read_text()), signal.SIGKILL)
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Path:
    """A folder with ``NUMBER.sh`` and ``NUMBER.pid`` of every job, and what is left in it ends."""
    here = tmp_path / "cluster"
    here.mkdir()
    (tmp_path / "bin").mkdir()
    scripts = {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scancel": SCANCEL}
    for name, text in scripts.items():
        file = tmp_path / "bin" / name
        file.write_text(text.format(python=sys.executable, here=str(here)))
        file.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]))
    monkeypatch.setattr(seed_jobs, "ASK_S", 1.0)
    yield here
    for file in here.glob("*.pid"):
        with suppress(OSError):
            os.killpg(int(file.read_text()), signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="the stand-ins look into /proc")
@pytest.mark.parametrize("dies", [-1, pytest.param(1, marks=pytest.mark.slow)])
def test_jobs_of_slurm_are_asked_for_as_they_should_be(tmp_path, cluster, dies):
    asked = JobsSettings("slurm", 2, "gpu", 90, 1, ["account=chemistry", "mem=8G"])
    settings = WorkSettings(str(tmp_path / "out"), threads=3, dies=dies, jobs=asked)
    alone = rows(WorkSettings(str(tmp_path / "alone"), workers=1), [0, 1])
    assert rows(settings, [0, 1]) == alone and calls(settings, 1) == 1 + (dies == 1)
    scripts = [file.read_text() for file in cluster.glob("*.sh")]
    assert len(scripts) == 2 + (dies == 1)  # one of them again
    for line in (
        "--partition=gpu",
        "--time=90",
        "--cpus-per-task=3",
        "--gpus-per-node=1",
        "--account=chemistry",
        "--mem=8G",
        "--job-name=egnn-prune",
    ):
        assert all(f"#SBATCH {line}\n" in script for script in scripts), line
    settings.jobs.options = ["acount=chemistry"]
    with pytest.raises(ConfigError, match=r"jobs\.options=.* cannot be used: Unavailable param"):
        rows(settings, [0, 1, 2])  # finished ones need no jobs


class NotHandled(Exception):
    """A signal went to whoever had it before."""


@pytest.mark.skipif(sys.platform != "linux", reason="the stand-ins look into /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_who_ends_a_study_cancels_its_jobs(tmp_path, cluster, number):
    def not_handled(*_):
        raise NotHandled

    def end():
        for _ in range(600):
            if len(list(cluster.glob("*.pid"))) == 2:
                break
            time.sleep(0.1)
        os.kill(os.getpid(), number)
        if not ended.wait(20):  # nobody listens; the test shall fail, and not hang
            for file in cluster.glob("*.pid"):
                os.killpg(int(file.read_text()), signal.SIGKILL)

    ended, jobs = threading.Event(), JobsSettings("slurm", retries=0)
    settings = WorkSettings(str(tmp_path / "out"), waits=True, jobs=jobs)
    before = signal.signal(number, not_handled)
    ender = threading.Thread(target=end)
    try:
        ender.start()
        with pytest.raises(KeyboardInterrupt):
            rows(settings, [0, 1])
        assert signal.getsignal(number) is not_handled
    finally:
        ended.set()
        ender.join()
        signal.signal(number, before)
    jobs = [int(file.read_text()) for file in cluster.glob("*.pid")]
    assert len(jobs) == 2 == len(list(cluster.glob("*.cancelled")))
    wait_until(lambda: not any(map(works, jobs)))
    assert not any((tmp_path / "out" / LOGS).iterdir())


STUDY = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as if the tests were run without nohup
signal.signal(signal.SIGINT, signal.default_int_handler)
from seed_work import WorkSettings, work
from egnn_prune.cli.script import one_sentence
from egnn_prune.runs.seed_jobs import over_seeds
with one_sentence(resumable=True):
    over_seeds(work, WorkSettings(sys.argv[1], waits=True), [0, 1, 2], Path(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_study(tmp_path, number):
    command = [sys.executable, "-W", "ignore", "-c", STUDY, str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as study:
        said = [tmp_path / f"ids{seed}.json" for seed in (0, 1)]
        wait_until(lambda: all(file.exists() for file in said), 120)
        ids = [process for file in said for process in json.loads(file.read_text())["ids"]]
        assert all(map(works, ids)) and len(set(ids)) == 4
        if number == signal.SIGINT:  # as a terminal does it
            os.killpg(study.pid, number)
        else:
            study.send_signal(number)
        study.wait(60)
        wait_until(lambda: not any(map(works, ids)))
        error = study.stderr.read().decode()
    if number == signal.SIGKILL:
        assert study.returncode == -number
    else:
        assert study.returncode == 130 and "Traceback" not in error, error
        assert "Interrupted; the same command continues" in error
        assert not any((tmp_path / LOGS).iterdir())


def works(process: int) -> bool:
    """Whether a process is there and not only its exit code."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(reached, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
