"""The counts engine: scipy's draws, its intervals, a slow oracle for what scipy lacks, and the edges."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from steerstats.errors import InputError
from steerstats.generalization import SlopeGrid, gap_table
from steerstats.predictors import crossfit
from steerstats.resampling import (
    SumRatio,
    bootstrap_correlation,
    bootstrap_mean,
    bootstrap_ratio,
    collapse,
    group_difference_test,
    interval,
    iter_counts,
    mean_covariance,
    quantile_pair,
    resample,
    resampled_sums,
    sign_flip_test,
    spearman_test,
)
from steerstats.sweeps import choose_layer

QUICK = settings(max_examples=25, deadline=None)


def skewed(seed: int, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.lognormal(size=n) + 1
    return 0.6 * x + rng.normal(0, 0.5, n), x


def slow_studentised(values: np.ndarray, index: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Bootstrap-t of a mean, one resample at a time."""
    n, mean = len(values), values.mean()
    t = [(values[i].mean() - mean) / (values[i].std(ddof=1) / np.sqrt(n)) for i in index]
    low, high = np.quantile(t, [(1 - level) / 2, (1 + level) / 2])
    se = values.std(ddof=1) / np.sqrt(n)
    return mean - se * high, mean - se * low


@pytest.mark.parametrize(("ours", "theirs"), [("percentile", "percentile"), ("basic", "basic"), ("bca", "BCa")])
@pytest.mark.parametrize("what", ["gap", "ratio"])
def test_intervals_equal_scipys_on_the_same_resamples(ours, theirs, what):
    y, x = skewed(1)
    if what == "gap":
        found = bootstrap_mean(x - y, rng=np.random.default_rng(5), n_resamples=700)
        statistic = lambda a, b, axis: (b - a).mean(axis)  # noqa: E731
    else:
        found = bootstrap_ratio(y, x, rng=np.random.default_rng(5), n_resamples=700)
        statistic = lambda a, b, axis: a.mean(axis) / b.mean(axis)  # noqa: E731
    known = stats.bootstrap(
        (y, x), statistic, paired=True, n_resamples=700, method=theirs, rng=np.random.default_rng(5)
    )
    np.testing.assert_allclose(np.ravel(interval(found, ours)), known.confidence_interval, rtol=1e-12)


def test_the_t_interval_is_that_of_a_t_test():
    x = np.random.default_rng(0).normal(size=7)
    found = bootstrap_mean(x, rng=np.random.default_rng(0), n_resamples=10)
    np.testing.assert_allclose(np.ravel(interval(found, "t", 0.9)), stats.ttest_1samp(x, 0).confidence_interval(0.9))


def test_bca_counts_ties_with_the_estimate_half_as_scipy_does():
    x = np.array([-10.0, -3, 0, 1, 2, 5, 6])  # scipy's sums of whole numbers tie exactly, ours up to rounding
    found = bootstrap_mean(x, rng=np.random.default_rng(5), n_resamples=900)
    assert (np.abs(found.replicates - found.estimate) < 1e-12).mean() > 0.01
    known = stats.bootstrap((x,), np.mean, n_resamples=900, method="BCa", rng=np.random.default_rng(5))
    np.testing.assert_allclose(np.ravel(interval(found, "bca")), known.confidence_interval, rtol=1e-12)


def test_studentised_interval_equals_a_loop_over_resamples():
    y, x = skewed(2)
    found = bootstrap_mean(x - y, rng=np.random.default_rng(3), n_resamples=300)
    index = np.random.default_rng(3).integers(0, len(x), (300, len(x)))
    np.testing.assert_allclose(np.ravel(interval(found)), slow_studentised(x - y, index), rtol=1e-11)


def test_the_standard_error_of_a_ratio_is_the_linearised_one_in_every_resample():
    y, x = skewed(3)
    found = bootstrap_ratio(y, x, rng=np.random.default_rng(3), n_resamples=50)
    index = np.random.default_rng(3).integers(0, len(x), (50, len(x)))
    for b, i in enumerate(index):
        ratio = y[i].mean() / x[i].mean()
        se = np.std(y[i] - ratio * x[i], ddof=1) / np.sqrt(len(x)) / x[i].mean()
        np.testing.assert_allclose([found.replicates[b, 0], found.se_replicates[b, 0]], [ratio, se], rtol=1e-11)


def test_gap_and_ratio_of_one_call_share_their_resamples():
    y, x = skewed(4)
    gaps, ratios = resample(
        [SumRatio(x - y, np.ones(len(x))), SumRatio(y, x)], rng=np.random.default_rng(0), n_resamples=99
    )
    index = np.random.default_rng(0).integers(0, len(x), (99, len(x)))
    np.testing.assert_allclose(gaps.replicates[:, 0], (x - y)[index].mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(ratios.replicates[:, 0], y[index].mean(axis=1) / x[index].mean(axis=1), rtol=1e-12)


def test_twins_are_drawn_together():
    rng = np.random.default_rng(0)
    values, question = rng.normal(size=30), np.repeat(np.arange(20), [2] * 10 + [1] * 10)
    order = rng.permutation(30)
    found = bootstrap_mean(values[order], unit=question[order], rng=np.random.default_rng(2), n_resamples=40)
    names = list(dict.fromkeys(question[order].tolist()))
    index = np.random.default_rng(2).integers(0, 20, (40, 20))
    drawn = [np.concatenate([values[question == names[k]] for k in row]).mean() for row in index]
    np.testing.assert_allclose(found.replicates[:, 0], drawn, rtol=1e-12)
    assert found.n_units == 20


def test_the_clustered_standard_error_doubles_the_variance_of_duplicated_inputs():
    values = np.random.default_rng(0).normal(size=25)
    _, once, _ = mean_covariance(values)
    _, twice, n = mean_covariance(np.tile(values, 2), np.tile(np.arange(25), 2))
    _, naive, _ = mean_covariance(np.tile(values, 2))
    assert n == 25
    np.testing.assert_allclose(twice, once, rtol=1e-12)
    assert naive[0, 0] < 0.55 * once[0, 0]


def test_chunks_do_not_change_the_draws():
    whole, pieces = (
        np.concatenate(list(iter_counts(20, 50, np.random.default_rng(1), chunk_bytes=size)))
        for size in (10**7, 8 * 20 * 3)
    )
    np.testing.assert_array_equal(whole, pieces)
    assert (whole.sum(axis=1) == 20).all()


def test_memory_does_not_grow_with_the_number_of_resamples():
    statistic = [SumRatio(np.random.default_rng(0).normal(size=(2, 500)), np.ones(500))]
    tracemalloc.start()
    found = resample(statistic, rng=np.random.default_rng(1), n_resamples=20_000)[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The counts alone would be 80 MB; the replicates returned are 0.64 MB.
    assert peak - found.replicates.nbytes - found.se_replicates.nbytes < 6 * 2**20


def test_resampled_sums_are_sums_over_drawn_units():
    columns = np.arange(12.0).reshape(6, 2)
    index = np.random.default_rng(9).integers(0, 6, (15, 6))
    np.testing.assert_allclose(resampled_sums(columns, 15, np.random.default_rng(9)), columns[index].sum(axis=1))


@QUICK
@given(
    st.integers(0, 10_000), st.floats(0.1, 50), st.floats(-100, 100), st.sampled_from(["studentised", "bca", "basic"])
)
def test_intervals_move_and_stretch_with_the_data(seed, scale, shift, method):
    x = np.random.default_rng(seed).normal(size=12)
    low, high = interval(bootstrap_mean(x, rng=np.random.default_rng(1), n_resamples=200), method)
    moved = interval(bootstrap_mean(scale * x + shift, rng=np.random.default_rng(1), n_resamples=200), method)
    np.testing.assert_allclose(moved, [scale * low + shift, scale * high + shift], atol=1e-8 * (scale + abs(shift)))


@QUICK
@given(st.integers(0, 10_000), st.sampled_from(["studentised", "percentile", "basic", "t"]))
def test_flipping_the_sign_flips_the_interval(seed, method):
    x = np.random.default_rng(seed).exponential(size=15)
    low, high = interval(bootstrap_mean(x, rng=np.random.default_rng(1), n_resamples=150), method)
    flipped = interval(bootstrap_mean(-x, rng=np.random.default_rng(1), n_resamples=150), method)
    np.testing.assert_allclose(flipped, [-high, -low], rtol=1e-9, atol=1e-12)


def test_a_resample_without_variance_gives_an_infinite_t_and_an_infinite_limit():
    # One nonzero gap among four: a third of the resamples are all zero, with a standard error of exactly 0.
    found = bootstrap_mean(np.array([0.0, 0.0, 0.0, 1.0]), rng=np.random.default_rng(0), n_resamples=2000)
    constant = (found.replicates[:, 0] == 0) | (found.replicates[:, 0] == 1)
    assert 0.28 < constant.mean() < 0.36
    assert np.isinf(found.t()[constant, 0]).all()
    assert np.isfinite(found.t()[~constant, 0]).all()
    assert interval(found)[1][0] == np.inf


def test_constant_resamples_are_recognised_through_rounding():
    values = np.array([0.1] * 6 + [0.3]) * 1e6 / 3
    found = bootstrap_mean(values, rng=np.random.default_rng(0), n_resamples=500)
    index = np.random.default_rng(0).integers(0, 7, (500, 7))
    same = np.array([len(set(values[i])) == 1 for i in index])
    np.testing.assert_array_equal(found.se_replicates[:, 0] == 0, same)


@pytest.mark.parametrize("method", ["studentised", "bca", "percentile", "basic", "t", "normal"])
def test_constant_data_have_an_interval_of_no_width(method):
    found = bootstrap_mean(np.full(6, 0.1), rng=np.random.default_rng(0), n_resamples=100)
    np.testing.assert_allclose(np.ravel(interval(found, method)), [0.1, 0.1], rtol=1e-14)
    assert found.se[0] == 0


def test_a_ratio_without_variance_has_no_width_although_resamples_have_no_denominator():
    x = np.array([2.0, -1.0, -1.0, 3.0])
    found = bootstrap_ratio(x, x, rng=np.random.default_rng(0), n_resamples=200)
    assert np.isnan(found.replicates).mean() > 0.05
    assert np.ravel(interval(found)).tolist() == [1, 1]


def test_a_ratio_is_that_of_both_sides_with_the_other_sign():
    y, x = np.random.default_rng(0).normal([[1], [2]], 1, (2, 30))
    one, other = (bootstrap_ratio(s * y, s * x, rng=np.random.default_rng(0), n_resamples=100) for s in (1, -1))
    np.testing.assert_allclose(one.se, other.se)
    np.testing.assert_allclose(interval(one), interval(other))


@settings(deadline=None)
@given(st.floats(-3, 3), st.lists(st.integers(0, 9), min_size=3, max_size=60))
def test_values_that_are_equal_have_no_covariance_by_rounding(value, unit):
    values = np.stack([np.full(len(unit), value), np.arange(len(unit))])
    _, covariance, n_units = mean_covariance(values, np.array(unit))
    if n_units > 1:
        np.testing.assert_array_equal(covariance[0], 0)


def test_small_variance_around_a_large_mean_is_not_taken_for_none():
    x = 1000 + 1e-5 * np.random.default_rng(0).normal(size=30)
    found = bootstrap_mean(x, rng=np.random.default_rng(0), n_resamples=100)
    np.testing.assert_allclose(found.se[0], x.std(ddof=1) / np.sqrt(30), rtol=1e-6)
    assert (found.se_replicates > 0).all()


def test_one_unit_has_no_interval():
    for method in ("studentised", "bca", "t"):
        assert np.isnan(
            interval(bootstrap_mean(np.array([2.0]), rng=np.random.default_rng(0), n_resamples=10), method)
        ).all()


def test_undefined_resamples_widen_the_interval_instead_of_vanishing():
    values = np.linspace(0, 1, 101)[:, None]
    low, high = quantile_pair(values, 0.9)
    np.testing.assert_allclose([low[0], high[0]], [0.05, 0.95])
    values[:4] = np.nan  # four of 101: inside the lower and the upper tail
    wider_low, wider_high = quantile_pair(values, 0.9)
    assert wider_low[0] == pytest.approx(0.05)
    assert wider_high[0] == pytest.approx(0.99)
    values[:12] = np.nan  # more than a tail
    assert (quantile_pair(values, 0.9)[0][0], quantile_pair(values, 0.9)[1][0]) == (-np.inf, np.inf)
    few = np.append(np.linspace(0, 1, 10), np.nan)[:, None]  # the quantile lies between it and the next one
    assert np.ravel(quantile_pair(few, 0.96)).tolist() == [-np.inf, np.inf]


def test_collapse_keeps_the_order_of_first_appearance():
    sums, sizes = collapse(np.array([1.0, 2, 4, 8]), np.array(["z", "a", "z", "b"]))
    np.testing.assert_array_equal(sums, [5, 2, 8])
    np.testing.assert_array_equal(sizes, [2, 1, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng: bootstrap_mean(np.array([1.0, np.nan]), rng=rng), "NaN or infinite"),
        (lambda rng: bootstrap_mean(np.ones(3), unit=np.ones(2), rng=rng), r"unit has shape \(2,\)"),
        (lambda rng: bootstrap_mean(np.ones(3), unit=["a", np.nan, np.nan], rng=rng), r"unit\[1\] is missing"),
        (lambda rng: mean_covariance(np.ones((2, 3)), np.array([1.0, 2.0, np.nan])), r"unit\[2\] is missing"),
        (lambda rng: mean_covariance(np.ones((2, 3)), ["a", "b", None]), r"unit\[2\] is missing"),
        (lambda rng: list(iter_counts(0, 5, rng)), "n_units is 0"),
        (lambda rng: list(iter_counts(5, 0, rng)), "n_resamples is 0"),
        (lambda rng: interval(bootstrap_mean(np.ones(3), rng=rng, n_resamples=2), "exact"), "'exact' is unknown"),
        (lambda rng: interval(bootstrap_mean(np.ones(3), rng=rng, n_resamples=2), level=95), "level is 95"),
    ],
)
def test_refusals_name_the_value(call, message):
    with pytest.raises(InputError, match=message):
        call(np.random.default_rng(0))


@pytest.mark.parametrize("rng", [0, None, np.random.RandomState(0)], ids=["a seed", "nothing", "the old generator"])
def test_a_generator_that_is_none_is_refused_in_one_line(rng):
    x, said = np.arange(12.0), r"rng is .*; a numpy.random.Generator is needed, such as numpy.random.default_rng\(0\)"
    grid = SlopeGrid(train=("base",), evaluate=("base", "other"), slopes={"d": np.ones((1, 2, 12)) * x})
    calls = [
        lambda: bootstrap_mean(x, rng=rng),
        lambda: sign_flip_test(x, rng=rng),
        lambda: group_difference_test(x, x > 5, rng=rng),
        lambda: spearman_test(x, x, rng=rng),
        lambda: bootstrap_correlation(x, x, rng=rng),
        lambda: gap_table(grid, ["base->other"], rng=rng),
        lambda: choose_layer({"d": np.stack([x, x])}, [1, 2], rng=rng),
        lambda: crossfit(np.zeros((2, 12, 3)), rng=rng),
    ]
    for call in calls:
        with pytest.raises(InputError, match=said):
            call()
