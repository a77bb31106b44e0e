"""Batches: standardised, augmented, drawn as asked, and the same for the same seed."""

from __future__ import annotations

import pytest
import torch

from egnn_prune.vision.data import Batches, ImageSet, load_images
from egnn_prune.vision.data import batches as module
from egnn_prune.vision.data.augmentation import random_crop, random_flip

ZERO, ONE = torch.zeros(3), torch.ones(3)


def numbered(n: int, classes: int = 10, side: int = 6) -> ImageSet:
    """Image k can be told by its first pixel, and is of class ``k % classes``."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator)
    images[:, 0, 0, 0], images[:, 1, 0, 0] = torch.arange(n) % 256, torch.arange(n) // 256
    return ImageSet(images, torch.arange(n) % classes, tuple(map(str, range(classes))))


def epoch(batches: Batches) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = zip(*batches, strict=True)
    return torch.cat(x), torch.cat(y)


def numbers(x: torch.Tensor) -> torch.Tensor:
    return (x[:, 0, 0, 0] + 256 * x[:, 1, 0, 0]).long()


@pytest.mark.parametrize("n", [1, 5, 1024, 2500])
@pytest.mark.parametrize("size", [1, 4, 1500])
def test_in_order_every_image_comes_once(n, size):
    images = numbered(n)
    batches = Batches(images, ZERO, ONE, size)
    pieces = list(batches)
    assert len(pieces) == len(batches) == -(-n // size)
    assert all(len(x) == size for x, _ in pieces[:-1])
    x, y = epoch(batches)
    assert x.dtype == torch.float32 and y.dtype == torch.int64
    assert torch.equal(x, images.images.float()) and torch.equal(y, images.labels)


def test_shuffled_every_image_comes_once_and_each_epoch_differs():
    images = numbered(1500)
    batches = Batches(images, ZERO, ONE, 7, shuffle=True)
    orders = []
    for _ in range(2):
        x, y = epoch(batches)
        orders.append(numbers(x))
        assert torch.equal(orders[-1].sort().values, torch.arange(1500))
        assert torch.equal(y, orders[-1] % 10)
        assert torch.equal(x, images.images[orders[-1]].float())
    assert not torch.equal(*orders)


def test_the_last_smaller_batch_can_be_left_away():
    batches = Batches(numbered(10), ZERO, ONE, 4, shuffle=True, drop_last=True)
    assert [len(x) for x, _ in batches] == [4, 4] and len(batches) == 2


@pytest.mark.parametrize("weighted", [False, True])
def test_a_seed_means_the_same_images_even_after_an_epoch_broken_off(weighted):
    n = 1500  # more than a block: the rest of a broken-off epoch is never drawn
    weights = torch.rand(n) if weighted else None

    def build(seed: int) -> Batches:
        return Batches(
            numbered(n), ZERO, ONE, 8, shuffle=True, augmentation="flip_crop", weights=weights,
            seed=seed,
        )  # fmt: skip

    one, two, other = build(1), build(1), build(2)
    first, second = epoch(one), epoch(one)
    next(iter(two))
    assert all(map(torch.equal, epoch(two), second))
    assert all(map(torch.equal, epoch(build(1)), first))
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(first[0], epoch(other)[0])


def test_training_images_are_standardised():
    data = load_images("digits")
    x, _ = epoch(Batches(data.train, data.mean, data.std, 64, shuffle=True))
    assert x.double().mean().abs() < 1e-5
    assert abs(x.double().std(correction=0) - 1) < 1e-5


def test_channels_are_standardised_each_by_its_own():
    images = numbered(50)
    mean, std = torch.tensor([1.0, 20.0, 300.0]), torch.tensor([2.0, 4.0, 8.0])
    x, _ = epoch(Batches(images, mean, std, 5))
    for c in range(3):
        assert torch.allclose(x[:, c], (images.images[:, c].float() - mean[c]) / std[c])


def test_points_stay_as_they_are():
    data = load_images("moons")
    x, y = epoch(Batches(data.train, data.mean, data.std, len(data.train)))
    assert torch.equal(x, data.train.images) and torch.equal(y, data.train.labels)


@pytest.mark.parametrize(("height", "width"), [(6, 6), (5, 8)])
def test_a_crop_is_a_window_of_the_padded_image(height, width):
    images = torch.randint(1, 256, (600, 3, height, width), dtype=torch.uint8)
    found = random_crop(images, torch.Generator().manual_seed(0), padding=2)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    places = torch.zeros(5, 5)
    for image, window in zip(padded, found, strict=True):
        same = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(image[:, top : top + height, left : left + width], window)
        ]
        assert len(same) == 1
        places[same[0]] += 1
    assert (places > 8).all(), "every place is drawn, about 24 times each"


def test_half_of_the_images_are_flipped():
    images = torch.randint(0, 256, (4000, 1, 2, 5), dtype=torch.uint8)
    found = random_flip(images.clone(), torch.Generator().manual_seed(0))
    flipped = (found == images.flip(3)).flatten(1).all(1)
    kept = (found == images).flatten(1).all(1)
    assert (flipped ^ kept).sum() > 3990  # but for images that are their own mirror image
    assert 1900 < flipped.sum() < 2100


@pytest.mark.parametrize("augmentation", ["crop", "flip", "flip_crop"])
def test_augmentation_leaves_labels_and_the_images_themselves_alone(augmentation):
    images = numbered(100)
    images.images.copy_(torch.arange(100, dtype=torch.uint8)[:, None, None, None] + 1)
    before = images.images.clone()
    batches = Batches(images, ZERO, ONE, 8, shuffle=True, augmentation=augmentation)
    for _ in range(2):
        x, y = epoch(batches)
        k = x.flatten(1).amax(1).long() - 1  # a crop keeps pixels of its image; padding is black
        assert torch.equal(k.sort().values, torch.arange(100))
        assert torch.equal(y, k % 10)
        assert ("crop" in augmentation) == bool((x == 0).any())
    assert torch.equal(images.images, before)


def test_padding_is_a_black_pixel_before_standardisation():
    images = numbered(64)
    mean, std = torch.full((3,), 100.0), torch.full((3,), 50.0)
    x, _ = epoch(Batches(images, mean, std, 64, augmentation="crop"))
    assert x.min() == -2


def test_nothing_is_augmented_unless_it_is_asked_for():
    data = load_images("digits")
    x, _ = epoch(Batches(data.test, data.mean, data.std, 32))
    assert torch.allclose(x * data.std + data.mean, data.test.images.float(), atol=1e-4)


def test_weights_are_the_probabilities_of_being_drawn():
    images = numbered(1000)
    weights = torch.zeros(1000)
    weights[[3, 500, 999]] = torch.tensor([1.0, 2.0, 5.0])
    batches = Batches(images, ZERO, ONE, 64, weights=weights)
    drawn = torch.cat([numbers(epoch(batches)[0]) for _ in range(4)])
    assert len(drawn) == 4000 and len(batches) == 16
    counts = torch.bincount(drawn, minlength=1000)
    assert counts[[3, 500, 999]].sum() == 4000
    for k, share in ((3, 1 / 8), (500, 2 / 8), (999, 5 / 8)):
        assert abs(counts[k] / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5


def test_images_too_large_for_the_device_are_gathered_from_where_they_are(monkeypatch):
    images = numbered(100)
    resident = epoch(Batches(images, ZERO, ONE, 8, shuffle=True, augmentation="flip_crop"))
    monkeypatch.setattr(module, "RESIDENT_BYTES", 0)
    gathered = epoch(Batches(images, ZERO, ONE, 8, shuffle=True, augmentation="flip_crop"))
    assert all(map(torch.equal, resident, gathered))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("resident_bytes", [0, 2 << 30])
def test_a_seed_means_the_same_images_on_every_device(monkeypatch, resident_bytes):
    monkeypatch.setattr(module, "RESIDENT_BYTES", resident_bytes)
    settings = {"shuffle": True, "augmentation": "flip_crop", "weights": torch.rand(3000)}
    mean, std = torch.rand(3) * 100, 50 + torch.rand(3)
    cpu, cuda = (
        epoch(Batches(numbered(3000), mean, std, 8, device=device, **settings))
        for device in ("cpu", "cuda")
    )
    assert cuda[0].is_cuda and torch.equal(cuda[1].cpu(), cpu[1])
    assert torch.allclose(cuda[0].cpu(), cpu[0], atol=1e-5)
