"""Where images come from, and batches of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from egnn_prune.errors import ConfigError
from egnn_prune.system.lazy_imports import naming_extras
from egnn_prune.vision.data.augmentation import AUGMENTATIONS
from egnn_prune.vision.data.batches import Batches
from egnn_prune.vision.data.copies import say_what_was_seen
from egnn_prune.vision.data.folder import from_folder
from egnn_prune.vision.data.hub import HUB, from_hub
from egnn_prune.vision.data.image_set import ImageData, ImageSet, channel_moments
from egnn_prune.vision.data.parts import Parts, divided
from egnn_prune.vision.data.toys import from_digits, from_moons

#: Sources by name.
SOURCES: dict[str, Callable[..., Parts]] = {
    "moons": from_moons,
    "digits": from_digits,
    **{name: partial(from_hub, name) for name in HUB},
    "folder": from_folder,
}
#: Validation images of a source, where it is not asked for another number; below 1 a share.
VALIDATION: dict[str, float] = {name: 5000 for name in HUB}
VALIDATION_SHARE = 0.15


def load_images(
    name: str,
    *,
    path: str | Path | None = None,
    ood: str | None = None,
    ood_path: str | Path | None = None,
    seed: int = 0,
    validation: float | None = None,
    limit: int | None = None,
    size: int | None = None,
) -> ImageData:
    """Load a data set of images by the name of its source.

    ======== =================== ======= ======= ====== =========================================
    source   shape               train   val     test   parts
    ======== =================== ======= ======= ====== =========================================
    moons    [2]                 700     150     150    drawn by ``seed`` from 1,000 fixed points
    digits   [1, 8, 8]           1,257   270     270    drawn by ``seed``
    mnist    [1, 28, 28]         55,000  5,000   10,000 the official test images
    cifar10  [3, 32, 32]         45,000  5,000   10,000 the official test images
    cifar100 [3, 32, 32]         45,000  5,000   10,000 the official test images, fine labels
    folder   of its first image  70 %    15 %    15 %   its sub-folders train, val and test if any
    ======== =================== ======= ======= ====== =========================================

    Images are decoded once and kept (:func:`egnn_prune.data.cache.cached`). Equal ones never come
    into two parts that are drawn; how many there are, and how many of given parts also are training
    images, is logged as a warning.

    Args:
        name: a name in :data:`SOURCES`.
        path: the folder with the parquet files (:func:`from_hub`) or images (:func:`from_folder`).
        ood: another source with images of the same shape: its test images (all, where it has none)
            become ``ood``.
        ood_path: the same as ``path``, for ``ood``.
        seed: of the split.
        validation: number of validation images, or below 1 the share of the training images; not
            where the source has validation images.
        limit: at most this many training images (a random subset of them).
        size: height and width of the images of a folder.

    Raises:
        ConfigError: there is no such source, or a setting that it has no use for or cannot have.
        DataError: the images cannot be used.
    """
    if ood == name and ood_path is None:
        raise ConfigError(f"{name} cannot be out of its own distribution; choose another data.ood")
    parts = _parts(name, path=path, size=size)
    if validation is not None and "val" in parts:
        raise ConfigError(f"data {name} has validation images; leave data.validation away")
    if validation is None:
        validation = VALIDATION.get(name, VALIDATION_SHARE)
    others = _parts(ood, path=ood_path, size=size if ood == "folder" else None) if ood else None
    with naming_extras("images need", "vision"):
        train, val, test = divided(parts, validation, seed, limit)
        unlike = others.get("test", others["train"])() if others else None
    data = ImageData(name, train, val, test, unlike, *channel_moments(train.images))
    say_what_was_seen(data)
    return data


def _parts(name: str, **settings: Any) -> Parts:
    if name not in SOURCES:
        raise ConfigError(f"data.name must be one of {', '.join(SOURCES)}, not {name!r}")
    source = SOURCES[name]
    given = {key: value for key, value in settings.items() if value is not None}
    for key in given:
        if key not in signature(source).parameters:
            raise ConfigError(f"data {name} has no use for data.{key}; leave it away")
    if source is from_folder and "path" not in given:
        raise ConfigError("data folder needs the folder with the images; say which with data.path")
    return source(**given)


__all__ = [
    "AUGMENTATIONS",
    "SOURCES",
    "Batches",
    "ImageData",
    "ImageSet",
    "load_images",
]
