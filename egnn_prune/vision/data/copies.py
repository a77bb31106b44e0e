"""Equal images: which they are, and an order in which they stand together."""

from __future__ import annotations

import hashlib
import logging

import torch
from torch import Tensor

from egnn_prune.vision.data.image_set import ImageData, ImageSet

log = logging.getLogger(__name__)
BLOCK = 4096


def digests(images: Tensor) -> list[bytes]:
    """A digest of each image's values; equal ones have equal digests."""
    return [
        hashlib.blake2b(image.data, digest_size=16).digest()
        for block in images.split(BLOCK)
        for image in block.contiguous().numpy().reshape(len(block), -1)
    ]


def first_equals(images: ImageSet) -> Tensor:
    """For each image the position of the first that is equal to it, int64 ``[N]``.

    Says how many are copies, and how many of those are labelled otherwise than their original.
    """
    seen: dict[bytes, int] = {}
    found = [seen.setdefault(digest, k) for k, digest in enumerate(digests(images.images))]
    first = torch.tensor(found, dtype=torch.long)
    if copies := len(first) - len(seen):
        contradictions = int((images.labels != images.labels[first]).sum())
        log.warning(
            "%d of %d images are copies of others, pixel by pixel; equal images stay together when "
            "images are split at random%s",
            *(copies, len(first)),
            f" ({contradictions} copies have another label than their original)"
            if contradictions
            else "",
        )
    return first


def together(order: Tensor, first: Tensor) -> Tensor:
    """An order of images in which the copies of an image follow it, wherever they stood.

    Args:
        order: a permutation, int64 ``[N]``; without copies it stays as it is.
        first: from :func:`first_equals`.
    """
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    return order[place[first[order]].argsort(stable=True)]


def boundary(order: Tensor, first: Tensor, start: int, end: int) -> int:
    """Where ``order[start:]`` can be cut, at ``end`` or before, without parting equal images.

    If there is no such place after ``start``, the next one behind ``end``; it may be ``N``.
    """
    if end == start:
        return start
    group = first[order]
    starts = torch.cat([group[1:] != group[:-1], torch.tensor([True])]).nonzero().flatten() + 1
    fitting = starts[(starts > start) & (starts <= end)]
    return int(fitting[-1]) if len(fitting) else int(starts[starts > end][0])


def say_what_was_seen(data: ImageData) -> None:
    """Say how many images of the other parts also are training images.

    Parts that were drawn by :func:`egnn_prune.vision.data.parts.divided` hold none.
    """
    known = set(digests(data.train.images))
    for name in ("val", "test", "ood"):
        part: ImageSet | None = getattr(data, name)
        repeated = sum(digest in known for digest in digests(part.images)) if part else 0
        if part and repeated:
            log.warning(
                "%d of the %d %s images also are training images, pixel by pixel; what is measured "
                "on them says nothing about new images",
                *(repeated, len(part), name),
            )
