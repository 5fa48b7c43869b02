"""`fit_mixed` and what stands on it: engine choice, formulas, tests, pooling over datasets, and edges."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from formulaic import Formula
from scipy import stats
from statsmodels.multivariate.manova import MANOVA
from statsmodels.stats.meta_analysis import combine_effects

from steerstats.errors import CannotEstimate, InputError
from steerstats.mixed import IncomparableFits, compare, fit_mixed, hartung_knapp, joint_test, two_stage, wilks_test
from steerstats.mixed.formula import build_design, parse_formula
from steerstats.mixed.sufficient import Level, Moments, _descend, fit_levels

LAM = np.array([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5])
FORMULA = "y ~ lam * (a + yes) + (1 + lam | input)"


def make_frame(rng, n=20, sd_slope=0.6, sd_residual=0.5, effect=(0.0, 0.0), dataset="d"):
    """One dataset in long form; `effect` is that of a on intercept and slope."""
    a, yes = np.arange(n) % 2, (np.arange(n) // 2) % 2
    b = rng.normal(size=(n, 2)) * [1, sd_slope] + a[:, None] * effect
    Y = b[:, :1] + (1 + b[:, 1:]) * LAM + sd_residual * rng.normal(size=(n, 7))
    return pd.DataFrame(
        {
            "dataset": dataset,
            "input": np.repeat([f"{dataset}{k}" for k in range(n)], 7),
            "lam": np.tile(LAM, n),
            "a": np.repeat(a, 7),
            "yes": np.repeat(yes, 7),
            "y": Y.ravel(),
        }
    )


@pytest.fixture
def frame():
    return make_frame(np.random.default_rng(1))


# --- formulas and engine choice ---------------------------------------------------------------------------


def test_random_terms_are_parsed_as_lme4_does():
    response, fixed, terms = parse_formula("y ~ lam * a + (1 + lam || g) + I((lam + 1) ** 2) + (1 | d / i)")
    assert (response, fixed) == ("y", "lam * a + I((lam + 1) ** 2)")
    assert [(t.effects, t.label) for t in terms] == [("1", "g"), ("0 + lam", "g"), ("1", "d"), ("1", "d:i")]


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("lam + (1 | input)", "no response"),
        ("y ~ lam", "no random term"),
        ("y ~ lam + (1 | input", "brackets"),
        ("y ~ lam * (1 | input)", "stand alone"),
        ("y ~ lam + (1 | )", "needs effects before and a group after"),
        ("y ~ lam + (1 | input + a)", "not a column"),
        ("y ~ lam + + (1 | input)", "empty term"),
        ("y ~ lamda + (1 | input)", "'lamda' of formula .* is not in the frame"),
        ("y ~ lam + (1 | item)", "'item' of formula .* is not in the frame"),
        ("y ~ 0 + (1 | input)", "no fixed effect"),
    ],
)
def test_a_wrong_formula_is_named(frame, formula, message):
    with pytest.raises(InputError, match=message):
        fit_mixed(formula, frame)


@pytest.mark.parametrize("fixed", ["lam * (a + yes)", "0 + lam:a + yes", "a * yes * lam - a:yes", "lam + lam:yes", "1"])
def test_numeric_products_are_the_columns_that_formulaic_builds(frame, fixed):
    design = build_design(f"y ~ {fixed} + (1 | input)", frame)
    reference = Formula(f"{fixed} + {{lam * 0}}").get_model_matrix(frame).drop(columns="lam * 0")
    assert list(design.names) == list(reference.columns)
    np.testing.assert_array_equal(design.X, reference.to_numpy())


def test_categorical_and_transformed_terms_go_through_formulaic(frame):
    frame = frame.assign(answer=np.where(frame.a == 1, "A", "B"))
    fit = fit_mixed("y ~ lam * answer + (1 + lam | input)", frame)
    assert fit.terms == ("Intercept", "lam", "answer[T.B]", "lam:answer[T.B]")
    assert fit.engine == "closed_form"
    plain = fit_mixed("y ~ lam * a + (1 + lam | input)", frame)
    assert fit.estimate[3] == pytest.approx(-plain.estimate[3])


def test_engine_is_the_cheapest_exact_one_and_says_why(frame):
    whole = fit_mixed(FORMULA, frame)
    holes = fit_mixed(FORMULA, frame.drop(index=[3, 30]))
    unequal = fit_mixed("y ~ lam * a + yes + (1 + lam | input)", frame)
    assert (whole.engine, holes.engine, unequal.engine) == ("closed_form", "sufficient", "sufficient")
    assert "number of observations" in holes.engine_reason
    assert "not a full product" in unequal.engine_reason
    with pytest.raises(InputError, match=r"'closed_form' cannot fit .* groups differ in their number"):
        fit_mixed(FORMULA, frame.drop(index=[3]), engine="closed_form")
    with pytest.raises(InputError, match="'lme4' is none of auto, closed_form"):
        fit_mixed(FORMULA, frame, engine="lme4")
    assert "Engine: closed_form" in whole.summary()


def test_unbalanced_crossed_factors_are_refused_with_the_reason(frame):
    frame = frame.assign(template=np.tile(list("abcdefg"), 20))
    assert fit_mixed("y ~ 1 + (1 | input) + (1 | template)", frame).engine == "crossed"
    with pytest.raises(InputError, match=r"not nested.*not balanced"):
        fit_mixed("y ~ 1 + (1 | input) + (1 | template)", frame.drop(index=5))
    with pytest.raises(InputError, match="REML only"):
        fit_mixed("y ~ 1 + (1 | input) + (1 | template)", frame, reml=False)


def test_fixed_curvature_without_a_random_one_stays_closed_and_mixes_degrees_of_freedom(frame):
    fit = fit_mixed("y ~ lam * a + I(lam ** 2) + (1 + lam | input)", frame)
    table = fit.to_frame().set_index("term")
    assert fit.engine == "closed_form"
    assert table.loc["lam:a", "df"] == pytest.approx(18)
    assert table.loc["I(lam ** 2)", "df"] == pytest.approx(20 * 5 - 1)
    assert 18 < table.loc["Intercept", "df"] < 99  # it mixes the spread of inputs with lack of fit
    assert "Satterthwaite" in table.loc["Intercept", "se_type"]
    curve = LAM**2 - np.mean(LAM**2)  # orthogonal to 1 and lambda
    per_input = frame.y.to_numpy().reshape(20, 7) @ (curve / (curve @ curve))
    assert table.loc["I(lam ** 2)", "estimate"] == pytest.approx(per_input.mean())


# --- what the frame may hold --------------------------------------------------------------------------------


def test_an_input_without_values_is_left_out_and_counted(frame):
    frame.loc[frame.input == "d4", "y"] = np.nan
    fit = fit_mixed(FORMULA, frame)
    alone = fit_mixed(FORMULA, frame[frame.input != "d4"])
    assert fit.engine == "closed_form"
    assert dict(fit.n_groups) == {"input": 19}
    np.testing.assert_array_equal(fit.estimate, alone.estimate)
    assert fit.warnings[:2] == (
        "7 rows with a missing value were left out",
        "1 levels of 'input' had no complete row and were left out",
    )
    with pytest.raises(InputError, match="no row of the frame is complete"):
        fit_mixed(FORMULA, frame.assign(y=np.nan))
    with pytest.raises(InputError, match=r"'y' of formula .* infinite"):
        fit_mixed(FORMULA, frame.assign(y=np.inf))


def test_a_factor_with_one_level_is_dropped_by_name(frame):
    fit = fit_mixed(FORMULA, frame.assign(yes=1))
    assert fit.aliased == ("yes", "lam:yes")
    assert fit.terms == ("Intercept", "lam", "a", "lam:a")
    assert "dropped as aliased: yes, lam:yes" in fit.warnings
    assert fit.engine == "closed_form"


def test_too_few_groups_or_no_residual_is_a_named_error(frame):
    with pytest.raises(CannotEstimate, match="'dataset' has 1 level"):
        fit_mixed("y ~ lam + (1 | dataset) + (1 | dataset:input)", frame)
    with pytest.raises(CannotEstimate, match="cannot tell 2 random effects"):
        fit_mixed(FORMULA, frame[frame.lam.abs() == 0.5])
    with pytest.raises(CannotEstimate, match="coincide"):
        fit_mixed("y ~ lam + (1 | a) + (1 | a:yes)", frame[frame.yes == 0])
    linear = frame.assign(y=2.0 + frame.lam * frame.a).drop(index=3)
    with pytest.raises(CannotEstimate, match="fit every observation exactly"):
        fit_mixed(FORMULA, linear)


def test_exactly_linear_data_keep_their_fixed_effects_and_say_what_is_lost(frame):
    per_input = frame.groupby("input", sort=False).y.transform("mean")
    fit = fit_mixed(FORMULA, frame.assign(y=per_input * (1 + frame.lam)))
    assert fit.variance.sigma2 == 0
    assert fit.log_likelihood == np.inf
    assert np.isfinite(fit.to_frame()[["estimate", "se", "p"]]).all(axis=None)
    assert "cannot enter a likelihood-ratio test" in fit.warnings[-1]
    with pytest.raises(IncomparableFits, match="infinite"):
        compare(fit, fit_mixed("y ~ lam * (a + yes) + (1 | input)", frame.assign(y=per_input * (1 + frame.lam))))


def test_singular_is_never_called_no_spread():
    flat = make_frame(np.random.default_rng(2), sd_slope=0.0, sd_residual=1.0)
    for formula in [FORMULA, "y ~ lam * a + yes + (1 + lam | input)"]:
        fit = fit_mixed(formula, flat)
        assert fit.singular
        (warning,) = [text for text in fit.warnings if "singular" in text]
        assert "does not say that" in warning


# --- sufficient statistics ----------------------------------------------------------------------------------


def nested_data(rng, datasets=6, n=9):
    parts = [make_frame(rng, n, dataset=f"d{d}") for d in range(datasets)]
    data = pd.concat(parts, ignore_index=True)
    shift = dict(zip(data.dataset.unique(), rng.normal(size=datasets)))
    return data.assign(y=data.y + data.dataset.map(shift) * (0.5 + data.lam * 0.4))


def levels_of(data):
    n = len(data)
    outer, inner = pd.factorize(data.dataset)[0], pd.factorize(data.input)[0]
    Z = np.column_stack([np.ones(n), data.lam])
    X = np.column_stack([np.ones(n), data.lam, data.a, data.lam * data.a])
    return data.y.to_numpy(), X, [Level(X, outer, np.zeros(4, int)), Level(Z, inner, np.zeros(2, int))]


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("holes", [False, True])
def test_gradient_is_the_derivative_of_the_deviance(reml, holes):
    rng = np.random.default_rng(3)
    data = nested_data(rng)
    moments = Moments(*levels_of(data.sample(frac=0.8, random_state=1) if holes else data), reml)
    theta = rng.normal(size=moments.size)
    numeric = [
        (moments.evaluate(theta + 1e-6 * unit).deviance - moments.evaluate(theta - 1e-6 * unit).deviance) / 2e-6
        for unit in np.eye(moments.size)
    ]
    np.testing.assert_allclose(moments.evaluate(theta).gradient, numeric, rtol=1e-5, atol=1e-5)


def test_many_alike_inputs_are_compressed_without_changing_the_deviance():
    data = nested_data(np.random.default_rng(4), datasets=3, n=40)
    y, X, levels = levels_of(data)
    compressed = Moments(y, X, levels, True)
    wobble = data.lam + 1e-8 * np.repeat(np.arange(120), 7)  # no two inputs share a design any more
    Z = np.column_stack([np.ones(len(data)), wobble])
    whole = Moments(y, X, [levels[0], Level(Z, levels[1].codes, levels[1].blocks)], True)
    assert len(compressed.A) < 3 * 20 < len(whole.A)
    theta = np.random.default_rng(5).normal(size=compressed.size)
    assert compressed.evaluate(theta).deviance == pytest.approx(whole.evaluate(theta).deviance, abs=1e-4)


def test_an_eigenvector_leads_out_where_the_gradient_vanishes():
    data = nested_data(np.random.default_rng(6))
    y, X, levels = levels_of(data)
    moments = Moments(y, X, levels, True)
    nought = np.zeros(moments.size)
    assert not moments.evaluate(nought).gradient.any()  # every optimiser that follows the gradient stays here
    assert moments.kkt(moments.evaluate(nought))[0] < -1
    _, value, escapes = _descend(moments, nought)
    best = fit_levels(y, X, levels)
    assert escapes >= 2
    assert value == pytest.approx(_descend(moments, np.ones(moments.size))[1], abs=1e-6)
    assert best.kkt > -1e-6


def test_more_than_two_levels_and_unnested_groups_are_refused(frame):
    frame = frame.assign(half=np.tile([0, 1, 0, 1, 0, 1, 0], 20))
    with pytest.raises(InputError, match="not nested"):
        fit_mixed("y ~ lam + (1 + lam | half) + (1 | input)", frame)
    with pytest.raises(InputError, match="3 grouping factors"):
        fit_mixed("y ~ lam + (1 | a) + (1 | a:yes) + (1 + lam | a:yes:input)", frame)


def test_terms_of_few_datasets_have_the_datasets_degrees_of_freedom_and_say_what_is_ignored():
    data = nested_data(np.random.default_rng(7))
    fit = fit_mixed("y ~ lam * a + (1 + lam * a | dataset) + (1 + lam | dataset:input)", data)
    assert (fit.df == 5).all()
    assert any("prefer `two_stage`" in text for text in fit.warnings)
    loose = fit_mixed("y ~ lam * a + (1 + lam | dataset) + (1 + lam | dataset:input)", data)
    assert dict(zip(loose.terms, loose.df)) == {"Intercept": 5, "lam": 5, "a": 53, "lam:a": 53}
    assert any(text.startswith("a, lam:a vary within 'dataset'") for text in loose.warnings)


# --- tests of hypotheses --------------------------------------------------------------------------------------


def test_joint_slope_test_is_the_f_test_of_per_input_slopes(frame):
    fit = fit_mixed(FORMULA, frame)
    test = joint_test(fit, ["lam:a", "lam:yes"])
    slopes = frame.y.to_numpy().reshape(20, 7) @ LAM / (LAM @ LAM)
    W = frame[["a", "yes"]].to_numpy()[::7]
    full = np.column_stack([np.ones(20), W])
    rss = [np.linalg.lstsq(X, slopes, rcond=None)[1][0] for X in (np.ones((20, 1)), full)]
    expected = (rss[0] - rss[1]) / 2 / (rss[1] / 17)
    assert test.statistic == pytest.approx(expected, rel=1e-9)
    assert (test.df1, test.df2) == (2, 17)
    assert test.p == pytest.approx(stats.f.sf(expected, 2, 17), rel=1e-9)
    with pytest.raises(InputError, match="one column at a time"):
        joint_test(fit, ["a", "lam:a"])
    with pytest.raises(InputError, match="distinct terms of the fit"):
        joint_test(fit, ["lam:b"])


def test_wilks_f_is_manovas_and_is_labelled(frame):
    test = wilks_test(fit_mixed(FORMULA, frame), ["a", "lam:a", "yes", "lam:yes"])
    Y = frame.y.to_numpy().reshape(20, 7)
    table = pd.DataFrame({"b0": Y.mean(axis=1), "b1": Y @ LAM / (LAM @ LAM)}).join(
        frame[["a", "yes"]][::7].reset_index()
    )
    reference = MANOVA.from_formula("b0 + b1 ~ a + yes", table).mv_test([("both", np.eye(3)[1:])])
    row = reference.results["both"]["stat"].loc["Wilks' lambda"]
    assert test.statistic == pytest.approx(float(row["F Value"]), rel=1e-6)
    assert (test.df1, test.df2) == (float(row["Num DF"]), pytest.approx(float(row["Den DF"])))
    assert test.name == "Wilks' F, Intercept and lam together"
    with pytest.raises(InputError, match="do not cover every column"):
        wilks_test(fit_mixed(FORMULA, frame), ["lam:a"])


def test_an_intercept_effect_alone_moves_wilks_f_but_not_the_slope_test():
    """The reason for the label: an effect on the intercept is no effect on steerability."""
    rng = np.random.default_rng(8)
    slope, both = [], []
    for _ in range(150):
        fit = fit_mixed("y ~ lam * a + (1 + lam | input)", make_frame(rng, effect=(1.5, 0.0)))
        slope.append(joint_test(fit, ["lam:a"]).p < 0.05)
        both.append(wilks_test(fit, ["a", "lam:a"]).p < 0.05)
    assert np.mean(slope) < 0.11
    assert np.mean(both) > 0.6


def test_likelihood_ratios_refuse_what_reml_cannot_compare(frame):
    small = "y ~ lam * a + (1 + lam | input)"
    with pytest.raises(IncomparableFits, match="refit both with reml=False"):
        compare(fit_mixed(FORMULA, frame), fit_mixed(small, frame))
    a, b = fit_mixed(FORMULA, frame, reml=False), fit_mixed(small, frame, reml=False)
    test = compare(b, a)
    assert test.statistic == pytest.approx(2 * (a.log_likelihood - b.log_likelihood))
    assert (test.df1, test.terms) == (2, ("yes", "lam:yes"))
    assert test.p == pytest.approx(stats.chi2.sf(test.statistic, 2))
    assert np.isnan(test.p_boundary)
    with pytest.raises(IncomparableFits, match="one fit is by REML"):
        compare(fit_mixed(FORMULA, frame), a)
    with pytest.raises(IncomparableFits, match="not the same responses"):
        compare(a, fit_mixed(small, frame.assign(y=frame.y + 1e-9), reml=False))
    with pytest.raises(IncomparableFits, match="not nested"):
        compare(a, fit_mixed("y ~ lam + I(lam ** 2) + (1 + lam | input)", frame, reml=False))
    centred = frame.assign(a=frame.a - 0.5)  # same names, another basis: the REML criterion moves with it
    with pytest.raises(IncomparableFits, match="different fixed effects"):
        compare(fit_mixed(small, frame), fit_mixed("y ~ lam * a + (1 | input)", centred))


def test_adding_one_random_effect_is_tested_against_the_boundary_mixture(frame):
    whole, simple = (fit_mixed(f"y ~ lam * a + ({e} | input)", frame) for e in ["1 + lam", "1"])
    test = compare(whole, simple)
    assert test.df1 == 2
    expected = (stats.chi2.sf(test.statistic, 2) + stats.chi2.sf(test.statistic, 1)) / 2
    assert test.p_boundary == pytest.approx(expected)
    assert test.terms == ("(lam | input)",)


# --- pooling over datasets --------------------------------------------------------------------------------------


def test_hartung_knapp_is_reml_tau_with_the_weighted_residual_variance():
    y = np.array([0.4, -0.1, 0.9, 0.3, 1.4, 0.2])
    se = np.array([0.1, 0.2, 0.3, 0.15, 0.4, 0.1])
    pooled = hartung_knapp(y, se)

    def restricted(tau2):
        w = 1 / (se**2 + tau2)
        mean = w @ y / w.sum()
        return -np.log(w).sum() + np.log(w.sum()) + w @ (y - mean) ** 2

    grid = np.linspace(0, 2, 200001)
    best = grid[np.argmin([restricted(t) for t in grid])]
    assert pooled.tau[0] ** 2 == pytest.approx(best, abs=2e-5)
    w = 1 / (se**2 + pooled.tau[0] ** 2)
    mean = w @ y / w.sum()
    assert pooled.estimate[0] == pytest.approx(mean)
    assert pooled.se[0] == pytest.approx(np.sqrt(w @ (y - mean) ** 2 / 5 / w.sum()))
    assert pooled.ci_high[0] == pytest.approx(mean + stats.t.ppf(0.975, 5) * pooled.se[0])
    # statsmodels has Paule and Mandel's tau^2; the interval is of the same kind, and close.
    other = combine_effects(y, se**2, method_re="iterated").summary_frame().loc["random effect"]
    assert pooled.estimate[0] == pytest.approx(other["eff"], abs=0.05)


def test_hartung_knapp_covers_with_few_datasets_where_z_does_not():
    rng = np.random.default_rng(9)
    D, rounds = 6, 1500
    covered = z = 0
    for _ in range(rounds):
        se = rng.uniform(0.1, 0.4, D)
        y = rng.normal(size=D) * np.sqrt(se**2 + 0.09)
        pooled = hartung_knapp(y, se)
        covered += pooled.ci_low[0] <= 0 <= pooled.ci_high[0]
        w = 1 / (se**2 + pooled.tau[0] ** 2)
        z += abs(w @ y / w.sum()) <= 1.96 / np.sqrt(w.sum())
    # 6,000 rounds gave .937 (at these unequal standard errors) and .895.
    assert 0.92 <= covered / rounds <= 0.96
    assert z / rounds < 0.91


def test_two_stage_pools_each_term_over_the_datasets_that_have_it():
    rng = np.random.default_rng(10)
    data = nested_data(rng)
    data.loc[data.dataset == "d2", "a"] = 1
    formula = "y ~ lam * a + (1 + lam | input)"
    pooled = two_stage(formula, data)
    table = pooled.to_frame().set_index("term")
    assert dict(table.n) == {"Intercept": 6, "lam": 6, "a": 5, "lam:a": 5}
    assert dict(table.df) == {"Intercept": 5, "lam": 5, "a": 4, "lam:a": 4}
    fits = [fit_mixed(formula, part) for name, part in data.groupby("dataset") if name != "d2"]
    alone = hartung_knapp([fit.estimate[3] for fit in fits], [fit.se[3] for fit in fits])
    assert table.loc["lam:a", "estimate"] == pytest.approx(alone.estimate[0])
    assert table.loc["lam:a", "ci_low"] == pytest.approx(alone.ci_low[0])
    assert any("1 of 6 datasets do not estimate it" in text for text in pooled.warnings)
    with pytest.raises(CannotEstimate, match="1 of 1 datasets can be fitted"):
        two_stage(formula, data[data.dataset == "d1"])
    with pytest.raises(InputError, match="se of 'x0' holds 0"):
        hartung_knapp([1.0, 2.0], [0.0, 1.0])
