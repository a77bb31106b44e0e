"""Masked networks in pickles, and networks of others in files that name no code."""

from __future__ import annotations

import copy
import io
import json
import pickle

import lightning as L
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip("torch_pruning", reason="needs the package torch-pruning")

from egnn_prune import compact, fine_tune, load, prune, save
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.pruning import TracedNetwork, keep_masks, sparsities
from egnn_prune.pruning import compact as compact_traced
from egnn_prune.pruning.masks import remove_masks
from egnn_prune.training import PruningCallback
from egnn_prune.uncertainty import ModuleDropout

X = torch.randn(8, 2, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 3


def network(seed=0):
    torch.manual_seed(seed)
    body = [nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)).eval()


@pytest.fixture
def masked():
    return prune(network(), "taylor", 0.4, data=[(X, Y)]).eval()


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def saved_by_torch(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("through", [pickled, saved_by_torch, copy.deepcopy])
def test_a_masked_network_survives(masked, through):
    again = through(through(masked))
    expected, keep = masked(X), keep_masks(masked)
    assert torch.equal(again(X), expected)
    assert all(torch.equal(mask, keep[name]) for name, mask in keep_masks(again).items())
    torch.testing.assert_close(compact(again)(X), expected)
    optimiser = torch.optim.SGD(again.parameters(), lr=0.1)
    again.train()(X).square().sum().backward()
    optimiser.step()  # zeros stay zeros behind the pickle, too
    assert all(torch.equal(mask, keep[name]) for name, mask in keep_masks(again).items())
    torch.testing.assert_close(compact(again).eval()(X), again.eval()(X), rtol=1e-4, atol=1e-5)
    remove_masks(again)
    assert torch.equal(masked(X), expected), "the copy shares nothing with the original"


def test_own_models_are_pickled_too(make_property_model, make_batch):
    model, batch = prune(make_property_model(), "magnitude", 0.5).eval(), make_batch(5, 7)
    assert torch.equal(pickled(model)(batch).mean, model(batch).mean)


@pytest.mark.parametrize("small", [False, True], ids=["masked", "narrower"])
def test_a_network_of_others_goes_into_a_fresh_one(masked, tmp_path, small):
    model, path = compact_traced(masked) if small else masked, tmp_path / "net.safetensors"
    save(model, path)
    again = load(path, into=network(seed=5))
    assert isinstance(again, TracedNetwork)
    assert torch.equal(again(X), model(X))
    torch.testing.assert_close(compact(again)(X), model(X))
    more = prune(again, "taylor", 0.6, data=[(X, Y)]).eval()
    torch.testing.assert_close(compact(more)(X), more(X))


def test_files_that_do_not_fit(masked, tmp_path, make_property_model):
    path, own = tmp_path / "net.safetensors", tmp_path / "own.safetensors"
    save(masked, path)
    save(make_property_model(), own)
    with pytest.raises(InputError, match="load\\(path, into="):
        load(path)
    with pytest.raises(InputError, match="without into"):
        load(own, into=network())
    with pytest.raises(InputError, match="give a fresh one, built as before pruning"):
        load(path, into=nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(InputError, match="before compact"):
        save(compact(masked), path)


def test_another_class_of_the_same_tensors_is_refused(masked, tmp_path):
    class Reversed(nn.Sequential):
        def forward(self, x):
            return -super().forward(x)

    save(masked, tmp_path / "net.safetensors")
    with pytest.raises(InputError, match="holds a Sequential, not a Reversed") as caught:
        load(tmp_path / "net.safetensors", into=Reversed(*network()))
    assert "\n" not in str(caught.value)


def test_an_estimator_of_a_network_of_others_is_not_saved(tmp_path):
    dropping = nn.Sequential(network(), nn.Dropout(0.1)).eval()
    estimator = ModuleDropout(prune(dropping, "magnitude", 0.4, data=[(X, Y)]), 3)
    with pytest.raises(InputError, match=r"ModuleDropout of TracedNetwork .*estimator\.network"):
        save(estimator, tmp_path / "net.safetensors")
    save(estimator.network, tmp_path / "net.safetensors")


@pytest.mark.parametrize(
    "damage",
    [
        lambda a: a["groups"][0]["members"][0].update(index=[[999]] * 8),
        lambda a: a["groups"][0].update(n=10**15),
        lambda a: a["groups"][0]["members"][0].update(axis=7),
        lambda a: a.update(groups="all"),
        lambda a: a.pop("kinds"),
    ],
)
def test_damaged_headers_are_one_sentence(masked, tmp_path, damage):
    path = tmp_path / "net.safetensors"
    save(masked, path)
    with safe_open(path, "pt") as archive:
        header = json.loads(archive.metadata()["egnn_prune"])
        tensors = {name: archive.get_tensor(name) for name in archive.keys()}
    damage(header["architecture"])
    save_file(tensors, path, metadata={"egnn_prune": json.dumps(header)})
    with pytest.raises(InputError, match="damaged"):
        load(path, into=network())


# ---------------------------------------------------- what misled: causes, schedules, scores


@pytest.mark.parametrize("where", ["targets", "inputs"])
def test_nan_in_a_batch_is_named(where):
    x, y = torch.randn(12, 3), torch.randn(12, 1)
    (y if where == "targets" else x)[9] = torch.nan
    loader = DataLoader(TensorDataset(x, y), 4)
    with pytest.raises(ConfigError, match=rf"the {where} of batch 2 are NaN .*first in row 1"):
        fine_tune(nn.Sequential(nn.Linear(3, 1)), loader, steps=5, device="cpu")


def test_any_function_of_progress_is_a_schedule():
    torch.testing.assert_close(sparsities(lambda t: t**2, 0.8, 4), [0.05, 0.2, 0.45, 0.8])
    torch.testing.assert_close(sparsities(lambda t, s: s * t**2, 0.8, 4), [0.05, 0.2, 0.45, 0.8])
    torch.testing.assert_close(sparsities(lambda t, power=2: t**power, 0.8, 2), [0.2, 0.8])
    for wrong in (lambda t: None, lambda t: float("nan"), lambda t: "half"):
        with pytest.raises(ConfigError, match="must give numbers"):
            sparsities(wrong, 0.8, 4)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (torch.ones(5), r"group 0 a tensor of shape \(5,\); .* shape \(8,\)"),
        (torch.ones(8, 1), r"a tensor of shape \(8, 1\)"),
        (torch.ones(8).numpy(), "a ndarray"),
        (None, r"group 0 nothing \(None\)"),
    ],
)
def test_scores_that_are_none_name_the_group(found, words):
    with pytest.raises(ConfigError, match=words):
        prune(network(), lambda group, context: found, 0.5, data=[(X, Y)])


class Stranger(L.LightningModule):
    """Somebody's module whose network is not called ``model``."""

    def __init__(self, **networks):
        super().__init__()
        for name, part in networks.items():
            setattr(self, name, part)

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self.backbone(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(module, callback):
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(
        max_steps=3, accelerator="cpu", callbacks=[callback], enable_model_summary=False, **options
    )
    trainer.fit(module, DataLoader(TensorDataset(X, Y), 4))


@pytest.mark.filterwarnings("ignore:.*num_workers.*", "ignore:.*eval mode.*")
def test_a_callback_finds_the_network_in_a_strange_module():
    module = Stranger(backbone=TracedNetwork(network(), X))
    callback = PruningCallback(sparsity=0.5, rounds=1, batches=[(X, Y)])  # prune()'s own loss
    fit(module, callback)
    expected = prune(TracedNetwork(network(), X), "taylor", 0.5, data=[(X, Y)])
    assert all(torch.equal(m, callback.keep[n]) for n, m in keep_masks(expected).items())
    two = {"backbone": TracedNetwork(network(), X), "teacher": TracedNetwork(network(), X)}
    with pytest.raises(ConfigError, match=r"several networks .*backbone, teacher; name one"):
        fit(Stranger(**two), PruningCallback("random", 0.5))
    module = Stranger(**two)
    fit(module, PruningCallback("random", 0.5, rounds=1, network="backbone"))
    assert not all(m.all() for m in keep_masks(module.backbone).values())
    assert all(m.all() for m in keep_masks(module.teacher).values())
    with pytest.raises(ConfigError, match="has no part 'net'"):
        fit(Stranger(**two), PruningCallback("random", 0.5, network="net"))
