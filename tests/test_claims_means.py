"""Means over datasets stay inside the range of what they are about, and the largest value is told as what it is."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import analyses
from analyses._cache import plain_mean
from analyses._claim import Claim, Finding, publish
from analyses._shares import share_claims
from reports import operators
from reports.words import summary
from steerstats.cache.table import import_table
from steerstats.meta import NOT_SKEWED, mean_over_datasets


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
    found = plain_mean(values, "x", unit, bounds=bounds)
    assert low < found.ci_low < found.estimate < found.ci_high < high
    assert found.estimate == pytest.approx(np.mean(values))
    assert "scale (delta method)" in found.method
    plain = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert plain[0] < low or plain[1] > high, "these are the cases in which a plain t interval leaves the range"


def test_far_from_its_bounds_the_interval_is_the_plain_one():
    values = np.random.default_rng(0).normal(0.5, 0.004, 40)
    found = plain_mean(values, "x", "share")
    plain = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    assert (found.ci_low, found.ci_high) == pytest.approx(plain, abs=1e-5)
    z = plain_mean(values, "x", bounds=(-1.0, 1.0))
    half = stats.t.ppf(0.975, 39) * stats.sem(values) / (1 - values.mean() ** 2)
    assert z.ci_high == pytest.approx(np.tanh(np.arctanh(values.mean()) + half), rel=1e-10)


@pytest.mark.parametrize(
    ("values", "unit", "reason"),
    [
        ([0.3], "share", "one dataset"),
        ([0.3, 0.4], "share", "two datasets are too few"),
        ([0.0, 0.0, 0.0], "share", "the mean is not strictly between 0 and 1"),
        ([-0.02, -0.01, 0.01], "share", "the mean is not strictly between 0 and 1"),
    ],
)
def test_where_there_is_no_interval_the_method_says_why(values, unit, reason):
    found = plain_mean(values, "x", unit)
    assert np.isnan(found.ci_low)
    assert np.isnan(found.ci_high)
    assert reason in found.method
    assert found.estimate == pytest.approx(np.mean(values))


@pytest.mark.parametrize(
    ("interval", "n_of", "said"),
    [
        (plain_mean([0.1, 0.2, 0.4], "x", "share").method, "datasets", True),
        (mean_over_datasets([0.1, 0.2, 0.4], [0.01] * 3).quoted.interval, "datasets", True),
        (mean_over_datasets([0.1, 0.2, 0.9], [0.01, 0.02, 0.2]).quoted.interval, "datasets", True),
        ("t(D − 1) over datasets, for others such as these", "datasets", True),  # of a sweep's best layer
        ("percentile over datasets", "datasets", False),
        ("t interval over 8 questions", "questions", False),
    ],
)
def test_a_finding_with_a_mean_over_datasets_says_what_skew_between_them_does(tmp_path, interval, n_of, said):
    claim = Claim(key="x.mean", statement="Mean:", estimate=0.2, ci_low=0.1, ci_high=0.3, interval=interval, n=8,
                  n_of=n_of)  # fmt: skip
    finding = Finding(script="x", title="x", claims=(claim,), assumptions=("questions are independent",))
    *given, about = *publish(tmp_path, finding).assumptions, *[""] * (not said)
    assert given == ["questions are independent"]
    assert about.startswith(NOT_SKEWED * said)
    assert ("held it" in about) == (said and "equally weighted" not in interval), "the rates stand by mean effects"
    without = replace(claim, ci_low=np.nan, ci_high=np.nan)
    assert publish(tmp_path, replace(finding, claims=(without,))).assumptions == finding.assumptions


# --- whole caches ---------------------------------------------------------------------------------


def test_a_mean_that_no_dataset_exceeds_names_no_dataset():
    nothing = np.nan, np.nan
    shared = {"interval": "none", "unit": "share", "ci_low": 0.0, "ci_high": 0.4}
    mean = Claim(key="per_input.anti_share", statement="Share, mean over datasets:", estimate=0.0, n=2,
                 n_of="datasets", **shared | dict(zip(("ci_low", "ci_high"), nothing)))  # fmt: skip
    where = {"dataset": "which, of two"}
    most = Claim(key="per_input.worst", statement="Share", estimate=0.0, n=6, n_of="inputs", facts=where, **shared)
    cards = [
        summary([Finding(script="per_input_steerability", title="x", claims=(mean, one))])["cards"][0]["words"]
        for one in (most, replace(most, estimate=0.2))
    ]
    assert cards[0].endswith("on average over 2 datasets, and in none of them more than that.")
    assert "The share is largest in which, of two: 20% (" in cards[1]


@pytest.mark.parametrize(
    ("middle", "said"), [(0.4, "are lost"), (-0.1, "are lost"), (-0.4, "are lost, which is a gain")]
)
def test_what_is_gained_under_a_shift_is_not_left_to_a_minus(middle, said):
    shared = {"interval": "t", "n": 6, "n_of": "datasets"}
    gap = Claim(key="gap.base->user_neg", statement="Loss", estimate=middle, ci_low=middle - 0.2, ci_high=middle + 0.2,
                unit="nat per unit multiplier", **shared)  # fmt: skip
    card = summary([Finding(script="gap_parts", title="x", claims=(gap,))])["cards"][2]
    comma = "," * ("gain" in said)
    assert card["words"].startswith(f"{said}{comma} under base → user (negative)")
    rank = Claim(key="id_ood.base->user_neg", statement="Rank", estimate=0.9, ci_low=0.8, ci_high=0.95, **shared)
    card = summary([Finding(script="gap_parts", title="x", claims=(gap, rank))])["cards"][2]
    assert f"nats per unit multiplier {said} (95% interval" in card["words"]
    # A slope that is less far below 0 is less of what taking a direction out does, and no gain.
    taken = operators.summary(SimpleNamespace(operators=("ablate",)), [Finding(script="x", title="x", claims=(gap,))])
    words = taken["cards"][2]["words"]
    assert words.startswith(f"{said.replace('a gain', 'a higher slope')}{comma} under base → user (negative)")


@pytest.mark.parametrize(
    ("largest", "said"), [(0.0, "alike in all datasets, here of"), (0.2, "where it is largest, in")]
)
def test_a_share_that_all_datasets_have_is_not_said_to_be_picked(largest, said):
    mean = plain_mean([0.0, largest], "share", "share")
    most = {"dataset": "kindness", "estimate": largest, "ci_low": 0.0, "ci_high": 0.4, "n": 20}
    claim = share_claims(("a", "b"), "Share", mean, most, "Wilson interval")[1]
    assert claim.statement.startswith(f"Share, {said} kindness")
    assert ("not adjusted for picking the largest" in claim.interval) == (largest > 0)


def test_one_of_two_datasets_is_no_mean_over_them_where_the_other_has_no_error(tmp_path):
    base = {"setting_train": "base", "setting_eval": "base"}
    rng, rows = np.random.default_rng(0), []
    for dataset in ("steady", "moved"):
        for k in range(12):
            slope = 0.6 if dataset == "steady" else rng.normal()
            one = base | {"dataset": dataset, "input": f"q{k}"}
            rows += [one | {"multiplier": m, "propensity": slope * m} for m in (-1, 0, 1)]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    cache = import_table(tmp_path / "t.csv", tmp_path / "cache", model="m")
    finding = analyses.run("per_input_steerability", cache, tmp_path / "out")
    mean = next(claim for claim in finding.claims if claim.key == "per_input.mean")
    assert mean.statement == "Mean steerability under base → base, mean over datasets:"
    assert mean.shown == ("cannot be estimated here", "")
    assert "mean steerability" not in summary([finding])["answer"]
