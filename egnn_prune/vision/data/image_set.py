"""Labelled images, and the parts of a data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from egnn_prune.data.cache import Arrays
from egnn_prune.errors import DataError

BLOCK = 4096


@dataclass(frozen=True)
class ImageSet:
    """Images with one label each.

    Args:
        images: ``[N, C, H, W]`` in uint8, pixel values 0 to 255; or ``[N, features]`` in float32.
        labels: ``[N]`` in int64, each the position of its name in ``classes``.
        classes: the names.

    Raises:
        DataError: the two do not fit together, a label has no class, or a number is not finite.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"{list(self.labels.shape)} labels do not fit {len(self.images)} images; give one "
                "integer for each"
            )
        if self.labels.dtype != torch.int64:
            raise DataError(f"labels must be of torch.int64, not {self.labels.dtype}")
        outside = (self.labels < 0) | (self.labels >= len(self.classes))
        if outside.any():
            k = int(outside.nonzero()[0])
            raise DataError(
                f"image {k} has the label {int(self.labels[k])}, which is outside the "
                f"{len(self.classes)} classes (0 to {len(self.classes) - 1}); correct it or leave "
                "the image away"
            )
        self._check_values()

    def _check_values(self) -> None:
        if self.images.dtype == torch.uint8 and self.images.dim() == 4:
            return
        if self.images.dtype != torch.float32 or self.images.dim() != 2:
            raise DataError(
                "images must be uint8 [N, C, H, W], or points float32 [N, features], not "
                f"{self.images.dtype} {list(self.images.shape)}"
            )
        broken = ~self.images.isfinite().all(dim=1)
        if broken.any():
            k = int(broken.nonzero()[0])
            raise DataError(
                f"point {k} holds a number that is not finite ({self.images[k].tolist()}); "
                "leave it away"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def stored(cls, arrays: Arrays) -> ImageSet:
        """The ``images``, ``labels`` and names of ``classes`` that a parser put into the cache."""
        images, labels = _tensor(arrays["images"]), _tensor(arrays["labels"])
        return cls(images, labels, tuple(arrays["classes"].tolist()))

    def rows(self, index: Tensor) -> ImageSet:
        """The images at these positions (int64 ``[n]``, or bool ``[N]``), copied."""
        return ImageSet(self.images[index], self.labels[index], self.classes)


@dataclass(frozen=True)
class ImageData:
    """A data set of images in its parts.

    Args:
        name: of its source.
        train: images to learn from.
        val: images to stop early and calibrate on.
        test: images to report on.
        ood: images unlike these, with classes of their own; ``None`` without.
        mean: ``[C]``, of the training images, in pixel values 0 to 255 (points: 0).
        std: ``[C]``, their standard deviation (points, and channels that are constant: 1).

    Raises:
        DataError: the parts differ in shape or classes.
    """

    name: str
    train: ImageSet
    val: ImageSet
    test: ImageSet
    ood: ImageSet | None
    mean: Tensor
    std: Tensor

    def __post_init__(self) -> None:
        for part, images in {"val": self.val, "test": self.test, "ood": self.ood}.items():
            if images is None:
                continue
            if (shape := tuple(images.images.shape[1:])) != self.shape:
                raise DataError(
                    f"images of {part} have the shape {list(shape)}, those of train "
                    f"{list(self.shape)}; use images of one shape"
                )
            if part != "ood" and images.classes != self.train.classes:
                raise DataError(
                    f"{part} has the classes {', '.join(images.classes)}, train has "
                    f"{', '.join(self.train.classes)}; they must be the same"
                )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image: ``(C, H, W)``, or ``(features,)``."""
        return tuple(self.train.images.shape[1:])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that are learned."""
        return self.train.classes


def channel_moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, over images and pixels.

    They come from a histogram of the 256 values, hence exact for any number of images.

    Args:
        images: ``[N, C, H, W]`` in uint8; points ``[N, features]`` are not to be standardised.

    Returns:
        mean and std, ``[C]`` in float32; 0 and 1 for points, std 1 for a constant channel.
    """
    if images.dtype != torch.uint8:
        return torch.zeros(images.shape[1]), torch.ones(images.shape[1])
    counts = torch.zeros(images.shape[1], 256, dtype=torch.float64)
    for block in images.split(BLOCK):
        for channel, total in enumerate(counts):
            total += torch.bincount(block[:, channel].flatten(), minlength=256)
    share = counts / counts.sum(dim=1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64)
    mean = share @ values
    std = (share * (values - mean[:, None]).square()).sum(dim=1).sqrt()
    return mean.float(), torch.where(std > 0, std, 1.0).float()


def _tensor(array: np.ndarray) -> Tensor:
    """A tensor in the same memory.

    torch refuses to believe in read-only arrays, so a mapped file is mapped once more, "copy on
    write": what writes to the tensor changes its own memory and never the file.
    """
    if isinstance(array, np.memmap) and array.size and array.filename is not None:
        array = np.memmap(array.filename, array.dtype, "c", array.offset, array.shape)
    return torch.from_numpy(array if array.flags.writeable else array.copy())
