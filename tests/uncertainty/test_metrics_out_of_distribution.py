"""Telling samples that are unlike the training data: scores, ranking metrics and pictures."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from sklearn import metrics as sklearn_metrics

from egnn_prune.errors import ConfigError, InputError
from egnn_prune.prediction import ClassPrediction, Prediction
from egnn_prune.uncertainty.metrics import (
    OutOfDistributionAUPR,
    OutOfDistributionAUROC,
    OutOfDistributionFPR,
    ood_scores,
    out_of_distribution_scores,
)

METRICS = [OutOfDistributionAUROC, OutOfDistributionAUPR, OutOfDistributionFPR]
EVERY_METRIC = pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.__name__)


def mixed(n_in: int = 300, n_out: int = 200, dtype=torch.float64):
    scores = torch.cat([torch.randn(n_in), torch.randn(n_out) + 1.5]).to(dtype)
    return scores, torch.arange(n_in + n_out) >= n_in


# ---- scores of a prediction ----


def test_scores_of_a_regression():
    prediction = Prediction.from_members(
        torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([[1.0, 3.0], [1.0, 5.0]])
    )
    scores = ood_scores(prediction)
    assert scores["epistemic"].tolist() == [2, 0]
    assert scores["variance"].tolist() == [3, 4]
    assert list(scores) == ["epistemic", "variance"]


def test_scores_of_a_classification(dtype):
    # sure; undecided; members sure of different classes
    logits = torch.tensor(
        [[[9.0, 0.0], [0.0, 0.0], [9.0, 0.0]], [[9.0, 0.0], [0.0, 0.0], [0.0, 9.0]]], dtype=dtype
    )
    scores = ood_scores(ClassPrediction(logits))
    small = 1 / (1 + math.exp(9))
    entropy = -small * math.log(small) - (1 - small) * math.log(1 - small)
    two = math.log(2)
    for name, expected in {
        "max_probability": [small, 0.5, 0.5],
        "entropy": [entropy, two, two],
        "mutual_information": [0, 0, two - entropy],
        "energy": [-math.log(1 + math.exp(9)), -two, -math.log(1 + math.exp(9))],
    }.items():
        assert scores[name].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-15), name
    assert list(scores) == ["max_probability", "entropy", "mutual_information", "energy"]


def test_samples_that_are_almost_certain_stay_apart():
    logits = torch.tensor([[[50.0, 0.0], [60.0, 0.0]]])
    sure, surer = ood_scores(ClassPrediction(logits))["max_probability"]
    assert sure > surer > 0


# ---- by hand ----


def test_perfect_random_and_reversed_ranking(dtype):
    low, high = torch.arange(20, dtype=dtype), torch.arange(20, 40, dtype=dtype)
    assert out_of_distribution_scores(low, high) == {"auroc": 1, "aupr": 1, "fpr95": 0}
    worst = out_of_distribution_scores(high, low)
    assert (worst["auroc"], worst["fpr95"]) == (0, 1)
    tied = out_of_distribution_scores(0 * low, 0 * high[:5])
    assert tied == pytest.approx({"auroc": 0.5, "aupr": 5 / 25, "fpr95": 1})


def test_a_ranking_by_hand():
    # from the highest: out, in, out, in
    scores = out_of_distribution_scores(torch.tensor([3.0, 1.0]), torch.tensor([4.0, 2.0]))
    assert scores == pytest.approx({"auroc": 3 / 4, "aupr": (1 + 2 / 3) / 2, "fpr95": 1 / 2})


@pytest.mark.parametrize("n_out", [20, 100, 1000, 40_000])
def test_five_percent_of_the_ood_samples_may_be_missed_exactly(n_out, dtype):
    missed = n_out // 20
    out = torch.ones(n_out, dtype=dtype)
    out[:missed] = -1
    zeros = torch.zeros(10, dtype=dtype)
    assert out_of_distribution_scores(zeros, out)["fpr95"] == 0
    out[missed] = -1
    assert out_of_distribution_scores(zeros, out)["fpr95"] == 1


def test_two_gaussians_have_their_closed_forms(dtype):
    n = 40_000
    scores = out_of_distribution_scores(
        torch.randn(n, dtype=dtype), torch.randn(n, dtype=dtype) + 1.5
    )
    auroc = stats.norm.cdf(1.5 / math.sqrt(2))
    fpr = stats.norm.sf(1.5 + stats.norm.ppf(0.05))
    assert scores["auroc"] == pytest.approx(auroc, abs=4 / math.sqrt(12 * n))
    assert scores["fpr95"] == pytest.approx(fpr, abs=0.02)


def test_any_increasing_transformation_gives_the_same_numbers():
    scores, is_out = mixed()
    # ranks, evenly spaced: drawn numbers that are nearly equal may become equal, and that counts
    scores = 6 * scores.argsort().argsort().double() / len(scores) - 3
    before = out_of_distribution_scores(scores[~is_out], scores[is_out])
    # torchmetrics alone would squash these by a sigmoid, to 1 and 0 where they are large
    for moved in (1000 + scores, scores.exp(), 1e6 * scores, scores.float().double().atan()):
        assert out_of_distribution_scores(moved[~is_out], moved[is_out]) == before


def test_auroc_and_aupr_equal_scikit_learn(dtype):
    scores, is_out = mixed(dtype=dtype)
    scores = (4 * scores).round()  # ties
    ours = out_of_distribution_scores(scores[~is_out], scores[is_out])
    assert ours["auroc"] == pytest.approx(sklearn_metrics.roc_auc_score(is_out, scores), abs=1e-6)
    expected = sklearn_metrics.average_precision_score(is_out, scores)
    assert ours["aupr"] == pytest.approx(expected, abs=1e-6)


# ---- laws ----


@EVERY_METRIC
def test_order_and_batches_do_not_matter(metric, dtype):
    scores, is_out = mixed(dtype=dtype)
    scores = scores.round()
    whole, batched, shuffled = metric(), metric(), metric()
    whole.update(scores, is_out)
    for rows in (slice(0, 100), slice(100, 400), slice(400, None)):
        batched.update(scores[rows], is_out[rows])
    order = torch.randperm(len(scores))
    shuffled.update(scores[order], is_out[order])
    assert float(whole.compute()) == float(batched.compute()) == float(shuffled.compute())


@EVERY_METRIC
def test_processes_are_joined(metric):
    scores, is_out = mixed()
    other = iter([scores[is_out].double(), is_out[is_out].double()])
    joined = metric(
        dist_sync_fn=lambda x, group: [x, next(other)], distributed_available_fn=lambda: True
    )
    joined.update(scores[~is_out], is_out[~is_out])
    whole = metric()
    whole.update(scores, is_out)
    assert float(joined.compute()) == float(whole.compute())


# ---- what cannot be scored ----


@EVERY_METRIC
def test_bad_scores_are_refused(metric):
    scores, is_out = mixed()
    with pytest.raises(InputError, match="same shape"):
        metric().update(scores[:, None], is_out)
    with pytest.raises(InputError, match="must be bool"):
        metric().update(scores, is_out.long())
    for bad in (math.nan, math.inf):
        scores[7] = bad
        with pytest.raises(InputError, match=f"score of sample 7 is {bad}"):
            metric().update(scores, is_out)


@EVERY_METRIC
def test_both_kinds_are_needed(metric):
    alone = metric()
    alone.update(torch.randn(5), torch.ones(5, dtype=torch.bool))
    with pytest.raises(InputError, match="both kinds, not 0 in and 5 out"):
        alone.compute()
    with pytest.raises(InputError, match="both kinds, not 3 in and 0 out"):
        out_of_distribution_scores(torch.randn(3), torch.randn(0))
    with (
        pytest.warns(UserWarning, match="before the"),
        pytest.raises(InputError, match="no sample"),
    ):
        metric().compute()


def test_the_share_to_be_found_is_a_share():
    with pytest.raises(ConfigError, match=r"in \(0, 1\], not 95"):
        OutOfDistributionFPR(95)
