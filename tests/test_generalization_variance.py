"""Variances of steerability between settings: the same inputs, ratios that cover, and what few questions allow."""

from __future__ import annotations

import re

import numpy as np
import pytest
from known_truth import make_grid, true_means
from scipy import stats

from steerstats.generalization import SlopeGrid, steerability_variance
from steerstats.resampling import bonett_wright


def test_variances_are_compared_on_the_same_inputs():
    grid = make_grid(true_means(0.5, 9), n=40)
    found = steerability_variance(grid, ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=100)
    s = grid.slopes["d4"][0]
    assert found.variance_id[4] == pytest.approx(s[0].var(ddof=1))
    assert found.ratio[4, 0] == pytest.approx(s[1].var(ddof=1) / s[0].var(ddof=1))
    known = stats.spearmanr(found.variance_id, found.variance_ood[:, 0])[0]
    assert found.correlations()["rho"].item() == pytest.approx(known)
    assert found.correlations()["rho_bw_low"].item() == pytest.approx(bonett_wright(known, 9)[0])


def test_the_variance_ratio_covers_for_correlated_and_skewed_slopes():
    rng, slopes = np.random.default_rng(3), {}
    for k in range(600):
        shared = rng.exponential(size=150)
        slopes[f"d{k}"] = np.stack([shared + rng.normal(0, 0.5, 150), 1.5 * shared + rng.exponential(size=150)])[None]
    grid = SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=slopes)
    found = steerability_variance(grid, ["base->user_neg"], rng=rng, n_resamples=10)
    target = (1.5**2 + 1) / 1.25
    hits = (found.ci_low[:, 0] <= target) & (target <= found.ci_high[:, 0])
    assert 0.9 <= hits.mean() <= 0.97


def test_no_spread_gives_no_ratio_and_says_so():
    slopes = {"d": np.stack([np.ones(6), np.arange(6.0)])[None]}
    grid = SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=slopes)
    found = steerability_variance(grid, ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=10)
    assert np.isnan(found.ratio[0, 0])
    assert any("no spread" in text for text in found.warnings)


def ratios_of(slopes: np.ndarray, question=None):
    """The variance table of (n_datasets, 2, n) slopes."""
    named = {f"d{k}": one[None] for k, one in enumerate(slopes)}
    asked = None if question is None else dict.fromkeys(named, question)
    grid = SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=named, question=asked)
    return steerability_variance(grid, ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=2)


@pytest.mark.parametrize(("n", "kind", "least"), [(5, "normal", 0.93), (10, "normal", 0.93), (20, "lognormal", 0.87)])
def test_variance_ratios_of_few_questions_cover(n, kind, least):
    """Nominal 95%; linearised they were .85, .91 and .74. What lognormal slopes still lack is in the docstring."""
    slopes = np.random.default_rng(9).normal(size=(1500, 2, n))
    found = ratios_of(np.exp(slopes) if kind == "lognormal" else slopes)
    assert least <= ((found.ci_low <= 1) & (found.ci_high >= 1)).mean() <= 0.98
    assert (f"d0: only {n} questions" in found.warnings) == (n < 10)


def test_a_variance_ratio_is_jackknifed_by_question():
    slopes = np.random.default_rng(10).normal(size=(1, 2, 14))
    question = np.repeat(np.arange(7), 2)
    found = ratios_of(slopes, question)
    left = [[row[question != q].var(ddof=1) for q in range(7)] for row in slopes[0]]
    error = 6 / np.sqrt(7) * np.log(np.divide(*left[::-1])).std(ddof=1)
    assert np.log(found.ci_high / found.ratio).item() == pytest.approx(stats.t.ppf(0.975, 6) * error, rel=1e-9)
    assert np.log(found.ratio / found.ci_low).item() == pytest.approx(stats.t.ppf(0.975, 6) * error, rel=1e-9)


@pytest.mark.parametrize(
    ("slopes", "said"),
    [
        ([[0.0, 1.0], [0.0, 3.0]], "d0: 2 questions are too few to jackknife a ratio of variances: no interval"),
        ([[0.0, 1.0, 2.0], [0.3, 0.3, 0.3]], "d0, base->user_neg: slopes that are equal"),
        ([[0.0, 1.0, 2.0], [0.3, 0.3, 0.4]], "d0, base->user_neg: slopes that are equal"),
    ],
)
def test_a_variance_ratio_without_an_interval_says_so(slopes, said):
    found = ratios_of(np.array([slopes]))
    assert np.isfinite(found.ratio).all()
    assert np.isnan([found.ci_low, found.ci_high]).all()
    assert any(text.startswith(said) for text in found.warnings)


@pytest.mark.parametrize("apart", [0.0, 0.6])
def test_error_that_two_variances_share_is_told_where_it_makes_their_correlation(apart):
    rng, own, slopes = np.random.default_rng(2), np.random.default_rng(3), {}
    for k in range(30):
        z = rng.standard_normal((2, 40))
        z[1] = 0.9 * z[0] + np.sqrt(0.19) * z[1]
        z *= np.exp(apart * rng.standard_normal((2, 1)))  # true variances are unrelated
        third = own.standard_normal((1, 40)) * np.exp(apart * own.standard_normal())  # its errors are its own
        slopes[f"d{k}"] = np.concatenate([z, third])[None]
    grid = SlopeGrid(train=("base",), evaluate=("base", "other", "third"), slopes=slopes)
    found = steerability_variance(grid, ["base->other", "base->third"], rng=rng, n_resamples=500)
    said = [text for text in found.warnings if "correlation of variances" in text]
    if apart:
        assert found.rho_ci_low[0] < 0 < found.rho_ci_high[0]
        assert not said
        return
    assert found.rho_ci_low[0] > 0.4
    text, third = said
    assert re.search(r"noise that correlates -?0\.0", third)
    assert "of the variance between observed log variances is noise that correlates 0.8" in text  # .9²
    assert text.endswith("its intervals for a population are for observed log variances, not for true ones")


def test_a_perfect_ranking_of_variances_may_be_that_of_their_errors():
    z = np.random.default_rng(0).standard_normal((12, 1, 1, 20))
    slopes = {f"d{k}": np.concatenate([one, 2 * one + 0.3], axis=1) for k, one in enumerate(z)}
    grid = SlopeGrid(train=("base",), evaluate=("base", "other"), slopes=slopes)
    found = steerability_variance(grid, ["base->other"], rng=np.random.default_rng(0), n_resamples=2)
    assert found.rho[0] == 1
    assert any("noise that correlates 1.00" in text for text in found.warnings)
