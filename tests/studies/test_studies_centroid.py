"""The study S0, tiny: its arms, what is paired, resuming, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Batch

from egnn_prune.configs.over_seeds import CentroidStudySettings
from egnn_prune.data.sources import centroid
from egnn_prune.data.sources.centroid import load_centroid
from egnn_prune.errors import ConfigError
from egnn_prune.report.studies.centroid import centroid_plot, centroid_table
from egnn_prune.studies import centroid as study
from egnn_prune.studies.centroid import run_centroid_study
from egnn_prune.testing import assert_equivariant


@pytest.fixture(scope="module", autouse=True)
def few_graphs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(centroid, "GRAPHS", {"train": 12, "val": 2, "test": 6, "ood": 6})
        yield


def tiny(out: Path, **changes) -> CentroidStudySettings:
    settings = {"seeds": [0, 1], "steps": [3], "sparsities": [0.0, 0.5], "samples": 4}
    return CentroidStudySettings(out=str(out), **(settings | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return run_centroid_study(tiny(tmp_path_factory.mktemp("study")))


def test_every_arm_has_a_row_and_pruned_networks_are_smaller(folder):
    with (folder / "centroid.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    cells = [(r["arm"], r["sparsity"], r["seed"]) for r in rows]
    arms = [("baseline", "0.0"), *((a, s) for a in ("uncertain", "random") for s in ("0.0", "0.5"))]
    assert cells == [(arm, sparsity, seed) for arm, sparsity in arms for seed in ("0", "1")]
    for row in rows:
        weights = int(row["trunk_parameters"])
        assert weights == 2330 if row["sparsity"] == "0.0" else weights < 1200
        assert float(row["test_mse"]) > 0 and float(row["ood_mse"]) > 0
    assert (folder / "centroid.png").stat().st_size > 10_000


def test_finished_cells_are_read_and_not_computed_again(folder, monkeypatch):
    before = (folder / "centroid.csv").read_bytes()
    monkeypatch.setattr(study, "train_on", None)
    run_centroid_study(tiny(folder))
    assert (folder / "centroid.csv").read_bytes() == before
    with pytest.raises(TypeError):  # a cell that is not there
        run_centroid_study(tiny(folder, sparsities=[0.25]))
    with pytest.raises(ConfigError, match="choose another out"):
        run_centroid_study(tiny(folder, samples=5))


def test_the_uncertainty_is_a_standard_deviation_over_thinned_networks():
    graphs = load_centroid(0).split("train")[:3]
    torch.manual_seed(0)
    model = study.fresh_network(graphs).eval()
    for layer in model.trunk.layers:
        layer.position_out.weight.data.mul_(300)  # moves of a visible length
    found = study.coordinate_deviation(model, graphs, 4)
    assert (found > 1e-4).all()
    sampled = study.MCDropout(model, 4).predict(Batch.from_data_list(list(graphs))).members
    by_hand = sampled.std(0).view(3, -1).mean(1)
    assert torch.allclose(found, by_hand.double())


def test_the_loss_is_the_squared_error_of_the_displacements():
    batch = Batch.from_data_list(list(load_centroid(0).split("train")[:2]))
    model = study.fresh_network(list(load_centroid(0).split("train"))).eval()
    error = (model(batch).mean - batch.y).view(2, -1).square().mean(1)
    found = study.position_losses(model, batch)
    assert torch.allclose(found.double() * model.scale**2, error, rtol=1e-4)


def test_the_second_half_leaves_the_dense_network_alone_and_stays_equivariant():
    dataset = load_centroid(0)
    train = list(dataset.split("train"))
    torch.manual_seed(0)
    dense = study.fresh_network(train)
    before = {k: v.clone() for k, v in dense.state_dict().items()}
    small = study.second_half(dense, train[:4], 3, 0.5, "taylor", "test")
    assert all(torch.equal(v, before[k]) for k, v in dense.state_dict().items())
    groups = {g.name: g.n for g in small.channel_groups()}
    assert sum(groups.values()) == 65  # half of 130 channels are gone for real
    assert_equivariant(small.trunk.double(), Batch.from_data_list(train[:2]))


def test_settings_out_of_range_are_refused(tmp_path):
    for changes, said in (
        ({"steps": [0]}, "steps must be at least 1"),
        ({"sparsities": [1.0]}, "sparsities must be at least 0 and below 1"),
        ({"sparsities": [-0.1]}, "sparsities must be at least 0 and below 1"),
        ({"criterion": "foo"}, "criterion must be one of"),
        ({"fraction": 0.0}, "fraction must be above 0 and at most 1"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"threads": 0}, "threads must lie between 1"),
    ):
        with pytest.raises(ConfigError, match=said):
            run_centroid_study(tiny(tmp_path, **changes))
    with pytest.raises(ConfigError, match="sparsities needs one or more different"):
        run_centroid_study(tiny(tmp_path, sparsities=[0.5, 0.5]))


def made_up(seeds: int = 3) -> list[dict]:
    arms = {("baseline", 0.0): 0.0, ("random", 0.5): 0.001, ("uncertain", 0.5): -0.002}
    return [
        {"seed": seed, "steps": 100, "arm": arm, "sparsity": sparsity, "trunk_parameters": 2330,
         "test_mse": 0.02 + 0.001 * seed + shift, "ood_mse": 0.03, "test_still": 0.04,
         "ood_still": 0.05}
        for (arm, sparsity), shift in arms.items() for seed in range(seeds)
    ]  # fmt: skip


def test_differences_are_paired_by_seed():
    text = centroid_table(made_up())
    test_split = text.split("12 nodes")[0]
    (line,) = (line for line in test_split.splitlines() if line.startswith("uncertain"))
    assert line.split()[3:6] == ["19.0", "±", "1.0"]
    assert "-2.000 [-2.000, -2.000]  3/3" in line  # to the baseline, without the seeds' spread
    assert line.endswith("-3.000 [-3.000, -3.000]")  # to random graphs
    assert "nothing moves: 40.0" in test_split
    assert "+1.000 [+1.000, +1.000]  0/3" in test_split


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_plot_shows_the_differences(seeds):
    panels = centroid_plot(made_up(seeds)).axes
    assert len(panels) == 2
    heights = [container[0].get_ydata().tolist() for container in panels[0].containers]
    assert heights == [pytest.approx([1.0]), pytest.approx([-2.0])]


def test_rows_are_written_as_they_are_found(folder):
    saved = json.loads((folder / "seed1.json").read_text())
    assert len(saved["rows"]) == 5
