"""A sweep: every cell once, exact counts, resumable; and the sanity checks' arms."""

from __future__ import annotations

import json

import pytest
import torch

from egnn_prune import compact, prune
from egnn_prune.api.sparsity_sweep import sparsity_sweep
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import effective_sparsity, keep_masks, snapshot
from egnn_prune.pruning.tensors import get_tensor
from egnn_prune.studies.sanity_checks import ARMS, arm_model


@pytest.fixture
def setting(make_property_model, make_batch):
    model, data = make_property_model(), [make_batch(5, 7, seed=s) for s in range(3)]
    calls: list[int] = []

    def evaluate(m) -> dict[str, float]:
        calls.append(sum(p.numel() for p in m.parameters()))
        with torch.no_grad():
            return {"test_mae": float((m(data[0]).mean - data[0].y).abs().mean())}

    return model, data, evaluate, calls


SMALL = {"criteria": ["taylor", "magnitude"], "sparsities": [0.3, 0.6], "steps": 2, "device": "cpu"}


def test_one_call_gives_every_cell(setting):
    model, data, evaluate, calls = setting
    before = {k: v.clone() for k, v in model.state_dict().items()}
    rows = sparsity_sweep(model, data, evaluate, **SMALL)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    cells = [(r["criterion"], r["sparsity"]) for r in rows]
    assert cells == [("dense", 0.0)] + [(c, s) for s in (0.3, 0.6) for c in SMALL["criteria"]]
    total = sum(g.n for g in model.channel_groups())
    for row in rows:
        assert row["effective_sparsity"] == pytest.approx(int(row["sparsity"] * total) / total)
        assert row["latency_ms"] > 0 and row["latency_share"] > 0 and row["peak_memory"] > 0
    dense, heavy = rows[0], rows[-1]
    assert dense["macs_share"] == 1 and dense["params"] == sum(
        p.numel() for p in model.parameters()
    )
    for key in ("params", "macs", "macs_share", "peak_memory"):
        assert heavy[key] < dense[key]
    # fine-tuning moves the error, and it is the compact model that is evaluated
    assert dense["test_mae"] != dense["before_test_mae"]
    assert calls == [r["params"] for r in rows for _ in ("before", "after")]
    with torch.no_grad():
        for row in rows[1:]:
            pruned = compact(prune(model, row["criterion"], row["sparsity"], data=data, seed=0))
            error = float((pruned(data[0]).mean - data[0].y).abs().mean())
            assert row["before_test_mae"] == pytest.approx(error, rel=1e-5)


def test_an_interrupted_sweep_goes_on(setting, tmp_path):
    model, data, evaluate, calls = setting
    save = tmp_path / "sweep.json"
    rows = sparsity_sweep(model, data, evaluate, save=save, **SMALL)
    content = json.loads(save.read_text())
    content["rows"] = content["rows"][:3]
    save.write_text(json.dumps(content))
    calls.clear()
    again = sparsity_sweep(model, data, evaluate, save=save, **SMALL)
    assert len(calls) == 2 * 2  # before and after, for the two cells that were missing
    for a, b in zip(rows, again, strict=True):
        times = {"latency_ms", "latency_share"}
        assert {k: a[k] for k in a if k not in times} == {k: b[k] for k in a if k not in times}
    with pytest.raises(ConfigError, match="choose another file"):
        sparsity_sweep(model, data, evaluate, save=save, **{**SMALL, "steps": 3})


def test_a_sweep_without_data(setting):
    model, _, evaluate, _ = setting
    with pytest.raises(ConfigError, match="at least one batch"):
        sparsity_sweep(model, [], evaluate, **SMALL)


@pytest.mark.parametrize("arm", ARMS)
def test_arms_of_the_sanity_checks(make_property_model, make_batch, arm):
    dense = make_property_model()
    start = snapshot(make_property_model())
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.add_(0.1)
    pruned = prune(dense, "magnitude", 0.5)
    model = arm_model(arm, dense, pruned, start, seed=0)
    batch, name = make_batch(6), "trunk.layers.0.edge_out.weight"
    assert model(batch).mean.isfinite().all()
    if arm == "scratch":
        assert effective_sparsity(model) == 0
        assert sum(g.n for g in model.channel_groups()) == sum(
            int(m.sum()) for m in keep_masks(pruned).values()
        )
        return
    assert effective_sparsity(model) == effective_sparsity(pruned)
    same_masks = all(torch.equal(v, keep_masks(model)[k]) for k, v in keep_masks(pruned).items())
    assert same_masks == (not arm.startswith("shuffled"))
    weight = get_tensor(model, name)
    alive = weight != 0
    trained = torch.equal(weight[alive], get_tensor(dense, name)[alive])
    initial = torch.equal(weight[alive], start[name][alive])
    assert trained == (arm in ("keep", "shuffled"))
    assert initial == arm.endswith("rewound")
