"""The study of error bars of forces: arms, files, a table that says what it was given."""

from __future__ import annotations

import csv
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule
from torch_geometric.data import Data

from egnn_prune.configs.force_calibration_study import ForceCalibrationStudySettings
from egnn_prune.data import GraphDataset
from egnn_prune.data.sources.md17 import REVISED
from egnn_prune.errors import ConfigError
from egnn_prune.pipeline import run_context
from egnn_prune.report.studies.force_calibration import (
    force_calibration_plot,
    force_calibration_table,
)
from egnn_prune.studies import force_calibration as study
from egnn_prune.studies.force_calibration import (
    ARMS,
    Bench,
    data_source,
    largest,
    run_force_calibration_study,
)
from egnn_prune.studies.stretched_bonds import STRETCH, stretched
from egnn_prune.system.files import read_json, write_json
from egnn_prune.training import ForceLosses


def asked(out: Path, **changes) -> ForceCalibrationStudySettings:
    tiny = {"data": "xtb", "networks": ["egnn"], "seeds": [0], "train": 50, "val": 20, "test": 40}
    tiny |= {"epochs": 1, "finetune_epochs": 1, "batch_size": 25, "hidden": 8, "members": 2}
    return ForceCalibrationStudySettings(out=str(out), **(tiny | changes))


# --------------------------------------------------------------------------------- the study


def few_molecules(*_, **__) -> GraphDataset:
    """Ethanol that was shaken, with energies and forces of springs to where its atoms were."""
    atoms, draw = molecule("CH3CH2OH"), np.random.default_rng(0)
    graphs = []
    for row in range(100):
        away = torch.from_numpy(draw.normal(scale=0.05, size=(9, 3)))
        energy = 5 * away.square().sum()[None]
        start = torch.from_numpy(atoms.positions)
        z = torch.from_numpy(atoms.numbers)
        graphs.append(Data(z=z, pos=start + away, y=energy, forces=-10 * away, row=row))
    ends = {"train": (0, 60), "val": (60, 80), "test": (80, 100)}
    splits = {name: torch.arange(*end) for name, end in ends.items()}
    return GraphDataset("springs", "energy", "eV", True, graphs, splits)


@pytest.fixture(scope="module", autouse=True)
def small_data():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_context.sources, "load", few_molecules)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return run_force_calibration_study(asked(tmp_path_factory.mktemp("forces") / "study"))


def test_every_arm_has_both_kinds_of_error_bars(finished):
    with (finished / "force_calibration.csv").open() as file:
        rows = list(csv.DictReader(file))
    cells = {(row["arm"], row["size"], row["source"]) for row in rows}
    assert len(rows) == len(cells) == 3 * 2 * 2
    numbers = ("force_rmse_mev_per_angstrom", "val_force_nll", "force_coverage_90", "force_ence")
    assert all(math.isfinite(float(row[key])) for row in rows for key in numbers)
    assert all(0 <= float(row["stretched_auroc"]) <= 1 for row in rows)
    assert all(0.6 < float(row["force_coverage_90_calibrated"]) <= 1 for row in rows)
    params = {row["size"]: int(row["params"]) for row in rows}
    assert params["pruned"] < params["dense"]
    assert (finished / "force_calibration.png").stat().st_size > 10_000


def test_the_errors_are_those_of_the_network_and_not_of_its_error_bars(finished):
    with (finished / "force_calibration.csv").open() as file:
        rows = list(csv.DictReader(file))
    errors: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        key = "force_rmse_mev_per_angstrom"
        errors.setdefault((row["arm"], row["size"]), set()).add(row[key])
    assert all(len(found) == 1 for found in errors.values())
    assert len({*map(frozenset, errors.values())}) == 6  # no two networks are the same


def test_what_is_finished_is_not_computed_again(finished, monkeypatch):
    text = (finished / "force_calibration.txt").read_text()
    monkeypatch.setattr(Bench, "measured", lambda *_: pytest.fail("computed again"))
    assert (run_force_calibration_study(asked(finished)) / "force_calibration.txt").read_text() == (
        text
    )
    with pytest.raises(ConfigError, match="choose another out"):
        run_force_calibration_study(asked(finished, members=3))


def test_a_missing_row_alone_is_found_again(finished, monkeypatch):
    """From the networks that are there; and it is the row that it was."""
    path = finished / "egnn-seed0.json"
    content = read_json(path)
    row = content["rows"].pop()
    write_json(path, content)
    monkeypatch.setattr(study, "fine_tuned", lambda *_: pytest.fail("trained again"))
    run_force_calibration_study(asked(finished))
    found = read_json(path)["rows"][-1]
    assert found.keys() == row.keys()
    assert all(found[k] == pytest.approx(row[k]) for k in row)


def test_arms_differ_in_the_loss_alone(tmp_path):
    bench = Bench(asked(tmp_path), "xtb", "egnn", 0)
    energies, forces = (asdict(bench.job_settings(loss)) for loss in ("energies", "forces"))
    assert energies["training"].pop("force_weight") == 0
    assert forces["training"].pop("force_weight") == 10
    assert energies.pop("out") != forces.pop("out")
    assert energies == forces
    assert isinstance(bench.job("forces").losses, ForceLosses)
    assert not isinstance(bench.job("energies").losses, ForceLosses)
    assert ARMS["energies, then forces"] == ("energies", "forces")


def test_without_rmd17_the_built_in_molecules_are_studied_and_it_is_said(
    tmp_path, monkeypatch, capsys
):
    settings = asked(tmp_path, data="rmd17")
    monkeypatch.setenv("EGNN_PRUNE_DATA", str(tmp_path))
    assert REVISED.find(None, "ethanol") is None
    assert data_source(settings) == "xtb"
    assert "rMD17 is not here" in capsys.readouterr().out
    monkeypatch.setattr(study, "REVISED", REVISED.__class__("", "", REVISED.names, ("x",), ""))
    (tmp_path / "x").touch()
    assert data_source(settings) == "rmd17"
    assert not capsys.readouterr().out


def test_the_largest_of_each_structure():
    values, structure = torch.tensor([1.0, 3.0, 2.0, 0.5]), torch.tensor([0, 0, 1, 1])
    assert largest(values, structure).tolist() == [3.0, 2.0]


# ----------------------------------------------------------------------------- stretched bonds


def graph(name: str) -> Data:
    atoms = molecule(name)
    return Data(z=torch.from_numpy(atoms.numbers), pos=torch.from_numpy(atoms.positions))


def test_one_bond_is_longer_and_both_sides_are_as_they_were():
    before = graph("CH3CH2OH")
    after = stretched(before)
    assert after is not None and after.forces.shape == after.pos.shape
    oxygen = int((before.z == 8).nonzero())
    old, new = (torch.cdist(g.pos, g.pos) for g in (before, after))
    carbon = int(old[oxygen].masked_fill(before.z != 6, torch.inf).argmin())
    assert float(new[oxygen, carbon] - old[oxygen, carbon]) == pytest.approx(STRETCH, abs=1e-9)
    hydroxyl = torch.zeros(len(old), dtype=torch.bool)
    hydroxyl[oxygen] = True
    hydroxyl |= (old[oxygen] < 1.2) & (before.z == 1)
    assert hydroxyl.sum() == 2
    for side in (hydroxyl, ~hydroxyl):
        assert torch.allclose(new[side][:, side], old[side][:, side], atol=1e-12)


@pytest.mark.parametrize("name", ["C6H6", "CH4", "H2O"])
def test_rings_and_single_heavy_atoms_have_no_such_bond(name):
    assert stretched(graph(name)) is None


# ---------------------------------------------------------------------------------- the report


def rows_of(arms: dict[str, float], seeds: int = 2) -> list[dict]:
    """A row of each cell; members have the better likelihood on validation for seed 0 alone."""
    found = []
    for arm, rmse in arms.items():
        for seed in range(seeds):
            for source in ("distance", "members"):
                row = {"network": "egnn", "seed": seed, "arm": arm, "size": "dense"}
                row |= {"source": source, "force_rmse_mev_per_angstrom": rmse + seed}
                row |= {"energy_mae_mev": 5.0, "stretched_auroc": 0.9}
                better = source == "members" and seed == 0
                row |= {"val_force_nll": 0.5 - better, "force_nll_calibrated": 0.5}
                for suffix in ("", "_calibrated"):
                    row |= {f"force_coverage_{p}{suffix}": p / 100 for p in (50, 80, 90)}
                    row |= {f"force_ence{suffix}": 0.1, f"force_spearman_atoms{suffix}": 0.4}
                found.append(row)
    return found


def test_the_table_says_means_changes_and_which_source_validation_takes():
    text = force_calibration_table(rows_of({"energies": 200.0, "forces": 100.0}))
    assert "200 ± 1" in text.replace("200.5", "200") and "50/80/90" in text
    assert "-100.0 [-100.0, -100.0]" in text
    assert "validation takes the members' spread in 2 of 4 networks" in text
    assert "test agrees in 2" in text


def test_the_figure_has_a_row_for_each_network():
    rows = rows_of({"energies": 200.0, "forces": 100.0})
    rows += [row | {"network": "irreps"} for row in rows]
    figure = force_calibration_plot(rows)
    assert len(figure.axes) == 2 * 4
    assert [figure.axes[k].get_ylabel() for k in (0, 4)] == ["egnn", "irreps"]
