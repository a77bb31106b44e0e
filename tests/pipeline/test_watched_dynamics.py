"""A specialist with its teacher from the folder of a run."""

from __future__ import annotations

import numpy as np
import pytest
from small_specialist import CountingTeacher, labelled, specialist
from trained_models import ethanol

from egnn_prune import save
from egnn_prune.errors import DataError
from egnn_prune.pipeline.specialise_data import replaced, split_structures, write_dataset
from egnn_prune.pipeline.watched_dynamics import labelled_structures, watched_calculator


def test_the_runs_own_structures_are_found(tmp_path):
    parts = {"train": labelled(6, 100), "val": labelled(3, 200), "test": labelled(2, 300)}
    whole = split_structures([ethanol(0.1, seed) for seed in range(12)], "ethanol", 0)
    (tmp_path / "stages").mkdir()
    write_dataset(tmp_path / "stages" / "labelled.npz", replaced(whole, parts))
    model = tmp_path / "specialised.safetensors"
    save(specialist(), model, target="energy", unit="eV")
    for given in (tmp_path, model):
        train, val = labelled_structures(given)
        assert [len(train), len(val)] == [6, 3]
        assert np.allclose(val[1].forces, parts["val"][1].forces)
    calc = watched_calculator(tmp_path, CountingTeacher(), "learn", learn_steps=7, device="cpu")
    assert calc.settings.steps == 7 and len(calc.train) == 6
    assert calc.agreement.structures == 3 and calc.agreement.teacher_rmse < 1e-6
    assert labelled_structures(tmp_path / "stages") == ([], [])
    (tmp_path / "stages" / "labelled.npz").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"labelled.npz is damaged .*; run specialise again"):
        labelled_structures(tmp_path)
