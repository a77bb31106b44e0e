"""Scores of NumPy arrays, lists and pandas columns are those of tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from egnn_prune.errors import InputError
from egnn_prune.prediction import Prediction
from egnn_prune.uncertainty import metrics
from egnn_prune.uncertainty.calibration import RobustScaling
from egnn_prune.uncertainty.metrics import (
    classification_scores,
    nll,
    out_of_distribution_scores,
    regression_scores,
)

KINDS = ("NumPy", "backwards", "read-only", "list")
SCORES = ("nll", "crps", "sharpness", "ence", "spearman", "ause", "rms_calibration")
SCORES += ("miscalibration_area", "nll_terms", "crps_terms")


def mask_of(values: Tensor, kind: str) -> object:
    """The same numbers as other libraries hold them."""
    array = values.numpy().copy()
    if kind == "backwards":
        return array[::-1].copy()[::-1]
    array.flags.writeable = kind != "read-only"
    return array.tolist() if kind == "list" else array


@pytest.fixture
def data(dtype) -> tuple[Tensor, Tensor, Tensor]:
    mean, target = torch.randn(2, 60, dtype=dtype)
    return mean, 0.1 + torch.rand(60, dtype=dtype), target


@pytest.mark.parametrize("kind", KINDS)
def test_regression(data, kind):
    given, expected = [mask_of(values, kind) for values in data], regression_scores(*data)
    assert regression_scores(*given) == expected
    assert regression_scores(given[0], data[1], given[2]) == expected
    for name in SCORES:
        score = getattr(metrics, name)
        torch.testing.assert_close(score(*given), score(*data), check_dtype=False)
    for metric in (metrics.GaussianNLL, metrics.ENCE, metrics.AUSE, metrics.IntervalCoverage):
        assert torch.equal(metric()(*given), metric()(*data))


@pytest.mark.parametrize("kind", KINDS)
def test_classes_and_out_of_distribution(dtype, kind):
    probabilities, classes = torch.randn(40, 3, dtype=dtype).softmax(1), torch.arange(40) % 3
    expected = classification_scores(probabilities, classes)
    assert classification_scores(mask_of(probabilities, kind), mask_of(classes, kind)) == expected
    inside, outside = torch.rand(2, 30, dtype=dtype)
    expected = out_of_distribution_scores(inside, outside)
    assert out_of_distribution_scores(mask_of(inside, kind), mask_of(outside, kind)) == expected
    is_out = torch.arange(30) > 20
    metric = metrics.OutOfDistributionAUROC
    assert metric()(mask_of(inside, kind), mask_of(is_out, kind)) == metric()(inside, is_out)


@pytest.mark.parametrize("kind", KINDS)
def test_targets_of_a_calibration(data, kind):
    mean, variance, target = data
    prediction = Prediction.from_members(mean[None], variance[None])
    expected = RobustScaling().fit(prediction, target).factor
    assert torch.equal(RobustScaling().fit(prediction, mask_of(target, kind)).factor, expected)


@pytest.mark.parametrize(
    "wrong",
    [["a", "b"], None, {"x": 1}, [[1.0], [1.0, 2.0]], np.array(["1.0", "x"]), "12"],
    ids=["words", "None", "dict", "ragged", "strings", "text"],
)
def test_what_is_no_number_is_named(wrong):
    with pytest.raises(InputError, match="variances must be a tensor, a NumPy array") as caught:
        nll([1.0, 2.0], wrong, [1.0, 2.0])
    assert "\n" not in str(caught.value)
