"""What the benchmark measures: cases, filters, wrong names, resuming."""

from __future__ import annotations

import pytest

from egnn_prune.bench.cases import CASES, NETWORKS, PASSES, VARIANTS
from egnn_prune.bench.measure import Conditions, row_of
from egnn_prune.bench.plan import QUICK, USUAL, Choice, Entry, plan
from egnn_prune.bench.run import is_measured, kept_rows
from egnn_prune.errors import ConfigError
from egnn_prune.system.files import write_json


def test_cases_name_what_there_is():
    for name, case in CASES.items():
        assert name == case.name
        assert set(NETWORKS[case.network]) <= set(VARIANTS) and case.usual.eager
        for selection in (case.usual, case.quick):
            both = {*selection.eager, *selection.compiled, *selection.fresh}
            assert {*selection.compiled, *selection.fresh} <= set(selection.eager)
            assert {variant for variant, _ in both} <= set(NETWORKS[case.network])
            assert {name for _, name in both} <= set(PASSES)


def test_everybody_takes_turns_within_a_unit():
    (unit,) = plan(Choice(cases=["n-body"], passes=["train"], variants=["textbook", "ours"]))
    names = ["textbook", "ours", "textbook compiled", "ours compiled"]
    assert [str(e) for e in unit.entries] == names and unit.fresh == ()
    (unit,) = plan(Choice(["n-body"], ["ours"], ["forces"], compiled="all", fresh="all"))
    assert unit.entries == (Entry("ours", False), Entry("ours", True)) and unit.fresh == ("ours",)
    (unit,) = plan(Choice(["n-body"], ["ours"], ["train"], compiled="none"))
    assert unit.entries == (Entry("ours", False),)
    (unit,) = plan(Choice(["batch-10"], passes=["forces"]))  # not usual, but asked for
    assert [e.variant for e in unit.entries] == ["textbook", "ours"]
    assert [u.name for u in plan(Choice(["width-32"], quick=True))] == ["infer", "train"]


def test_a_variant_is_left_out_where_it_makes_no_sense():
    assert plan(Choice(cases=["irreps-32"], variants=["textbook"])) == []
    units = plan(Choice(variants=["nequip"]))
    assert {u.case.name for u in units} == {"irreps-32"}


def test_quick_is_a_part_that_takes_two_minutes():
    quick, everything = plan(Choice(quick=True)), plan(Choice())
    assert {u.case.name for u in quick} < {u.case.name for u in everything}
    assert sum(u.seconds(QUICK) for u in quick) < 150
    assert sum(u.seconds(USUAL) for u in everything) < 1000


def test_turns_follow_the_time_that_one_takes():
    assert USUAL.of(100.0) == USUAL.least and USUAL.of(1e-6) == USUAL.most
    assert USUAL.of(0.4) == 10


def test_a_unit_is_done_when_all_of_its_rows_are_there(tmp_path):
    (unit,) = plan(Choice(["n-body"], ["textbook", "ours"], ["infer"], compiled="none"))
    conditions = Conditions("cpu", 1)
    rows = [row_of(unit, entry, conditions) for entry in unit.entries]
    assert is_measured(unit, rows, conditions)
    assert not is_measured(unit, rows[:1], conditions)
    assert not is_measured(unit, rows, Conditions("cpu", 2))
    path = tmp_path / "benchmark.json"
    assert kept_rows(path, {"commit": "a"}) == []
    write_json(path, {"about": {"commit": "a"}, "rows": rows})
    assert kept_rows(path, {"commit": "a"}) == rows
    with pytest.raises(ConfigError, match=r"commit was a, is b\); choose another --out"):
        kept_rows(path, {"commit": "b"})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--cases", "qm9-12"), "--cases has no 'qm9-12' (did you mean qm9-128?)"),
        (("--variants", "textbok"), "(did you mean textbook?); there are textbook, "),
        (("--passes", "infer,training"), "--passes has no 'training'"),
        (("--passes", ","), "--passes names nothing; there are infer, train, forces"),
        (("--cases", "irreps-32", "--variants", "textbook"), "no case has these variants"),
        (("--threads", "0"), "--threads must be positive, not 0"),
        (("--seconds", "-1"), "--seconds must be positive, not -1"),
        (("--seconds", "nan"), "--seconds must be positive, not nan"),
        (("--uncertainty", "--repeats", "0"), "--repeats must be positive, not 0"),
        (("--uncertainty", "--warmup", "-1"), "--warmup must be at least 0, not -1"),
        (("--case", "n-body"), "(did you mean --cases?)"),
    ],
)
def test_one_sentence_says_what_was_wrong(call_script, tmp_path, arguments, said):
    code, _, err = call_script("benchmark", *arguments, "--out", tmp_path / "out")
    assert code == 2 and said in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
