"""What measurement noise does to a correlation over datasets: taken out, shared, clipped, and covered."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from known_truth import make_grid, true_means
from scipy import stats
from test_generalization_correlation import SHIFT, correlate

from steerstats.errors import InputError
from steerstats.generalization import (
    SlopeGrid,
    corrected_spearman,
    cross_model_agreement,
)
from steerstats.generalization.correlation import (
    FIXED,
    NOISE_FREE,
    POPULATION,
    Comparison,
    _noisy,
    correlation_table,
)
from steerstats.generalization.fixed_datasets import draw_correlations
from steerstats.generalization.margins import near_normal
from steerstats.resampling import bootstrap_correlation, iter_counts


def test_without_noise_the_correction_changes_nothing():
    x, y = true_means(0.6, 30).T
    none = np.zeros(30)
    found = corrected_spearman(x, y, none, none, none, rng=np.random.default_rng(0), n_resamples=500)
    assert found.estimate == pytest.approx(stats.spearmanr(x, y)[0])
    assert (found.reliability_x, found.reliability_y) == (1, 1)
    draws = draw_correlations(x, y, none, none, none, rng=np.random.default_rng(0), n_resamples=50)
    np.testing.assert_allclose(draws, found.estimate)


def test_noise_is_taken_out_inside_every_resample_of_datasets():
    """By a loop: variances are those of the source, once more so in a resample of a sample."""
    rng, n = np.random.default_rng(2), 12
    x = stats.norm.ppf((np.arange(n) + 0.5) / n)
    y = x + rng.normal(size=n)
    noise = rng.uniform(0.02, 0.08, (2, n))
    shared = 0.5 * np.sqrt(noise[0] * noise[1])
    found = corrected_spearman(x, y, *noise, shared, rng=np.random.default_rng(0), n_resamples=60)

    def once(rows, more):
        a, b = (side[rows].var(ddof=1) * more for side in (x, y))
        seen = 2 * np.sin(np.pi * stats.spearmanr(x[rows], y[rows])[0] / 6) * np.sqrt(a * b)
        own = (a - noise[0, rows].mean()) * (b - noise[1, rows].mean())
        return 6 / np.pi * np.arcsin(np.clip((seen - shared[rows].mean()) / np.sqrt(own), -1, 1) / 2)

    assert found.estimate == pytest.approx(once(np.arange(n), 1.0))
    assert found.reliability_x == pytest.approx(1 - noise[0].mean() / x.var(ddof=1))
    counts = np.concatenate(list(iter_counts(n, 60, np.random.default_rng(0)))).astype(int)
    draws = [once(np.repeat(np.arange(n), row), n / (n - 1)) for row in counts]
    assert found.share_clipped < 0.2
    np.testing.assert_allclose((found.ci_low, found.ci_high), np.quantile(draws, [0.025, 0.975]))


def test_a_mean_that_is_not_known_is_refused_and_not_called_clipped():
    x, one = np.append(np.arange(9.0), np.nan), np.full(10, 0.1)
    with pytest.raises(InputError, match="leave those datasets out"):
        corrected_spearman(x, np.arange(10.0), one, one, 0 * one, rng=np.random.default_rng(0), n_resamples=50)


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
    little = np.full(30, 0.02)  # every resample of a perfect ranking is clipped
    one = Comparison("x vs x", x, x, (little, little, 0 * little), np.zeros(30, dtype=bool))
    table = correlation_table([one], [f"d{k}" for k in range(30)], np.zeros(30), np.random.default_rng(0), 0.95, 50)
    assert np.isnan(table.row("x vs x", NOISE_FREE)["ci_low"])
    assert any("every resample gives 1; no interval is given" in text for text in table.warnings)


def test_a_few_clipped_resamples_are_said_and_fewer_are_not():
    x = np.random.default_rng(0).normal(size=30)
    y = x + 0.3 * np.random.default_rng(1).normal(size=30)
    for noise, said in ((0.02, True), (0.005, False)):
        error = np.full(30, noise)
        found = corrected_spearman(x, y, error, error, 0 * error, rng=np.random.default_rng(0), n_resamples=200)
        assert (0.025 < found.share_clipped < 0.1) is said
        text = f"{found.share_clipped:.0%} of resamples are clipped at 1 or undefined in the noise correction"
        assert (text in found.warnings) is said


def test_normal_means_are_transformed_as_seldom_as_a_five_per_cent_test_says():
    rng, error = np.random.default_rng(5), np.full(40, 0.01)
    powers = [near_normal(*rng.normal(size=(2, 40)), error, error, 0 * error)[1] for _ in range(200)]
    assert 0.02 < np.mean([power != 1 for pair in powers for power in pair]) < 0.08


def simulate(rng, rho: float, reliability: float, n: int, log: bool = False) -> tuple[np.ndarray, tuple]:
    truth = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n)
    truth = np.exp(truth) / 2.16 if log else truth
    noise = (1 - reliability) / reliability * rng.uniform(0.3, 1.7, n)
    error = rng.multivariate_normal([0, 0], [[1, 0.3], [0.3, 1]], n) * np.sqrt(noise)[:, None]
    return truth, (*(truth + error).T, noise, noise, 0.3 * noise)


# Committed bands: what these simulations give (150 studies, so ± .035 is two standard errors). Without the transform
# of skewed means the lognormal row has 74%.
@pytest.mark.parametrize(
    ("rho", "reliability", "log", "fewest", "most"),
    [
        (0.3, 0.9, False, 0.9, 0.99),
        (0.7, 0.97, False, 0.9, 0.99),
        (0.9, 0.9, False, 0.89, 0.98),
        (0.9, 0.98, True, 0.92, 1.0),
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


@pytest.mark.parametrize("sign", [1, -1])
def test_skewed_means_are_transformed_and_normal_ones_are_not(sign):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 40))
    noise = rng.uniform(0.001, 0.01, (2, 40))
    shared = 0.5 * np.sqrt(noise[0] * noise[1])
    left, powers = near_normal(*z, *noise, shared)
    assert powers == (1, 1)
    for got, given in zip(left, (*z, *noise, shared)):
        np.testing.assert_array_equal(got, given)
    skewed = sign * np.exp(z[0])
    seen = skewed, z[1], *noise, sign * shared
    known = 1 - noise[0].mean() / skewed.var(ddof=1)  # of the means as they are
    assert corrected_spearman(*seen, rng=rng, n_resamples=2).reliability_x == pytest.approx(known)
    (x, _, var_x, var_y, covariance), powers = near_normal(*seen)
    assert powers[0] < 0.5 if sign == 1 else powers[0] > 1.5
    assert powers[1] == 1
    scaled = near_normal(100 * skewed, z[1], 1e4 * noise[0], noise[1], sign * 100 * shared)[0]
    np.testing.assert_allclose(scaled[::2], (x, var_x, covariance))
    assert near_normal(*(side[:7] for side in (sign * np.exp(np.linspace(-3, 3, 40))[::6], *seen[1:])))[1] == (1, 1)
    np.testing.assert_array_equal(np.argsort(x), np.argsort(skewed))
    assert abs(stats.skew(x)) < 0.3
    np.testing.assert_allclose(covariance / np.sqrt(var_x * var_y), sign * 0.5)
    far = np.argmax(np.abs(skewed))  # an error of the same size says less where means are sparse
    assert var_x[far] / noise[0, far] < 0.1 * np.median(var_x / noise[0])
    draws = skewed[3] + np.sqrt(noise[0, 3]) * rng.normal(size=20_000)
    spread, centre = skewed.std(), np.median(skewed)
    known = stats.yeojohnson((draws - centre) / spread, powers[0]).var()
    assert var_x[3] == pytest.approx(known, rel=0.05)


def test_the_noise_corrected_correlation_covers_under_lognormal_means():
    rng, hits, target = np.random.default_rng(12), 0, 6 / np.pi * np.arcsin(0.9 / 2)
    for _ in range(150):
        _, seen = simulate(rng, 0.9, 0.98, 40, log=True)
        found = corrected_spearman(*seen, rng=rng, n_resamples=250)
        hits += found.ci_low <= target <= found.ci_high
    assert hits / 150 >= 0.9  # 85% on the means as they are
    assert any("Yeo-Johnson transform" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("shared", "words"),
    [(0.0, "is noise, and pulls their correlation towards 0: 0.40"), (0.25, "noise that correlates 0.50 between")],
)
def test_noise_pulls_a_correlation_towards_its_own(shared, words):
    half = np.full(12, 0.5)
    one = Comparison("x vs y", half, half, (half, half, shared * 2 * half), half > 0)
    (said,) = _noisy(one, SimpleNamespace(reliability_x=0.5, reliability_y=0.6, estimate=0.7), 0.4)
    assert said.startswith("50% and 40% of the variance between observed means is noise")
    assert words in said
    assert ("towards 0.50: 0.40" in said) == (shared > 0)
    assert said.endswith("with the noise removed, 0.70")


def test_noise_of_one_side_alone_is_said_too():
    rng, truth = np.random.default_rng(2), true_means(0.7)
    quiet = truth[:, :1, None] + 0.01 * rng.normal(size=(20, 1, 30))
    loud = truth[:, 1:, None] + 6 * rng.normal(size=(20, 1, 30))
    slopes = {f"d{k}": np.concatenate([a, b])[None] for k, (a, b) in enumerate(zip(quiet, loud))}
    found = correlate(SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=slopes), 50)
    assert found.reliability_x[0] > 0.99
    assert found.reliability_y[0] < 0.8
    (said,) = [text for text in found.warnings if "for observed means, not for true ones" in text]
    assert f": 0% and {1 - found.reliability_y[0]:.0%} of the variance between observed means" in said


def test_noise_that_both_sides_share_is_said_where_it_can_make_the_correlation():
    """Twelve unrelated true means, six questions each: the questions' own slopes, in both means, make one of .6."""
    rng, missed, slopes = np.random.default_rng(1), 0, {}
    for _ in range(40):
        for k in range(12):
            own = rng.normal(0, 0.8, 6)
            slopes[f"d{k}"] = (np.array([1, 0.8]) + 0.25 * rng.normal(size=2))[None, :, None] + np.stack([own, own])
        found = correlate(SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=slopes), 200)
        row = found.row(SHIFT, POPULATION, "percentile over datasets")
        missed += row["ci_low"] > 0
        if min(row["reliability_x"], row["reliability_y"]) < 0.8:
            assert any("for observed means, not for true ones" in text for text in found.warnings)
    assert missed > 8, "the population interval is about observed means"
    quiet = correlate(make_grid(true_means(0.7)), 200)  # two hundred inputs a dataset
    assert not any("for observed means, not for true ones" in text for text in quiet.warnings)
