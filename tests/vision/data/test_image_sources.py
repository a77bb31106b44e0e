"""Images are decoded once, split by the seed, and are what the files hold."""

from __future__ import annotations

import ast
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from random_images import encoded, random_image

from egnn_prune.data.local import local_data
from egnn_prune.vision.data import hub, load_images
from egnn_prune.vision.data.class_names import CIFAR10, CIFAR100
from egnn_prune.vision.data.image_set import channel_moments


def every_image(data) -> list[bytes]:
    return [x.numpy().tobytes() for s in (data.train, data.val, data.test) for x in s.images]


@pytest.mark.parametrize(
    ("name", "shape", "classes", "sizes"),
    [("moons", (2,), 2, (700, 150, 150)), ("digits", (1, 8, 8), 10, (1257, 270, 270))],
)
def test_splits_are_disjoint_and_drawn_by_the_seed(name, shape, classes, sizes):
    data, again, other = load_images(name), load_images(name), load_images(name, seed=1)
    assert data.shape == shape and len(data.classes) == classes and data.ood is None
    assert tuple(map(len, (data.train, data.val, data.test))) == sizes
    assert every_image(data) == every_image(again)
    assert sorted(every_image(data)) == sorted(every_image(other))  # the same images
    for part in ("train", "val", "test"):
        assert not torch.equal(getattr(data, part).images, getattr(other, part).images)


def test_moons_are_the_originals():
    from sklearn.datasets import make_moons

    points, labels = make_moons(1000, noise=0.2, random_state=42)
    wanted = {tuple(p): int(y) for p, y in zip(points.astype(np.float32), labels, strict=True)}
    data = load_images("moons", seed=3)
    found = {
        tuple(p.numpy()): int(y)
        for s in (data.train, data.val, data.test)
        for p, y in zip(s.images, s.labels, strict=True)
    }
    assert found == wanted
    assert data.mean.tolist() == [0, 0] and data.std.tolist() == [1, 1]


def test_validation_and_limit():
    data = load_images("digits", validation=100, limit=50, seed=2)
    assert (len(data.train), len(data.val), len(data.test)) == (50, 100, 270)
    whole = load_images("digits", validation=100, seed=2)
    assert torch.equal(data.test.images, whole.test.images)
    assert set(every_image(data)) <= set(every_image(whole))
    assert len(load_images("digits", validation=0.5).val) == round(1797 / 2)


def test_moments_are_those_of_the_pixels():
    images = torch.randint(0, 256, (5000, 3, 4, 4), dtype=torch.uint8)
    images[:, 1] //= 3
    images[:, 2] = 7
    mean, std = channel_moments(images)
    pixels = images.double().transpose(0, 1).flatten(1)
    assert torch.allclose(mean.double(), pixels.mean(1), rtol=1e-6)
    assert torch.allclose(std.double()[:2], pixels.std(1, correction=0)[:2], rtol=1e-6)
    assert std[2] == 1  # a constant channel is centred, not divided by zero


def test_moments_are_of_the_training_images_alone():
    data = load_images("digits", limit=20)
    assert torch.allclose(data.mean, data.train.images.float().mean(), rtol=1e-5)


def test_shards_of_the_hub(cifar):
    data = load_images("cifar10", path=cifar, validation=6)
    assert (len(data.train), len(data.val), len(data.test)) == (24, 6, 10)
    assert data.classes == CIFAR10 and data.shape == (3, 32, 32)
    expected = {np.asarray(random_image(k)).transpose(2, 0, 1).tobytes(): k for k in range(30)}
    for part in (data.train, data.val):
        for image, label in zip(part.images, part.labels, strict=True):
            k = expected.pop(image.numpy().tobytes())
            assert label == (k + (k >= 20)) % 10
    assert not expected
    assert data.test.labels.tolist() == [(102 + k) % 10 for k in range(10)]  # in the file's order


def test_the_second_load_decodes_nothing(cifar, monkeypatch):
    first = load_images("cifar10", path=cifar, validation=6)
    copy = shutil.copytree(cifar, cifar.parent / "copy")

    def refuse(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(hub, "decode", refuse)
    again = load_images("cifar10", path=copy, validation=6)
    assert every_image(first) == every_image(again) and again.classes == first.classes
    shutil.copy(cifar / "train-00000-of-00002.parquet", copy / "train-00002-of-00002.parquet")
    with pytest.raises(AssertionError, match="decoded again"):
        load_images("cifar10", path=copy, validation=6)


def test_mapped_images_can_be_written_to_without_changing_the_file(cifar):
    data = load_images("cifar10", path=cifar, validation=6)
    before = data.test.images.clone()
    data.test.images.zero_()
    assert torch.equal(load_images("cifar10", path=cifar, validation=6).test.images, before)


def test_names_are_known_where_the_files_do_not_tell(tmp_path, write_shard):
    images = [encoded(random_image(k)) for k in range(4)]
    for split in ("train", "test"):
        path = tmp_path / "plain_text" / split / "0000.parquet"
        write_shard(path, images, [0, 1, 2, 99], columns=("img", "fine_label"))
    data = load_images("cifar100", path=tmp_path, validation=1)
    assert data.classes == CIFAR100 and len(CIFAR100) == 100 and CIFAR100[99] == "worm"
    assert list(CIFAR100) == sorted(CIFAR100)


def test_another_source_is_out_of_distribution(cifar, tmp_path, write_shard):
    images = [encoded(random_image(k)) for k in range(200, 204)]
    shard, columns = tmp_path / "c100" / "test.parquet", ("img", "fine_label")
    write_shard(shard, images, [5, 3, 1, 0], tuple("abcdef"), columns)
    settings = {"path": cifar, "ood": "cifar100", "ood_path": tmp_path / "c100"}
    data = load_images("cifar10", validation=6, **settings)
    assert data.ood is not None and len(data.ood) == 4
    assert data.ood.labels.tolist() == [5, 3, 1, 0] and data.ood.classes[5] == "f"
    assert data.classes == CIFAR10


def test_a_folder_is_split_by_the_seed(tmp_path, write_images):
    data = load_images("folder", path=write_images(tmp_path / "pets"))
    assert data.shape == (3, 8, 8) and data.classes == ("cat", "dog")
    assert (len(data.train), len(data.val), len(data.test)) == (14, 3, 3)
    assert len(set(every_image(data))) == 20


def test_a_folder_with_parts(tmp_path, write_images):
    for part, count in {"train": 6, "validation": 2, "test": 3}.items():
        write_images(tmp_path / part, count=count, mode="L")
    data = load_images("folder", path=tmp_path)
    assert data.shape == (1, 8, 8)
    assert (len(data.train), len(data.val), len(data.test)) == (12, 4, 6)
    assert data.test.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_folder_is_resized_and_cropped_to_its_centre(tmp_path):
    picture = np.zeros((20, 60, 3), dtype=np.uint8)
    picture[:, 20:40] = 200  # the centre square
    (tmp_path / "a").mkdir()
    for k in range(9):
        picture[:, :20] = 20 * k  # outside of it: the pictures are equal once they are cut
        Image.fromarray(picture).save(tmp_path / "a" / f"{k}.png")
    data = load_images("folder", path=tmp_path, size=10)
    assert data.shape == (3, 10, 10)
    assert (data.train.images[..., 1:-1] == 200).all()


def test_a_changed_image_is_read_again(tmp_path, write_images):
    folder = write_images(tmp_path / "pets", count=3)
    changed = folder / "dog" / "001.png"
    random_image(7, size=(8, 8)).save(changed, "BMP")  # a format in which all have the same length
    first = load_images("folder", path=folder)
    assert every_image(load_images("folder", path=folder)) == every_image(first)
    random_image(8, size=(8, 8)).save(changed, "BMP")
    os.utime(changed, ns=(1, 1))
    assert len(set(every_image(load_images("folder", path=folder))) - set(every_image(first))) == 1
    (folder / "cat" / "000.png").unlink()
    assert len(every_image(load_images("folder", path=folder))) == 5


def test_slow_libraries_are_imported_when_they_are_needed():
    found = set()
    for file in Path(hub.__file__).parent.glob("*.py"):
        for node in ast.parse(file.read_text()).body:  # of the module: not those in functions
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            found |= {name.partition(".")[0] for name in names}
    assert {"torch", "numpy", "PIL"} <= found
    assert not found & {"datasets", "pyarrow", "torchvision", "sklearn", "huggingface_hub"}


@pytest.fixture
def real_data(tmp_path):
    """The real files, decoded from a single shard: quick, and enough to see their form."""
    if local_data("vision/cifar100") is None or local_data("vision/mnist") is None:
        pytest.skip("needs vision/ of the shared data; set EGNN_PRUNE_DATA")


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_the_real_files_have_the_form_that_is_expected(real_data, name):
    source = hub.HUB[name]
    shards = hub.find_shards(name, "test")
    first = next(hub.decode(source, shards))
    assert first["images"].shape == (1024, *source.shape) and first["images"].dtype == np.uint8
    assert np.ptp(first["images"]) == 255
    classes, _ = hub._records(shards[0], source)
    assert classes == source.classes
    assert set(first["labels"]) == set(range(len(classes)))
