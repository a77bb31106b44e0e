"""Random crops and flips of many images at once, without a loop over them."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

#: What can be done to training images.
AUGMENTATIONS = ("none", "crop", "flip", "flip_crop")
PADDING = 4


def random_crop(images: Tensor, generator: Generator, padding: int = PADDING) -> Tensor:
    """Windows of the images' size at random places of the images padded with zeros.

    The padded pixels lie in memory one after another, so the ``W`` pixels of a row of a window are
    ``W`` neighbours: all rows of all windows are copied by one ``index_select`` from a view of
    every run of ``W`` neighbours. That is four times faster than indexing windows.

    Source: He et al., Deep residual learning (CVPR 2016), section 4.2.

    Args:
        images: ``[B, C, H, W]``.
        generator: on the CPU, so that a seed means the same images on every device.
        padding: zeros on each side, in pixels; a window begins at 0 to 2 * padding.

    Returns:
        ``[B, C, H, W]``.
    """
    batch, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    plane, line = padded[0, 0].numel(), padded.shape[3]
    top, left = torch.randint(2 * padding + 1, (2, batch), generator=generator)
    corner = torch.arange(batch) * channels * plane + top * line + left
    rows = torch.arange(channels)[:, None] * plane + torch.arange(height) * line
    starts = (corner[:, None] + rows.flatten()).flatten().to(images.device)
    runs = padded.flatten().unfold(0, width, 1)
    return runs.index_select(0, starts).view(images.shape)


def random_flip(images: Tensor, generator: Generator) -> Tensor:
    """Each image mirrored left to right with probability 1/2.

    Args:
        images: ``[B, C, H, W]``; changed in place.
        generator: on the CPU.

    Returns:
        ``images``.
    """
    chosen = torch.randint(2, (len(images),), generator=generator).nonzero().flatten()
    chosen = chosen.to(images.device)
    return images.index_copy_(0, chosen, images.index_select(0, chosen).flip(3))
