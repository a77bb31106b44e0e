"""The centroid task: what the docstring promises."""

from __future__ import annotations

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from egnn_prune.configs.over_seeds import register
from egnn_prune.data import load
from egnn_prune.data.sources import centroid
from egnn_prune.data.sources.centroid import GRAPHS, load_centroid
from egnn_prune.errors import ConfigError
from egnn_prune.pipeline.build import build_model
from egnn_prune.pipeline.main_job import run
from egnn_prune.studies import centroid as study
from egnn_prune.system.files import read_json


@pytest.fixture(scope="module")
def dataset():
    return load_centroid(4)


def test_sizes(dataset):
    assert {name: len(rows) for name, rows in dataset.splits.items()} == GRAPHS
    for split, nodes in {"train": 6, "val": 6, "test": 6, "ood": 12}.items():
        assert {len(graph.pos) for graph in dataset.split(split)} == {nodes}
    assert dataset.outputs == "positions" and dataset.elements == []


def test_every_node_moves_towards_the_centre_of_mass_by_its_own_mass(dataset):
    for graph in (*dataset.split("train")[:20], *dataset.split("ood")[:20]):
        centre = sum(m * p for m, p in zip(graph.x, graph.pos, strict=True)) / graph.x.sum()
        for mass, pos, y in zip(graph.x, graph.pos, graph.y, strict=True):
            assert torch.allclose(y, (1 - mass) * pos + mass * centre)


def test_positions_and_masses_fill_their_ranges(dataset):
    pos = torch.cat([graph.pos for graph in dataset.graphs])
    mass = torch.cat([graph.x for graph in dataset.graphs])
    assert pos.dtype == mass.dtype == torch.float64
    for values in (pos[:, 0], pos[:, 1], mass[:, 0]):
        assert 0 <= values.min() < 0.001 and 0.999 < values.max() <= 1
        assert abs(values.mean() - 0.5) < 0.01 and abs(values.var() - 1 / 12) < 0.002
    assert abs(torch.corrcoef(torch.cat([pos, mass], 1).T) - torch.eye(3)).max() < 0.03


def test_seeds_are_reproducible_and_graphs_all_differ(dataset):
    again, other = load_centroid(4), load_centroid(5)
    first = torch.cat([g.pos for g in dataset.graphs])
    assert torch.equal(first, torch.cat([g.pos for g in again.graphs]))
    both = torch.cat([first, torch.cat([g.pos for g in other.graphs])])
    assert len(both.unique(dim=0)) == len(both)


def test_the_registry_knows_it_and_a_job_seed_leaves_it_as_it_is():
    first, same = load("centroid"), load("centroid", seed=4)
    assert first.name == "centroid"
    assert torch.equal(first.graphs[7].pos, same.graphs[7].pos)


def test_settings_it_has_no_use_for_are_refused():
    with pytest.raises(ConfigError, match=r"no use for data\.subset"):
        load("centroid", subset="6")


def composed(*choices: str):
    register()
    with initialize_config_module("egnn_prune.configs", version_base="1.3"):
        return OmegaConf.to_object(compose("train", [*choices]))


def test_a_job_on_it_is_the_standard_experiment(dataset):
    """The network of the study, but for its residual connections, and its budget."""
    settings = composed("data=centroid")
    model, original = build_model(settings, dataset), study.fresh_network(dataset.split("train"))
    parts = [part for part, _ in original.trunk.named_parameters()]
    assert [part for part, _ in model.trunk.named_parameters()] == parts
    numbers = [sum(p.numel() for p in m.trunk.parameters()) for m in (model, original)]
    assert numbers == [2330, 2330]
    for name in ("aggregation", "dropout", "normalise", "attention", "radial", "cutoff"):
        assert getattr(model.trunk.options, name) == getattr(original.trunk.options, name), name
    t = settings.training
    steps = [epochs * settings.data.limit for epochs in (t.max_epochs, t.finetune_epochs)]
    assert (steps, t.batch_size, t.lr, t.finetune_lr) == ([100, 100], 1, study.LR, study.LR)


def test_a_job_on_it_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(centroid, "GRAPHS", {"train": 8, "val": 12, "test": 4, "ood": 4})
    out = run(composed("data=centroid", f"out={tmp_path / 'run'}", "data.limit=6"))
    metrics = read_json(out / "metrics.json")
    assert "box length" in str(metrics) and (out / "pruned.safetensors").is_file()
