"""Standardised batches, drawn and augmented in large blocks on the device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.vision.data.augmentation import AUGMENTATIONS, random_crop, random_flip
from egnn_prune.vision.data.image_set import ImageSet

BLOCK = 1024
#: Images of at most this many bytes are moved to the device once.
RESIDENT_BYTES = 2 << 30


class Batches:
    """Batches ``(x [B, C, H, W] float32, y [B] int64)`` of images; iterate as often as needed.

    ``x = (pixels - mean) / std`` after augmentation, so padding is a black pixel. About 1,024
    images at a time are drawn, augmented and standardised, and handed out as slices: what a batch
    costs is then the cost of its images, without that of a dozen calls.

    Each epoch draws anew. What it draws depends on the seed and the number of the epoch alone: not
    on the device, nor on whether an earlier epoch was read to its end.

    Args:
        images: what is read; on the device for good where they take at most 2 GiB, else gathered
            from where they are (a mapped file, say).
        data_mean: ``[C]``, in pixel values.
        data_std: ``[C]``.
        batch_size: at most as many images as there are are drawn for one batch.
        shuffle: another order in each epoch.
        augmentation: one of :data:`AUGMENTATIONS`, for images only.
        weights: ``[N]``, relative probabilities with which images are drawn, with replacement; an
            epoch still is ``N`` images.
        drop_last: leave away a last batch that is smaller, for batch normalisation.
        device: where the batches are.
        seed: of the order, the draws and the augmentation.

    Raises:
        ConfigError: a setting is outside its range.
        DataError: there are no images.
        InputError: weights that are no probabilities.
    """

    def __init__(
        self,
        images: ImageSet,
        data_mean: Tensor,
        data_std: Tensor,
        batch_size: int,
        *,
        shuffle: bool = False,
        augmentation: str = "none",
        weights: Tensor | None = None,
        drop_last: bool = False,
        device: str | torch.device = "cpu",
        seed: int = 0,
    ) -> None:
        _check(images, batch_size, augmentation, weights, drop_last)
        self.device = torch.device(device)
        self.batch_size, self.drop_last, self.shuffle = batch_size, drop_last, shuffle
        self.crop, self.flip = "crop" in augmentation, "flip" in augmentation
        self.weights = None if weights is None else weights.detach().cpu().double()
        pixels = images.images
        resident = pixels.numel() * pixels.element_size() <= RESIDENT_BYTES
        self.pixels = pixels.to(self.device) if resident else pixels
        self.labels = images.labels.to(self.device)
        broadcast = (-1,) + (1,) * (pixels.dim() - 2)
        self.mean = data_mean.to(self.device, torch.float32).view(broadcast)
        self.std = data_std.to(self.device, torch.float32).view(broadcast)
        self.epoch_seeds = Generator().manual_seed(seed)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.labels), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        seed = int(torch.randint(1 << 62, (), generator=self.epoch_seeds))
        return self._epoch(Generator().manual_seed(seed))

    def _epoch(self, generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._order(generator)
        if self.drop_last:
            order = order[: len(self) * self.batch_size]
        for rows in order.split(self.batch_size * max(1, BLOCK // self.batch_size)):
            x = self._drawn(rows, generator)
            y = self.labels.index_select(0, rows.to(self.device))
            yield from zip(x.split(self.batch_size), y.split(self.batch_size), strict=True)

    def _order(self, generator: Generator) -> Tensor:
        n = len(self.labels)
        if self.weights is not None:
            return torch.multinomial(self.weights, n, replacement=True, generator=generator)
        return torch.randperm(n, generator=generator) if self.shuffle else torch.arange(n)

    def _drawn(self, rows: Tensor, generator: Generator) -> Tensor:
        x = self.pixels.index_select(0, rows.to(self.pixels.device)).to(self.device)
        if self.crop:
            x = random_crop(x, generator)
        if self.flip:
            x = random_flip(x, generator)
        return x.float().sub_(self.mean).div_(self.std)


def _check(
    images: ImageSet, batch_size: int, augmentation: str, weights: Tensor | None, drop_last: bool
) -> None:
    if not len(images):
        raise DataError("there are no images to make batches of")
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
    if augmentation not in AUGMENTATIONS:
        raise ConfigError(
            f"augmentation must be one of {', '.join(AUGMENTATIONS)}, not {augmentation!r}"
        )
    if augmentation != "none" and images.images.dim() != 4:
        raise ConfigError(f"augmentation={augmentation} is for images, not for points; use none")
    if drop_last and batch_size > len(images):
        raise ConfigError(
            f"no batch of {batch_size} can be made of {len(images)} images when the last, smaller "
            "batch is left away; make batch_size smaller"
        )
    if weights is None:
        return
    if weights.shape != images.labels.shape:
        raise InputError(
            f"weights of shape {list(weights.shape)} do not fit {len(images)} images; give one each"
        )
    if not (weights.isfinite().all() and (weights >= 0).all() and weights.sum() > 0):
        raise InputError("weights must be finite, not negative, and not all zero")
