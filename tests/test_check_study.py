"""The check that continuous integration holds the study's quick form against."""

import json

import pytest

ROWS = [
    {
        **{"question": "freezing", "seed": seed, "size": size, "frozen": frozen},
        "force_rmse": 100.0 + seed + size + 10 * (frozen == "message passing"),
    }
    for seed in (0, 1)
    for size in (10, 20)
    for frozen in ("nothing", "message passing", "important", "all but the read-out")
]


@pytest.fixture
def checked(load_script, monkeypatch, tmp_path, call_script):
    """``checked(rows)``: exit code and output for a run with these rows, ``ROWS`` being stored."""
    script = load_script("check_study")

    def check(rows):
        run = tmp_path / "run"
        run.mkdir(exist_ok=True)
        (run / "study.json").write_text(json.dumps({"rows": rows}))
        monkeypatch.setattr("sys.argv", ["check_study.py", str(run)])
        try:
            script.main()
        except SystemExit as error:
            return error.code
        return 0

    monkeypatch.setattr(script, "STORED", tmp_path / "quick.json")
    (tmp_path / "quick.json").write_text(json.dumps(script.numbers(ROWS)))
    return check


def changed(number, factor):
    return [
        {**row, "force_rmse": row["force_rmse"] * (factor if i == number else 1)}
        for i, row in enumerate(ROWS)
    ]


def test_numbers_within_the_tolerance_pass(checked, capsys):
    assert checked(changed(3, 1.04)) == 0
    # 16 rows, and 4 primary comparisons
    assert capsys.readouterr().out == "20 numbers of the quick form are what quick.json says\n"


@pytest.mark.parametrize("number", range(len(ROWS)))
@pytest.mark.parametrize("factor", [0.93, 1.07])
def test_every_row_counts(checked, capsys, number, factor):
    assert checked(changed(number, factor)) == 1
    row = ROWS[number]
    cell = f"freezing, seed {row['seed']}, size {row['size']}, frozen {row['frozen']}"
    now, then = (f"{row['force_rmse'] * f:.4g}" for f in (factor, 1))
    assert f"{cell}: {now}, stored {then}" in capsys.readouterr().out


def test_comparisons_count_where_no_row_changed_too_much(checked, capsys):
    shifted = [
        {**row, "force_rmse": row["force_rmse"] * {"nothing": 0.96}.get(row["frozen"], 1.04)}
        for row in ROWS
    ]
    assert checked(shifted) == 1
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == 4 and all("frozen against nothing" in line for line in lines)


def test_rows_that_are_missing_or_not_numbers_are_said(checked, capsys):
    assert checked(ROWS[1:]) == 1
    assert "seed 0, size 10, frozen nothing: not found" in capsys.readouterr().out
    assert checked(changed(0, float("nan"))) == 1
    assert "frozen nothing: nan, stored 110" in capsys.readouterr().out
