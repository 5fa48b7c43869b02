"""What foretells steerability: rank correlations over and inside datasets, ridge on new datasets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import Ridge

from steerstats.errors import CannotEstimate, InputError
from steerstats.predictors import (
    auc,
    cross_validated_ridge,
    d_prime,
    dataset_associations,
    difference_cosine,
    within_dataset_associations,
)
from steerstats.predictors.prediction import ALPHAS, MOST_FOLDS

GRID = np.array([-1.5, -1, -0.5, 0, 0.5, 1, 1.5])


# --- rank correlations ------------------------------------------------------------------------------------------


def test_association_over_datasets_agrees_with_scipy_and_its_permutation_p():
    rng = np.random.default_rng(8)
    y = rng.normal(size=15)
    frame = pd.DataFrame({"mean_cosine": y + rng.normal(size=15), "noise": rng.normal(size=15).round()})
    found = dataset_associations(frame, y, rng=rng, n_permutations=4000)
    for j, name in enumerate(frame):
        oracle = stats.spearmanr(frame[name], y)
        assert found.rho[j] == pytest.approx(oracle.statistic)
        assert found.p[j] == pytest.approx(oracle.pvalue, abs=0.03)
    assert np.all(found.p_family >= found.p)
    assert found.to_frame()["published"].iloc[0] == 0.76


def test_family_p_holds_its_level_over_many_useless_candidates():
    rng = np.random.default_rng(9)
    smallest = []
    for _ in range(150):
        frame = pd.DataFrame(rng.normal(size=(10, 6)))
        found = dataset_associations(frame, rng.normal(size=10), rng=rng, n_permutations=199, n_resamples=2)
        smallest.append((found.p_family.min(), found.p.min()))
    family, single = (np.array(smallest) <= 0.05).mean(axis=0)
    assert family <= 0.1
    assert single > 0.15


def test_association_interval_covers_and_categories_widen_it():
    rng = np.random.default_rng(10)
    hits, width, wide = [], [], []
    rho = 6 / np.pi * np.arcsin(0.6 / 2)
    for _ in range(120):
        x = rng.normal(size=40)
        y = 0.6 * x + 0.8 * rng.normal(size=40)
        found = dataset_associations(pd.DataFrame({"x": x}), y, rng=rng, n_permutations=2, n_resamples=300)
        hits.append(found.ci_low[0] <= rho <= found.ci_high[0])
        shared = np.repeat(rng.normal(size=(8, 2)), 5, axis=0) + 0.3 * rng.normal(size=(40, 2))
        for category, into in ((None, width), (np.repeat(range(8), 5), wide)):
            one = dataset_associations(
                pd.DataFrame({"x": shared[:, 0]}),
                shared[:, 1],
                rng=rng,
                category=category,
                n_permutations=2,
                n_resamples=100,
            )
            into.append(one.ci_high[0] - one.ci_low[0])
    assert 0.89 <= np.mean(hits) <= 0.99
    assert np.mean(wide) > 1.4 * np.mean(width)


def test_few_datasets_warn_and_missing_candidates_are_counted():
    rng = np.random.default_rng(11)
    frame = pd.DataFrame({"x": [1, 2, 3, 4, 5.0], "gap": [1, np.nan, 2, np.nan, 3], "flat": [1.0] * 5})
    found = dataset_associations(frame, np.arange(5.0), rng=rng, n_permutations=99, n_resamples=99)
    assert found.n_datasets.tolist() == [5, 3, 5]
    assert found.rho[:2].tolist() == [1, 1]
    assert np.isnan(found.rho[2])
    assert found.p[0] <= 0.1
    assert np.isnan(found.p[1:]).all()
    assert np.isnan(found.p_family[1:]).all()
    assert np.isnan(found.ci_low).all(), "as for every correlation over fewer than eight datasets"
    assert found.warnings == (
        "x: 5 datasets: fewer than 8 say little about a correlation, no interval is given",
        "gap: 3 datasets can be arranged in 6 ways only: no p-value",
        "gap: 3 datasets: fewer than 8 say little about a correlation, no interval is given",
        "flat: 5 datasets, or all alike on one side: no correlation",
    )
    for few in (2, 3):
        assert dataset_associations(frame[["x"]][:few], np.arange(few), rng=rng).rho == 1
    one = dataset_associations(frame[["x"]][:1], np.arange(1.0), rng=rng)
    assert np.isnan(one.rho[0])
    assert "no correlation" in one.warnings[0]
    with pytest.raises(InputError, match="no dataset"):
        dataset_associations(frame[:0], np.array([]), rng=rng)
    with pytest.raises(InputError, match="5 rows of predictors"):
        dataset_associations(frame, np.arange(4.0), rng=rng)


def inputs(seed: int, datasets: int = 12, n: int = 30, between: float = 1.0, inside: float = 1.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    blocks = []
    for d in range(datasets):
        level, projection = rng.normal(), rng.normal(size=n)
        slope = between * level + inside * projection + rng.normal(size=n)
        block = {"dataset": f"d{d}", "level": level, "projection": projection, "noise": rng.normal(size=n)}
        blocks.append(pd.DataFrame(block | {"slope": slope}))
    return pd.concat(blocks, ignore_index=True)


def test_inside_datasets_the_average_is_that_of_scipy_and_levels_do_not_count():
    frame = inputs(12)
    found = within_dataset_associations(frame, ["projection", "noise", "level"])
    rhos = [stats.spearmanr(b["projection"], b["slope"]).statistic for _, b in frame.groupby("dataset")]
    low, high = stats.t.interval(0.95, 11, np.mean(rhos), stats.sem(rhos))
    np.testing.assert_allclose([found.rho[0], found.ci_low[0], found.ci_high[0]], [np.mean(rhos), low, high])
    assert found.p[0] == pytest.approx(stats.ttest_1samp(rhos, 0).pvalue)
    assert found.n_datasets.tolist() == [12, 12, 0]
    assert np.isnan(found.rho[2])
    shifted = frame.assign(slope=frame["slope"] + 100 * frame["level"])
    np.testing.assert_allclose(within_dataset_associations(shifted, ["projection"]).rho[0], found.rho[0])


def test_equal_correlations_have_no_interval_of_no_width():
    frame = pd.concat([pd.DataFrame({"dataset": d, "x": [1, 2, 3, 4], "slope": [1, 3, 2, 4]}) for d in "abc"])
    found = within_dataset_associations(frame, ["x"])
    assert found.rho[0] == pytest.approx(0.8)
    assert np.isnan([found.ci_low[0], found.ci_high[0], found.p[0]]).all()
    assert "x: the correlation is the same in all 3 datasets: no interval" in found.warnings


def test_two_inputs_of_a_dataset_are_no_correlation_inside_it():
    rows = {"a": ([1, 2, 3, 4], [1, 3, 2, 4]), "b": ([1, 2, 3], [3, 1, 2]), "c": ([1, 2], [1, 2])}
    frame = pd.concat([pd.DataFrame({"dataset": d, "x": x, "slope": y}) for d, (x, y) in rows.items()])
    found = within_dataset_associations(frame, ["x"])
    assert found.n_datasets.tolist() == [2]
    assert found.rho[0] == pytest.approx((0.8 - 0.5) / 2)
    assert "x: varies with the slope in 2 of 3 datasets" in found.warnings


def test_undefined_factors_are_left_out_pairwise():
    frame = inputs(13, datasets=3)
    frame["pos_is_yes"] = np.where(np.arange(90) % 3 == 0, np.nan, np.arange(90) % 2)
    found = within_dataset_associations(frame, ["pos_is_yes"])
    kept = frame.dropna()
    rhos = [stats.spearmanr(b["pos_is_yes"], b["slope"]).statistic for _, b in kept.groupby("dataset")]
    assert found.rho[0] == pytest.approx(np.mean(rhos))


@pytest.mark.parametrize(
    "call", [within_dataset_associations, lambda *a, **k: cross_validated_ridge(*a, rng=np.random.default_rng(0), **k)]
)
def test_unsteered_propensity_needs_a_symmetric_grid(call):
    frame = inputs(14, n=8).rename(columns={"noise": "unsteered"})
    with pytest.raises(InputError, match="give multipliers"):
        call(frame, ["unsteered"])
    with pytest.raises(CannotEstimate, match="symmetric about 0"):
        call(frame, ["unsteered"], multipliers=np.array([0.0, 1, 2]))
    assert call(frame, ["unsteered"], multipliers=GRID).predictors == ("unsteered",)
    with pytest.raises(InputError, match="'absent'"):
        call(frame, ["absent"])


# --- ridge ------------------------------------------------------------------------------------------------------


def test_the_cosine_that_pure_noise_would_show_is_that_of_noise():
    difference = np.random.default_rng(15).normal(size=(64, 4000))
    vector = difference.mean(axis=0)
    found = difference_cosine(difference @ vector / np.linalg.norm(difference, axis=1) / np.linalg.norm(vector))
    assert found.estimate == pytest.approx(0.125, abs=0.005)
    assert found.assumptions == ("in-sample, pure noise would show about 0.125",)


def test_ridge_recovers_both_parts_of_a_known_truth():
    fit = cross_validated_ridge(
        inputs(15, datasets=20), ["level", "projection", "noise"], rng=np.random.default_rng(0), n_permutations=40
    )
    assert fit.r2 == pytest.approx(2 / 3, abs=0.1)
    assert fit.r2_within == pytest.approx(0.5, abs=0.06)
    assert fit.p == fit.p_within == pytest.approx(1 / 41)
    assert np.abs(np.median(fit.null)) < 0.15  # dealing blocks breaks the level's third as well as the rest
    assert abs(fit.coefficients[2]) < 0.1 < fit.coefficients[1]


def test_held_out_predictions_come_from_the_other_datasets_only():
    frame = inputs(16, datasets=4, n=10)
    fit = cross_validated_ridge(frame, ["projection"], rng=np.random.default_rng(0), n_permutations=1)
    for name in frame["dataset"].unique():
        test = (frame["dataset"] == name).to_numpy()
        x, y = frame.loc[~test, "projection"].to_numpy(), frame.loc[~test, "slope"].to_numpy()
        z, z_test = ((v - x.mean()) / x.std() for v in (x, frame.loc[test, "projection"].to_numpy()))
        candidates = [
            Ridge(alpha).fit(z[:, None], y).predict(z_test[:, None]) for alpha in 10 * ALPHAS
        ]  # rows weigh a tenth
        assert min(np.abs(fit.prediction[test] - candidate).max() for candidate in candidates) < 1e-8
    rest = [frame.loc[frame["dataset"] != name, "slope"].mean() for name in frame["dataset"]]
    y = frame["slope"].to_numpy()
    assert fit.r2 == pytest.approx(1 - ((y - fit.prediction) ** 2).sum() / ((y - rest) ** 2).sum())
    error, outcome = (
        pd.Series(v).groupby(frame["dataset"]).transform(lambda g: g - g.mean()) for v in (y - fit.prediction, y)
    )
    assert fit.r2_within == pytest.approx(1 - (error**2).sum() / (outcome**2).sum())


def test_neither_the_order_nor_the_names_of_datasets_change_what_is_held_out():
    rng = np.random.default_rng(4)
    frame = pd.DataFrame(rng.normal(size=(70, 3)), columns=["x", "z", "slope"]).assign(dataset=np.arange(70))
    frame["slope"] += frame["x"]
    for datasets in (20, 70):  # one at a time, and in folds
        own = frame.head(datasets)
        fits = [own, own.iloc[rng.permutation(datasets)], own.assign(dataset=rng.permutation(datasets))]
        fits = [cross_validated_ridge(f, ["x", "z"], rng=np.random.default_rng(0), n_permutations=1) for f in fits]
        assert fits[0].n_folds == min(datasets, MOST_FOLDS)
        np.testing.assert_allclose([fit.r2 for fit in fits], fits[0].r2, rtol=1e-9)


def test_r2_has_an_interval_from_a_hundred_datasets_on_and_the_method_says_so():
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"x": rng.normal(size=100), "dataset": np.arange(100)})
    frame["slope"] = frame["x"] + rng.normal(size=100)
    for datasets, words in ((99, "no interval of R² below 100 datasets"), (100, "percentile interval over datasets")):
        fit = cross_validated_ridge(frame.head(datasets), ["x"], rng=rng, n_permutations=1)
        assert np.isfinite([fit.ci_low, fit.ci_high]).all() == (datasets == 100)
        assert words in fit.method


def test_datasets_weigh_the_same_whatever_their_size():
    frame = inputs(17, datasets=5)
    doubled = pd.concat([frame, *[frame[frame["dataset"] == "d0"]] * 3], ignore_index=True)
    ours = [
        cross_validated_ridge(f, ["projection"], rng=np.random.default_rng(0), n_permutations=1)
        for f in (frame, doubled)
    ]
    assert ours[0].r2 == pytest.approx(ours[1].r2, abs=1e-3)


def test_null_of_whole_datasets_holds_its_level_where_rows_would_not():
    """Predictor and outcome are both constant inside datasets, so rows are far from exchangeable."""
    rejected, rng = 0, np.random.default_rng(18)
    for _ in range(60):
        blocks = rng.normal(size=(8, 2))
        frame = pd.DataFrame(np.repeat(blocks, 6, axis=0), columns=["level", "slope"])
        frame["dataset"] = np.repeat(np.arange(8), 6)
        frame["slope"] += 0.1 * rng.normal(size=48)
        fit = cross_validated_ridge(frame, ["level"], rng=rng, n_permutations=19, n_resamples=2)
        rejected += fit.p <= 0.05
    assert rejected <= 8


def test_categories_are_never_split_and_one_row_per_dataset_has_no_inside():
    frame = inputs(19, datasets=6, n=1)
    frame["category"] = ["x", "x", "y", "y", "z", "z"]
    fit = cross_validated_ridge(frame, ["level"], rng=np.random.default_rng(0), category="category", n_permutations=3)
    assert fit.n_folds == 3
    assert np.isnan([fit.r2_within, fit.within_low, fit.p_within]).all()
    assert any("fewer than 8" in text for text in fit.warnings)


def test_rounding_inside_datasets_is_no_variance_to_foretell():
    frame = inputs(21, datasets=6, n=5)
    frame["slope"] = frame.groupby("dataset")["level"].transform("first") / 3
    fit = cross_validated_ridge(frame, ["projection"], rng=np.random.default_rng(0), n_permutations=19)
    assert np.isfinite([fit.r2, fit.p]).all()
    assert np.isnan([fit.r2_within, fit.p_within]).all()
    assert any("'slope' does not vary inside any dataset" in text for text in fit.warnings)


def test_ridge_edges_are_named():
    rng = np.random.default_rng(0)
    with pytest.raises(CannotEstimate, match="2 datasets"):
        cross_validated_ridge(inputs(20, datasets=2), ["level"], rng=rng)
    with pytest.raises(CannotEstimate, match="does not vary"):
        cross_validated_ridge(inputs(20).assign(slope=1.0), ["level"], rng=rng)
    with pytest.raises(InputError, match="'level' is not finite at row 3"):
        cross_validated_ridge(inputs(20).assign(level=lambda f: f["level"].where(f.index != 3)), ["level"], rng=rng)


def test_rounding_is_neither_ranked_nor_scaled():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=40), "dataset": np.repeat([0, 1], 20), "slope": 0.3})
    frame["slope"] += rng.choice([0.0, 5e-17], 40)
    assert np.isnan(within_dataset_associations(frame, ["x"]).rho[0])
    over = dataset_associations(frame[["slope", "x"]], frame["x"].to_numpy(), rng=rng, n_permutations=19)
    assert np.isnan(over.rho[0])
    assert over.rho[1] == pytest.approx(1)
    assert np.isnan(dataset_associations(frame[["x"]], frame["slope"].to_numpy(), rng=rng, n_permutations=19).rho[0])
    with pytest.raises(CannotEstimate, match="'slope' does not vary"):
        cross_validated_ridge(frame.assign(dataset=range(40)), ["x"], rng=rng, n_permutations=19)
    still = frame.assign(dataset=range(40), x=frame["slope"], slope=frame["x"])
    assert cross_validated_ridge(still, ["x"], rng=rng, n_permutations=19).coefficients[0] == 0
    with pytest.raises(CannotEstimate, match="do not vary within either answer"):
        d_prime(np.array([[0.1] * 3, [0.3, 0.3, 0.1 + 0.2]]))
    with pytest.raises(CannotEstimate, match="all projections are equal"):
        auc(np.full((2, 5), 0.2))
