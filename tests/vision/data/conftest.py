"""Small data sets in the layouts that users have: shards of parquet, folders of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from random_images import encoded, random_image


@pytest.fixture(autouse=True)
def no_shared_data(request, monkeypatch, tmp_path) -> None:
    """Tests with small data must not find the real ones; nor may anything be downloaded."""
    if "real_data" not in request.fixturenames:
        monkeypatch.setenv("EGNN_PRUNE_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("EGNN_PRUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def write_shard() -> Callable[..., Path]:
    """``write_shard(path, images, labels, names, ...)``: parquet as the hub's, or without names."""

    def write(
        path: Path,
        images: list[bytes | None],
        labels: list[int],
        names: tuple[str, ...] | None = None,
        columns: tuple[str, str] = ("img", "label"),
    ) -> Path:
        import pyarrow
        from datasets import ClassLabel, Features, Value
        from datasets import Image as ImageFeature
        from pyarrow import parquet

        label = ClassLabel(names=list(names)) if names else Value("int64")
        features = Features(dict(zip(columns, (ImageFeature(), label), strict=True)))
        rows = [{"bytes": image, "path": None} for image in images]
        table = pyarrow.Table.from_pydict(
            dict(zip(columns, (rows, labels), strict=True)), schema=features.arrow_schema
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, path)
        return path

    return write


@pytest.fixture
def cifar(tmp_path, write_shard) -> Path:
    """A folder like CIFAR-10's: 30 training images in 2 shards, 10 test images."""
    names = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
    for k, (split, start, count) in enumerate(
        [("train-00000-of-00002", 0, 20), ("train-00001-of-00002", 20, 10), ("test", 100, 10)]
    ):
        images = [encoded(random_image(start + i)) for i in range(count)]
        labels = [(start + i + k) % 10 for i in range(count)]
        write_shard(tmp_path / "cifar10" / f"{split}.parquet", images, labels, names)
    return tmp_path / "cifar10"


@pytest.fixture
def write_images() -> Callable[..., Path]:
    """``write_images(folder, classes, count, mode, size)``: PNG files, one sub-folder a class."""

    def write(
        folder: Path,
        classes: tuple[str, ...] = ("cat", "dog"),
        count: int = 10,
        mode: str = "RGB",
        size: tuple[int, int] = (8, 8),
    ) -> Path:
        for label, name in enumerate(classes):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for k in range(count):
                image = random_image(1000 * label + k, mode, size)
                image.save(folder / name / f"{k:03d}.png")
        return folder

    return write
