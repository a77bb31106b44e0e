"""Lazy graphs: the same as a list of graphs, from arrays in memory or in files."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from egnn_prune.data import GraphDataset, load, random_splits, store
from egnn_prune.data.cache import cached
from egnn_prune.data.dataset import check_records
from egnn_prune.data.store import GraphStore, GraphView
from egnn_prune.errors import DataError
from egnn_prune.graphs import neighbours

SIZES = np.array([3, 1, 5, 2, 4, 3, 6, 2, 1, 3, 4, 5])


def arrays(periodic: bool = False) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    atoms, count = SIZES.sum(), len(SIZES)
    made = {
        "offset": np.concatenate([[0], SIZES.cumsum()]),
        "z": random.integers(1, 9, atoms).astype(np.uint8),
        "pos": random.normal(size=(atoms, 3)).astype(np.float32),
        "forces": random.normal(size=(atoms, 3)),
        "y": random.normal(size=count),
    }
    if periodic:
        made["cell"] = np.tile(np.eye(3) * 4, (count, 1, 1))
        made["pbc"] = np.ones((count, 3), dtype=bool)
    return made


def lazy(content: dict[str, np.ndarray], **options) -> GraphStore:
    per_graph = {k: v for k, v in content.items() if k in ("y", "cell", "pbc")}
    per_node = {k: v for k, v in content.items() if k in ("z", "pos", "forces")}
    return GraphStore(content["offset"], per_node, per_graph, **options)


def listed(content: dict[str, np.ndarray]) -> list[Data]:
    made = []
    for k, (a, b) in enumerate(zip(content["offset"][:-1], content["offset"][1:], strict=True)):
        graph = Data(
            z=torch.tensor(content["z"][a:b].astype(int)),
            pos=torch.tensor(content["pos"][a:b].astype(float)),
            forces=torch.tensor(content["forces"][a:b]),
            y=torch.tensor(content["y"][k : k + 1]),
            row=torch.tensor([k]),
        )
        if "cell" in content:
            graph.cell, graph.pbc = torch.eye(3).double()[None] * 4, torch.ones(1, 3).bool()
        made.append(graph)
    return made


def assert_same(a: Data, b: Data) -> None:
    assert set(a.keys()) == set(b.keys())
    for key in a.keys():
        assert a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]), key


@pytest.fixture(params=["kept", "made anew"])
def bounds(request, monkeypatch):
    """Small sets keep their graphs, large ones their neighbour lists."""
    if request.param == "made anew":
        monkeypatch.setattr(store, "KEPT_GRAPHS", 3)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("cutoff", [None, 1.5])
def test_the_same_as_a_list(bounds, periodic, cutoff):
    content = arrays(periodic)
    splits = random_splits(len(SIZES))
    plain = GraphDataset("made", "y", "eV", True, listed(content), splits).with_cutoff(cutoff)
    other = GraphDataset("made", "y", "eV", True, lazy(content), splits).with_cutoff(cutoff)
    for _ in range(2):  # the second time from what is kept
        for a, b in zip(plain.graphs, other.graphs, strict=True):
            assert_same(a, b)
    for a, b in zip(*(DataLoader(d.split("train"), 4) for d in (plain, other)), strict=True):
        assert torch.equal(a.pos, b.pos) and torch.equal(a.batch, b.batch)
    assert plain.elements == other.elements
    assert torch.equal(plain.targets("train"), other.targets("train"))
    assert plain.limited(5).elements == other.limited(5).elements


def test_neighbours_are_searched_once(bounds, monkeypatch):
    calls = []
    monkeypatch.setattr(store, "neighbours", lambda *a: calls.append(a) or neighbours(*a))
    graphs = lazy(arrays()).with_cutoff(2.0)
    assert calls == []
    for _ in range(3):
        list(graphs)
    assert len(calls) == len(SIZES)
    assert graphs.with_cutoff(2.0) is graphs
    assert graphs.with_cutoff(0.1)[2].edge_index.shape == (2, 0)
    assert graphs[2].edge_index.shape[1] > 0


def test_neighbour_lists_that_do_not_fit_are_searched_again(monkeypatch):
    monkeypatch.setattr(store, "KEPT_GRAPHS", 0)
    monkeypatch.setattr(store, "KEPT_BYTES", 30)
    graphs, all_kept = lazy(arrays(), cutoff=2.0), lazy(arrays(), cutoff=2.0)
    for _ in range(2):
        for a, b in zip(graphs, all_kept, strict=True):
            assert torch.equal(a.edge_index, b.edge_index)
    assert graphs._kept_bytes <= 30


@pytest.mark.parametrize("atoms", [255, 256, 300])
def test_node_numbers_survive_being_kept_small(monkeypatch, atoms):
    monkeypatch.setattr(store, "KEPT_GRAPHS", 0)
    pos = np.arange(3.0 * atoms).reshape(-1, 3)
    graphs = GraphStore(np.array([0, atoms]), {"pos": pos}, {}, cutoff=6.0)
    graphs[0]
    assert torch.equal(graphs[0].edge_index, neighbours(torch.from_numpy(pos), 6.0)[0])


def test_what_is_set_on_a_graph_stays_there(bounds):
    graphs = lazy(arrays())
    graph = graphs[0]
    graph.x, graph.pos = torch.zeros(1), None
    assert "x" not in graphs[0] and graphs[0].pos.shape == (3, 3)


def test_factors_are_applied_in_float64():
    graphs = lazy(arrays(), factors={"pos": 0.5, "forces": 3.0, "y": 27.2})
    content = arrays()
    assert torch.equal(graphs[2].pos, 0.5 * torch.tensor(content["pos"][4:9]).double())
    assert torch.equal(graphs[2].forces, torch.tensor(content["forces"][4:9] * 3))
    assert float(graphs[2].y) == float(graphs.column("y")[2]) == content["y"][2] * 27.2


def test_a_view_is_used_as_a_list():
    graphs = lazy(arrays())
    view = GraphView(graphs, torch.tensor([5, 0, 7]))
    assert [int(g.row) for g in view] == [5, 0, 7]
    assert (len(view), int(view[-1].row), int(view[np.int64(1)].row)) == (3, 7, 0)
    assert [int(g.row) for g in view[1:]] == [0, 7]
    assert [int(g.row) for g in view[::-1]] == [7, 0, 5]
    assert [int(g.row) for g in graphs[2:4]] == [2, 3]
    assert [int(g.row) for g in reversed(view)] == [7, 0, 5]
    with pytest.raises(IndexError):
        view[3]
    with pytest.raises(IndexError):
        graphs[len(graphs)]
    assert int(graphs[-1].row) == len(graphs) - 1
    assert Batch.from_data_list(view).row.tolist() == [5, 0, 7]
    assert not GraphView(graphs, torch.empty(0, dtype=torch.long))


def from_file(tmp_path, monkeypatch) -> GraphStore:
    monkeypatch.setenv("EGNN_PRUNE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").write_text("x")
    content = arrays()
    content["pos"] = np.tile(content["pos"], (1, 1))
    return lazy(cached(tmp_path / "data", lambda path: content), cutoff=2.0)


def test_mapped_arrays_travel_as_names_of_files(tmp_path, monkeypatch):
    graphs = from_file(tmp_path, monkeypatch)
    view = GraphView(graphs, torch.tensor([4, 2]))
    sent = pickle.dumps(view)
    again = pickle.loads(sent)
    assert isinstance(again.graphs.nodes["pos"], np.memmap)
    assert np.array(graphs.nodes["pos"]).tobytes() not in sent
    for a, b in zip(view, again, strict=True):
        assert_same(a, b)
    part = copy.copy(graphs)
    part.nodes = {"pos": graphs.nodes["pos"][3:]}  # a part of a file travels as numbers
    assert np.array_equal(pickle.loads(pickle.dumps(part)).nodes["pos"], part.nodes["pos"])
    store.Path(graphs.nodes["z"].filename).unlink()
    with pytest.raises(DataError, match="is gone or damaged; load the data again"):
        pickle.loads(sent)


def test_workers_and_mapped_arrays(tmp_path, monkeypatch):
    graphs = from_file(tmp_path, monkeypatch)
    loader = DataLoader(graphs, 5, num_workers=1, multiprocessing_context="fork")
    rows = torch.cat([batch.row for batch in loader])
    assert rows.tolist() == list(range(len(SIZES)))


@pytest.mark.parametrize("stretch", [1, 4, 1000])
@pytest.mark.parametrize("key", ["pos", "forces", "y", "cell"])
def test_records_with_nan_are_named(monkeypatch, key, stretch):
    original = store._stretches
    monkeypatch.setattr(store, "_stretches", lambda offset: original(offset, stretch))
    content = arrays(periodic=True)
    row = 7 if key in ("y", "cell") else int(content["offset"][7])
    for bad in (np.nan, np.inf):
        content[key][row] = bad
        with pytest.raises(DataError, match=f"record 7 of made has a NaN .* in its {key}"):
            check_records(lazy(content), "made")


def test_large_numbers_are_no_infinite_ones():
    content = arrays()
    content["y"][:] = 1e308
    check_records(lazy(content), "made")


def test_elements_over_many_stretches(monkeypatch):
    original = store._stretches
    whole = lazy(arrays()).elements(torch.tensor([0, 2, 8]))
    monkeypatch.setattr(store, "_stretches", lambda offset: original(offset, 2))
    assert lazy(arrays()).elements(torch.tensor([0, 2, 8])) == whole
    z, offset = arrays()["z"], arrays()["offset"]
    assert whole == sorted({int(e) for k in (0, 2, 8) for e in z[offset[k] : offset[k + 1]]})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"offset": np.zeros(1, int)}, "holds no graphs"),
        ({"offset": np.array([0, 3, 3, 39])}, "record 1 of made needs positions"),
        ({"z": np.ones(5, int)}, "z of made has 5 rows, not 39"),
        ({"y": np.ones(5)}, "y of made has 5 rows, not 12"),
    ],
)
def test_arrays_that_do_not_fit(change, complaint):
    with pytest.raises(DataError, match=complaint):
        check_records(lazy(arrays() | change), "made")


def test_texts_stay_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("EGNN_PRUNE_CACHE", str(tmp_path / "cache"))
    np.savez(tmp_path / "texts.npz", names=np.array(["CC", "C=O", ""]))
    values = cached(tmp_path / "texts.npz", lambda path: dict(np.load(path)))["names"]
    texts = store.Texts(values)
    assert isinstance(values, np.memmap) and list(texts) == ["CC", "C=O", ""]
    assert type(texts[1]) is str and list(texts[1:]) == ["C=O", ""]
    sent = pickle.dumps(texts)
    assert list(pickle.loads(sent)) == list(texts) and b"C=O" not in sent


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path, monkeypatch):
    """A million molecules, of which 20,000 are read: under 100 bytes each."""
    psutil = pytest.importorskip("psutil")
    count = 1_000_000
    monkeypatch.setenv("EGNN_PRUNE_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "many.npz",
        offset=np.arange(0, 4 * count + 1, 4),
        z=np.tile(np.array([6, 1, 1, 8], dtype=np.uint8), count),
        pos=rng.normal(size=(4 * count, 3)).astype(np.float32),
        targets=rng.normal(size=(count, 1)),
        target_names=np.array(["energy"]),
        smiles=np.array([f"C=O{k}" for k in range(count)]),
        split=np.arange(count) % 3,
    )
    load("npz", tmp_path / "many.npz")  # into the cache
    process = psutil.Process()
    before = process.memory_full_info().uss  # without what is mapped
    dataset = load("npz", tmp_path / "many.npz")
    views = [dataset.split(name) for name in dataset.splits]
    assert sum(int(view[k].z[0]) for view in views[:2] for k in range(10_000)) == 6 * 20_000
    assert (process.memory_full_info().uss - before) / count < 100
