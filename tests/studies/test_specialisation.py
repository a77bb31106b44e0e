"""The study of specialised potentials on a tiny teacher: choices, equal steps, tables, figure."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_teacher import structures, tiny_teacher

from egnn_prune.ase.structures import graph_of
from egnn_prune.configs.specialisation_study import SpecialisationStudySettings
from egnn_prune.errors import ConfigError
from egnn_prune.report.studies.specialisation import (
    best_rates,
    specialisation_plot,
    specialisation_table,
)
from egnn_prune.studies import specialisation as study
from egnn_prune.studies import specialisation_speed as speed
from egnn_prune.studies.specialisation import Bench, run_seed, run_specialisation_study
from egnn_prune.studies.specialisation_systems import System

FORCE = "force_rmse_mev_per_angstrom"


def tiny_system(name: str, teacher: torch.nn.Module, train: int, seed: int) -> System:
    """Water and methanol with labels that nothing made."""
    graphs = [graph_of(atoms) for atoms in structures(10, seed)]
    generator = torch.Generator().manual_seed(seed)
    for graph in graphs:
        graph.y = torch.randn(1, generator=generator, dtype=torch.float64)
        graph.forces = torch.randn(graph.pos.shape, generator=generator, dtype=torch.float64)
    return System(name, graphs[:6], graphs[6:8], graphs[8:], "data")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(study, "load", lambda name: tiny_teacher())
    monkeypatch.setattr(study, "system", tiny_system)
    monkeypatch.setattr(study, "SIZES", (0.5,))
    monkeypatch.setattr(study, "SCORES", ("force", "magnitude"))


def asked(out: Path, **changes) -> SpecialisationStudySettings:
    settings = {"systems": ["ethanol"], "seeds": [0, 1], "parts": ["fits"], "steps": 2}
    settings |= {"rates": [0.01, 0.03], "batch_size": 3, "train": 50}
    return SpecialisationStudySettings(out=str(out), **(settings | changes))


@pytest.fixture
def fits(monkeypatch):
    """Fits that train nothing: 0.01 is better on the validation split, 0.03 on the test split."""
    seen: list = []

    def fit(model, train, val, how, *, seed, label):
        seen.append((model, how))
        curve = [{"step": 0, "val_force_rmse": 50.0}]
        return SimpleNamespace(
            force_rmse={0.01: 10.0, 0.03: 20.0}[how.lr], seconds=1.0, best_step=0, curve=curve
        )

    def errors(model, graphs):
        test = {0.01: 200.0, 0.03: 100.0}[seen[-1][1].lr] if seen else 300.0
        forces = torch.zeros(sum(len(g.pos) for g in graphs), 3).numpy()
        return {FORCE: test, "energy_mae_mev_per_atom": 1.0}, {"forces": forces}

    monkeypatch.setattr(study, "fit_potential", fit)
    monkeypatch.setattr(study, "potential_errors", errors)
    return seen


@pytest.fixture
def uncut(monkeypatch):
    """Tests that do not look at the networks spare themselves the cut."""
    monkeypatch.setattr(Bench, "cut", lambda self, *_: tiny_teacher())


def test_rates_are_chosen_by_validation_and_never_by_test(fits, uncut, tmp_path):
    settings = asked(tmp_path)
    first, second = (run_seed(settings, seed) for seed in (0, 1))
    assert {r["rate"] for r in first if r.get("times") == 1} == {0.01, 0.03}
    assert {r["rate"] for r in first if r.get("times") == 5} == {0.01}
    assert {r["rate"] for r in second if r["part"] == "fits"} == {0.01}
    assert {(r["rate"], r[FORCE]) for r in best_rates(first)} == {(0.01, 200.0)}


def test_arms_get_equal_steps_and_no_early_stop(fits, uncut, tmp_path):
    rows = [r for r in run_seed(asked(tmp_path), 0) if r["part"] == "fits"]
    assert len(fits) == len(rows) == 2 * 4 + 2
    for row, (_, how) in zip(rows, fits, strict=True):
        assert how.steps == 2 * row["times"] and how.patience == 0
    arms = {(r["arm"], r["weights"]) for r in rows}
    assert arms >= {("full", "inherited"), ("conv+paths", "scratch")}


def test_scratch_has_the_shape_fresh_weights_and_the_domains_neighbours(fits, tmp_path):
    bench = Bench(asked(tmp_path), "ethanol", 1)  # the teacher was drawn with seed 0
    for weights in ("inherited", "scratch"):
        bench.fitted("fits", "conv+paths", weights, 1, 0.01)
    inherited, scratch = (model for model, _ in fits)
    shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (inherited, scratch)]
    assert shapes[0] == shapes[1]
    assert sum(p.numel() for p in scratch.parameters()) < sum(
        p.numel() for p in bench.data[1].parameters()
    )
    pairs = zip(inherited.parameters(), scratch.parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in pairs if a.dim() == 2 and a.numel())
    neighbours = [  # all atoms of these molecules that are nearer than the cutoff
        int((torch.cdist(g.pos, g.pos) < 3.0).sum()) - len(g.pos) for g in bench.data[0].train
    ]
    mean = sum(neighbours) / sum(len(g.pos) for g in bench.data[0].train)
    found = [b for name, b in scratch.named_buffers() if name.endswith("denominator")]
    assert found and all(torch.allclose(b, torch.tensor(mean**0.5).to(b), rtol=0.05) for b in found)


def test_the_study_writes_its_results_and_computes_nothing_twice(tmp_path, monkeypatch):
    settings = asked(tmp_path, seeds=[0], parts=["fits", "scores"], rates=[0.01])
    run_specialisation_study(settings)
    before = (tmp_path / "specialisation.csv").read_bytes()
    text = (tmp_path / "specialisation.txt").read_text()
    assert "conv+paths  scratch" in text and "magnitude" in text and "Odd paths" in text
    assert (tmp_path / "specialisation.png").stat().st_size > 10_000
    for name in ("fit_potential", "score_channels", "potential_errors"):
        monkeypatch.setattr(study, name, None)
    run_specialisation_study(settings)
    assert (tmp_path / "specialisation.csv").read_bytes() == before
    with pytest.raises(ConfigError, match="choose another out"):
        run_specialisation_study(asked(tmp_path, seeds=[0], steps=3))


def test_times_are_measured_once(uncut, tmp_path, monkeypatch):
    calls = []

    def latencies(models, teacher, *, compiled):
        calls.append((list(models), compiled))
        cell = {"part": "speed", "arm": "dense", "compiled": compiled}
        return [{**cell, "atoms": n, "latency_ms": 1.0} for n in (9, 48)]

    monkeypatch.setattr(study, "latencies", latencies)
    settings = asked(tmp_path, systems=["ethanol", "water"], parts=["speed"])
    rows = [r for _ in range(2) for seed in (0, 1) for r in run_seed(settings, seed)]
    names = ["dense", "odd paths dropped", "conv", "conv+paths"]
    assert calls == [(names, False), (names, True)]
    timed = [r for r in rows[: len(rows) // 2] if r["part"] == "speed"]
    assert len(timed) == 4 and {(r["system"], r["seed"]) for r in timed} == {("ethanol", 0)}


def test_own_code_is_timed_beside_the_translated(monkeypatch):
    monkeypatch.setattr(speed, "EDGES", (0, 1))
    monkeypatch.setattr(speed, "own_code", lambda teacher, atoms: lambda: None)
    rows = speed.latencies({"dense": tiny_teacher()}, "tiny")
    cells = [(r["arm"], r["atoms"]) for r in rows]
    assert cells == [("own code", 9), ("dense", 9), ("own code", 6), ("dense", 6)]
    assert all(r["latency_ms"] >= r["fastest_ms"] > 0 for r in rows)


def made_up(seeds: int = 3) -> list[dict]:
    """Full: 50 meV/A, cut: twice that times exp(+-0.1) by seed, from scratch four times."""
    rows: list[dict] = []
    errors = {("full", "inherited"): 1.0, ("conv+paths", "inherited"): 2.0}
    errors[("conv+paths", "scratch")] = 4.0
    for seed in range(seeds):
        for (arm, weights), times in errors.items():
            wobble = math.exp(0.1 * (seed - 1)) if (arm, weights) == (*errors,)[1] else 1.0
            hard = 50 * (1 + 0.5 * seed)  # structures differ by more than arms: ratios are paired
            for rate, val, test in ((0.01, 1.0, 1.0), (0.03, 2.0, 0.5)):
                cell = {"part": "fits", "system": "ethanol", "seed": seed, "arm": arm}
                cell |= {"weights": weights, "times": 1, "rate": rate, "params": 1000}
                cell |= {FORCE: hard * times * wobble * test, "energy_mae_mev_per_atom": 2.0}
                rows.append(cell | {"val_force_rmse": val, "curve": [[0, 90.0], [5, 30.0]]})
        for compensated, change in ((False, 200.0), (True, 100.0)):
            cell = {"part": "scores", "system": "ethanol", "seed": seed, "arm": "force"}
            rows += [
                {**cell, "conv": conv, "compensated": compensated, "change": change * conv + seed}
                for conv in (0.5, 0.75)
            ]
        rows.append({"part": "odd paths", "system": "ethanol", "seed": seed, "change": 3.0 + seed})
    for arm, eager, compiled in (("own code", 12.0, None), ("dense", 10.0, 8.0), ("conv", 4.0, 2)):
        cell = {"part": "speed", "system": "ethanol", "seed": 0, "arm": arm, "atoms": 48}
        rows.append({**cell, "compiled": False, "latency_ms": eager})
        if compiled:
            rows.append({**cell, "compiled": True, "latency_ms": compiled})
    return rows


def one_line(text: str, *words: str) -> str:
    (found,) = (row for row in text.splitlines() if row.split()[: len(words)] == [*words])
    return " ".join(found.split())


def test_ratios_are_paired_by_seed_and_geometric():
    text = specialisation_table(made_up())
    # log ratios 0.593, 0.693, 0.793: t(2) = 4.303, half width 4.303 * 0.1 / sqrt(3) = 0.248
    cut = one_line(text, "ethanol", "conv+paths", "inherited")
    assert cut.endswith("1,000 3 2.00 [1.56, 2.56] 0.50 [0.39, 0.64]")
    assert one_line(text, "ethanol", "full").endswith("0.01 75.0 ± 25.0 2.00 ± 0.00 1,000 3")
    alone = specialisation_table(made_up(1))  # no interval of one seed
    assert one_line(alone, "ethanol", "conv+paths", "inherited").endswith("1,000 1 1.81 0.45")


def test_a_teacher_that_made_the_labels_is_no_reference():
    rows = [{**r, FORCE: r[FORCE] / 1000} if r.get("arm") == "full" else r for r in made_up()]
    cut = one_line(specialisation_table(rows), "ethanol", "conv+paths", "inherited")
    assert cut.endswith("1,000 3 0.50 [0.39, 0.64]")


def test_cuts_odd_paths_and_times_have_tables():
    text = specialisation_table(made_up())
    assert one_line(text, "ethanol", "force", "yes") == "ethanol force yes 51.0 ± 1.0 76.0 ± 1.0"
    assert one_line(text, "ethanol", "4.00") == "ethanol 4.00 ± 1.00"
    assert one_line(text, "eager", "48", "conv") == "eager 48 conv 4.00 3.00x 2.50x"
    assert one_line(text, "compiled", "48", "conv") == "compiled 48 conv 2.00 6.00x 4.00x"


def test_the_figure_shows_what_there_is():
    assert len(specialisation_plot(made_up()).axes) == 1 + 1 + 2
    longer = [{**r, "times": 5} for r in made_up() if r["part"] == "fits"]
    figure = specialisation_plot([*made_up(), *longer])
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "force RMSE (meV/Å)",
        "step",
        "copies removed (%)",
        "atoms",
        "atoms",
    ]
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels[:3] == ["full", "conv+paths", "conv+paths, scratch"]
    assert not specialisation_plot([]).axes and specialisation_table([]) == ""
