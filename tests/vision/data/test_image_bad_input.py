"""What cannot be used is refused in one sentence that says where it is and what to do."""

from __future__ import annotations

import pytest
import torch
from random_images import encoded, random_image

from egnn_prune.errors import ConfigError, DataError, InputError
from egnn_prune.vision.data import Batches, ImageData, ImageSet, load_images

ZERO, ONE = torch.zeros(3), torch.ones(3)
NAMES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())


def refuses(match: str, error: type[Exception] = DataError, name: str = "cifar10", **settings):
    with pytest.raises(error, match=match) as caught:
        load_images(name, **settings)
    assert "\n" not in str(caught.value)


def test_settings_out_of_range(tmp_path):
    refuses("must be one of moons, digits, .*not 'imagenet'", ConfigError, "imagenet")
    refuses("must be one of .*not 'svhn'", ConfigError, "digits", ood="svhn")
    refuses("digits has no use for data.size", ConfigError, "digits", size=8)
    refuses("moons has no use for data.path", ConfigError, "moons", path=tmp_path)
    refuses("folder needs the folder", ConfigError, "folder")
    refuses("at least 1 pixel, not 0", ConfigError, "folder", path=tmp_path, size=0)
    refuses("limit must be at least 1, not 0", ConfigError, "digits", limit=0)
    for validation in (-1, 0, 1.5, float("nan")):
        refuses("number of images, or a share", ConfigError, "digits", validation=validation)
    refuses("own distribution", ConfigError, "digits", ood="digits")
    refuses("1797 training images are too few", DataError, "digits", validation=1600)


def test_a_missing_folder(tmp_path):
    refuses("no folder .*gone.*cifar10's parquet", path=tmp_path / "gone")
    refuses("no folder .*gone.*data.path", name="folder", path=tmp_path / "gone")


def test_no_network_and_no_data(monkeypatch):
    import huggingface_hub

    def unreachable(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    refuses("cannot be downloaded .*no route to host.*set EGNN_PRUNE_DATA.*data.path")


def test_what_is_downloaded_is_used(monkeypatch, cifar):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(cifar))
    assert len(load_images("cifar10", validation=6).train) == 24


def test_a_folder_without_parquet(tmp_path, cifar):
    (tmp_path / "empty").mkdir()
    refuses(r"no train\*.parquet in .*data.path", path=tmp_path / "empty")
    for file in cifar.glob("train*"):
        file.unlink()
    refuses(r"no train\*.parquet in .*uoft-cs/cifar10", path=cifar)


@pytest.mark.parametrize("damage", ["no parquet", "cut", "flipped"])
def test_a_damaged_shard(cifar, damage):
    shard = cifar / "train-00001-of-00002.parquet"
    content = bytearray(shard.read_bytes())
    if damage == "flipped":
        content[4:400] = bytes(396)
    shard.write_bytes({"no parquet": b"hello", "cut": content[:-50]}.get(damage, content))
    refuses("train-00001-of-00002.parquet", path=cifar)


@pytest.mark.parametrize("content", [b"no image", b"", None, "cut"])
def test_damaged_image_bytes(cifar, write_shard, content):
    good = encoded(random_image(1))
    broken = good[:1000] if content == "cut" else content
    write_shard(cifar / "train-00001-of-00002.parquet", [good, good, broken], [0, 1, 2], NAMES)
    refuses("record 2 of .*train-00001-of-00002.parquet.*(damaged|no bytes)", path=cifar)


@pytest.mark.parametrize("label", [10, -1, None])
def test_a_label_outside_the_classes(cifar, write_shard, label):
    good = encoded(random_image(1))
    write_shard(cifar / "train-00001-of-00002.parquet", [good, good], [0, label], None)
    refuses(f"record 1 of .*train-00001.*label {label}, .*the 10 classes", path=cifar)


def test_grey_where_colour_is_expected_and_the_reverse(cifar, tmp_path, write_shard):
    colour, grey = encoded(random_image(1)), encoded(random_image(1, "L"))
    write_shard(cifar / "train-00001-of-00002.parquet", [colour, grey], [0, 1], NAMES)
    refuses("record 1 of .*is a grey image where colour.*convert\\('RGB'\\)", path=cifar)
    digit = [encoded(random_image(k, size=(28, 28))) for k in range(2)]
    write_shard(tmp_path / "mnist" / "train.parquet", digit, [0, 1], columns=("image", "label"))
    path = tmp_path / "mnist"
    refuses("colour image where grey.*convert\\('L'\\)", name="mnist", path=path)


def test_images_of_another_size(cifar, write_shard):
    small = encoded(random_image(1, size=(16, 24)))
    write_shard(cifar / "train-00001-of-00002.parquet", [small], [0], NAMES)
    refuses("record 0 of .*16 x 24 pixels, not 32 x 32", path=cifar)


def test_columns_that_are_not_there(cifar, write_shard):
    shard = cifar / "train-00001-of-00002.parquet"
    write_shard(shard, [encoded(random_image(1))], [0], NAMES, columns=("picture", "label"))
    refuses("columns picture, label, but img or image and label", path=cifar)


def test_shards_of_different_sets(cifar, write_shard):
    shard = cifar / "train-00001-of-00002.parquet"
    write_shard(shard, [encoded(random_image(1))], [0], NAMES[::-1])
    refuses("has other classes than", path=cifar)


def test_nothing_is_kept_of_what_is_refused(cifar, write_shard, tmp_path):
    shard = cifar / "train-00001-of-00002.parquet"
    write_shard(shard, [b"no image"], [0], NAMES)
    refuses("damaged", path=cifar)
    assert not [f for f in (tmp_path / "cache").rglob("*.npy")]


def test_a_folder_without_images(tmp_path, write_images):
    (tmp_path / "empty").mkdir()
    refuses(
        "Couldn't find any class folder.*for each class", name="folder", path=tmp_path / "empty"
    )
    (write_images(tmp_path / "pets") / "bird").mkdir()
    refuses("no valid file for the classes bird", name="folder", path=tmp_path / "pets")
    write_images(tmp_path / "parts" / "test")
    refuses("sub-folder test but none named train", name="folder", path=tmp_path / "parts")


def test_images_of_a_folder_that_are_not_alike(tmp_path, write_images):
    folder = write_images(tmp_path / "pets")
    odd = folder / "dog" / "009.png"
    random_image(0, size=(9, 7)).save(odd)
    refuses("dog/009.png is 9 x 7 pixels, not 8 x 8 .*data.size", name="folder", path=folder)
    random_image(0, "L", (8, 8)).save(odd)
    refuses("dog/009.png is a grey image where colour", name="folder", path=folder)
    random_image(0, "RGBA", (8, 8)).save(odd)
    refuses("dog/009.png is a transparent image", name="folder", path=folder, size=4)
    odd.write_bytes(b"no image")
    refuses("dog/009.png is damaged or no image", name="folder", path=folder)


def test_parts_with_other_classes(tmp_path, write_images):
    write_images(tmp_path / "train")
    write_images(tmp_path / "test", classes=("cat", "horse"))
    refuses("test has the classes cat, horse, train has cat, dog", name="folder", path=tmp_path)


def test_out_of_distribution_images_of_another_shape():
    refuses(r"ood have the shape \[2\], those of train \[1, 8, 8\]", name="digits", ood="moons")


def image_set(labels: list[int], images: torch.Tensor | None = None) -> ImageSet:
    images = torch.zeros(len(labels), 3, 4, 4, dtype=torch.uint8) if images is None else images
    return ImageSet(images, torch.tensor(labels), ("a", "b"))


def test_sets_that_do_not_fit_together():
    with pytest.raises(DataError, match=r"image 1 has the label 2, .*2 classes"):
        image_set([0, 2])
    with pytest.raises(DataError, match=r"labels do not fit 3 images"):
        image_set([0, 1], torch.zeros(3, 1, 2, 2, dtype=torch.uint8))
    with pytest.raises(DataError, match=r"int64, not torch.float32"):
        ImageSet(torch.zeros(1, 2), torch.zeros(1), ("a",))
    with pytest.raises(DataError, match="must be uint8"):
        image_set([0], torch.zeros(1, 3, 4, 4))
    for value in (float("nan"), float("inf")):
        with pytest.raises(DataError, match="point 1 holds a number that is not finite"):
            image_set([0, 1], torch.tensor([[0.0, 1.0], [value, 0.0]]))
    one, other = image_set([0]), image_set([0], torch.zeros(1, 1, 4, 4, dtype=torch.uint8))
    with pytest.raises(DataError, match="images of val have the shape"):
        ImageData("x", one, other, one, None, ZERO, ONE)


def test_batches_that_cannot_be_made():
    images = image_set([0, 1, 1])

    def build(size: int = 2, of: ImageSet = images, **settings) -> Batches:
        return Batches(of, ZERO, ONE, size, **settings)

    with pytest.raises(ConfigError, match="batch_size must be at least 1, not 0"):
        build(0)
    with pytest.raises(ConfigError, match="none, crop, flip, flip_crop, not 'mixup'"):
        build(augmentation="mixup")
    with pytest.raises(ConfigError, match="no batch of 4 can be made of 3 images"):
        build(4, drop_last=True)
    with pytest.raises(DataError, match="there are no images"):
        build(of=images.rows(torch.zeros(0, dtype=torch.int64)))
    with pytest.raises(ConfigError, match="for images, not for points"):
        build(of=image_set([0], torch.zeros(1, 2)), augmentation="flip")
    with pytest.raises(InputError, match=r"weights of shape \[2\] do not fit 3 images"):
        build(weights=torch.ones(2))
    for weights in ([0.0, 0, 0], [1.0, -1, 1], [1.0, float("nan"), 1]):
        with pytest.raises(InputError, match="finite, not negative, and not all zero"):
            build(weights=torch.tensor(weights))
