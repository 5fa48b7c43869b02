"""Questions of unequal size: the t quantile they need, and what is said where a bootstrap has none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from steerstats import open_cache
from steerstats.cache.table import import_table
from steerstats.generalization import gap, steerability_table, with_vector_error
from steerstats.resampling import question_weight
from steerstats.resampling.question_weight import carrying_questions, question_df, weight_warnings
from steerstats.resampling.questions import group_codes, mean_se, wilson_interval
from steerstats.steerability import anti_steerable, mean_slope, summarise_steerability

SIZES = np.array([38, 33, 31, 27, 25] + 5 * [2] + 319 * [1])
"""As in the test half of the paper's myopic-reward."""
CODES = np.repeat(np.arange(len(SIZES)), SIZES)


def slopes(rng: np.random.Generator, alike: float, sizes: np.ndarray = SIZES) -> np.ndarray:
    codes = np.repeat(np.arange(len(sizes)), sizes)
    return np.sqrt(alike) * rng.standard_normal(len(sizes))[codes] + np.sqrt(1 - alike) * rng.standard_normal(
        len(codes)
    )


@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0])
def test_the_quantile_is_that_of_the_studentised_mean(alike):
    rng = np.random.default_rng(0)
    kinds, counts = np.unique(SIZES, return_counts=True)
    variances = (1 - alike) * kinds + alike * kinds**2.0
    sums = np.concatenate([np.sqrt(v) * rng.standard_normal((20_000, k)) for v, k in zip(variances, counts)], axis=1)
    sizes, groups = np.repeat(kinds, counts), counts.sum()
    total = sums.sum(axis=1)
    left = sums - total[:, None] * sizes / sizes.sum()
    studentised = np.abs(total) / np.sqrt(groups / (groups - 1) * np.square(left).sum(axis=1))
    for quantile in (1.5, 2.0, 2.5):
        exact = question_weight._beyond(quantile, kinds, counts, variances / variances.max())
        assert abs((studentised > quantile).mean() - exact) < 4 * np.sqrt(exact / 20_000)


def test_with_questions_of_one_size_the_quantile_is_students():
    for quantile in (1.0, 2.0, 4.0):
        found = question_weight._beyond(quantile, np.array([2.0]), np.array([7]), np.ones(1))
        assert found == pytest.approx(2 * stats.t.sf(quantile, 6), abs=1e-8)
    rng = np.random.default_rng(1)
    for sizes in (np.full(12, 3), np.full(40, 1), np.array([2, 1] * 40)):
        codes = np.repeat(np.arange(len(sizes)), sizes)
        assert question_df(rng.normal(size=len(codes)), codes, len(sizes), 0.95) == len(sizes) - 1


@pytest.mark.parametrize("alike", [0.0, 0.5, 0.9])
def test_intervals_of_a_mean_cover_where_five_questions_hold_a_third_of_the_inputs(alike):
    rng, covered, before = np.random.default_rng(2), [], []
    for _ in range(1500):
        values = slopes(rng, alike)
        found = mean_slope(values, questions=CODES)
        covered.append(found.ci_low <= 0 <= found.ci_high)
        before.append(abs(found.estimate) <= stats.t.ppf(0.975, len(SIZES) - 1) * found.se)
    assert 0.935 < np.mean(covered) < 0.975
    if alike > 0:
        assert np.mean(before) < 0.93


def test_degrees_of_freedom_are_said_and_the_vectors_error_uses_them():
    rng = np.random.default_rng(3)
    values = 1 + slopes(rng, 0.9)
    found = mean_slope(values, questions=CODES)
    df = question_df(values, *group_codes(CODES, len(values)), 0.95)
    assert 8 < df < 13
    assert f"{df:.1f} degrees of freedom" in found.method
    half = stats.t.ppf(0.975, df) * mean_se(values, CODES, len(SIZES))
    assert found.ci_high == pytest.approx(found.estimate + half)
    same = np.repeat(values[None], 12, axis=0)  # vectors without an error of their own
    again = with_vector_error(values, same, questions=CODES)
    assert (again.ci_low, again.ci_high) == pytest.approx((found.ci_low, found.ci_high))


def test_what_copies_have_in_common_is_told_by_the_analysis_of_variance():
    rng, sizes = np.random.default_rng(4), np.array([12, 9, 4, 2, 1])
    codes = np.repeat(np.arange(5), sizes)
    for alike in (0.2, 0.4, 0.6, 0.8):
        values = slopes(rng, alike, sizes)
        f = stats.f_oneway(*(values[codes == k] for k in range(5))).statistic
        usual = (28 - (sizes @ sizes) / 28) / 4
        told = round(max(f - 1, 0) / (f - 1 + usual) / question_weight.STEP) * question_weight.STEP
        kinds, counts = np.unique(sizes.astype(float), return_counts=True)
        expected = question_weight._df_of_sizes(tuple(kinds), tuple(counts.tolist()), told, 0.95)
        assert question_df(values, codes, 5, 0.95) == expected


def test_a_share_uses_the_same_degrees_of_freedom_as_a_mean():
    values = slopes(np.random.default_rng(5), 0.9)
    inside = (values < 0).astype(float)
    df = question_df(inside, CODES, len(SIZES), 0.95)
    assert df < 20
    p, n = inside.mean(), len(inside)
    design = mean_se(inside, CODES, len(SIZES)) ** 2 / (p * (1 - p) / (n - 1))
    effective = n / design * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, df)) ** 2
    found = anti_steerable(values, questions=CODES)["negative"]
    assert (found.ci_low, found.ci_high) == pytest.approx(wilson_interval(p, effective))


def test_few_questions_that_hold_most_inputs_are_said():
    assert carrying_questions(np.full(40, 3)) == pytest.approx(40)
    rng = np.random.default_rng(4)
    said = "5 of 329 questions hold 154 of 483 inputs: where copies of a question are answered alike"
    values = slopes(rng, 0.9)
    assert said in summarise_steerability(values, questions=CODES).warnings[0]
    assert (
        said in gap(values, values - rng.normal(size=len(values)), rng=rng, questions=CODES, n_resamples=50).warnings[0]
    )
    twins = np.repeat(np.arange(60), 2)
    assert weight_warnings(np.bincount(twins)) == ()
    assert weight_warnings(np.array([30, 1, 1])) == (), "few questions are warned of as such"
    assert not summarise_steerability(rng.normal(size=120), questions=twins).warnings


def test_a_mean_has_one_interval_wherever_it_is_quoted(tmp_path):
    rng = np.random.default_rng(1)
    question = np.repeat(np.arange(62), [30, 30] + 60 * [1])
    slopes = rng.normal(0.4, 0.5, size=62)[question] + rng.normal(0, 0.05, size=question.size)
    rows = pd.DataFrame(
        {"dataset": "one", "input": f"i{k}", "question": f"q{question[k]}", "setting_train": "base",
         "setting_eval": "base", "multiplier": lam, "propensity": slopes[k] * lam}
        for k in range(question.size) for lam in (-2.0, -1.0, 0.0, 1.0, 2.0)
    )  # fmt: skip
    rows.to_csv(tmp_path / "t.csv", index=False)
    study = open_cache(import_table(tmp_path / "t.csv", tmp_path / "c", model="toy"))
    mean = study.steerability()["one"]["mean"]
    ranges = study.multiplier_range().to_frame()
    table = steerability_table(study.grid([("base", "base")])).to_frame().iloc[0]
    quoted = [(mean.ci_low, mean.ci_high), tuple(table[["ci_low", "ci_high"]])]
    quoted += [tuple(row) for row in ranges[["ci_low", "ci_high"]].to_numpy()]  # straight lines: one slope, any range
    np.testing.assert_allclose(quoted, [quoted[0]] * len(quoted), rtol=1e-6)
    plain = mean.se * stats.t.ppf(0.975, 61)
    assert mean.ci_high - mean.estimate > 1.2 * plain
