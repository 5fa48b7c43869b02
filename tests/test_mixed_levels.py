"""Sufficient statistics for nested and ragged data, and pooling over few datasets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from steerstats.errors import CannotEstimate, InputError
from steerstats.meta import mean_over_datasets
from steerstats.mixed import fit_mixed, hartung_knapp, two_stage
from steerstats.mixed.search import descend
from steerstats.mixed.sufficient import Level, Moments, fit_levels
from steerstats.random_effects import prediction_limits

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


def test_a_term_that_one_dataset_dominates_names_it():
    y, se = np.array([[0.4, 0.1], [0.5, -0.1], [0.45, 0.9], [0.42, 0.3]]), np.full((4, 2), 0.3)
    y[0, 0], se[0, 0], se[2, 0] = np.nan, np.nan, 0.02
    pooled = hartung_knapp(y, se, ["slope", "intercept"])
    said = [text for text in pooled.warnings if "of the weight" in text]
    assert len(said) == 1
    assert said[0].startswith("slope: dataset 3 of 4 holds 99% of the weight")


def test_hartung_knapp_is_reml_tau_with_the_weighted_residual_variance():
    y = np.array([0.4, -0.1, 0.9, 0.3, 1.4, 0.2])
    se = np.array([0.1, 0.2, 0.3, 0.15, 0.4, 0.1])
    pooled = hartung_knapp(y, se)

    def restricted(tau2):
        w = 1 / (se**2 + tau2)
        mean = w @ y / w.sum()
        return -np.log(w).sum() + np.log(w.sum()) + w @ (y - mean) ** 2

    grid = np.linspace(0, 2, 50001)
    best = grid[np.argmin([restricted(t) for t in grid])]
    assert pooled.tau[0] ** 2 == pytest.approx(best, abs=5e-5)
    w = 1 / (se**2 + pooled.tau[0] ** 2)
    mean = w @ y / w.sum()
    assert pooled.estimate[0] == pytest.approx(mean)
    assert pooled.se[0] == pytest.approx(np.sqrt(w @ (y - mean) ** 2 / 5 / w.sum()))
    assert pooled.ci_high[0] == pytest.approx(mean + stats.t.ppf(0.975, 5) * pooled.se[0])
    assert (pooled.prediction_low[0], pooled.prediction_high[0]) == prediction_limits(y, se**2, 0.95)
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


def test_hartung_knapp_tables_are_the_meta_analysis_floor_and_warning_included():
    y, se = np.array([[1.0, 0.4], [1.01, -0.1], [0.99, 0.9], [1.0, 0.3]]), np.full((4, 2), 0.3)
    pooled = hartung_knapp(y, se, ["close", "apart"])
    for j, name in enumerate(["close", "apart"]):
        known = mean_over_datasets(y[:, j], se[:, j] ** 2)
        row = pooled.to_frame().set_index("term").loc[name]
        for ours, theirs in [("estimate", "mean"), ("se", "se"), ("tau", "tau"), ("ci_low", "ci_low")]:
            assert row[ours] == pytest.approx(getattr(known, theirs))
        for name_of in ("hk_factor", "floored_ci_low", "floored_ci_high", "prediction_low"):
            assert row[name_of] == pytest.approx(getattr(known, name_of))
    assert [text.partition(":")[0] for text in pooled.warnings] == ["close"]
