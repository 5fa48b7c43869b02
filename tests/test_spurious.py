"""Steerability bias: coding, HC2 and CR2 against slow oracles and known truth, the mixed model, pooling, cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from known_truth import GRID, biased, covers
from scipy import stats

from steerstats.errors import CannotEstimate, InputError
from steerstats.meta import mean_over_datasets
from steerstats.mixed import closed_form, hc2_bell_mccaffrey
from steerstats.spurious import (
    code_factors,
    cr2_bell_mccaffrey,
    factor_cells,
    pool_spurious_factors,
    published_variance_split,
    spurious_factors,
    variance_explained,
)
from steerstats.spurious.pooled import few_df_warning
from steerstats.steerability import anti_steerable, fit_steerability

# --- coding -----------------------------------------------------------------------------------------------------


def test_binary_codes_are_halves_and_undefined_inputs_get_a_level_of_their_own():
    design = code_factors({"pos_is_a": [1, 0, 1, 0], "pos_is_yes": [True, False, None, True]}, 4)
    frame = pd.DataFrame(design.columns, columns=design.names)
    assert frame["pos_is_a"].tolist() == [0.5, -0.5, 0.5, -0.5]
    assert frame["pos_is_yes"].tolist() == [0.5, -0.5, 0, 0.5]
    assert frame["pos_is_yes[neither]"].tolist() == [0, 0, 1, 0]
    assert design.factors == ("pos_is_a", "pos_is_yes")


def test_undefined_may_be_minus_one_nan_or_none_alike():
    frames = [code_factors({"pos_is_yes": [1, 0, gap, 1]}, 4).columns for gap in (-1, np.nan, None)]
    np.testing.assert_array_equal(frames[0], frames[1])
    np.testing.assert_array_equal(frames[0], frames[2])


def test_one_level_and_aliased_factors_are_dropped_by_name():
    factors = {"pos_is_a": [1, 0, 1, 0], "pos_is_yes": [-1, -1, -1, -1], "is_long": [True, False, True, False]}
    design = code_factors(factors, 4, interactions=[("pos_is_a", "pos_is_yes")])
    assert design.names == ("Intercept", "pos_is_a")
    assert "pos_is_yes has one level or is defined nowhere: dropped" in design.warnings
    assert "is_long is determined by the columns before it: dropped" in design.warnings
    assert design.aliased == ("is_long",)


def test_a_number_that_is_constant_but_for_rounding_is_no_factor():
    length = np.where(np.arange(40) % 3, 0.3, 0.1 + 0.2)
    design = code_factors({"length": length, "pos_is_a": np.arange(40) % 2}, 40)
    assert design.names == ("Intercept", "pos_is_a")
    assert any("length has one level" in text for text in design.warnings)


def test_interaction_with_an_empty_cell_is_dropped_by_name():
    design = code_factors(
        {"pos_is_a": [1, 1, 0, 0, 0], "pos_is_yes": [1, 0, 0, 0, 0]}, 5, interactions=[("pos_is_a", "pos_is_yes")]
    )
    assert design.warnings == ("pos_is_a:pos_is_yes is determined by the columns before it: dropped",)


def test_missing_numbers_leave_the_input_out_and_say_so():
    design = code_factors({"length_difference": [3, np.nan, -3, 6]}, 4)
    assert design.kept.tolist() == [True, False, True, True]
    np.testing.assert_allclose(design.columns[:, 1], [1, -5, 4])
    assert "missing for 1 of 4" in design.warnings[0]
    dropped = code_factors({"pos_is_yes": [1, 0, -1, 0]}, 4, drop_undefined=True)
    assert dropped.kept.tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ({"pos_is_a": [1, 0]}, "2 values for 3 inputs"),
        ({"pos_is_a": [1, 0, 2]}, "is 2 at input 2"),
        ({"tone": ["x", "y", "z"]}, "not a number"),
        ({"length_difference": [1, np.inf, 2]}, "infinite at input 1"),
        ({"a:b": [1, 0, 2]}, "'a:b' holds one of"),
    ],
)
def test_bad_factors_are_named(factors, words):
    with pytest.raises(InputError, match=words):
        code_factors(factors, 3)


# --- one dataset ------------------------------------------------------------------------------------------------


def test_estimates_and_hc2_agree_with_statsmodels():
    rng = np.random.default_rng(0)
    slopes, factors = biased(rng)
    factors["length_difference"] = rng.normal(0, 30, size=60)
    unsteered = rng.normal(size=60)
    fit = spurious_factors(slopes, factors, unsteered=unsteered, interactions=True)
    frame = fit.to_frame()
    yes = np.array(factors["pos_is_yes"], dtype=float)
    a, neither = np.array(factors["pos_is_a"]) - 0.5, (yes < 0).astype(float)
    yes = np.where(yes < 0, 0, yes - 0.5)
    length = factors["length_difference"] - np.mean(factors["length_difference"])
    X = np.column_stack([np.ones(60), a, yes, neither, length, a * yes, a * neither])
    for response, values in [("slope", slopes), ("unsteered", unsteered)]:
        oracle = sm.OLS(values, X).fit().get_robustcov_results("HC2")
        rows = frame[frame["response"] == response]
        np.testing.assert_allclose(rows["estimate"], oracle.params, rtol=1e-9)
        np.testing.assert_allclose(rows["se"], oracle.bse, rtol=1e-9)
    assert set(frame["se_type"]) == {"HC2, Bell-McCaffrey df"}
    assert fit.term("length_difference")["unit"] == "nat per unit multiplier"


def test_main_effect_is_the_balanced_difference_of_cell_means_with_an_interaction():
    rng = np.random.default_rng(1)
    a, yes = rng.integers(0, 2, 80), rng.integers(0, 2, 80)
    slopes = rng.normal(size=80) + 2 * a * yes
    mean = {(i, j): slopes[(a == i) & (yes == j)].mean() for i in (0, 1) for j in (0, 1)}
    fit = spurious_factors(slopes, {"pos_is_a": a, "pos_is_yes": yes}, interactions=True)
    expected = (mean[1, 1] + mean[1, 0] - mean[0, 1] - mean[0, 0]) / 2
    assert fit.term("pos_is_a")["estimate"] == pytest.approx(expected)
    contrast = mean[1, 1] - mean[1, 0] - mean[0, 1] + mean[0, 0]
    assert fit.term("pos_is_a:pos_is_yes")["estimate"] == pytest.approx(contrast)


def test_neither_inputs_inform_a_but_not_yes():
    rng = np.random.default_rng(2)
    slopes, factors = biased(rng, n=120)
    neither = np.array(factors["pos_is_yes"]) < 0
    base = spurious_factors(slopes, factors)
    moved = slopes + 50.0 * neither
    for term in ("pos_is_a", "pos_is_yes"):
        assert spurious_factors(moved, factors).term(term)["estimate"] == pytest.approx(base.term(term)["estimate"])
    tilted = slopes + 5.0 * neither * np.array(factors["pos_is_a"])
    assert spurious_factors(tilted, factors).term("pos_is_a")["estimate"] > base.term("pos_is_a")["estimate"] + 0.5
    assert spurious_factors(slopes, factors, drop_undefined=True).n == 100


def test_rare_level_with_unequal_spread_is_covered():
    rng = np.random.default_rng(3)
    a = np.r_[np.ones(6), np.zeros(44)]
    hits = []
    for _ in range(600):
        slopes = 2 * a + rng.normal(size=50) * np.where(a == 1, 3, 1)
        hits.append(covers(spurious_factors(slopes, {"pos_is_a": a}), "pos_is_a", 2))
    assert 0.925 <= np.mean(hits) <= 0.97


def test_mixed_model_repeats_the_slope_estimates_and_lme4_scaled_errors():
    rng = np.random.default_rng(4)
    slopes, factors = biased(rng)
    y = slopes[:, None] * GRID + rng.normal(size=(60, 1)) + 0.3 * rng.normal(size=(60, 7))
    s, factors = fit_steerability(y, GRID).slope, {**factors, "length": np.where(np.arange(60) == 3, np.nan, slopes**2)}
    fit = spurious_factors(s, factors, propensity=y, multipliers=GRID)
    y, s, frame = np.delete(y, 3, axis=0), np.delete(s, 3), fit.to_frame()  # without the input that has no length
    robust = frame.query("model == 'per-input' and response == 'slope'")
    mixed = frame.query("model == 'mixed' and response == 'slope'")
    assert mixed["term"].tolist() == robust["term"].tolist()
    np.testing.assert_allclose(mixed["estimate"], robust["estimate"], rtol=1e-9)
    oracle = sm.OLS(s, fit.design.columns).fit()
    np.testing.assert_allclose(mixed["se"], oracle.bse, rtol=1e-9)
    assert set(mixed["se_type"]) == {"unconstrained S/(N-p)"}
    heights = sm.OLS(fit_steerability(y, GRID).intercept, fit.design.columns).fit()
    np.testing.assert_allclose(
        frame.query("model == 'mixed' and response == 'intercept'")["estimate"], heights.params, rtol=1e-9
    )


def test_two_multipliers_lose_the_mixed_model_only():
    rng = np.random.default_rng(5)
    slopes, factors = biased(rng)
    grid = np.array([-1.0, 1])
    fit = spurious_factors(slopes, factors, propensity=slopes[:, None] * grid, multipliers=grid)
    assert fit.mixed is None
    assert any("no mixed model" in text for text in fit.warnings)


@given(seed=st.integers(0, 30), scale=st.sampled_from([-2.0, 0.1, 7.0]), shift=st.sampled_from([-3.0, 5.0]))
@settings(max_examples=20, deadline=None)
def test_effects_follow_units_signs_shifts_and_relabelling(seed, scale, shift):
    rng = np.random.default_rng(seed)
    slopes, factors = biased(rng)
    base = spurious_factors(slopes, factors).term("pos_is_a")
    order = rng.permutation(60)
    moved = spurious_factors(scale * slopes[order] + shift, {k: v[order] for k, v in factors.items()}).term("pos_is_a")
    assert moved["estimate"] == pytest.approx(scale * base["estimate"], rel=1e-7, abs=1e-9)
    assert moved["se"] == pytest.approx(abs(scale) * base["se"], rel=1e-7)
    flipped = spurious_factors(slopes, factors | {"pos_is_a": 1 - factors["pos_is_a"]}).term("pos_is_a")
    assert flipped["estimate"] == pytest.approx(-base["estimate"], rel=1e-7, abs=1e-9)
    assert flipped["p"] == pytest.approx(base["p"], rel=1e-6, abs=1e-12)


def test_edges_of_one_dataset_are_named():
    with pytest.raises(CannotEstimate, match="A or B does not vary"):
        spurious_factors(np.arange(5.0), {"pos_is_a": [1] * 5})
    with pytest.raises(CannotEstimate, match=r"pos_is_a is A in one question alone \(1 input\).*it is dropped"):
        spurious_factors(np.arange(5.0), {"pos_is_a": [1, 0, 0, 0, 0]})
    with pytest.raises(InputError, match="unsteered has to be 5 finite"):
        spurious_factors(np.arange(5.0), {"pos_is_a": [1, 0, 0, 1, 0]}, unsteered=np.full(5, np.nan))
    with pytest.raises(InputError, match="without multipliers"):
        spurious_factors(np.arange(5.0), {"pos_is_a": [1, 0, 0, 1, 0]}, propensity=np.ones((5, 7)))
    with pytest.raises(InputError, match="'pos_is_yes'"):
        spurious_factors(np.arange(5.0), {"pos_is_a": [1, 0, 0, 1, 0]}, interactions=True)
    equal = spurious_factors(np.ones(6), {"pos_is_a": [1, 0, 0, 1, 0, 1]})
    assert equal.term("pos_is_a")["estimate"] == pytest.approx(0)
    assert any("exactly" in text for text in equal.warnings)
    with pytest.raises(InputError, match="no term 'pos_is_yes'"):
        equal.term("pos_is_yes")


# --- pooled -----------------------------------------------------------------------------------------------------


def test_pooled_mean_is_covered_when_datasets_differ_in_their_bias():
    rng = np.random.default_rng(10)
    hits = []
    for _ in range(80):
        fits = {f"d{k}": spurious_factors(*biased(rng, n=30, a=1 + rng.normal())) for k in range(4)}
        row = pool_spurious_factors(fits, terms=["pos_is_a"]).to_frame().iloc[0]
        hits.append(row["ci_low"] <= 1 <= row["ci_high"])
        assert row["df"] == 3
    assert 0.88 <= np.mean(hits) <= 0.99


def test_pooled_p_belongs_to_its_interval_and_fdr_to_the_datasets():
    rng = np.random.default_rng(11)
    fits = {f"d{k}": spurious_factors(*biased(rng, a=0.4)) for k in range(5)}
    pooled = pool_spurious_factors(fits)
    row = pooled.to_frame().query("term == 'pos_is_a'").iloc[0]
    low = row["estimate"] - stats.t.ppf(1 - row["p"] / 2, 4) * row["se"]
    assert low == pytest.approx(0, abs=1e-9)
    own = pooled.datasets.query("term == 'pos_is_a'")
    direct = mean_over_datasets(own["estimate"].to_numpy(), own["se"].to_numpy() ** 2)
    assert (row["estimate"], row["tau"]) == (direct.mean, direct.tau)
    ranked = np.sort(own["p"].to_numpy())
    step_up = np.minimum.accumulate((ranked * 5 / np.arange(1, 6))[::-1])[::-1]
    np.testing.assert_allclose(np.sort(own["p_fdr"]), np.minimum(step_up, 1))


def test_pooled_yes_uses_datasets_where_it_is_defined():
    rng = np.random.default_rng(12)
    fits = {f"d{k}": spurious_factors(*biased(rng)) for k in range(3)}
    slopes, factors = biased(rng)
    fits["no yes"] = spurious_factors(slopes, {"pos_is_a": factors["pos_is_a"], "pos_is_yes": np.full(60, -1)})
    pooled = pool_spurious_factors(fits)
    counts = pooled.to_frame().set_index("term")["n_datasets"]
    assert counts.to_dict() == {"pos_is_a": 4, "pos_is_yes": 3}
    said = [text for text in pooled.warnings if "defined in" in text]
    assert said == ["effect of pos_is_yes on steerability: defined in 3 of 4 datasets"]


def test_leaving_out_leaves_out_whole_categories():
    fits = {name: spurious_factors(*biased(np.random.default_rng(k))) for k, name in enumerate("abcd")}
    pooled = pool_spurious_factors(fits, terms=["pos_is_a"], category=dict(zip("abcd", "xxyz")))
    assert list(pooled.pooled["slope", "pos_is_a"].left_out) == ["x", "y", "z"]


def test_datasets_that_agree_by_chance_keep_a_p_value():
    rng = np.random.default_rng(14)
    one = spurious_factors(*biased(rng, a=0.4))
    pooled = pool_spurious_factors({"a": one, "b": one, "c": one}, terms=["pos_is_a"])
    row = pooled.to_frame().iloc[0]
    assert (row["se"], row["hk_factor"]) == (0, 0)
    assert np.isnan(row["p"])
    own = one.term("pos_is_a")
    expected = 2 * stats.t.sf(abs(own["estimate"]) / (own["se"] / np.sqrt(3)), 2)
    assert row["p_floored"] == pytest.approx(expected)
    assert row["floored_ci_low"] < row["estimate"] < row["floored_ci_high"]
    assert any("agree more closely" in text for text in pooled.warnings)


def test_what_a_pooled_effect_takes_for_granted_is_said():
    rng = np.random.default_rng(15)
    fits = {name: spurious_factors(*biased(rng)) for name in "ab"}
    said = " ".join(pool_spurious_factors(fits).assumptions)
    for words in ("known variance", "category", "normal over datasets", "vector"):
        assert words in said
    assert any("steering vector is taken as given" in text for text in fits["a"].assumptions)
    (few,) = few_df_warning({"first": 9.0, "second": 2.2, "third": 58.0})
    assert "2 of 3 datasets have fewer than 20 degrees of freedom (the fewest: 2.2, in second)" in few


@pytest.mark.parametrize("level", [0, 1.5, 95])
def test_a_level_that_is_no_share_is_refused_everywhere(level):
    slopes, factors = biased(np.random.default_rng(16))
    fits = {name: spurious_factors(slopes, factors) for name in "ab"}
    X = np.column_stack([np.ones(slopes.size), factors["pos_is_a"]])
    rng = np.random.default_rng(0)
    calls = [
        lambda: spurious_factors(slopes, factors, level=level),
        lambda: pool_spurious_factors(fits, level=level),
        lambda: factor_cells(slopes, {"pos_is_a": factors["pos_is_a"]}, level=level),
        lambda: cr2_bell_mccaffrey(X, slopes[:, None], range(slopes.size), "ab", responses=["s"], level=level),
        lambda: hc2_bell_mccaffrey(X, slopes, level=level),
        lambda: variance_explained(slopes, factors, rng=rng, level=level),
        lambda: published_variance_split(slopes, factors, rng=rng, level=level),
        lambda: closed_form(np.ones((3, 3)), np.ones((3, 1)), np.ones((3, 1)), level=level),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"level is .* strictly between 0 and 1"):
            call()
    with pytest.raises(InputError, match="n_resamples is 0"):
        variance_explained(slopes, factors, rng=rng, n_resamples=0)


def test_a_lower_level_narrows_every_interval_and_moves_no_estimate():
    slopes, factors = biased(np.random.default_rng(17))
    lam = np.array([-1.0, 0, 1])
    curves = {"propensity": slopes[:, None] * lam + 0.1 * np.random.default_rng(18).normal(size=(60, 3))}
    seed = np.random.default_rng

    def frames(level: float) -> list[pd.DataFrame]:
        fits = [spurious_factors(slopes, factors, **curves, multipliers=lam, level=level)]
        fits += [spurious_factors(slopes, factors, questions=np.arange(60) // 2, level=level)]
        fits += [factor_cells(slopes, factors, level=level)]
        others = {str(k): spurious_factors(*biased(seed(k))) for k in range(4)}
        fits += [pool_spurious_factors(others, terms=["pos_is_a"], level=level)]
        kinds = (variance_explained, published_variance_split)
        return [one.to_frame() for one in [*fits, *(kind(slopes, factors, rng=seed(0), level=level) for kind in kinds)]]

    for wide, narrow in zip(frames(0.95), frames(0.5)):
        for high in (name for name in wide if name.endswith("_high")):
            width, less = (frame[high] - frame[high.removesuffix("high") + "low"] for frame in (wide, narrow))
            assert (less < width).sum() == width.notna().sum() > 0, high
        for name in {"estimate", "mean", "share"} & set(wide):
            np.testing.assert_array_equal(wide[name], narrow[name])


def test_pooling_refuses_what_cannot_be_pooled():
    rng = np.random.default_rng(13)
    one = spurious_factors(*biased(rng))
    with pytest.raises(CannotEstimate, match=r"^no term of .* is estimated in two datasets$"):
        pool_spurious_factors({"a": one})
    with pytest.raises(CannotEstimate, match="different interactions"):
        pool_spurious_factors({"a": one, "b": spurious_factors(*biased(rng), interactions=True)})
    with pytest.raises(CannotEstimate, match="no dataset"):
        pool_spurious_factors({})


# --- cells ------------------------------------------------------------------------------------------------------


def test_cells_agree_with_groupby_and_the_published_binary_merges_neither_into_no():
    rng = np.random.default_rng(14)
    slopes, factors = biased(rng)
    cells = factor_cells(slopes, factors).to_frame()
    assert cells["n"].sum() == 60
    assert len(cells) == 6
    inside = (np.array(factors["pos_is_a"]) == 1) & (np.array(factors["pos_is_yes"]) == -1)
    row = cells.query("pos_is_a == 'A' and pos_is_yes == 'neither'").iloc[0]
    assert row["mean"] == pytest.approx(slopes[inside].mean())
    assert row["median"] == pytest.approx(np.median(slopes[inside]))
    assert row["sd"] == pytest.approx(slopes[inside].std(ddof=1))
    low, high = stats.t.interval(0.95, inside.sum() - 1, slopes[inside].mean(), stats.sem(slopes[inside]))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((low, high))
    assert row["anti_high"] == pytest.approx(anti_steerable(slopes[inside])["negative"].ci_high)
    merged = factor_cells(slopes, factors, published_binary=True).to_frame()
    expected = pd.Series(slopes).groupby([factors["pos_is_a"], np.array(factors["pos_is_yes"]) == 1]).mean()
    assert merged.query("pos_is_a == 'B' and pos_is_yes == 'No'")["mean"].item() == pytest.approx(expected[0, False])
    assert len(merged) == 4


def test_cells_count_questions_not_twins():
    rng = np.random.default_rng(15)
    slopes, questions, a = np.repeat(rng.normal(size=20), 2), np.repeat(np.arange(20), 2), np.repeat([1, 0], 20)
    row = factor_cells(slopes, {"pos_is_a": a}, questions=questions).to_frame().iloc[0]
    single = factor_cells(slopes[::2], {"pos_is_a": a[::2]}).to_frame().iloc[0]
    assert (row["n"], row["n_questions"], single["n"]) == (20, 10, 10)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((single["ci_low"], single["ci_high"]))
    assert row["anti_high"] - row["anti_low"] >= single["anti_high"] - single["anti_low"]


def test_empty_cells_are_shown_and_named():
    cells = factor_cells(np.arange(3.0), {"pos_is_a": [1, 0, 0], "pos_is_yes": [1, 0, 1]})
    row = cells.to_frame().query("pos_is_a == 'A' and pos_is_yes == 'No'").iloc[0]
    assert row["n"] == 0
    assert np.isnan(row["mean"])
    assert cells.warnings == ("no input is A and No",)
    with pytest.raises(InputError, match="length_difference"):
        factor_cells(np.arange(3.0), {"length_difference": [1, 2, 3]})


def test_a_cell_of_equal_slopes_says_that_its_interval_has_no_width():
    cells = factor_cells([0.3, 0.3, 0.1, 0.5], {"pos_is_a": [1, 1, 0, 0]})
    row = cells.to_frame().iloc[0]
    assert row["ci_low"] == row["ci_high"] == 0.3
    assert cells.warnings == ("A: all question means are equal: the interval has no width",)
