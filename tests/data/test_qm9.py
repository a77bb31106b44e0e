"""QM9: units, splits, and numbers that never pass through float32."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader

from egnn_prune import data
from egnn_prune.data import download
from egnn_prune.data.local import local_data
from egnn_prune.data.sources import qm9
from egnn_prune.data.sources.qm9 import PROPERTIES, load_qm9, qm9_splits
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.models import PropertyModel, TargetScale

HARTREE, KCAL_MOL = 27.211386, 0.0433641


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("EGNN_PRUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("EGNN_PRUNE_DATA", str(tmp_path / "empty"))
    return tmp_path / "empty"


@pytest.fixture
def sample():
    path = local_data(qm9.SAMPLE)
    if path is None:
        pytest.skip(f"{qm9.SAMPLE} is not there; EGNN_PRUNE_DATA says where it is")
    return path


def made(**changes: np.ndarray) -> dict[str, np.ndarray]:
    """Ten water-like molecules with all columns; row k, column c holds -(k + 1) - c / 100."""
    names = list(PROPERTIES)
    targets = -(np.arange(10)[:, None] + 1.0) - np.arange(19) / 100
    arrays = {
        "offset": np.arange(0, 31, 3),
        "z": np.tile(np.array([8, 1, 1], dtype=np.uint8), 10),
        "pos": np.random.default_rng(0).normal(size=(30, 3)),
        "targets": targets,
        "target_names": np.array(names),
    }
    return arrays | changes


@pytest.mark.parametrize("target", PROPERTIES)
def test_units_of_the_official_columns(tmp_path, target):
    np.savez(tmp_path / "own.npz", **made())
    dataset = data.load("qm9", tmp_path / "own.npz", target)
    official = -4.0 - list(PROPERTIES).index(target) / 100
    factor = {"Hartree": HARTREE, "kcal/mol": KCAL_MOL}.get(PROPERTIES[target].filed_in, 1.0)
    assert float(dataset.graphs[3].y) == pytest.approx(official * factor, rel=2e-6)
    assert (dataset.unit, dataset.units["y"]) == (PROPERTIES[target].unit,) * 2
    assert dataset.unit == ("eV" if factor != 1.0 else PROPERTIES[target].filed_in)
    sums = {"alpha", "zpve", "cv", "u0", "u298", "h298", "g298"}
    assert dataset.extensive == (target in sums or target.endswith("_atom"))


def test_declared_units(tmp_path):
    units = [p.unit for p in PROPERTIES.values()]
    np.savez(tmp_path / "ev.npz", **made(target_units=np.array(units)))
    assert float(load_qm9(tmp_path / "ev.npz", "u0").graphs[0].y) == -1.1
    np.savez(tmp_path / "bad.npz", **made(target_units=np.array(["meV"] * 19)))
    with pytest.raises(DataError, match="bad declares u0 in 'meV'; qm9 reads it in eV or Hartree"):
        load_qm9(tmp_path / "bad.npz", "u0")


def test_the_default_is_u0_atom(tmp_path):
    np.savez(tmp_path / "own.npz", **made())
    assert load_qm9(tmp_path / "own.npz").target == "u0_atom"


def test_total_energies_keep_their_last_digits(dtype):
    """Two molecules of -17,660 eV that differ by 0.1 meV: float32 numbers there are 2 meV apart."""
    y = -17_660.0 / HARTREE + np.arange(10) * 1e-4 / HARTREE
    targets = made()["targets"].copy()
    targets[:, list(PROPERTIES).index("u0")] = y
    store = qm9.flat_store(made(targets=targets), "u0", "own", (HARTREE, 1.0, 1.0))
    scale = TargetScale.fit(torch.tensor([[2.0, 1.0]] * 10), torch.cat([g.y for g in store]))
    model = PropertyModel.build([1, 8], hidden=8, layers=1, scale=scale).to(dtype)
    (batch,) = DataLoader(store, 10)
    assert batch.y.dtype == torch.float64
    normal = model.normalise(batch, batch.y)
    steps = normal.double().diff() * scale.scale  # eV
    assert torch.allclose(steps, torch.full((9,), 1e-4, dtype=torch.float64), rtol=1e-4)


def test_references_of_the_elements_are_subtracted_in_float64(sample):
    """What is left of u0 is what is left of u0_atom, the same energies less those of free atoms."""
    left = []
    for target in ("u0", "u0_atom"):
        dataset = load_qm9(target=target)
        store = dataset.graphs
        kinds = store.nodes["z"][:, None] == np.array(dataset.elements)
        counts = torch.from_numpy(np.add.reduceat(kinds.astype(float), store.offset[:-1]))
        counts, y = counts[:2000], store.column("y")[:2000]
        left.append(y - TargetScale.fit(counts, y).reference(counts))
    assert left[0].std() > 0.1
    assert (left[0] - left[1]).abs().max() < 1e-4 * left[0].std()  # float32: 5e-4


def test_the_sample(sample):
    dataset = data.load("qm9", subset="12k", target="gap", seed=5)
    assert (dataset.name, len(dataset.graphs)) == ("qm9_12k", 12_176)
    assert {k: len(v) for k, v in dataset.splits.items()} == {
        "train": 9742,
        "val": 1217,
        "test": 1217,
        "ood": 0,
    }
    assert dataset.elements == [1, 6, 7, 8]
    y = dataset.targets("train")
    assert 6.5 < y.mean() < 7.2 and 0.5 < y.min() and y.max() < 18  # eV
    assert dataset.smiles[0] == "CC" and dataset.graphs[0].z.tolist() == [6] * 2 + [1] * 6


def test_the_seed_of_a_job_does_not_move_the_test_set(tmp_path):
    np.savez(tmp_path / "own.npz", **made())
    first, other = (data.load("qm9", tmp_path / "own.npz", seed=s).splits for s in (0, 1))
    assert all(torch.equal(first[k], other[k]) for k in first)
    moved = load_qm9(tmp_path / "own.npz", split_seed=1).splits
    assert not torch.equal(first["train"], moved["train"])


def test_the_full_set_is_split_as_is_customary():
    splits = qm9_splits(130_831)
    assert [len(splits[k]) for k in ("train", "val", "test")] == [110_000, 10_000, 10_831]
    assert torch.equal(torch.cat(list(splits.values())).sort().values, torch.arange(130_831))
    assert torch.equal(splits["test"], qm9_splits(130_831)["test"])


def test_a_split_in_the_file_wins(tmp_path):
    np.savez(tmp_path / "own.npz", **made(split=np.array([0, 0, 1, 1, 2, 2, 3, 3, 3, 3])))
    splits = load_qm9(tmp_path / "own.npz").splits
    assert (splits["test"].tolist(), splits["ood"].tolist()) == ([4, 5], [6, 7, 8, 9])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"target": "U0"}, "qm9 has no target 'U0'; it has A, B, C, mu"),
        ({"subset": "13k"}, "data.subset of qm9 must be one of full, 12k, not '13k'"),
        ({"subset": "12k", "path": "x.npz"}, "data.path or data.subset, not both"),
    ],
)
def test_wrong_settings(arguments, complaint):
    with pytest.raises(ConfigError, match=complaint):
        data.load("qm9", **arguments)


def test_a_column_that_is_not_there(tmp_path):
    np.savez(tmp_path / "own.npz", **made(target_names=np.array([f"t{k}" for k in range(19)])))
    with pytest.raises(DataError, match="own has no target 'u0_atom'; it has t0, t1"):
        load_qm9(tmp_path / "own.npz")


def test_the_sample_is_asked_for_and_missing(nowhere):
    with pytest.raises(DataError, match=r"qm9_12k\.npz was not found; set EGNN_PRUNE_DATA"):
        load_qm9(subset="12k")


def test_no_host_no_data(nowhere, tmp_path, monkeypatch):
    def unreachable(*arguments, **options):
        raise OSError("Name or service not known")

    monkeypatch.setattr(download.urllib.request, "urlopen", unreachable)
    with pytest.raises(DataError) as caught:
        load_qm9()
    message = str(caught.value)
    place = tmp_path / "cache" / "downloads" / "qm9" / "qm9.zip"
    assert "cannot be downloaded (Name or service not known)" in message and "\n" not in message
    assert f"place it at {place}" in message and "data.path=FILE.npz" in message
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []


def sdf(k: int) -> str:
    atoms = "".join(f"{k:10.4f}{i * k:10.4f}{-1.5:10.4f} {e}   0  0\n" for i, e in enumerate("OHH"))
    head = f"gdb {k}\n made\n\n  3  2  0  0  0  0  0  0  0999 V2000\n"
    return f"{head}{atoms}  1  2  1  0\nM  END\n$$$$\n"


@pytest.fixture
def official(nowhere):
    """Twelve made-up molecules in files as the official ones; 2 and 12 are doubtful."""
    folder = nowhere / "molecules" / "qm9"
    folder.mkdir(parents=True)
    names = ",".join(["mol_id", *PROPERTIES])
    rows = [f"gdb_{k}," + ",".join(f"{-k - c / 100:.6f}" for c in range(19)) for k in range(1, 13)]
    with zipfile.ZipFile(folder / "qm9.zip", "w") as archive:
        archive.writestr("gdb9.sdf", "".join(sdf(k) for k in range(1, 13)))
        archive.writestr("gdb9.sdf.csv", "\n".join([names, *rows]) + "\n")
    lines = ["text"] * 9 + ["    2  C#N", "   12  CCO", "2 compounds", ""]
    (folder / "uncharacterized.txt").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("piece", [3, 1000])
def test_official_files(official, monkeypatch, piece):
    monkeypatch.setattr("egnn_prune.data.sources.qm9_official.PIECE", piece)
    dataset = load_qm9(target="u0")
    assert (dataset.name, len(dataset.graphs)) == ("qm9", 10)
    kept = [1, *range(3, 12)]
    assert [float(g.y) for g in dataset.graphs] == pytest.approx(
        [-(k + 0.1) * HARTREE for k in kept]
    )
    for k, graph in zip(kept, dataset.graphs, strict=True):
        assert graph.z.tolist() == [8, 1, 1]
        assert graph.pos.tolist() == [[k, i * k, -1.5] for i in range(3)]


def test_a_damaged_official_file_is_named_with_the_molecule(official, tmp_path):
    with zipfile.ZipFile(official / "qm9.zip") as archive:
        content = {name: archive.read(name).decode() for name in archive.namelist()}
    content["gdb9.sdf"] = content["gdb9.sdf"].replace(
        "    5.0000    5.0000", "    5.0000     x    "
    )
    with zipfile.ZipFile(official / "qm9.zip", "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
    with pytest.raises(DataError, match=r"molecule 5 in .*qm9\.zip is damaged"):
        load_qm9()
    (official / "qm9.zip").write_bytes((official / "qm9.zip").read_bytes()[:500])
    with pytest.raises(DataError, match=r"qm9\.zip is damaged \(File is not a zip file\)"):
        load_qm9()
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []


def test_flipped_bytes_of_an_official_file_are_one_sentence(official, tmp_path):
    with (
        zipfile.ZipFile(official / "qm9.zip") as archive,
        zipfile.ZipFile(tmp_path / "packed.zip", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    content = (tmp_path / "packed.zip").read_bytes()
    refused = 0
    for position in range(0, len(content), 37):
        damaged = bytearray(content)
        damaged[position] ^= 20
        (official / "qm9.zip").write_bytes(damaged)
        try:
            load_qm9()
        except DataError as error:
            assert "\n" not in str(error) and "qm9.zip" in str(error)
            refused += 1
    assert refused > 5


class Reply:
    """What a server says: ten bytes announced, and as many sent as it likes."""

    headers = {"Content-Length": "10"}  # noqa: RUF012

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        pass

    def read(self, size: int) -> bytes:
        content, self.content = self.content, b""
        return content


def test_downloads_are_complete_or_absent(tmp_path, monkeypatch):
    replies = [Reply(b"half"), Reply(b"0123456789")]
    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *a, **o: replies.pop(0))
    path = tmp_path / "new" / "file.zip"
    with pytest.raises(
        DataError, match=r"https://x/file.zip cannot be downloaded \(it broke off\)"
    ):
        download.download("https://x/file.zip", path)
    assert list(path.parent.iterdir()) == []
    assert download.download("https://x/file.zip", path).read_bytes() == b"0123456789"
    assert download.download("https://x/file.zip", path) == path  # asks nobody
