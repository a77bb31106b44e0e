"""MNIST, CIFAR-10 and CIFAR-100 in the layout of the Hugging Face hub: shards of parquet."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from egnn_prune.data.cache import Arrays, cached
from egnn_prune.data.local import VARIABLE, local_data
from egnn_prune.errors import DataError
from egnn_prune.system.files import is_clutter
from egnn_prune.vision.data.class_names import CIFAR10, CIFAR100
from egnn_prune.vision.data.image_set import ImageSet
from egnn_prune.vision.data.parts import Parts
from egnn_prune.vision.data.pictures import MODES, check_mode, check_size, opened, pixels

BLOCK = 1024
SPLITS = ("train", "test")


@dataclass(frozen=True)
class HubSource:
    """A data set on the hub.

    Args:
        repository: where it is.
        shape: of its images, ``(C, H, W)``.
        label: the column with the labels.
        classes: their names, for files that do not tell.
    """

    repository: str
    shape: tuple[int, int, int]
    label: str
    classes: tuple[str, ...]


HUB = {
    "mnist": HubSource("ylecun/mnist", (1, 28, 28), "label", tuple(map(str, range(10)))),
    "cifar10": HubSource("uoft-cs/cifar10", (3, 32, 32), "label", CIFAR10),
    "cifar100": HubSource("uoft-cs/cifar100", (3, 32, 32), "fine_label", CIFAR100),
}


def from_hub(name: str, path: str | Path | None = None) -> Parts:
    """The official training and test images of a data set, decoded once.

    Sources: LeCun et al. (Proc. IEEE 86, 2278, 1998); Krizhevsky (Learning multiple layers of
    features from tiny images, 2009).

    Args:
        name: a name in :data:`HUB`.
        path: a folder with the parquet files; by default ``vision/NAME`` in the data folder, else
            they are downloaded into the hub's own cache.

    Raises:
        DataError: when a part is called, see :func:`find_shards` and :func:`decode`.
    """
    return {split: partial(_part, name, split, path) for split in SPLITS}


def _part(name: str, split: str, path: str | Path | None) -> ImageSet:
    source, shards = HUB[name], find_shards(name, split, path)

    def decode_shards(_: Path) -> Iterator[Arrays]:
        return decode(source, shards)

    return ImageSet.stored(cached(shards[0], decode_shards, variant=name, others=shards[1:]))


def find_shards(name: str, split: str, path: str | Path | None = None) -> list[Path]:
    """The parquet files of ``train`` or ``test``, in order.

    A file's own name begins with that of its split, else that of a folder that it lies in below
    ``path``: ``train-00000-of-00003.parquet``, ``plain_text/train/0000.parquet``.

    Raises:
        DataError: there is no such folder, or no such file in it, or the hub cannot be reached.
    """
    folder = Path(path) if path else local_data(f"vision/{name}")
    if folder is None:
        folder = _downloaded(name, split)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; give that of {name}'s parquet files")
    # what lies deeper than the hub's layouts belongs to something else
    files = [f for depth in ("", "*/", "*/*/") for f in folder.glob(f"{depth}*.parquet")]
    names = {file: file.relative_to(folder) for file in files}
    found = sorted(f for f, name in names.items() if _split(name) == split and not is_clutter(name))
    if not found:
        raise DataError(
            f"there is no {split}*.parquet in {folder}; place the {split} files of "
            f"https://huggingface.co/datasets/{HUB[name].repository} there, or choose another "
            "folder with data.path"
        )
    return found


def _split(file: Path) -> str | None:
    splits = (split for part in reversed(file.parts) for split in SPLITS if part.startswith(split))
    return next(splits, None)


def _downloaded(name: str, split: str) -> Path:
    """The files alone: ``datasets.load_dataset`` would write a second copy of all, in Arrow."""
    from huggingface_hub import snapshot_download

    repository = HUB[name].repository
    try:
        wanted = [f"{split}*.parquet", f"*/{split}*.parquet"]
        return Path(snapshot_download(repository, repo_type="dataset", allow_patterns=wanted))
    except Exception as error:  # of requests or httpx, of the hub, of the disk
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"{name} was not found and cannot be downloaded from the Hugging Face hub "
            f"({reason}); set {VARIABLE} to a folder that holds vision/{name}/*.parquet, or give "
            "the folder of these files with data.path"
        ) from None


def decode(source: HubSource, shards: Sequence[Path]) -> Iterator[Arrays]:
    """Pieces of ``images`` (uint8 ``[n, C, H, W]``), ``labels`` (int64 ``[n]``), and ``classes``.

    Raises:
        DataError: names the shard and the record that cannot be used.
    """
    names: tuple[str, ...] | None = None
    with tqdm(desc=f"decoding {shards[0].parent.name}", unit=" images", delay=2) as bar:
        for shard in shards:
            classes, records = _records(shard, source)
            if names is None:
                names = classes
            elif classes != names:
                raise DataError(f"{shard} has other classes than {shards[0]}; use files of one set")
            for start, images, labels in records:
                decoded = [
                    _image(value, source, f"record {start + k} of {shard}")
                    for k, value in enumerate(images)
                ]
                yield {
                    "images": np.stack(decoded),
                    "labels": _labels(labels, names, shard, start),
                }
                bar.update(len(decoded))
    yield {"classes": np.array(names)}


def _records(
    shard: Path, source: HubSource
) -> tuple[tuple[str, ...], Iterator[tuple[int, list[Any], list[Any]]]]:
    """Names of the classes, and pieces ``(first record, images, labels)``."""
    from datasets import ClassLabel, Features
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

    try:
        file = ParquetFile(shard)
        features = Features.from_arrow_schema(file.schema_arrow)
    except Exception as error:
        raise _damaged(shard, error) from None
    columns = [name for name in ("img", "image") if name in features]
    if not columns or source.label not in features:
        raise DataError(
            f"{shard} has the columns {', '.join(features)}, but img or image and {source.label} "
            f"are needed; use the files of https://huggingface.co/datasets/{source.repository}"
        )
    label = features[source.label]
    classes = tuple(label.names) if isinstance(label, ClassLabel) else source.classes
    return classes, _read(file, shard, [columns[0], source.label])


def _read(file: Any, shard: Path, columns: list[str]) -> Iterator[tuple[int, list[Any], list[Any]]]:
    start = 0
    try:
        for batch in file.iter_batches(BLOCK, columns=columns):
            images, labels = (batch.column(name).to_pylist() for name in columns)
            yield start, images, labels
            start += len(labels)
    except Exception as error:
        raise _damaged(shard, error) from None
    finally:
        file.close()


def _damaged(shard: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return DataError(f"{shard} is damaged or no parquet file ({reason}); get it again")


def _image(value: Any, source: HubSource, name: str) -> np.ndarray:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise DataError(f"{name} has no bytes of an image; replace it or leave it away")
    channels, height, width = source.shape
    picture = opened(io.BytesIO(content), name)
    check_mode(picture, MODES[channels], name)
    check_size(picture, (width, height), name, f"use the images of {source.repository}")
    return pixels(picture)


def _labels(labels: list[Any], names: tuple[str, ...], shard: Path, start: int) -> np.ndarray:
    for k, label in enumerate(labels):
        if not isinstance(label, int) or not 0 <= label < len(names):
            raise DataError(
                f"record {start + k} of {shard} has the label {label}, which is outside the "
                f"{len(names)} classes (0 to {len(names) - 1}); correct it or leave it away"
            )
    return np.array(labels, dtype=np.int64)
