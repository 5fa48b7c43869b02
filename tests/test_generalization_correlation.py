"""Correlations over datasets: both targets, noise taken out, between models, and what is said with few datasets."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from steerstats.errors import InputError
from steerstats.generalization import (
    SlopeGrid,
    corrected_spearman,
    cross_model_agreement,
    id_ood_correlation,
    steerability_variance,
)
from steerstats.generalization.correlation import FIXED, POPULATION
from steerstats.generalization.fixed_datasets import draw_correlations
from steerstats.resampling import bonett_wright, bootstrap_correlation

SHIFT = "base->base vs base->user_neg"


def make_grid(means: np.ndarray, n: int = 200, seed: int = 0, spread: float = 1.0, n_refits: int = 0) -> SlopeGrid:
    """Two cells, base->base and base->user_neg, with the given true means (n_datasets, 2)."""
    rng, slopes, refits = np.random.default_rng(seed), {}, {}
    for k, pair in enumerate(means):
        slopes[f"d{k}"] = (pair[:, None] + rng.normal(0, spread, n) + rng.normal(0, spread, (2, n)))[None]
        wobble = np.random.default_rng((seed, k)).normal(0, 0.3, (n_refits, 1, 2, 1))
        refits[f"d{k}"] = slopes[f"d{k}"] + wobble
    return SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=slopes, refits=refits if n_refits else None)


def true_means(rho: float, n: int = 20, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).multivariate_normal([2, 1], [[1, rho], [rho, 1]], n)


def correlate(grid: SlopeGrid, n_resamples: int):
    return id_ood_correlation(grid, ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=n_resamples)


def test_the_estimate_is_spearmans_of_the_dataset_means():
    grid = make_grid(true_means(0.7))
    found = correlate(grid, 200)
    means = np.array([v[0].mean(axis=1) for v in grid.slopes.values()])
    rho = stats.spearmanr(means)[0]
    row = found.row(SHIFT, POPULATION, "Bonett-Wright")
    assert row["estimate"] == pytest.approx(rho)
    np.testing.assert_allclose([row["ci_low"], row["ci_high"]], bonett_wright(rho, 20))
    assert found.row(SHIFT, FIXED)["estimate"] == pytest.approx(rho)


def test_the_population_interval_resamples_datasets_only():
    grid = make_grid(true_means(0.7), n=50)
    found = correlate(grid, 4000)
    means = np.array([v[0].mean(axis=1) for v in grid.slopes.values()])
    draws = bootstrap_correlation(*means.T, rng=np.random.default_rng(9), n_resamples=4000)
    row = found.row(SHIFT, POPULATION, "percentile over datasets")
    np.testing.assert_allclose([row["ci_low"], row["ci_high"]], np.quantile(draws, [0.025, 0.975]), atol=0.025)


def test_more_inputs_narrow_the_interval_for_these_datasets_only():
    widths = []
    for n in (50, 5000):
        found = id_ood_correlation(
            make_grid(true_means(0.7), n=n), ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=1500
        )
        rows = [found.row(SHIFT, FIXED), found.row(SHIFT, POPULATION)]
        widths.append([row["ci_high"] - row["ci_low"] for row in rows])
    assert widths[1][0] < 0.35 * widths[0][0]
    assert widths[1][1] > 0.7 * widths[0][1]


def test_vector_error_counts_as_measurement_noise():
    means = true_means(0.7)
    rows = []
    for n_refits in (0, 20):
        grid = make_grid(means, n_refits=n_refits)
        found = correlate(grid, 1500)
        assert found.includes_vector_error == (n_refits > 0)
        rows.append(found.row(SHIFT, FIXED))
    assert rows[1]["reliability_x"] < rows[0]["reliability_x"] - 0.05
    assert rows[1]["ci_high"] - rows[1]["ci_low"] > 1.5 * (rows[0]["ci_high"] - rows[0]["ci_low"])


def test_fewer_than_eight_datasets_give_the_number_and_a_warning():
    found = id_ood_correlation(
        make_grid(true_means(0.7, 7)), ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=50
    )
    assert np.isfinite(found.estimate).all()
    assert np.isnan(found.ci_low).all()
    assert any("fewer than 8" in text for text in found.warnings)
    eight = id_ood_correlation(
        make_grid(true_means(0.7, 8)), ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=50
    )
    assert np.isfinite(eight.ci_low).all()


def test_alike_datasets_have_no_correlation():
    slopes = {f"d{k}": np.stack([np.full(5, 1.0), np.full(5, float(k))])[None] for k in range(9)}
    grid = SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=slopes)
    found = correlate(grid, 50)
    assert np.isnan(found.row(SHIFT)["estimate"])
    assert any("not defined" in text for text in found.warnings)


def test_models_are_compared_on_their_common_datasets_only():
    means = true_means(0.8, 14)
    one, other = make_grid(means, seed=1), make_grid(means[2:], seed=2)
    renamed = {f"d{k + 2}": v for k, v in enumerate(other.slopes.values())} | {"stranger": other.slopes["d0"]}
    other = SlopeGrid(train=other.train, evaluate=other.evaluate, slopes=renamed)
    found = cross_model_agreement(
        one, other, ["base->base", "base->user_neg"], rng=np.random.default_rng(0), n_resamples=100
    )
    assert found.n == 12
    assert found.row("base->user_neg")["estimate"] == pytest.approx(1, abs=0.1)
    with pytest.raises(InputError, match="no dataset"):
        cross_model_agreement(one, SlopeGrid(train=one.train, evaluate=one.evaluate, slopes={"x": renamed["d3"]}),
                              rng=np.random.default_rng(0))  # fmt: skip


def test_without_noise_the_correction_changes_nothing():
    x, y = true_means(0.6, 30).T
    none = np.zeros(30)
    found = corrected_spearman(x, y, none, none, none, rng=np.random.default_rng(0), n_resamples=500)
    assert found.estimate == pytest.approx(stats.spearmanr(x, y)[0])
    assert (found.reliability_x, found.reliability_y) == (1, 1)
    draws = draw_correlations(x, y, none, none, none, rng=np.random.default_rng(0), n_resamples=50)
    np.testing.assert_allclose(draws, found.estimate)


def test_shared_error_alone_is_not_agreement():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(400, 2))
    error = rng.normal(0, 1, 400)  # the same in both: x and y correlate by .5 for nothing
    x, y = (truth + error[:, None]).T
    one = np.ones(400)
    assert stats.spearmanr(x, y)[0] > 0.4
    found = corrected_spearman(x, y, one, one, one, rng=rng, n_resamples=300)
    assert found.ci_low < 0 < found.ci_high
    ignored = corrected_spearman(x, y, one, one, 0 * one, rng=rng, n_resamples=300)
    assert ignored.ci_low > 0.5


def test_an_observed_correlation_far_below_the_true_one_is_explained():
    truth = np.random.default_rng(0).normal(size=(60, 2))
    one, other = (make_grid(truth, n=8, seed=seed, spread=1.2) for seed in (1, 2))
    found = cross_model_agreement(one, other, ["base->base"], rng=np.random.default_rng(0), n_resamples=500)
    row = found.row("base->base", FIXED)
    assert row["ci_low"] > row["estimate"]
    assert any("noise pulls" in text for text in found.warnings)


def test_clipping_is_flagged():
    x = np.random.default_rng(0).normal(size=30)
    found = corrected_spearman(
        x, x, np.full(30, 0.3), np.full(30, 0.3), np.zeros(30), rng=np.random.default_rng(0), n_resamples=200
    )
    assert found.estimate == 1
    assert any("clipped" in text for text in found.warnings)
    assert found.share_clipped > 0.9


def simulate(rng, rho: float, reliability: float, n: int, log: bool = False) -> tuple[np.ndarray, tuple]:
    truth = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n)
    truth = np.exp(truth) / 2.16 if log else truth
    noise = (1 - reliability) / reliability * rng.uniform(0.3, 1.7, n)
    error = rng.multivariate_normal([0, 0], [[1, 0.3], [0.3, 1]], n) * np.sqrt(noise)[:, None]
    return truth, (*(truth + error).T, noise, noise, 0.3 * noise)


# Committed bands: what these simulations give (150 studies, so ± .035 is two standard errors). The last row says
# where the method fails.
@pytest.mark.parametrize(
    ("rho", "reliability", "log", "fewest", "most"),
    [
        (0.3, 0.9, False, 0.9, 0.99),
        (0.7, 0.97, False, 0.9, 0.99),
        (0.9, 0.9, False, 0.89, 0.98),
        (0.9, 0.98, True, 0.55, 0.85),
    ],
)
def test_coverage_for_these_datasets(rho, reliability, log, fewest, most):
    rng, hits = np.random.default_rng(11), 0
    for _ in range(150):
        truth, seen = simulate(rng, rho, reliability, 40, log)
        low, high = np.nanquantile(draw_correlations(*seen, rng=rng, n_resamples=200), [0.025, 0.975])
        hits += low <= stats.spearmanr(truth)[0] <= high
    assert fewest <= hits / 150 <= most


# Few datasets whose errors on both sides are nearly the same, as inputs shared between settings make them.
@pytest.mark.parametrize(("rho", "widest"), [(0.0, 0.95), (0.6, 0.75), (-0.3, 0.95)])
def test_a_dozen_datasets_with_shared_errors_are_covered_without_limits_at_the_ends(rho, widest):
    rng, hits, ends, widths = np.random.default_rng(5), 0, 0, []
    x_noise, y_noise, shared, studies = 0.25, 0.087, 0.87, 150  # reliability .80 and .92
    for _ in range(studies):
        truth = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], 14)
        var_x, var_y = x_noise * rng.uniform(0.3, 1.7, 14), y_noise * rng.uniform(0.3, 1.7, 14)
        error = rng.multivariate_normal([0, 0], [[1, shared], [shared, 1]], 14) * np.sqrt(np.stack([var_x, var_y], 1))
        seen = *(truth + error).T, var_x, var_y, shared * np.sqrt(var_x * var_y)
        low, high = np.quantile(draw_correlations(*seen, rng=rng, n_resamples=300), [0.025, 0.975])
        hits += low <= stats.spearmanr(truth)[0] <= high
        ends += low < -0.999 or high > 0.999
        widths.append(high - low)
    assert 0.91 <= hits / studies <= 0.99
    assert ends / studies <= 0.04  # singular resamples put 27-60% there
    assert np.mean(widths) < widest


def test_two_outlying_datasets_do_not_make_the_true_correlation_minus_one():
    # Without the last two datasets the noise exceeds what the covariance leaves: a point estimate is singular there.
    x = np.array([0.16, 0.15, 0.13, 0.13, 0.16, 0.12, 0.18, 0.07, 0.16, 0.18, 0.16, 0.11, 0.23, 0.14])
    y = np.array([0.09, 0.09, 0.06, 0.04, 0.09, 0.08, 0.11, 0.10, 0.10, 0.08, 0.08, 0.03, 0.01, 0.23])
    var_x, var_y = np.full(14, 0.0167**2), np.full(14, 0.0143**2)
    seen = x, y, var_x, var_y, 0.87 * np.sqrt(var_x * var_y)
    for scale in (1.0, 1000.0):  # the answer does not depend on the unit
        values = *(scale * v for v in seen[:2]), *(scale**2 * v for v in seen[2:])
        draws = draw_correlations(*values, rng=np.random.default_rng(0), n_resamples=2000)
        low, high = np.quantile(draws, [0.025, 0.975])
        assert -0.75 < low < stats.spearmanr(x, y)[0] < high < 0.6
        assert not (draws <= -0.999).any()


@pytest.mark.parametrize(("rho", "reliability"), [(0.0, 0.9), (0.7, 0.8), (0.9, 0.9)])
def test_coverage_of_the_noise_corrected_correlation(rho, reliability):
    rng, hits, raw, target = np.random.default_rng(12), 0, 0, 6 / np.pi * np.arcsin(rho / 2)
    for _ in range(150):
        _, seen = simulate(rng, rho, reliability, 40)
        found = corrected_spearman(*seen, rng=rng, n_resamples=250)
        hits += found.ci_low <= target <= found.ci_high
        if rho == 0.9:
            draws = bootstrap_correlation(seen[0], seen[1], rng=rng, n_resamples=250)
            raw += np.quantile(draws, 0.975) >= target
    assert 0.91 <= hits / 150 <= 0.99
    if rho == 0.9:
        assert raw / 150 < 0.8  # the uncorrected interval is about another number


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
