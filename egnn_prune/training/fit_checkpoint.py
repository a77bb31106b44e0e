"""A fit that survives: its whole state in a file, at most some minutes old."""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from egnn_prune.errors import ConfigError
from egnn_prune.system.distributed import any_of_us, decided, gathered, place
from egnn_prune.system.files import atomic, write_json
from egnn_prune.training.resumable import ResumableSampler

#: What systems send before they end a process: SLURM (``--signal=USR1``, too), a closed terminal.
SIGNALS = [getattr(signal, n) for n in ("SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, n)]
#: The entry of Lightning's checkpoint with what Lightning does not keep.
KEY = "egnn_prune_fit"


class FitCheckpoint(Callback):
    """Saves a fit between two steps: weights, masks, optimiser, rate, callbacks, draws.

    Who fits with the same file again goes on from there and finds the numbers of an undisturbed
    fit. Put this first in the list of callbacks: what others do at the beginning of a step then
    happens after the save, and again after the restart. Lightning reads the file with
    ``weights_only``, so nothing in it is run. Several processes that share a fit save together.

    Args:
        path: the file.
        minutes: from one save to the next; a fit that is asked to end (SIGTERM) saves before.
        clock: tells the time, in seconds.

    Attributes:
        seconds: wall time of the fit up to its last save, in all processes that worked on it.
        started: whether the fit began, or went on.
        asked: whether the system asked for the end (SIGTERM, SIGHUP): it comes before the next
            step, where all state is known, and after a save.

    Example:
        >>> batches, checkpoint = graph_batches(graphs, 32), FitCheckpoint(path)
        >>> seconds = fit(task, batches, device=device, checkpoint=checkpoint)
    """

    def __init__(
        self, path: Path, minutes: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path, self.minutes, self.clock = path, minutes, clock
        self.seconds, self.started, self.asked = 0.0, False, False
        self._sampler: ResumableSampler | None = None
        self._batch_size = 1
        self._since = self._saved = clock()
        self._rng: dict[str, Any] = {}
        self._ended = False

    def prepare(self, train: Any) -> Path | None:
        """Look at what draws the training graphs, and say what the fit goes on from, if anything.

        A damaged file is work that is lost, and no reason to stop: the fit begins anew.

        Raises:
            ConfigError: these batches cannot be begun in the middle.
        """
        sampler = getattr(train, "sampler", None)
        if not isinstance(sampler, ResumableSampler):
            raise ConfigError("only a fit on graph_batches(...) can be saved and continued")
        self._sampler, self._batch_size = sampler, train.batch_size
        self._since = self._saved = self.clock()
        return decided(self._whole)

    def _whole(self) -> Path | None:
        if not self.path.exists():
            return None
        try:
            torch.load(self.path, map_location="cpu", weights_only=True)[KEY]
        except (PermissionError, MemoryError):  # it may be whole
            raise
        except Exception as error:  # torch, zip files and pickles raise some ten different ones
            warnings.warn(
                f"{self.path} is damaged ({type(error).__name__}); the fit begins anew",
                stacklevel=3,
            )
            return None
        return self.path

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """All that was saved fits; from here on the system may ask for the end."""
        self.started = True
        if self._rng:  # saved when a batch was ready and not begun: it is counted again
            counted = trainer.fit_loop.epoch_loop.batch_progress.total
            counted.ready = counted.completed
        for number in _heard():  # fit gives them back
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        """Go on with the saved draws; save where it is time."""
        self.draw_on()
        if any_of_us(self.asked or self.clock() - self._saved >= 60 * self.minutes):
            self.asked = any_of_us(self.asked)
            self.save(trainer)
            if self.asked:
                raise SIGTERMException

    def draw_on(self) -> None:
        """Give the generators the state that was saved, if that was not done yet."""
        if self._rng:
            _set_rng(self._rng)
            self._rng = {}

    def save(self, trainer: L.Trainer, ended: bool = False) -> None:
        """Write the file now.

        Args:
            trainer: of the fit.
            ended: the fit has made all its steps; who continues takes its result.

        Raises:
            ConfigError: a weight is NaN or infinite; the file stays as it was.
            InputError: the file cannot be written.
        """
        if not all(bool(p.isfinite().all()) for p in trainer.lightning_module.parameters()):
            raise diverged()
        now = self.clock()
        self.seconds += now - self._since
        self._since = self._saved = now
        self._ended = ended
        with atomic(self.path) as temporary:
            trainer.save_checkpoint(temporary)
        steps = trainer.estimated_stepping_batches
        far = {"step": trainer.global_step, "steps": steps, "seconds": round(self.seconds, 3)}
        write_json(self.path.with_suffix(".json"), far)  # for who looks from outside
        gathered(None)  # nobody ends before the file is there

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """What Lightning does not keep: draws, time, and whether all is done."""
        assert self._sampler is not None
        checkpoint[KEY] = {
            "rest": [part.fit_state() for part in _parts(trainer)],
            "rng": gathered(_rng()),
            "begun": self._sampler.begun,
            "used": trainer.fit_loop.epoch_loop.batch_progress.current.completed,
            "weights": self._sampler.weights,
            "seconds": self.seconds,
            "ended": self._ended,
            "steps": trainer.max_steps,
        }

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """The opposite of :meth:`on_save_checkpoint`."""
        assert self._sampler is not None
        found = checkpoint[KEY]
        if found["steps"] != trainer.max_steps:
            raise ValueError(
                f"it is of {found['steps']} steps, and {trainer.max_steps} are asked for"
            )
        for part, state in zip(_parts(trainer), found["rest"], strict=True):
            part.set_fit_state(state)
        (rank, count), states = place(), found["rng"]
        self._rng = states[rank] if len(states) == count else states[0]
        self.seconds = found["seconds"]
        if found["ended"]:
            trainer.should_stop = True
        self._sampler.resume(found["begun"], found["used"] * self._batch_size)
        if found["weights"] is not None:
            self._sampler.weights = found["weights"]
        self._since = self._saved = self.clock()


def signals_as_they_are() -> Callable[..., None]:
    """What gives signals to end the meaning back that they have now.

    Lightning puts handlers of its own there, which end a fit in the middle of a validation, talk
    to other processes from within the handler, and stay when the fit is over.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda *_: None
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def give_back(*_: Any) -> None:
        for number, handler in before.items():
            if handler is not None:  # what another language set
                signal.signal(number, handler)

    return give_back


def _heard() -> list[int]:
    """Signals that this thread may listen to; what is ignored, as by ``nohup``, stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [n for n in SIGNALS if signal.getsignal(n) not in (signal.SIG_IGN, None)]


def diverged() -> ConfigError:
    """What to say of a fit whose weights are lost."""
    return ConfigError("training diverged: a weight is NaN or infinite; lower the lr")


def _parts(trainer: L.Trainer) -> list[Any]:
    """Callbacks of ours with a state; of Lightning's kind there could be one a class."""
    return [part for part in getattr(trainer, "callbacks", []) if hasattr(part, "fit_state")]


def _rng() -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _set_rng(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    cuda: list[Tensor] = state.get("cuda", [])
    if cuda and len(cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(cuda)
