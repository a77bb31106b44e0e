"""``egnn-prune export``: a run's model as a program, and what Monte Carlo dropout needs."""

from __future__ import annotations

import sys

import pytest
import torch
from torch_geometric.data import Batch
from trained_models import ethanol, trained

from egnn_prune import save
from egnn_prune.ase import structures
from egnn_prune.cli.main import main
from egnn_prune.deployment import export
from egnn_prune.deployment.export import tensors
from egnn_prune.uncertainty import SinglePass


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["egnn-prune", "export", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        return code, *capsys.readouterr()

    return run


def run_of(kind, folder):
    model = trained(kind)
    save(model, folder / "pruned.safetensors", target="energy", unit="eV")
    return model


def test_a_run_as_a_program(call, tmp_path):
    model = run_of("shallow", tmp_path)
    code, out, _ = call(tmp_path, tmp_path / "m.pt2", "--no-forces")
    assert code == 0 and out == f"Written: {tmp_path / 'm.pt2'}\n"
    batch = Batch.from_data_list([structures.graph_of(ethanol())])
    program = torch.export.load(tmp_path / "m.pt2").module()
    energy, variance = program(*tensors(model, batch))
    prediction = model.predict(batch)
    torch.testing.assert_close(energy, prediction.mean.detach())
    torch.testing.assert_close(variance, prediction.variance.detach())


def test_monte_carlo_dropout_is_asked_about(call, tmp_path, monkeypatch):
    exported = []
    monkeypatch.setattr(export, "export_program", lambda model, *_, **__: exported.append(model))
    run_of("read-out dropout", tmp_path)
    code, _, err = call(tmp_path, tmp_path / "m.pt2", "--no-forces")
    assert code == 2 and "--single-pass" in err and not exported
    code, _, _ = call(tmp_path, tmp_path / "m.pt2", "--no-forces", "--single-pass")
    assert code == 0 and isinstance(exported[0].estimator, SinglePass)
