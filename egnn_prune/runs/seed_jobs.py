"""The seeds of a study, each a job: in this process, in others, or on a cluster."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from tqdm import tqdm

from egnn_prune.configs.settings import JobsSettings
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.runs.result_store import Row
from egnn_prune.system.ending import asked_to_end

#: Seconds between two looks at the jobs, and between two questions to a cluster.
LOOK_S, ASK_S = 0.2, 30.0
#: Seconds after which the line of a study is written anew, though nothing happened.
SAY_S = 10.0
#: How long jobs on this machine are waited for once they are cancelled.
END_S = 3.0
#: The folder of what jobs print, in that of the study.
LOGS = "jobs"
#: Minutes that a process on this machine may take: a year.
NO_LIMIT = 60 * 24 * 365


class Threaded(Protocol):
    """Settings of work that is divided into seeds.

    Most also say how many ``workers`` there are and where their ``jobs`` run.

    Attributes:
        threads: of each; where it is ``None``, workers share the cores.
    """

    threads: int | None


S = TypeVar("S", bound=Threaded)
Work = Callable[[S, int], list[Row]]


def over_seeds(work: Work[S], settings: S, seeds: Sequence[int], folder: Path) -> list[Row]:
    """All rows of ``work(settings, seed)``, in the order of the seeds.

    In several processes, seeds that finished before are not begun again, see
    :class:`~egnn_prune.runs.finished_seeds.FinishedSeeds`, and Ctrl-C, SIGTERM and SIGHUP cancel
    the jobs of all others.

    Args:
        work: a function of a module (other processes import it), which keeps what it has finished:
            a seed that is begun again goes on.
        settings: of the study.
        seeds: one call each.
        folder: of the study; what jobs print is kept there until they are done.

    Raises:
        ConfigError: there is no such cluster, or it refuses what it is asked for.
        InputError: seeds failed; all others are finished.
        KeyboardInterrupt: a signal asked for the end.
    """
    jobs, workers = getattr(settings, "jobs", JobsSettings()), getattr(settings, "workers", 1)
    changed = [f"jobs.{n}" for n in _OF_SLURM if getattr(jobs, n) != getattr(JobsSettings(), n)]
    if jobs.cluster == "local" and changed:
        raise ConfigError(f"{changed[0]} belongs to jobs.cluster=slurm; leave it away")
    if jobs.cluster == "local" and workers == 1:
        parts = [_on_threads(work, settings, seed) for seed in seeds]
    else:
        if settings.threads is None and jobs.cluster == "local":
            settings.threads = max(1, (os.cpu_count() or 1) // workers)
        found = _in_processes(work, settings, jobs, workers, seeds, folder)
        parts = [found[seed] for seed in seeds]
    return [row for part in parts for row in part]


_OF_SLURM = ("partition", "minutes", "gpus", "options")


def _in_processes(
    work: Work[S],
    settings: S,
    jobs: JobsSettings,
    workers: int,
    seeds: Sequence[int],
    folder: Path,
) -> dict[int, list[Row]]:
    from egnn_prune.runs.finished_seeds import FinishedSeeds  # seconds, which no job has to wait

    kept = FinishedSeeds(folder, settings, f"{work.__module__}.{work.__qualname__}")
    found = kept.of(seeds)
    if all(seed in found for seed in seeds):
        return found
    with asked_to_end() as asked, _logs(folder) as logs, _quiet():
        _Jobs(work, settings, jobs, workers, logs, kept.keep, asked).finish(seeds, found)
        if asked():  # after the last look
            raise KeyboardInterrupt
    return found


@dataclass
class _Jobs(Generic[S]):
    """Jobs of submitit, at most so many at once; what was killed is begun again.

    Submitit pickles the work and its result into the folder of the logs. We made that folder, only
    we may write there, and it is empty when we begin: nothing that somebody else wrote is read.
    """

    work: Work[S]
    settings: S
    where: JobsSettings
    workers: int
    logs: Path
    keep: Callable[[int, list[Row]], None]
    asked_to_end: Callable[[], bool]
    running: dict[int, Any] = field(default_factory=dict)
    tries: Counter[int] = field(default_factory=Counter)
    failed: dict[int, str] = field(default_factory=dict)
    asked: float = 0.0

    def finish(self, seeds: Sequence[int], found: dict[int, list[Row]]) -> None:
        """Find the rows of every seed, but for those that are found already."""
        executor, waiting = self._executor(), deque(seed for seed in seeds if seed not in found)
        done = len(seeds) - len(waiting)
        bar = tqdm(desc="seeds", total=len(seeds), initial=done, disable=False)
        said: dict[str, int] = {}
        when = 0.0
        try:
            with bar:
                while waiting or self.running:
                    if self.asked_to_end():
                        raise KeyboardInterrupt
                    while waiting and len(self.running) < self.workers:
                        self._submit(executor, waiting.popleft())
                    for seed in self._ended():
                        outcome = self._outcome(self.running.pop(seed))
                        if isinstance(outcome, list):
                            found[seed] = outcome
                            self.keep(seed, outcome)
                        elif outcome is None and self.tries[seed] <= self.where.retries:
                            waiting.append(seed)
                            continue
                        else:
                            self.failed[seed] = outcome or self._killed(seed)
                        bar.update()
                    again = sum(self.tries.values()) - len(self.tries)
                    counts = {"running": len(self.running), "failed": len(self.failed)}
                    counts["again"] = again
                    if counts != said or time.monotonic() - when > SAY_S:  # logs are files
                        said, when = counts, time.monotonic()
                        bar.set_postfix(counts)
                    time.sleep(LOOK_S)
        except BaseException:
            self._cancel()
            if self.asked_to_end():  # the terminal may be gone, so that the bar fails
                raise KeyboardInterrupt from None
            raise
        if self.failed:
            told = "; ".join(f"seed {seed}: {why}" for seed, why in sorted(self.failed.items()))
            raise InputError(
                f"{len(self.failed)} of {len(seeds)} seeds failed ({told}); the others are "
                "finished, and the same command does the rest"
            )

    def _cancel(self) -> None:
        """End all jobs; fits on this machine save first, where they can do it soon."""
        if self.where.cluster != "local":
            for job in self.running.values():
                with suppress(OSError):  # there is no scancel
                    job.cancel(check=False)
            return
        end = time.monotonic() + END_S
        while (left := [j for j in self.running.values() if not j.done()]) and (
            time.monotonic() < end
        ):
            for job in left:  # again and again: one that just begins may miss it
                os.kill(int(job.job_id), signal.SIGTERM)
            time.sleep(LOOK_S)

    def _executor(self) -> Any:
        import submitit

        jobs = self.where
        if jobs.cluster == "local":
            executor: Any = submitit.LocalExecutor(self.logs)
            executor.update_parameters(timeout_min=NO_LIMIT)
            return executor
        if shutil.which("srun") is None or shutil.which("sbatch") is None:
            raise ConfigError("jobs.cluster=slurm needs srun and sbatch, which are not here")
        asked: dict[str, Any] = {
            "job_name": "egnn-prune",
            "time": jobs.minutes,
            "cpus_per_task": self.settings.threads or 1,
        }
        asked |= {"partition": jobs.partition} if jobs.partition else {}
        asked |= {"gpus_per_node": jobs.gpus} if jobs.gpus else {}
        for option in jobs.options:
            name, _, value = option.partition("=")
            asked[name.replace("-", "_")] = value
        try:
            executor = submitit.SlurmExecutor(self.logs)
            executor.update_parameters(**asked)
        except (ValueError, TypeError) as error:
            first = str(error).splitlines()[0]
            raise ConfigError(f"jobs.options={jobs.options} cannot be used: {first}") from None
        return executor

    def _submit(self, executor: Any, seed: int) -> None:
        local = self.where.cluster == "local"
        if local and (gpus := _visible_gpus()):  # submitit hides all that it is not told
            one = gpus[sum(self.tries.values()) % len(gpus)]
            executor.update_parameters(gpus_per_node=1, visible_gpus=(one,))
        self.tries[seed] += 1
        watched = (os.getpid(), self.logs) if local else None
        try:
            with _without_ctrl_c():
                job = executor.submit(_job, self.work, self.settings, seed, watched)
        except Exception as error:  # sbatch refuses in many ways
            last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise ConfigError(f"{self.where.cluster} refuses the job: {last}") from None
        self.running[seed] = job

    def _ended(self) -> list[int]:
        """Seeds whose jobs are over; a cluster is asked seldom about those without a result."""
        force = time.monotonic() - self.asked > ASK_S
        self.asked = time.monotonic() if force else self.asked
        return [seed for seed, job in self.running.items() if job.done(force_check=force)]

    def _outcome(self, job: Any) -> list[Row] | str | None:
        """Rows, or why there will be none, or ``None`` where the job was killed."""
        from submitit.core.utils import FailedJobError, UncompletedJobError

        if self.where.cluster == "local" and not job.paths.result_pickle.exists():
            return None
        try:
            return job.result()
        except FailedJobError as error:
            traced = [line for line in str(error).splitlines() if line.strip()]
            ends = [k for k, line in enumerate(traced) if line.startswith("-----")]
            last = traced[ends[-1] - 1] if ends else traced[-1]
            return f"{last.strip()}, see {job.paths.stderr}"
        except UncompletedJobError:
            return None

    def _killed(self, seed: int) -> str:
        return f"its process was killed {self.tries[seed]} times, see {self.logs}"


def _job(
    work: Work[S], settings: S, seed: int, watched: tuple[int, Path] | None
) -> list[Row] | str:
    """What a job does; sentences about its input are results, and no failures."""
    if watched is not None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # submitit would not listen
        threading.Thread(target=_end_with, args=watched, daemon=True).start()
    try:
        return _on_threads(work, settings, seed)
    except InputError as error:
        return str(error)


def _end_with(parent: int, logs: Path) -> None:
    """Whoever kills the study means its workers, too; who is cancelled and goes on ends as well."""
    while True:
        try:
            os.kill(parent, 0)
            logs.stat()
        except OSError:
            os._exit(1)
        time.sleep(1.0)


def _on_threads(work: Work[S], settings: S, seed: int) -> list[Row]:
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    return work(settings, seed)


def _visible_gpus() -> list[int]:
    count = torch.cuda.device_count()
    told = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return [int(told[k]) if k < len(told) and told[k].isdigit() else k for k in range(count)]


@contextmanager
def _logs(folder: Path) -> Iterator[Path]:
    """A new folder of ours; what failed jobs printed stays, what was pickled goes."""
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    logs = Path(tempfile.mkdtemp(dir=folder / LOGS)).resolve()  # readable by its owner alone
    try:
        yield logs
    except InputError:
        for path in logs.glob("*.pkl"):
            path.unlink()
        raise
    except BaseException:
        shutil.rmtree(logs, ignore_errors=True)
        raise
    else:
        shutil.rmtree(folder / LOGS, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Jobs that begin meanwhile show no bars, and nothing of what torch-geometric warns of."""
    ours = {"TQDM_DISABLE": "1"}
    ours |= {} if "PYTHONWARNINGS" in os.environ else {"PYTHONWARNINGS": "ignore::FutureWarning"}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Processes that begin meanwhile never hear of Ctrl-C, which terminals send to all.

    The study hears of it afterwards and ends them; by themselves they would print where they were.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
