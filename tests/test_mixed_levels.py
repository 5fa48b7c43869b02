"""Sufficient statistics for nested and ragged data, and pooling over few datasets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from steerstats.errors import CannotEstimate, InputError
from steerstats.meta import mean_over_datasets
from steerstats.mixed import compare, engines, fit_mixed, joint_test, two_stage
from steerstats.mixed.search import descend
from steerstats.mixed.sufficient import Level, Moments, fit_levels

LAM = np.array([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5])


def nested_data(rng, datasets=6, n=9):
    """`datasets` datasets of n inputs on seven multipliers, with effects of inputs and of datasets."""
    parts = []
    for d in range(datasets):
        a = np.arange(n) % 2
        b = rng.normal(size=(n, 2)) * [1, 0.6] + rng.normal() * np.array([0.5, 0.4])
        Y = b[:, :1] + (1 + b[:, 1:]) * LAM + 0.5 * rng.normal(size=(n, 7))
        columns = {"dataset": f"d{d}", "input": np.repeat([f"d{d}i{k}" for k in range(n)], 7)}
        parts.append(pd.DataFrame(columns | {"lam": np.tile(LAM, n), "a": np.repeat(a, 7), "y": Y.ravel()}))
    return pd.concat(parts, ignore_index=True)


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


@pytest.mark.parametrize("reml", [True, False])
def test_many_alike_inputs_are_compressed_to_the_same_deviance(reml):
    data = nested_data(np.random.default_rng(4), datasets=3, n=40)
    y, X, levels = levels_of(data)
    moments = Moments(y, X, levels, reml)
    assert len(moments.A) < 3 * 25  # 120 inputs, kept as few rows per dataset
    theta = np.random.default_rng(5).normal(size=moments.size)
    H = np.eye(len(y))
    for level, factor, scale in zip(levels, moments.factors(theta), moments.z_scale):
        Z = level.Z / scale @ factor
        H += (Z @ Z.T) * np.equal.outer(level.codes, level.codes)
    solved = np.linalg.solve(H, np.column_stack([X / moments.x_scale, y]))
    information = (X / moments.x_scale).T @ solved[:, :-1]
    rest = y @ solved[:, -1] - solved[:, :-1].T @ y @ np.linalg.solve(information, solved[:, :-1].T @ y)
    df = len(y) - 4 * reml
    dense = np.linalg.slogdet(H)[1] + df * (1 + np.log(2 * np.pi * rest / df))
    dense += np.linalg.slogdet(information)[1] * reml
    assert moments.evaluate(theta).deviance == pytest.approx(dense, abs=1e-7)


def test_an_eigenvector_leads_out_where_the_gradient_vanishes():
    data = nested_data(np.random.default_rng(6))
    y, X, levels = levels_of(data)
    moments = Moments(y, X, levels, True)
    nought = np.zeros(moments.size)
    assert not moments.evaluate(nought).gradient.any()  # every optimiser that follows the gradient stays here
    assert moments.kkt(moments.evaluate(nought))[0] < -1
    theta, escapes = descend(moments, nought)
    best = fit_levels(y, X, levels)
    assert escapes >= 2  # one per level at least
    scale = 2 * np.log(moments.x_scale).sum()
    assert moments.evaluate(theta).deviance + scale == pytest.approx(best.criterion, abs=1e-6)
    assert best.kkt > -1e-6
    assert best.gradient < 1e-10


def test_more_than_two_levels_and_unnested_groups_are_refused():
    frame = nested_data(np.random.default_rng(8))
    frame = frame.assign(half=np.arange(len(frame)) % 2)
    with pytest.raises(InputError, match="not nested"):
        fit_mixed("y ~ lam + (1 + lam | half) + (1 | input)", frame)
    with pytest.raises(InputError, match="3 grouping factors"):
        fit_mixed("y ~ lam + (1 | a) + (1 | a:dataset) + (1 + lam | a:dataset:input)", frame)


def test_terms_of_few_datasets_have_the_datasets_degrees_of_freedom_and_say_what_is_ignored():
    data = nested_data(np.random.default_rng(7))
    fit = fit_mixed("y ~ lam * a + (1 + lam * a | dataset) + (1 + lam | dataset:input)", data)
    assert (fit.df == 5).all()
    assert any("prefer `two_stage`" in text for text in fit.warnings)
    loose = fit_mixed("y ~ lam * a + (1 + lam | dataset) + (1 + lam | dataset:input)", data)
    assert dict(zip(loose.terms, loose.df)) == {"Intercept": 5, "lam": 5, "a": 53, "lam:a": 53}
    assert any(text.startswith("a, lam:a vary within 'dataset'") for text in loose.warnings)
    assert set(loose.to_frame()["n"]) == {data.groupby(["dataset", "input"]).ngroups}, "inputs, not datasets"
    assert joint_test(loose, ["lam", "lam:a"]).df2 == 5, "the fewer of the two"


def test_each_effect_has_the_levels_that_it_runs_along_less_all_effects_there():
    data = nested_data(np.random.default_rng(7))
    sized = data.assign(size=data.dataset.map({f"d{k}": k**2 for k in range(6)}))
    fit = fit_mixed("y ~ lam + size + (1 + lam | dataset) + (1 + lam | dataset:input)", sized)
    assert dict(zip(fit.terms, fit.df)) == {"Intercept": 4, "lam": 5, "size": 4}
    ragged = data[(data.dataset == "d0") | (data.dataset == "d1")].drop(index=[9, 20])
    ragged = ragged[(ragged["input"] != "d0i0") | (ragged.lam == 0)]  # one input says nothing of slopes
    fit = fit_mixed("y ~ lam + I(lam ** 2) + (1 + lam | input)", ragged)
    assert dict(zip(fit.terms, fit.df)) == {"Intercept": 17, "lam": 16, "I(lam ** 2)": len(ragged) - 2 * 18 - 1}


@pytest.mark.parametrize(
    ("formula", "elsewhere"), [("(1 + a | g)", 0.5), ("(1 + a | g)", 0.0), ("(1 + a || g)", 0.5), ("(0 + a | g)", 0.0)]
)
def test_groups_in_which_an_effect_does_not_vary_give_it_no_degrees_of_freedom(formula, elsewhere):
    group = np.repeat(np.arange(14), 6)
    a = np.where(group < 3, np.tile([-0.5, 0.5], 42), elsewhere)
    rng = np.random.default_rng(0)
    y = rng.normal(size=14)[group] + rng.normal(size=14)[group] * a + rng.normal(0, 0.3, 84)
    fit = fit_mixed(f"y ~ a + {formula}", pd.DataFrame({"g": group, "a": a, "y": y}))
    assert fit.df[1] == 2, f"3 groups tell how a's effect differs: {fit.df}"
    assert fit.df[0] == (69 if "0 +" in formula else 13), "the intercept still has all groups"


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
    alone = mean_over_datasets([fit.estimate[3] for fit in fits], [fit.se[3] ** 2 for fit in fits])
    assert pooled.pooled["lam:a"].quoted == alone.quoted
    for column, name in (("estimate", "mean"), ("floored_ci_low", "floored_ci_low"), ("prediction_high",) * 2):
        assert table.loc["lam:a", column] == getattr(alone, name)
    row = table.loc["lam:a"]
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(alone.mean / alone.se), 4))
    assert any("1 of 6 datasets do not estimate it" in text for text in pooled.warnings)
    with pytest.raises(CannotEstimate, match=r"^1 of 1 dataset can be fitted, and two are needed$"):
        two_stage(formula, data[data.dataset == "d1"])
    single = data[(data.dataset == "d1") & (data.input == data.input[data.dataset == "d1"].iloc[0])]
    short = two_stage(formula, pd.concat([data[data.dataset != "d1"], single]))
    assert any(text.startswith("dataset 'd1' is left out: 'input' has 1 level") for text in short.warnings)
    assert dict(short.to_frame().set_index("term")["n"]) == {"Intercept": 5, "lam": 5, "a": 4, "lam:a": 4}


def test_the_order_of_random_terms_and_an_optimiser_that_stops_short(monkeypatch):
    data = nested_data(np.random.default_rng(11))
    terms = "(1 + lam | dataset)", "(1 + lam | dataset:input)"
    one, other = (fit_mixed(f"y ~ lam + {' + '.join(part)}", data, reml=False) for part in (terms, terms[::-1]))
    assert other.criterion == pytest.approx(one.criterion, abs=1e-6)
    np.testing.assert_allclose(other.se, one.se, rtol=1e-4)
    np.testing.assert_allclose(other.variance.psi[0], one.variance.psi[1], rtol=1e-3)
    bias = compare(one, fit_mixed(f"y ~ lam * a + {' + '.join(terms)}", data, reml=False))
    assert any(text.startswith("6 levels of 'dataset'") for text in bias.warnings), "the fewer, not 54 inputs"
    monkeypatch.setattr(engines, "fit_levels", lambda *a, **k: dataclasses.replace(fit_levels(*a, **k), kkt=-1.0))
    said = fit_mixed(f"y ~ lam + {' + '.join(terms)}", data).warnings
    assert "the optimiser stopped short of the optimum (KKT -1.0e+00 per group)" in said


def test_a_lower_level_narrows_what_two_stages_pool():
    data = nested_data(np.random.default_rng(12))
    wide, narrow = (two_stage("y ~ lam + (1 + lam | input)", data, level=level).to_frame() for level in (0.95, 0.5))
    assert (narrow["ci_high"] - narrow["ci_low"] < wide["ci_high"] - wide["ci_low"]).all()


def test_two_stage_names_the_dataset_that_holds_most_of_a_terms_weight():
    rng, parts = np.random.default_rng(7), []
    for name, spread in (("wide", 2.0), ("close", 0.01), ("apart", 2.0)):
        slope = rng.normal(size=9)
        slope = 1 + spread * (slope - slope.mean())  # so that datasets agree, and tau is 0
        y = slope[:, None] * LAM + spread * rng.normal(size=(9, 1)) + 1e-3 * rng.normal(size=(9, 7))
        columns = {"dataset": name, "input": np.repeat([f"{name}{k}" for k in range(9)], 7), "lam": np.tile(LAM, 9)}
        parts.append(pd.DataFrame(columns | {"y": y.ravel()}))
    pooled = two_stage("y ~ lam + (1 + lam | input)", pd.concat(parts))
    assert any(text.startswith("lam: close holds 100% of the weight") for text in pooled.warnings)
    row, told = pooled.to_frame().set_index("term").loc["lam"], pooled.pooled["lam"].quoted
    assert (row.to_read, told.name) == ("unweighted", "unweighted mean")
    assert tuple(row[["unweighted_mean", "unweighted_ci_low", "unweighted_ci_high"]]) == (told.mean, *told[2:4])
