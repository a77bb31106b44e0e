"""Networks that predict positions: symmetry, pruning, uncertainty, files, bad input."""

import copy

import pytest
import torch
from torch_geometric.data import Batch, Data

from egnn_prune.deployment import checkpoint
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.graphs import complete_edges
from egnn_prune.models import EGNN, EGNNOptions, PositionModel
from egnn_prune.pruning import apply_masks, choose, compact
from egnn_prune.testing import assert_equivariant
from egnn_prune.training import graph_losses, predictive_variance, squared_losses
from egnn_prune.uncertainty import DeepEnsemble, MCDropout, SinglePass, calibrate


@pytest.fixture
def batch(dtype):
    generator = torch.Generator().manual_seed(3)

    def graph(nodes):
        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        edges = complete_edges(torch.tensor([0, nodes]))
        pos = normal(nodes, 3)
        return Data(
            x=normal(nodes, 1),
            pos=pos,
            vel=normal(nodes, 3),
            y=pos + 0.3 * normal(nodes, 3),
            edge_index=edges,
            edge_attr=normal(edges.shape[1], 1),
        )

    return Batch.from_data_list([graph(n) for n in (5, 3, 6)])


@pytest.fixture
def make(dtype):
    def build(dropout=0.0, **options):
        torch.manual_seed(1)
        chosen = EGNNOptions(velocity=True, edge_features=1, dropout=dropout, **options)
        model = PositionModel.build(
            1, hidden=12, layers=3, readout_dropout=dropout, options=chosen, scale=0.5
        )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("position_out.weight"):
                    parameter.mul_(300)
        return model.to(dtype).eval()

    return build


def positions(model):
    return lambda batch: Data(pos=model(batch).mean)


def test_the_mean_turns_with_the_graph_and_the_variance_stays(make, batch, tolerance):
    model = make(normalise=False)
    assert (model(batch).mean - batch.pos).abs().max() > 0.05  # something moves
    assert_equivariant(positions(model), batch, tolerance=tolerance)
    assert_equivariant(lambda b: model(b).variance, batch, tolerance=tolerance)


def test_the_mean_is_where_the_network_leaves_the_nodes(make, batch, assert_close):
    model = make()
    assert_close(model(batch).mean, model.trunk(batch).pos.double())


def test_masked_and_compact_models_agree_and_stay_equivariant(make, batch, assert_close, tolerance):
    model = make()
    groups = model.channel_groups()
    generator = torch.Generator().manual_seed(0)
    keep = choose({g.name: torch.rand(g.n, generator=generator) for g in groups}, 0.5)
    apply_masks(model, keep)
    small = compact(model)
    assert sum(p.numel() for p in small.parameters()) < 0.5 * sum(
        p.numel() for p in model.parameters()
    )
    for name in ("mean", "variance"):
        assert_close(getattr(small(batch), name), getattr(model(batch), name))
    assert_equivariant(positions(small), batch, tolerance=tolerance)


def test_thinned_networks_side_by_side_are_those_one_by_one(make, batch, assert_close):
    model = make(dropout=0.3)
    estimator = MCDropout(model, samples=6)
    prediction = estimator.predict(batch)
    assert prediction.members.shape == (6, 14, 3)
    assert (prediction.epistemic > 0).all()
    from egnn_prune.uncertainty import mc_dropout

    generator = torch.Generator().manual_seed(0)
    together = mc_dropout(model, batch, 6, generator=generator, samples_per_call=3)
    assert_close(together.members, prediction.members)


def test_losses_are_one_number_per_graph_the_mean_over_its_coordinates(make, batch, assert_close):
    model = make()
    for losses in (graph_losses, squared_losses):
        whole = losses(model, batch)
        alone = torch.cat([losses(model, Batch.from_data_list([g])) for g in batch.to_data_list()])
        assert whole.shape == (3,)
        assert_close(whole, alone)
    assert predictive_variance(model, batch).shape == (3,)
    # of squared errors: without the term of the variance, the mean squared displacement error
    means, variances = model.normalised(batch)
    error = ((means[0] - model.normalise(batch, batch.y)) ** 2)[:5].mean()
    wrong = (means[0] - model.normalise(batch, batch.y))[:5]
    nll = 0.5 * (variances[0, :5].log() + wrong**2 / variances[0, :5])
    assert_close(squared_losses(model, batch)[0], error + 0.1 * nll.mean())


def test_saved_and_loaded_with_its_calibration(make, batch, tmp_path):
    batches = [batch, batch]
    found = calibrate(SinglePass(make()), batches, "robust")
    checkpoint.save(found, tmp_path / "m.safetensors")
    loaded = checkpoint.load_estimator(tmp_path / "m.safetensors")
    assert torch.equal(loaded.predict(batch).variance, found.predict(batch).variance)
    assert loaded.predict(batch).variance.shape == (14, 3)


def test_an_ensemble_pools_positions(make, batch):
    first, second = make(), copy.deepcopy(make())
    with torch.no_grad():
        second.trunk.embedding.weight.add_(0.3)
    prediction = DeepEnsemble([first, second])(batch)
    assert prediction.mean.shape == (14, 3) and (prediction.epistemic > 0).any()
    flat = prediction.flattened()
    assert flat.members.shape == (2, 42)
    assert torch.equal(flat.epistemic, prediction.epistemic.flatten())


def test_bad_input_is_one_sentence(make, batch):
    with pytest.raises(ConfigError, match="update_positions=True"):
        PositionModel(EGNN(1, 8, 2, update_positions=False))
    with pytest.raises(ConfigError, match="positive"):
        PositionModel(EGNN(1, 8, 2), scale=0.0)
    with pytest.raises(DataError, match=r"targets in batch\.y of shape"):
        broken = copy.copy(batch)
        broken.y = batch.y[:, 0]
        graph_losses(make(), broken)
    with pytest.raises(DataError, match=r"batch\.x"):
        broken = copy.copy(batch)
        broken.x = None
        make()(broken)


def test_the_variance_does_not_shape_the_features_in_training(make, batch):
    model = make()
    model.train().normalised(batch)[1].sum().backward()
    assert model.variance_in.weight.grad is not None
    assert model.trunk.embedding.weight.grad is None
    model.eval().normalised(batch)[1].sum().backward()  # criteria may ask for its gradient
    assert model.trunk.embedding.weight.grad is not None
