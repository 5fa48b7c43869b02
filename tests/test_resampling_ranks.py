"""Rank correlations in resamples, permutation tests, simultaneous bands and step-down p-values, each against a loop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from steerstats.errors import CannotEstimate, InputError
from steerstats.resampling import (
    bonett_wright,
    bootstrap_correlation,
    bootstrap_mean,
    correlation_of,
    group_difference_test,
    max_t_bands,
    romano_wolf,
    sign_flip_test,
    spearman,
    spearman_test,
    weighted_midranks,
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 4)), min_size=1, max_size=12))
def test_midranks_from_counts_equal_the_ranks_of_the_expanded_sample(pairs):
    values, counts = (np.array(column, float) for column in zip(*pairs))
    ranks = weighted_midranks(values, counts[None])[0]
    expanded = np.repeat(values, counts.astype(int))
    known = dict(zip(expanded, stats.rankdata(expanded)))
    for value, count, rank in zip(values, counts, ranks):
        if count:
            assert rank == known[value]


@pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")
@pytest.mark.parametrize("ties", [False, True])
def test_resampled_spearman_equals_spearmanr_on_the_same_resamples(ties):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 5))
    if ties:
        x, y = np.round(x), np.round(y)
    found = bootstrap_correlation(x, y, rng=np.random.default_rng(4), n_resamples=200)
    index = np.random.default_rng(4).integers(0, 5, (200, 5))
    known = np.array([stats.spearmanr(x[i], y[i])[0] for i in index])
    np.testing.assert_allclose(found, known, atol=1e-12)  # NaN where spearmanr has NaN
    assert np.isnan(found).any() == ties


def test_clusters_are_resampled_whole():
    rng = np.random.default_rng(0)
    x, y, cluster = rng.normal(size=12), rng.normal(size=12), np.repeat(["c", "a", "b"], 4)
    found = bootstrap_correlation(x, y, cluster=cluster, kind="pearson", rng=np.random.default_rng(2), n_resamples=30)
    index = np.random.default_rng(2).integers(0, 3, (30, 3))
    rows = [np.concatenate([np.flatnonzero(cluster == "abc"[k]) for k in drawn]) for drawn in index]
    np.testing.assert_allclose(found, [np.corrcoef(x[r], y[r])[0, 1] for r in rows], rtol=1e-10)


def test_spearman_of_a_constant_is_undefined():
    assert np.isnan(spearman(np.ones(5), np.arange(5.0)))
    assert np.isnan(correlation_of(np.ones(5), np.arange(5.0), kind="pearson"))


@pytest.mark.parametrize(
    ("rho", "low", "high"), [(0.891, 0.78, 0.95), (0.694, 0.46, 0.84), (0.769, 0.57, 0.88), (0.586, 0.31, 0.77)]
)
def test_bonett_wright_gives_the_intervals_of_the_published_correlations(rho, low, high):
    np.testing.assert_allclose(bonett_wright(rho, 40), [low, high], atol=0.006)


def test_a_resample_that_is_constant_but_for_rounding_has_no_correlation():
    x, y = np.array([0.1, 0.1, 0.1, 0.7, 0.3]), np.array([0.2, 0.5, 0.3, 0.9, 0.4])
    found = bootstrap_correlation(x, y, kind="pearson", rng=np.random.default_rng(0), n_resamples=2000)
    index = np.random.default_rng(0).integers(0, 5, (2000, 5))
    np.testing.assert_array_equal(np.isnan(found), np.ptp(x[index], axis=1) == 0)
    small = bootstrap_correlation(1e-6 * x, y, kind="pearson", rng=np.random.default_rng(0), n_resamples=2000)
    np.testing.assert_allclose(small, found)


def test_bonett_wright_has_no_interval_where_the_formula_has_none():
    assert np.isnan(bonett_wright(0.5, 3)).all()
    assert np.isnan(bonett_wright(1.0, 20)).all()


def test_sign_flips_agree_with_enumeration():
    values = np.array([0.3, 1.2, -0.4, 0.9, 0.8, 1.1, 0.2])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 7)).reshape(7, -1)
    exact = np.mean(np.abs(signs.T @ values) >= abs(values.sum()) - 1e-12)
    for asked in (127, 20_000):  # all of the others; 126 are drawn
        assert sign_flip_test(values, rng=np.random.default_rng(0), n_permutations=asked)[0] == pytest.approx(exact)
    drawn = [sign_flip_test(values, rng=np.random.default_rng(k), n_permutations=126)[0] for k in range(300)]
    assert np.mean(drawn) == pytest.approx((1 + 126 * exact) / 127, abs=0.004)


def test_twins_flip_together():
    # Ten copies of three questions: 2 ** 3 sign patterns, the smallest two-sided p-value is 1/4.
    p = sign_flip_test(np.tile([1.0, 1.1, 0.9], 10), unit=np.tile([0, 1, 2], 10), rng=np.random.default_rng(0))
    assert p[0] == 0.25


def test_arrangements_that_differ_by_the_order_of_adding_are_ties():
    values = np.repeat([0.1, -0.1], [8, 3])  # 5 of 11 tenths
    exact = 2 * stats.binom.sf(7, 11, 0.5)
    found = sign_flip_test([values, 1e13 * values[::-1]], rng=np.random.default_rng(0))
    np.testing.assert_allclose(found, exact)
    small = 1e-13 * np.arange(1.0, 8)  # a cell beside large ones has a size of its own
    assert sign_flip_test([small, np.ones(7)], rng=np.random.default_rng(0))[0] == 2 / 2**7


def test_group_differences_agree_with_enumeration():
    values, group = np.array([1.0, 2.5, 0.3, 4.0, 5.5, 3.9]), np.array(list("aaabbb"))
    known = stats.permutation_test(
        (values[:3], values[3:]), lambda a, b: a.mean() - b.mean(), n_resamples=np.inf
    ).pvalue
    for asked in (19, 20_000):  # C(6, 3) = 20
        assert group_difference_test(values, group, rng=np.random.default_rng(0), n_permutations=asked) == known
    drawn = [group_difference_test(values, group, rng=np.random.default_rng(k), n_permutations=18) for k in range(999)]
    assert np.mean(drawn) == pytest.approx((1 + 18 * known) / 19, abs=0.01)


def test_rank_correlations_of_few_agree_with_enumeration():
    x, y = np.array([1.0, 2.5, 0.3, 4.0, 5.5]), np.array([0.2, 0.9, 0.4, 0.4, 2.0])
    orders = list(itertools.permutations(y))
    every = [stats.spearmanr(x, order)[0] for order in orders]
    exact = np.mean(np.abs(every) >= abs(stats.spearmanr(x, y)[0]) - 1e-9)
    for asked in (119, 9_999):
        assert spearman_test(x, y, rng=np.random.default_rng(0), n_permutations=asked)[1] == pytest.approx(exact)


def test_a_side_without_ranks_has_neither_a_correlation_nor_a_p_value():
    assert np.isnan(spearman_test(np.ones(5), np.arange(5.0), rng=np.random.default_rng(0))).all()


def test_group_differences_need_two_groups():
    with pytest.raises(CannotEstimate, match="exactly two"):
        group_difference_test(np.arange(3.0), np.array(list("abc")), rng=np.random.default_rng(0))


def test_permuting_whole_clusters_keeps_pairs_within_their_dataset():
    rng = np.random.default_rng(0)
    level = rng.normal(size=(12, 1))
    x, y = level + 0.1 * rng.normal(size=(12, 20)), rng.normal(size=(12, 1)) + 0.1 * rng.normal(size=(12, 20))
    rho, by_cluster = spearman_test(x, y, rng=rng, n_permutations=999)
    assert rho == pytest.approx(stats.spearmanr(x.ravel(), y.ravel())[0])
    as_independent = spearman_test(x.ravel(), y.ravel(), rng=rng, n_permutations=999)[1]
    assert by_cluster > 0.05
    assert as_independent < 0.02


def test_permutation_p_values_are_never_zero():
    x = np.arange(30.0)
    assert spearman_test(x, x, rng=np.random.default_rng(0), n_permutations=99)[1] == pytest.approx(0.01)
    assert sign_flip_test(x + 1, rng=np.random.default_rng(0), n_permutations=99)[0] == pytest.approx(0.01)


def slow_romano_wolf(estimate: np.ndarray, se: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Step-down by the book: test the most significant cell against the maximum over all cells left."""
    observed = np.abs(estimate / se)
    left, p, least = list(range(len(estimate))), np.empty(len(estimate)), 0.0
    while left:
        top = max(left, key=lambda k: observed[k])
        exceed = sum(max(abs(row[k]) for k in left) >= observed[top] for row in t)
        least = max(least, (1 + exceed) / (len(t) + 1))
        p[top] = least
        left.remove(top)
    return p


def test_romano_wolf_equals_the_step_down_loop():
    rng = np.random.default_rng(1)
    estimate, se, t = rng.normal(0, 1.5, 7), rng.uniform(0.5, 1, 7), rng.standard_t(5, (199, 7))
    np.testing.assert_allclose(romano_wolf(estimate, se, t), slow_romano_wolf(estimate, se, t), rtol=1e-12)


def test_romano_wolf_about_another_null_is_that_of_the_difference_to_it():
    rng = np.random.default_rng(3)
    estimate, se, t = rng.normal(0, 1.5, 7), rng.uniform(0.5, 1, 7), rng.standard_t(5, (199, 7))
    np.testing.assert_allclose(romano_wolf(estimate + 2, se, t, null=2.0), romano_wolf(estimate, se, t))


def test_step_down_p_values_lie_between_marginal_and_single_step_ones():
    rng = np.random.default_rng(2)
    estimate, se, t = rng.normal(0, 2, 9), np.ones(9), rng.normal(size=(499, 9))
    p = romano_wolf(estimate, se, t)
    marginal = (1 + (np.abs(t) >= np.abs(estimate)).sum(axis=0)) / 500
    single = (1 + (np.abs(t).max(axis=1)[:, None] >= np.abs(estimate)).sum(axis=0)) / 500
    assert (p >= marginal - 1e-12).all()
    assert (p <= single + 1e-12).all()
    assert (p < single - 1e-3).any()


def test_bands_use_the_largest_t_of_each_resample():
    rng = np.random.default_rng(3)
    t = rng.normal(size=(399, 6))
    low, high = max_t_bands(np.arange(6.0), np.full(6, 2.0), t, 0.9)
    critical = np.quantile(np.abs(t).max(axis=1), 0.9)
    np.testing.assert_allclose([low, high], [np.arange(6) - 2 * critical, np.arange(6) + 2 * critical])


def test_an_infinite_t_does_not_vanish_from_the_maximum():
    t = np.random.default_rng(0).normal(size=(100, 3))
    t[:4, 1] = np.inf
    estimate, se = np.array([2.0, 2.0, 2.0]), np.ones(3)
    assert np.isfinite(max_t_bands(estimate, se, t, 0.95)).all()
    t[:6, 1] = np.inf
    assert np.isinf(max_t_bands(estimate, se, t, 0.95)).all()
    low, high = max_t_bands(estimate, np.array([1.0, 1.0, 0.0]), t, 0.95)
    assert (low[2], high[2]) == (2, 2), "a cell without variance has a band of no width all the same"
    t[:6, 1] = np.nan
    assert np.isinf(max_t_bands(estimate, se, t, 0.95)).all()
    assert (romano_wolf(estimate, se, t) >= 7 / 101).all()


def test_cells_without_a_standard_error_stay_outside_the_family():
    t = np.random.default_rng(0).normal(size=(200, 3))
    se = np.array([1.0, np.nan, 1.0])
    low, high = max_t_bands(np.zeros(3), se, np.where([True, False, True], t, np.inf))
    assert np.isnan([low[1], high[1]]).all()
    np.testing.assert_allclose(high[[0, 2]], max_t_bands(np.zeros(2), np.ones(2), t[:, [0, 2]])[1])
    assert np.isnan(romano_wolf(np.ones(3), se, t)[1])


def test_a_constant_gap_is_decided_by_its_value():
    found = bootstrap_mean(
        np.stack([np.full(8, 0.7), np.zeros(8), np.eye(8)[0]]), rng=np.random.default_rng(0), n_resamples=99
    )
    p = romano_wolf(found.estimate, found.se, found.t())
    assert p[0] == pytest.approx(0.01)
    assert p[1] == 1.0


def test_a_constant_gap_costs_the_others_nothing():
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(0.3, 1, 12), np.full(12, 0.1)])
    both, alone = (bootstrap_mean(v, rng=np.random.default_rng(0), n_resamples=199) for v in (values, values[0]))
    bands, own = (max_t_bands(found.estimate, found.se, found.t()) for found in (both, alone))
    np.testing.assert_allclose(np.take(bands, 0, axis=1), np.ravel(own))
    np.testing.assert_allclose(np.take(bands, 1, axis=1), 0.1)
    p, its = (romano_wolf(found.estimate, found.se, found.t())[0] for found in (both, alone))
    assert p == its < 1


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(InputError, match="t is"):
        max_t_bands(np.ones(3), np.ones(3), np.ones((10, 2)))
    with pytest.raises(InputError, match="one label for each of the 3"):
        bootstrap_correlation(np.ones(3), np.ones(3), cluster=np.ones(2), rng=np.random.default_rng(0))
    with pytest.raises(InputError, match=r"cluster\[0\] is missing"):
        bootstrap_correlation(np.ones(3), np.ones(3), cluster=[None, "a", "b"], rng=np.random.default_rng(0))


@settings(deadline=None)
@given(st.floats(-3, 3), st.integers(2, 40), st.integers(0, 2**32 - 1), st.sampled_from(["spearman", "pearson"]))
def test_numbers_that_are_equal_but_for_rounding_have_no_correlation(value, n, seed, kind):
    rng = np.random.default_rng(seed)
    x = value * (1 + rng.integers(-2, 3, n) * np.finfo(float).eps)
    assert np.isnan(correlation_of(x, np.arange(n), kind=kind))
    assert np.isnan(correlation_of(np.arange(n), x, kind=kind))


def test_lists_and_columns_of_objects_are_numbers_too():
    ranks = weighted_midranks([3.0, 1.0, 2.0], [[1, 1, 1], [0, 2, 1]])
    np.testing.assert_array_equal(ranks, [[3, 1, 2], [3.5, 1.5, 3]])
    assert correlation_of(np.array([1, 2, 4], dtype=object), [1, 2, 3]) == 1
