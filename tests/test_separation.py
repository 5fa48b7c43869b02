"""Cross-fitted separation: pairs make each other's vectors, which its intervals have to hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from steerstats.predictors import auc, crossfit, d_prime


def test_the_standard_error_of_d_prime_is_that_of_its_slope_in_each_questions_weight():
    x, codes = np.random.default_rng(1).gamma(3, size=(2, 12)), np.repeat(np.arange(5), [3, 1, 2, 4, 2])

    def weighted(weights: np.ndarray) -> float:
        mean = (x @ weights) / weights.sum()
        variance = np.square(x - mean[:, None]) @ weights / weights.sum() * 12 / 11
        return (mean[0] - mean[1]) / np.sqrt(variance.mean())

    step = 1e-6
    slope = [(weighted(1 + step * (codes == g)) - weighted(1 - step * (codes == g))) / (2 * step) for g in range(5)]
    expected = np.sqrt(5 / 4 * np.square(slope).sum())
    found = d_prime(x, questions=codes)
    assert found.estimate == pytest.approx(weighted(np.ones(12)))
    assert found.se == pytest.approx(expected, rel=0.01)  # its variances take ddof = 1, but not in their slope
    assert found.ci_high == pytest.approx(found.estimate + stats.t.ppf(0.975, 4) * found.se)
    assert d_prime(x, questions=codes, crossfitted=True).se == pytest.approx(np.sqrt(2) * found.se)


@pytest.mark.parametrize(("n", "hidden", "apart"), [(48, 300, 0.0), (48, 300, 0.6), (100, 30, 1.5)])
def test_cross_fitted_separation_covers_although_pairs_make_each_others_vectors(n, hidden, apart):
    """Nominal 95% for the d′ and AUC of these very folds' vectors; taking them as given covers .82-.86 near 0."""
    times, hits, as_given = 200, np.zeros(2), 0
    fold = np.random.default_rng(7).permutation(n) % 5  # as `crossfit` deals them
    for seed in range(times):
        x = np.random.default_rng([5, seed]).normal(size=(2, n, hidden))
        x[0, :, 0] += apart
        fitted = crossfit(x, rng=np.random.default_rng(7))
        np.testing.assert_array_equal(fitted.fold, fold)
        vectors = [x[0, fold != k].mean(axis=0) - x[1, fold != k].mean(axis=0) for k in range(5)]
        true = np.mean([apart * v[0] / np.linalg.norm(v) for v in vectors])
        known = true, stats.norm.cdf(true / np.sqrt(2))
        found = [kind(fitted.projection, crossfitted=True) for kind in (d_prime, auc)]
        hits += [one.ci_low <= value <= one.ci_high for one, value in zip(found, known)]
        naive = d_prime(fitted.projection)
        as_given += naive.ci_low <= true <= naive.ci_high
    assert (hits / times >= 0.925).all()
    if apart < 1:
        assert as_given / times < 0.9
    assert "variance doubled" in found[0].assumptions[1]
