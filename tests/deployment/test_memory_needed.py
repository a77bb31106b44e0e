"""Structures too large for the memory there is: one sentence, before any of it is taken."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from egnn_prune.ase.predict_file import at_once
from egnn_prune.deployment import memory_needed
from egnn_prune.deployment.trained_model import TrainedModel
from egnn_prune.errors import InputError
from egnn_prune.system.memory import peak_megabytes

MODEL = Path(__file__).parent / "gallery/format2/rigidity_robust.safetensors"


def block(atoms: int) -> Data:
    """Atoms on a cubic grid."""
    side = int(np.ceil(atoms ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)[:atoms]
    return Data(z=torch.full((atoms,), 6), pos=2.2 * torch.from_numpy(grid).double())


def test_the_estimate_is_what_it_takes(monkeypatch):
    model = TrainedModel.load(MODEL, device="cpu")
    assert model.cutoff == 4.0
    graph = block(5000)
    measured = peak_megabytes(lambda: model.predict([graph], forces=True), "cpu")
    monkeypatch.setattr(memory_needed, "LARGE", 4000)
    monkeypatch.setenv("EGNN_PRUNE_MEMORY_GB", "1e-9")
    with pytest.raises(InputError, match=r"5,000 atoms with some [0-9]+ neigh") as caught:
        model.predict([graph], forces=True)
    said = re.search(r"would take some ([\d.e-]+) GB", str(caught.value))
    assert said is not None and 0.5 < 1000 * float(said[1]) / measured < 2
    monkeypatch.setenv("EGNN_PRUNE_MEMORY_GB", "8")
    assert np.isfinite(model.predict([graph])[0].mean)


def test_a_million_atoms_are_refused_at_once(monkeypatch):
    monkeypatch.setenv("EGNN_PRUNE_MEMORY_GB", "8")
    with pytest.raises(InputError, match=r"1,000,000 atoms .* GB of memory, and 8 GB are free"):
        TrainedModel.load(MODEL, device="cpu").predict([block(10**6)], forces=True)


def test_structures_are_predicted_in_parts():
    rows, atoms = [3, 4, 5, 7, 8, 9], [10, 10_000, 10_000, 50_000, 10, 10]
    assert list(at_once(rows, atoms, 64)) == [[3, 4], [5], [7], [8, 9]]
    assert list(at_once(rows, [1] * 6, 4)) == [[3, 4, 5, 7], [8, 9]]
