"""HC2 with Bell-McCaffrey degrees of freedom against matrix formulas, known cases, and its edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from steerstats.errors import CannotEstimate, InputError
from steerstats.mixed import hc2_bell_mccaffrey


def oracle(X, y):
    """HC2 and Bell-McCaffrey written as the n x n matrices of the papers."""
    n, p = X.shape
    bread = np.linalg.inv(X.T @ X)
    hat = X @ bread @ X.T
    maker = np.eye(n) - hat
    beta = bread @ X.T @ y
    omega = np.diag((y - X @ beta) ** 2 / (1 - np.diag(hat)))
    covariance = bread @ X.T @ omega @ X @ bread
    df = []
    for j in range(p):
        half = np.column_stack([maker[:, i] * (bread @ X.T)[j, i] / np.sqrt(1 - hat[i, i]) for i in range(n)])
        eigenvalues = np.linalg.eigvalsh(half.T @ half)
        df.append(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())
    return beta, np.sqrt(np.diag(covariance)), np.array(df)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(6, 25), p=st.integers(1, 4))
def test_agrees_with_the_matrix_formulas(seed, n, p):
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(n), rng.normal(size=(n, p - 1))])
    y = rng.normal(size=n) * 3 + 10
    fit = hc2_bell_mccaffrey(X, y)
    beta, se, df = oracle(X, y)
    np.testing.assert_allclose(fit.estimate, beta, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(fit.se, se, rtol=1e-9)
    np.testing.assert_allclose(fit.df, df, rtol=1e-9)
    np.testing.assert_allclose(fit.p, 2 * stats.t.sf(np.abs(beta / se), df), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(fit.ci_high - fit.estimate, stats.t.ppf(0.975, df) * se, rtol=1e-8)
    np.testing.assert_allclose(np.diag(fit.covariance), se**2, rtol=1e-9)


def test_two_groups_give_welchs_standard_error_and_df_between_the_smaller_group_and_both():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=5), rng.normal(size=30) * 2
    X = np.column_stack([np.ones(35), np.repeat([1.0, 0.0], [5, 30])])
    fit = hc2_bell_mccaffrey(X, np.concatenate([a, b]), ["Intercept", "rare"])
    welch = stats.ttest_ind(a, b, equal_var=False)
    assert fit.t[1] == pytest.approx(welch.statistic, rel=1e-10)
    # With two groups the df are Welch's at equal variances: (1/5 + 1/30)^2 / (1/25/4 + 1/900/29).
    assert fit.df[1] == pytest.approx((1 / 5 + 1 / 30) ** 2 / (1 / 25 / 4 + 1 / 900 / 29), rel=1e-10)


def test_many_responses_are_as_many_single_fits():
    rng = np.random.default_rng(4)
    X = np.column_stack([np.ones(12), rng.integers(0, 2, 12)])
    Y = rng.normal(size=(12, 3))
    together = hc2_bell_mccaffrey(X, Y, ["Intercept", "A"], responses=["base", "sys_pos", "user_neg"])
    for k in range(3):
        alone = hc2_bell_mccaffrey(X, Y[:, k])
        for name in ["estimate", "se", "t", "p", "ci_low", "ci_high"]:
            np.testing.assert_allclose(getattr(together, name)[:, k], getattr(alone, name), rtol=1e-12)
    frame = together.to_frame()
    row = frame[(frame.response == "sys_pos") & (frame.term == "A")].iloc[0]
    assert (row.estimate, row.ci_low, row.df) == (together.estimate[1, 1], together.ci_low[1, 1], together.df[1])
    assert row.se_type.startswith("HC2")


def test_leverage_one_is_a_named_error_that_says_where():
    X = np.column_stack([np.ones(6), [0, 0, 0, 1, 0, 0]])
    with pytest.raises(CannotEstimate, match="leverage is 1 at row 3 of 6"):
        hc2_bell_mccaffrey(X, np.arange(6.0))
    with pytest.raises(CannotEstimate, match="leverage is 1"):
        hc2_bell_mccaffrey(np.ones((1, 1)), np.ones(1))


def test_aliased_columns_too_few_rows_and_nan_are_named():
    ones = np.ones(5)
    with pytest.raises(CannotEstimate, match="'constant'"):
        hc2_bell_mccaffrey(np.column_stack([ones, 2 * ones]), np.arange(5.0), ["Intercept", "constant"])
    with pytest.raises(CannotEstimate, match="1 observations cannot determine 2"):
        hc2_bell_mccaffrey(np.ones((1, 2)), np.ones(1))
    with pytest.raises(InputError, match=r"Y holds nan at \(2, 0\)"):
        hc2_bell_mccaffrey(ones[:, None], np.array([1, 2, np.nan, 3, 4]))
    with pytest.raises(InputError, match="Y has 4 rows; X has 5"):
        hc2_bell_mccaffrey(ones[:, None], np.ones(4))


def test_an_exact_fit_has_zero_standard_errors_and_no_test_of_zero():
    X = np.column_stack([np.ones(8), np.tile([0.0, 1.0], 4)])
    fit = hc2_bell_mccaffrey(X, 0.1 + 0.3 * X[:, 1], ["Intercept", "A"])
    assert (fit.se == 0).all()
    assert np.isposinf(fit.t).all()
    assert (fit.p == 0).all()
    assert "exactly" in fit.warnings[0]
    constant = hc2_bell_mccaffrey(X, np.full(8, 0.1), ["Intercept", "A"])
    assert np.isnan(constant.t[1])
    assert np.isnan(constant.p[1])


def test_a_rare_level_is_covered_where_the_usual_standard_error_is_not():
    """Prevalence .2 with three times the spread: model-based intervals cover about .75, these about .94."""
    rng = np.random.default_rng(11)
    n, rare, rounds = 40, 8, 4000
    X = np.column_stack([np.ones(n), np.arange(n) < rare])
    errors = rng.normal(size=(n, rounds)) * np.where(np.arange(n) < rare, 3.0, 1.0)[:, None]
    fit = hc2_bell_mccaffrey(X, errors)
    covered = np.mean((fit.ci_low[1] <= 0) & (fit.ci_high[1] >= 0))
    residual = errors - X @ fit.estimate
    model_se = np.sqrt((residual**2).sum(axis=0) / (n - 2) * np.linalg.inv(X.T @ X)[1, 1])
    model = np.mean(np.abs(fit.estimate[1]) <= stats.t.ppf(0.975, n - 2) * model_se)
    assert 0.935 <= covered <= 0.965
    assert model < 0.80
