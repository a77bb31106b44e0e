"""Every kind of network on every pass, tiny: equal numbers, whole rows, fresh processes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from egnn_prune.bench import contenders, fresh, measure
from egnn_prune.bench.cases import CASES, NETWORKS, PASSES
from egnn_prune.bench.ceilings import Ceilings
from egnn_prune.bench.contender import Unavailable
from egnn_prune.bench.contenders import contender, difference, uniform_masks
from egnn_prune.bench.inputs import inputs_of, tiny_inputs
from egnn_prune.bench.memory import allocated_peak
from egnn_prune.bench.passes import call, results
from egnn_prune.bench.plan import Choice, Entry, Turns, plan
from egnn_prune.errors import InputError
from egnn_prune.models import EGNN
from egnn_prune.system.memory import peak_megabytes

PAIRS = replace(CASES["n-body"], graphs=2, nodes=4, hidden=10, layers=2)
CUTOFF = replace(CASES["atoms-2000"], nodes=40, hidden=10, layers=2)
IRREPS = replace(CASES["irreps-32"], graphs=2, nodes=6, hidden=4, layers=2)
MACHINE = Ceilings("cpu", silu=1.0, silu_gradient=1.0, copy=1.0)


@pytest.fixture(autouse=True)
def made_up_rates(monkeypatch):
    monkeypatch.setattr(Ceilings, "gflops", lambda self, product: 1.0)


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", [PAIRS, CUTOFF], ids=["pairs", "cutoff"])
@pytest.mark.parametrize("variant", ["ours", "ours-recompute", "ours-50", "ours-90"])
def test_ours_equals_the_textbook(case, variant, name):
    network, inputs = contender(variant, case, "cpu"), inputs_of(case, "cpu")
    found, expected = (results(name, n, inputs) for n in (network, network.expected))
    scale = max(float(t.abs().max()) for t in expected)
    assert difference(found, expected, network.columns) < 1e-4 * scale
    assert all(torch.isfinite(t).all() for t in found)
    # and a wrong network is found out
    with torch.no_grad():
        network.parameters[0].add_(0.1)
    assert difference(results(name, network, inputs), expected, network.columns) > 1e-3 * scale


def test_uniform_removal_leaves_the_same_share_everywhere():
    network = EGNN(5, 10, 2)
    kept = {name: int(mask.sum()) for name, mask in uniform_masks(network, 75).items()}
    assert set(kept.values()) == {2} and len(kept) == len(network.channel_groups())
    assert torch.equal(uniform_masks(network, 50)["stream"].nonzero()[:, 0], torch.arange(5) * 2)


def test_positions_get_forces_and_weights_no_gradient():
    network, inputs = contender("ours", PAIRS, "cpu"), inputs_of(PAIRS, "cpu")
    energy, forces = call("forces", network, inputs)()
    assert forces.shape == inputs.pos.shape and forces.abs().max() > 0
    assert not any(p.requires_grad for p in network.parameters) and energy.ndim == 0


@pytest.mark.parametrize("case", [PAIRS, CUTOFF, IRREPS], ids=["pairs", "cutoff", "irreps"])
def test_a_unit_becomes_whole_rows(case):
    variants = [
        v for v in NETWORKS[case.network] if v not in ("ours-recompute", "ours-75", "ours-90")
    ]
    said: list[str] = []
    for name in PASSES if case.network == "egnn" else ("forces",):
        entries = tuple(Entry(v, False) for v in variants)
        unit = replace(plan(Choice(["n-body"]))[0], case=case, name=name, entries=entries)
        unit = replace(unit, fresh=())
        conditions = measure.Conditions("cpu", 1, Turns(0.0, least=2))
        rows = measure.measured(unit, conditions, MACHINE, said.append)
        assert [r["variant"] for r in rows] == variants
        for row in rows:
            assert set(row) == set(measure.row_of(unit, entries[0], conditions))
            if row["skipped"]:
                assert row["ms_median"] is None and row["variant"] in ("egnn-pytorch", "nequip")
                assert "not installed" in row["skipped"] or "has a cutoff" in row["skipped"]
                continue
            assert row["pass"] == name and row["turns"] == 2 and row["edges"] > 0
            assert row["ms_median"] > 0 and row["ms_iqr"] >= 0
            assert row["peak_mb"] > 0 and row["floor_ms"] > 0
            compared = case.network == "egnn" and row["variant"] != "egnn-pytorch"
            known = row["max_abs_diff_to_textbook"] is not None
            assert known == (compared and row["variant"] != "textbook")
    assert "taking turns" in said


def test_what_fails_becomes_a_row_with_the_reason(monkeypatch):
    def broken(variant, case, device, compiled=False):
        if variant == "ours":
            raise RuntimeError("first line\nsecond line")
        return contender(variant, case, device, compiled)

    monkeypatch.setattr(measure, "contender", broken)
    (unit,) = plan(Choice(["n-body"], ["textbook", "ours"], ["infer"], "none", fresh="none"))
    unit = replace(unit, case=PAIRS)
    rows = measure.measured(unit, measure.Conditions("cpu", 1, Turns(0.0, 2)), MACHINE, print)
    assert rows[0]["ms_median"] and not rows[0]["skipped"]
    assert rows[1]["skipped"] == "RuntimeError: first line" and rows[1]["ms_median"] is None
    monkeypatch.setattr(measure, "free_megabytes", lambda device: 1e-3)
    rows = measure.measured(unit, measure.Conditions("cpu", 1), MACHINE, print)
    assert all("GB of memory" in row["skipped"] for row in rows)


def test_others_say_what_they_cannot_do():
    with pytest.raises(Unavailable, match="this has a cutoff"):
        contender("egnn-pytorch", CUTOFF, "cpu")
    with pytest.raises(Unavailable, match="compiler of its own"):
        contender("nequip", IRREPS, "cpu", compiled=True)


def test_program_compiles_for_one_shape(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda f, dynamic: asked.append(dynamic) or f)
    network = contender("ours", PAIRS, "cpu", compiled=True)
    inputs = inputs_of(PAIRS, "cpu")
    eager = results("infer", contender("ours", PAIRS, "cpu"), inputs)
    assert difference(results("infer", network, inputs), eager, None) < 1e-5
    assert asked == [False] and contenders.program(abs, compiled=False) is abs


def test_inputs_are_the_same_for_all_and_elsewhere_only_where_asked():
    inputs, again = inputs_of(PAIRS, "cpu"), inputs_of(PAIRS, "cpu")
    assert torch.equal(inputs.pos, again.pos) and inputs.edge_index.shape == (2, 24)
    moved = inputs.at(inputs.pos + 1)
    assert torch.equal(moved.pos, inputs.pos + 1) and torch.equal(inputs.pos, again.pos)
    assert len(tiny_inputs(CASES["atoms-2000"], "cpu").pos) == 8
    dense = inputs_of(replace(CASES["atoms-2000"], nodes=1000), "cpu")
    assert 12 < dense.edge_index.shape[1] / 1000 < 20


def test_peak_of_the_profiler_agrees_with_the_one_that_follows_operations():
    x = torch.randn(1000, 100)

    def run() -> None:
        y = x @ x.T
        (y.exp() * 2).sum()

    assert allocated_peak(run, "cpu") == pytest.approx(peak_megabytes(run, "cpu"), rel=0.01)


def test_first_calls_in_a_fresh_process(monkeypatch):
    monkeypatch.setitem(fresh.CASES, "n-body", PAIRS)
    job = {"case": "n-body", "variant": "ours", "name": "infer", "threads": 1, "device": "cpu"}
    found = fresh.first_calls(job)
    assert len(found["ms"]) == fresh.CALLS and min(found["ms"]) > 0 and found["faults"] >= 0


def test_a_fresh_process_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(fresh.sys, "executable", "/bin/false")
    with pytest.raises(InputError, match="a fresh process failed: no message"):
        fresh.fresh_ms("n-body", "ours", "infer", 1, "cpu", 10.0)


def test_recomputing_needs_a_fraction_of_the_memory():
    case = replace(CASES["depth-2"], graphs=16)
    inputs = inputs_of(case, "cpu")
    steps = [call("train", contender(v, case, "cpu"), inputs) for v in ("ours", "ours-recompute")]
    kept, recomputed = (step() or allocated_peak(step, "cpu") for step in steps)
    assert recomputed < kept / 2


def test_others_do_without_our_setting_of_the_allocator(monkeypatch):
    from egnn_prune.system import malloc

    monkeypatch.setattr(malloc, "keep_freed_memory", malloc.keep_freed_memory)
    monkeypatch.setitem(fresh.CASES, "n-body", PAIRS)
    job = {"case": "n-body", "name": "infer", "threads": 1, "device": "cpu"}
    before = malloc.keep_freed_memory
    fresh.first_calls(job | {"variant": "ours"})
    assert malloc.keep_freed_memory is before
    fresh.first_calls(job | {"variant": "textbook"})
    assert malloc.keep_freed_memory is not before
