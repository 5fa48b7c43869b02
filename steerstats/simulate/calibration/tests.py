"""Calibration of p-values: permutation tests, Hotelling's T², likelihood ratios, Cochran's Q, and pooled effects."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from steerstats.meta import mean_over_datasets
from steerstats.mixed import compare, fit_mixed
from steerstats.resampling import group_difference_test, sign_flip_test, spearman_test
from steerstats.simulate.calibration.cells import COVERAGE, ERROR, SHAPES, Cell, Outcome, draw, inside
from steerstats.simulate.calibration.models import LAMBDA
from steerstats.spurious import cr2_bell_mccaffrey, pool_spurious_factors, spurious_factors
from steerstats.steerability import linearity_test

PERMUTATIONS = 199


def _sign_flip(rng: np.random.Generator, n: int) -> list[Outcome]:
    rejected = np.empty(n, dtype=bool)
    for k in range(n):
        gaps = np.repeat(rng.standard_t(4, 10), 2) + 0.3 * rng.standard_normal(20)
        p = sign_flip_test(gaps, rng=rng, unit=np.repeat(np.arange(10), 2), n_permutations=PERMUTATIONS)
        rejected[k] = p[0] <= ERROR
    return [Outcome("no gap, type I", "sign flips of questions", ERROR, rejected)]


def _group_difference(rng: np.random.Generator, n: int) -> list[Outcome]:
    group, rejected = np.arange(30) < 8, np.empty(n, dtype=bool)
    for k in range(n):
        values = draw("lognormal", 30, rng)
        rejected[k] = group_difference_test(values, group, rng=rng, n_permutations=PERMUTATIONS) <= ERROR
    return [Outcome("two groups alike, type I", "permutation of labels", ERROR, rejected)]


def _rank_test(within: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    """With several values in each dataset both sides have an intraclass correlation of .5."""
    shape, rejected = (14, within), np.empty(n, dtype=bool)
    for k in range(n):
        x, y = (rng.standard_normal((14, 1)) + (within > 1) * rng.standard_normal(shape) for _ in range(2))
        rejected[k] = spearman_test(x, y, rng=rng, n_permutations=PERMUTATIONS)[1] <= ERROR
    return [Outcome("Spearman, unrelated, type I", "permutation of datasets", ERROR, rejected)]


def _linearity(shape: str, n_inputs: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    """Curves bend one way as much as the other, so that their mean is straight."""
    rejected = np.empty(n, dtype=bool)
    for k in range(n):
        bend = draw(shape, n_inputs, rng)[:, None] * LAMBDA**2 + 0.3 * rng.standard_normal((n_inputs, len(LAMBDA)))
        rejected[k] = linearity_test(LAMBDA + bend, LAMBDA).p_value <= ERROR
    return [Outcome("mean curve straight, type I", "Hotelling's T²", ERROR, rejected)]


def _likelihood_ratio(n_inputs: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    frame = pd.DataFrame(
        {
            "lam": np.tile(LAMBDA, n_inputs),
            "a": np.repeat(np.arange(n_inputs) % 2, len(LAMBDA)),
            "input": np.repeat(np.arange(n_inputs), len(LAMBDA)),
        }
    )
    rejected = np.empty(n, dtype=bool)
    for k in range(n):
        slope, height = 0.5 * rng.standard_normal((n_inputs, 1)), rng.standard_normal((n_inputs, 1))
        curves = height + slope * LAMBDA + 0.3 * rng.standard_normal((n_inputs, len(LAMBDA)))
        data = frame.assign(y=curves.ravel())
        fits = [fit_mixed(f"y ~ {f} + (1 + lam | input)", data, reml=False) for f in ("lam + a", "lam * a")]
        rejected[k] = compare(*fits).p <= ERROR
    return [Outcome("A acts on the slope, type I", "likelihood ratio, chi²(1), ML", ERROR, rejected)]


def _few_groups(n_inputs: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    """One and two fixed effects without any effect, between few inputs."""
    lam, group = np.tile(LAMBDA, n_inputs), np.repeat(np.arange(n_inputs), len(LAMBDA))
    frame = pd.DataFrame({"lam": lam, "a": group % 2, "input": group})
    rejected = np.empty((2, n), dtype=bool)
    for k in range(n):
        slope, height = 0.5 * rng.standard_normal((n_inputs, 1)), rng.standard_normal((n_inputs, 1))
        curves = height + slope * LAMBDA + 0.3 * rng.standard_normal((n_inputs, len(LAMBDA)))
        data = frame.assign(y=curves.ravel())
        fits = [fit_mixed(f"y ~ {f} + (1 + lam | input)", data, reml=False) for f in ("lam", "lam + a", "lam * a")]
        rejected[:, k] = [compare(small, fits[2]).p <= ERROR for small in (fits[1], fits[0])]
    return [
        Outcome("fixed effects of few inputs, type I", f"likelihood ratio, chi²({df}), ML", ERROR, hits)
        for df, hits in enumerate(rejected, start=1)
    ]


def _homogeneity(rng: np.random.Generator, n: int) -> list[Outcome]:
    rejected = np.empty(n, dtype=bool)
    for k in range(n):
        v = rng.uniform(0.01, 0.2, 10)
        y = 0.3 + np.sqrt(v) * rng.standard_normal(10)
        rejected[k] = mean_over_datasets(y, v, category=["one"] * 10).q_p <= ERROR
    return [Outcome("datasets share one effect, type I", "Cochran's Q, chi²(D - 1)", ERROR, rejected)]


def _pooled_effect(d: int, tau: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    """The mean effect of A over datasets is 0; datasets have 20 to 60 inputs."""
    plain, floored = (np.empty(n, dtype=bool) for _ in range(2))
    for k in range(n):
        datasets = {}
        for j in range(d):
            a = np.arange(rng.integers(20, 61)) % 2
            slopes = 1 + tau * rng.standard_normal() * (a - 0.5) + 0.6 * rng.standard_normal(len(a))
            datasets[f"d{j}"] = spurious_factors(slopes, {"pos_is_a": a})
        found = pool_spurious_factors(datasets, category=dict.fromkeys(datasets, "one"), terms=["pos_is_a"])
        plain[k] = found.p_value["slope", "pos_is_a"] <= ERROR
        floored[k] = found.p_floored["slope", "pos_is_a"] <= ERROR
    quantity = "mean effect of A over datasets, type I"
    return [
        Outcome(quantity, "Hartung-Knapp t(D - 1)", ERROR, plain),
        Outcome(quantity, "Hartung-Knapp, factor at least 1", ERROR, floored),
    ]


def _twins(questions: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    """Counterbalanced twins share 80% of their variance; Yes is the question's, A the twin's, and neither matters."""
    question = np.repeat(np.arange(questions), 2)
    a, yes = np.tile([0.5, -0.5], questions), np.where(question % 3 == 0, 0.5, -0.5)
    shared = np.sqrt(0.8) * rng.standard_normal((questions, n))[question]
    slopes = shared + np.sqrt(0.2) * rng.standard_normal((2 * questions, n))
    design = np.column_stack([np.ones(len(a)), a, yes])
    names = ["Intercept", "A", "Yes"]
    by_question = cr2_bell_mccaffrey(design, slopes, question, names, responses=[f"s{k}" for k in range(n)])
    apart = cr2_bell_mccaffrey(design, slopes, np.arange(len(a)), names, responses=[f"s{k}" for k in range(n)])
    out = []
    for j, name in ((1, "A"), (2, "Yes")):
        for fit, method in ((by_question, "CR2, Bell-McCaffrey"), (apart, "twins as independent (not offered)")):
            out.append(
                Outcome(
                    f"{name} on the slope, twins, coverage", method, COVERAGE, inside(fit.ci_low[j], fit.ci_high[j], 0)
                )
            )
    return out


def _cells() -> dict[str, Cell]:
    cells = {
        "sign flips": Cell("10 questions of two inputs each, t(4) gaps", _sign_flip, 4000),
        "group difference": Cell("8 against 22 inputs, lognormal slopes (log SD .8)", _group_difference, 4000),
        "rank test, 14 datasets": Cell("14 datasets", partial(_rank_test, 1), 4000),
        "rank test, 14 datasets x 6": Cell("14 datasets x 6 pairs, dataset ICC .5", partial(_rank_test, 6), 2000),
    }
    for shape, n_inputs in (
        ("normal", 20),
        ("normal", 200),
        *(("lognormal", n) for n in (12, 20, 60, 200)),
    ):
        setting = f"{n_inputs} inputs, curvature over inputs: {SHAPES[shape].replace('slopes', 'law')}"
        cells[f"linearity, {shape}, n = {n_inputs}"] = Cell(setting, partial(_linearity, shape, n_inputs), 4000)
    for n_inputs in (16, 60):
        cells[f"likelihood ratio, {n_inputs} inputs"] = Cell(
            f"{n_inputs} inputs, A acts on nothing", partial(_likelihood_ratio, n_inputs), 800
        )
    for n_inputs in (12, 25):
        cells[f"few inputs, {n_inputs}"] = Cell(f"{n_inputs} inputs, no effect", partial(_few_groups, n_inputs), 3000)
    cells["homogeneity"] = Cell("D = 10, tau 0, standard errors .1 to .45", _homogeneity, 3000)
    for d, tau in ((4, 0.0), (4, 0.4), (10, 0.4)):
        setting = f"D = {d}, tau {tau:g}, 20 to 60 inputs each"
        cells[f"pooled effect, D = {d}, tau {tau:g}"] = Cell(setting, partial(_pooled_effect, d, tau), 800)
    cells["twins, 15 questions"] = Cell("15 questions in both orders, Yes in 5", partial(_twins, 15), 4000)
    return cells


CELLS: dict[str, Cell] = _cells()
