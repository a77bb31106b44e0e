"""The study's questions on a tiny teacher: what is drawn, trained, chosen and compared."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from scipy.stats import spearmanr
from tiny_teacher import structures as tiny_structures
from tiny_teacher import tiny_teacher

from egnn_prune.ase.structures import graph_of
from egnn_prune.configs.questions_study import QuestionsStudySettings
from egnn_prune.errors import ConfigError
from egnn_prune.evaluation import pool as choosing
from egnn_prune.evaluation.potential_errors import potential_errors
from egnn_prune.studies import specialisation
from egnn_prune.studies.questions import (
    atom_damage,
    budgets,
    forgetting,
    freezing,
    scratch,
    uncertainty,
)
from egnn_prune.studies.questions import networks as building
from egnn_prune.studies.questions import structures as drawing
from egnn_prune.studies.questions.context import Asked
from egnn_prune.studies.questions.error_bars import ErrorBars
from egnn_prune.studies.questions.forms import FORMS
from egnn_prune.studies.questions.study import QUESTIONS, run_questions
from egnn_prune.studies.what_to_label_pools import place

TINY = replace(
    FORMS["quick"],
    train=12,
    val=12,
    test=6,
    steps=3,
    sizes=(12, 6),
    lengths=(2, 4),
    rates=(1e-3, 1e-2),
    budgets=(0.99,),
    shares=(0.5, 0.75),
    few=(6, 12),
    dynamics=8,
    pool=8,
    chosen=3,
    rare=(0.5,),
)


def labelled(count: int, seed: int) -> list:
    graphs = [graph_of(atoms) for atoms in tiny_structures(count, seed)]
    generator = torch.Generator().manual_seed(seed)
    for graph in graphs:
        graph.y = torch.randn(1, generator=generator, dtype=torch.float64)
        graph.forces = torch.randn(graph.pos.shape, generator=generator, dtype=torch.float64)
    return graphs


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(FORMS, "quick", TINY)
    monkeypatch.setattr(specialisation, "load", lambda name: tiny_teacher())
    pool, held_out, hots = labelled(40, 0), labelled(12, 1), labelled(30, 2)
    monkeypatch.setattr(drawing, "_parts", lambda name: (pool, held_out))
    for module in (forgetting, uncertainty):
        monkeypatch.setattr(module, "hot", lambda name: hots)


def asked(question: str, folder, seed: int = 0) -> Asked:
    return Asked(question, "quick", folder, seed, 0)


def test_more_structures_contain_fewer_and_validation_stays():
    few, many = (drawing.structures(TINY, "shaken", 3, n) for n in (6, 20))
    assert [place(g) for g in many.train[:6]] == [place(g) for g in few.train]
    assert [place(g) for g in many.val] == [place(g) for g in few.val]
    other = drawing.structures(TINY, "shaken", 4, 6)
    assert [place(g) for g in other.test] == [place(g) for g in few.test]
    assert [place(g) for g in other.train] != [place(g) for g in few.train]


def test_no_structure_is_in_two_parts():
    found = drawing.structures(TINY, "shaken", 0, 20)
    parts = [{place(g) for g in part} for part in (found.train, found.val, found.test)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 20 + TINY.val + TINY.test


def test_too_many_structures_are_refused_with_the_number_there_is():
    with pytest.raises(ConfigError, match=r"shaken has 40 structures .* not 52"):
        drawing.structures(TINY, "shaken", 0, 40)


def test_networks_of_other_sizes_do_not_share_a_file(tmp_path):
    one = asked("freezing", tmp_path)
    few, many = (one.networks(train=n).network("full") for n in (6, 12))
    names = sorted(path.name for path in (tmp_path / "networks" / "quick").iterdir())
    assert names == ["shaken12-full-3x0.001-0.safetensors", "shaken6-full-3x0.001-0.safetensors"]
    weights = [torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (few, many)]
    assert not torch.equal(*weights)


def test_every_kind_of_network_has_its_steps_and_rate(tmp_path, monkeypatch):
    """Those that validation chose for each in the full form; the page says which."""
    form = replace(TINY, full_rate=1e-4, small_rate=2e-4, scratch_rate=3e-4)
    monkeypatch.setitem(FORMS, "quick", form)
    asked_for = {}

    def fit(model, found, steps, rate, seed, text):
        asked_for[text.split()[1]] = (steps, rate, seed)

    monkeypatch.setattr(building, "fitted", fit)
    networks = asked("forgetting", tmp_path).networks()
    names = ("full", "small@0.75", "distilled@0.75", "scratch@0.75", "longer@0.75", "member2@0.75")
    for name in names:
        networks.network(name)
    assert list(asked_for.values()) == [
        *((3, 1e-4, 0), (3, 2e-4, 0), (3, 2e-4, 0)),
        *((3, 3e-4, 0), (9, 3e-4, 0), (3, 2e-4, 2000)),
    ]
    full = FORMS["full"]
    assert (full.full_rate, full.small_rate, full.scratch_rate) == (1e-2, 1e-2, 3e-2)


def test_only_the_first_seed_and_size_try_rates(tmp_path):
    first, second = (scratch.cells(asked("scratch", tmp_path, seed)) for seed in (0, 1))
    assert {c["rate"] for c in first if c["size"] == 12} == {1e-3, 1e-2}
    assert {c["rate"] for c in first if c["size"] == 6} == {0.0} == {c["rate"] for c in second}


def test_the_rate_is_chosen_on_validation_for_each_arm_and_length(tmp_path):
    one = asked("scratch", tmp_path)
    rows = one.rows()
    for arm, best in (("inherited", 1e-3), ("scratch", 1e-2)):
        for steps in (2, 4):
            for rate in TINY.rates:
                good = (rate == best) == (steps == 2)  # the other one for longer fits
                row = {"size": 12, "steps": steps, "arm": arm, "rate": rate}
                rows.add({**row, "val": 1.0 if good else 2.0, "force_rmse": 2.0 if good else 1.0})
    assert scratch.chosen(one, 2, "inherited") == 1e-3
    assert scratch.chosen(one, 4, "inherited") == 1e-2
    assert scratch.chosen(asked("scratch", tmp_path, 1), 2, "scratch") == 1e-2


def test_a_seed_whose_rates_are_not_chosen_says_which_one_chooses(tmp_path):
    with pytest.raises(ConfigError, match=r"chosen by seed 0.* run seeds=\[0\] first"):
        scratch.chosen(asked("scratch", tmp_path, 1), 2, "inherited")


def test_arms_begin_as_they_are_called(tmp_path):
    networks = asked("scratch", tmp_path).networks(train=12)
    inherited, fresh, full = (
        scratch._begun(asked("scratch", tmp_path), 12, arm)
        for arm in ("inherited", "scratch", "full")
    )
    shapes = [[p.shape for p in model.parameters()] for model in (inherited, fresh, full)]
    assert shapes[0] == shapes[1] != shapes[2]
    mine, drawn = (dict(model.named_parameters()) for model in (inherited, fresh))
    weights = [name for name, p in mine.items() if p.numel() > 1 and "basis" not in name]
    assert not any(torch.equal(mine[n], drawn[n]) for n in weights if mine[n].std() > 0)
    assert torch.allclose(fresh.atom_scale, torch.tensor(networks.force_size).float())


@pytest.mark.parametrize("frozen", freezing.ARMS)
def test_what_is_frozen_does_not_move_and_the_rest_does(tmp_path, monkeypatch, frozen):
    seen = {}
    fit = freezing.fitted

    def watched(model, *rest):
        seen["before"] = {n: p.detach().clone() for n, p in model.named_parameters()}
        row = fit(model, *rest[:1], 3, 1e-2, *rest[3:])
        seen["after"] = dict(model.named_parameters())
        return row

    # each validation finds the network better, so the weights of the last step are kept
    better = ({"val_force_rmse": 100.0 - k, "val_energy_mae": 1.0} for k in range(100))
    monkeypatch.setattr("egnn_prune.training.potential_task.errors_of", lambda _: next(better))
    monkeypatch.setattr(freezing, "fitted", watched)
    freezing.find(asked("freezing", tmp_path), 12, frozen)
    moved = {n: (seen["before"][n] != p).float().mean().item() for n, p in seen["after"].items()}
    layers = [share for name, share in moved.items() if ".layers." in name]
    readout = [share for name, share in moved.items() if "readout" in name]
    embedding = [share for name, share in moved.items() if ".embedding" in name]
    assert max(readout) > 0
    if frozen in ("message passing", "all but the read-out"):
        assert max(layers) == 0
        assert (max(embedding) > 0) == (frozen == "message passing")
    elif frozen == "nothing":
        assert max(layers) > 0 and max(embedding) > 0
    else:
        assert 0 < sum(layers) < len(layers)


def test_the_pool_to_fine_tune_on_has_what_no_network_saw_and_no_test_structure(tmp_path):
    one = asked("uncertainty", tmp_path)
    networks = one.networks()
    pool, test, hots = uncertainty.mixture(one, networks, 0.5)
    assert len(pool) == TINY.pool and len(hots) == TINY.pool // 2
    assert len(test) == TINY.test
    known = {place(g) for g in networks.found.train + networks.found.val}
    drawn = {place(g) for g in pool}
    assert len(drawn) == TINY.pool and not drawn & known
    assert not drawn & {place(g) for g in test}
    hot_tested = {place(g) for g in uncertainty.hots_for_test(one, networks)}
    assert len(hot_tested & {place(g) for g in test}) == TINY.test // 2


def test_what_is_chosen_to_fine_tune_on(tmp_path, monkeypatch):
    """By loss the largest errors of the full network; the control takes what nobody else would."""
    one = asked("uncertainty", tmp_path)
    learned = {}

    def fit(model, found, *rest, **how):
        learned["train"] = found.train
        return {}

    monkeypatch.setattr(uncertainty, "fitted", fit)
    uncertainty.tuned(one, one.networks(), 0.5, "loss")
    pool, *_ = uncertainty.mixture(one, one.networks(), 0.5)
    errors = forgetting.structure_errors(one.networks().network("full"), pool)
    worst = {place(pool[i]) for i in errors.topk(TINY.chosen).indices}
    assert {place(g) for g in learned["train"]} == worst

    def score(graph) -> float:
        return float(graph.pos[0, 0])

    def scores(_, graphs, **how):
        return torch.tensor([score(g) for g in graphs]), torch.ones(len(graphs), 2)

    monkeypatch.setattr(uncertainty, "structure_scores", scores)
    monkeypatch.setattr(choosing, "structure_scores", scores)
    ordered = sorted(map(score, pool))
    for choice, wanted in (
        ("uncertain", ordered[-TINY.chosen :]),
        (uncertainty.CONTROL, ordered[: TINY.chosen]),
    ):
        uncertainty.tuned(one, one.networks(), 0.5, choice)
        assert sorted(map(score, learned["train"])) == wanted


def test_asking_for_the_best_tenth_removes_what_it_has():
    wrong = torch.arange(20.0, dtype=torch.float64)
    assert uncertainty.removed(wrong, wrong) == pytest.approx((19 + 18) / 190)
    assert uncertainty.removed(wrong, -wrong) == pytest.approx(1 / 190)
    assert uncertainty.removed(wrong, wrong, wrong / 4) == pytest.approx(0.75 * (19 + 18) / 190)


def test_who_answers_and_how_rare_hot_frames_are_count_when_asking(tmp_path, monkeypatch):
    networks = asked("uncertainty", tmp_path).networks()
    model, full = networks.network("small@0.75"), networks.network("full")
    errors = {id(model): 2.0, id(full): 1.0}
    cold = len(networks.found.test)

    def wrong(network, graphs):
        """Hot frames, which come last, are three times as wrong."""
        factors = torch.tensor([1.0] * cold + [3.0] * (len(graphs) - cold))
        return errors[id(network)] * factors.double()

    monkeypatch.setattr(uncertainty, "structure_errors", wrong)
    monkeypatch.setattr(uncertainty, "PRIMARY_SHARE", 0.25)
    row = uncertainty.asking(networks)
    hots = 9 * cold  # squares
    assert row["best"] == pytest.approx(9 / (cold + hots))  # a tenth of twelve is one
    assert row["hot_first"] == pytest.approx(1 / cold * hots / (cold + hots))
    assert row["all_full"] == pytest.approx(0.75)
    assert row["full"] == pytest.approx(0.75 * row["error_bar"])
    assert row["few_hot"]["best"] == pytest.approx(9 / (cold + 2 * 9))
    assert row["few_hot"]["random"] == row["random"] == 0.1
    monkeypatch.setattr(uncertainty, "ASKED_FOR", 0.5)  # more than there are hot ones
    few = uncertainty.asking(networks)["few_hot"]
    assert few["hot_first"] == pytest.approx((2 * 9 + 2) / (cold + 2 * 9)) == few["best"]


def test_the_worst_tenth_of_equal_values_has_a_tenth():
    assert forgetting.worst_tenth(torch.ones(30, dtype=torch.float64)) == pytest.approx(0.1)


def test_damage_is_the_growth_of_the_error_and_its_tail_a_share_of_that(tmp_path):
    networks = asked("forgetting", tmp_path).networks()
    full, small = networks.network("full"), networks.network("small@0.75")
    row = forgetting.damage(full, small, networks)
    test = networks.found.test + forgetting.hot("shaken")[: len(networks.found.test)]
    was, now = (forgetting.structure_errors(model, test) for model in (full, small))
    assert row["damage"] == pytest.approx((1000 * (now - was)).tolist(), abs=0.01)
    assert row["tail"] == pytest.approx(float((now - was).max() / (now - was).sum()))
    assert row["tail_of_full"] == pytest.approx(float(was.max() / was.sum()))


def test_damage_of_atoms_is_told_by_element_and_bonds(tmp_path):
    networks = asked("forgetting", tmp_path).networks()
    full, small = networks.network("full"), networks.network("small@0.75")
    test = forgetting.cold_and_hot(networks)
    counts = atom_damage.bonds(test)
    z = torch.cat([graph.z for graph in test])
    # of water and of methanol
    assert set(counts[z == 1].tolist()) == {1} and set(counts[z == 6].tolist()) == {4}
    assert set(counts[z == 8].tolist()) == {2}
    row = atom_damage.atom_damage(full, small, networks, test)
    assert row["bonds"].keys() == {"H 1", "C 4", "O 2"} and row["within"].keys() == {"H", "C", "O"}
    assert sum(count for *_, count in row["bonds"].values()) == len(z)
    was, now = (
        torch.from_numpy(potential_errors(model, test)[1]["forces"])
        - torch.cat([graph.forces for graph in test])
        for model in (full, small)
    )
    found = [1000 * float(wrong[z == 6].square().mean().sqrt()) for wrong in (was, now)]
    assert row["bonds"]["C 4"] == [*map(pytest.approx, found), int((z == 6).sum())]
    worse = now.norm(dim=1) - was.norm(dim=1)  # signed: without damage nothing goes with anything
    bars = ErrorBars.fitted(networks, [small], "last_layer")
    seen = bars.look(test)
    for key, score in (
        ("error_bar", bars.laws.forces_std(seen)),
        ("distance", bars.laws.distance(seen)),
    ):
        assert row[key] == pytest.approx(spearmanr(score.numpy(), worse.numpy()).statistic)


def test_budgets_are_met_by_the_largest_network_that_is_fast_enough(tmp_path):
    one = asked("budgets", tmp_path)
    shares = [1 - 0.05 * k for k in range(len(budgets.LADDER))]
    one.rows().add({"part": "ladder", "score": "force", "shares": shares})
    assert budgets.size_within(one, "force", 0.9) == (budgets.LADDER[2], shares[2])
    assert budgets.size_within(one, "force", 0.01) == (budgets.LADDER[-1], shares[-1])


def test_cells_of_primary_comparisons_come_first(tmp_path):
    """So that what was cut short has answers; none is lost, and none there twice."""
    choices = uncertainty.cells(Asked("uncertainty", "full", tmp_path, 1, 0))
    assert len(choices) == 3 * 4 + 1 + 2 + 1 + 2 * (1 + 4 * 4)
    assert all(choices.count(cell) == 1 for cell in choices)
    parts = [(cell["part"], cell.get("rare")) for cell in choices]
    assert set(parts[:16]) == {("tune", 0.05), ("ask", None), ("label", 0.0), ("label", 0.05)}
    assert not set(parts[16:]) & set(parts[:16])
    for kind in ("hot", "bond"):  # what is learned further is there before
        places = [k for k, cell in enumerate(choices) if cell.get("kind") == kind]
        assert choices[places[0]]["rare"] == 0
    arms = [cell["arm"] for cell in scratch.cells(Asked("scratch", "full", tmp_path, 1, 0))]
    assert arms == 9 * ["inherited"] + 9 * ["scratch"] + 9 * ["other"] + 9 * ["full"]


def test_compiled_networks_take_turns_with_those_they_were_made_of(tmp_path, monkeypatch):
    one = asked("budgets", tmp_path)
    one.rows().add({"part": "ladder", "score": "force", "shares": [0.6] * len(budgets.LADDER)})
    made, turns = [], []

    def compiled(model, dynamic):
        made.append(copy.copy(model))
        return made[-1]

    def by_turns(runs, *_):
        turns.append(list(runs))
        models = [run.args[0] for run in runs.values()]
        assert models[-len(made) :] == made and not set(models[: -len(made)]) & set(made)
        return {name: float(number) for number, name in enumerate(runs)}

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(budgets, "alternating_medians", by_turns)
    row = budgets.find(one, "compiled", "force")
    names = ["teacher", "0.99"]
    assert turns == [[*names, *(f"{name} compiled" for name in names)]]
    assert row == {
        "eager_ms": dict(zip(names, (0.0, 1.0), strict=True)),
        "compiled_ms": dict(zip(names, (2.0, 3.0), strict=True)),
    }


def test_old_laws_on_another_network_keep_their_factor_and_measure_new_distances(tmp_path):
    networks = asked("calibration", tmp_path).networks()
    full, small = networks.network("full"), networks.network("small@0.5")
    before = ErrorBars.fitted(networks, [full], "last_layer")
    moved = before.of(networks, small)
    again = ErrorBars.fitted(networks, [small], "last_layer")
    laws = [b.laws.atoms for b in (before, moved, again)]
    assert torch.equal(laws[0].quantiles, laws[1].quantiles)
    assert not torch.equal(laws[1].quantiles, laws[2].quantiles)
    assert torch.equal(laws[1].distance.centre, laws[2].distance.centre)


def test_error_bars_are_judged_by_squares_of_error_over_deviation(tmp_path):
    networks = asked("calibration", tmp_path).networks()
    model, test = networks.network("full"), networks.found.test
    bars = ErrorBars.fitted(networks, [model], "last_layer")
    row = bars.judged(test)
    forces = torch.from_numpy(potential_errors(model, test)[1]["forces"])
    wrong = forces - torch.cat([graph.forces for graph in test])
    std = bars.laws.forces_std(bars.look(test))
    assert row["m"] == pytest.approx(float((wrong / std[:, None]).square().mean()), rel=1e-4)
    assert row["log_std"] == pytest.approx(float(std.log().mean()))
    assert row["force_rmse"] == pytest.approx(1000 * float(wrong.square().mean().sqrt()), rel=1e-4)


@pytest.mark.slow
def test_every_question_is_answered_from_rows_that_a_second_call_reads(tmp_path, capsys):
    names = ["scratch", "calibration", "forgetting", "uncertainty", "freezing"]
    settings = QuestionsStudySettings(out=str(tmp_path), asked=names, seeds=[0, 1])
    run_questions(settings)
    first = capsys.readouterr().out
    for title in ("1. Pretrained", "3. Does pruning", "4. What", "5. When", "6. Does freezing"):
        assert f"## {title}" in first
    assert "not run" not in first
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*-quick-seed*.json")}
    assert len(files) == 2 * len(names)
    run_questions(settings)
    assert capsys.readouterr().out == first
    assert files == {path: path.stat().st_mtime_ns for path in files}


def test_the_settings_name_every_question():
    assert list(QUESTIONS) == QuestionsStudySettings().asked


def test_a_form_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="form must be one of quick, full"):
        run_questions(QuestionsStudySettings(out=str(tmp_path), form="quik"))
