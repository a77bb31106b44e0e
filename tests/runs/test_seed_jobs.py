"""Seeds as jobs: the same rows wherever they run, whatever happens to their processes."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
import seed_work
from seed_work import WorkSettings, work

from egnn_prune.configs.settings import JobsSettings
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.runs import seed_jobs
from egnn_prune.runs.seed_jobs import LOGS, over_seeds


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Jobs import the work by its name, as they import a module of the package."""
    tests = str(Path(seed_work.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")]))


def rows(settings: WorkSettings, seeds):
    out = Path(settings.out)
    out.mkdir(exist_ok=True)
    return over_seeds(work, settings, seeds, out)


def calls(settings: WorkSettings, seed: int) -> int:
    return len((Path(settings.out) / f"calls{seed}").read_text())


@pytest.mark.parametrize(
    "seeds", [[3, 2, 0], pytest.param([3, 1, 2, 0, 7, 5, 6, 4], marks=pytest.mark.slow)]
)
def test_a_killed_worker_begins_again(tmp_path, capsys, seeds):
    """The sweep completes with the rows of one process."""
    alone = rows(WorkSettings(str(tmp_path / "alone"), workers=1), seeds)
    settings = WorkSettings(str(tmp_path / "out"), workers=4, dies=2)
    assert rows(settings, seeds) == alone and [r["seed"] for r in alone[::2]] == seeds
    assert {seed for seed in seeds if calls(settings, seed) != 1} == {2}
    assert calls(settings, 2) == 2
    assert (
        f"{len(seeds)}/{len(seeds)}" in capsys.readouterr().err
        and not (tmp_path / "out" / LOGS).exists()
    )


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
(here / f"{{number}}.pid").write_text(str(job.pid))
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


@pytest.mark.skipif(sys.platform != "linux", reason="the stand-ins look into /proc")
@pytest.mark.parametrize("dies", [-1, pytest.param(1, marks=pytest.mark.slow)])
def test_jobs_of_slurm_are_asked_for_as_they_should_be(tmp_path, monkeypatch, dies):
    here = tmp_path / "cluster"
    here.mkdir()
    (tmp_path / "bin").mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scancel": SRUN}.items():
        file = tmp_path / "bin" / name
        file.write_text(text.format(python=sys.executable, here=str(here)))
        file.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]))
    monkeypatch.setattr(seed_jobs, "ASK_S", 1.0)
    asked = JobsSettings("slurm", 2, "gpu", 90, 1, ["account=chemistry", "mem=8G"])
    settings = WorkSettings(str(tmp_path / "out"), threads=3, dies=dies, jobs=asked)
    alone = rows(WorkSettings(str(tmp_path / "alone"), workers=1), [0, 1])
    assert rows(settings, [0, 1]) == alone and calls(settings, 1) == 1 + (dies == 1)
    scripts = [file.read_text() for file in here.glob("*.sh")]
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
        rows(settings, [0, 1])
