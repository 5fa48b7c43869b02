"""Correlations over datasets: both targets, noise taken out, between models, and what is said with few datasets."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from known_truth import make_grid, true_means
from scipy import stats

from steerstats.errors import InputError
from steerstats.generalization import (
    SlopeGrid,
    corrected_spearman,
    cross_model_agreement,
    id_ood_correlation,
)
from steerstats.generalization.correlation import FIXED, POPULATION, Comparison, _noisy
from steerstats.generalization.fixed_datasets import draw_correlations
from steerstats.generalization.margins import near_normal
from steerstats.resampling import bonett_wright, bootstrap_correlation, mean_covariance

SHIFT = "base->base vs base->user_neg"


def correlate(grid: SlopeGrid, n_resamples: int):
    return id_ood_correlation(grid, ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=n_resamples)


def test_the_estimate_is_spearmans_of_the_dataset_means():
    grid = make_grid(true_means(0.7))
    found = correlate(grid, 200)
    means = np.array([v[0].mean(axis=1) for v in grid.slopes.values()])
    rho = stats.spearmanr(means)[0]
    row = found.row(SHIFT, POPULATION, "Bonett-Wright")
    assert row["estimate"] == pytest.approx(rho)
    np.testing.assert_allclose([row["ci_low"], row["ci_high"]], bonett_wright(rho, 20))
    assert found.row(SHIFT, FIXED)["estimate"] == pytest.approx(rho)


def test_a_row_that_is_not_there_is_a_named_error():
    found = correlate(make_grid(true_means(0.7)), 100)
    for asked in ({"comparison": "base->base"}, {"target": "nobody"}, {"interval": "exact"}):
        with pytest.raises(InputError, match=r"no row .*; there are 'base->base vs .*'Bonett-Wright'"):
            found.row(**{"comparison": SHIFT, **asked})


def test_an_estimate_has_the_doubts_of_its_own_comparison_alone():
    cells = make_grid(true_means(0.7)).slopes
    slopes = {name: np.concatenate([one[:, :1], one[:, :1] + 1, one[:, 1:]], axis=1) for name, one in cells.items()}
    grid = SlopeGrid(train=("base",), evaluate=("base", "user_neg", "user_pos"), slopes=slopes)
    names = ["base->user_neg", "base->user_pos"]
    found = id_ood_correlation(grid, names, rng=np.random.default_rng(0), n_resamples=100)
    other = found.as_estimate("base->base vs base->user_pos", POPULATION)
    assert not any(text.startswith(SHIFT) for text in other.warnings)
    assert any(text.startswith(SHIFT) for text in found.as_estimate(SHIFT, POPULATION).warnings)


def test_the_population_interval_resamples_datasets_only():
    grid = make_grid(true_means(0.7), n=50)
    found = correlate(grid, 4000)
    means = np.array([v[0].mean(axis=1) for v in grid.slopes.values()])
    draws = bootstrap_correlation(*means.T, rng=np.random.default_rng(9), n_resamples=4000)
    row = found.row(SHIFT, POPULATION, "percentile over datasets")
    np.testing.assert_allclose([row["ci_low"], row["ci_high"]], np.quantile(draws, [0.025, 0.975]), atol=0.025)


def test_more_inputs_narrow_the_interval_for_these_datasets_only():
    widths = []
    for n in (50, 5000):
        found = id_ood_correlation(
            make_grid(true_means(0.7), n=n), ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=1500
        )
        rows = [found.row(SHIFT, FIXED), found.row(SHIFT, POPULATION)]
        widths.append([row["ci_high"] - row["ci_low"] for row in rows])
    assert widths[1][0] < 0.35 * widths[0][0]
    assert widths[1][1] > 0.7 * widths[0][1]


def test_vector_error_counts_as_measurement_noise():
    means = true_means(0.7)
    rows = []
    for n_refits in (0, 20):
        grid = make_grid(means, n_refits=n_refits)
        found = correlate(grid, 1500)
        assert (found.includes_vector_error == (n_refits > 0)).all()
        rows.append(found.row(SHIFT, FIXED))
    assert rows[1]["reliability_x"] < rows[0]["reliability_x"] - 0.05
    assert rows[1]["ci_high"] - rows[1]["ci_low"] > 1.5 * (rows[0]["ci_high"] - rows[0]["ci_low"])


def test_refits_of_one_side_alone_are_not_half_of_an_error():
    grid = make_grid(true_means(0.7), n_refits=20)
    half = {name: np.where([[[[True], [False]]]], r, np.nan) for name, r in grid.refits.items()}
    part, bare = (
        SlopeGrid(train=grid.train, evaluate=grid.evaluate, slopes=grid.slopes, refits=r) for r in (half, None)
    )
    found, none = correlate(part, 200), correlate(bare, 200)
    assert not found.includes_vector_error.any()
    for name in ("reliability_x", "estimate", "ci_low"):
        np.testing.assert_array_equal(getattr(found, name), getattr(none, name))


def test_fewer_than_eight_datasets_give_the_number_and_a_warning():
    found = id_ood_correlation(
        make_grid(true_means(0.7, 7)), ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=50
    )
    assert np.isfinite(found.estimate).all()
    assert np.isnan(found.ci_low).all()
    assert any("fewer than 8" in text for text in found.warnings)
    eight = id_ood_correlation(
        make_grid(true_means(0.7, 8)), ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=50
    )
    assert np.isfinite(eight.ci_low).all()


def test_alike_datasets_have_no_correlation():
    slopes = {f"d{k}": np.stack([np.full(5, 1.0), np.full(5, float(k))])[None] for k in range(9)}
    grid = SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=slopes)
    found = correlate(grid, 50)
    assert np.isnan(found.row(SHIFT)["estimate"])
    assert any("not defined" in text for text in found.warnings)


def test_resamples_of_tied_datasets_alone_are_counted():
    means = np.column_stack([np.r_[np.zeros(7), 1.0], true_means(0.7, 8)[:, 1]])
    found = correlate(make_grid(means, spread=0.0), 400)
    (said,) = [text for text in found.warnings if text.endswith("resamples without a correlation widen the interval")]
    undefined = int(said.split(": ")[1].split()[0])
    assert undefined / 400 == pytest.approx((7 / 8) ** 8, abs=0.08)  # resamples without the eighth


def test_models_are_compared_on_their_common_datasets_only():
    means = true_means(0.8, 14)
    one, other = make_grid(means, seed=1), make_grid(means[2:], seed=2)
    renamed = {f"d{k + 2}": v for k, v in enumerate(other.slopes.values())} | {"stranger": other.slopes["d0"]}
    other = SlopeGrid(train=other.train, evaluate=other.evaluate, slopes=renamed)
    found = cross_model_agreement(
        one, other, ["base->base", "base->user_neg"], rng=np.random.default_rng(0), n_resamples=100
    )
    assert found.n == 12
    assert found.row("base->user_neg")["estimate"] == pytest.approx(1, abs=0.1)
    with pytest.raises(InputError, match="no dataset"):
        cross_model_agreement(one, SlopeGrid(train=one.train, evaluate=one.evaluate, slopes={"x": renamed["d3"]}),
                              rng=np.random.default_rng(0))  # fmt: skip


def two_models(rng, rho: float, shared: float, d: int = 40, n: int = 30, spread: float = 4.0, other_half: int = 0):
    """Mean slopes that correlate by rho, inputs whose deviations correlate by `shared` between the models.

    With `other_half`, the second model is asked the last questions of the first and as many others.
    """
    means = rng.multivariate_normal([2, 2], [[1, rho], [rho, 1]], d)
    grids = []
    noise = rng.multivariate_normal([0, 0], [[1, shared], [shared, 1]], (d, n + other_half)).transpose(2, 0, 1)
    for side, first in ((0, 0), (1, other_half)):
        slopes = {f"d{k}": (means[k, side] + spread * noise[side, k, first : first + n])[None, None] for k in range(d)}
        question = {name: np.array([f"q{first + i}" for i in range(n)]) for name in slopes}
        grids.append(SlopeGrid(train=("base",), evaluate=("base",), slopes=slopes, question=question))
    return means, grids


def agree(grids, rng, n_resamples=200):
    return cross_model_agreement(*grids, ["base->base"], rng=rng, n_resamples=n_resamples)


@pytest.mark.parametrize("other_half", [0, 15])
def test_noise_that_two_models_share_through_their_questions_is_no_agreement(other_half):
    rng, target = np.random.default_rng(4), 6 / np.pi * np.arcsin(0.6 / 2)
    corrected, ignored, covered, known = [], [], [], []
    for _ in range(40):
        means, grids = two_models(rng, 0.6, 0.8, other_half=other_half)
        found = agree(grids, rng)
        row = found.row("base->base", "a population of datasets, without measurement noise")
        corrected.append(row["estimate"])
        known.append(row["noise_correlation"])
        fixed = found.row("base->base", FIXED)
        covered.append(fixed["ci_low"] <= stats.spearmanr(means)[0] <= fixed["ci_high"])
        bare = [SlopeGrid(train=g.train, evaluate=g.evaluate, slopes=g.slopes) for g in grids]
        ignored.append(agree(bare, rng).row("base->base", row["target"])["estimate"])
    # Half of the questions in common: half of the covariance.
    assert np.mean(known) == pytest.approx(0.8 if not other_half else 0.4, abs=0.03)
    assert np.mean(corrected) == pytest.approx(target, abs=0.05)
    assert np.mean(ignored) > target + (0.1 if not other_half else 0.05)
    assert np.mean(covered) > 0.85


def test_the_shared_covariance_is_that_of_paired_means_with_twins_together():
    rng = np.random.default_rng(0)
    question = np.repeat([f"q{k}" for k in range(9)], 2)
    values = rng.normal(size=(2, 18)) + rng.normal(size=18)
    order = rng.permutation(18)
    grids = [
        SlopeGrid(train=("base",), evaluate=("base",), slopes={"d": v[None, None]}, question={"d": q})
        for v, q in ((values[0], question), (values[1][order], question[order]))
    ]
    _, covariance, _ = mean_covariance(values, question)
    got = agree(grids, np.random.default_rng(0), 20).noise_correlation[0]
    assert got == pytest.approx(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))


def test_without_question_labels_the_ignored_noise_is_said():
    _, grids = two_models(np.random.default_rng(0), 0.6, 0.8, d=9)
    bare = SlopeGrid(train=("base",), evaluate=("base",), slopes=grids[0].slopes)
    found = agree([bare, grids[1]], np.random.default_rng(0), 50)
    said = "shared question noise ignored: the corrected correlation is too high"
    assert said in found.assumptions
    assert said in found.warnings
    assert np.isnan(found.noise_correlation).all()
    assert said not in agree(grids, np.random.default_rng(0), 50).assumptions
    others = {name: np.array([f"other {q}" for q in labels]) for name, labels in grids[1].question.items()}
    strange = SlopeGrid(train=("base",), evaluate=("base",), slopes=grids[1].slopes, question=others)
    assert "no question in common" in agree([grids[0], strange], np.random.default_rng(0), 50).warnings[0]


def test_refits_of_the_same_pairs_share_their_error_between_models():
    rng, grids = np.random.default_rng(1), []
    wobble = {f"d{k}": rng.normal(0, 0.5, (30, 1, 1, 1)) for k in range(9)}
    for seed in (2, 3):
        own = np.random.default_rng(seed)
        slopes = {name: own.normal(k, 1, (1, 1, 400)) for k, name in enumerate(wobble)}
        refits = {name: slopes[name] + wobble[name] + own.normal(0, 0.05, (30, 1, 1, 1)) for name in wobble}
        grids.append(SlopeGrid(train=("base",), evaluate=("base",), slopes=slopes, refits=refits))
    found = agree(grids, np.random.default_rng(0), 50)
    assert found.includes_vector_error.all()
    question = {name: np.arange(400) for name in wobble}
    labelled = [
        SlopeGrid(train=g.train, evaluate=g.evaluate, slopes=g.slopes, refits=g.refits, question=question)
        for g in grids
    ]
    assert agree(labelled, np.random.default_rng(0), 50).noise_correlation[0] > 0.95
    few = SlopeGrid(train=("base",), evaluate=("base",), slopes=grids[1].slopes, question=question,
                    refits={name: r for name, r in grids[1].refits.items() if name != "d4"})  # fmt: skip
    part = agree([labelled[0], few], np.random.default_rng(0), 50)
    assert not part.includes_vector_error.any()
    assert any("inputs only in d4, without refits" in text for text in part.warnings)
    assert "where there are refits" in part.assumptions[2]


def test_one_dataset_has_no_ranking():
    means = true_means(0.7, 1)
    found = correlate(make_grid(means), 20)
    assert any("one dataset has no ranking, the correlation is not defined" in text for text in found.warnings)
    assert not any("alike" in text or "same mean" in text for text in found.warnings)


def test_without_noise_the_correction_changes_nothing():
    x, y = true_means(0.6, 30).T
    none = np.zeros(30)
    found = corrected_spearman(x, y, none, none, none, rng=np.random.default_rng(0), n_resamples=500)
    assert found.estimate == pytest.approx(stats.spearmanr(x, y)[0])
    assert (found.reliability_x, found.reliability_y) == (1, 1)
    draws = draw_correlations(x, y, none, none, none, rng=np.random.default_rng(0), n_resamples=50)
    np.testing.assert_allclose(draws, found.estimate)


def test_shared_error_alone_is_not_agreement():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(400, 2))
    error = rng.normal(0, 1, 400)  # the same in both: x and y correlate by .5 for nothing
    x, y = (truth + error[:, None]).T
    one = np.ones(400)
    assert stats.spearmanr(x, y)[0] > 0.4
    found = corrected_spearman(x, y, one, one, one, rng=rng, n_resamples=300)
    assert found.ci_low < 0 < found.ci_high
    ignored = corrected_spearman(x, y, one, one, 0 * one, rng=rng, n_resamples=300)
    assert ignored.ci_low > 0.5


def test_an_observed_correlation_far_below_the_true_one_is_explained():
    truth = np.random.default_rng(0).normal(size=(60, 2))
    one, other = (make_grid(truth, n=8, seed=seed, spread=1.2) for seed in (1, 2))
    found = cross_model_agreement(one, other, ["base->base"], rng=np.random.default_rng(0), n_resamples=500)
    row = found.row("base->base", FIXED)
    assert row["ci_low"] > row["estimate"]
    assert any("noise pulls" in text for text in found.warnings)


def test_clipping_is_flagged():
    x = np.random.default_rng(0).normal(size=30)
    found = corrected_spearman(
        x, x, np.full(30, 0.3), np.full(30, 0.3), np.zeros(30), rng=np.random.default_rng(0), n_resamples=200
    )
    assert found.estimate == 1
    assert any("clipped" in text for text in found.warnings)
    assert found.share_clipped > 0.9


def test_a_few_clipped_resamples_are_said_and_fewer_are_not():
    x = np.random.default_rng(0).normal(size=30)
    y = x + 0.3 * np.random.default_rng(1).normal(size=30)
    for noise, said in ((0.02, True), (0.005, False)):
        error = np.full(30, noise)
        found = corrected_spearman(x, y, error, error, 0 * error, rng=np.random.default_rng(0), n_resamples=200)
        assert (0.025 < found.share_clipped < 0.1) is said
        text = f"{found.share_clipped:.0%} of resamples are clipped at 1 or undefined in the noise correction"
        assert (text in found.warnings) is said


def test_normal_means_are_transformed_as_seldom_as_a_five_per_cent_test_says():
    rng, error = np.random.default_rng(5), np.full(40, 0.01)
    powers = [near_normal(*rng.normal(size=(2, 40)), error, error, 0 * error)[1] for _ in range(200)]
    assert 0.02 < np.mean([power != 1 for pair in powers for power in pair]) < 0.08


def simulate(rng, rho: float, reliability: float, n: int, log: bool = False) -> tuple[np.ndarray, tuple]:
    truth = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n)
    truth = np.exp(truth) / 2.16 if log else truth
    noise = (1 - reliability) / reliability * rng.uniform(0.3, 1.7, n)
    error = rng.multivariate_normal([0, 0], [[1, 0.3], [0.3, 1]], n) * np.sqrt(noise)[:, None]
    return truth, (*(truth + error).T, noise, noise, 0.3 * noise)


# Committed bands: what these simulations give (150 studies, so ± .035 is two standard errors). Without the transform
# of skewed means the lognormal row has 74%.
@pytest.mark.parametrize(
    ("rho", "reliability", "log", "fewest", "most"),
    [
        (0.3, 0.9, False, 0.9, 0.99),
        (0.7, 0.97, False, 0.9, 0.99),
        (0.9, 0.9, False, 0.89, 0.98),
        (0.9, 0.98, True, 0.92, 1.0),
    ],
)
def test_coverage_for_these_datasets(rho, reliability, log, fewest, most):
    rng, hits = np.random.default_rng(11), 0
    for _ in range(150):
        truth, seen = simulate(rng, rho, reliability, 40, log)
        low, high = np.nanquantile(draw_correlations(*seen, rng=rng, n_resamples=200), [0.025, 0.975])
        hits += low <= stats.spearmanr(truth)[0] <= high
    assert fewest <= hits / 150 <= most


# Few datasets whose errors on both sides are nearly the same, as inputs shared between settings make them.
@pytest.mark.parametrize(("rho", "widest"), [(0.0, 0.95), (0.6, 0.75), (-0.3, 0.95)])
def test_a_dozen_datasets_with_shared_errors_are_covered_without_limits_at_the_ends(rho, widest):
    rng, hits, ends, widths = np.random.default_rng(5), 0, 0, []
    x_noise, y_noise, shared, studies = 0.25, 0.087, 0.87, 150  # reliability .80 and .92
    for _ in range(studies):
        truth = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], 14)
        var_x, var_y = x_noise * rng.uniform(0.3, 1.7, 14), y_noise * rng.uniform(0.3, 1.7, 14)
        error = rng.multivariate_normal([0, 0], [[1, shared], [shared, 1]], 14) * np.sqrt(np.stack([var_x, var_y], 1))
        seen = *(truth + error).T, var_x, var_y, shared * np.sqrt(var_x * var_y)
        low, high = np.quantile(draw_correlations(*seen, rng=rng, n_resamples=300), [0.025, 0.975])
        hits += low <= stats.spearmanr(truth)[0] <= high
        ends += low < -0.999 or high > 0.999
        widths.append(high - low)
    assert 0.91 <= hits / studies <= 0.99
    assert ends / studies <= 0.04  # singular resamples put 27-60% there
    assert np.mean(widths) < widest


def test_two_outlying_datasets_do_not_make_the_true_correlation_minus_one():
    # Without the last two datasets the noise exceeds what the covariance leaves: a point estimate is singular there.
    x = np.array([0.16, 0.15, 0.13, 0.13, 0.16, 0.12, 0.18, 0.07, 0.16, 0.18, 0.16, 0.11, 0.23, 0.14])
    y = np.array([0.09, 0.09, 0.06, 0.04, 0.09, 0.08, 0.11, 0.10, 0.10, 0.08, 0.08, 0.03, 0.01, 0.23])
    var_x, var_y = np.full(14, 0.0167**2), np.full(14, 0.0143**2)
    seen = x, y, var_x, var_y, 0.87 * np.sqrt(var_x * var_y)
    for scale in (1.0, 1000.0):  # the answer does not depend on the unit
        values = *(scale * v for v in seen[:2]), *(scale**2 * v for v in seen[2:])
        draws = draw_correlations(*values, rng=np.random.default_rng(0), n_resamples=2000)
        low, high = np.quantile(draws, [0.025, 0.975])
        assert -0.75 < low < stats.spearmanr(x, y)[0] < high < 0.6
        assert not (draws <= -0.999).any()


@pytest.mark.parametrize(("rho", "reliability"), [(0.0, 0.9), (0.7, 0.8), (0.9, 0.9)])
def test_coverage_of_the_noise_corrected_correlation(rho, reliability):
    rng, hits, raw, target = np.random.default_rng(12), 0, 0, 6 / np.pi * np.arcsin(rho / 2)
    for _ in range(150):
        _, seen = simulate(rng, rho, reliability, 40)
        found = corrected_spearman(*seen, rng=rng, n_resamples=250)
        hits += found.ci_low <= target <= found.ci_high
        if rho == 0.9:
            draws = bootstrap_correlation(seen[0], seen[1], rng=rng, n_resamples=250)
            raw += np.quantile(draws, 0.975) >= target
    assert 0.91 <= hits / 150 <= 0.99
    if rho == 0.9:
        assert raw / 150 < 0.8  # the uncorrected interval is about another number


@pytest.mark.parametrize("sign", [1, -1])
def test_skewed_means_are_transformed_and_normal_ones_are_not(sign):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 40))
    noise = rng.uniform(0.001, 0.01, (2, 40))
    shared = 0.5 * np.sqrt(noise[0] * noise[1])
    left, powers = near_normal(*z, *noise, shared)
    assert powers == (1, 1)
    for got, given in zip(left, (*z, *noise, shared)):
        np.testing.assert_array_equal(got, given)
    skewed = sign * np.exp(z[0])
    (x, _, var_x, var_y, covariance), powers = near_normal(skewed, z[1], *noise, sign * shared)
    assert powers[0] < 0.5 if sign == 1 else powers[0] > 1.5
    assert powers[1] == 1
    np.testing.assert_array_equal(np.argsort(x), np.argsort(skewed))
    assert abs(stats.skew(x)) < 0.3
    np.testing.assert_allclose(covariance / np.sqrt(var_x * var_y), sign * 0.5)
    far = np.argmax(np.abs(skewed))  # an error of the same size says less where means are sparse
    assert var_x[far] / noise[0, far] < 0.1 * np.median(var_x / noise[0])
    draws = skewed[3] + np.sqrt(noise[0, 3]) * rng.normal(size=20_000)
    spread, centre = skewed.std(), np.median(skewed)
    known = stats.yeojohnson((draws - centre) / spread, powers[0]).var()
    assert var_x[3] == pytest.approx(known, rel=0.05)


def test_the_noise_corrected_correlation_covers_under_lognormal_means():
    rng, hits, target = np.random.default_rng(12), 0, 6 / np.pi * np.arcsin(0.9 / 2)
    for _ in range(150):
        _, seen = simulate(rng, 0.9, 0.98, 40, log=True)
        found = corrected_spearman(*seen, rng=rng, n_resamples=250)
        hits += found.ci_low <= target <= found.ci_high
    assert hits / 150 >= 0.9  # 85% on the means as they are
    assert any("Yeo-Johnson transform" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("shared", "words"),
    [(0.0, "is noise, and pulls their correlation towards 0: 0.40"), (0.25, "noise that correlates 0.50 between")],
)
def test_noise_pulls_a_correlation_towards_its_own(shared, words):
    half = np.full(12, 0.5)
    one = Comparison("x vs y", half, half, half, half, shared * 2 * half, half > 0)
    (said,) = _noisy(one, SimpleNamespace(reliability_x=0.5, reliability_y=0.6, estimate=0.7), 0.4)
    assert said.startswith("50% and 40% of the variance between observed means is noise")
    assert words in said
    assert ("towards that number: 0.40" in said) == (shared > 0)
    assert said.endswith("noise taken out, 0.70")


def test_noise_of_one_side_alone_is_said_too():
    rng, truth = np.random.default_rng(2), true_means(0.7)
    quiet = truth[:, :1, None] + 0.01 * rng.normal(size=(20, 1, 30))
    loud = truth[:, 1:, None] + 6 * rng.normal(size=(20, 1, 30))
    slopes = {f"d{k}": np.concatenate([a, b])[None] for k, (a, b) in enumerate(zip(quiet, loud))}
    found = correlate(SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=slopes), 50)
    assert found.reliability_x[0] > 0.99
    assert found.reliability_y[0] < 0.8
    (said,) = [text for text in found.warnings if "of observed means, not of true ones" in text]
    assert f": 0% and {1 - found.reliability_y[0]:.0%} of the variance between observed means" in said


def test_noise_that_both_sides_share_is_said_where_it_can_make_the_correlation():
    """Twelve unrelated true means, six questions each: the questions' own slopes, in both means, make one of .6."""
    rng, missed, slopes = np.random.default_rng(1), 0, {}
    for _ in range(40):
        for k in range(12):
            own = rng.normal(0, 0.8, 6)
            slopes[f"d{k}"] = (np.array([1, 0.8]) + 0.25 * rng.normal(size=2))[None, :, None] + np.stack([own, own])
        found = correlate(SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=slopes), 200)
        row = found.row(SHIFT, POPULATION, "percentile over datasets")
        missed += row["ci_low"] > 0
        if min(row["reliability_x"], row["reliability_y"]) < 0.8:
            assert any("of observed means, not of true ones" in text for text in found.warnings)
    assert missed > 8, "the population interval is about observed means"
    quiet = correlate(make_grid(true_means(0.7)), 200)  # two hundred inputs a dataset
    assert not any("of observed means, not of true ones" in text for text in quiet.warnings)
