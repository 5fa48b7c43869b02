"""Calibration of the nuisance-factor models: slope tests, Wilks' F, levels that are rare and wide, both orders."""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

from steerstats.mixed import closed_form, fit_mixed, hc2_bell_mccaffrey, joint_test, wilks_test
from steerstats.simulate.calibration.cells import COVERAGE, ERROR, Cell, Outcome, inside
from steerstats.spurious import cr2_bell_mccaffrey

LAMBDA = np.linspace(-1.5, 1.5, 7)
WITHIN = np.column_stack([np.ones_like(LAMBDA), LAMBDA])


def _curves(
    n_inputs: int, slope_sd: float | np.ndarray, curvature_sd: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Deterministic curves (n_inputs, 7) of mean zero, and their slopes: lack of fit, no sampling noise."""
    slope = slope_sd * rng.standard_normal(n_inputs)
    height, bend = rng.standard_normal(n_inputs), curvature_sd * rng.standard_normal(n_inputs)
    return height[:, None] + slope[:, None] * LAMBDA + bend[:, None] * LAMBDA**2, slope


def _slope_test(
    slope_sd: float, curvature_sd: float, on_boundary: bool, rng: np.random.Generator, n: int
) -> list[Outcome]:
    n_inputs = 60
    between = np.column_stack([np.ones(n_inputs), np.arange(n_inputs) % 2 - 0.5])
    unconstrained, constrained, singular = (np.empty(n, dtype=bool) for _ in range(3))
    for k in range(n):
        fit = closed_form(_curves(n_inputs, slope_sd, curvature_sd, rng)[0], WITHIN, between)
        critical, effect = stats.t.ppf(1 - ERROR / 2, fit.df), abs(fit.coefficients[1, 1])
        unconstrained[k] = effect > critical * fit.se[1, 1]
        constrained[k] = effect > critical * fit.se_model[1, 1]
        singular[k] = fit.singular
    quantity = "A acts on the slope, type I"
    return [
        Outcome(quantity, "t on N - p, unconstrained", ERROR, unconstrained),
        Outcome(quantity, "t on N - p, model se (lme4's)", ERROR, constrained),
        Outcome("fits on the boundary, share", "singular in lme4's sense", float(on_boundary), singular),
    ]


def _wilks(intercept_effect: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    n_inputs = 50
    a = np.arange(n_inputs) % 2
    frame = pd.DataFrame(
        {
            "lam": np.tile(LAMBDA, n_inputs),
            "a": np.repeat(a, len(LAMBDA)),
            "input": np.repeat(np.arange(n_inputs), len(LAMBDA)),
        }
    )
    wilks, joint = np.empty(n, dtype=bool), np.empty(n, dtype=bool)
    for k in range(n):
        curves = _curves(n_inputs, 0.5, 0.3, rng)[0] + intercept_effect * a[:, None]
        fit = fit_mixed("y ~ lam * a + (1 + lam | input)", frame.assign(y=curves.ravel()))
        wilks[k] = wilks_test(fit, ["a", "lam:a"]).p <= ERROR
        joint[k] = joint_test(fit, ["lam:a"]).p <= ERROR
    both = "A acts on intercept or slope, type I" if intercept_effect == 0 else "A acts on the slope, type I"
    return [
        Outcome(both, "Wilks' F, intercept and slope", ERROR, wilks),
        Outcome("A acts on the slope, type I", "F on the slope column", ERROR, joint),
    ]


def _rare_level(n_inputs: int, rare: int, sd_ratio: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    """Both methods see the same curves; HC2 sees their slopes."""
    in_level = np.arange(n_inputs) < rare
    between = np.column_stack([np.ones(n_inputs), in_level - 0.5])
    sd = np.where(in_level, sd_ratio, 1.0)
    slopes, model = np.empty((n_inputs, n)), np.empty(n, dtype=bool)
    for k in range(n):
        curves, _ = _curves(n_inputs, sd, 0.3, rng)
        fit = closed_form(curves, WITHIN, between)
        slopes[:, k] = np.linalg.lstsq(WITHIN, curves.T, rcond=None)[0][1]
        margin = stats.t.ppf((1 + COVERAGE) / 2, fit.df) * fit.se[1, 1]
        model[k] = abs(fit.coefficients[1, 1]) <= margin
    robust = hc2_bell_mccaffrey(between, slopes)
    quantity = "A on the slope, coverage"
    return [
        Outcome(quantity, "HC2, Bell-McCaffrey", COVERAGE, inside(robust.ci_low[1], robust.ci_high[1], 0)),
        Outcome(quantity, "mixed model, t on N - p", COVERAGE, model),
    ]


def _few_df(rare: int, sd_ratio: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    """20 slopes, of which `rare` are in a level of their own; by twins each is what two orders of a question share."""
    in_level, twins = np.arange(20) < rare, np.repeat(np.arange(20), 2)
    between = np.column_stack([np.ones(20), in_level - 0.5])
    shared = np.where(in_level, sd_ratio, 1.0)[:, None] * rng.standard_normal((20, n))
    own = np.where(in_level, sd_ratio, 1.0)[:, None] * 0.5 * rng.standard_normal((2, 20, n))
    slopes = (shared + own).transpose(1, 0, 2).reshape(40, n)
    one = hc2_bell_mccaffrey(between, shared)
    two = cr2_bell_mccaffrey(between[twins], slopes, twins, ["Intercept", "A"], responses=[f"s{k}" for k in range(n)])
    return [
        Outcome("A on the slope, few degrees of freedom, type I", method, ERROR, found.p[1] <= ERROR)
        for method, found in (("HC2, Bell-McCaffrey", one), ("CR2, Bell-McCaffrey", two))
    ]


def _orders(questions: int, alike: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    """Both orders of every question as inputs of their own; slopes have mean 0."""
    between, rejected = np.ones((2 * questions, 1)), np.empty(n, dtype=bool)
    for k in range(n):
        own, question = rng.standard_normal((2, questions)), rng.standard_normal(questions)
        slopes = (np.sqrt(alike) * question + np.sqrt(1 - alike) * own).ravel()
        curves = slopes[:, None] * LAMBDA + 0.1 * rng.standard_normal((2 * questions, len(LAMBDA)))
        fit = closed_form(curves, WITHIN, between)
        rejected[k] = abs(fit.coefficients[0, 1]) > stats.t.ppf(1 - ERROR / 2, fit.df) * fit.se[0, 1]
    return [Outcome("mean slope of both orders, type I", "orders as independent (warned of)", ERROR, rejected)]


def _cells() -> dict[str, Cell]:
    cells = {
        "slope test, interior": Cell(
            "60 inputs, interior (slope SD .8, small lack of fit)", partial(_slope_test, 0.8, 0.2, False), 4000
        ),
        "slope test, boundary": Cell(
            "60 inputs, boundary (slope SD .1, large lack of fit)", partial(_slope_test, 0.1, 1.0, True), 4000
        ),
        "wilks, no effect": Cell("50 inputs, A acts on nothing", partial(_wilks, 0.0), 1000),
        "wilks, intercept effect": Cell("50 inputs, A acts on the intercept alone (.7 SD)", partial(_wilks, 0.7), 1000),
    }
    for n_inputs, rare, sd_ratio in ((20, 4, 3), (50, 10, 3), (20, 4, 1)):
        setting = f"{n_inputs} inputs, {rare} in the rarer level, SD ratio {sd_ratio}"
        name = f"rare level, {rare} of {n_inputs}, SD ratio {sd_ratio}"
        cells[name] = Cell(setting, partial(_rare_level, n_inputs, rare, sd_ratio), 3000)
    for rare, sd_ratio in product((3, 4, 5), (1, 3)):
        setting = f"20 questions, {rare} in a rare level, SD ratio {sd_ratio}"
        cells[f"few df, {rare} of 20, SD ratio {sd_ratio}"] = Cell(setting, partial(_few_df, rare, sd_ratio), 10_000)
    for questions, alike in product((10, 40), (0.5, 0.9)):
        setting = f"{questions} questions in both orders, which share {alike:g} of their variance"
        cells[f"orders, {questions} questions, {alike:g}"] = Cell(setting, partial(_orders, questions, alike), 6000)
    return cells


CELLS: dict[str, Cell] = _cells()
