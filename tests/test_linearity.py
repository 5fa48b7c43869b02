"""Linearity: Hotelling's test against a regression, its level and distance on known truth, skewed departures said."""

from __future__ import annotations

import numpy as np
import pytest
from known_truth import GRID, curves
from scipy import stats

from steerstats.errors import CannotEstimate
from steerstats.steerability import linearity_test
from steerstats.steerability.linearity import _skewness_p


def straight(rng: np.random.Generator, n: int, skewed: bool) -> np.ndarray:
    """Curves whose mean is a straight line, each with a curvature of its own."""
    curvature = rng.exponential(size=n) - 1 if skewed else rng.normal(size=n)
    return 2 * GRID + curvature[:, None] * GRID**2 + 0.3 * rng.normal(size=(n, 7))


@pytest.mark.parametrize(("skewed", "low", "high"), [(False, 0.03, 0.07), (True, 0.055, 0.1)])
def test_skewed_curvature_rejects_as_often_as_the_docstring_says(skewed, low, high):
    rng = np.random.default_rng(0)
    p = [linearity_test(straight(rng, 20, skewed), GRID).p_value for _ in range(700)]
    assert low < np.mean(np.array(p) < 0.05) < high


def test_two_questions_on_three_multipliers_are_too_few():
    curves = np.array([[0.0, 1.0, 2.2], [0.0, 1.0, 2.1]])
    with pytest.raises(CannotEstimate, match=r"2 questions for 1 non-linear contrast: .* at least 3"):
        linearity_test(curves, [-1, 0, 1])
    with pytest.raises(CannotEstimate, match=r"^1 question for 1 non-linear contrast: "):
        linearity_test(curves[:1], [-1, 0, 1])
    three = linearity_test(np.vstack([curves, [[0.0, 1.1, 2.4]]]), [-1, 0, 1])
    assert 0 < three.p_value < 1
    assert "on 1 non-linear contrast of the curve" in three.method


def test_skewed_contrasts_over_few_questions_are_warned_of():
    rng = np.random.default_rng(1)
    few, many = (linearity_test(straight(rng, n, True), GRID) for n in (150, 200))
    assert few.warnings[0].startswith("the non-linear contrasts are skewed over 150 questions: the test rejects too")
    assert many.warnings == ()
    normal = [linearity_test(straight(rng, 150, False), GRID).warnings for _ in range(50)]
    assert sum("skewed" in " ".join(found) for found in normal) <= 4
    assert "the vector is taken as given" in few.assumptions[2]


def test_normal_contrasts_over_few_questions_pass_for_skewed_as_seldom_as_the_level_says():
    rng = np.random.default_rng(6)
    p = np.array([_skewness_p(rng.normal(size=(20, 5))) for _ in range(2000)])
    assert 0.04 < np.mean(p < 0.05) < 0.08
    assert 0.008 < np.mean(p < 0.01) < 0.03


def test_hotelling_agrees_with_regressing_a_constant_on_the_contrasts():
    y = curves(16, 60)
    test = linearity_test(y, GRID)
    powers = np.linalg.qr(np.vander(GRID, 7, increasing=True))[0][:, 2:]
    c = y @ powers
    # Regressing 1 on c: R² = T²/(T² + n - 1), an identity that shares no code with ours.
    ones = np.ones(60)
    r2 = ones @ c @ np.linalg.lstsq(c, ones, rcond=None)[0] / 60
    t2 = 59 * r2 / (1 - r2)
    assert test.t_squared == pytest.approx(t2, rel=1e-9)
    assert test.p_value == pytest.approx(stats.f.sf(t2 * 55 / (5 * 59), 5, 55), rel=1e-7)


def test_linearity_holds_its_level_under_correlated_unequal_departures_and_its_distance_covers():
    rng = np.random.default_rng(17)
    mix = np.tril(rng.normal(size=(7, 7))) * np.linspace(0.1, 2, 7)
    straight, hits, bent = 0, 0, 0.3 * GRID**2
    powers = np.linalg.qr(np.vander(GRID, 7, increasing=True))[0][:, 2:]
    truth = np.sqrt(powers.T @ bent @ np.linalg.solve(powers.T @ mix @ mix.T @ powers, powers.T @ bent))
    for _ in range(500):
        y = rng.normal(size=(40, 1)) * GRID + rng.normal(size=(40, 7)) @ mix.T
        straight += linearity_test(y, GRID).p_value < 0.05
        test = linearity_test(y + bent, GRID)
        hits += test.distance_low <= truth <= test.distance_high
    assert 0.03 <= straight / 500 <= 0.075
    assert 0.925 <= hits / 500 <= 0.975


@pytest.mark.parametrize("truth", [0.0, 0.3, 1.0])
def test_the_distance_lies_in_its_own_interval_and_half_of_them_above_the_truth(truth):
    """The length as measured was 0.9 on average for a true 0 or 0.3, and above its own upper limit in 3-7%."""
    rng, bent = np.random.default_rng(2), truth * (GRID**2 - 1) / np.linalg.norm(GRID**2 - 1)
    found = [
        linearity_test(rng.normal(size=(12, 1)) * GRID + rng.normal(size=(12, 7)) + bent, GRID) for _ in range(300)
    ]
    assert all(one.distance_low <= one.distance <= one.distance_high for one in found)
    assert sum(one.distance > truth for one in found) / 300 == pytest.approx(0.5, abs=0.09)
    empty = [one for one in found if one.distance_high == 0]
    assert all("empty interval, shown as 0" in one.warnings[-1] for one in empty)
    assert len(empty) < 300 * 0.06


def test_the_distance_and_its_limits_put_the_statistic_at_its_median_and_its_tails():
    test = linearity_test(curves(22, 30) + GRID**2, GRID, level=0.9)
    for distance, tail in ((test.distance, 0.5), (test.distance_low, 0.95), (test.distance_high, 0.05)):
        below = stats.ncf.cdf(test.f_statistic, test.df_num, test.df_den, 30 * distance**2)
        assert below == pytest.approx(tail, abs=1e-6)


def test_the_share_that_chance_alone_bends_is_that_of_straight_curves():
    rng = np.random.default_rng(5)
    found = [linearity_test(0.5 * GRID + rng.normal(size=(20, 7)), GRID) for _ in range(200)]
    shares, chance = (np.mean([getattr(one, name) for one in found]) for name in ("nonlinear_share", "chance_share"))
    assert chance == pytest.approx(shares, rel=0.1)
    assert shares > 0.05


def test_linearity_effect_sizes_describe_the_mean_curve():
    rng = np.random.default_rng(18)
    y = 2 * GRID + 0.5 * (GRID**2 - 1) + rng.normal(size=(50, 7)) * 1e-3
    test = linearity_test(y, GRID)
    line = np.polyval(np.polyfit(GRID, y.mean(axis=0), 1), GRID)
    departure = y.mean(axis=0) - line
    assert test.rms_departure == pytest.approx(np.sqrt(np.mean(departure**2)))
    assert test.nonlinear_share == pytest.approx((departure**2).sum() / ((y.mean(axis=0) - y.mean()) ** 2).sum())
    assert test.p_value < 1e-20


def test_linearity_counts_twins_once():
    y = curves(19, 40)
    single, double = (
        linearity_test(y, GRID),
        linearity_test(np.repeat(y, 2, axis=0), GRID, questions=np.repeat(range(40), 2)),
    )
    assert double.t_squared == pytest.approx(single.t_squared)
    assert (double.n, double.n_questions) == (80, 40)
    for name in ("distance", "distance_low", "distance_high", "chance_share"):
        assert getattr(double, name) == pytest.approx(getattr(single, name))
    uneven = linearity_test(np.concatenate([y, y[:10]]), GRID, questions=[*range(40), *range(10)])
    assert uneven.t_squared == pytest.approx(single.t_squared)


def test_linearity_edges():
    with pytest.raises(CannotEstimate, match="two multipliers"):
        linearity_test(np.ones((9, 2)), np.array([0.0, 1]))
    with pytest.raises(CannotEstimate, match="needs at least 6"):
        linearity_test(curves(20, 5), GRID)
    with pytest.raises(CannotEstimate, match="fewer than 5 directions"):
        linearity_test(np.arange(9.0)[:, None] * GRID + GRID**2, GRID)
    nearly = linearity_test(curves(21, 9) + 1e4 * GRID**2, GRID)
    assert nearly.f_statistic > 1e6
    assert 0 < nearly.distance_low < nearly.distance < nearly.distance_high < np.inf
    exact = linearity_test(np.arange(9.0)[:, None] * GRID + 2, GRID)
    assert (exact.p_value, exact.distance) == (1.0, 0.0)
    assert exact.warnings == ("all curves are exactly linear",)


def test_rounding_of_stored_curves_is_no_spread_of_theirs():
    """All are parabolas: what they have beside that is float32's rounding, which no error of numpy may come of."""
    lam = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    for seed in range(40):
        a, b = np.random.default_rng(seed).normal(size=(2, (4, 5, 12, 60)[seed % 4], 1))
        stored = (a * lam + 0.3 * b * lam**2).astype(np.float32)
        with pytest.raises(CannotEstimate, match="fewer than 3 directions"):
            linearity_test(stored, lam, resolution=5e-7)
