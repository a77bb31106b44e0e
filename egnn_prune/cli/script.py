"""What all commands share: how loud they are, errors of one sentence, exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from egnn_prune.cli.streams import NORMAL, TRACES, streams
from egnn_prune.errors import (
    InputError,
    file_sentence,
    lost_process_sentence,
    out_of_memory_sentence,
)
from egnn_prune.system.launch import LOST_ANOTHER
from egnn_prune.system.lazy_imports import naming_extras

#: Exit codes. 1 is left to commands whose answer is no: dynamics exploded, a benchmark too slow.
USER_ERROR, INTERRUPTED = 2, 130


def run_script(work: Callable[[], object], level: int = NORMAL) -> None:
    """Do the work of a command, see :func:`one_sentence`.

    Args:
        work: imports what it needs itself, so that ``--help`` does not wait for torch.
        level: how loud, see :func:`egnn_prune.cli.streams.verbosity`.
    """
    with one_sentence(level), streams(level):
        work()


@contextmanager
def one_sentence(level: int = NORMAL, resumable: bool = False) -> Iterator[None]:
    """Exit with code 2 and one sentence on stderr where the input is wrong or a GPU's memory full.

    With 130 where it is interrupted.

    Args:
        level: with :data:`egnn_prune.cli.streams.TRACES` the stack trace comes first.
        resumable: whether the same command continues what was interrupted.
    """
    # threads that spin while they wait make a busy machine a hundred times slower, not faster
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    again = "the same command continues from what is saved (egnn-prune status shows it)"
    try:
        with naming_extras():
            yield
    except InputError as error:
        fail(str(error), traces=level >= TRACES)
    except KeyboardInterrupt:
        left = again if resumable else "nothing half-written is left"
        print(f"Interrupted; {left}.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # as of `... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except OSError as error:
        sentence = file_sentence(error)
        if sentence is None:
            raise
        fail(sentence, traces=level >= TRACES)
    except RuntimeError as error:
        sentence, lost = out_of_memory_sentence(error), lost_process_sentence(error)
        if lost is not None:
            fail(lost, level >= TRACES, LOST_ANOTHER)
        if sentence is None:
            raise
        fail(f"{sentence}; {again}" if resumable else sentence, traces=level >= TRACES)


def fail(message: str, traces: bool = False, code: int = USER_ERROR) -> NoReturn:
    """Print one sentence, after the stack trace where that is asked for, and exit with a code."""
    if traces:
        traceback.print_exc()
    shown = message.encode(errors="backslashreplace").decode()  # names of files may be no text
    print(f"error: {shown}", file=sys.stderr)
    sys.exit(code)
