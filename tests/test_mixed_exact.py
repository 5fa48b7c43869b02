"""Curves without lack of fit: fixed effects survive missing cells, and tests of nothing are NaN."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import steerstats
from steerstats.errors import CannotEstimate
from steerstats.mixed import fit_mixed, joint_test, wilks_test

LAM = np.linspace(-1.5, 1.5, 7)
FORMULA = "y ~ lam * a + (1 + lam | input)"


def lines(rng, n=12, sd=(1.0, 0.5), effect=(0.0, 0.4)):
    """Exactly straight curves of n inputs; `effect` is that of a on intercept and slope."""
    a = np.arange(n) % 2
    b = rng.normal(size=(n, 2)) * sd + a[:, None] * effect + [2.0, 0.0]
    columns = {"input": np.repeat(np.arange(n), 7), "lam": np.tile(LAM, n), "a": np.repeat(a, 7)}
    return pd.DataFrame(columns | {"y": (b[:, :1] + b[:, 1:] * LAM).ravel()})


@pytest.mark.parametrize("reml", [True, False])
def test_missing_cells_of_straight_curves_lose_nothing(reml):
    frame = lines(np.random.default_rng(1))
    whole = fit_mixed(FORMULA, frame, reml=reml)
    holed = fit_mixed(FORMULA, frame.drop(index=[3, 10, 11, 12, 50]), reml=reml)
    assert holed.engine_reason.startswith("every curve is exactly linear")
    for name in ("estimate", "se", "df"):
        np.testing.assert_allclose(getattr(holed, name), getattr(whole, name), rtol=1e-8)
    np.testing.assert_allclose(holed.variance.psi[0], whole.variance.psi[0], atol=1e-10)
    assert holed.variance.sigma2 == 0
    assert holed.log_likelihood == np.inf
    assert holed.n_obs == 12 * 7 - 5
    assert wilks_test(holed, ["a", "lam:a"]).statistic == pytest.approx(wilks_test(whole, ["a", "lam:a"]).statistic)


def test_multipliers_far_from_zero_are_no_lack_of_fit():
    """Z'Z is then near singular, and one pass of normal equations leaves more than rounding."""
    frame = lines(np.random.default_rng(8))
    moved = frame.assign(lam=frame.lam + 3000).drop(index=3)
    fit = fit_mixed(FORMULA, moved)
    assert fit.variance.sigma2 == 0
    assert fit.estimate[3] == pytest.approx(fit_mixed(FORMULA, frame).estimate[3], rel=1e-6)


def test_an_input_with_one_cell_left_is_left_out_and_counted():
    frame = lines(np.random.default_rng(2))
    cut = frame.drop(index=frame.index[1:7])
    fit = fit_mixed(FORMULA, cut)
    np.testing.assert_allclose(fit.estimate, fit_mixed(FORMULA, frame[frame.input > 0]).estimate, rtol=1e-9)
    assert any(text.startswith("1 groups with fewer distinct") for text in fit.warnings)
    assert fit.closed.n_obs == fit.n_obs == 78


def test_what_a_line_cannot_carry_is_still_an_error():
    frame = lines(np.random.default_rng(3)).drop(index=3)
    with pytest.raises(CannotEstimate, match="fit every observation exactly"):
        fit_mixed(
            "y ~ lam * a + lam:input + (1 + lam | input)", frame.assign(input=frame.input % 12 / 7), engine="auto"
        )
    pairs = frame[frame.lam.abs() == 1.5]
    with pytest.raises(CannotEstimate):
        fit_mixed(FORMULA, pairs.drop(index=pairs.index[0]))


@pytest.mark.parametrize("effect", [(0.0, 0.0), (0.3, 0.4)])
def test_tests_without_any_spread_are_nan_or_infinite_with_a_warning_and_never_noisy(effect):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = fit_mixed(FORMULA, lines(np.random.default_rng(4), sd=(0.0, 0.0), effect=effect))
        both, slope = wilks_test(fit, ["a", "lam:a"]), joint_test(fit, ["lam:a"])
    for test in (both, slope):
        if any(effect):
            assert (test.statistic, test.p) == (np.inf, 0)
            assert test.warnings[0].startswith("F is infinite")
        else:
            assert np.isnan([test.statistic, test.p]).all()
            assert test.warnings[0].startswith("F is 0/0")


def test_wilks_f_with_spread_in_one_column_only():
    """Slopes that are all alike within a: an effect on them is infinite evidence, none is 0/0; intercepts vary."""
    rng = np.random.default_rng(5)
    known = fit_mixed(FORMULA, lines(rng, sd=(1.0, 0.0), effect=(0.0, 0.4)))
    assert wilks_test(known, ["a", "lam:a"]).statistic == np.inf
    nothing = fit_mixed(FORMULA, lines(rng, sd=(1.0, 0.0), effect=(0.5, 0.0)))
    assert np.isnan(wilks_test(nothing, ["a", "lam:a"]).statistic)
    spread = fit_mixed(FORMULA, lines(rng))
    assert wilks_test(spread, ["a", "lam:a"]).warnings == ()


def test_statsmodels_on_straight_curves_is_not_believed():
    frame = lines(np.random.default_rng(6))
    fit = fit_mixed(FORMULA, frame, engine="statsmodels")
    assert "exactly linear" in fit.warnings[0]
    bent = frame.assign(y=frame.y + np.random.default_rng(7).normal(size=len(frame)))
    assert not any("exactly linear" in text for text in fit_mixed(FORMULA, bent, engine="statsmodels").warnings)


def test_effects_that_do_not_vary_within_their_group_are_named_and_their_rounding_is_no_exact_fit():
    """Coded -1/2 and 1/2 in 840 inputs, a constant of each input: collinear there, which looked like sigma^2 = 0."""
    curves = steerstats.open_cache(steerstats.demo_cache()).curves_frame()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spare = fit_mixed("y ~ lam * pos_is_a + (1 + lam * pos_is_a | dataset / input)", curves)
        plain = fit_mixed("y ~ lam * pos_is_a + (1 + lam * pos_is_a | dataset) + (1 + lam | dataset:input)", curves)
    words = "effects pos_is_a, lam:pos_is_a are multiples of others within every 'dataset:input'"
    assert any(words in text for text in spare.warnings)
    assert not any("multiples" in text for text in plain.warnings)
    assert spare.criterion < plain.criterion  # it has the smaller model inside it


def test_two_levels_of_straight_curves_are_an_exact_fit():
    parts = [lines(np.random.default_rng(k)).assign(dataset=k) for k in range(4)]
    for frame in (pd.concat(parts), pd.concat(parts).assign(y=0.0)):
        with pytest.raises(CannotEstimate, match="fit every observation exactly"):
            fit_mixed("y ~ lam + (1 + lam | dataset) + (1 + lam | dataset:input)", frame)


@pytest.mark.parametrize("grid", [(0.0, 1.0), (1.0, 3.0), (-1.0, 50.0)])
def test_no_residual_is_told_where_two_multipliers_lack_a_cell(grid):
    """Whatever residual such a fit has is arbitrary; effects made to fill it left one of rounding, and a fit."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame({"input": np.repeat(np.arange(10), 2), "lam": np.tile(grid, 10)})
        frame = frame.assign(y=rng.normal(size=20), a=frame.input % 2).iloc[1:]
        with pytest.raises(CannotEstimate, match="too few observations per group"):
            fit_mixed("y ~ lam + a + (1 + lam | input)", frame)
