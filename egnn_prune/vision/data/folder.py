"""A folder of images, one sub-folder a class, through torchvision."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from egnn_prune.data.cache import Arrays, cached
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.system.files import is_clutter
from egnn_prune.vision.data.image_set import ImageSet
from egnn_prune.vision.data.parts import Parts
from egnn_prune.vision.data.pictures import MODES, check_mode, check_size, opened, pixels

BLOCK = 256
#: Names of sub-folders that hold a part rather than a class.
PARTS = {"train": "train", "val": "val", "validation": "val", "test": "test"}


def from_folder(path: str | Path, size: int | None = None) -> Parts:
    """Images below ``path``: ``CLASS/*.png``, or ``train/CLASS/*.png`` with ``val`` and ``test``.

    All are grey or all in colour, as the first one. What file managers and notebooks leave behind
    (:func:`egnn_prune.system.files.is_clutter`) is passed over.

    Args:
        path: the folder.
        size: the shorter side is brought to this many pixels and the centre square cut out; without
            it, all images must have the size of the first.

    Raises:
        ConfigError: ``size`` is not positive.
        DataError: there is no such folder; when a part is called, that it cannot be used.
    """
    folder = Path(path)
    if size is not None and size < 1:
        raise ConfigError(f"data.size must be at least 1 pixel, not {size}")
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; give one with images as data.path")
    found = {part: folder / name for name, part in PARTS.items() if (folder / name).is_dir()}
    if not found:
        return {"train": partial(_part, folder, size)}
    if "train" not in found:
        raise DataError(f"{folder} has a sub-folder {min(found)} but none named train; add it")
    return {part: partial(_part, place, size) for part, place in found.items()}


def _part(folder: Path, size: int | None) -> ImageSet:
    """The key is what is there: names, sizes and times of all files.

    Reading them all for a checksum at every start would take minutes where there are many.
    """
    classes, samples = _samples(folder)

    def state() -> str:
        return _listing(folder, samples)

    before = state()

    def decode_folder(_: Path) -> Iterator[Arrays]:
        yield from _decode(folder, samples, size)
        yield {"classes": np.array(classes)}
        if state() != before:
            raise DataError(f"{folder} changed while it was read; load it when it is complete")

    return ImageSet.stored(cached(samples[0][0], decode_folder, variant=f"{size}|{before}"))


def _samples(folder: Path) -> tuple[list[str], list[tuple[Path, int]]]:
    """Names of the classes, and all images with the position of theirs."""
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import is_image_file

    class Folder(ImageFolder):
        def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
            found, _ = super().find_classes(directory)
            classes = [name for name in found if not is_clutter(Path(name))]
            if not classes:
                raise FileNotFoundError(f"Couldn't find any class folder in {directory}.")
            return classes, {name: k for k, name in enumerate(classes)}

    def usable(path: str) -> bool:
        return is_image_file(path) and not is_clutter(Path(path).relative_to(folder))

    try:
        found = Folder(str(folder), is_valid_file=usable)
    except FileNotFoundError as error:
        reason = str(error).rstrip(". ")
        raise DataError(
            f"{folder} cannot be used: {reason}; it needs a sub-folder with images for each class"
        ) from None
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror or error}") from None
    return found.classes, [(Path(path), label) for path, label in found.samples]


def _listing(folder: Path, samples: list[tuple[Path, int]]) -> str:
    digest = hashlib.sha256()
    try:
        for path, label in samples:
            stat = path.stat()
            name = path.relative_to(folder)
            digest.update(f"{name}\0{label}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from None
    return digest.hexdigest()


def _decode(folder: Path, samples: list[tuple[Path, int]], size: int | None) -> Iterator[Arrays]:
    first = _open(samples[0][0])
    mode = first.mode if first.mode in MODES.values() else "RGB"
    wanted = (size, size) if size else first.size
    with tqdm(desc=f"decoding {folder.name}", unit=" images", total=len(samples), delay=2) as bar:
        for start in range(0, len(samples), BLOCK):
            piece = samples[start : start + BLOCK]
            decoded = []
            for path, _ in piece:
                picture = _open(path)
                check_mode(picture, mode, str(path))
                if size:
                    picture = resized(picture, size)
                check_size(picture, wanted, str(path), "make them alike with data.size=PIXELS")
                decoded.append(pixels(picture))
                bar.update()
            labels = np.array([label for _, label in piece], dtype=np.int64)
            yield {"images": np.stack(decoded), "labels": labels}


def _open(path: Path) -> Image.Image:
    try:
        with path.open("rb") as file:
            return opened(file, str(path))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def resized(picture: Image.Image, size: int) -> Image.Image:
    """The centre square, after bringing the shorter side to ``size`` pixels."""
    from torchvision.transforms.v2 import functional

    side: Image.Image = functional.resize(picture, [size])
    return functional.center_crop(side, [size])
