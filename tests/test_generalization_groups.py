"""Datasets in two groups, perfect rankings, and figure 7 over few datasets: intervals that once said too much."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from known_truth import make_grid, true_means

from steerstats.generalization import SlopeGrid, id_ood_correlation, propensity_shift, steerability_variance
from steerstats.generalization.correlation import FIXED, NOISE_FREE, POPULATION
from steerstats.generalization.figure7 import jackknife_limits
from steerstats.generalization.fixed_datasets import draw_correlations
from steerstats.generalization.two_groups import possible, two_groups
from steerstats.predictors.associations import dataset_associations
from steerstats.resampling import correlation_of, spearman
from steerstats.resampling.ranks import PERFECT

SHIFT = "base->base vs base->user_neg"
ERROR = 0.5**2 / 500


def half_near_zero(rng: np.random.Generator, spread: float, d: int = 40) -> tuple[np.ndarray, tuple]:
    """True means (2, d), half of them of the given spread about zero, as 500 inputs of slope SD .5 see them."""
    near, e = np.arange(d) < d // 2, rng.normal(size=(2, d))
    x = np.where(near, spread * e[0], 0.6 * np.exp(0.4 * e[0]))
    truth = np.stack([x, 0.7 * x + 0.15 * np.where(near, spread / 0.6, 1) * e[1]])
    error = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 0.72]], d).T * np.sqrt(ERROR)
    return truth, (*(truth + error), np.full(d, ERROR), np.full(d, 0.72 * ERROR), np.full(d, 0.6 * ERROR))


@pytest.mark.parametrize("spread", [0.03, 0.01])
def test_datasets_that_do_not_steer_do_not_lend_their_order_to_the_others(spread):
    rng, hits, studies = np.random.default_rng(3), 0, 15
    for _ in range(studies):
        truth, seen = half_near_zero(rng, spread)
        low, high = np.quantile(draw_correlations(*seen, rng=rng, n_resamples=200), [0.025, 0.975])
        hits += low <= spearman(*truth) <= high
    assert hits >= 13  # with one normal law for all .86 and .77 of 100 studies


def test_two_groups_are_found_and_their_draws_are_repeatable():
    _, seen = half_near_zero(np.random.default_rng(0), 0.02)
    found = two_groups(*seen)
    assert found.clear
    np.testing.assert_array_equal(found.tight, np.arange(40) < 20)
    once, again = (draw_correlations(*seen, rng=np.random.default_rng(1), n_resamples=90) for _ in range(2))
    assert once.shape == (90,)
    np.testing.assert_array_equal(once, again)
    scaled = *(1000 * v for v in seen[:2]), *(1e6 * v for v in seen[2:])
    np.testing.assert_array_equal(two_groups(*scaled).tight, found.tight)


def test_normal_means_are_one_group_and_a_few_datasets_are_none():
    rng = np.random.default_rng(0)
    noise = np.full(40, 0.1), np.full(40, 0.1), np.zeros(40)
    assert two_groups(*rng.normal(size=(2, 40)), *noise) is None
    assert two_groups(*half_near_zero(rng, 0.01, 8)[1]) is None
    assert [possible(rng.normal(size=(2, 12)), np.arange(12) < n) for n in (4, 5, 7, 8)] == [False, True, True, False]
    _, seen = half_near_zero(rng, 0.01)
    assert two_groups(*seen[:2], *np.zeros((3, 40))) is None  # without noise no law is needed


@pytest.mark.parametrize(("spread", "seed", "clear"), [(0.03, 2, True), (0.05, 4, False), (0.03, 3, None)])
def test_two_laws_are_weighed_by_twice_their_gain_in_log_likelihood(spread, seed, clear):
    found = two_groups(*half_near_zero(np.random.default_rng(seed), spread, 12)[1])  # 32, 20 and 14
    assert (found and found.clear) is clear


def test_groups_are_said_in_the_table_and_reach_the_estimate_that_a_verdict_judges():
    rng = np.random.default_rng(0)
    truth, _ = half_near_zero(rng, 0.01)
    grid = make_grid(truth.T, n=500, spread=0.3)
    found = id_ood_correlation(grid, ["base->user_neg"], rng=rng, n_resamples=100)
    said = [
        text for text in found.as_estimate(SHIFT, FIXED).warnings if "two groups of datasets (of 20 and 20)" in text
    ]
    assert said
    assert "noise-corrected interval assumes one for all" in said[0]
    plain = id_ood_correlation(make_grid(true_means(0.7)), ["base->user_neg"], rng=rng, n_resamples=100)
    assert not any("two groups" in text for text in plain.warnings)


def test_the_sentence_on_groups_counts_the_tight_one_first():
    rng = np.random.default_rng(0)
    truth, seen = half_near_zero(rng, 0.01)
    kept = np.r_[0:12, 20:40]
    groups = two_groups(*(side[kept] for side in seen))
    assert groups.tight.sum() == 12
    found = id_ood_correlation(make_grid(truth.T[kept], n=500, spread=0.3), ["base->user_neg"], rng=rng, n_resamples=50)
    assert any("two groups of datasets (of 12 and 20)" in text for text in found.warnings)


def test_groups_that_one_law_might_have_made_are_said_to_be_possible_alone(monkeypatch):
    rng = np.random.default_rng(0)
    truth, _ = half_near_zero(rng, 0.01)
    grid = make_grid(truth.T, n=500, spread=0.3)
    monkeypatch.setattr("steerstats.generalization.two_groups.CLEARLY", np.inf)
    found = id_ood_correlation(grid, ["base->user_neg"], rng=rng, n_resamples=50)
    (said,) = [text for text in found.warnings if "two groups of datasets" in text]
    assert "may describe the means better than one normal distribution" in said


def ranked(d: int = 8) -> SlopeGrid:
    """Means, and variances, that both sides rank alike."""
    rng = np.random.default_rng(0)
    base = np.sqrt(1.0 + np.arange(d))[:, None] * (rng.normal(size=(1, 30)) + 9)
    slopes = {f"d{k}": np.stack([row, 2 * row])[None] for k, row in enumerate(base)}
    return SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=slopes)


def test_a_perfect_ranking_gives_no_interval_for_other_datasets():
    found = id_ood_correlation(ranked(), ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=100)
    for interval in ("percentile over datasets", "Bonett-Wright"):
        row = found.row(SHIFT, POPULATION, interval)
        assert row["estimate"] == 1
        assert np.isnan([row["ci_low"], row["ci_high"]]).all()
    assert f"{SHIFT}, {POPULATION}: {PERFECT}" in found.warnings
    free = found.row(SHIFT, NOISE_FREE)
    assert free["ci_low"] != free["ci_high"]
    assert np.isfinite(found.row(SHIFT, FIXED)["ci_low"])  # measurement noise still has something to say


def test_perfectly_ranked_variances_and_predictors_give_none_either():
    found = steerability_variance(ranked(), ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=50)
    row = found.correlations().iloc[0]
    assert row["rho"] == 1
    assert np.isnan([row["rho_ci_low"], row["rho_ci_high"], row["rho_bw_low"], row["rho_bw_high"]]).all()
    assert f"base->user_neg, correlation of variances: {PERFECT}" in found.warnings
    y = np.random.default_rng(1).normal(size=9)
    frame = pd.DataFrame({"same": y, "against": -np.exp(y), "other": np.roll(y, 1)})
    pairs = dataset_associations(frame, y, rng=np.random.default_rng(0), n_resamples=99, n_permutations=199)
    np.testing.assert_array_equal(pairs.rho[:2], [1, -1])
    assert np.isnan(pairs.ci_low[:2]).all()
    assert np.isnan(pairs.ci_high[:2]).all()
    assert np.isfinite([pairs.ci_low[2], pairs.ci_high[2]]).all()
    assert (pairs.p[:2] < 0.05).all()
    assert f"same, against: {PERFECT}" in pairs.warnings


def unrelated_pairs(rng: np.random.Generator, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Twenty pairs of every dataset: nothing to find, values of one dataset alike and of unequal spread."""
    cluster = np.repeat(np.arange(d), 20)
    x, y = (
        np.exp(0.5 * rng.normal(size=d))[cluster] * (rng.normal(size=d)[cluster] + rng.normal(size=20 * d))
        for _ in range(2)
    )
    return x, y, cluster


@pytest.mark.parametrize("kind", ["spearman", "pearson"])
def test_figure_seven_isjackknife_limits_by_dataset(kind):
    x, y, cluster = unrelated_pairs(np.random.default_rng(0), 9)
    low, high = np.arctanh(jackknife_limits(x, y, cluster, kind, 0.95))
    left = [np.arctanh(correlation_of(x[cluster != k], y[cluster != k], kind=kind)) for k in range(9)]
    error = np.sqrt(8 / 9 * np.square(left - np.mean(left)).sum())
    assert (low + high) / 2 == pytest.approx(np.arctanh(correlation_of(x, y, kind=kind)))
    assert high - low == pytest.approx(2 * 2.306004 * error, rel=1e-6)


@pytest.mark.parametrize("d", [8, 14])
def test_figure_seven_keeps_its_level_over_few_datasets(d):
    rng, studies = np.random.default_rng(4), 200
    limits = np.array([jackknife_limits(*unrelated_pairs(rng, d), "spearman", 0.95) for _ in range(studies)])
    missed = ((limits[:, 0] > 0) | (limits[:, 1] < 0)).mean()
    assert 0.01 <= missed <= 0.085


def test_figure_seven_says_where_leaving_a_dataset_out_gives_one():
    slopes, resting = {}, {}
    for k in range(8):  # two settings: one pair of losses a dataset each way, ranked as their distance is
        slopes[f"d{k}"] = np.broadcast_to(np.array([[1.0, 0.9 - 0.1 * k], [0.9 - 0.1 * k, 1.0]])[..., None], (2, 2, 4))
        resting[f"d{k}"] = np.array([[0.0], [1.0 + k]]) + np.zeros(4)
    grid = SlopeGrid(train=("base", "a"), evaluate=("base", "a"), slopes=slopes, unsteered=resting)
    found = propensity_shift(grid)
    row = found.to_frame().set_index(["definition", "kind"]).loc[("transfer loss", "spearman")]
    assert row["estimate"] == pytest.approx(1)
    assert np.isnan([row["ci_low"], row["ci_high"]]).all()
    assert "transfer loss, spearman: leaving one dataset out gives ±1 or no correlation; no interval" in found.warnings
