"""Correlations over datasets: both targets, between models, and what is said with few datasets."""

from __future__ import annotations

import numpy as np
import pytest
from known_truth import make_grid, true_means
from scipy import stats

from steerstats.errors import InputError
from steerstats.generalization import (
    SlopeGrid,
    cross_model_agreement,
    id_ood_correlation,
)
from steerstats.generalization.correlation import FIXED, POPULATION
from steerstats.resampling import bonett_wright, bootstrap_correlation, mean_covariance
from steerstats.resampling.ranks import ONE_DATASET, TWO_DATASETS

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
        assert not any("without refits" in text for text in found.warnings)
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


@pytest.mark.parametrize(("n", "said"), [(7, False), (8, True)])
def test_clipped_resamples_are_told_of_where_an_interval_is_made_of_them(n, said):
    grid = make_grid(true_means(0.98, n))
    found = id_ood_correlation(grid, ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=200)
    assert any("of resamples are clipped" in text for text in found.warnings) is said


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
    assert found.warnings == (ONE_DATASET,)
    assert np.isnan(found.estimate).all()
    assert correlate(make_grid(true_means(0.7, 2)), 20).warnings == (TWO_DATASETS,)
