"""The two studies of selection, tiny: rows, pairing, resuming, and what they refuse."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_jobs import tiny, used_only
from torch_geometric.data import Batch, Data

from egnn_prune import data, load
from egnn_prune.configs.over_seeds import AcquisitionSettings, SelectionStudySettings, main_job
from egnn_prune.data import GraphDataset
from egnn_prune.errors import ConfigError
from egnn_prune.runs.result_store import Rows
from egnn_prune.selection import select
from egnn_prune.studies import acquisition, networks, selection
from egnn_prune.studies.acquisition import run_acquisition
from egnn_prune.studies.selection import run_selection_study

SIZES = {"train": 40, "val": 6, "test": 8, "ood": 8}


def clusters(*_: Any, **__: Any) -> GraphDataset:
    """Small clusters of two elements; the out-of-distribution ones are larger."""
    generator = torch.Generator().manual_seed(0)
    graphs, splits = [], {}
    for split, size in SIZES.items():
        splits[split] = torch.arange(len(graphs), len(graphs) + size)
        for _ in range(size):
            nodes = 6 if split == "ood" else 3 + len(graphs) % 3
            pos = 1.5 * torch.randn(nodes, 3, generator=generator, dtype=torch.float64)
            y = torch.pdist(pos).reciprocal().clamp(max=2).sum()[None]
            z = torch.tensor([1, 8] * 3)[:nodes]
            graphs.append(Data(z=z, pos=pos, y=y, row=torch.tensor([len(graphs)])))
    return GraphDataset("clusters", "energy", "eV", True, graphs, splits)


@pytest.fixture(scope="module", autouse=True)
def small_data():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", clusters)
        yield


def study(schema: type, out: Path, **changes: Any) -> Any:
    """Tiny settings of a study; ``changes`` are its own."""
    job = tiny(out, data__limit=None, training__batch_size=8, uncertainty__method="dropout")
    return used_only(schema(**(vars(main_job(job)) | {"seeds": [0, 1]} | changes)), *changes)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


# ------------------------------------------------------------------ strategies side by side


# The rate of a fit's last step is next to 0, and the first step of AdamW moves every weight by the
# rate times the *sign* of its gradient: after 2 steps, fits on other graphs may differ by rounding.
STEPS = 4
CELLS = {"strategies": ["random", "top", "diverse", "all"], "replays": [0.5, 0.0], "steps": STEPS}


@pytest.fixture(scope="module")
def studied(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("selection") / "out"
    return run_selection_study(study(SelectionStudySettings, out, **CELLS))


def test_a_row_for_every_cell(studied):
    rows = rows_of(studied / "selection.csv")
    assert [(r["strategy"], float(r["replay"]), r["seed"]) for r in rows] == [
        (s, replay, seed) for replay in (0.5, 0.0) for s in CELLS["strategies"] for seed in "01"
    ]
    for row in rows:
        assert float(row["test_mae"]) > 0 and float(row["ood_mae"]) > 0 and row["unit"] == "eV"
        assert int(row["selected"]) == (40 if row["strategy"] == "all" else 12)
    value = {(r["strategy"], r["replay"], r["seed"]): r for r in rows}
    epistemic_std = {
        s: float(value[s, "0.5", "0"]["mean_uncertainty"]) for s in CELLS["strategies"]
    }
    assert (
        epistemic_std["top"] > epistemic_std["diverse"] > 0
        and epistemic_std["top"] > epistemic_std["all"]
    )
    # without the selection nothing is replayed: the two cells are one
    assert value["all", "0.5", "0"]["test_mae"] == value["all", "0.0", "0"]["test_mae"]
    assert value["top", "0.5", "0"]["test_mae"] != value["top", "0.0", "0"]["test_mae"]
    assert (studied / "selection.png").read_bytes().startswith(b"\x89PNG")
    assert "difference to random [95 %]" in (studied / "selection.txt").read_text()


def test_an_interrupted_study_goes_on(studied, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(studied, out)
    save = out / "single1" / "selection.json"
    content = json.loads(save.read_text())
    lost = [r for r in content["rows"] if r["strategy"] == "diverse" and r["replay"] == 0.0]
    content["rows"] = [r for r in content["rows"] if r not in lost]
    save.write_text(json.dumps(content))
    calls = []
    real = selection.fine_tuned
    monkeypatch.setattr(selection, "fine_tuned", lambda *a: calls.append(1) or real(*a))
    monkeypatch.setattr(selection.Job, "fit", lambda *_: pytest.fail("trained again"))
    run_selection_study(study(SelectionStudySettings, out, **CELLS))
    assert len(calls) == 1
    assert rows_of(out / "selection.csv") == rows_of(studied / "selection.csv")
    with pytest.raises(ConfigError, match=r"holds rows found with .*'steps': 4.*choose another"):
        run_selection_study(study(SelectionStudySettings, out, **{**CELLS, "steps": 3}))


def test_trained_networks_are_used(studied, tmp_path, monkeypatch):
    monkeypatch.setattr(selection.Job, "fit", lambda *_: pytest.fail("trained again"))
    how = {**CELLS, "networks": str(studied), "strategies": ["random", "least"], "seeds": [1]}
    changed = study(SelectionStudySettings, tmp_path / "a", **how)
    changed.selection.fraction = 0.5  # says nothing about the training
    run_selection_study(changed)
    assert {r["selected"] for r in rows_of(tmp_path / "a" / "selection.csv")} == {"20"}
    other = study(SelectionStudySettings, tmp_path / "b", **how)
    other.training.lr *= 2
    with pytest.raises(ConfigError, match=r"single1 was trained with other settings"):
        run_selection_study(other)
    missing = study(SelectionStudySettings, tmp_path / "c", **{**how, "seeds": [5]})
    with pytest.raises(ConfigError, match=r"has no trained network single5; train it first"):
        run_selection_study(missing)


def test_every_arm_takes_the_same_steps(studied, tmp_path, monkeypatch):
    """Equal steps, on the graphs that were selected, from channels scored on all of them."""
    fits, scored = [], []
    prune, fine_tune = networks.prune, networks.fine_tune

    def watched_prune(model, *how, data, **more):
        scored.append(sum(batch.num_graphs for batch in data))
        assert more["batches"] == len(data)
        return prune(model, *how, data=data, **more)

    def watched_fine_tune(model, loader, **how):
        drawn = {int(r) for _ in range(3) for batch in loader for r in batch.row}
        fits.append((how["steps"], len(drawn)))
        return fine_tune(model, loader, **how)

    monkeypatch.setattr(networks, "prune", watched_prune)
    monkeypatch.setattr(networks, "fine_tune", watched_fine_tune)
    how = {**CELLS, "networks": str(studied), "seeds": [0], "strategies": ["random", "top"]}
    run_selection_study(study(SelectionStudySettings, tmp_path / "out", **how))
    assert scored == [12, 12] and [steps for steps, _ in fits] == [STEPS] * 4
    assert all(graphs > 12 for _, graphs in fits[::2])  # replay 0.5
    assert all(graphs <= 12 for _, graphs in fits[1::2])  # replay 0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"strategies": ["best"]}, r"strategies must be some of top, .*, all, not \['best'\]"),
        ({"strategies": []}, "strategies needs one or more different values"),
        ({"replays": [0.5, 0.5]}, "replays needs one or more different values"),
        ({"seeds": []}, "seeds needs one or more different values"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"workers": 0}, "workers must be at least 1, not 0"),
    ],
)
def test_bad_studies(changes, complaint, tmp_path):
    with pytest.raises(ConfigError, match=complaint):
        run_selection_study(study(SelectionStudySettings, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------ acquisition


POOL = {"strategies": ["random", "top", "diverse"], "initial": 10, "added": 8, "rounds": 2}
SHORT = {**POOL, "first_steps": 3, "steps": 2}


@pytest.fixture(scope="module")
def acquired(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("acquisition") / "out"
    return run_acquisition(study(AcquisitionSettings, out, **SHORT))


def saved_rows(out: Path, seed: int) -> dict[tuple[str, int], dict[str, Any]]:
    rows = json.loads((out / f"seed{seed}" / "acquisition.json").read_text())["rows"]
    return {(row["strategy"], row["round"]): row for row in rows}


def test_labels_grow_by_what_was_chosen(acquired):
    for seed in (0, 1):
        rows = saved_rows(acquired, seed)
        assert list(rows) == [(s, r) for s in POOL["strategies"] for r in range(3)]
        first = {(row["test_mae"], row["ood_mae"]) for (_, r), row in rows.items() if r == 0}
        assert len(first) == 1  # all strategies begin with the same network
        start = torch.randperm(40, generator=torch.Generator().manual_seed(seed))[:10].tolist()
        for strategy in POOL["strategies"]:
            labels = list(start)
            for number in range(3):
                row = rows[strategy, number]
                assert row["labelled"] == len(labels) == 10 + 8 * number
                labels += row["added"]
                assert len(set(labels)) == len(labels) <= 40
        assert rows["random", 0]["added"] != rows["top", 0]["added"]
        assert rows["top", 1]["test_mae"] != rows["random", 1]["test_mae"]
    assert saved_rows(acquired, 0)["top", 0]["test_mae"] != saved_rows(acquired, 1)["top", 0]
    assert len(rows_of(acquired / "acquisition.csv")) == 2 * 3 * 3
    assert "minus random [95 %]" in (acquired / "acquisition.txt").read_text()
    assert (acquired / "acquisition.png").read_bytes().startswith(b"\x89PNG")


def test_top_labels_the_most_uncertain_of_the_pool(acquired):
    """The choice of round 0 made again, from the saved network, by hand."""
    settings = study(AcquisitionSettings, acquired, **SHORT)
    context = acquisition.job_of_seed(settings, 0)
    rows = saved_rows(acquired, 0)
    start = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:10]
    epistemic_std = context.sample_scores(
        load(acquired / "seed0" / "first.safetensors")
    ).uncertainty
    pool = torch.tensor([i for i in range(40) if i not in start.tolist()])
    generator = torch.Generator()
    best = pool[select(epistemic_std[pool], "top", fraction=8 / 30, generator=generator)]
    assert rows["top", 0]["added"] == best.tolist()


def test_no_label_of_the_pool_is_read(acquired, tmp_path, monkeypatch):
    """With other labels on all graphs that seed 0 does not know, round 0 chooses the same ones."""
    start = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:10].tolist()

    def mislabelled(*_: Any, **__: Any) -> GraphDataset:
        dataset = clusters()
        for row in set(range(40)) - set(start):
            dataset.graphs[row].y = torch.full((1,), 1e6, dtype=torch.float64)
        return dataset

    monkeypatch.setattr(data, "load", mislabelled)
    how = {**SHORT, "seeds": [0], "strategies": ["top", "diverse"], "rounds": 1}
    run_acquisition(study(AcquisitionSettings, tmp_path / "out", **how))
    rows, before = saved_rows(tmp_path / "out", 0), saved_rows(acquired, 0)
    for strategy in ("top", "diverse"):
        assert rows[strategy, 0]["added"] == before[strategy, 0]["added"]
        assert rows[strategy, 0]["test_mae"] == before[strategy, 0]["test_mae"]


def test_an_interrupted_acquisition_goes_on(acquired, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(acquired, out)
    save = out / "seed0" / "acquisition.json"
    content = json.loads(save.read_text())
    content["rows"] = [r for r in content["rows"] if r["strategy"] != "diverse" or r["round"] == 0]
    save.write_text(json.dumps(content))
    (out / "seed0" / "diverse-2.safetensors").unlink()  # round 1 was trained, not yet written
    calls = []
    real = acquisition.train
    monkeypatch.setattr(acquisition, "train", lambda *a, **k: calls.append(a[3]) or real(*a, **k))
    run_acquisition(study(AcquisitionSettings, out, **SHORT))
    assert calls == [2]
    assert saved_rows(out, 0) == saved_rows(acquired, 0)
    with pytest.raises(ConfigError, match=r"holds rows found with .*'added': 8"):
        run_acquisition(study(AcquisitionSettings, out, **{**SHORT, "added": 9}))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"strategies": ["loss"]}, r"strategies must be some of .*, not \['loss'\]"),
        ({"strategies": ["threshold"]}, r"strategies must be some of .*, not \['threshold'\]"),
        ({"strategies": ["top", "top"]}, "strategies needs one or more different values"),
        ({"initial": 1}, "initial must be at least 2, not 1"),
        ({"first_steps": 0}, "first_steps must be at least 1, not 0"),
        ({"rounds": 9}, r"asks for 82 of 40 training graphs; lower one of them"),
    ],
)
def test_bad_acquisitions(changes, complaint, tmp_path):
    with pytest.raises(ConfigError, match=complaint):
        run_acquisition(study(AcquisitionSettings, tmp_path / "out", **{**SHORT, **changes}))


def test_first_labels_that_lack_an_element(tmp_path, monkeypatch):
    def with_a_rare_element(*_: Any, **__: Any) -> GraphDataset:
        dataset = clusters()
        start = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:10].tolist()
        dataset.graphs[min(set(range(40)) - set(start))].z[0] = 6
        return dataset

    monkeypatch.setattr(data, "load", with_a_rare_element)
    with pytest.raises(ConfigError, match=r"elements \[1, 8\], but the pool has \[1, 6, 8\]"):
        run_acquisition(study(AcquisitionSettings, tmp_path / "out", **SHORT))


# ------------------------------------------------------------------ what both share


def test_rows_are_found_again(tmp_path):
    rows = Rows(tmp_path / "rows.json", {"steps": 2})
    assert rows.find(seed=0) is None
    rows.add({"seed": 0, "arm": "a", "x": 1.5})
    again = Rows(tmp_path / "rows.json", {"steps": 2})
    assert again.find(seed=0, arm="a") == {"seed": 0, "arm": "a", "x": 1.5}
    assert again.find(seed=0, arm="b") is None
    with pytest.raises(ConfigError, match="choose another out"):
        Rows(tmp_path / "rows.json", {"steps": 3})


def test_errors_are_those_of_the_saved_network(acquired):
    """Mean absolute ones, on both splits; the network after round 1 of one strategy."""
    row = saved_rows(acquired, 0)["top", 1]
    settings = study(AcquisitionSettings, acquired, **SHORT)
    dataset = clusters().with_cutoff(settings.model.cutoff)
    model = load(acquired / "seed0/top-1.safetensors")
    for split in ("test", "ood"):
        graphs = dataset.split(split)
        with torch.no_grad():
            found = torch.cat([model(Batch.from_data_list([g])).mean for g in graphs])
        error = found - torch.cat([g.y for g in graphs])
        assert row[f"{split}_mae"] == pytest.approx(float(error.abs().mean()), rel=1e-5)
