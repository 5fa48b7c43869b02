"""Claims stay inside the range of what they are about, and say what a reader needs to know to believe them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from reporting import TRUTH, hostile_cache, scratch, write_cache
from scipy import stats

import analyses
from analyses._cache import mean_over_datasets, study_of
from analyses._counts import p_words
from reports.words import summary


@pytest.mark.parametrize(
    ("values", "unit", "bounds"),
    [
        ([0.01, 0.02, 0.96], "share", None),
        ([0.99, 0.2, 0.999], "share", None),
        ([0.9, 0.99, -0.3], "1", (-1.0, 1.0)),
        ([0.1, 9.0, 0.2], "1", (0.0, np.inf)),
    ],
)
def test_the_interval_of_a_bounded_mean_stays_in_its_range(values, unit, bounds):
    low, high = bounds or (0.0, 1.0)
    found = mean_over_datasets(values, "x", unit, bounds=bounds)
    assert low < found.ci_low < found.estimate < found.ci_high < high
    assert found.estimate == pytest.approx(np.mean(values))
    assert "scale (delta method)" in found.method
    plain = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert plain[0] < low or plain[1] > high, "these are the cases in which a plain t interval leaves the range"


def test_far_from_its_bounds_the_interval_is_the_plain_one():
    values = np.random.default_rng(0).normal(0.5, 0.004, 40)
    found = mean_over_datasets(values, "x", "share")
    plain = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    assert (found.ci_low, found.ci_high) == pytest.approx(plain, abs=1e-5)
    z = mean_over_datasets(values, "x", bounds=(-1.0, 1.0))
    half = stats.t.ppf(0.975, 39) * stats.sem(values) / (1 - values.mean() ** 2)
    assert z.ci_high == pytest.approx(np.tanh(np.arctanh(values.mean()) + half), rel=1e-10)


@pytest.mark.parametrize(
    ("values", "unit", "reason"),
    [
        ([0.3], "share", "one dataset"),
        ([0.3, 0.4], "share", "two datasets are too few"),
        ([0.0, 0.0, 0.0], "share", "not inside the range"),
        ([-0.02, -0.01, 0.01], "share", "not inside the range"),
    ],
)
def test_where_there_is_no_interval_the_method_says_why(values, unit, reason):
    found = mean_over_datasets(values, "x", unit)
    assert np.isnan(found.ci_low)
    assert np.isnan(found.ci_high)
    assert reason in found.method
    assert found.estimate == pytest.approx(np.mean(values))


# --- whole caches ---------------------------------------------------------------------------------


@cache
def findings_of(which: str) -> tuple:
    """Findings of the sections behind the summary, on three datasets or on one."""
    path = hostile_cache()
    if which == "one":
        path = write_cache(scratch() / "one", replace(TRUTH, datasets=("lone",), mean_steerability=0.7))
    names = ("per_input_steerability", "positive_option", "variance_explained", "spurious_effects", "id_vs_ood",
             "gap_parts", "propensity_difference", "null_vectors")  # fmt: skip
    return tuple(analyses.run(name, path, scratch()) for name in names)


def claims_of(which: str) -> dict:
    return {claim.key: claim for finding in findings_of(which) for claim in finding.claims}


def test_the_first_sentence_counts_all_three_outcomes_and_the_vectors_error():
    means = study_of(hostile_cache()).steerability()
    own = [one["mean"] for one in means.results.values()]
    up, down = sum(one.ci_low > 0 for one in own), sum(one.ci_high < 0 for one in own)
    lead = summary(findings_of("three"))["lead"]
    assert f"lies above 0 in {up} of 3 datasets, below 0 in {down}, and leaves the sign open in {3 - up - down}" in lead
    again = sum(one.ci_low > 0 for one in means.vector_error.values())
    assert f"With the vector's own error counted it lies above 0 in {again} of 3." in lead
    assert "label-shuffled vectors" in lead
    assert "beyond doubt" not in lead


def test_an_effect_is_headed_by_its_spread_and_no_claim_is_printed_twice():
    effects = next(one for one in findings_of("three") if one.script == "spurious_effects").claims
    assert [claim.key for claim in effects][:3] == ["effects.pos_is_a.tau", "effects.pos_is_a.new", "effects.pos_is_a"]
    fit = study_of(hostile_cache()).spurious_factors().over_datasets.pooled["slope", "pos_is_a"]
    assert (effects[1].ci_low, effects[1].ci_high) == (fit.prediction_low, fit.prediction_high)
    assert "effects of either sign cancel" in effects[2].statement
    told = [(claim.estimate, claim.ci_low, claim.ci_high) for claim in claims_of("three").values()]
    told = [one for one in told if np.isfinite(one[1])]
    assert len(told) == len(set(told)), "the same numbers under two names"


@pytest.mark.parametrize(("p", "words"), [(1.0, "p > 0.99"), (0.0001, "p < 0.001"), (0.034, "p = 0.034")])
def test_p_values_are_never_exactly_one_or_nothing(p, words):
    assert p_words(p) == words
