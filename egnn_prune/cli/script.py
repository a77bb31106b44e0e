"""What the scripts with plain arguments share: quiet imports, and errors of one sentence."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable

from egnn_prune.errors import InputError, out_of_memory_sentence
from egnn_prune.system.lazy_imports import naming_extras


def run_script(work: Callable[[], object]) -> None:
    """Do the work of a script.

    Exit code 2 with one sentence on stderr when the input is wrong or a GPU's memory is
    full, 130 when it is interrupted.

    Args:
        work: imports what it needs itself, so that ``--help`` does not wait for torch.
    """
    # torch-geometric uses what torch deprecates: true, but nothing that a user can mend
    warnings.filterwarnings("ignore", r".torch\.jit\.", FutureWarning)
    warnings.filterwarnings("ignore", r".torch\.jit\.", DeprecationWarning)
    # threads that spin while they wait make a busy machine a hundred times slower, not faster
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with naming_extras():
            work()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; nothing half-written is left", file=sys.stderr)
        sys.exit(130)
    except RuntimeError as error:
        sentence = out_of_memory_sentence(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(2)
