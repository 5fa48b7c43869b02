"""Per-input lines against polyfit, intervals against known truth, a defined answer or a named error at every edge."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_truth import GRID, curves

from steerstats.errors import CannotEstimate, InputError
from steerstats.generalization import SlopeGrid, steerability_variance
from steerstats.steerability import (
    anti_steerable,
    fit_steerability,
    mean_slope,
    require_symmetric,
    slope_error,
    slope_spread,
)


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
        for name, keep in (("slope_negative", grid <= 0), ("slope_positive", grid >= 0)):
            half = np.polyfit(grid[keep], curve[keep], 1)[0] if keep.sum() > 1 else np.nan
            np.testing.assert_allclose(getattr(fit, name)[place], half, rtol=1e-9, atol=1e-12)
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
    rounded = fit_steerability(np.array([[0.3, 0.1 + 0.2, 0.1 + 0.2]]), [-1, 0, 1])
    assert (rounded.slope[0], rounded.curvature[0], rounded.monotonicity[0]) == (0, 0, 0)


def test_a_flat_half_of_a_bent_curve_has_slope_zero():
    fit = fit_steerability(np.linspace(-9.7, 19.7, 99)[:, None] + np.maximum(GRID, 0), GRID)
    assert (fit.slope_negative == 0).all()
    np.testing.assert_allclose(fit.slope_positive, 1)


@pytest.mark.parametrize(("value", "n"), [(0.1, 3), (0.3, 10), (-1e5 / 3, 7), (0.0, 4)])
def test_equal_slopes_say_that_their_interval_has_no_width(value, n):
    found = mean_slope([value] * n)
    assert found.se == 0
    assert found.warnings == ("all question means are equal: the interval has no width",)
    assert mean_slope([value] * n + [value + 1e-5 * max(abs(value), 1)]).warnings == ()


def test_slopes_that_are_equal_but_for_the_rounding_of_stored_propensities_have_no_spread():
    """float32 propensities part them by 1e-8, which was told as an SD of 1.5e-08 without a word of it."""
    stored = (np.sin(np.arange(16))[:, None] + 0.7 * GRID).astype(np.float32).astype(float)
    slopes = fit_steerability(stored, GRID).slope
    assert 0 < np.ptp(slopes) < 1e-6
    twins = np.repeat(np.arange(8), 2)
    means = [
        mean_slope(slopes),
        mean_slope(slopes, questions=twins),
        mean_slope(slopes * (-1.0) ** np.arange(16), questions=twins),
    ]
    assert [found.se for found in means] == [0, 0, 0]
    assert all(found.warnings == ("all question means are equal: the interval has no width",) for found in means)
    spread = slope_spread(slopes)
    assert (spread.estimate, spread.warnings) == (0, ("all slopes are equal: the spread is 0 and has no interval",))
    grid = SlopeGrid(
        train=("base",), evaluate=("base", "user_neg"), slopes={"d": np.array([[np.arange(16.0), slopes]])}
    )
    ratios = steerability_variance(grid, ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=20)
    assert ratios.ratio.item() == 0
    assert any("slopes that are equal" in text for text in ratios.warnings)


@pytest.mark.parametrize("height", [1, 30])
def test_stored_slopes_that_one_question_alone_parts_give_no_interval_of_their_spread(height):
    """Without that question rounding was what is left: an SD of 0.075 [2.7e-09, 5e+18]."""
    lines = np.where(np.arange(16) == 3, 1.0, 0.7)[:, None] * GRID
    stored = (height * np.sin(np.arange(16))[:, None] + lines).astype(np.float32).astype(float)
    slopes = fit_steerability(stored, GRID).slope
    spread = slope_spread(slopes)
    assert spread.estimate == pytest.approx(0.075, rel=1e-4)
    assert np.isnan([spread.ci_low, spread.ci_high]).all()
    assert spread.warnings == ("without one question the slopes are all equal: the spread has no interval",)
    grid = SlopeGrid(train=("base",), evaluate=("base", "other"), slopes={"d": np.array([[np.arange(16.0), slopes]])})
    ratios = steerability_variance(grid, ["base->other"], rng=np.random.default_rng(0), n_resamples=20)
    assert np.isnan([ratios.ci_low, ratios.ci_high]).all()
    assert any("but for one question at most" in text for text in ratios.warnings)


def test_missing_curve_is_named_by_its_coordinates():
    y = curves(2, 2, 3)
    y[1, 2] = np.nan
    with pytest.raises(InputError, match="setting_eval 'user_neg', input 'r', at every multiplier"):
        fit_steerability(y, GRID, coords={"setting_eval": ["base", "user_neg"], "input": ["p", "q", "r"]})
    y[0, 1, 3] = np.inf
    with pytest.raises(InputError, match=r"axis 0 0, input 1, at multiplier 0 \(and 1 more curves\);"):
        fit_steerability(y, GRID)
    y[1, 2] = 0.0
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
