"""What file managers, notebooks and archives leave in folders of images is no class, no image."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from random_images import encoded, random_image

from egnn_prune.vision.data import load_images
from egnn_prune.vision.data.hub import find_shards


def copies(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for file in sorted(source.glob("*.png"))[:3]:
        shutil.copy(file, target / f"{file.stem}-checkpoint.png")


def apple_double(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"\0\5\26\7Mac OS X")


CLUTTER: dict[str, Callable[[Path], None]] = {
    "checkpoints beside the classes": lambda d: copies(d / "cat", d / ".ipynb_checkpoints"),
    "checkpoints inside a class": lambda d: copies(d / "cat", d / "cat" / ".ipynb_checkpoints"),
    "checkpoints deep in a class": lambda d: copies(d / "cat", d / "cat" / ".a" / "b"),
    "an empty hidden folder": lambda d: (d / ".ipynb_checkpoints").mkdir(),
    "a bin": lambda d: copies(d / "dog", d / ".Trash-1000" / "files"),
    "a bin of Windows": lambda d: copies(d / "dog", d / "$RECYCLE.BIN"),
    "an archive made on a Mac": lambda d: apple_double(d / "__MACOSX" / "cat" / "._000.png"),
    "AppleDouble in a class": lambda d: apple_double(d / "cat" / "._000.png"),
    "a hidden image": lambda d: shutil.copy(d / "cat" / "000.png", d / "cat" / ".000.png"),
    "thumbnails": lambda d: shutil.copy(d / "cat" / "000.png", d / "cat" / "Thumbs.db"),
    "thumbnails as images": lambda d: copies(d / "cat", d / "cat" / "@eaDir" / "000.png"),
    "a setting of Windows": lambda d: (d / "cat" / "desktop.ini").write_text("[.ShellClassInfo]"),
    "files of macOS": lambda d: (d / ".DS_Store").write_bytes(b"Bud1"),
}


@pytest.mark.parametrize("leave", CLUTTER.values(), ids=CLUTTER)
def test_clutter_changes_nothing(leave, tmp_path, write_images, caplog):
    """Below a folder that itself lies in a hidden one: only what is inside counts."""
    clean = load_images("folder", path=write_images(tmp_path / "clean"))
    folder = write_images(tmp_path / ".hidden" / "pets")
    leave(folder)
    found = load_images("folder", path=folder)
    assert found.classes == ("cat", "dog")
    for part in ("train", "val", "test"):
        assert getattr(found, part).images.equal(getattr(clean, part).images)
        assert getattr(found, part).labels.equal(getattr(clean, part).labels)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_clutter_in_the_parts(tmp_path, write_images):
    for part, count in {"train": 6, "val": 2, "test": 3}.items():
        write_images(tmp_path / part, count=count, mode="L")
        copies(tmp_path / part / "cat", tmp_path / part / ".ipynb_checkpoints")
    data = load_images("folder", path=tmp_path)
    assert (len(data.train), len(data.val), len(data.test)) == (12, 4, 6)


def test_clutter_beside_shards(cifar, write_shard):
    wanted = find_shards("cifar10", "train", cifar)
    apple_double(cifar / "train" / "._0000.parquet")
    shutil.copytree(cifar, cifar / ".cache" / "train")
    write_shard(cifar / "__MACOSX" / "train.parquet", [encoded(random_image(1))], [0], None)
    assert find_shards("cifar10", "train", cifar) == wanted


def test_nothing_but_clutter(tmp_path):
    from egnn_prune.errors import DataError

    apple_double(tmp_path / ".git" / "a.png")
    with pytest.raises(DataError, match="needs a sub-folder with images for each class") as caught:
        load_images("folder", path=tmp_path)
    assert "\n" not in str(caught.value)
