"""What ``plot()`` of the metrics draws."""

from __future__ import annotations

import pytest
import torch
from matplotlib import pyplot as plt

from egnn_prune.errors import InputError
from egnn_prune.uncertainty.metrics import (
    AUSE,
    CRPS,
    ECE,
    ENCE,
    UCE,
    Brier,
    ClassNLL,
    EqualMassECE,
    ErrorUncertaintySpearman,
    GaussianNLL,
    IntervalCoverage,
    MiscalibrationArea,
    OutOfDistributionAUPR,
    OutOfDistributionAUROC,
    OutOfDistributionFPR,
    ReliabilityDiagram,
    RMSCalibration,
    Sharpness,
)

REGRESSION = [
    GaussianNLL, CRPS, ENCE, MiscalibrationArea, RMSCalibration, Sharpness, IntervalCoverage,
    ErrorUncertaintySpearman, AUSE,
]  # fmt: skip
CLASSIFICATION = [ClassNLL, Brier, ReliabilityDiagram, ECE, EqualMassECE, UCE]
OUT_OF_DISTRIBUTION = [OutOfDistributionAUROC, OutOfDistributionAUPR, OutOfDistributionFPR]
EVERY_METRIC = pytest.mark.parametrize(
    "metric", REGRESSION + CLASSIFICATION + OUT_OF_DISTRIBUTION, ids=lambda m: m.__name__
)


@pytest.fixture
def axes():
    figure, axes = plt.subplots(figsize=(2, 2), dpi=40)
    yield axes
    plt.close(figure)


def samples(metric, n: int):
    """What ``update`` takes, of ``n`` samples that differ."""
    if metric in REGRESSION:
        mean, noise = torch.randn(2, n)
        return mean, torch.rand(n) + 0.1, mean + noise
    if metric in CLASSIFICATION:
        return torch.randn(n, 3).softmax(1), torch.randint(3, (n,))
    return torch.randn(n), torch.arange(n) % 3 == 0


def alike(metric):
    """Two samples which nothing tells apart."""
    if metric in REGRESSION:
        return torch.zeros(2), torch.ones(2), torch.zeros(2)
    if metric in CLASSIFICATION:
        return torch.tensor([[1.0, 0.0]]).expand(2, 2), torch.zeros(2).long()
    return torch.zeros(2), torch.tensor([True, False])


@EVERY_METRIC
@pytest.mark.parametrize("choose", [lambda m: samples(m, 60), alike], ids=["samples", "alike"])
def test_a_picture_says_what_it_shows(metric, choose, axes):
    metric = metric()
    metric.update(*choose(type(metric)))
    figure, drawn_on = metric.plot(ax=axes)
    assert (figure, drawn_on) == (axes.figure, axes)
    assert axes.get_xlabel()
    assert axes.get_ylabel()
    assert axes.get_legend() is not None
    figure.canvas.draw()


def test_a_figure_is_made_where_none_is_given():
    metric = AUSE()
    metric.update(*samples(AUSE, 10))
    figure, axes = metric.plot()
    assert axes in figure.axes
    plt.close(figure)


@EVERY_METRIC
def test_without_samples_there_is_no_picture(metric):
    figures = plt.get_fignums()
    with pytest.raises(InputError, match="no sample"):
        metric().plot()
    assert plt.get_fignums() == figures


def test_values_over_time_are_drawn_as_torchmetrics_does(axes):
    metric = CRPS()
    values = [metric(*samples(CRPS, 10)) for _ in range(3)]
    metric.plot(values, ax=axes)
    assert axes.lines[0].get_ydata() == pytest.approx([float(v) for v in values])


def test_a_picture_holds_the_samples_of_all_processes(axes):
    mine, other = samples(AUSE, 10), iter(samples(AUSE, 30))
    metric = AUSE(
        dist_sync_fn=lambda x, group: [x, next(other).double()],
        distributed_available_fn=lambda: True,
    )
    metric.update(*mine)
    metric.plot(ax=axes)
    assert len(axes.lines[0].get_xdata()) == 40
    assert len(metric.kept()[0]) == 10


def test_a_picture_of_many_intervals_shows_some(axes):
    metric = IntervalCoverage()
    metric.update(*samples(IntervalCoverage, 2001))
    metric.plot(ax=axes)
    assert sum(len(line.get_xdata()) for line in axes.lines[:-1]) < 1000
    assert f"{float(metric.compute()):.1%}" in axes.get_title()


def test_the_coverage_curve_and_the_sparsification_curve_are_drawn(axes):
    data = samples(AUSE, 50)
    for metric in (MiscalibrationArea(), AUSE()):
        axes.clear()
        metric.update(*data)
        metric.plot(ax=axes)
        line = axes.lines[1 if isinstance(metric, MiscalibrationArea) else 0]
        assert len(line.get_xdata()) >= 50
        assert f"{float(metric.compute()):.3f}" in line.get_label() + axes.get_title()
