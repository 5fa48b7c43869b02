"""Crossed random factors, input x template: the mean squares' own inference, and designs that are none of it."""

from __future__ import annotations

import numpy as np
import pytest
from test_mixed import make_frame

from steerstats.errors import CannotEstimate, InputError
from steerstats.mixed import fit_mixed

LETTERS = dict(zip("abcdefg", [0, 2, -1, 0.5, -2, 1, 0.7]))


@pytest.fixture
def frame():
    data = make_frame(np.random.default_rng(1))
    return data.assign(template=np.tile(list("abcdefg"), 20))


def test_unbalanced_crossed_factors_are_refused_with_the_reason(frame):
    assert fit_mixed("y ~ 1 + (1 | input) + (1 | template)", frame).engine == "crossed"
    with pytest.raises(InputError, match=r"not nested.*not balanced"):
        fit_mixed("y ~ 1 + (1 | input) + (1 | template)", frame.drop(index=5))
    # Every input and every template has three observations, and yet the factors are not crossed.
    block = frame[(np.arange(140) % 7 - np.arange(140) // 7) % 7 < 3].iloc[:21]
    with pytest.raises(InputError, match="not balanced"):
        fit_mixed("y ~ 1 + (1 | input) + (1 | template)", block)
    across = np.random.default_rng(0).normal(size=140)
    with pytest.raises(InputError, match="a fixed effect lies across them"):
        fit_mixed("y ~ x + (1 | input) + (1 | template)", frame.assign(x=across))
    with pytest.raises(InputError, match="REML only"):
        fit_mixed("y ~ 1 + (1 | input) + (1 | template)", frame, reml=False)


def test_balanced_crossed_inference_is_that_of_the_mean_squares(frame):
    frame = frame.assign(y=frame.y + frame.template.map(LETTERS))
    fit = fit_mixed("y ~ a + (1 | input) + (1 | template)", frame)
    Y = frame.y.to_numpy().reshape(20, 7)
    a = frame.a.to_numpy()[::7]
    means = Y.mean(axis=1)
    within = sum(np.sum((means[a == k] - means[a == k].mean()) ** 2) for k in (0, 1))
    table = fit.to_frame().set_index("term")
    assert table.loc["a", "se"] == pytest.approx(np.sqrt(within / 18 * (1 / 10 + 1 / 10)))
    assert table.loc["a", "df"] == pytest.approx(18)
    # In the interior the mean squares are the REML estimates, so both covariances are one.
    assert not fit.singular
    np.testing.assert_allclose(fit.covariance, fit.covariance_model, rtol=1e-9)
    assert 6 < table.loc["Intercept", "df"] < 24


def test_a_factor_with_as_many_fixed_effects_as_levels_has_no_variance(frame):
    two = frame[frame["input"].isin(["d0", "d1"])]
    with pytest.raises(CannotEstimate, match="random factor 1 has 0 degrees of freedom"):
        fit_mixed("y ~ a + (1 | input) + (1 | template)", two)


def test_what_is_the_sum_of_both_factors_leaves_no_residual(frame):
    additive = frame.assign(y=frame.a / 3 + 0.1 * frame.yes + frame.template.map(LETTERS))
    fit = fit_mixed("y ~ 1 + (1 | input) + (1 | template)", additive)
    assert (fit.variance.sigma2, fit.criterion) == (0, -np.inf)


def test_factors_that_vary_less_than_the_residual_leave_the_mean_its_constrained_error(frame):
    Y = frame.y.to_numpy().reshape(20, 7)
    rest = Y - Y.mean(axis=0) - Y.mean(axis=1, keepdims=True) + Y.mean()
    fit = fit_mixed("y ~ 1 + (1 | input) + (1 | template)", frame.assign(y=3 + rest.ravel()))
    assert fit.singular
    np.testing.assert_allclose(fit.covariance, fit.covariance_model)
    assert fit.covariance > 0
