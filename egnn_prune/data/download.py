"""Files from the internet: complete and checked, or one sentence saying what to place where."""

from __future__ import annotations

import urllib.request
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

from egnn_prune.errors import DataError
from egnn_prune.system.files import atomic

TIMEOUT_S = 30.0
BLOCK = 1 << 20


def download(url: str, path: Path, advice: str = "") -> Path:
    """The file at ``path``, fetched from ``url`` unless it is there already.

    Args:
        url: where the file is.
        path: where it goes; it appears there complete.
        advice: what else the user could do, for the error message.

    Raises:
        DataError: the host cannot be reached or breaks off; says which file to place where.
        InputError: the file cannot be written.
    """
    if path.is_file():
        return path
    with atomic(path) as temporary:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as reply:
                size = int(reply.headers.get("Content-Length") or 0)
                bar = tqdm(total=size, unit="B", unit_scale=True, desc=path.name, disable=not size)
                with temporary.open("wb") as file, bar:
                    while block := reply.read(BLOCK):
                        file.write(block)
                        bar.update(len(block))
        except (OSError, HTTPException, ValueError) as error:
            raise _unreachable(url, path, advice, error) from None
        if temporary.stat().st_size < size:
            raise _unreachable(url, path, advice, "it broke off")
    return path


def _unreachable(url: str, path: Path, advice: str, why: object) -> DataError:
    reason = " ".join(str(getattr(why, "reason", why)).split())
    return DataError(
        f"{url} cannot be downloaded ({reason}); get that file elsewhere and place it at "
        f"{path}{', ' + advice if advice else ''}"
    )
