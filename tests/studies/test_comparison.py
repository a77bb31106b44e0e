"""Arms side by side: the same numbers however many processes work, and finished runs re-used."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from few_graphs import ALL_GRAPHS
from tiny_jobs import tiny, used_only

from egnn_prune.configs.over_seeds import ComparisonSettings
from egnn_prune.data.dataset import GraphDataset
from egnn_prune.errors import ConfigError
from egnn_prune.runs import finished_seeds, seed_jobs
from egnn_prune.studies import comparison
from egnn_prune.studies.comparison import ARMS, compare, jobs_of_seed

TIMES = {"latency_ms", "train_seconds"}


def settings(out: Path, **changes) -> ComparisonSettings:
    job = tiny(out, training__scratch=False)
    own = {"seeds": [0, 1], "arms": ["uncertainty", "random"], "sparsities": [0.5]}
    shared = {key: getattr(job, key) for key in asdict(job)}
    return used_only(ComparisonSettings(**(shared | own | changes)))


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "comparison.csv").open(newline="") as handle:
        found = list(csv.DictReader(handle))
    return [{k: v for k, v in row.items() if k not in TIMES} for row in found]


@pytest.fixture(scope="module", autouse=True)
def no_reports():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("egnn_prune.pipeline.main_job.write_report", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Path:
    return compare(settings(tmp_path_factory.mktemp("one") / "out"))


@pytest.mark.parametrize("name", ["arms", "sparsities", "seeds"])
def test_a_value_named_twice(name, tmp_path):
    settings = ComparisonSettings(out=str(tmp_path / "out"))
    setattr(settings, name, getattr(settings, name)[:1] * 2)
    with pytest.raises(ConfigError, match=f"{name} needs one or more different values"):
        compare(settings)
    assert not (tmp_path / "out").exists()


def test_a_row_for_every_model(compared):
    assert [(r["seed"], r["arm"], float(r["sparsity"])) for r in rows(compared)] == [
        (seed, arm, 0.0 if arm == "dense" else 0.5)
        for seed in ("0", "1")
        for arm in ("dense", "uncertainty", "random")
    ]
    assert (compared / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_a_row_has_the_numbers_of_its_model(compared):
    for row in rows(compared):
        arm = "uncertainty" if row["arm"] == "dense" else row["arm"]
        content = json.loads((compared / f"seed{row['seed']}-{arm}-0.5/metrics.json").read_text())
        model = content["models"]["dense" if row["arm"] == "dense" else "pruned"]
        for key in ("test_mae", "ood_mae", "params", "nll"):
            assert float(row[key]) == pytest.approx(model[key], rel=1e-12), (row["arm"], key)


def test_the_dense_model_of_a_seed_is_shared(compared):
    for seed in (0, 1):
        first, second = (compared / f"seed{seed}-{arm}-0.5" for arm in ("uncertainty", "random"))
        for name in ("dense.safetensors", "stages/selection.npz"):
            assert (first / name).read_bytes() == (second / name).read_bytes()
        assert (first / "pruned.safetensors").read_bytes() != (
            second / "pruned.safetensors"
        ).read_bytes()


@pytest.mark.slow
def test_two_processes_find_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(GraphDataset, "limited", ALL_GRAPHS)
    monkeypatch.setattr(finished_seeds, "git_commit", lambda: None)  # somebody may work on it
    alone = rows(compare(settings(tmp_path / "alone")))
    two = settings(tmp_path / "out", workers=2)
    assert rows(compare(two)) == alone
    monkeypatch.setattr(seed_jobs, "_Jobs", lambda *_: pytest.fail("a process would begin"))
    assert rows(compare(two)) == alone


def test_finished_runs_are_used_again(compared, monkeypatch, capsys):
    monkeypatch.setattr(comparison, "run", lambda _: pytest.fail("a finished job ran again"))
    before = rows(compared)
    compare(settings(compared))
    assert rows(compared) == before
    assert "difference to dense" in capsys.readouterr().out


def test_arms_differ_in_what_they_claim_only(tmp_path):
    arms = list(ARMS)
    jobs = jobs_of_seed(settings(tmp_path, arms=arms, sparsities=[0.5, 0.75]), 3)
    assert len(jobs) == 2 * len(arms)
    assert len({job.out for job in jobs}) == len(jobs)
    assert all(job.seed == 3 for job in jobs)
    # in words of this test: what an arm is called says what it does
    assert {
        arm: (job.pruning.criterion, job.selection.strategy)
        for arm, job in zip(arms, jobs, strict=False)
    } == {
        "uncertainty": ("taylor", "top"),
        "magnitude": ("magnitude", "top"),
        "random": ("random", "top"),
        "random_graphs": ("taylor", "random"),
        "least_uncertain": ("taylor", "least"),
    }
    plain = asdict(jobs[0])
    for job, (arm, sparsity) in zip(jobs, ((a, s) for s in (0.5, 0.75) for a in arms), strict=True):
        expected = {k: dict(v) if isinstance(v, dict) else v for k, v in plain.items()}
        for name, value in ARMS[arm].items():
            section, key = name.split(".")
            expected[section][key] = value
        expected["pruning"]["sparsity"] = sparsity
        found = asdict(job)
        for key in ("out", "reuse"):
            del expected[key], found[key]
        assert found == expected


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"arms": ["uncertainty", "best"]}, r"arms must be some of .*, not \['best'\]"),
        ({"arms": []}, "arms needs one or more different values"),
        ({"seeds": []}, "seeds needs one or more different values"),
        ({"sparsities": []}, "sparsities needs one or more different values"),
        (
            {"sparsities": [0.5, 1.0]},
            r"sparsities must be at least 0 and below 1, not \[0.5, 1.0\]",
        ),
        ({"workers": 0}, "workers must be at least 1"),
    ],
)
def test_wrong_settings(tmp_path, change, complaint):
    with pytest.raises(ConfigError, match=complaint):
        compare(settings(tmp_path / "out", **change))
    assert not (tmp_path / "out").exists()
