"""Mean, median and spread of slopes: against definitions and known truth, twins counted once, every edge defined."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from known_truth import GRID
from scipy import stats

from steerstats.errors import CannotEstimate, InputError
from steerstats.steerability import (
    fit_steerability,
    mean_slope,
    median_slope,
    slope_spread,
    summarise_steerability,
)


def test_mean_agrees_with_the_t_interval_and_with_question_means_for_twins():
    s = np.random.default_rng(8).normal(1, 2, size=31)
    mean = mean_slope(s)
    low, high = stats.t.interval(0.95, 30, loc=s.mean(), scale=stats.sem(s))
    np.testing.assert_allclose([mean.ci_low, mean.ci_high], [low, high])
    both = np.column_stack([s, s[::-1] + 1]).ravel()
    clustered = mean_slope(both, questions=np.repeat(range(31), 2))
    np.testing.assert_allclose(clustered.se, stats.sem(both.reshape(31, 2).mean(axis=1)))
    assert clustered.n == 31


@pytest.mark.parametrize("n", [5, 6, 9, 25, 40, 101])
def test_median_takes_the_tightest_order_statistics_that_cover(n):
    s = np.sort(np.random.default_rng(9).normal(size=n))
    median = median_slope(s)

    def coverage(k: int) -> Fraction:  # of [x_(k), x_(n-k+1)]
        return 1 - 2 * sum(Fraction(comb(n, j), 2**n) for j in range(k))

    fitting = [k for k in range(1, n // 2 + 1) if coverage(k) >= Fraction(95, 100)]
    if fitting:
        assert (median.ci_low, median.ci_high) == (s[fitting[-1] - 1], s[n - fitting[-1]])
    else:
        assert (median.ci_low, median.ci_high) == (-np.inf, np.inf)
        assert median.warnings[0] == f"{n} independent inputs are too few for a 95% interval of the median"


def test_one_input_is_not_said_in_the_plural():
    assert median_slope([0.3]).warnings[0] == "1 independent input is too few for a 95% interval of the median"
    twins = median_slope([0.1, 0.12, 0.5, 0.52], questions=["a", "a", "b", "b"])  # worth 0.02 of one
    assert twins.warnings[0].startswith("less than one independent input is too few")


def test_median_of_twins_covers_where_counting_twins_twice_does_not():
    rng = np.random.default_rng(10)
    hits = naive = 0
    for _ in range(600):
        s = np.repeat(rng.standard_t(3, 40), 2)
        clustered, plain = median_slope(s, questions=np.repeat(range(40), 2)), median_slope(s)
        hits += clustered.ci_low <= 0 <= clustered.ci_high
        naive += plain.ci_low <= 0 <= plain.ci_high
    assert 0.93 <= hits / 600 <= 0.99
    assert naive / 600 < 0.88


def test_spread_is_the_plain_sd_and_its_interval_a_loop_of_leave_one_out():
    s = np.random.default_rng(11).normal(size=24) ** 3
    spread = slope_spread(s)
    assert spread.estimate == pytest.approx(s.std(ddof=1))
    logs = np.array([np.log(np.delete(s, i).var(ddof=1)) for i in range(24)])
    pseudo = 24 * np.log(s.var(ddof=1)) - 23 * logs
    low, high = stats.t.interval(0.95, 23, loc=pseudo.mean(), scale=stats.sem(pseudo))
    np.testing.assert_allclose([spread.ci_low, spread.ci_high], np.exp(np.array([low, high]) / 2))


def test_spread_by_question_leaves_twins_out_together():
    s = np.random.default_rng(12).normal(size=30)
    questions = np.repeat(range(15), 2)
    spread = slope_spread(s, questions=questions)
    logs = np.array([np.log(s[questions != q].var(ddof=1)) for q in range(15)])
    pseudo = 15 * np.log(s.var(ddof=1)) - 14 * logs
    low, high = stats.t.interval(0.95, 14, loc=pseudo.mean(), scale=stats.sem(pseudo))
    np.testing.assert_allclose([spread.ci_low, spread.ci_high], np.exp(np.array([low, high]) / 2))


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda rng: rng.normal(size=30), 1.0),
        (lambda rng: rng.normal(size=30) + 4 * (rng.random(30) < 0.5), np.sqrt(5)),
    ],
    ids=["normal", "two groups"],
)
def test_spread_covers(draw, truth):
    rng = np.random.default_rng(13)
    spreads = [slope_spread(draw(rng)) for _ in range(800)]
    assert 0.925 <= np.mean([e.ci_low <= truth <= e.ci_high for e in spreads]) <= 0.98


@pytest.mark.parametrize("questions", [None, np.repeat(range(12), 2)], ids=["alone", "twins"])
def test_the_spreads_standard_error_and_interval_are_one_statement(questions):
    spread = slope_spread(np.random.default_rng(16).gamma(4, size=24), questions=questions)
    half = np.log(spread.ci_high / spread.ci_low) / 2
    assert spread.se == pytest.approx(spread.estimate * half / stats.t.ppf(0.975, spread.n - 1))


def test_every_statement_over_inputs_counts_questions():
    summary = summarise_steerability(np.random.default_rng(17).normal(size=24), questions=np.repeat(range(8), 3))
    assert {estimate.name: estimate.n for estimate in summary.estimates} == dict.fromkeys(
        [estimate.name for estimate in summary.estimates], 8
    )


def test_the_spread_over_two_questions_has_no_interval():
    spread = slope_spread([0.1, 0.4, 0.2, 0.7], questions=[0, 0, 1, 1])
    assert np.isnan([spread.ci_low, spread.ci_high]).all()
    assert "2 questions are too few" in spread.warnings[0]


def test_the_summarys_sign_classes_allow_for_the_numerical_error():
    summary = summarise_steerability([-1.0, -0.001, 0.002, 3.0], error=0.01)
    shares = [summary[name].estimate for name in ("anti_steerable", "within_error", "steerable")]
    assert shares == [0.25, 0.5, 0.25]


def test_spread_of_curved_deterministic_inputs_is_not_explained_away_as_noise():
    slopes = np.random.default_rng(14).normal(0, np.sqrt(0.097), size=400)
    y = slopes[:, None] * GRID + 5 * np.random.default_rng(15).normal(size=(400, 1)) * (GRID**2 - 1)
    spread = slope_spread(fit_steerability(y, GRID).slope)
    assert spread.ci_low <= np.sqrt(0.097) <= spread.ci_high


@pytest.mark.parametrize("n", [1, 2])
def test_one_and_two_inputs_have_defined_answers(n):
    summary = summarise_steerability(np.arange(1.0, n + 1))
    assert summary["mean"].estimate == (n + 1) / 2
    assert np.isnan(summary["mean"].ci_low) == (n == 1)
    assert np.isnan(summary["sd"].estimate) == (n == 1)
    assert np.isnan(summary["sd"].ci_low)
    assert summary["median"].ci_high == np.inf
    assert summary["anti_steerable"].ci_low == 0
    assert summary["anti_steerable"].ci_high < 1
    assert len(summary.warnings) >= 2


def test_equal_slopes_are_spread_zero_with_a_warning_and_no_interval():
    spread = slope_spread(np.full(10, 0.1 + 0.2))
    assert spread.estimate == 0
    assert np.isnan(spread.ci_high)
    assert "equal" in spread.warnings[0]
    assert np.isnan(slope_spread(np.r_[np.zeros(9), 1.0]).ci_low)


def test_slopes_that_are_not_one_finite_row_are_refused():
    with pytest.raises(InputError, match=r"slopes\[1\] is nan"):
        mean_slope(np.array([1, np.nan, 2]))
    with pytest.raises(InputError, match="shape"):
        median_slope(np.ones((2, 2)))
    with pytest.raises(CannotEstimate, match="empty"):
        slope_spread(np.array([]))
    with pytest.raises(InputError, match="questions has 2 entries"):
        mean_slope(np.ones(3), questions=["a", "b"])
    with pytest.raises(InputError, match=r"questions\[1\] is missing"):
        mean_slope(np.ones(2), questions=["a", None])
