"""Models in folders as the Hugging Face hub holds them; nobody is asked over the network."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from trained_models import ethanol, trained

from egnn_prune import load_estimator, save
from egnn_prune.ase import PrunedCalculator
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.errors import ConfigError, InputError, MissingExtraError
from egnn_prune.hub import from_pretrained, pretrained_file, push_to_hub, save_pretrained
from egnn_prune.models import PropertyModel
from egnn_prune.uncertainty import SinglePass

FILES = {"README.md", "config.json", "model.safetensors"}
ABOUT = {
    "target": "energy",
    "unit": "kcal/mol",
    "dataset": "ethanol | of [many] lines\n---\nlicense: stolen",
    "validation_epistemic_std": {"median": 0.25, "q99": 1.5, "max": 2.0},
    "training_domain": {
        "size": [9, 12],
        "shares": {"C": [0.2, 0.3], "H": [0.5, 0.7], "O": [0.1, 0.2]},
        "bonds": {k: {n: [0, 4] for n in ("C", "H", "O", "any")} for k in ("C", "H", "O")},
        "shortest": {"C-H": 0.98},
    },
}


@pytest.fixture
def run(tmp_path) -> Path:
    """A run's folder with what it measured."""
    folder = tmp_path / "runs" / "demo"
    folder.mkdir(parents=True)
    for which in ("pruned", "dense"):
        kind = "shallow" if which == "pruned" else "deep"
        save(trained(kind), folder / f"{which}.safetensors", **ABOUT)
    measured = {"test_mae": 0.125, "ence_calibrated": 0.5, "params": 3, "test_note": "x"}
    models = {"pruned": measured, "dense": measured | {"test_mae": 0.25}}
    (folder / "metrics.json").write_text(json.dumps({"models": models}))
    return folder


def test_a_folder_loads_as_it_was_saved(run, tmp_path):
    folder = save_pretrained(run, tmp_path / "model", repository="me/ethanol", license="mit")
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    model = from_pretrained(folder)
    assert isinstance(model, TrainedModel) and (model.unit, model.target) == ("kcal/mol", "energy")
    assert model.ood_threshold == 1.5 and model.domain is not None
    found = []
    for source in (model, run, folder / "model.safetensors"):
        atoms = ethanol()
        atoms.calc = PrunedCalculator(source, on_uncertain="ignore")
        found.append(atoms.get_forces())
        assert atoms.calc.threshold == pytest.approx(1.5 * 0.0433641, rel=1e-5)
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    config = json.loads((folder / "config.json").read_text())
    assert config["library_name"] == "egnn_prune" and config["class"] == "PropertyModel"
    again = save_pretrained(folder / "model.safetensors", tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    dense = from_pretrained(save_pretrained(run, tmp_path / "dense", which="dense"))
    assert type(dense.estimator.network).__name__ == "DeepEnsemble"
    with pytest.raises(ConfigError, match="the dense model is chosen of a run's folder"):
        PrunedCalculator(model, which="dense")
    with pytest.raises(ConfigError, match="contradicts"):
        PrunedCalculator(model, unit="eV")


def test_the_card_says_what_is_known(run, tmp_path):
    hub = pytest.importorskip("huggingface_hub", reason="the extra [hub] is not installed")
    folder = save_pretrained(run, tmp_path / "model", repository="me/ethanol", license="mit")
    card = hub.ModelCard.load(folder / "README.md")  # the hub's own reader
    data = card.data.to_dict()
    assert data["library_name"] == "egnn_prune" and data["license"] == "mit"
    assert card.data.pipeline_tag == "graph-ml" and "uncertainty" in card.data.tags
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results == {"test_mae": 0.125, "ence_calibrated": 0.5}
    for words in (
        "predicts **energy** (kcal/mol)",
        "| elements | H, C, O |",
        "| cutoff | 3.5 Angstrom |",
        "| atoms of a molecule | 9 to 12 |",
        "| shortest C-H | 0.98 Angstrom |",
        "| `test_mae` | 0.125 |",
        "| method | SinglePass |",
        "| epistemic deviation of validation structures, q99 | 1.5 kcal/mol |",
        "It refuses elements other than H, C, O.",
        'from_pretrained("me/ethanol")',
        "Nothing is unpickled",
    ):
        assert words in card.text, words
    assert "stolen" not in str(card.data.to_dict().get("license"))
    shown = {"mae_of_my_own": 3.0}
    mine = save_pretrained(run, tmp_path / "mine", scores=shown) / "README.md"
    assert "`mae_of_my_own` | 3 |" in mine.read_text() and "0.125" not in mine.read_text()


def test_the_card_of_a_specialist_says_its_errors(run, tmp_path):
    (run / "pruned.safetensors").rename(run / "specialised.safetensors")
    measured = {"force_rmse_mev_per_angstrom": 181.0, "latency_ms": 5.0, "ence_calibrated": 0.5}
    (run / "metrics.json").write_text(json.dumps({"models": {"specialised": measured}}))
    text = (save_pretrained(run, tmp_path / "model") / "README.md").read_text()
    assert "| `force_rmse_mev_per_angstrom` | 181 |" in text and "latency" not in text
    assert text.index("`force_rmse") < text.index("`ence_calibrated`")


def test_the_code_of_the_card_runs(run, tmp_path, monkeypatch):
    folder = save_pretrained(run, tmp_path / "me" / "ethanol", repository="me/ethanol")
    monkeypatch.chdir(tmp_path)
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    known = {"atoms": ethanol()}
    exec(compile(code, "card", "exec"), known)
    known["atoms"].calc.on_uncertain = "ignore"
    assert known["atoms"].get_potential_energy() < 0


def test_what_nobody_stated_is_not_made_up(tmp_path):
    torch.manual_seed(0)
    features = PropertyModel.build((), hidden=4, layers=1, in_features=2)
    folder = save_pretrained(SinglePass(features), tmp_path / "model")
    text = (folder / "README.md").read_text()
    for words in ("Training data: not stated", "Not stated: measure them", "not calibrated"):
        assert words in text
    assert "model-index" not in text and "load_estimator(pretrained_file(" in text
    assert isinstance(load_estimator(pretrained_file(folder)), SinglePass)


class Api:
    """Stands for huggingface_hub.HfApi and writes down what it is asked for."""

    asked: ClassVar[list[tuple[str, dict]]] = []

    def __init__(self, token=None) -> None:
        self.asked.append(("token", {"token": token}))

    def create_repo(self, repo_id, **more):
        self.asked.append(("create_repo", {"repo_id": repo_id, **more}))

    def upload_folder(self, **more):
        there = {p.name: p.read_bytes() for p in Path(more["folder_path"]).iterdir()}
        self.asked.append(("upload_folder", {**more, "files": there}))
        return SimpleNamespace(commit_url="https://hub/me/ethanol/commit/1")


def test_upload(run, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="the extra [hub] is not installed")
    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(Api, "asked", [])
    options = {"revision": "v2", "private": True, "token": "secret", "license": "mit"}
    assert push_to_hub(run, "me/ethanol", **options) == "https://hub/me/ethanol/commit/1"
    (_, token), (_, made), (_, up) = Api.asked
    assert token == {"token": "secret"}
    assert made == {
        "repo_id": "me/ethanol",
        "private": True,
        "repo_type": "model",
        "exist_ok": True,
    }
    assert (up["repo_id"], up["revision"]) == ("me/ethanol", "v2")
    assert (
        set(up["files"])
        == set(up["allow_patterns"])
        == {"model.safetensors", "config.json", "README.md"}
    )
    assert up["files"]["model.safetensors"] == (run / "pruned.safetensors").read_bytes()
    assert b'from_pretrained("me/ethanol")' in up["files"]["README.md"]
    assert not any(b"secret" in content for content in up["files"].values())
    # a folder whose card was edited goes up as it is, without what else lies in it
    folder = save_pretrained(run, tmp_path / "mine")
    (folder / "README.md").write_text("mine")
    (folder / "private.txt").write_text("not for others")
    push_to_hub(folder, "me/ethanol")
    assert Api.asked[-1][1]["files"]["README.md"] == b"mine"
    assert "private.txt" not in Api.asked[-1][1]["allow_patterns"]
    with pytest.raises(ConfigError, match="leave license away"):
        push_to_hub(folder, "me/ethanol", license="mit")
    with pytest.raises(ConfigError, match="called OWNER/NAME, not 'ethanol'"):
        push_to_hub(folder, "ethanol")

    def refuse(*_, **__):
        raise RuntimeError("401\nUnauthorized")

    monkeypatch.setattr(Api, "create_repo", refuse)
    with pytest.raises(InputError, match=r"me/ethanol cannot be written to \(401 Unauthorized\)"):
        push_to_hub(folder, "me/ethanol")


def test_download_asks_for_one_file_at_its_revision(run, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="the extra [hub] is not installed")
    folder, asked = save_pretrained(run, tmp_path / "there"), []

    def download(repo_id, filename, **more):
        asked.append((repo_id, filename, more["revision"]))
        shutil.copy(folder / filename, tmp_path / filename)
        return str(tmp_path / filename)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.chdir(tmp_path)
    model = from_pretrained("me/ethanol", revision="abc123", device="cpu")
    assert asked == [("me/ethanol", "model.safetensors", "abc123")] and model.unit == "kcal/mol"

    def nothing(*_, **__):
        raise OSError("404 Client Error")

    monkeypatch.setattr(hub, "hf_hub_download", nothing)
    with pytest.raises(InputError, match=r"no folder me/x, and the repository .*404 Client Error"):
        from_pretrained("me/x")


def test_what_cannot_be_loaded_or_saved(run, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="has no revision"):
        from_pretrained(run, revision="v1")
    with pytest.raises(InputError, match=r"holds no model\.safetensors"):
        from_pretrained(run)
    with pytest.raises(ConfigError, match="there is no folder nowhere, and a repository is"):
        from_pretrained("nowhere")
    with pytest.raises(ConfigError, match="leave unit away"):
        save_pretrained(run, tmp_path / "model", unit="eV")
    for wrong in (float("nan"), float("inf"), "1", True):
        with pytest.raises(ConfigError, match="a score is a finite number, but mae is"):
            save_pretrained(run, tmp_path / "model", scores={"mae": wrong})
    whole = (run / "pruned.safetensors").read_bytes()
    (run / "pruned.safetensors").write_bytes(whole[:-8] + b"\0" * 8)
    with pytest.raises(InputError, match="damaged"):
        save_pretrained(run, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingExtraError, match=r"pip install 'egnn_prune\[hub\]'"):
        from_pretrained("me/ethanol")
