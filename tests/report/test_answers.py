"""Yes, no or not decided: the rule that the protocol wrote down."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from egnn_prune.report.common.answers import Comparison, answers, detectable, holm, p_value
from egnn_prune.report.common.statistics import summarise


def compared(values, yes=-1, margin=0.05, ratio=True) -> Comparison:
    return Comparison("a against b", dict(enumerate(values)), yes, margin, ratio)


def test_p_is_that_of_a_t_test():
    values = [0.3, 0.1, 0.25, -0.05, 0.2]
    assert p_value(summarise(values)) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_one_seed_decides_nothing():
    (found,) = answers([compared([-1.0])])
    assert found.says == "not decided" and math.isnan(found.p) and math.isnan(found.detectable)


def test_seeds_that_agree_exactly_are_certain():
    assert p_value(summarise([0.5, 0.5])) == 0.0
    assert p_value(summarise([0.0, 0.0])) == 1.0


def test_holm_multiplies_the_smallest_by_all_and_never_falls():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.04, 0.011, 0.02]) == pytest.approx([0.04, 0.033, 0.04])
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_what_was_not_run_counts_as_a_comparison():
    adjusted = holm([0.02, math.nan])
    assert adjusted[0] == pytest.approx(0.04) and math.isnan(adjusted[1])


@pytest.mark.parametrize(
    ("values", "yes", "says"),
    [
        ([-0.3, -0.31, -0.29, -0.3, -0.32], -1, "yes"),
        ([-0.3, -0.31, -0.29, -0.3, -0.32], 1, "no"),  # as clear in the other direction
        ([0.01, -0.01, 0.012, -0.012, 0.0], -1, "no"),  # within the margin
        ([0.3, -0.3, 0.2, -0.2, 0.1], -1, "not decided"),
    ],
)
def test_the_rule(values, yes, says):
    assert answers([compared(values, yes)])[0].says == says


def test_a_margin_of_a_ratio_is_no_difference_of_logarithms():
    half = math.log(1.09)  # within 10 % above, and 9 % below
    values = [half * s for s in (0.9, -0.9, 0.1, -0.1, 0.0)]
    wide = [v * 3 for v in values]
    assert answers([compared(values, margin=0.1)])[0].says == "no"
    assert answers([compared(wide, margin=0.1)])[0].says == "not decided"


def test_a_correction_can_undo_a_yes():
    values = [-0.1, -0.05, -0.2, -0.01, -0.12]
    alone = answers([compared(values)])[0]
    among = answers([compared(values), *[compared([0.4, -0.4, 0.1, 0.2, -0.3])] * 3])[0]
    assert alone.says == "yes" and among.says == "not decided"


def test_an_effect_of_the_stated_size_shows_four_times_in_five():
    draws, n, sd = np.random.default_rng(0), 5, 0.1
    effect = np.mean([detectable(summarise(draws.normal(0, sd, n))) for _ in range(2000)])
    shown = [stats.ttest_1samp(draws.normal(effect, sd, n), 0).pvalue < 0.05 for _ in range(2000)]
    assert 0.7 < np.mean(shown) < 0.9
