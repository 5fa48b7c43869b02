"""Shares of inputs by the sign of their slope: strict classes, Wilson intervals, twins counted once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from steerstats.errors import InputError
from steerstats.resampling.questions import wilson_interval
from steerstats.steerability import anti_steerable


def test_sign_classes_are_strict_and_the_published_count_stands_beside_them():
    slopes = np.array([-1, -0.001, 0, 0, 0.001, 2])
    signs = anti_steerable(slopes, error=0.01)
    counts = dict(zip([share.name for share in signs.estimates], signs.count))
    assert counts == {
        "anti_steerable": 1, "within_error": 4, "steerable": 1, "negative": 2, "published_nonpositive": 4,
    }  # fmt: skip
    assert any("4 slopes" in text for text in signs.warnings)
    exact = anti_steerable(slopes)
    assert exact["anti_steerable"].estimate == pytest.approx(2 / 6)
    assert exact["within_error"].estimate == pytest.approx(2 / 6)


@pytest.mark.parametrize(("near", "said"), [(1, "1 slope is within"), (2, "2 slopes are within")])
def test_slopes_that_numerical_error_may_have_turned_are_counted_in_words_that_agree(near, said):
    found = anti_steerable(np.array([0.5] * 4 + [0.01] * near), error=0.1)
    assert found.warnings == (f"{said} numerical error of zero",)


@pytest.mark.parametrize(("k", "n"), [(0, 20), (1, 20), (7, 15), (20, 20)])
def test_wilson_agrees_with_statsmodels(k, n):
    share = anti_steerable(np.r_[-np.ones(k), np.ones(n - k)])["anti_steerable"]
    low, high = proportion_confint(k, n, method="wilson")
    np.testing.assert_allclose([share.ci_low, share.ci_high], [low, high], atol=1e-12)


@pytest.mark.parametrize(("truth", "band"), [(0.002, (0.91, 0.93)), (0.05, (0.94, 0.97)), (0.5, (0.94, 0.96))])
def test_wilson_covers_in_its_exact_band(truth, band):
    n = 500
    k = np.arange(n + 1)
    limits = [anti_steerable(np.r_[-np.ones(j), np.ones(n - j)])["negative"] for j in k]
    inside = np.array([share.ci_low <= truth <= share.ci_high for share in limits])
    assert band[0] <= stats.binom.pmf(k, n, truth)[inside].sum() <= band[1]


def test_identical_twins_count_once_and_opposite_twins_never_count_more_than_twice():
    rng = np.random.default_rng(6)
    one = rng.normal(0.3, 1, size=80)
    alone, twins = anti_steerable(one)["negative"], anti_steerable(np.repeat(one, 2), questions=np.repeat(range(80), 2))
    width = alone.ci_high - alone.ci_low
    assert {found.n for found in twins.estimates} == {alone.n} == {80}, "questions"
    assert twins["negative"].ci_high - twins["negative"].ci_low == pytest.approx(width, rel=0.03)
    opposite = anti_steerable(np.column_stack([one, -one]).ravel(), questions=np.repeat(range(80), 2))["negative"]
    plain = anti_steerable(np.column_stack([one, -one]).ravel())["negative"]
    assert opposite.ci_high - opposite.ci_low >= plain.ci_high - plain.ci_low
    none = anti_steerable(np.ones(160), questions=np.repeat(range(80), 2))["negative"]
    assert none.ci_high == pytest.approx(anti_steerable(np.ones(80))["negative"].ci_high)


def test_clustered_share_covers_where_counting_twins_twice_does_not():
    rng = np.random.default_rng(7)
    hits = naive = 0
    for _ in range(600):
        slopes = np.repeat(rng.normal(0, 1, 40), 2) + rng.normal(0, 0.2, 80)
        share = anti_steerable(slopes, questions=np.repeat(range(40), 2))["negative"]
        plain = anti_steerable(slopes)["negative"]
        hits += share.ci_low <= 0.5 <= share.ci_high
        naive += plain.ci_low <= 0.5 <= plain.ci_high
    assert 0.93 <= hits / 600 <= 0.985
    assert naive / 600 < 0.90


def test_where_no_input_differs_unequal_questions_count_by_their_sizes():
    none = anti_steerable(np.ones(6), questions=[0, 0, 0, 1, 2, 3])["negative"]
    np.testing.assert_allclose([none.ci_low, none.ci_high], proportion_confint(0, 36 / 12, method="wilson"), atol=1e-12)


def test_a_share_of_none_starts_at_zero_and_one_of_all_ends_at_one_exactly():
    limits = [(wilson_interval(0, n)[0], wilson_interval(1, n)[1]) for n in range(1, 200)]
    assert set(limits) == {(0.0, 1.0)}


def test_effective_size_of_a_share_by_hand():
    inside = np.array([1, 1, 0, 0, 0, 1, 0, 0, 1, 0])
    questions = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    sums = np.bincount(questions, weights=inside - 0.4)
    design = (5 / 4 * (sums @ sums) / 100) / (0.4 * 0.6 / 9)
    effective = 10 / design * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 4)) ** 2
    low, high = proportion_confint(0.4 * effective, effective, method="wilson")
    share = anti_steerable(np.where(inside, -1, 1), questions=questions)["negative"]
    np.testing.assert_allclose([share.ci_low, share.ci_high], [low, high])


def test_negative_error_is_refused():
    with pytest.raises(InputError, match="error is -1"):
        anti_steerable(np.ones(3), error=-1)
