"""Which files a job reads, and fingerprints of them, without reading the data themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from egnn_prune.data.cache import sha256
from egnn_prune.data.local import local_data
from egnn_prune.data.sources.md17 import RELEASES, split_files
from egnn_prune.data.sources.qm9 import SAMPLE
from egnn_prune.data.sources.qm9_official import ARCHIVE, UNCHARACTERIZED


class GraphSource(Protocol):
    """What the settings of data say about files."""

    name: str
    path: str | None
    test: str | None
    ood: str | None
    subset: str | None


def graph_inputs(data: GraphSource) -> dict[str, str]:
    """SHA-256 of every file that graphs are read from, by what it is for the source.

    Files in the data folder count as those that are named. What is not there is left out: loading
    says so better. Simulated sources read none, and the embedded molecules check themselves.

    Raises:
        DataError: a file cannot be read.
    """
    given = {"path": data.path, "test": data.test, "ood": data.ood}
    found = {role: Path(name) for role, name in given.items() if name}
    if data.name in RELEASES:
        found |= _trajectory(data)
    elif data.name == "qm9" and not data.path:
        found |= _qm9(data.subset)
    return {role: sha256(path) for role, path in found.items() if path.is_file()}


def _trajectory(data: GraphSource) -> dict[str, Path]:
    file = RELEASES[data.name].find(data.path, data.subset)
    if file is None:
        return {}
    found = {"path": file}
    if data.name == "rmd17":
        splits = split_files(file, file.stem.removeprefix("rmd17_"))
        found |= {split.name: split for split in splits}
    return found


def _qm9(subset: str | None) -> dict[str, Path]:
    sample = local_data(SAMPLE)
    if sample is not None and subset != "full":
        return {"path": sample}
    placed = {name: local_data(f"molecules/qm9/{name}") for name in (ARCHIVE, UNCHARACTERIZED)}
    return {name: path for name, path in placed.items() if path}  # a download never changes
