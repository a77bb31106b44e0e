"""Several processes that work on one job: which one this is, and what they tell each other.

All of them run the same code. What must not differ between them is decided by the first one, and
only the first one writes files. In a process that works alone nothing of this does anything, and
torch's part of it is not even imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from typing import Any, TypeVar

from egnn_prune.errors import ConfigError, InputError

T = TypeVar("T")

#: What torchrun and :mod:`launch` tell a process: its rank, how many there are, its number here.
TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
#: The same, in the words of ``srun``; in a batch script or an allocation the second is not there.
TOLD_BY_SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
#: How long the processes may be in coming.
RENDEZVOUS = timedelta(minutes=10)
#: Whoever waits for the first process waits for a whole stage; one that died is noticed at once.
PATIENCE = timedelta(days=30)

_place = 0, 1


def place() -> tuple[int, int]:
    """Rank of this process and how many there are: ``(0, 1)`` outside of :func:`several`."""
    return _place


def is_first() -> bool:
    """Whether this is the process that decides, writes and prints."""
    return _place[0] == 0


def told() -> tuple[int, int, int] | None:
    """Rank, number of processes and number on this machine, where a launcher told them.

    Raises:
        ConfigError: they are no numbers.
    """
    for names in (TOLD, TOLD_BY_SLURM):
        if all(name in os.environ for name in names):
            try:
                rank, count, here = (int(os.environ[name]) for name in names)
            except ValueError:
                raise ConfigError(f"{', '.join(names)} must be numbers; unset them") from None
            if count > 1 or names is TOLD:
                return rank, count, here
    return None


@contextmanager
def several(devices: int, nodes: int = 1, device: Any = None) -> Iterator[Any]:
    """Within this context the processes that were started for a job know each other.

    Args:
        devices: processes on each machine.
        nodes: machines.
        device: what all were told to compute on, a ``torch.device``.

    Yields:
        What this process computes on: of several GPUs of a machine, one of its own.

    Raises:
        ConfigError: there are not as many processes, or not as many GPUs.
    """
    global _place
    if devices * nodes == 1:
        yield device
        return
    found = told()
    if found is None or found[1] != devices * nodes:
        raise ConfigError(
            f"trainer.devices={devices} and trainer.nodes={nodes} need {devices * nodes} "
            f"processes, and there {'is 1' if found is None else f'are {found[1]}'}; start them by "
            "`egnn-prune train trainer.devices=N` (on one machine), torchrun or srun"
        )
    import torch
    from torch import distributed

    rank, count, here = found
    on_gpus = device is not None and device.type == "cuda"
    if on_gpus:
        if TOLD_BY_SLURM[0] in os.environ and torch.cuda.device_count() == 1:
            here = 0  # each task sees its own
        if here >= torch.cuda.device_count():
            raise ConfigError(
                f"trainer.devices={devices} needs as many GPUs, and torch finds "
                f"{torch.cuda.device_count()}"
            )
        device = torch.device("cuda", here)
        torch.cuda.set_device(device)
    _tell_torch(rank, count, here, devices)
    if not distributed.is_initialized():  # it lives as long as the process
        _meet(rank, count, "cpu:gloo,cuda:nccl" if on_gpus else "gloo")
    _place = rank, count
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            if rank:
                with redirect_stdout(nowhere):
                    yield device
            else:
                yield device
    finally:
        _place = 0, 1


def _meet(rank: int, count: int, backend: str) -> None:
    """Wait until all processes are there.

    Raises:
        ConfigError: some did not come.
    """
    from torch import distributed

    try:
        store, *_ = next(distributed.rendezvous("env://", rank, count, timeout=RENDEZVOUS))
        store.set_timeout(PATIENCE)
        distributed.init_process_group(
            backend,
            store=distributed.PrefixStore("egnn_prune", store),
            rank=rank,
            world_size=count,
            timeout=PATIENCE,
        )
    except distributed.DistError as error:
        raise ConfigError(
            f"process {rank} of {count} did not meet the others in {RENDEZVOUS.seconds // 60} "
            f"minutes ({str(error).splitlines()[0][:100]}); are all of them started?"
        ) from None


def _tell_torch(rank: int, count: int, here: int, devices: int) -> None:
    """Say it in torchrun's words, which torch and Lightning read; SLURM also knows the first host.

    Raises:
        ConfigError: nobody says where the first process is.
    """
    values = {name: str(value) for name, value in zip(TOLD, (rank, count, here), strict=True)}
    values["LOCAL_WORLD_SIZE"] = str(devices)
    if "MASTER_ADDR" not in os.environ:
        if TOLD_BY_SLURM[0] not in os.environ:
            raise ConfigError("MASTER_ADDR and MASTER_PORT are not set; start by torchrun or srun")
        from lightning.fabric.plugins.environments import SLURMEnvironment

        machines = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST", "")
        job = "".join(c for c in os.environ.get("SLURM_JOB_ID", "") if c.isdigit())[-4:]
        values |= {
            "MASTER_ADDR": SLURMEnvironment.resolve_root_node_address(machines or "127.0.0.1"),
            "MASTER_PORT": str(15000 + int(job or 0)),
        }
    os.environ.update(values)


def broadcast(value: T) -> T:
    """What the first process has."""
    if _place[1] == 1:
        return value
    from torch import distributed

    box = [value if is_first() else None]
    distributed.broadcast_object_list(box, src=0)
    found: Any = box[0]
    return found


def decided(work: Callable[[], T]) -> T:
    """What the first process makes of it alone; the others wait, and fail with the same sentence.

    Raises:
        InputError: of the work.
    """
    global _place
    if _place[1] == 1:
        return work()
    found: tuple[T | None, InputError | None] = None, None
    if is_first():
        before, _place = _place, (0, 1)
        try:
            found = work(), None
        except InputError as error:
            found = None, error
        finally:
            _place = before
    value, wrong = broadcast(found)
    if wrong is not None:
        raise wrong
    return value  # type: ignore[return-value]


def after_the_first(work: Callable[[], T]) -> T:
    """What each process makes of it, the others when the first one has left its files.

    Raises:
        InputError: of the work.
    """
    mine: list[T] = []
    decided(lambda: mine.append(work()))
    return mine[0] if mine else work()


def gathered(value: T) -> list[T]:
    """What each process has, in the order of their ranks."""
    if _place[1] == 1:
        return [value]
    from torch import distributed

    found: list[Any] = [None] * _place[1]
    distributed.all_gather_object(found, value)
    return found


def total(number: float) -> float:
    """The sum of what the processes have."""
    return number if _place[1] == 1 else _reduced(number, "SUM")


def any_of_us(truth: bool) -> bool:
    """Whether it is true in one of the processes."""
    return truth if _place[1] == 1 else _reduced(float(truth), "MAX") > 0


def _reduced(number: float, how: str) -> float:
    import torch
    from torch import distributed

    box = torch.tensor(number, dtype=torch.float64)
    distributed.all_reduce(box, getattr(distributed.ReduceOp, how))
    return float(box)


def part_of(everything: Sequence[T]) -> Sequence[T]:
    """This process's share: every so manieth, beginning with its rank."""
    rank, count = _place
    return everything if count == 1 else everything[rank::count]


def joined(parts: Sequence[Sequence[T]]) -> list[T]:
    """The opposite of :func:`part_of`: everything in its order, of the parts of all processes."""
    rows = [parts[k % len(parts)] for k in range(sum(map(len, parts)))]
    return [part[k // len(parts)] for k, part in enumerate(rows)]


def agree_on_draws() -> None:
    """Give all processes the random state of the first: each draws what its own part needs."""
    if _place[1] == 1:
        return
    import torch

    torch.set_rng_state(broadcast(torch.get_rng_state()))
    if torch.cuda.is_available():
        torch.cuda.set_rng_state(broadcast(torch.cuda.get_rng_state()))
