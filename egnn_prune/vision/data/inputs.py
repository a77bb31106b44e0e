"""Fingerprints of the images that an experiment reads, without decoding them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from egnn_prune.data.cache import sha256
from egnn_prune.data.local import local_data
from egnn_prune.errors import DataError
from egnn_prune.system.files import is_clutter
from egnn_prune.vision.data.hub import HUB, SPLITS, find_shards

#: Files of a folder are read for their fingerprint up to this many bytes in all, about two seconds.
WHOLE = 1 << 30


class ImageSource(Protocol):
    """What the settings of data say about files."""

    name: str
    path: str | None
    ood: str | None
    ood_path: str | None


def image_inputs(data: ImageSource) -> dict[str, str]:
    """A fingerprint of the training and test images, and one of those out of distribution.

    It is the SHA-256 of the names and contents of all files; of a folder with more than
    :data:`WHOLE` bytes the contents are replaced by sizes and times of change, since reading them
    all at every start would take minutes. Images that come with a library, or are downloaded from
    the hub, always are the same and have none.

    Raises:
        DataError: a folder or the files in it are missing or cannot be read.
    """
    found = {}
    for role, name, path, splits in (
        ("images", data.name, data.path, SPLITS),
        ("ood", data.ood, data.ood_path, ("test",)),
    ):
        if name in HUB and (path or local_data(f"vision/{name}")):
            shards = [s for split in splits for s in find_shards(name, split, path)]
            found[role] = fingerprint(shards)
        elif name == "folder" and path:
            meant = (p for p in Path(path).rglob("*") if not is_clutter(p.relative_to(path)))
            found[role] = fingerprint(sorted(p for p in meant if p.is_file()), WHOLE)
    return found


def fingerprint(files: Sequence[Path], whole: float = float("inf")) -> str:
    """SHA-256 over the files' names with their contents, or beyond ``whole`` bytes their states."""
    digest = hashlib.sha256()
    try:
        stats = [file.stat() for file in files]
        read = sum(stat.st_size for stat in stats) <= whole
        for file, stat in zip(files, stats, strict=True):
            state = sha256(file) if read else f"{stat.st_size} {stat.st_mtime_ns}"
            digest.update(f"{file.parent.name}/{file.name}\0{state}\n".encode())
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from None
    return digest.hexdigest()
