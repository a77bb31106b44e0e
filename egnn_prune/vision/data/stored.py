"""Decoded images in the cache, as tensors that are mapped into memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from egnn_prune.data.cache import Arrays
from egnn_prune.vision.data.image_set import ImageSet


def image_set(arrays: Arrays) -> ImageSet:
    """The ``images``, ``labels`` and names of ``classes`` that a parser has put into the cache."""
    images, labels = _tensor(arrays["images"]), _tensor(arrays["labels"])
    return ImageSet(images, labels, tuple(arrays["classes"].tolist()))


def _tensor(array: np.ndarray) -> Tensor:
    """A tensor in the same memory.

    torch refuses to believe in read-only arrays, so a mapped file is mapped once more, "copy on
    write": what writes to the tensor changes its own memory and never the file.
    """
    if isinstance(array, np.memmap) and array.size and array.filename is not None:
        array = np.memmap(array.filename, array.dtype, "c", array.offset, array.shape)
    return torch.from_numpy(array if array.flags.writeable else array.copy())
