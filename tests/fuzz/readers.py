"""Everything that reads what strangers wrote, with a good file to damage."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from mutation import VALUES, WORDS, as_text, damaged_bytes, damaged_json, damaged_text
from safetensors.torch import load, save_file
from small_adopted import potential

from egnn_prune import data, save
from egnn_prune.ase.predict_file import predict_structures
from egnn_prune.cli import hydra_app
from egnn_prune.cli.config_file import overrides_of
from egnn_prune.configs.settings import Settings, described
from egnn_prune.deployment.model_header import CHECKSUM
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.report.common.files import load_metrics, load_predictions
from egnn_prune.runs.status import runs_below, status_of

GALLERY = Path(__file__).parents[1] / "deployment/gallery"
MODEL = GALLERY / "format2/rigidity_robust.safetensors"


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes:
        inputs: what it is given.
        read: reads one; the folder is for its files.
        short: inputs of the short form.
    """

    inputs: SearchStrategy[Any]
    read: Callable[[Any, Path], object]
    short: int = 60


def structures() -> list[Atoms]:
    """Water, bent in three ways, and one that is periodic."""
    found = []
    for k in range(4):
        atoms = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0.1 * k]])
        atoms.info["energy"] = -10.0 - k
        found.append(atoms)
    return found


def written(kind: str, atoms: Any) -> bytes:
    """A file of structures in a format of ASE."""
    text: Any = io.BytesIO() if kind in ("traj", "cif") else io.StringIO()
    ase.io.write(text, atoms, format=kind)
    content = text.getvalue()
    return content if isinstance(content, bytes) else content.encode()


def periodic() -> list[Atoms]:
    """The same in a box."""
    found = structures()
    for atoms in found:
        atoms.cell, atoms.pbc = [6.0, 6.0, 6.0], True
    return found


def put(content: bytes, folder: Path, name: str) -> Path:
    """A file with this content."""
    (folder / name).write_bytes(content)
    return folder / name


XYZ = written("extxyz", structures()).decode()
BOX = written("extxyz", periodic()).decode()


def xyz() -> SearchStrategy[bytes]:
    """Damaged extended XYZ."""
    return st.one_of(
        *(f(t) for t in (XYZ, BOX) for f in (damaged_text, lambda t: damaged_bytes(t.encode())))
    )


def archive(compressed: bool = False, **changed: Any) -> bytes:
    """An ``.npz`` in the layout of the data source."""
    frames = structures()
    arrays: dict[str, Any] = {
        "offset": np.arange(5) * 3,
        "z": np.concatenate([a.numbers for a in frames]),
        "pos": np.concatenate([a.positions for a in frames]),
        "targets": np.array([[a.info["energy"], 1.0] for a in frames]),
        "target_names": np.array(["energy", "gap"]),
        "target_units": np.array(["eV", "eV"]),
        "split": np.array([0, 0, 1, 2]),
        "forces": np.zeros((12, 3)),
    } | changed
    return zipped(arrays, compressed)


ODD_ARRAYS = (
    *(np.zeros(0), np.zeros((3, 0)), np.array(1), np.array("x"), np.array([np.nan] * 12)),
    *(np.arange(5.0), np.full((12, 3), np.inf), np.full(12, 2**62), np.arange(5)[::-1].copy()),
    *(np.array([b"x"] * 12), np.zeros(12, "M8[s]"), np.zeros(4, [("a", "f8")]), np.zeros(12, bool)),
    *(np.full(12, 0), np.full(12, 200), np.full((12, 3), 1e300), np.zeros((12, 3), complex)),
    *(np.full(4, 7), np.full(12, -5, np.int8), np.zeros((12, 3), np.float16), np.array(["e"] * 2)),
)
NAMES = (
    "offset",
    "z",
    "pos",
    "targets",
    "target_names",
    "target_units",
    "split",
    "forces",
    "smiles",
)


def archives() -> SearchStrategy[bytes]:
    """Damaged ones, and whole ones with arrays that cannot be."""
    odd = st.dictionaries(
        st.sampled_from(NAMES), st.sampled_from(ODD_ARRAYS), min_size=1, max_size=2
    )
    return damaged_bytes(archive()) | damaged_bytes(archive(True)) | odd.map(lambda c: archive(**c))


def adopted() -> bytes:
    """Somebody else's potential in a file of ours."""
    with TemporaryDirectory() as folder:
        save(potential(), path := Path(folder) / "a.safetensors", target="energy", unit="eV")
        return path.read_bytes()


def model_files() -> SearchStrategy[Any]:
    """Damaged bytes; and headers that say something else, as of a version without checksums."""
    found = [damaged_bytes(MODEL.read_bytes())]
    bases = [path.read_bytes() for path in (MODEL, *sorted(GALLERY.glob("v0.1/*.safetensors")))]
    for base in (*bases, adopted()):
        stored = json.loads(base[8 : 8 + int.from_bytes(base[:8], "little")])
        header = json.loads(stored["__metadata__"]["egnn_prune"])
        header = {k: v for k, v in header.items() if k != CHECKSUM} | {"format": 1}
        found.append(st.tuples(st.just(base), damaged_json(header)))
    return st.one_of(found)


def read_model(content: Any, folder: Path) -> None:
    """Load it, and predict."""
    path = folder / "m.safetensors"
    if isinstance(content, tuple):
        text = as_text(content[1]).decode("utf-8", "replace")
        save_file(load(content[0]), path, metadata={"egnn_prune": text})
    else:
        path.write_bytes(content)
    model = TrainedModel.load(path, device="cpu")
    good = put(BOX.encode(), folder, "good.xyz")
    predict_structures(model, good, skip_bad=True)


def packed() -> SearchStrategy[tuple[str, bytes]]:
    """Structures in damaged archives."""
    whole = XYZ.encode()
    return st.one_of(
        st.tuples(st.just("a.xyz.gz"), damaged_bytes(gzip.compress(whole, mtime=0))),
        st.tuples(st.just("a.xyz.bz2"), damaged_bytes(bz2.compress(whole))),
        st.tuples(st.just("a.xyz.xz"), damaged_bytes(lzma.compress(whole))),
    )


def trajectories() -> SearchStrategy[bytes]:
    """Damaged files of (r)MD17."""
    arrays = {
        "nuclear_charges": np.array([8, 1, 1]),
        "coords": np.stack([a.positions for a in structures()] * 3),
        "energies": np.arange(12.0),
        "forces": np.zeros((12, 3, 3)),
    }
    odd = st.dictionaries(
        st.sampled_from(sorted(arrays)), st.sampled_from(ODD_ARRAYS), min_size=1, max_size=2
    )
    return damaged_bytes(zipped(arrays)) | odd.map(lambda changed: zipped(arrays | changed))


def zipped(arrays: dict[str, Any], compressed: bool = False) -> bytes:
    """An ``.npz``."""
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


OTHERS = {
    "cif": "a.cif",
    "vasp": "POSCAR",
    "proteindatabank": "a.pdb",
    "json": "a.json",
    "gen": "a.gen",
}


def other_formats() -> SearchStrategy[tuple[str, bytes]]:
    """Damaged files of ASE's other formats, by their names."""
    choices = []
    for kind, name in OTHERS.items():
        whole = written(kind, periodic()[0])
        choices += [
            st.tuples(st.just(name), damaged)
            for damaged in (damaged_bytes(whole), damaged_text(whole.decode()))
        ]
    return st.one_of(*choices)


_MODEL: list[TrainedModel] = []


def predict(path: Path) -> object:
    """A table of predictions for a file of structures."""
    if not _MODEL:
        _MODEL.append(TrainedModel.load(MODEL, device="cpu"))
    return predict_structures(_MODEL[0], path, skip_bad=True)


RUN = {
    "run.json": {"hash": "0123456789ab", "label": "dense", "version": "0.1", "failed": None},
    "stages/dense.json": {"val_mae": 0.1, "seconds": 3.0, "epochs": 2},
    "metrics.json": {
        "schema_version": 1,
        "dataset": {"name": "x", "unit": "eV"},
        "models": {
            name: {"test_mae": 0.1, "params": 10, "macs_per_graph": 5.0}
            for name in ("dense", "pruned")
        },
        "ledger": [{"layer": "a", "params": 3}],
        "pruning": {"groups": [{"name": "a", "n": 3}]},
    },
}


def read_run(content: Any, folder: Path) -> None:
    """What ``status`` and the report ask of a run's folder."""
    run = folder / "run"
    (run / "stages").mkdir(parents=True, exist_ok=True)
    for name, entry in content.items():
        (run / name).write_bytes(entry if isinstance(entry, bytes) else as_text(entry))
    for found in runs_below(folder):
        status_of(found)
    load_metrics(run / "metrics.json")


def run_folders() -> SearchStrategy[dict[str, Any]]:
    """One of the files of a run is damaged."""
    return st.sampled_from(sorted(RUN)).flatmap(
        lambda name: st.one_of(damaged_json(RUN[name]), damaged_bytes(as_text(RUN[name]))).map(
            lambda entry: RUN | {name: entry}
        )
    )


SETTINGS = [name for name, _, _ in described(Settings())]


def overrides() -> SearchStrategy[list[str]]:
    """Settings as they are typed."""
    value = st.sampled_from(WORDS) | st.sampled_from(VALUES).map(str) | st.text(max_size=6)
    name = st.sampled_from(SETTINGS) | st.sampled_from(("", "model", "x", "+x", "data", "hydra.x"))
    return st.lists(st.builds("{}={}".format, name, value), min_size=1, max_size=2)


def read_overrides(content: list[str], folder: Path) -> None:
    """As a job does before it starts."""
    hydra_app.check(Settings, "train", content)


def settings_files() -> SearchStrategy[bytes]:
    """YAML."""
    good = "model:\n  hidden: 8\n  layers: 2\ntraining.lr: 0.001\nselection:\n  band: [0.5, 0.9]\n"
    return damaged_text(good) | damaged_bytes(good.encode())


READERS = {
    "extxyz": Reader(xyz(), lambda c, f: data.load("extxyz", put(c, f, "a.xyz"))),
    "npz": Reader(archives(), lambda c, f: data.load("npz", put(c, f, "a.npz"))),
    "model": Reader(model_files(), read_model),
    "predict": Reader(xyz(), lambda c, f: predict(put(c, f, "a.xyz"))),
    "formats": Reader(other_formats(), lambda c, f: predict(put(c[1], f, c[0]))),
    "packed": Reader(packed(), lambda c, f: predict(put(c[1], f, c[0]))),
    "rmd17": Reader(trajectories(), lambda c, f: data.load("rmd17", put(c, f, "rmd17_a.npz"))),
    "arrays": Reader(archives(), lambda c, f: load_predictions(put(c, f, "predictions.npz"))),
    "run": Reader(run_folders(), read_run),
    "settings": Reader(overrides(), read_overrides, 20),
    "config": Reader(
        settings_files(), lambda c, f: overrides_of(put(c, f, "a.yaml"), Settings, {"data"}, [])
    ),
}
