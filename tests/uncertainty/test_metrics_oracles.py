"""Our scores against other people's code: netcal, pytorch-ood and uncertainty-toolbox.

They are no dependency of the package; `pip install 'egnn_prune[oracles]'` brings them.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from egnn_prune.prediction import ClassPrediction
from egnn_prune.uncertainty.metrics import (
    ECE,
    EqualMassECE,
    crps,
    ence,
    interval_coverage,
    miscalibration_area,
    nll,
    ood_scores,
    out_of_distribution_scores,
    rms_calibration,
    sharpness,
)

REASON = "needs the extra 'oracles': pip install 'egnn_prune[oracles]'"


def gaussian(n: int = 2000, k: float = 0.7):
    """Errors of ten standard deviations, equally often, predicted as k times the truth."""
    sigma = torch.linspace(1, 10, 10, dtype=torch.float64).repeat(n // 10)
    mean = torch.randn(n, dtype=torch.float64)
    return mean, (k * sigma).square(), mean + sigma * torch.randn(n, dtype=torch.float64)


def classes(n: int = 3000, confident: int = 0, sharper: float = 3.0):
    """Probabilities sharper than the truth; of some confidence 1 often errs, 0.97 never does."""
    logits = torch.randn(n, 4, dtype=torch.float64)
    target = logits.softmax(1).multinomial(1)[:, 0]
    p = (sharper * logits).softmax(1)
    sure = torch.eye(4, dtype=torch.float64)
    p[:confident] = sure[target[:confident].roll(1)]
    p[confident : 2 * confident] = 0.96 * sure[target[confident : 2 * confident]] + 0.01
    return p, target


def score(metric, *data) -> float:
    metric.update(*data)
    return float(metric.compute())


# ---- netcal ----


def test_ence_and_nll_equal_netcal():
    netcal = pytest.importorskip("netcal.metrics.regression", reason=REASON)
    mean, variance, target = gaussian()
    theirs = (mean.numpy(), variance.sqrt().numpy())
    # their bins have equal widths, ours equal counts: with ten values of sigma they are the same
    expected = float(netcal.ENCE(bins=10).measure(theirs, target.numpy()))
    assert float(ence(mean, variance, target, bins=10)) == pytest.approx(expected, rel=1e-10)
    expected = float(np.mean(netcal.NLL().measure(theirs, target.numpy())))
    assert float(nll(mean, variance, target)) == pytest.approx(expected, rel=1e-10)


def test_coverage_equals_netcal():
    netcal = pytest.importorskip("netcal.metrics.regression", reason=REASON)
    mean, variance, target = gaussian()
    levels = [0.5, 0.8, 0.9, 0.95]
    found = netcal.PICP(bins=10).measure(
        (mean.numpy(), variance.sqrt().numpy()), target.numpy(), q=levels, reduction="none"
    )
    picp = np.asarray(found.picp if hasattr(found, "picp") else found[0]).reshape(len(levels), -1)
    for level, expected in zip(levels, picp.mean(1), strict=True):
        ours = float(interval_coverage(mean, variance, target, level))
        assert ours == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize("bins", [5, 15])
def test_ece_equals_netcal_also_where_confidence_is_one(bins):
    netcal = pytest.importorskip("netcal.metrics", reason=REASON)
    p, target = classes(confident=100, sharper=1.0)
    expected = netcal.ECE(bins=bins).measure(p.numpy(), target.numpy())
    assert score(ECE(bins), p, target) == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize("bins", [5, 15])
def test_equal_mass_ece_equals_netcal(bins):
    netcal = pytest.importorskip("netcal.metrics", reason=REASON)
    p, target = classes()  # they cut ties by the order of the samples
    oracle = netcal.ECE(bins=bins, equal_intervals=False)
    expected = float(oracle.measure(p.numpy(), target.numpy()))
    # they put the edges between other samples: a few of 3000 change bins
    assert score(EqualMassECE(bins), p, target) == pytest.approx(expected, abs=2e-3)
    assert expected > 0.05


# ---- uncertainty-toolbox ----


def test_regression_scores_equal_uncertainty_toolbox():
    toolbox = pytest.importorskip("uncertainty_toolbox", reason=REASON)
    data = mean, variance, target = gaussian()
    theirs = (mean.numpy(), variance.sqrt().numpy(), target.numpy())
    assert float(nll(*data)) == pytest.approx(toolbox.nll_gaussian(*theirs), rel=1e-10)
    assert float(crps(*data)) == pytest.approx(toolbox.crps_gaussian(*theirs), rel=1e-10)
    assert float(sharpness(*data)) == pytest.approx(toolbox.sharpness(theirs[1]), rel=1e-10)
    # they integrate on a grid of levels, we exactly
    for ours, oracle in (
        (miscalibration_area, toolbox.miscalibration_area),
        (rms_calibration, toolbox.root_mean_squared_calibration_error),
    ):
        expected = oracle(*theirs, num_bins=2000, vectorized=True)
        assert float(ours(*data)) == pytest.approx(float(expected), abs=5e-4)


# ---- pytorch-ood ----


def test_ood_metrics_equal_pytorch_ood():
    oracle = pytest.importorskip("pytorch_ood.metrics", reason=REASON)
    inside, outside = torch.randn(700), torch.randn(300) + 1.2
    metrics = oracle.OODMetrics()
    labels = torch.cat([torch.zeros(700), -torch.ones(300)]).long()
    metrics.update(torch.cat([inside, outside]), labels)
    theirs = metrics.compute()
    ours = out_of_distribution_scores(inside, outside)
    assert ours["auroc"] == pytest.approx(theirs["AUROC"], abs=1e-6)
    # they draw straight lines between the points of the curve, which Davis and Goadrich 2006 advise
    # against; ours are the steps of scikit-learn's average precision
    assert ours["aupr"] == pytest.approx(theirs["AUPR-OUT"], abs=5e-3)
    assert ours["fpr95"] == pytest.approx(theirs["FPR95TPR"], abs=1e-6)


def test_ood_scores_equal_pytorch_ood():
    detectors = pytest.importorskip("pytorch_ood.detector", reason=REASON)
    logits = 3 * torch.randn(50, 5, dtype=torch.float64)
    ours = ood_scores(ClassPrediction(logits[None]))
    energy = detectors.EnergyBased.score(logits)
    softmax = detectors.MaxSoftmax.score(logits)
    entropy = detectors.Entropy.score(logits)
    assert torch.allclose(ours["energy"], energy, rtol=1e-10)
    assert torch.allclose(ours["max_probability"], 1 + softmax, rtol=1e-10)
    assert torch.allclose(ours["entropy"], entropy, atol=1e-5)  # they clip at 1e-7
