"""Scores of Gaussian predictions against closed forms, by hand and as torchmetrics classes."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import integrate, stats

from egnn_prune.errors import ConfigError, InputError
from egnn_prune.uncertainty.metrics import (
    AUSE,
    CRPS,
    ENCE,
    ErrorUncertaintySpearman,
    GaussianNLL,
    IntervalCoverage,
    MiscalibrationArea,
    RMSCalibration,
    Sharpness,
    ause,
    coverage_curve,
    crps,
    crps_terms,
    ence,
    interval_coverage,
    miscalibration_area,
    nll,
    nll_terms,
    regression_scores,
    rms_calibration,
    sharpness,
    sparsification_curve,
    spearman,
)

METRICS = {
    GaussianNLL: nll,
    CRPS: crps,
    ENCE: ence,
    MiscalibrationArea: miscalibration_area,
    RMSCalibration: rms_calibration,
    Sharpness: sharpness,
    IntervalCoverage: lambda *data: interval_coverage(*data, 0.9),
    ErrorUncertaintySpearman: spearman,
    AUSE: ause,
}
EVERY_METRIC = pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.__name__)


def drawn(n: int, dtype=torch.float64, k: float = 1.0):
    """``mean, variance, target`` with true errors of a known sigma, predicted as k sigma."""
    sigma = torch.rand(n, dtype=torch.float64) + 0.5
    mean = 3 * torch.randn(n, dtype=torch.float64)
    target = mean + sigma * torch.randn(n, dtype=torch.float64)
    return mean.to(dtype), (k * sigma).square().to(dtype), target.to(dtype)


@pytest.fixture
def tied():
    """Many samples share a variance, some an error."""
    mean, variance, target = drawn(300)
    return mean.round(), (4 * variance).ceil() / 4, target.round()


# ---- closed forms for sigma_pred = k * sigma_true, within sampling error ----

N = 20_000
FACTORS = pytest.mark.parametrize("k", [0.5, 0.8, 1.0, 1.5, 3.0])


@FACTORS
def test_nll_and_crps_have_their_closed_forms(k, dtype):
    mean, variance, target = drawn(N, dtype, k)
    sigma = variance.double().sqrt() / k
    expected = 0.5 * (2 * math.pi * k**2 * sigma**2).log() + 0.5 / k**2
    noise = float((nll_terms(mean, variance, target) - expected).std()) / math.sqrt(N)
    assert float(nll(mean, variance, target)) == pytest.approx(
        float(expected.mean()), abs=4 * noise
    )
    expected = sigma / math.sqrt(math.pi) * (math.sqrt(2 * (1 + k**2)) - k)
    noise = float((crps_terms(mean, variance, target) - expected).std()) / math.sqrt(N)
    assert float(crps(mean, variance, target)) == pytest.approx(
        float(expected.mean()), abs=4 * noise
    )


@FACTORS
def test_coverage_has_its_closed_form(k, dtype):
    data = drawn(N, dtype, k)
    for level in (0.5, 0.8, 0.9, 0.95):
        expected = 2 * stats.norm.cdf(k * stats.norm.ppf((1 + level) / 2)) - 1
        noise = math.sqrt(expected * (1 - expected) / N)
        observed = float(interval_coverage(*data, level))
        assert observed == pytest.approx(expected, abs=4 * noise + 1e-9)


@FACTORS
def test_the_coverage_curve_has_its_closed_forms(k, dtype):
    data = drawn(N, dtype, k)
    area = abs(2 / math.pi * math.atan(k) - 0.5)
    both = k**2 / (1 + k**2), k / math.sqrt(2 + 2 * k**2)
    square = 2 / math.pi * (math.asin(both[0]) - 2 * math.asin(both[1])) + 1 / 3
    # the largest deviation of an empirical distribution exceeds 2/sqrt(N) once in 1500 draws
    assert float(miscalibration_area(*data)) == pytest.approx(area, abs=2 / math.sqrt(N))
    assert float(rms_calibration(*data)) == pytest.approx(
        math.sqrt(max(square, 0)), abs=2 / math.sqrt(N)
    )


@FACTORS
def test_ence_has_its_closed_form(k, dtype):
    per_bin = N / 20
    noise = 1 / k / math.sqrt(2 * per_bin)  # of one bin's RMSE / RMV
    expected = abs(1 - 1 / k) if k != 1 else 1 / math.sqrt(math.pi * per_bin)
    assert float(ence(*drawn(N, dtype, k))) == pytest.approx(
        expected, abs=4 * noise / math.sqrt(20)
    )


def test_true_error_bars_leave_the_noise_that_is_documented():
    repeats, n = 300, 300
    scores = torch.tensor(
        [[f(*data) for f in (miscalibration_area, rms_calibration, ence)] for data in
         (drawn(n) for _ in range(repeats))]
    )  # fmt: skip
    area, rms, expected_ence = scores.T
    for values, expected in (
        (area * math.sqrt(n), math.sqrt(math.pi / 32)),
        (rms.square() * n, 1 / 6),
        (expected_ence, 1 / math.sqrt(math.pi * 30)),
    ):
        noise = float(values.std()) / math.sqrt(repeats)
        assert float(values.mean()) == pytest.approx(expected, abs=4 * noise)
        assert noise < 0.08 * expected


def test_sharpness_is_the_root_mean_variance(dtype):
    variance = torch.tensor([1.0, 9.0, 14.0], dtype=dtype)
    assert float(sharpness(variance, variance, variance)) == pytest.approx(math.sqrt(8))


# ---- exact values ----


def test_crps_equals_its_integral(dtype):
    mean, variance, target = 0.3, 1.7, -1.1

    def square(x: float) -> float:
        return (stats.norm.cdf(x, mean, math.sqrt(variance)) - (x >= target)) ** 2

    expected = sum(integrate.quad(square, *ends)[0] for ends in ((-20, target), (target, 20)))
    data = (torch.tensor([x], dtype=dtype) for x in (mean, variance, target))
    assert float(crps(*data)) == pytest.approx(expected, rel=1e-6)


def test_nll_of_float32_is_not_worse_than_its_input():
    mean, variance, target = drawn(1000)
    single = (mean.float(), variance.float(), target.float())
    assert float(nll(*single)) == pytest.approx(
        float(nll(*(t.double() for t in single))), rel=1e-15
    )


def test_the_coverage_curve_is_integrated_exactly():
    data = drawn(37, k=0.6)
    levels, observed = (t.numpy() for t in coverage_curve(*data))
    grid = (torch.arange(200_000, dtype=torch.float64).numpy() + 0.5) / 200_000
    gap = (levels[None, :] <= grid[:, None]).mean(1) - grid
    assert float(miscalibration_area(*data)) == pytest.approx(abs(gap).mean(), abs=1e-6)
    assert float(rms_calibration(*data)) ** 2 == pytest.approx((gap**2).mean(), abs=1e-6)
    assert observed[-1] == 1


def test_one_sample_in_the_middle_of_its_interval():
    # |y - mean| at the median of the folded normal: u = 1/2, two triangles of legs 1/2
    one = torch.ones(1, dtype=torch.float64)
    half = one * stats.norm.ppf(0.75)
    assert float(miscalibration_area(0 * one, one, half)) == pytest.approx(1 / 4)
    assert float(rms_calibration(0 * one, one, half)) == pytest.approx(math.sqrt(1 / 12))


def test_ence_by_hand():
    variance = torch.tensor([1.0, 1.0, 4.0, 4.0])
    target = torch.tensor([2.0, -2.0, 1.0, 1.0])
    # bins: RMV 1 and RMSE 2, RMV 2 and RMSE 1
    assert float(ence(0 * target, variance, target, bins=2)) == pytest.approx((1 + 1 / 2) / 2)
    assert float(ence(0 * target, variance, target)) == pytest.approx(0, abs=1e-7)  # one bin


def test_ence_bins_grow_with_the_samples():
    for n, bins in ((2, 1), (59, 1), (60, 2), (300, 10), (5000, 20)):
        data = drawn(n)
        assert float(ence(*data)) == float(ence(*data, bins=bins))


def test_ence_keeps_tied_variances_together():
    variance = torch.ones(100)
    data = (torch.zeros(100), variance, torch.linspace(-2, 2, 100))
    assert float(ence(*data, bins=10)) == float(ence(*data, bins=1))


@pytest.mark.parametrize("error", ["rmse", "mae"])
def test_ause_of_uniform_errors_has_its_closed_form(error, dtype):
    n = 4000
    target = (torch.arange(n, dtype=dtype) + 0.5) / n
    target = target[torch.randperm(n)]
    zero = torch.zeros(n, dtype=dtype)
    # relative errors left after removing p: oracle 1 - p, constant 1, reversed 1 + p (MAE)
    assert float(ause(zero, target + 1, target, error)) == pytest.approx(0, abs=1e-12)
    assert float(ause(zero, zero + 1, target, error)) == pytest.approx(1 / 2, abs=1e-3)
    worst = 1.0
    if error == "rmse":
        worst = integrate.quad(lambda p: math.sqrt(1 + p + p * p), 0, 1)[0] - 1 / 2
    assert float(ause(zero, 2 - target, target, error)) == pytest.approx(worst, abs=1e-3)


def test_a_sparsification_curve_by_hand():
    target = torch.tensor([0.0, 4.0, 2.0, 2.0])
    variance = torch.tensor([1.0, 2.0, 3.0, 3.0])
    curve = sparsification_curve(torch.zeros(4), variance, target, "mae")
    assert curve.removed.tolist() == [0, 0.25, 0.5, 0.75]
    assert curve.by_uncertainty.tolist() == [1, 1, 1, 0]
    assert curve.by_error.tolist() == pytest.approx([1, 4 / 6, 1 / 2, 0])
    tied = sparsification_curve(torch.zeros(4), torch.ones(4), target, "mae")
    assert tied.by_uncertainty.tolist() == [1, 1, 1, 1]


def test_random_uncertainty_is_as_bad_as_constant_uncertainty():
    mean, _, target = drawn(N)
    constant = float(ause(mean, torch.ones(N), target))
    assert float(ause(mean, torch.rand(N) + 1, target)) == pytest.approx(constant, rel=0.03)
    assert constant > 0.4


def test_exact_predictions_have_no_sparsification_error():
    zero = torch.zeros(5)
    assert float(ause(zero, torch.rand(5) + 1, zero)) == 0


def test_spearman_counts_ties_as_scipy_does_where_torchmetrics_overflows():
    n = 100_000
    mean, variance, target = drawn(n)
    variance[: 9 * n // 10] = 1.0
    expected = stats.spearmanr((target - mean).abs(), variance).statistic
    assert float(spearman(mean, variance, target)) == pytest.approx(expected, abs=1e-12)


# ---- laws that any data must obey ----


def test_units_do_not_matter():
    data = drawn(500, k=0.7)
    c = 27.2
    before, after = (
        regression_scores(*d) for d in (data, (c * data[0], c * c * data[1], c * data[2]))
    )
    for name, value in before.items():
        scaled = {"crps": c * value, "sharpness": c * value, "nll": value + math.log(c)}
        assert after[name] == pytest.approx(scaled.get(name, value), rel=1e-9), name


@EVERY_METRIC
def test_the_order_of_the_samples_does_not_matter(metric, tied):
    order = torch.randperm(300)
    shuffled = [t[order] for t in tied]
    expected = float(METRICS[metric](*tied))
    assert float(METRICS[metric](*shuffled)) == pytest.approx(expected, rel=1e-12)


@EVERY_METRIC
def test_batches_equal_one_update(metric, dtype):
    data = drawn(100, dtype)
    batched, merged, rest = metric(), metric(), metric()
    for rows in (slice(0, 1), slice(1, 60), slice(60, None)):
        batched.update(*(t[rows] for t in data))
    merged.update(*(t[:30] for t in data))
    rest.update(*(t[30:] for t in data))
    merged.merge_state(rest)
    expected = float(METRICS[metric](*data))
    assert float(batched.compute()) == pytest.approx(expected, rel=1e-12)
    assert float(merged.compute()) == pytest.approx(expected, rel=1e-12)
    assert batched.compute().dtype == torch.float64
    batched.reset()
    batched.update(*drawn(50))
    assert float(batched.compute()) != expected


@EVERY_METRIC
def test_processes_are_joined(metric):
    data, other = drawn(40), iter(drawn(40, k=0.5))
    metric = metric(
        dist_sync_fn=lambda mine, group: [mine, next(other)],
        distributed_available_fn=lambda: True,
    )
    metric.update(*data)
    alone = float(METRICS[type(metric)](*data))
    assert float(metric.compute()) != pytest.approx(alone, rel=1e-3)
    assert len(metric.kept()[0]) == 40  # and separated again


@EVERY_METRIC
def test_tensors_of_any_shape_are_flattened(metric):
    data = drawn(60)
    whole, flat = METRICS[metric](*(t.view(20, 3) for t in data)), METRICS[metric](*data)
    assert float(whole) == pytest.approx(float(flat), rel=1e-9)


def test_the_dictionary_says_what_the_functions_say():
    data = drawn(200, torch.float32)
    scores = regression_scores(*data)
    assert list(scores) == [
        "nll", "crps", "ence", "miscalibration_area", "rms_calibration", "sharpness",
        "coverage_50", "coverage_80", "coverage_90", "coverage_95",
        "spearman_error_uncertainty", "ause",
    ]  # fmt: skip
    assert all(type(value) is float and math.isfinite(value) for value in scores.values())
    assert scores["coverage_95"] == float(interval_coverage(*data, 0.95))
    assert scores["ence"] == float(ence(*data))
    assert scores["ause"] == float(ause(*data))


def test_terms_can_be_trained(dtype):
    mean, variance, target = (t.requires_grad_() for t in drawn(4, dtype))
    for terms in (nll_terms, crps_terms):
        values = terms(mean, variance, target)
        assert values.dtype == dtype
        assert torch.autograd.grad(values.sum(), variance)[0].abs().min() > 0


# ---- constant uncertainty, and what cannot be scored ----


@EVERY_METRIC
def test_constant_uncertainty_gives_a_number(metric):
    mean, _, target = drawn(50)
    assert math.isfinite(float(METRICS[metric](mean, torch.full((50,), 0.1), target)))


def test_constant_uncertainty_has_no_rank_correlation():
    mean, variance, target = drawn(50)
    # 0.1 is no binary fraction: a standard deviation of it need not be exactly 0
    assert float(spearman(mean, torch.full((50,), 0.1), target)) == 0
    assert float(spearman(mean, variance, mean)) == 0


@EVERY_METRIC
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_variance_must_be_positive(metric, bad):
    mean, variance, target = drawn(20)
    variance[7] = bad
    with pytest.raises(InputError, match=r"variance of sample 7 is .*not positive and finite"):
        METRICS[metric](mean, variance, target)
    with pytest.raises(InputError, match="variance of sample 7"):
        metric().update(mean, variance, target)


@EVERY_METRIC
@pytest.mark.parametrize("which", [0, 2], ids=["mean", "target"])
def test_means_and_targets_must_be_numbers(metric, which):
    data = drawn(20)
    data[which][3] = math.nan
    with pytest.raises(InputError, match=r"(predicted mean|target) of sample 3 is nan"):
        METRICS[metric](*data)


@EVERY_METRIC
def test_shapes_must_agree(metric):
    mean, variance, target = drawn(20)
    with pytest.raises(InputError, match="same shape"):
        METRICS[metric](mean[:, None], variance, target)


@EVERY_METRIC
def test_no_sample_has_no_score(metric):
    with pytest.raises(InputError, match=r"needs at least \d samples, not 0"):
        METRICS[metric](*drawn(0))
    with (
        pytest.warns(UserWarning, match="before the"),
        pytest.raises(InputError, match="no sample"),
    ):
        metric().compute()


@pytest.mark.parametrize("score", [ence, spearman, ause])
def test_one_sample_cannot_be_ranked(score):
    with pytest.raises(InputError, match="at least 2 samples, not 1"):
        score(*drawn(1))


def test_options_are_checked():
    data = drawn(10)
    with pytest.raises(ConfigError, match="1 to 10 bins, not 11"):
        ence(*data, bins=11)
    with pytest.raises(ConfigError, match=r"between 0 and 1, as 0\.9 does, not 90"):
        IntervalCoverage(90)
    with pytest.raises(ConfigError, match="'rmse' or 'mae', not 'mse'"):
        ause(*data, error="mse")
