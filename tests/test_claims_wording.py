"""Claims stay inside the range of what they are about, and say what a reader needs to know to believe them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analyses._cache import mean_over_datasets


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
