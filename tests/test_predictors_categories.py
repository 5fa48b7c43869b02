"""Whole categories as the units of what foretells steerability: permutations, errors, folds, and what three allow."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneGroupOut
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from steerstats.errors import InputError
from steerstats.predictors import cross_validated_ridge, dataset_associations, within_dataset_associations
from steerstats.predictors.prediction import ALPHAS, _rearranged
from steerstats.resampling.units import deal


def families(rng: np.random.Generator, sizes=(5,) * 8, icc: float = 0.6) -> pd.DataFrame:
    """Datasets of a category resemble each other in candidate and outcome, which have nothing to do with each other."""
    family = np.repeat(np.arange(len(sizes)), sizes)
    frame = pd.DataFrame({"dataset": np.arange(family.size), "family": family})
    for name in ("x", "slope"):
        frame[name] = np.sqrt(icc) * rng.normal(size=len(sizes))[family] + np.sqrt(1 - icc) * rng.normal(
            size=len(frame)
        )
    return frame


@pytest.mark.parametrize("sizes", [(5,) * 8, (10, 6, 4, 3, 2, 2)], ids=["equal", "unequal"])
def test_permuting_whole_categories_holds_its_level_where_datasets_do_not(sizes):
    rng, p = np.random.default_rng(0), []
    for _ in range(200):
        frame = families(rng, sizes)
        both = [
            dataset_associations(
                frame[["x"]], frame["slope"], rng=rng, category=category, n_permutations=99, n_resamples=2
            ).p[0]
            for category in (frame["family"], None)
        ]
        p.append(both)
    whole, single = (np.array(p) <= 0.05).mean(axis=0)
    assert 0.01 <= whole <= 0.09
    assert single > 0.13


def test_ridge_permutes_whole_categories_too():
    rng = np.random.default_rng(1)
    p = [
        cross_validated_ridge(families(rng), ["x"], rng=rng, category="family", n_permutations=19, n_resamples=2).p
        for _ in range(150)
    ]
    assert (np.array(p) <= 0.05).mean() <= 0.09  # .13 with single datasets
    assert (np.array(p) <= 0.5).mean() == pytest.approx(0.5, abs=0.12)


def test_inside_datasets_errors_count_categories():
    rng, p = np.random.default_rng(2), []
    for _ in range(100):
        family = np.repeat(np.arange(8), 4)
        pull = 0.9 * rng.normal(size=8)[family]  # whether the candidate foretells slopes goes by category
        x = rng.normal(size=(32, 10))
        slope = pull[:, None] * x + rng.normal(size=(32, 10))
        frame = pd.DataFrame({"x": x.ravel(), "slope": slope.ravel(), "dataset": np.repeat(np.arange(32), 10)})
        frame["family"] = np.repeat(family, 10)
        p.append([within_dataset_associations(frame, ["x"], category=c).p[0] for c in ("family", None)])
    counted, ignored = (np.array(p) <= 0.05).mean(axis=0)
    assert 0.01 <= counted <= 0.1
    assert ignored > 0.2


def test_categories_of_one_dataset_are_no_categories():
    frame = families(np.random.default_rng(3), (1,) * 9)
    frame = pd.concat([frame.assign(slope=frame["slope"] + k * frame["x"] + k**2) for k in range(4)])
    frame["x"] += np.random.default_rng(4).normal(size=len(frame))
    plain, by = (within_dataset_associations(frame, ["x"], category=c) for c in (None, "family"))
    np.testing.assert_allclose([by.ci_low, by.p], [plain.ci_low, plain.p])


def test_dealing_moves_whole_units():
    rng = np.random.default_rng(5)
    unit = np.array([0, 1, 0, 2, 1, 2])
    seen = set()
    for _ in range(600):
        source = deal(unit, rng)
        assert sorted(source) == list(range(6))
        for k in range(3):
            assert len(set(unit[source[unit == k]])) == 1
        seen.add(tuple(source))
    assert len(seen) == 3 * 2 * 2**3
    assert sorted(deal(np.arange(5), rng)) == list(range(5))
    uneven = {tuple(deal(np.array([0, 0, 0, 1]), rng)[[0, 3]]) for _ in range(99)}
    assert uneven == {(0, 3), (1, 3), (2, 3), (3, 0), (3, 1), (3, 2)}, "a unit of one is repeated in a place of three"


def test_ridges_null_deals_means_of_unequal_datasets_and_turns_signs_by_whole_categories():
    rng, sizes = np.random.default_rng(11), np.array([2, 5, 3, 9, 4, 7])
    codes, family = np.repeat(np.arange(6), sizes), np.array([0, 0, 1, 1, 2, 2])
    y = 3 * codes + rng.normal(size=codes.size)
    own = np.bincount(codes, y) / sizes
    columns, n_null = _rearranged(y, codes, family, True, 50, rng)
    np.testing.assert_array_equal(columns[:, 0], y)
    for k, column in enumerate(columns.T[1:]):
        means = np.bincount(codes, column) / sizes
        np.testing.assert_allclose(np.sort(means) if k < n_null else means, own)
        signs = (column - means[codes]) / (y - own[codes])
        by_category = signs[np.searchsorted(codes, [0, 2, 4])]
        np.testing.assert_allclose(signs, by_category[family[codes]])
        np.testing.assert_allclose(np.abs(by_category), 1)


def test_three_categories_have_no_p_value_and_say_why():
    rng = np.random.default_rng(6)
    frame = families(rng, (5, 5, 5))
    found = dataset_associations(frame[["x"]], frame["slope"], rng=rng, category=frame["family"])
    assert np.isfinite(found.rho[0])
    assert np.isnan([found.p[0], found.p_family[0], found.ci_low[0]]).all()
    assert "x: 3 categories can be arranged in 6 ways only: no p-value" in found.warnings
    fit = cross_validated_ridge(frame, ["x"], rng=rng, category="family", n_permutations=5)
    assert np.isfinite(fit.r2)
    assert np.isnan([fit.p, fit.ci_low]).all()
    assert "3 categories can be arranged in 6 ways only: no p-value" in fit.warnings
    assert any("3 categories: fewer than 8" in text for text in fit.warnings)
    one = within_dataset_associations(
        pd.concat([frame.assign(slope=frame["x"] * k, x=k * frame["slope"]) for k in range(3)]).assign(family="one"),
        ["x"],
        category="family",
    )
    assert np.isnan([one.ci_low[0], one.p[0]]).all()
    assert "x: one category has no interval" in one.warnings


def test_the_interval_of_ridge_resamples_categories():
    rng, width, wide = np.random.default_rng(7), [], []
    for _ in range(12):
        frame = families(rng, (3,) * 100, icc=0.9)
        frame["slope"] += frame["x"]
        for category, into in ((None, width), ("family", wide)):
            fit = cross_validated_ridge(frame, ["x"], rng=rng, category=category, n_permutations=1, n_resamples=400)
            into.append(fit.ci_high - fit.ci_low)
    assert np.mean(wide) > 1.3 * np.mean(width)


def test_an_interval_of_r2_needs_a_hundred_categories_where_these_are_the_units():
    frame = families(np.random.default_rng(8), (2,) * 50, icc=0.5)
    fit = cross_validated_ridge(frame, ["x"], rng=np.random.default_rng(9), category="family", n_permutations=1)
    assert fit.n_datasets == 100
    assert np.isnan([fit.ci_low, fit.ci_high]).all()
    assert "no interval of R² below 100 categories" in fit.method


@pytest.mark.parametrize(("category", "sizes"), [(None, (3,) * 6), ("family", (3,) * 6), ("family", (6,) * 3)])
def test_the_penalty_is_the_one_that_leaving_out_in_turn_chooses(category, sizes):
    """Against scikit-learn: nested LeaveOneGroupOut, so that no dataset (category) chooses a penalty for itself."""
    rng = np.random.default_rng(8)
    frame = families(rng, sizes)
    frame = frame.loc[np.repeat(frame.index, 20)].reset_index(drop=True)
    frame["x"] += 0.1 * rng.normal(size=len(frame))  # inputs of a dataset are near copies of each other
    for name in "abcdefgh":
        frame[name] = rng.normal(size=18)[frame["dataset"]] + 0.1 * rng.normal(size=len(frame))
    names = ["x", *"abcdefgh"]
    fit = cross_validated_ridge(frame, names, rng=rng, category=category, n_permutations=1, n_resamples=2)
    groups, x, y = frame[category or "dataset"].to_numpy(), frame[names].to_numpy(), frame["slope"].to_numpy()

    def ridge(alpha, train):
        return make_pipeline(StandardScaler(), Ridge(20 * alpha)).fit(x[train], y[train])  # rows weigh a twentieth

    coefficients = []
    for k, (train, test) in enumerate(LeaveOneGroupOut().split(x, groups=groups)):
        folds = list(LeaveOneGroupOut().split(train, groups=groups[train]))
        loss = [
            sum(((y[train[b]] - ridge(alpha, train[a]).predict(x[train[b]])) ** 2).sum() for a, b in folds)
            for alpha in ALPHAS
        ]
        assert fit.alphas[k] == ALPHAS[int(np.argmin(loss))]
        found = ridge(fit.alphas[k], train)
        np.testing.assert_allclose(fit.prediction[test], found.predict(x[test]), rtol=1e-6)
        coefficients.append(found[-1].coef_)  # of standardised predictors
    np.testing.assert_allclose(fit.coefficients, np.mean(coefficients, axis=0), rtol=1e-6)
    assert np.median(fit.alphas) > 1  # leaving single inputs out chooses .001: a copy of each stays in training


def test_one_training_dataset_leaves_the_mean():
    frame = families(np.random.default_rng(9), (2, 1))
    frame = frame.loc[np.repeat(frame.index, 4)].reset_index(drop=True)
    frame["slope"] += np.arange(12)
    fit = cross_validated_ridge(frame, ["x"], rng=np.random.default_rng(0), category="family", n_permutations=1)
    np.testing.assert_allclose(fit.prediction[:8], frame["slope"][8:].mean())
    assert any("1 folds have one training dataset" in text for text in fit.warnings)


def test_categories_that_make_no_sense_are_named():
    rng = np.random.default_rng(10)
    frame = families(rng)
    with pytest.raises(InputError, match="category has 39 labels for 40 datasets"):
        dataset_associations(frame[["x"]], frame["slope"], rng=rng, category=frame["family"][:-1])
    frame.loc[3, "dataset"] = 20
    with pytest.raises(InputError, match="dataset 20 has several values of 'family'"):
        cross_validated_ridge(frame, ["x"], rng=rng, category="family")


@pytest.mark.parametrize("by_category", [False, True])
def test_ridge_finds_nothing_where_the_sign_of_a_relation_is_a_matter_of_chance(by_category):
    """Every dataset has a strong relation inside, its sign (by category, where given) tossed: nothing in common.

    Shuffled rows would test independence inside datasets, and reject in a tenth and more.
    """
    p, sizes = [], (14, 1) if not by_category else (12, 3)
    for seed in range(200):
        rng = np.random.default_rng([21, seed])
        family = np.repeat(np.arange(sizes[0]), sizes[1])
        dataset = np.repeat(np.arange(family.size), 24 // sizes[1])
        x = rng.integers(0, 2, dataset.size) - 0.5
        sign = rng.choice([-1.0, 1.0], sizes[0])[family[dataset]]
        frame = pd.DataFrame({"x": x, "slope": sign * x + rng.normal(0, 0.3, x.size), "dataset": dataset})
        frame["family"] = family[dataset]
        fit = cross_validated_ridge(
            frame, ["x"], rng=rng, category="family" if by_category else None, n_permutations=39, n_resamples=2
        )
        p.append([fit.p_within, fit.p])
    # Monte Carlo error 1.5 points.
    assert ((np.array(p) <= 0.05).mean(axis=0) <= 0.085).all()


def test_ridge_finds_a_relation_that_datasets_share_and_says_what_five_can_show():
    for datasets, least in ((12, [1 / 100]), (5, [1 / 32, 2 / 32])):
        rng = np.random.default_rng([22, datasets])
        x = rng.normal(size=(datasets, 20))
        slope = 0.8 * x + rng.normal(0, 0.3, x.shape) + rng.normal(size=(datasets, 1))
        frame = pd.DataFrame({"x": x.ravel(), "slope": slope.ravel(), "dataset": np.repeat(np.arange(datasets), 20)})
        fit = cross_validated_ridge(frame, ["x"], rng=rng, n_permutations=99, n_resamples=2)
        assert fit.p_within in least
        said = any("p inside datasets cannot fall below 0.031" in text for text in fit.warnings)
        assert said == (datasets == 5)


@pytest.mark.parametrize(
    ("datasets", "asked", "of_all", "inside"), [(5, 200, 200, 31), (4, 383, 383, 15), (5, 7, 7, 31)]
)
def test_the_few_arrangements_of_few_datasets_are_looked_at_once_each(datasets, asked, of_all, inside):
    """Draws gave p-values of .03 to .06 to one and the same study of five, below its floor in a fifth of studies."""
    rng = np.random.default_rng([23, datasets])
    x = rng.normal(size=(datasets, 20))
    slope = 0.8 * x + rng.normal(0, 0.3, x.shape) + rng.normal(size=(datasets, 1))
    frame = pd.DataFrame({"x": x.ravel(), "slope": slope.ravel(), "dataset": np.repeat(np.arange(datasets), 20)})
    one, other = (
        cross_validated_ridge(frame, ["x"], rng=np.random.default_rng(seed), n_permutations=asked, n_resamples=2)
        for seed in (0, 1)
    )
    assert (one.null.size, one.null_within.size) == (of_all, inside)
    assert f"{of_all} permutations" in one.method
    assert one.p_within == other.p_within >= 0.5**datasets
    assert one.p == other.p or asked != 383
    # By hand: the held-out fit of every choice of signs.
    turned = []
    for signs in itertools.product([1, -1], repeat=datasets):
        inner = (slope - slope.mean(axis=1, keepdims=True)) * np.array(signs)[:, None]
        again = frame.assign(slope=(slope.mean(axis=1, keepdims=True) + inner).ravel())
        turned.append(cross_validated_ridge(again, ["x"], rng=rng, n_permutations=1, n_resamples=2).r2_within)
    assert one.p_within == np.mean(np.array(turned) >= turned[0] - 1e-9)


def test_ridge_over_four_datasets_looks_at_the_24_orders_of_their_outcomes():
    rng = np.random.default_rng(24)
    frame = pd.DataFrame({"x": rng.normal(size=4), "slope": rng.normal(size=4), "dataset": list("abcd")})
    fit = cross_validated_ridge(frame, ["x"], rng=rng, n_permutations=23, n_resamples=2)
    every = [
        cross_validated_ridge(
            frame.assign(slope=frame["slope"].to_numpy()[list(order)]), ["x"], rng=rng, n_permutations=1, n_resamples=2
        ).r2
        for order in itertools.permutations(range(4))
    ]
    np.testing.assert_allclose(np.sort([fit.r2, *fit.null]), np.sort(every), atol=1e-12)
    assert fit.p == np.mean(np.array(every) >= fit.r2 - 1e-12)


def test_ranks_of_four_datasets_are_dealt_in_all_their_24_orders():
    """Draws gave .064 to .106 to this study, which has one p-value."""
    x = np.array([0.3, -1.0, 0.8, 0.1])
    orders = np.array(list(itertools.permutations(x)))
    for y in (x**3, np.array([0.0, -1.0, 1.0, 3.0])):
        exact = np.mean(np.abs(stats.spearmanr(orders.T, y).statistic[:-1, -1]) >= stats.spearmanr(x, y)[0] - 1e-9)
        for seed, asked in ((0, 23), (1, 5000)):
            rng = np.random.default_rng(seed)
            found = dataset_associations(pd.DataFrame({"x": x}), y, rng=rng, n_permutations=asked, n_resamples=2)
            assert found.p[0] == found.p_family[0] == pytest.approx(exact)
            assert "23 permutations of datasets" in found.method
