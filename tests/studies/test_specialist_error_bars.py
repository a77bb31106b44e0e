"""The study of error bars on a tiny teacher: whose laws are used where, cells, tables, figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_teacher import structures, tiny_teacher

from egnn_prune.ase.structures import graph_of
from egnn_prune.configs.specialist_error_bars_study import SpecialistErrorBarsStudySettings
from egnn_prune.report.studies.specialist_error_bars import error_bars_plot, error_bars_table
from egnn_prune.studies import specialisation
from egnn_prune.studies import specialist_error_bars as study
from egnn_prune.studies import specialist_networks as networks
from egnn_prune.studies.out_of_distribution_structures import Changed
from egnn_prune.studies.specialisation_systems import System
from egnn_prune.studies.specialist_error_bars import (
    Examined,
    chain,
    flag_row,
    methods,
    named,
    run_seed,
    run_specialist_error_bars_study,
)
from egnn_prune.studies.specialist_networks import Specialists, shaken_silicon
from egnn_prune.training.distillation import label


def tiny_system(name: str, teacher: torch.nn.Module, train: int, seed: int) -> System:
    """Water and methanol with labels that another teacher made, so that fits get better."""
    other = tiny_teacher(1)
    graphs = label(other, [graph_of(atoms) for atoms in structures(40, seed)])
    return System(name, graphs[:16], graphs[16:28], graphs[28:], "data")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(specialisation, "load", lambda name: tiny_teacher())
    monkeypatch.setattr(networks, "load", lambda name: tiny_teacher())
    monkeypatch.setattr(specialisation, "system", tiny_system)
    for name, value in {"CELLS": 1, "VALIDATION": 12, "TESTED": 6}.items():
        monkeypatch.setattr(networks, name, value)
    for name, value in {"ATOMS": (9,), "REPEATS": 1, "WARMUP": 1}.items():
        monkeypatch.setattr(study, name, value)


def asked(out: Path, **changes) -> SpecialistErrorBarsStudySettings:
    given = {"systems": ["ethanol"], "seeds": [0], "steps": 4, "structures": 4, "members": 2}
    return SpecialistErrorBarsStudySettings(
        out=str(out), **(given | {"train": 50, "labelled": 8} | changes)
    )


def test_old_laws_keep_their_factor_and_quantiles_but_not_their_distances(tmp_path):
    examined = Examined(asked(tmp_path), "ethanol", 0)
    dense, cut, tuned, own = (
        examined.laws("last_layer", p) for p in ("dense", "cut", "fine-tuned", "recalibrated")
    )
    for old in (cut, tuned):
        assert torch.equal(old.energies.factor, dense.energies.factor)
        assert torch.equal(old.atoms.quantiles, dense.atoms.quantiles)
        assert not torch.equal(old.atoms.distance.centre, dense.atoms.distance.centre)
    assert torch.equal(tuned.atoms.distance.centre, own.atoms.distance.centre)
    assert not torch.equal(own.atoms.quantiles, dense.atoms.quantiles)
    assert not torch.equal(own.energies.factor, dense.energies.factor)


def test_networks_are_trained_once_and_read_from_their_folder(tmp_path, monkeypatch):
    settings = asked(tmp_path, models=str(tmp_path / "networks"))
    specialists = Specialists(settings, "ethanol", 0)
    before = {name: specialists.network(name) for name in ("cut", "full", *specialists.committee)}
    assert list(before) == ["cut", "full", "small", "member1"]
    first = [p.flatten() for p in before["small"].parameters() if p.numel()]
    for name in ("cut", "member1"):
        other = [p.flatten() for p in before[name].parameters() if p.numel()]
        assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))
    monkeypatch.setattr(networks, "fit_potential", None)
    again = Specialists(settings, "ethanol", 0).network("small")
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.parameters(), before["small"].parameters(), strict=True)
    )


def test_the_study_writes_its_results_and_computes_nothing_twice(tmp_path, monkeypatch):
    settings = asked(tmp_path, systems=["ethanol", "silicon"])
    run_specialist_error_bars_study(settings)
    before = (tmp_path / "error_bars.csv").read_bytes()
    text = (tmp_path / "error_bars.txt").read_text()
    for words in ("recalibrated", "stretched bond", "vacancy", "refused in 2 of 2", "to no error"):
        assert words in text
    assert (tmp_path / "error_bars.png").stat().st_size > 10_000
    monkeypatch.setattr(study, "look_at", None)
    run_specialist_error_bars_study(settings)
    assert (tmp_path / "error_bars.csv").read_bytes() == before
    rows = run_seed(settings, 0)
    cells = [(r["system"], r["method"], r["point"]) for r in rows if r["part"] == "calibration"]
    steps = ["dense", "cut", "fine-tuned", "recalibrated"]
    assert cells == [
        *(("ethanol", "last_layer", point) for point in steps),
        ("ethanol", "committee", "recalibrated"),
        *(("silicon", "last_layer", point) for point in steps[1:]),
    ]
    for row in rows:
        if row["part"] == "calibration":
            assert 0 <= row["force_coverage_50"] <= row["force_coverage_90"] <= 1


def test_a_flag_passes_what_all_its_parts_pass():
    def scores(*values: float) -> dict[str, torch.Tensor]:
        names = ("energy", "domain", "distance", "force")
        return {n: torch.tensor([0.5, v]) for n, v in zip(names, values, strict=True)}

    test = scores(0.9, 0.0, 0.9, 0.9)
    row = flag_row("hotter", scores(2.0, 0.0, 0.8, 0.8), test)
    assert (row["passed_old"], row["passed_new"], row["passed_both"]) == (0.5, 1.0, 0.5)
    assert row["passed_energy"] == 0.5 and row["passed_domain"] == 1.0
    assert row["auroc_energy"] == pytest.approx(0.625)  # 0.5 ties with 0.5 and loses, 2 wins
    assert "auroc_energy" not in flag_row("test", test, test)


def test_the_atom_farthest_away_is_named():
    masks = [torch.tensor([True, False, False]), torch.tensor([False, True])]
    made = [Changed(graph_of(structures(1)[0]), mask) for mask in masks]
    assert named(made, torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0])) == {
        "named": 0.5,
        "named_by_chance": pytest.approx((1 / 3 + 1 / 2) / 2),
    }
    assert named([Changed(made[0].graph)], torch.ones(3)) == {}


def test_only_systems_with_data_have_a_dense_point_and_a_committee():
    assert chain("silicon", "last_layer") == ["cut", "fine-tuned", "recalibrated"]
    assert chain("3bpa", "last_layer")[0] == "dense"
    assert chain("3bpa", "committee") == ["recalibrated"]
    assert methods(asked(Path()), "silicon") == ["last_layer"]
    assert methods(asked(Path()), "3bpa") == ["last_layer", "committee"]


def test_silicon_is_shaken_by_as_much_as_asked():
    made = shaken_silicon(200, 0.1, np.random.default_rng(0))
    moved = torch.stack([graph.pos for graph in made])
    assert float(moved.std(0).mean()) == pytest.approx(0.1, rel=0.05)
    assert bool(made[0].pbc.all())


def made_up() -> list[dict]:
    """Coverage with old laws is 0.10 and 0.12 too small."""
    rows: list[dict] = []
    for seed in (0, 1):
        shared = {"system": "3bpa", "seed": seed, "method": "last_layer"}
        for point, coverage in (("fine-tuned", 0.80 - 0.02 * seed), ("recalibrated", 0.90)):
            rows.append(
                {"part": "calibration", **shared, "point": point}
                | {f"force_coverage_{p}": coverage * p / 90 for p in (50, 80, 90)}
            )
        for kind, share in (("test", 0.99), ("cluster", 0.25)):
            row = {"part": "flag", **shared, "kind": kind, "auroc_distance": 0.75}
            rows.append(row | {f"passed_{flag}": share for flag in ("old", "new", "both")})
        rows.append({"part": "new species", **shared, "refused": seed == 0})
    for method, time in (("energies and forces", 10.0), ("committee", 45.0)):
        cell = {"part": "cost", "system": "3bpa", "seed": 0, "method": method}
        rows.append({**cell, "atoms": 27, "latency_ms": time})
    return rows


def test_tables_say_what_was_found():
    text = error_bars_table(made_up())
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "3bpa last_layer fine-tuned force -0.110 [-0.237, +0.017]" in lines  # 12.706 * 0.01
    assert "3bpa last_layer cluster 0.25 ± 0.00 0.25 ± 0.00 0.25 ± 0.00 2" in lines
    assert "27 committee 45.0 4.50x" in lines
    assert "A new element was refused in 1 of 2 cases" in lines
    assert error_bars_table([]) == ""


def test_the_figure_has_a_panel_for_each_part_and_system():
    figure = error_bars_plot(made_up())
    assert [axes.get_xlabel() for axes in figure.axes] == ["promised (%)", "share that passes (%)"]
    labels = [tick.get_text() for tick in figure.axes[1].get_yticklabels()]
    assert labels == ["test", "cluster"]
    assert not error_bars_plot([]).axes
