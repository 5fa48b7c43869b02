"""The array-level closed form: optimality, invariances, exact inference on the boundary, and its edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from steerstats.errors import CannotEstimate, InputError
from steerstats.mixed import closed_form, hc2_bell_mccaffrey
from steerstats.mixed.arrays import aliased_columns
from steerstats.mixed.complete import fit_complete

LAM = np.array([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5])
Z = np.column_stack([np.ones(7), LAM])


def simulate(rng, n, sd_slope=0.7, sd_residual=0.5, p=2, q=2):
    W = np.column_stack([np.ones(n), rng.integers(0, 2, (n, p - 1))])
    W[:2, 1:] = [[0], [1]]
    design = LAM[:, None] ** np.arange(q)
    effects = rng.normal(size=(n, q)) * [1.0, *[sd_slope] * (q - 1)]
    Y = (effects + W @ rng.normal(size=(p, q))) @ design.T + sd_residual * rng.normal(size=(n, 7))
    return Y, design, W


def dense(Y, Z, W, psi, sigma2, reml):
    """-2 log likelihood at the least-squares fixed effects, from the m x m covariance of each input."""
    n, m = Y.shape
    V = Z @ psi @ Z.T + sigma2 * np.eye(m)
    X = np.stack([np.kron(w[None, :], Z) for w in W])
    information = sum(x.T @ np.linalg.solve(V, x) for x in X)
    score = sum(x.T @ np.linalg.solve(V, y) for x, y in zip(X, Y))
    beta = np.linalg.solve(information, score)
    rest = sum((y - x @ beta) @ np.linalg.solve(V, y - x @ beta) for x, y in zip(X, Y))
    value = n * m * np.log(2 * np.pi) + n * np.linalg.slogdet(V)[1] + rest
    if reml:
        value += np.linalg.slogdet(information)[1] - len(beta) * np.log(2 * np.pi)
    return value, beta.reshape(W.shape[1], Z.shape[1])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    reml=st.booleans(),
    sd_slope=st.sampled_from([0.0, 0.1, 1.0]),
    q=st.sampled_from([1, 2, 3]),
)
def test_no_other_components_have_a_better_criterion(seed, reml, sd_slope, q):
    rng = np.random.default_rng(seed)
    Y, design, W = simulate(rng, 8, sd_slope, p=2, q=q)
    fit = closed_form(Y, design, W, reml=reml)
    value, beta = dense(Y, design, W, fit.psi, fit.sigma2, reml)
    assert fit.criterion == pytest.approx(value, abs=1e-8)
    np.testing.assert_allclose(fit.coefficients, beta, atol=1e-8)
    assert np.linalg.eigvalsh(fit.psi).min() >= -1e-12 * np.trace(fit.psi)
    root = np.linalg.cholesky(fit.psi + 1e-14 * np.eye(q))
    for size in [0.01, 0.3]:
        other = root + size * rng.normal(size=(q, q)) * np.sqrt(np.diag(fit.psi) + 0.01 * fit.sigma2)[:, None]
        sigma2 = fit.sigma2 * np.exp(size * rng.normal())
        assert dense(Y, design, W, other @ other.T, sigma2, reml)[0] >= fit.criterion - 1e-9
        assert dense(Y, design, W, fit.psi, sigma2, reml)[0] >= fit.criterion - 1e-9


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sd_slope=st.sampled_from([0.0, 0.5]))
def test_invariant_to_order_sign_scale_and_constants(seed, sd_slope):
    rng = np.random.default_rng(seed)
    Y, _, W = simulate(rng, 10, sd_slope)
    fit = closed_form(Y, Z, W)
    order = rng.permutation(10)
    permuted = closed_form(Y[order], Z, W[order])
    flipped = closed_form(-Y, Z, W)
    shifted = closed_form(Y + 7, Z, W)
    wide = closed_form(Y, Z * [1, 10], W)
    for other, sign, scale in [(permuted, 1, 1), (flipped, -1, 1), (shifted, 1, 1), (wide, 1, 10)]:
        np.testing.assert_allclose(
            other.coefficients[:, 1], sign * fit.coefficients[:, 1] / scale, rtol=1e-8, atol=1e-10
        )
        np.testing.assert_allclose(other.se[:, 1], fit.se[:, 1] / scale, rtol=1e-8)
        assert other.psi[1, 1] == pytest.approx(fit.psi[1, 1] / scale**2, rel=1e-6, abs=1e-12)
        assert other.rank == fit.rank
    assert shifted.coefficients[0, 0] == pytest.approx(fit.coefficients[0, 0] + 7)


def test_slope_inference_is_least_squares_on_the_per_input_slopes():
    rng = np.random.default_rng(5)
    Y, _, W = simulate(rng, 15, sd_slope=0.0, sd_residual=1.0)
    fit = closed_form(Y, Z, W, row_names=["Intercept", "A"], column_names=["Intercept", "lam"])
    slopes = Y @ LAM / (LAM @ LAM)
    beta, rss = np.linalg.lstsq(W, slopes, rcond=None)[:2]
    se = np.sqrt(rss[0] / 13 * np.linalg.inv(W.T @ W)[1, 1])
    row = fit.to_frame().set_index("term").loc["lam:A"]
    assert fit.singular
    assert row.estimate == pytest.approx(beta[1], rel=1e-10)
    assert row.se == pytest.approx(se, rel=1e-10)
    assert row.p == pytest.approx(2 * stats.t.sf(abs(beta[1] / se), 13), rel=1e-9)
    assert row.ci_high == pytest.approx(beta[1] + stats.t.ppf(0.975, 13) * se, rel=1e-9)
    assert row.df == 13
    # The constrained model's standard error is another one here, and is kept beside it.
    constrained = (fit.psi[1, 1] + fit.sigma2 / (LAM @ LAM)) * np.linalg.inv(W.T @ W)[1, 1]
    assert fit.se_model[1, 1] == pytest.approx(np.sqrt(constrained))
    assert abs(fit.se_model[1, 1] / row.se - 1) > 0.01


@pytest.mark.parametrize(("sd_slope", "singular"), [(1.0, (0.0, 0.01)), (0.0, (0.5, 1.0))])
def test_slope_test_holds_its_level_in_the_interior_and_on_the_boundary(sd_slope, singular):
    rng = np.random.default_rng(17)
    n, rounds = 12, 3000
    W = np.column_stack([np.ones(n), np.arange(n) < 4])
    rejected = on_boundary = 0
    for _ in range(rounds):
        Y = (rng.normal(size=(n, 2)) * [1.0, sd_slope]) @ Z.T + 0.5 * rng.normal(size=(n, 7))
        fit = closed_form(Y, Z, W)
        on_boundary += fit.singular
        rejected += 2 * stats.t.sf(abs(fit.coefficients[1, 1] / fit.se[1, 1]), fit.df) < 0.05
    assert singular[0] <= on_boundary / rounds <= singular[1]
    assert 0.042 <= rejected / rounds <= 0.058


def test_aliased_factor_is_dropped_by_name_and_the_rest_is_the_fit_without_it():
    rng = np.random.default_rng(6)
    Y, _, W = simulate(rng, 12, p=3)
    W[:, 2] = 1 - W[:, 1]
    fit = closed_form(Y, Z, W, row_names=["Intercept", "A", "B"])
    assert fit.aliased == ("B",)
    assert fit.rows == ("Intercept", "A")
    np.testing.assert_allclose(fit.coefficients, closed_form(Y, Z, W[:, :2]).coefficients)


def test_few_inputs_are_fitted_or_refused_by_name():
    rng = np.random.default_rng(7)
    ones = np.ones((4, 1))
    Y = rng.normal(size=(4, 7))
    with pytest.raises(CannotEstimate, match="1 groups leave no degree of freedom beside 1"):
        closed_form(Y[:1], Z, ones[:1])
    two = closed_form(Y[:2], Z, ones[:2])
    assert (two.df, two.rank <= 1, two.singular) == (1, True, True)
    assert "1 degrees of freedom between inputs for 2 random effects" in " ".join(two.warnings)
    assert np.isfinite(two.criterion)
    assert not any("degrees of freedom" in text for text in closed_form(Y[:3], Z, ones[:3]).warnings)  # 2 for 2
    with pytest.raises(CannotEstimate, match="2 groups leave no degree"):
        closed_form(Y[:2], Z, np.eye(2))
    with pytest.raises(CannotEstimate, match="2 observations per group cannot tell 2 random effects"):
        closed_form(Y[:, :2], Z[:2], ones)


def test_exactly_linear_curves_have_sigma_zero_and_the_plain_spread_of_their_slopes():
    slopes = np.array([0.3, 1.1, -0.4, 0.9, 0.2])
    Y = 2.0 + slopes[:, None] * LAM
    fit = closed_form(Y, Z, np.ones((5, 1)))
    assert fit.sigma2 == 0
    assert fit.criterion == -np.inf
    assert fit.psi[1, 1] == pytest.approx(np.var(slopes, ddof=1), rel=1e-12)
    assert fit.coefficients[0, 1] == pytest.approx(slopes.mean())
    assert fit.se[0, 1] == pytest.approx(np.std(slopes, ddof=1) / np.sqrt(5), rel=1e-12)
    assert "exactly linear" in fit.warnings[0]


def test_inputs_that_do_not_differ_give_zero_standard_errors_and_say_so():
    Y = np.tile(0.1 + 0.7 * LAM, (6, 1))
    W = np.column_stack([np.ones(6), np.tile([0.0, 1.0], 3)])
    frame = closed_form(Y, Z, W).to_frame().set_index("term")
    assert (frame.se == 0).all()
    assert np.isposinf(frame.loc["z1:w0", "statistic"])
    assert np.isnan(frame.loc["z1:w1", "statistic"])
    assert "do not differ" in closed_form(Y, Z, W).warnings[0]
    noisy = Y + np.array([0.1, -0.2, 0.1]).repeat([2, 2, 3]) * 0.5  # same lack of fit in every input
    again = closed_form(noisy, Z, W)
    assert again.sigma2 > 0
    assert not again.psi.any()


def test_wrong_shapes_nan_and_aliased_random_columns_are_named():
    ones = np.ones((4, 1))
    Y = np.random.default_rng(8).normal(size=(4, 7))
    broken = Y.copy()
    broken[2] = np.nan
    with pytest.raises(InputError, match=r"Y holds nan at \(2, 0\)"):
        closed_form(broken, Z, ones)
    with pytest.raises(InputError, match="Z needs 7 rows and has 5"):
        closed_form(Y, Z[:5], ones)
    with pytest.raises(InputError, match="'lam' is determined"):
        closed_form(Y, np.ones((7, 2)), ones, column_names=["Intercept", "lam"])
    with pytest.raises(InputError, match="Z has no column"):
        closed_form(Y, np.empty((7, 0)), ones)


def test_no_between_group_column_leaves_the_covariance_about_zero(capfd):
    Y = np.random.default_rng(8).normal(size=(9, 7))
    fit = closed_form(Y, Z, np.empty((9, 0)))
    slopes = Y @ np.linalg.pinv(Z).T
    assert fit.coefficients.shape == (0, 2)
    np.testing.assert_allclose(fit.scatter, slopes.T @ slopes)
    assert not "".join(capfd.readouterr()), "LAPACK complains there of an empty matrix"


def test_results_cannot_be_changed():
    fit = hc2_bell_mccaffrey(np.ones((4, 1)), np.arange(4.0))
    with pytest.raises(ValueError, match="read-only"):
        fit.se[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        closed_form(np.random.default_rng(1).normal(size=(4, 7)), Z, np.ones((4, 1))).psi[0, 0] = 1


def test_the_log_likelihood_is_that_of_the_normal_law_it_names():
    rng, lam = np.random.default_rng(9), np.array([-1.0, 0.0, 1.0, 2.0])
    Z, W = np.column_stack([np.ones(4), lam]), np.column_stack([np.ones(15), np.arange(15) % 2])
    Y = rng.normal(size=(15, 2)) @ Z.T + 0.3 * rng.normal(size=(15, 4))
    fit = closed_form(Y, Z, W, reml=False)
    law = stats.multivariate_normal(np.zeros(4), Z @ fit.psi @ Z.T + fit.sigma2 * np.eye(4))
    assert fit.log_likelihood == pytest.approx(law.logpdf(Y - W @ fit.coefficients @ Z.T).sum())


def test_fixed_effects_that_take_all_that_is_within_groups_leave_no_exact_fit():
    three = np.column_stack([np.ones(3), [-1.0, 0, 1]])
    across = np.einsum("ij,k->ijk", np.eye(4), [1.0, -2, 1]).reshape(4, 4, 3).transpose(0, 2, 1)  # one for each group
    X = np.concatenate([np.broadcast_to(three, (4, 3, 2)), across], axis=2)
    Y = np.random.default_rng(0).normal(size=(4, 3))
    assert fit_complete(Y, three, X) is None
    assert fit_complete(Y, three, X[..., :5]) is not None


def test_a_wide_matrix_has_no_more_columns_than_rows():
    assert aliased_columns(np.random.default_rng(0).normal(size=(3, 5))) == [3, 4]


def test_without_a_residual_inputs_that_are_all_one_line_are_singular_and_others_are_not():
    lines = np.random.default_rng(0).normal(size=(5, 2)) @ Z.T
    assert not closed_form(lines, Z, np.ones((5, 1))).singular
    assert closed_form(lines[[0] * 5], Z, np.ones((5, 1))).singular


def test_straight_curves_that_cross_in_one_point_keep_every_standard_error():
    """All inputs have one height there; its variance of 0 came out as one below 0, by rounding, and had no root."""
    for seed in range(10):
        lines = 0.1 + np.random.default_rng(seed).normal(size=(8, 1)) * np.array([0.0, 0.5, 1.0])
        fit = closed_form(lines, [[1, 0], [1, 0.5], [1, 1]], np.column_stack([np.ones(8), np.arange(8) % 2]))
        assert np.isfinite(fit.se).all()
        assert np.isfinite(fit.se_model).all()
        assert (fit.psi.diagonal() >= 0).all()
