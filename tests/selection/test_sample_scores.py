"""What is gathered about every sample: embeddings and losses graph by graph, and bad shapes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch

from egnn_prune.errors import ConfigError
from egnn_prune.selection import STRATEGIES, SampleScores, score_samples, select
from egnn_prune.training import graph_losses
from egnn_prune.uncertainty import DeepEnsemble


def test_gathered_graph_by_graph(make_property_model, make_batch, assert_close):
    """Batches give what each graph gives alone, and the embedding is what the read-out reads."""
    model = make_property_model(dropout=0.5, pool="mean").train()
    model.trunk.eval()
    modes = [m.training for m in model.modules()]
    graphs = make_batch(4, 7, 1, 5, 3).to_data_list()
    batches = [Batch.from_data_list(graphs[:2]), Batch.from_data_list(graphs[2:])]
    found = score_samples(model, batches, torch.arange(5.0), graph_losses)
    assert [m.training for m in model.modules()] == modes
    assert found.uncertainty.tolist() == [0, 1, 2, 3, 4]
    model.eval()
    with torch.no_grad():
        alone = torch.cat([graph_losses(model, Batch.from_data_list([g])) for g in graphs])
        means = torch.cat([model(Batch.from_data_list([g])).mean for g in graphs])
    assert_close(found.losses, alone)
    # pool="mean": the prediction is linear in the mean over the nodes, which is the embedding
    read_out = model.head.mean_out(found.embeddings)[:, 0].double().detach()
    assert_close(read_out * model.scale.scale + model.scale.shift, means)


def test_without_losses(make_property_model, make_batch):
    found = score_samples(make_property_model(), [make_batch(3, 4)], torch.ones(2))
    assert found.losses is None and found.embeddings.shape == (2, 16)


def test_an_ensemble_embeds_with_its_first_member(make_property_model, make_batch):
    members = [make_property_model(), make_property_model(hidden=8)]
    batch, epistemic_std = make_batch(3, 4), torch.ones(2)
    both = score_samples(DeepEnsemble(members), [batch], epistemic_std, graph_losses)
    assert torch.equal(
        both.embeddings, score_samples(members[0], [batch], epistemic_std).embeddings
    )


def test_a_network_without_a_last_layer():
    found = score_samples(nn.Linear(3, 1), [torch.ones(2, 3)], torch.ones(2))
    assert found.embeddings is None


def test_samples_that_are_missing(make_property_model, make_batch):
    with pytest.raises(ConfigError, match=r"3 samples need embeddings \[3, d\], not \[2, 16\]"):
        score_samples(make_property_model(), [make_batch(3, 4)], torch.ones(3))


@pytest.mark.parametrize("shape", [(0,), (3, 2)])
def test_one_uncertainty_per_sample(shape):
    with pytest.raises(ConfigError, match="one uncertainty per training sample"):
        SampleScores(torch.ones(shape))


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ({"losses": torch.ones(2)}, r"3 samples need losses \[3\], not \[2\]"),
        ({"embeddings": torch.ones(3)}, r"3 samples need embeddings \[3, d\], not \[3\]"),
        ({"covered": torch.ones(2, 4)}, "need embeddings"),
        ({"covered": torch.ones(2, 4), "embeddings": torch.ones(3, 5)}, "need embeddings"),
    ],
)
def test_shapes(parts, complaint):
    with pytest.raises(ConfigError, match=complaint):
        SampleScores(torch.ones(3), **parts)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_uncertainty_that_is_no_number(strategy, bad):
    with pytest.raises(ConfigError, match="an uncertainty is NaN or infinite"):
        select(torch.tensor([1.0, bad, 2.0]), strategy, generator=torch.Generator())


@pytest.mark.parametrize("name", ["losses", "embeddings", "covered"])
def test_evidence_that_is_no_number(name):
    parts = {"losses": torch.ones(2), "embeddings": torch.ones(2, 2), "covered": torch.ones(1, 2)}
    parts[name] = parts[name] * math.nan
    with pytest.raises(ConfigError, match=f"one of the {name} is NaN"):
        SampleScores(torch.ones(2), **parts)
