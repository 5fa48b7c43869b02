"""`fit_mixed` and what stands on it: formulas, engine choice, hypothesis tests, and edges."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from formulaic import Formula
from scipy import stats
from statsmodels.multivariate.manova import MANOVA

from steerstats.errors import CannotEstimate, InputError
from steerstats.mixed import IncomparableFits, compare, fit_mixed, joint_test, wilks_test
from steerstats.mixed.formula import build_design, parse_formula

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


def test_random_terms_are_parsed_as_lme4_does():
    response, fixed, terms = parse_formula("y ~ lam * a + (1 + lam || g) + I((lam + 1) ** 2) + (1 | d / i)")
    assert (response, fixed) == ("y", "lam * a + I((lam + 1) ** 2)")
    assert [(t.effects, t.label) for t in terms] == [("1", "g"), ("0 + lam", "g"), ("1", "d"), ("1", "d:i")]


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        ("lam", ["1", "0 + lam"]),
        ("0 + lam", ["0 + lam"]),
        ("-1 + lam", ["0 + lam"]),
        ("lam - 1", ["0 + lam"]),
        ("lam * a", ["1", "0 + lam", "0 + a", "0 + lam:a"]),
        ("1 + I((lam + 1) ** 2)", ["1", "0 + I((lam + 1) ** 2)"]),
    ],
)
def test_two_bars_part_every_effect_from_the_others(effects, expected):
    assert [term.effects for term in parse_formula(f"y ~ lam + ({effects} || g)")[2]] == expected


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
        ("y ~ lam + (0 | input)", "no effect"),
        ("y ~ lam + (0 || input)", "no effect"),
        ("y ~ lam + (1 | input) + (1 + lam | input)", "gives input the random effect '1' twice"),
        ("y ~ lam + (lam | input:item) + (0 + lam | item:input)", "gives input:item the random effect 'lam' twice"),
    ],
)
def test_a_wrong_formula_is_named(frame, formula, message):
    with pytest.raises(InputError, match=message):
        fit_mixed(formula, frame)


@pytest.mark.parametrize("name", ["lam", "input", "y"])
def test_a_column_that_the_frame_has_twice_is_named(frame, name):
    with pytest.raises(InputError, match=f"several columns '{name}'"):
        fit_mixed(FORMULA, pd.concat([frame, frame[[name]]], axis=1))


def test_a_column_that_no_formula_asks_for_may_be_there_twice(frame):
    formula = "y ~ lam + (1 + lam | input)"  # there is an "a" in "lam"
    fit = fit_mixed(formula, pd.concat([frame, frame[["a"]]], axis=1))
    assert fit.to_frame().equals(fit_mixed(formula, frame).to_frame())


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


def test_fixed_curvature_without_a_random_one_stays_closed_and_mixes_degrees_of_freedom(frame):
    fit = fit_mixed("y ~ lam * a + I(lam ** 2) + (1 + lam | input)", frame)
    table = fit.to_frame().set_index("term")
    assert fit.engine == "closed_form"
    assert table.loc["lam:a", "df"] == pytest.approx(18)
    assert table.loc["I(lam ** 2)", "df"] == pytest.approx(20 * 5 - 1)
    plain = fit_mixed("y ~ lam * a + (1 + lam | input)", frame).to_frame().set_index("term")
    assert table.loc["lam:a", "se"] == pytest.approx(plain.loc["lam:a", "se"])  # curvature is orthogonal to slopes
    assert 18 < table.loc["Intercept", "df"] < 99  # it mixes the spread of inputs with lack of fit
    assert "Satterthwaite" in table.loc["Intercept", "se_type"]
    curve = LAM**2 - np.mean(LAM**2)  # orthogonal to 1 and lambda
    per_input = frame.y.to_numpy().reshape(20, 7) @ (curve / (curve @ curve))
    assert table.loc["I(lam ** 2)", "estimate"] == pytest.approx(per_input.mean())
    X = np.column_stack([np.ones(7), LAM, curve])
    Y = frame.y.to_numpy().reshape(20, 7)
    residual = Y - (Y @ X / np.sum(X**2, axis=0)) @ X.T
    rss = np.sum(residual**2) + np.sum((per_input - per_input.mean()) ** 2) * (curve @ curve)
    assert table.loc["I(lam ** 2)", "se"] == pytest.approx(np.sqrt(rss / 99 / (curve @ curve) / 20))


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
    with pytest.raises(InputError, match="'y' is not numeric"):
        fit_mixed(FORMULA, frame.assign(y="high"))
    with np.errstate(divide="ignore"), pytest.raises(InputError, match="not finite in every row"):
        fit_mixed("y ~ np.log(lam + 1.5) + (1 | input)", frame)
    with pytest.raises(InputError, match=r"'y' of formula .* infinite"):
        fit_mixed(FORMULA, frame.assign(y=np.inf))


@pytest.mark.parametrize("term", ["log(lam)", "np.sqrt(lam)", "np.log(lam + 1.5)"])
def test_a_function_that_is_not_finite_is_named_with_the_row(frame, term):
    with pytest.raises(InputError, match=r"of formula .* is not finite in every row: .* in the complete row 0"):
        fit_mixed(f"y ~ {term} + (1 | input)", frame)
    with pytest.raises(InputError, match=r"is not finite in every row"):
        fit_mixed(f"{term} ~ a + (1 | input)", frame)


def test_the_response_may_be_an_expression(frame):
    plain = fit_mixed(FORMULA, frame.assign(y=np.exp(frame.y)))
    inside = fit_mixed(FORMULA.replace("y ~", "np.exp(y) ~"), frame)
    np.testing.assert_allclose(inside.estimate, plain.estimate, rtol=1e-12)
    missing = frame.assign(y=frame.y.where(frame.index != 5))
    assert "1 rows with a missing value" in fit_mixed("I(y ** 2) ~ lam + (1 + lam | input)", missing).warnings[0]
    with pytest.raises(InputError, match=r"'abs' of formula .* numpy's function is written np.abs"):
        fit_mixed("abs(y) ~ lam + (1 | input)", frame)
    with pytest.raises(InputError, match="is 3 columns; it has to be one"):
        fit_mixed(
            "C(kind) ~ lam + (1 | input)", frame.assign(kind=frame.lam.map(lambda x: "abc"[int(x > 0) + int(x > 1)]))
        )


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
    linear = frame.assign(y=2.0 + frame.lam * frame.a)
    with pytest.raises(CannotEstimate, match="fit every observation exactly"):
        fit_mixed("y ~ lam * a + yes + (1 + lam | input)", linear)


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


@pytest.mark.parametrize("factors", [("a", "yes"), ("a",)])
def test_wilks_f_is_manovas_and_is_labelled(frame, factors):
    test = wilks_test(fit_mixed(FORMULA, frame), [term for name in factors for term in (name, f"lam:{name}")])
    Y = frame.y.to_numpy().reshape(20, 7)
    table = pd.DataFrame({"b0": Y.mean(axis=1), "b1": Y @ LAM / (LAM @ LAM)}).join(
        frame[["a", "yes"]][::7].reset_index()
    )
    reference = MANOVA.from_formula("b0 + b1 ~ a + yes", table).mv_test([("both", np.eye(3)[1 : 1 + len(factors)])])
    row = reference.results["both"]["stat"].loc["Wilks' lambda"]
    assert test.statistic == pytest.approx(float(row["F Value"]), rel=1e-6)
    assert (test.df1, test.df2) == (float(row["Num DF"]), pytest.approx(float(row["Den DF"])))
    assert test.name == "Wilks' F, Intercept and lam together"
    with pytest.raises(InputError, match="do not cover every column"):
        wilks_test(fit_mixed(FORMULA, frame), ["lam:a"])


def test_wilks_f_needs_as_many_degrees_of_freedom_as_there_are_columns(frame):
    few = fit_mixed("y ~ lam * a + (1 + lam | input)", frame[frame["input"].isin(["d0", "d1", "d2"])])
    with pytest.raises(CannotEstimate, match="1 degrees of freedom between groups for 2 columns"):
        wilks_test(few, ["a", "lam:a"])


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
    with pytest.raises(IncomparableFits, match="not nested"):
        compare(a, a)
    slopes, heights = (fit_mixed(f"y ~ {x} | input)", frame, reml=False) for x in ("lam + (0 + lam", "lam * a + (1"))
    with pytest.raises(IncomparableFits, match="not nested"):
        compare(slopes, heights)
    both = compare(fit_mixed("y ~ lam + (1 | input)", frame, reml=False), b)  # two fixed effects and one random one
    assert np.isnan(both.p_boundary)
    assert "variances lie on the boundary under the hypothesis: p is conservative" in both.warnings
    short = dataclasses.replace(a, criterion=b.criterion + 1)  # an optimiser that stopped
    test = compare(b, short)
    assert (test.statistic, test.p) == (0, 1)
    assert any(text.startswith("the smaller model fits better by 1") for text in test.warnings)
    centred = frame.assign(a=frame.a - 0.5)  # same names, another basis: the REML criterion moves with it
    with pytest.raises(IncomparableFits, match="different fixed effects"):
        compare(fit_mixed(small, frame), fit_mixed("y ~ lam * a + (1 | input)", centred))


def test_adding_one_random_effect_is_tested_against_the_boundary_mixture():
    frame = make_frame(np.random.default_rng(6), sd_slope=0.16)
    whole, simple = (fit_mixed(f"y ~ lam * a + ({e} | input)", frame) for e in ["1 + lam", "1"])
    test = compare(whole, simple)
    assert test.df1 == 2
    expected = (stats.chi2.sf(test.statistic, 2) + stats.chi2.sf(test.statistic, 1)) / 2
    assert 0.01 < expected < 0.5  # a statistic at which the mixture matters
    assert test.p_boundary == pytest.approx(expected)
    assert test.terms == ("(lam | input)",)


def test_a_variance_that_is_estimated_as_nothing_has_a_boundary_p_of_1_whatever_rounding_does():
    none = 0
    for seed in range(8):
        frame = make_frame(np.random.default_rng(seed), sd_slope=0.0)
        test = compare(*(fit_mixed(f"y ~ lam + ({e} input)", frame) for e in ("1 |", "1 + lam ||")))
        half = stats.chi2.sf(test.statistic, 1) / 2
        assert test.p_boundary == pytest.approx(1 if test.statistic < 1e-6 else half)
        none += test.statistic < 1e-6
    assert 2 <= none <= 6


def test_two_random_effects_at_once_are_said_to_have_a_conservative_p():
    frame = make_frame(np.random.default_rng(6), sd_slope=0.16).assign(square=lambda f: f["lam"] ** 2)
    fixed = "y ~ lam * a + square"
    whole, simple = (fit_mixed(f"{fixed} + ({e} | input)", frame) for e in ["1 + lam + square", "1"])
    test = compare(whole, simple)
    assert test.df1 == 5
    assert np.isnan(test.p_boundary)
    assert test.warnings == ("variances lie on the boundary under the hypothesis: p is conservative",)


def test_a_covariance_alone_is_not_on_a_boundary(frame):
    apart, joint = (fit_mixed(f"y ~ lam + (1 + lam {bar} input)", frame) for bar in ("||", "|"))
    test = compare(apart, joint)
    assert (test.df1, test.warnings) == (1, ())
    assert np.isnan(test.p_boundary)
    assert test.terms == ("covariance of (Intercept + lam | input)",)


def test_a_likelihood_ratio_of_fixed_effects_at_few_groups_points_to_the_f_test():
    for n, few in ((12, True), (60, False)):
        frame = make_frame(np.random.default_rng(5), n=n)
        big, small = (fit_mixed(f"y ~ {x} + (1 + lam | input)", frame, reml=False) for x in ("lam * a", "lam"))
        test = compare(small, big)
        said = [text for text in test.warnings if "joint_test" in text]
        assert bool(said) == few
        if few:
            assert said[0].startswith("12 levels of 'input'")
            one = compare(fit_mixed("y ~ lam + a + (1 + lam | input)", frame, reml=False), big)
            assert one.p < joint_test(big, ["lam:a"]).p
        intercepts = fit_mixed("y ~ lam + (1 | input)", frame, reml=False)
        assert not any("joint_test" in text for text in compare(intercepts, small).warnings)


def test_frames_hold_intervals_and_lme4s_sd_and_correlation_columns(frame):
    fit = fit_mixed(FORMULA, frame, level=0.9)
    table = fit.to_frame()
    assert list(table.columns[:5]) == ["term", "estimate", "se", "df", "statistic"]
    np.testing.assert_allclose(table.ci_low, table.estimate - stats.t.ppf(0.95, 17) * table.se)
    np.testing.assert_allclose(table.ci_high, table.estimate + stats.t.ppf(0.95, 17) * table.se)
    np.testing.assert_allclose(table.p, 2 * stats.t.sf(np.abs(table.estimate / table.se), 17))
    assert set(table.n) == {20}
    psi = fit.variance.psi[0]
    rows = fit.variance.to_frame()
    assert list(rows.group) == ["input", "input", "input", "residual"]
    corr = psi[0, 1] / np.sqrt(psi[0, 0] * psi[1, 1])
    np.testing.assert_allclose(rows.vcov, [psi[0, 0], psi[1, 1], psi[0, 1], fit.variance.sigma2])
    np.testing.assert_allclose(rows.sdcor, [*np.sqrt(np.diag(psi)), corr, np.sqrt(fit.variance.sigma2)])
