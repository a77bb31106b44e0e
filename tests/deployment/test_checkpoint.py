"""Saved models come back bit for bit; damaged, foreign and pickled files are refused."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from egnn_prune import EGNN, compact, load, save
from egnn_prune.deployment.checkpoint import from_config, read_header
from egnn_prune.deployment.model_header import CHECKSUM
from egnn_prune.errors import InputError, UncheckedFileWarning
from egnn_prune.models import TargetScale
from egnn_prune.pruning import apply_masks, freeze, keep_masks, register_masks
from egnn_prune.pruning.tensors import parameter_names
from egnn_prune.uncertainty import mc_dropout


def half(model: nn.Module) -> nn.Module:
    apply_masks(model, {g.name: torch.arange(g.n) % 2 == 0 for g in model.channel_groups()})
    return model


def held_everywhere(model: nn.Module) -> nn.Module:
    register_masks(model, parameter_names(model))
    return half(model)


def frozen(model: nn.Module) -> nn.Module:
    freeze(half(model), "message_passing")
    return model


FORMS = {
    "dense": lambda model: model,
    "masked": half,
    "held": held_everywhere,
    "frozen": frozen,
    "compact": lambda model: compact(half(model)),
}


@pytest.fixture
def model(make_property_model):
    model = make_property_model(members=2, dropout=0.2, attention=True, radial=4)
    model.scale = TargetScale((0.1, 0.2, 1 / 3), shift=-1e3 / 7, scale=0.3)
    return model


@pytest.mark.parametrize("form", FORMS)
def test_bit_for_bit(model, make_batch, tmp_path, form):
    model, batch = FORMS[form](model), make_batch(3, 7)
    save(model, tmp_path / "m.safetensors", unit="eV")
    again = load(tmp_path / "m.safetensors")
    assert not again.training
    state = again.state_dict()
    assert list(state) == list(model.state_dict())
    for key, value in model.state_dict().items():
        assert value.dtype == state[key].dtype and torch.equal(value, state[key]), key
    expected, found = model(batch), again(batch)
    assert all(torch.equal(value, getattr(found, key)) for key, value in vars(expected).items())
    samples = [mc_dropout(m, batch, 3, generator=torch.Generator()) for m in (model, again)]
    assert torch.equal(samples[0].members, samples[1].members)


def test_masks_travel_with_the_model(model, make_batch, tmp_path, assert_close):
    save(half(model), tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    for name, mask in keep_masks(model).items():
        assert torch.equal(keep_masks(again)[name], mask)
    batch = make_batch(3, 7)
    assert_close(compact(again)(batch).mean, model(batch).mean)


def test_a_bare_trunk(make_egnn, make_batch, tmp_path):
    model = make_egnn(velocity=False)
    save(model, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert isinstance(again, EGNN)
    assert torch.equal(again(make_batch(4)).x, model(make_batch(4)).x)


def test_the_header_says_what_it_is(model, tmp_path):
    save(model, tmp_path / "m.safetensors", unit="eV", target="energy")
    header = read_header(tmp_path / "m.safetensors")
    assert header["class"] == "PropertyModel"
    assert header["architecture"] == json.loads(json.dumps(model.config()))
    assert header["metadata"] == {"unit": "eV", "target": "energy"}


def test_rebuilt_has_the_shape_and_other_weights(model):
    other = from_config(compact(half(model)))
    assert {k: v.shape for k, v in other.state_dict().items()} == {
        k: v.shape for k, v in compact(half(model)).state_dict().items()
    }
    assert not torch.equal(other.trunk.embedding.weight, compact(model).trunk.embedding.weight)


# ------------------------------------------------------------------ what is refused


def refused(path) -> str:
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert path.name in message and "\n" not in message
    return message


@pytest.fixture
def saved(model, tmp_path):
    save(model, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01, 0.5, 0.999])
def test_truncated(saved, share):
    saved.write_bytes(saved.read_bytes()[: int(share * saved.stat().st_size)])
    assert "is damaged" in refused(saved)


def test_garbage(saved):
    saved.write_bytes(bytes(range(256)) * 20)
    assert "is damaged" in refused(saved)


def test_another_programs_safetensors(saved):
    save_file({"weight": torch.zeros(3)}, saved)
    assert "not written by egnn_prune" in refused(saved)


@pytest.mark.parametrize("content", ["{}", "[]", "3", "null", "not json"])
def test_a_header_that_makes_no_sense(saved, content):
    save_file({"weight": torch.zeros(3)}, saved, metadata={"egnn_prune": content})
    refused(saved)


def changed(path, **changes) -> None:
    """Rewrite a saved model with other header entries."""
    header = read_header(path) | changes
    save_file(load_file(path), path, metadata={"egnn_prune": json.dumps(header)})


def test_another_version(saved):
    changed(saved, format=99)
    assert "another version of egnn_prune" in refused(saved)


def test_only_known_classes_are_built(saved):
    changed(saved, **{"class": "os.system"})
    assert "another version of egnn_prune" in refused(saved)


@pytest.mark.parametrize(
    "change",
    [{"architecture": {}}, {"dtype": "no_such_type"}, {"held": ["head.nothing"]}],
    ids=["architecture", "dtype", "held"],
)
def test_a_damaged_header(saved, change):
    changed(saved, **change)
    assert "is damaged" in refused(saved)


def test_weights_of_another_shape(saved):
    header = read_header(saved)
    tensors = {k: v[..., :1].contiguous() if v.dim() else v for k, v in load_file(saved).items()}
    save_file(tensors, saved, metadata={"egnn_prune": json.dumps(header)})
    assert "another checksum" in refused(saved)
    header = {k: v for k, v in header.items() if k != CHECKSUM} | {"format": 1}
    save_file(tensors, saved, metadata={"egnn_prune": json.dumps(header)})
    with pytest.warns(UncheckedFileWarning):
        assert "weights do not fit its architecture" in refused(saved)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_nothing_is_unpickled(saved, write):
    with saved.open("wb") as handle:
        write(Bomb(), handle)
    refused(saved)


def test_missing_file_and_folder(tmp_path):
    assert "there is no model file" in refused(tmp_path / "nothing.safetensors")
    assert "there is no model file" in refused(tmp_path)
    missing = tmp_path / "demo" / "dense.safetensors"
    assert f"`egnn-prune train out={missing.parent}` makes one" in refused(missing)


def test_a_class_that_could_not_be_loaded(tmp_path):
    with pytest.raises(InputError, match="Linear cannot be saved; one of EGNN, PositionModel"):
        save(nn.Linear(2, 2), tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ writing


def test_a_failing_write_leaves_the_old_file(saved, model, monkeypatch):
    before = saved.read_bytes()

    def full(tensors, filename, metadata):
        with open(filename, "wb") as handle:
            handle.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("egnn_prune.deployment.checkpoint.save_file", full)
    with pytest.raises(InputError, match="No space left on device"):
        save(model, saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_an_unwritable_place(saved, model):
    # below a regular file: nobody may write there, not even root
    with pytest.raises(InputError, match="cannot write") as caught:
        save(model, saved / "sub" / "m.safetensors")
    assert "\n" not in str(caught.value)


def test_others_may_read_the_file(saved):
    assert saved.stat().st_mode & 0o777 == 0o644
