"""Coverage and error rates under known truth, at fixed seeds, inside committed bands.

Coverage is not nominal everywhere; the bands say where. Each is what the simulation gives, plus or minus about
three of its standard errors, so a method that becomes anti-conservative (or vacuous) falls out of its band.
"""

from __future__ import annotations

import numpy as np
import pytest

from steerstats.generalization import SlopeGrid, gap_table
from steerstats.resampling import (
    bootstrap_correlation,
    bootstrap_mean,
    group_difference_test,
    interval,
    quantile_pair,
    sign_flip_test,
    spearman_test,
)

REPETITIONS = 2000

COVERAGE = {  # (inputs, distribution): {method: (fewest, most)}; nominal 95%
    (10, "normal"): {"studentised": (0.94, 0.97), "percentile": (0.88, 0.92), "bca": (0.88, 0.92), "t": (0.94, 0.97)},
    (50, "normal"): {"studentised": (0.94, 0.97), "percentile": (0.93, 0.96), "bca": (0.93, 0.965), "t": (0.94, 0.97)},
    (50, "lognormal"): {
        "studentised": (0.91, 0.945),
        "percentile": (0.86, 0.91),
        "bca": (0.88, 0.92),
        "t": (0.87, 0.915),
    },
    (50, "mixture"): {
        "studentised": (0.935, 0.965),
        "percentile": (0.91, 0.945),
        "bca": (0.92, 0.955),
        "t": (0.91, 0.95),
    },
}


def sample(distribution: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    shape = (REPETITIONS, n)
    if distribution == "normal":
        return rng.normal(0.3, 1, shape), 0.3
    if distribution == "lognormal":
        return rng.lognormal(0, 1, shape), float(np.exp(0.5))
    return np.where(rng.random(shape) < 0.1, rng.normal(3, 1, shape), rng.normal(0, 0.5, shape)), 0.3


@pytest.mark.parametrize(("n", "distribution"), list(COVERAGE))
def test_intervals_of_a_mean_cover_as_committed(n, distribution):
    values, truth = sample(distribution, n, np.random.default_rng(1))
    found = bootstrap_mean(values, rng=np.random.default_rng(2), n_resamples=600)
    for method, (fewest, most) in COVERAGE[n, distribution].items():
        low, high = interval(found, method)
        assert fewest <= np.mean((low <= truth) & (truth <= high)) <= most, method


def test_clustered_intervals_cover_where_inputs_as_units_do_not():
    rng = np.random.default_rng(3)
    question = np.repeat(np.arange(40), 2)
    values = np.repeat(rng.normal(size=(1000, 40)), 2, axis=1) + rng.normal(0, 0.3, (1000, 80))
    covered = []
    for unit in (question, None):
        low, high = interval(bootstrap_mean(values, unit=unit, rng=np.random.default_rng(2), n_resamples=500))
        covered.append(np.mean((low <= 0) & (high >= 0)))
    assert 0.93 <= covered[0] <= 0.97
    assert covered[1] < 0.87


def test_the_percentile_interval_covers_the_correlation_of_observed_means():
    rng, hits = np.random.default_rng(4), 0
    target = 6 / np.pi * np.arcsin(0.8 / 2)
    for _ in range(300):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], 40).T
        low, high = quantile_pair(bootstrap_correlation(x, y, rng=rng, n_resamples=400)[:, None], 0.95)
        hits += low[0] <= target <= high[0]
    assert 0.92 <= hits / 300 <= 0.985


def test_clustered_correlations_cover_where_pairs_as_units_do_not():
    rng, hits, naive = np.random.default_rng(5), 0, 0
    cluster = np.repeat(np.arange(25), 8)
    for _ in range(200):
        x, y = (rng.normal(0, 0.7, 25)[cluster] + rng.normal(0, 0.7, 200) for _ in range(2))
        for which, unit in enumerate((cluster, None)):
            low, high = quantile_pair(
                bootstrap_correlation(x, y, cluster=unit, rng=rng, n_resamples=200)[:, None], 0.95
            )
            inside = bool(low[0] <= 0 <= high[0])
            hits, naive = (hits + inside, naive) if which == 0 else (hits, naive + inside)
    assert 0.89 <= hits / 200 <= 0.975
    assert naive / 200 < 0.86


@pytest.mark.parametrize("n_refits", [0, 5])
def test_bands_and_step_down_tests_keep_the_family_wise_error(n_refits):
    rng, outside, rejected, cells = np.random.default_rng(6), 0, 0, []
    shifts = [("base", name) for name in "abcd"]
    for _ in range(250):
        slopes, refits = {}, {}
        for d in range(3):
            own = rng.normal(1, 1, 50)
            others = own + rng.normal(0, 0.7, (4, 50)) + (rng.normal(0, 0.2, (4, 1)) if n_refits else 0)
            slopes[f"d{d}"] = np.concatenate([own[None], others])[None]
            refits[f"d{d}"] = (
                slopes[f"d{d}"] + np.pad(rng.normal(0, 0.2, (n_refits, 4)), [(0, 0), (1, 0)])[:, None, :, None]
            )
        grid = SlopeGrid(
            train=("base",), evaluate=("base", *"abcd"), slopes=slopes, refits=refits if n_refits else None
        )
        table = gap_table(grid, shifts, rng=rng, n_resamples=250)
        outside += bool(((table.band_low > 0) | (table.band_high < 0)).any())
        rejected += bool((table.p_adjusted <= 0.05).any())
        cells.append(((table.ci_low <= 0) & (table.ci_high >= 0)).mean())
    assert 0.02 <= outside / 250 <= 0.095
    assert 0.02 <= rejected / 250 <= 0.095
    assert 0.93 <= np.mean(cells) <= 0.965


def test_step_down_finds_true_gaps_beside_true_nulls():
    rng, found, false = np.random.default_rng(7), [], 0
    for _ in range(100):
        own = rng.normal(1, 1, 60)
        gaps = np.array([0.45, 0.45, 0.0, 0.0])[:, None]
        slopes = {"d": np.concatenate([own[None], own - gaps - rng.normal(0, 0.7, (4, 60))])[None]}
        grid = SlopeGrid(train=("base",), evaluate=("base", *"abcd"), slopes=slopes)
        p = gap_table(grid, [("base", name) for name in "abcd"], rng=rng, n_resamples=250).p_adjusted[0, 0]
        found.append((p[:2] <= 0.05).mean())
        false += bool((p[2:] <= 0.05).any())
    assert np.mean(found) > 0.9
    assert false / 100 <= 0.12


def test_permutation_tests_keep_their_level():
    rng, p = np.random.default_rng(8), {"flip": [], "group": [], "rank": []}
    p["flip"] = sign_flip_test(rng.standard_t(3, (3000, 20)), rng=rng, n_permutations=199)
    for _ in range(600):
        x = rng.exponential(size=14)
        p["group"].append(group_difference_test(x, np.arange(14) < 5, rng=rng, n_permutations=99))
        p["rank"].append(spearman_test(x, rng.normal(size=14), rng=rng, n_permutations=99)[1])
    for name, (fewest, most) in {"flip": (0.038, 0.062), "group": (0.025, 0.08), "rank": (0.025, 0.08)}.items():
        assert fewest <= np.mean(np.array(p[name]) <= 0.05) <= most, name
