"""Equal images stay on one side of a split, and whoever splits is told how many there are."""

from __future__ import annotations

import logging
import shutil

import pytest
import torch

from egnn_prune.errors import DataError
from egnn_prune.vision.data import ImageSet, load_images
from egnn_prune.vision.data.copies import boundary, first_equals, together
from egnn_prune.vision.data.parts import divided


def images(values: list[int], labels: list[int] | None = None) -> ImageSet:
    pixels = torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
    found = torch.tensor(labels if labels else [0] * len(values))
    return ImageSet(pixels, found, ("a", "b"))


def values(part: ImageSet) -> set[int]:
    return set(part.images[:, 0, 0, 0].tolist())


def said(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def split(whole: ImageSet, seed: int = 0, validation: float = 0.15):
    return divided({"train": lambda: whole}, validation, seed)


@pytest.mark.parametrize("seed", range(5))
def test_equal_images_stay_on_one_side(seed, caplog):
    """60 images, of which 40 differ, copies of one and of many."""
    whole = images([*range(40), *[3] * 4, *range(10, 26)], [0] * 59 + [1])
    train, val, test = split(whole, seed)
    assert len(train) + len(val) + len(test) == 60
    assert 5 <= len(val) <= 9 and 5 <= len(test) <= 9
    parts = [values(part) for part in (train, val, test)]
    assert sum(map(len, parts)) == 40 and len(set.union(*parts)) == 40
    (sentence,) = said(caplog)
    assert sentence.startswith("20 of 60 images are copies of others")
    assert "(1 copies have another label than their original)" in sentence


@pytest.mark.parametrize("seed", range(3))
def test_without_copies_the_seed_means_what_it_meant(seed, caplog):
    train, val, test = split(images(list(range(100))), seed)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(seed)).tolist()
    assert values(test) == set(order[:15]) and values(val) == set(order[15:30])
    assert values(train) == set(order[30:])
    assert not said(caplog)


def test_copies_follow_the_first_of_them():
    first = first_equals(images([7, 1, 7, 2, 1, 7]))
    assert first.tolist() == [0, 1, 0, 3, 1, 0]
    order = together(torch.tensor([5, 4, 3, 2, 1, 0]), first)
    assert order.tolist() == [3, 4, 1, 5, 2, 0]  # 2, then 1 and 1, then 7, 7 and 7
    assert [boundary(order, first, 0, end) for end in range(7)] == [0, 1, 1, 3, 3, 3, 6]
    assert boundary(order, first, 3, 4) == 6  # nothing fits, so the next place behind


def test_too_few_that_differ(caplog):
    for whole in ([1] * 50, [1] * 40 + [2] * 40):
        with pytest.raises(DataError, match=f"the {len(whole)} training images are copies of"):
            split(images(whole))


def test_points_too(caplog):
    points = torch.arange(40.0)[:, None].repeat(2, 1)
    train, val, test = split(ImageSet(points, torch.zeros(80, dtype=torch.long), ("a",)))
    parts = [set(part.images.flatten().tolist()) for part in (train, val, test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 40
    assert said(caplog)[0].startswith("40 of 80 images")


def test_a_folder_with_copies(tmp_path, write_images, caplog):
    folder = write_images(tmp_path / "pets")
    for k in range(5):
        shutil.copy(folder / "cat" / f"{k:03d}.png", folder / "cat" / f"copy {k}.png")
    data = load_images("folder", path=folder, seed=3)
    parts = [{x.numpy().tobytes() for x in p.images} for p in (data.train, data.val, data.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 20
    assert said(caplog)[0].startswith("5 of 25 images are copies")


def test_a_given_test_part_that_holds_training_images(tmp_path, write_images, caplog):
    for part, count in {"train": 10, "val": 2, "test": 3}.items():
        write_images(tmp_path / part, count=count)  # the same pictures in each
    data = load_images("folder", path=tmp_path)
    assert (len(data.train), len(data.val), len(data.test)) == (20, 4, 6)
    val, test = said(caplog)
    assert val.startswith("4 of the 4 val images also are training images")
    assert test.startswith("6 of the 6 test images also are training images")


def test_an_ood_part_that_holds_training_images(tmp_path, write_images, caplog):
    write_images(tmp_path / "pets")
    write_images(tmp_path / "others", classes=("cat", "cow"), count=12)
    paths = {"path": tmp_path / "pets", "ood_path": tmp_path / "others"}
    load_images("folder", ood="folder", **paths)
    (sentence,) = said(caplog)
    assert "of the 24 ood images also are training images, pixel by pixel; what" in sentence
