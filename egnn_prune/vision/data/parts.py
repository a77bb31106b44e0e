"""The parts that a source has, and how those that it lacks are split off its training images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from egnn_prune.errors import ConfigError, DataError
from egnn_prune.vision.data.copies import boundary, first_equals, together
from egnn_prune.vision.data.image_set import ImageSet

#: What a source returns: its parts ("train", "val", "test"), read when they are called.
Parts = dict[str, Callable[[], ImageSet]]
TEST_SHARE = 0.15


def divided(
    parts: Parts, validation: float, seed: int, limit: int | None = None
) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Training, validation and test images.

    Parts that the source lacks are taken from its training images: the first of a seeded
    permutation are the test images (15 %), the next the validation, the rest stays. Equal images
    never come into two of these: copies follow the first of them, so a part may be some smaller.

    Args:
        parts: of the source; "train" at least.
        validation: number of validation images; below 1, the share of the training images.
        seed: of the permutation.
        limit: at most this many training images, the first of the rest.

    Raises:
        ConfigError: ``validation`` or ``limit`` is outside its range.
        DataError: there are too few images, or too few that differ.
    """
    train = parts["train"]()
    n = len(train)
    test = 0 if "test" in parts else round(TEST_SHARE * n)
    val = 0 if "val" in parts else _count(validation, n)
    if limit is not None and limit < 1:
        raise ConfigError(f"data.limit must be at least 1, not {limit}")
    if ("test" not in parts and not test) or ("val" not in parts and not val) or test + val >= n:
        raise DataError(
            f"{n} training images are too few to set {test} aside for testing and {val} for "
            "validation; give more images, or fewer of them to validation"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    if test + val:
        first = first_equals(train)
        order = together(order, first)
        test = boundary(order, first, 0, test)
        val = boundary(order, first, test, test + val) - test if test < n else 0
        if test + val >= n:
            raise DataError(
                f"the {n} training images are copies of {len(first.unique())}, too few to set some "
                "aside for validation and testing; give more images that differ"
            )
    return (
        _taken(train, order[test + val :][:limit]),
        parts["val"]() if "val" in parts else _taken(train, order[test : test + val]),
        parts["test"]() if "test" in parts else _taken(train, order[:test]),
    )


def _taken(images: ImageSet, rows: Tensor) -> ImageSet:
    """What is taken whole stays where it is: in a mapped file, possibly."""
    return images if len(rows) == len(images) else images.rows(rows.sort().values)


def _count(validation: float, n: int) -> int:
    if not 0 < validation or (validation >= 1 and validation != int(validation)):
        raise ConfigError(
            f"validation must be a number of images, or a share between 0 and 1, not {validation}"
        )
    return round(validation * n) if validation < 1 else int(validation)
