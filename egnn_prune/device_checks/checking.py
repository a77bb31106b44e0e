"""Checks one after another: each alone with its failure, its time and its numbers."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from egnn_prune.system.files import write_json
from egnn_prune.system.git import git_commit
from egnn_prune.system.time_limit import OutOfTime, time_limit

SCHEMA = 1
OK, FAILED, LATE, SKIPPED = "ok", "FAILED", "out of time", "skipped"
T = TypeVar("T")
Found = dict[str, Any]


class Skipped(Exception):
    """A check has nothing to look at here; the message says why."""


class DeviceLost(Exception):
    """The device answers no more, as after an illegal access: only a new process can go on."""


@dataclass(frozen=True)
class CheckContext:
    """What the checks work with.

    Attributes:
        device: where to compute.
        quick: make everything tiny.
        folder: for files; its content can be thrown away.
    """

    device: torch.device
    quick: bool
    folder: Path

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def pick(self, full: T, quick: T) -> T:
        """One of two sizes."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Check:
    """Something that has to work.

    Attributes:
        name: in the table.
        work: see the package's docstring.
        seconds: what it may take, beside the others: it gets this share of the time that is left.
    """

    name: str
    work: Callable[[CheckContext, Found], None]
    seconds: float


@dataclass
class Outcome:
    """What became of a check: its numbers, and a sentence where it is not ok."""

    name: str
    result: str
    seconds: float
    sentence: str = ""
    found: Found = field(default_factory=dict)


def work_through(
    checks: Sequence[Check],
    context: CheckContext,
    report: Path,
    minutes: float,
    resume: bool = False,
) -> list[Outcome]:
    """Run checks; after each the report is written anew, so that nothing found is lost.

    Args:
        checks: what to do; what one leaves of its time is for the next ones.
        context: for them.
        report: the JSON file.
        minutes: for all together; what does not fit is stopped, and says so.
        resume: go on where the report ends, with the time that is left.

    Returns:
        One outcome per check.

    Raises:
        DeviceLost: call again in a new process, with ``resume``.
    """
    from egnn_prune.system.files import read_json

    content = read_json(report) if resume else {**about(context), "minutes": minutes, "checks": []}
    outcomes = [Outcome(**entry) for entry in content["checks"]]
    for k, check in enumerate(checks[len(outcomes) :], len(outcomes)):
        left = 60 * minutes - (time.time() - content["started"])
        share = check.seconds / sum(c.seconds for c in checks[k:])
        print(f"{check.name} ...", flush=True)
        outcomes.append(outcome(check, context, left * share))
        content["checks"] = [asdict(o) for o in outcomes]
        content["seconds"] = round(time.time() - content["started"], 1)
        write_json(report, content)
        if outcomes[-1].result in (FAILED, LATE) and not answers(context.device):
            raise DeviceLost
    return outcomes


def outcome(check: Check, context: CheckContext, seconds: float) -> Outcome:
    """Do one check, and never fail."""
    if seconds < 1:
        return Outcome(check.name, LATE, 0.0, "the time for all checks was over")
    found: Found = {}
    start = time.perf_counter()
    result, sentence = OK, ""
    try:
        torch.manual_seed(0)
        with time_limit(seconds):
            check.work(context, found)
    except OutOfTime:
        result, sentence = LATE, f"stopped after {seconds:.0f} s"
    except Skipped as reason:
        result, sentence = SKIPPED, str(reason)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a check must not end the others
        result = FAILED
        sentence = f"{type(error).__name__}: " + " ".join(str(error).split())[:400]
    if context.on_gpu:
        try:
            torch.cuda.empty_cache()
        except RuntimeError:
            pass  # answers() finds out
    return Outcome(check.name, result, round(time.perf_counter() - start, 2), sentence, found)


def answers(device: torch.device) -> bool:
    """Whether the device still computes."""
    try:
        return float(torch.ones(2, device=device).sum()) == 2
    except RuntimeError:
        return False


def about(context: CheckContext) -> dict[str, Any]:
    """Where and with what the checks run."""
    found: dict[str, Any] = {
        "schema_version": SCHEMA,
        "started": time.time(),
        "git_commit": git_commit(),
        "device": str(context.device),
        "quick": context.quick,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "matmul_precision": torch.get_float32_matmul_precision(),
    }
    if context.on_gpu:
        properties = torch.cuda.get_device_properties(context.device)
        found |= {
            "gpu": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "gpu_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def table(outcomes: Sequence[Outcome]) -> str:
    """One row a check, in Markdown: result, time, numbers or what went wrong."""
    lines = ["| check | result | s | numbers |", "|---|---|---|---|"]
    for o in outcomes:
        flat = {k: v for k, v in o.found.items() if not isinstance(v, dict)}
        numbers = ", ".join(f"{k} {shown(v)}" for k, v in flat.items())
        said = "; ".join(text for text in (o.sentence, numbers) if text).replace("|", "/")
        lines.append(f"| {o.name} | {o.result} | {o.seconds:.1f} | {said} |")
    return "\n".join(lines)


def shown(value: Any) -> str:
    """A number with three digits; anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def require(true: bool, sentence: str) -> None:
    """Fail with a sentence unless something is true (``assert`` can be switched off).

    Raises:
        AssertionError: it is not.
    """
    if not true:
        raise AssertionError(sentence)
