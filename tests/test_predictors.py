"""What foretells steerability: cross-fitting against in-sample optimism, rank correlations, ridge on new datasets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from steerstats.errors import CannotEstimate, InputError
from steerstats.prediction import ALPHAS, MOST_FOLDS
from steerstats.predictors import (
    auc,
    cross_validated_ridge,
    crossfit,
    d_prime,
    dataset_associations,
    dataset_predictors,
    difference_cosine,
    within_dataset_associations,
)

GRID = np.array([-1.5, -1, -0.5, 0, 0.5, 1, 1.5])


def contrast(seed: int, n: int = 60, hidden: int = 8, signal: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, n, hidden)) + 5 * rng.normal(size=hidden)
    x[0, :, 0] += signal
    return x


# --- separation -------------------------------------------------------------------------------------------------


def test_pure_noise_separates_in_sample_and_does_not_when_cross_fitted():
    x = contrast(0, n=400, hidden=4096, signal=0.0)
    vector = (x[0] - x[1]).mean(axis=0)
    inside = x @ (vector / np.linalg.norm(vector))
    assert d_prime(inside).estimate > 3.5
    assert auc(inside).estimate > 0.99
    fitted = crossfit(x, rng=np.random.default_rng(1))
    outside = d_prime(fitted.projection)
    assert outside.ci_low < 0 < outside.ci_high
    assert abs(outside.estimate) < 0.25
    assert abs(auc(fitted.projection).estimate - 0.5) < 0.08
    cosines = (x[0] - x[1]) @ vector / np.linalg.norm(vector) / np.linalg.norm(x[0] - x[1], axis=1)
    assert difference_cosine(cosines).estimate == pytest.approx(1 / 20, rel=0.1)
    assert abs(difference_cosine(fitted.difference_cosine).estimate) < 0.005


def test_crossfit_agrees_with_a_loop_that_fits_without_the_fold():
    x = contrast(2)
    questions = np.arange(60) // 3
    fitted = crossfit(x, rng=np.random.default_rng(3), questions=questions, n_folds=4)
    for i in range(60):
        train = fitted.fold != fitted.fold[i]
        assert not set(questions[train]) & {questions[i]}
        direction = (x[0, train] - x[1, train]).mean(axis=0)
        direction /= np.linalg.norm(direction)
        middle = (x[0, train].mean(axis=0) + x[1, train].mean(axis=0)) / 2
        np.testing.assert_allclose(fitted.projection[:, i], (x[:, i] - middle) @ direction, atol=1e-10)
        difference = x[0, i] - x[1, i]
        assert fitted.difference_cosine[i] == pytest.approx(difference @ direction / np.linalg.norm(difference))
    assert np.bincount(fitted.fold).tolist() == [15] * 4


def test_d_prime_and_auc_agree_with_their_definitions():
    projection = contrast(4, hidden=1)[..., 0].round(1)  # rounded: ties
    a, b = projection
    value = (a.mean() - b.mean()) / np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    assert d_prime(projection).estimate == pytest.approx(value)
    assert auc(projection).estimate == pytest.approx(roc_auc_score(np.repeat([1, 0], 60), np.r_[a, b]))


def test_linearised_errors_agree_with_leaving_questions_out():
    projection = contrast(5, n=200, hidden=1)[..., 0]
    questions = np.arange(200) // 2
    for kind in (d_prime, auc):
        left_out = [kind(projection[:, questions != q]).estimate for q in range(100)]
        jackknife = np.sqrt(99**2 / 100 * np.var(left_out, ddof=1))
        assert kind(projection, questions=questions).se == pytest.approx(jackknife, rel=0.03)


@pytest.mark.parametrize("truth", [0.0, 1.5])
def test_separation_intervals_cover(truth):
    rng = np.random.default_rng(6)
    hits = {"d": [], "a": []}
    area = stats.norm.cdf(truth / np.sqrt(2))
    for _ in range(400):
        pair = rng.normal(size=40)  # the two answers of a pair share it
        projection = np.sqrt(0.5) * (rng.normal(size=(2, 40)) + pair) + np.array([[truth], [0]])
        d, a = d_prime(projection), auc(projection)
        hits["d"].append(d.ci_low <= truth <= d.ci_high)
        hits["a"].append(a.ci_low <= area <= a.ci_high)
    assert all(0.915 <= np.mean(h) <= 0.98 for h in hits.values())


@given(seed=st.integers(0, 40), scale=st.sampled_from([0.1, 30.0]), shift=st.floats(-9, 9))
@settings(max_examples=20, deadline=None)
def test_separation_ignores_units_and_offsets_and_turns_with_the_labels(seed, scale, shift):
    projection = contrast(seed, n=12, hidden=1)[..., 0]
    for kind, turned in ((d_prime, lambda v: -v), (auc, lambda v: 1 - v)):
        base = kind(projection)
        assert kind(scale * projection + shift).estimate == pytest.approx(base.estimate, rel=1e-6, abs=1e-9)
        swapped = kind(projection[::-1])
        assert swapped.estimate == pytest.approx(turned(base.estimate), abs=1e-9)
        assert swapped.ci_low == pytest.approx(turned(base.ci_high), abs=1e-9)


def test_complete_separation_keeps_an_interval():
    area = auc(np.array([np.arange(10.0) + 20, np.arange(10.0)]))
    assert (area.estimate, area.ci_high) == (1.0, 1.0)
    assert 0.6 < area.ci_low < 0.8
    assert "complete separation" in area.warnings[0]


@pytest.mark.parametrize("n", [2, 3, 7, 40])
def test_answers_on_one_place_are_no_separation_and_keep_an_interval(n):
    place = np.random.default_rng(n).normal(size=n)
    area = auc(np.stack([place, place]))
    assert area.estimate == pytest.approx(0.5)
    assert area.ci_low < 0.5 - 0.5 / np.sqrt(n) / 2 < 0.5 + 0.5 / np.sqrt(n) / 2 < area.ci_high
    (text,) = area.warnings
    assert text.startswith("every question separates the answers alike")


def test_dataset_predictors_assemble_the_candidates():
    x = contrast(7)
    fitted = crossfit(x, rng=np.random.default_rng(0))
    found = dataset_predictors(
        fitted.projection, fitted.difference_cosine, vector_norm=3.0, activation_norm=12.0, unembedding_cosine=-0.2
    )
    assert found.values() == {
        "mean_cosine": pytest.approx(fitted.difference_cosine.mean()),
        "d_prime": d_prime(fitted.projection).estimate,
        "auc": auc(fitted.projection).estimate,
        "norm_ratio": 0.25,
        "unembedding_alignment": 0.2,
    }
    assert np.isnan(found["norm_ratio"].ci_low)
    assert len(found.to_frame()) == 5


def test_separation_edges_are_named():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="2 answers"):
        crossfit(np.ones((3, 4, 5)), rng=rng)
    with pytest.raises(CannotEstimate, match="5 folds for 4 questions"):
        crossfit(contrast(0, n=4), rng=rng)
    with pytest.raises(CannotEstimate, match="no direction"):
        crossfit(np.ones((2, 6, 3)), rng=rng)
    broken = contrast(0, n=6)
    broken[1, 3, 0] = np.nan
    with pytest.raises(InputError, match="pair 3, negative answer"):
        crossfit(broken, rng=rng)
    with pytest.raises(CannotEstimate, match="do not vary"):
        d_prime(np.array([[1.0, 1], [0, 0]]))
    with pytest.raises(CannotEstimate, match="1 question"):
        auc(np.ones((2, 4)), questions=[1, 1, 1, 1])
    with pytest.raises(InputError, match=r"in \[-1, 1\]"):
        difference_cosine(np.array([0.5, 1.2]))
    with pytest.raises(InputError, match="activation_norm 0"):
        dataset_predictors(np.eye(2), np.ones(2), vector_norm=1.0, activation_norm=0)


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
    with pytest.raises(CannotEstimate, match="do not vary within either answer"):
        d_prime(np.array([[0.1] * 3, [0.3, 0.3, 0.1 + 0.2]]))
    with pytest.raises(CannotEstimate, match="all projections are equal"):
        auc(np.full((2, 5), 0.2))
