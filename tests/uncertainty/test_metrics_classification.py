"""Scores of class probabilities, by hand and on data drawn from known probabilities."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional.classification import multiclass_calibration_error

from egnn_prune.errors import ConfigError, InputError
from egnn_prune.prediction import ClassPrediction
from egnn_prune.uncertainty.metrics import (
    ECE,
    UCE,
    Brier,
    ClassNLL,
    EqualMassECE,
    ReliabilityDiagram,
    brier_terms,
    class_nll_terms,
    classification_scores,
)
from egnn_prune.uncertainty.metrics.binning import equal_mass_bins, equal_width_bins

METRICS = [ClassNLL, Brier, ECE, EqualMassECE, UCE]
EVERY_METRIC = pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.__name__)


def score(metric, probabilities, target) -> float:
    metric.update(probabilities, target)
    return float(metric.compute())


def drawn(n: int, dtype=torch.float64, classes: int = 4, temperature: float = 1.0):
    """Classes drawn from softmax(logits); what is predicted is sharper or flatter than that."""
    logits = 2 * torch.randn(n, classes, dtype=torch.float64)
    target = logits.softmax(1).multinomial(1)[:, 0]
    return (logits / temperature).softmax(1).to(dtype), target


def binary(confidence: list[float], right: list[int]):
    """Two classes; class 0 is predicted with the given confidence."""
    p = torch.tensor(confidence, dtype=torch.float64)
    return torch.stack([p, 1 - p], 1), 1 - torch.tensor(right)


# ---- by hand ----


def test_nll_and_brier_by_hand(dtype):
    p = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.9, 0.0]], dtype=dtype)
    target = torch.tensor([0, 1])
    assert score(ClassNLL(), p, target) == pytest.approx(-(math.log(0.5) + math.log(0.9)) / 2)
    brier = (0.25 + 2 * 0.0625 + 2 * 0.01) / 2
    assert score(Brier(), p, target) == pytest.approx(brier, rel=1e-6)
    assert score(Brier(), p[1:], target[:1]) == pytest.approx(0.81 + 0.81, rel=1e-6)


def test_ece_by_hand():
    data = binary([0.55, 0.58, 0.95, 0.97], [1, 0, 1, 1])
    # bins [.5, .6): accuracy .5 and confidence .565; [.9, 1]: accuracy 1 and confidence .96
    assert score(ECE(10), *data) == pytest.approx((0.065 + 0.04) / 2)
    assert score(ECE(1), *data) == pytest.approx(0.7625 - 0.75)
    assert score(EqualMassECE(2), *data) == pytest.approx((0.065 + 0.04) / 2)
    assert score(EqualMassECE(100), *data) == pytest.approx((0.45 + 0.58 + 0.05 + 0.03) / 4)


def test_bins_by_hand(dtype):
    values = torch.tensor([0.0, 0.25, 0.3, 0.5, 0.99, 1.0], dtype=dtype)
    assert equal_width_bins(values, 4).tolist() == [0, 1, 1, 2, 3, 3]
    assert equal_mass_bins(values.flip(0), 3).tolist() == [2, 2, 1, 1, 0, 0]
    assert equal_mass_bins(values.round(), 3).tolist() == [0, 0, 0, 0, 2, 2]


def test_confidence_one_is_in_the_last_bin():
    data = binary([1.0, 1.0, 0.97, 0.97], [0, 0, 1, 1])
    assert score(ECE(10), *data) == pytest.approx(0.985 - 0.5)
    # torchmetrics gives confidence 1 a bin of its own; the day it does not, use it
    theirs = multiclass_calibration_error(*data, num_classes=2, n_bins=10)
    assert float(theirs) == pytest.approx((1 + 0.03) / 2)


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_ece_agrees_with_torchmetrics_where_no_confidence_is_one(bins, dtype):
    data = drawn(500, dtype, temperature=0.5)
    theirs = multiclass_calibration_error(*data, num_classes=4, n_bins=bins)
    assert score(ECE(bins), *data) == pytest.approx(float(theirs), rel=1e-5)


def test_uce_by_hand():
    p = torch.tensor([[0.5, 0.5], [1.0, 0.0], [1.0, 0.0]])
    # normalised entropies 1, 0, 0; errors 1, 0, 1
    assert score(UCE(), p, torch.tensor([1, 0, 1])) == pytest.approx((0 + 2 * 0.5) / 3)


def test_brier_and_nll_equal_scikit_learn():
    p, target = drawn(300)
    assert score(ClassNLL(), p, target) == pytest.approx(sklearn_metrics.log_loss(target, p))
    one_hot = torch.eye(4)[target]
    expected = sum(
        sklearn_metrics.brier_score_loss(one_hot[:, c], p[:, c], pos_label=1) for c in range(4)
    )
    assert score(Brier(), p, target) == pytest.approx(expected)


# ---- on known probabilities ----


def test_true_probabilities_are_calibrated(dtype):
    n = 40_000
    for metric in (ECE, EqualMassECE):
        # mean of |N(0, a(1 - a)/n_b)| over equal bins; a(1 - a) is at most 1/4
        noise = math.sqrt(2 / math.pi) * 0.5 / math.sqrt(n / 15)
        assert score(metric(), *drawn(n, dtype)) < 1.5 * noise
        assert score(metric(), *drawn(n, dtype, temperature=0.5)) > 5 * noise


def test_overconfidence_is_measured():
    n = 40_000
    target = (torch.rand(n) < 0.3).long()  # class 0 in 70 %
    p = torch.tensor([0.9, 0.1]).expand(n, 2)
    for metric in (ECE, EqualMassECE):
        assert score(metric(), p, target) == pytest.approx(0.2, abs=4 * math.sqrt(0.21 / n))
    entropy = -(0.9 * math.log2(0.9) + 0.1 * math.log2(0.1))
    assert score(UCE(), p, target) == pytest.approx(entropy - 0.3, abs=4 * math.sqrt(0.21 / n))
    expected = -(0.7 * math.log(0.9) + 0.3 * math.log(0.1))
    assert score(ClassNLL(), p, target) == pytest.approx(expected, abs=0.03)


def test_the_diagram_returns_its_bins():
    diagram = ReliabilityDiagram(10)
    diagram.update(*binary([0.55, 0.58, 0.95, 0.97], [1, 0, 1, 1]))
    bins = diagram.compute()
    assert bins["count"].tolist() == [2, 2]
    assert bins["predicted"].tolist() == pytest.approx([0.565, 0.96])
    assert bins["observed"].tolist() == [0.5, 1]


# ---- laws ----


@EVERY_METRIC
def test_order_and_batches_do_not_matter(metric, dtype):
    p, target = drawn(200, dtype)
    p[:60] = p[0].clone()  # ties
    expected = score(metric(), p, target)
    order = torch.randperm(200)
    assert score(metric(), p[order], target[order]) == pytest.approx(expected, rel=1e-12)
    batched = metric()
    for rows in (slice(0, 1), slice(1, 150), slice(150, None)):
        batched.update(p[rows], target[rows])
    assert float(batched.compute()) == pytest.approx(expected, rel=1e-12)


@EVERY_METRIC
def test_processes_are_joined(metric):
    mine, other = drawn(40), drawn(50, temperature=0.3)
    theirs = metric()
    theirs.update(*other)
    columns = iter(theirs.kept())
    joined = metric(
        dist_sync_fn=lambda x, group: [x, next(columns)], distributed_available_fn=lambda: True
    )
    joined.update(*mine)
    both = [torch.cat(pair) for pair in zip(mine, other, strict=True)]
    assert float(joined.compute()) == pytest.approx(score(metric(), *both), rel=1e-12)


@EVERY_METRIC
def test_a_class_prediction_is_its_mean_probabilities(metric, dtype):
    prediction = ClassPrediction(torch.randn(5, 60, 3, dtype=dtype))
    target = torch.randint(3, (60,))
    expected = score(metric(), prediction.probabilities, target)
    assert score(metric(), prediction, target) == pytest.approx(expected, rel=1e-5)


def test_logits_do_not_underflow(dtype):
    prediction = ClassPrediction(torch.tensor([[[0.0, 2000.0]]], dtype=dtype))
    assert class_nll_terms(prediction, torch.tensor([0])).tolist() == [2000]
    assert math.isfinite(classification_scores(prediction, torch.tensor([0]))["nll"])


def test_the_dictionary_says_what_the_classes_say():
    data = drawn(100)
    scores = classification_scores(*data)
    assert list(scores) == ["accuracy", "nll", "brier", "ece", "ece_equal_mass", "uce"]
    assert scores["brier"] == pytest.approx(float(brier_terms(*data).mean()))
    assert scores["ece_equal_mass"] == score(EqualMassECE(), *data)
    right = (data[0].argmax(1) == data[1]).double()
    assert scores["accuracy"] == pytest.approx(float(right.mean()))


# ---- what cannot be scored ----


@EVERY_METRIC
@pytest.mark.parametrize("bad", [math.nan, -0.1, 3.0])
def test_probabilities_must_be_probabilities(metric, bad):
    p, target = drawn(20)
    p[7, 0] = bad
    with pytest.raises(InputError, match="probabilities of sample 7 are not all"):
        metric().update(p, target)


@EVERY_METRIC
def test_shapes_and_classes_are_checked(metric):
    p, target = drawn(20)
    with pytest.raises(InputError, match=r"\[samples, classes\] and \[samples\]"):
        metric().update(p, target[:, None])
    with pytest.raises(InputError, match=r"\[samples, classes\]"):
        metric().update(p[:, 0], target)
    with pytest.raises(InputError, match="integers from 0 to 3"):
        metric().update(p, target + 1 + (target == 3).long())
    with pytest.raises(InputError, match="integers from 0 to 3"):
        metric().update(p, target.double())
    with pytest.raises(InputError, match="at least 1 sample"):
        metric().update(p[:0], target[:0])
    with (
        pytest.warns(UserWarning, match="before the"),
        pytest.raises(InputError, match="no sample"),
    ):
        metric().compute()


def test_an_impossible_truth_has_no_likelihood():
    with pytest.raises(InputError, match="true class of sample 1 has probability 0"):
        class_nll_terms(*binary([0.5, 1.0], [1, 0]))


def test_there_is_a_bin():
    with pytest.raises(ConfigError, match="at least one bin"):
        score(ECE(0), *drawn(5))
