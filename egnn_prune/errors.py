"""The one exception that means "the input is wrong", as opposed to "the program is wrong"."""

from __future__ import annotations

import errno


class InputError(ValueError):
    """Something that the user handed us cannot be used; the message says what and what to do.

    Scripts print the message alone, without a stack trace, and exit with code 2.
    """


class DataError(InputError):
    """A graph, a data set or a file holds something that cannot be used."""


class ConfigError(InputError):
    """A setting is outside its range, or two settings contradict each other."""


class MissingExtraError(ConfigError, ImportError):
    """Something was asked for that needs a library which an extra of this package brings."""


class SuspiciousDataWarning(UserWarning):
    """Legal for the network, but probably not what the user meant."""


class UncheckedFileWarning(UserWarning):
    """A file of an earlier version has no checksum: whether it is intact, nobody knows."""


def out_of_memory_sentence(error: BaseException) -> str | None:
    """What to tell a user where a GPU's memory was full; ``None`` for other errors.

    Told by the name, so that scripts need not import torch to look for it.
    """
    if not any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return None
    return (
        "the GPU's memory is full; make batches smaller (training.batch_size, --batch-size), the "
        "model narrower, close other programs that use the GPU, or use device=cpu"
    )


def lost_process_sentence(error: BaseException) -> str | None:
    """What to tell a user where another process of the same job is gone; ``None`` for others."""
    text = str(error)
    of_gloo = "gloo/transport" in text or "connectFullMesh" in text
    if not of_gloo and not any(kind.__name__ == "DistBackendError" for kind in type(error).__mro__):
        return None
    return "another process of this job has ended; what it says is the reason"


def file_sentence(error: OSError) -> str | None:
    """What to tell a user where the system refuses a file; ``None`` for other errors.

    A name that is too long, a folder that may not be read, a disk that is full or went away.
    """
    if error.filename is not None and error.strerror:
        name = str(error.filename)
        shown = name if len(name) < 200 else f"{name[:100]}..."
        return f"cannot use {shown}: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO):
        return f"a file could not be written or read: {error.strerror}; free some space"
    return None
