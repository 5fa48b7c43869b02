"""Per-input lines against polyfit, intervals against known truth, a defined answer or a named error at every edge."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from steerstats.errors import CannotEstimate, InputError
from steerstats.steerability import (
    anti_steerable,
    fit_steerability,
    linearity_test,
    mean_slope,
    median_slope,
    require_symmetric,
    slope_error,
    slope_spread,
    summarise_datasets,
    summarise_steerability,
)

GRID = np.array([-1.5, -1, -0.5, 0, 0.5, 1, 1.5])


def curves(seed: int, *shape: int, grid: np.ndarray = GRID) -> np.ndarray:
    rng = np.random.default_rng(seed)
    a, b, c, d = rng.normal(size=(4, *shape, 1))
    return 3 * a + b * grid + 0.3 * c * grid**2 + 0.2 * d * grid**3 + 0.05 * rng.normal(size=(*shape, grid.size))


# --- the line ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [GRID, np.array([2.0, -1, 0, 0.25]), np.array([-1.0, 1])])
def test_every_number_agrees_with_a_loop_over_polyfit(grid):
    y = curves(0, 2, 3, 11, grid=grid)
    fit = fit_steerability(y, grid)
    for place in np.ndindex(2, 3, 11):
        curve = y[place]
        slope, intercept = np.polyfit(grid, curve, 1)
        residual = curve - np.polyval([slope, intercept], grid)
        rss, tss = residual @ residual, ((curve - curve.mean()) ** 2).sum()
        expected = {
            "slope": slope,
            "intercept": intercept,
            "r_squared": 1 - rss / tss,
            "rmse": np.sqrt(rss / grid.size),
            "root_rss": np.sqrt(rss),
            "monotonicity": np.mean(
                [np.sign((curve[k] - curve[j]) * (grid[k] - grid[j])) for j, k in combinations(range(grid.size), 2)]
            ),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(getattr(fit, name)[place], value, rtol=1e-10, atol=1e-12, err_msg=name)
        if grid.size > 2:
            np.testing.assert_allclose(fit.curvature[place], np.polyfit(grid, curve, 2)[0], rtol=1e-9, atol=1e-12)
        for c, inner in zip(fit.ranges, fit.range_slope[place]):
            keep = np.abs(grid) <= c
            np.testing.assert_allclose(inner, np.polyfit(grid[keep], curve[keep], 1)[0], rtol=1e-9, atol=1e-12)


def test_half_slopes_see_one_side_only():
    y = np.where(GRID > 0, 5 * GRID, -2 * GRID)[None]
    fit = fit_steerability(y, GRID)
    assert fit.slope_positive[0] == pytest.approx(5)
    assert fit.slope_negative[0] == pytest.approx(-2)


def test_range_slopes_reveal_saturation_that_r_squared_alone_would_not_locate():
    fit = fit_steerability(np.tanh(2 * GRID)[None], GRID)
    np.testing.assert_array_equal(fit.ranges, [0.5, 1, 1.5])
    assert np.all(np.diff(fit.range_slope[0]) < 0)
    assert fit.range_slope[0, -1] == pytest.approx(fit.slope[0])


def test_frame_carries_the_coordinates_of_every_curve():
    coords = {"setting_eval": ["base", "user_neg"], "input": ["p", "q", "r"]}
    y = curves(1, 2, 3)
    frame = fit_steerability(y, GRID, coords=coords).to_frame()
    row = frame[(frame["setting_eval"] == "user_neg") & (frame["input"] == "q")].iloc[0]
    assert row["slope"] == pytest.approx(np.polyfit(GRID, y[1, 1], 1)[0])
    assert row["unsteered"] == y[1, 1, 3]
    assert len(frame) == 6


finite = st.floats(-50, 50, allow_nan=False).map(lambda v: round(v, 3))


@given(
    rows=st.lists(st.lists(finite, min_size=7, max_size=7), min_size=1, max_size=6),
    constant=finite,
    scale=st.sampled_from([0.1, 0.5, 3.0, 20.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_invariances_of_the_line(rows, constant, scale, seed):
    y = np.array(rows)
    fit = fit_steerability(y, GRID)
    swapped, shifted = fit_steerability(-y, GRID), fit_steerability(y + constant, GRID)
    stretched = fit_steerability(y, scale * GRID)
    order = np.random.default_rng(seed).permutation(7)
    shuffled = fit_steerability(y[:, order], GRID[order])
    close = {"rtol": 1e-9, "atol": 1e-9}
    for name, sign in [("slope", -1), ("intercept", -1), ("curvature", -1), ("monotonicity", -1), ("rmse", 1)]:
        np.testing.assert_allclose(getattr(swapped, name), sign * getattr(fit, name), **close)
        np.testing.assert_allclose(getattr(shuffled, name), getattr(fit, name), **close)
    np.testing.assert_allclose(shifted.slope, fit.slope, **close)
    np.testing.assert_allclose(shifted.intercept, fit.intercept + constant, **close)
    np.testing.assert_allclose(stretched.slope * scale, fit.slope, **close)
    np.testing.assert_allclose(stretched.curvature * scale**2, fit.curvature, **close)
    np.testing.assert_allclose(stretched.r_squared, fit.r_squared, **close)


def test_two_multipliers_fit_exactly_and_say_so():
    fit = fit_steerability(np.array([[1.0, 4.0]]), np.array([-1.0, 1.0]))
    assert fit.slope[0] == 1.5
    assert fit.rmse[0] == 0
    assert np.isnan(fit.curvature[0])
    assert np.isnan(fit.unsteered[0])
    assert any("two multipliers" in text for text in fit.warnings)


def test_constant_curve_has_slope_zero_and_no_r_squared():
    fit = fit_steerability(np.full((2, 7), 19.7), GRID)
    np.testing.assert_allclose(fit.slope, 0, atol=1e-13)
    assert np.isnan(fit.r_squared).all()
    assert any("2 curves are constant" in text for text in fit.warnings)


def test_constant_curves_are_never_steered_the_wrong_way():
    heights = np.random.default_rng(0).normal(scale=5, size=1000)
    for grid in (GRID, np.linspace(-0.7, 1.9, 9), np.array([0.0, 0.1, 0.3])):
        fit = fit_steerability(np.tile(heights[:, None], grid.size), grid)
        signs = anti_steerable(fit.slope)
        assert signs["anti_steerable"].estimate == signs["negative"].estimate == 0
        assert signs["within_error"].estimate == 1
        for flat in (fit.slope, fit.curvature, fit.range_slope, fit.monotonicity):
            assert (flat == 0).all()
    fit = fit_steerability(np.tile(heights[:, None], GRID.size), GRID)
    assert (fit.slope_negative == 0).all()
    assert (fit.slope_positive == 0).all()


def test_a_flat_half_of_a_bent_curve_has_slope_zero():
    fit = fit_steerability(np.linspace(-9.7, 19.7, 99)[:, None] + np.maximum(GRID, 0), GRID)
    assert (fit.slope_negative == 0).all()
    np.testing.assert_allclose(fit.slope_positive, 1)


@pytest.mark.parametrize(("value", "n"), [(0.1, 3), (0.3, 10), (-1e5 / 3, 7), (0.0, 4)])
def test_equal_slopes_say_that_their_interval_has_no_width(value, n):
    found = mean_slope([value] * n)
    assert found.se == 0
    assert found.warnings == ("all question means are equal: the interval has no width",)
    assert mean_slope([value] * n + [value + 1e-6]).warnings == ()


def test_missing_curve_is_named_by_its_coordinates():
    y = curves(2, 2, 3)
    y[1, 2] = np.nan
    with pytest.raises(InputError, match="setting_eval 'user_neg', input 'r', at every multiplier"):
        fit_steerability(y, GRID, coords={"setting_eval": ["base", "user_neg"], "input": ["p", "q", "r"]})
    y[1, 2] = 0.0
    y[0, 1, 3] = np.inf
    with pytest.raises(InputError, match="axis 0 0, input 1, at multiplier 0;"):
        fit_steerability(y, GRID)


def test_unplanned_cells_are_nan_and_planned_ones_are_still_checked():
    y = curves(3, 2, 4)
    y[0, 0] = np.nan
    fit = fit_steerability(y, GRID, planned=np.array([False, True]))
    assert np.isnan(fit.slope[0]).all()
    np.testing.assert_allclose(fit.slope[1], np.polyfit(GRID, y[1].T, 1)[0])
    with pytest.raises(InputError, match="axis 0 0"):
        fit_steerability(y, GRID, planned=np.array([True, True]))


@pytest.mark.parametrize(
    ("shape", "grid", "error", "words"),
    [
        ((3, 6), GRID, InputError, r"\(3, 6\)"),
        ((7,), GRID, InputError, "n inputs"),
        ((3, 2), np.array([1.0, 1.0]), InputError, "repeat"),
        ((3, 2), np.array([1.0, np.nan]), InputError, "finite"),
        ((3, 1), np.array([0.0]), CannotEstimate, "two multipliers"),
        ((0, 7), GRID, CannotEstimate, "no input"),
    ],
)
def test_bad_arguments_are_named(shape, grid, error, words):
    with pytest.raises(error, match=words):
        fit_steerability(np.zeros(shape), grid)


def test_asymmetric_grid_warns_and_is_refused_where_m0_would_predict():
    grid = np.array([0.0, 1, 2])
    assert any("not symmetric" in text for text in fit_steerability(curves(4, 3, grid=grid), grid).warnings)
    with pytest.raises(CannotEstimate, match="unsteered propensity"):
        require_symmetric(grid, "unsteered propensity")
    require_symmetric(GRID[::-1], "unsteered propensity")


def test_slope_error_is_attained_by_the_worst_errors_and_by_no_other():
    bound = slope_error(0.01, GRID)
    worst = 0.01 * np.sign(GRID)
    assert fit_steerability(worst[None], GRID).slope[0] == pytest.approx(bound)
    errors = np.random.default_rng(5).uniform(-0.01, 0.01, size=(2000, 7))
    assert np.abs(fit_steerability(errors, GRID).slope).max() <= bound


# --- signs ------------------------------------------------------------------------------------------------------


def test_sign_classes_are_strict_and_the_published_count_stands_beside_them():
    slopes = np.array([-1, -0.001, 0, 0, 0.001, 2])
    signs = anti_steerable(slopes, error=0.01)
    counts = dict(zip([share.name for share in signs.share], signs.count))
    assert counts == {
        "anti_steerable": 1, "within_error": 4, "steerable": 1, "negative": 2, "published_nonpositive": 4,
    }  # fmt: skip
    assert any("4 slopes" in text for text in signs.warnings)
    exact = anti_steerable(slopes)
    assert exact["anti_steerable"].estimate == pytest.approx(2 / 6)
    assert exact["within_error"].estimate == pytest.approx(2 / 6)


@pytest.mark.parametrize(("k", "n"), [(0, 20), (1, 20), (7, 15), (20, 20)])
def test_wilson_agrees_with_statsmodels(k, n):
    share = anti_steerable(np.r_[-np.ones(k), np.ones(n - k)])["anti_steerable"]
    low, high = proportion_confint(k, n, method="wilson")
    np.testing.assert_allclose([share.ci_low, share.ci_high], [low, high], atol=1e-12)


@pytest.mark.parametrize(("truth", "band"), [(0.002, (0.91, 0.93)), (0.05, (0.94, 0.97)), (0.5, (0.94, 0.96))])
def test_wilson_covers_in_its_exact_band(truth, band):
    n = 500
    k = np.arange(n + 1)
    limits = [anti_steerable(np.r_[-np.ones(j), np.ones(n - j)])["negative"] for j in k]
    inside = np.array([share.ci_low <= truth <= share.ci_high for share in limits])
    assert band[0] <= stats.binom.pmf(k, n, truth)[inside].sum() <= band[1]


def test_identical_twins_count_once_and_opposite_twins_never_count_more_than_twice():
    rng = np.random.default_rng(6)
    one = rng.normal(0.3, 1, size=80)
    alone, twins = anti_steerable(one)["negative"], anti_steerable(np.repeat(one, 2), questions=np.repeat(range(80), 2))
    width = alone.ci_high - alone.ci_low
    assert twins["negative"].ci_high - twins["negative"].ci_low == pytest.approx(width, rel=0.03)
    opposite = anti_steerable(np.column_stack([one, -one]).ravel(), questions=np.repeat(range(80), 2))["negative"]
    plain = anti_steerable(np.column_stack([one, -one]).ravel())["negative"]
    assert opposite.ci_high - opposite.ci_low >= plain.ci_high - plain.ci_low
    none = anti_steerable(np.ones(160), questions=np.repeat(range(80), 2))["negative"]
    assert none.ci_high == pytest.approx(anti_steerable(np.ones(80))["negative"].ci_high)


def test_clustered_share_covers_where_counting_twins_twice_does_not():
    rng = np.random.default_rng(7)
    hits = naive = 0
    for _ in range(600):
        slopes = np.repeat(rng.normal(0, 1, 40), 2) + rng.normal(0, 0.2, 80)
        share = anti_steerable(slopes, questions=np.repeat(range(40), 2))["negative"]
        plain = anti_steerable(slopes)["negative"]
        hits += share.ci_low <= 0.5 <= share.ci_high
        naive += plain.ci_low <= 0.5 <= plain.ci_high
    assert 0.93 <= hits / 600 <= 0.985
    assert naive / 600 < 0.90


def test_effective_size_of_a_share_by_hand():
    inside = np.array([1, 1, 0, 0, 0, 1, 0, 0, 1, 0])
    questions = [0, 0, 1, 1, 1, 2, 3, 3, 4, 4]
    sums = np.bincount(questions, weights=inside - 0.4)
    design = (5 / 4 * (sums @ sums) / 100) / (0.4 * 0.6 / 9)
    effective = 10 / design * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 4)) ** 2
    low, high = proportion_confint(0.4 * effective, effective, method="wilson")
    share = anti_steerable(np.where(inside, -1, 1), questions=questions)["negative"]
    np.testing.assert_allclose([share.ci_low, share.ci_high], [low, high])


def test_negative_error_is_refused():
    with pytest.raises(InputError, match="error is -1"):
        anti_steerable(np.ones(3), error=-1)


# --- mean, median, spread ---------------------------------------------------------------------------------------


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
        assert "too few" in median.warnings[0]


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


def test_datasets_are_ordered_by_median():
    frame = summarise_datasets({"low": np.array([0.0, 0, 9]), "high": np.array([1.0, 1, 1])})
    assert list(frame["dataset"].unique()) == ["high", "low"]
    assert frame.query("dataset == 'low' and name == 'mean'")["estimate"].item() == 3


# --- linearity --------------------------------------------------------------------------------------------------


def test_hotelling_agrees_with_regressing_a_constant_on_the_contrasts():
    y = curves(16, 60)
    test = linearity_test(y, GRID)
    powers = np.linalg.qr(np.vander(GRID, 7, increasing=True))[0][:, 2:]
    c = y @ powers
    # Regressing 1 on c: R² = T²/(T² + n - 1), an identity that shares no code with ours.
    ones = np.ones(60)
    r2 = ones @ c @ np.linalg.lstsq(c, ones, rcond=None)[0] / 60
    t2 = 59 * r2 / (1 - r2)
    assert test.t_squared == pytest.approx(t2, rel=1e-9)
    assert test.p_value == pytest.approx(stats.f.sf(t2 * 55 / (5 * 59), 5, 55), rel=1e-7)


def test_linearity_holds_its_level_under_correlated_unequal_departures_and_its_distance_covers():
    rng = np.random.default_rng(17)
    mix = np.tril(rng.normal(size=(7, 7))) * np.linspace(0.1, 2, 7)
    straight, hits, bent = 0, 0, 0.3 * GRID**2
    powers = np.linalg.qr(np.vander(GRID, 7, increasing=True))[0][:, 2:]
    truth = np.sqrt(powers.T @ bent @ np.linalg.solve(powers.T @ mix @ mix.T @ powers, powers.T @ bent))
    for _ in range(500):
        y = rng.normal(size=(40, 1)) * GRID + rng.normal(size=(40, 7)) @ mix.T
        straight += linearity_test(y, GRID).p_value < 0.05
        test = linearity_test(y + bent, GRID)
        hits += test.distance_low <= truth <= test.distance_high
    assert 0.03 <= straight / 500 <= 0.075
    assert 0.925 <= hits / 500 <= 0.975


def test_linearity_effect_sizes_describe_the_mean_curve():
    rng = np.random.default_rng(18)
    y = 2 * GRID + 0.5 * (GRID**2 - 1) + rng.normal(size=(50, 7)) * 1e-3
    test = linearity_test(y, GRID)
    line = np.polyval(np.polyfit(GRID, y.mean(axis=0), 1), GRID)
    departure = y.mean(axis=0) - line
    assert test.rms_departure == pytest.approx(np.sqrt(np.mean(departure**2)))
    assert test.nonlinear_share == pytest.approx((departure**2).sum() / ((y.mean(axis=0) - y.mean()) ** 2).sum())
    assert test.p_value < 1e-20


def test_linearity_counts_twins_once():
    y = curves(19, 40)
    single, double = (
        linearity_test(y, GRID),
        linearity_test(np.repeat(y, 2, axis=0), GRID, questions=np.repeat(range(40), 2)),
    )
    assert double.t_squared == pytest.approx(single.t_squared)
    assert (double.n, double.n_questions) == (80, 40)
    uneven = linearity_test(np.concatenate([y, y[:10]]), GRID, questions=[*range(40), *range(10)])
    assert uneven.t_squared == pytest.approx(single.t_squared)


def test_linearity_edges():
    with pytest.raises(CannotEstimate, match="two multipliers"):
        linearity_test(np.ones((9, 2)), np.array([0.0, 1]))
    with pytest.raises(CannotEstimate, match="needs at least 6"):
        linearity_test(curves(20, 5), GRID)
    with pytest.raises(CannotEstimate, match="fewer than 5 directions"):
        linearity_test(np.arange(9.0)[:, None] * GRID + GRID**2, GRID)
    nearly = linearity_test(curves(21, 9) + 1e4 * GRID**2, GRID)
    assert nearly.f_statistic > 1e6
    assert 0 < nearly.distance_low < nearly.distance < nearly.distance_high < np.inf
    exact = linearity_test(np.arange(9.0)[:, None] * GRID + 2, GRID)
    assert (exact.p_value, exact.distance) == (1.0, 0.0)
    assert exact.warnings == ("all curves are exactly linear",)
