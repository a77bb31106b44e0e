"""Versions of the format of model files: what each promises, and how an old one becomes new.

========  ==========================================================================================
version   what is in the header
========  ==========================================================================================
1         class, architecture, precision, held weights, metadata; from the middle of its time on a
          checksum, too
2         the same, and always a checksum; out-of-distribution quantiles under one name
========  ==========================================================================================

A change of the format adds a row, a function to :data:`MIGRATIONS`, and files of the version before
to ``tests/deployment/gallery``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from egnn_prune.deployment.model_header import CHECKSUM, checksum
from egnn_prune.errors import InputError, UncheckedFileWarning

#: Of the files that are written now.
FORMAT = 2
#: The first version whose files all have a checksum: without one they are damaged.
ALWAYS_CHECKED = 2

Header = dict[str, Any]


def _one_name_for_the_quantiles(header: Header) -> Header:
    metadata = dict(header["metadata"])
    if (doubt := metadata.pop("validation_doubt", None)) is not None:
        metadata.setdefault("validation_epistemic_std", doubt)
    return header | {"metadata": metadata}


#: From each version to the next.
MIGRATIONS: dict[int, Callable[[Header], Header]] = {1: _one_name_for_the_quantiles}


def is_known(version: object) -> bool:
    """Whether files of a version can be read."""
    return type(version) is int and (version == FORMAT or version in MIGRATIONS)


def migrated(header: Header) -> Header:
    """What the header of a file of any known version says, in the present form."""
    while (version := header["format"]) != FORMAT:
        header = MIGRATIONS[version](header) | {"format": version + 1}
    return header


def verify(header: Mapping[str, Any], tensors: Mapping[str, Tensor], path: object) -> None:
    """Compare a file's content with its checksum; warn where there is none.

    Args:
        header: as it is in the file, not migrated.
        tensors: on the CPU.
        path: the file, for messages.

    Raises:
        InputError: the content is another than was written.
    """
    stated = header.get(CHECKSUM, "")
    if stated == "" and header["format"] < ALWAYS_CHECKED:
        warnings.warn(
            f"{path} is of a version that wrote no checksums, so damage to it would go unnoticed; "
            "load it and save it again",
            UncheckedFileWarning,
            stacklevel=2,
        )
    elif stated != checksum(header, tensors):
        raise InputError(f"{path} is damaged: its content has another checksum; get a fresh copy")
