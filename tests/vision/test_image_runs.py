"""A whole experiment: one command, one folder, like the main job."""

import json

import pytest
from safetensors.torch import load_file

from egnn_prune.cli.hydra_app import fail
from egnn_prune.cli.jobs import VISION
from egnn_prune.errors import ConfigError, InputError
from egnn_prune.vision.experiments.run import KINDS, run_experiment
from egnn_prune.vision.experiments.seed_run import SeedRun

TINY = ["data.limit=200", "training.epochs=2", "finetuning.epochs=1", "seeds=[0,1]"]
SHORT = [*TINY, "pruning.strategies=[one_shot]", "pruning.sparsities=[0.5,0.9]"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished experiment, made through the script."""
    return tmp_path_factory.mktemp("runs") / "digits"


def test_the_folder_of_an_experiment(settings, finished, capsys):
    chosen = settings("digits", *SHORT)
    chosen.out = str(finished)
    assert run_experiment(chosen) == finished
    found = {path.name for path in finished.iterdir()}
    assert {"config.yaml", "metrics.json", "rows.csv", "table.txt", "report.html"} <= found
    assert {"sparsity.png", "reliability.png", "dropout.png"} <= found
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["experiment"] == "lottery" and metrics["seeds"] == [0, 1]
    assert metrics["data"]["train"] == 200 and metrics["data"]["shape"] == [1, 8, 8]
    assert len(metrics["rows"]) == 2 * (2 + 2 * 2)
    assert load_file(finished / "seeds" / "1_dense.safetensors")
    assert "one-shot" in capsys.readouterr().out


def test_a_finished_experiment_is_not_run_again(settings, finished, capsys, monkeypatch):
    monkeypatch.setattr(SeedRun, "fit", lambda *_, **__: fail("trained again"))
    chosen = settings("digits", *SHORT)
    chosen.out = str(finished)
    run_experiment(chosen)
    assert "nothing is run again" in capsys.readouterr().out


def test_other_settings_need_another_folder(settings, finished):
    chosen = settings("digits", *SHORT, "network.dropout=0.3")
    chosen.out = str(finished)
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        run_experiment(chosen)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("kind=magic", "kind must be one of lottery, magnitude"),
        ("network.name=transformer", "network.name must be one of"),
        ("network.widths=[0]", "widths"),
        ("network.shortcut=A", "mlp has no option 'shortcut'"),
        ("data.name=birds", "data.name must be one of moons"),
        ("data.name=folder", "data.path"),
        ("seeds=[]", "seeds needs one or more"),
        ("finetuning.optimizer=lion", "optimizer must be one of"),
        ("pruning.criterion=size", "criterion must be one of"),
        ("pruning.weight_criterion=size", "pruning.weight_criterion must be one of"),
        ("pruning.scope=house", "scope must be one of"),
        ("pruning.weight_scope=house", "pruning.weight_scope must be one of tensor, global"),
        ("pruning.ignored=[attic]", "attic"),
        ("pruning.batches=0", "pruning.batches must be at least 1"),
        ("uncertainty.bins=0", "uncertainty.bins must be at least 1"),
        ("uncertainty.samples=1", "uncertainty.samples must be at least 2"),
        ("seeds=[-1]", "seeds must be at least 0"),
        ("threads=0", "threads must be at least 1"),
        ("data.augmentation=rotate", "augmentation must be one of"),
    ],
)
def test_bad_settings_are_said_before_anything_is_trained(settings, override, message, monkeypatch):
    monkeypatch.setattr(SeedRun, "fit", lambda *_, **__: pytest.fail("something was trained"))
    with pytest.raises(ConfigError, match=message):
        run_experiment(settings("digits", *TINY[:1], override))


@pytest.mark.parametrize(
    ("experiment", "override", "message"),
    [
        ("resnet101_magnitude", "network.name=mlp", "removes weights of convolutions"),
        ("resnet_structured", "pruning.factors=[1000]", "cannot be met"),
        (
            "selection",
            "selection.fraction=2",
            "fraction must be above 0 and at most 1, not 2",
        ),
        (
            "selection",
            "selection.replay=1",
            "replay must be at least 0 and below 1, not 1",
        ),
    ],
)
def test_what_an_experiment_cannot_do_is_said_before(
    settings, experiment, override, message, monkeypatch
):
    monkeypatch.setattr(SeedRun, "fit", lambda *_, **__: pytest.fail("something was trained"))
    chosen = settings(experiment, override, "data.name=digits", "data.limit=50")
    n, chosen.data.ood, chosen.pruning.ignored = chosen.network, None, []
    n.name = n.name if n.name == "mlp" else "small_cnn"
    n.stem, n.shortcut, n.pretrained, n.dropout = None, None, False, 0.0
    with pytest.raises(ConfigError, match=message):
        run_experiment(chosen)


def test_changed_settings_leave_an_unfinished_run_alone(settings, monkeypatch):
    chosen = settings("digits", *SHORT)
    calls = []

    def interrupted(*_, **__):
        calls.append(1)
        raise KeyboardInterrupt

    SeedRun(chosen, 0).saved.add({"arm": "something"})
    folder = SeedRun(chosen, 0).folder.parent
    with pytest.raises(ConfigError, match="holds files that are not a run"):
        run_experiment(settings("digits", *SHORT))
    (folder / "seeds" / "0.json").unlink()
    (folder / "seeds").rmdir()
    monkeypatch.setattr(SeedRun, "dense", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(settings("digits", *SHORT))
    SeedRun(chosen, 0).saved.add({"arm": "something"})
    before = (folder / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        run_experiment(settings("digits", *SHORT, "training.lr=0.5"))
    assert (folder / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("text", ["[]", "{}", '{"rows": 3}', "{"])
def test_damaged_rows_are_said(settings, text):
    chosen = settings("digits", *SHORT)
    path = SeedRun(chosen, 0).folder / "0.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InputError, match="damaged"):
        SeedRun(chosen, 0)


def test_every_experiment_of_the_help_has_a_configuration(settings):
    text = VISION.purpose
    names = text[text.index("experiment=NAME:") : text.index("Writes")]
    for part in names.split(":", 1)[1].replace(".", "").split(","):
        name = part.split("(")[0].strip()
        if name and not name.endswith(")") and " " not in name:
            assert settings(name).kind in KINDS
