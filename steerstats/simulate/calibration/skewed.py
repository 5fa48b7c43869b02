"""Calibration where inputs or datasets are skewed: bends, ratios of variances, correlations, projections, means."""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
from scipy import stats

from steerstats.generalization import SlopeGrid, steerability_variance
from steerstats.generalization.figure7 import jackknife_limits
from steerstats.meta import mean_over_datasets
from steerstats.predictors import auc, crossfit, d_prime
from steerstats.simulate.calibration.cells import COVERAGE, ERROR, SHAPES, Cell, Outcome, draw, inside
from steerstats.simulate.calibration.models import LAMBDA
from steerstats.steerability import linearity_test

LARGE = 6.0  # SD of the slopes of a few inputs, where those of others are 1
NOISE = 0.3  # SD of what curves have beside their bend, at each multiplier
BASIS = np.linalg.qr(np.column_stack([np.ones_like(LAMBDA), LAMBDA, np.eye(len(LAMBDA))]))[0][:, 2:]
POPULATION_DRAWS = 100_000


def _every_contrast(shape: str, n_inputs: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    """All that is not linear in a curve is skewed, each of its contrasts by itself; the mean curve is straight."""
    rejected = np.empty(n, dtype=bool)
    for k in range(n):
        curves = LAMBDA + draw(shape, (n_inputs, BASIS.shape[1]), rng) @ BASIS.T
        rejected[k] = linearity_test(curves, LAMBDA).p_value <= ERROR
    return [Outcome("mean curve straight, all contrasts skewed, type I", "Hotelling's T²", ERROR, rejected)]


def _departure(shape: str, mean: float, n_inputs: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    """Inputs bend by so many SDs on average."""
    bend = BASIS.T @ LAMBDA**2
    spread = np.outer(bend, bend) + NOISE**2 * np.eye(len(bend))
    truth, hits = mean * float(np.sqrt(bend @ np.linalg.solve(spread, bend))), np.empty(n, dtype=bool)
    for k in range(n):
        bent = (mean + draw(shape, n_inputs, rng))[:, None] * LAMBDA**2
        curves = LAMBDA + bent + NOISE * rng.standard_normal((n_inputs, len(LAMBDA)))
        found = linearity_test(curves, LAMBDA)
        hits[k] = inside(found.distance_low, found.distance_high, truth)
    return [Outcome("departure from a line, coverage", "inverted non-central F", COVERAGE, hits)]


def _variance_ratio(shape: str, n_inputs: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    """Each study is a dataset whose slopes vary as much under the shift; they are those at home by the half."""
    slopes = {}
    for k in range(n):
        z = rng.standard_normal((2, n_inputs))
        z[1] = 0.5 * z[0] + np.sqrt(0.75) * z[1]
        slopes[f"d{k}"] = (z if shape == "normal" else np.exp(0.8 * z))[None]
    grid = SlopeGrid(train=("base",), evaluate=("base", "other"), slopes=slopes)
    found = steerability_variance(grid, ["base->other"], rng=rng, n_resamples=2)
    hits = np.ravel(inside(found.ci_low, found.ci_high, 1.0))
    return [Outcome("ratio of variances, coverage", "jackknife of the log ratio", COVERAGE, hits)]


def _over_inputs(shape: str, n_inputs: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    """Slopes on a narrow range and on the whole grid: both hold the input's own, and each what bends make of it.

    Where `shape` is "few", a tenth of the inputs have large slopes in common, and the others nothing.
    """
    few, names = shape == "few", np.arange(n_inputs)
    own = np.sqrt(0.1) * LARGE if few else 1.0
    rest = 1.0 if few else 0.5
    truth, hits = own**2 / (own**2 + rest**2), np.empty(n, dtype=bool)
    for k in range(n):
        if few:
            common = LARGE * (rng.random(n_inputs) < 0.1) * rng.standard_normal(n_inputs)
            bends = rng.standard_normal((2, n_inputs))
        else:
            common, *bends = draw(shape, (3, n_inputs), rng)
        narrow, whole = common + rest * np.asarray(bends)
        hits[k] = inside(*jackknife_limits(narrow, whole, names, "pearson", COVERAGE), truth)
    return [Outcome("correlation over inputs, coverage", "jackknife on Fisher's z", COVERAGE, hits)]


def _projections(shape: str, n_pairs: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    """Positive answers lie one SD further on a vector that was fitted elsewhere."""
    one, two = draw(shape, (2, POPULATION_DRAWS), rng)
    further = stats.rankdata(np.concatenate([one + 1, two]))[:POPULATION_DRAWS].mean()
    area = float((further - (POPULATION_DRAWS + 1) / 2) / POPULATION_DRAWS)
    hits = {"d′": np.empty(n, dtype=bool), "AUC": np.empty(n, dtype=bool)}
    for k in range(n):
        projection = draw(shape, (2, n_pairs), rng) + np.array([[1.0], [0.0]])
        for kept, estimate, truth in zip(hits.values(), (d_prime, auc), (1.0, area)):
            found = estimate(projection)
            kept[k] = inside(found.ci_low, found.ci_high, truth)
    methods = "linearised over questions", "Wilson, clustered"
    return [
        Outcome(f"{name} of projections, coverage", method, COVERAGE, hits[name]) for name, method in zip(hits, methods)
    ]


def _means(shape: str, d: int, questions: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    """Datasets do not differ; means and standard errors of skewed slopes go together, and so do weights."""
    hits = {name: np.empty(n, dtype=bool) for name in ("weighted", "plain", "quoted")}
    for k in range(n):
        slopes = draw(shape, (d, questions), rng)
        found = mean_over_datasets(slopes.mean(axis=1), slopes.var(axis=1, ddof=1) / questions, category=["one"] * d)
        hits["weighted"][k] = inside(found.ci_low, found.ci_high, 0)
        hits["plain"][k] = inside(found.unweighted_ci_low, found.unweighted_ci_high, 0)
        hits["quoted"][k] = inside(found.quoted.ci_low, found.quoted.ci_high, 0)
    methods = {"weighted": "Hartung-Knapp t(D - 1)", "plain": "unweighted, t(D - 1)", "quoted": "the one to read"}
    return [Outcome("mean over datasets, slopes drawn, coverage", methods[name], COVERAGE, hits[name]) for name in hits]


def _between_datasets(
    shape: str, d: int, variances: tuple[float, float], rng: np.random.Generator, n: int
) -> list[Outcome]:
    """True effects of datasets are skewed; `variances` are those of the estimates' errors, least and most."""
    knapp, plain, new = (np.empty(n, dtype=bool) for _ in range(3))
    for k in range(n):
        effects, v = draw(shape, d, rng), rng.uniform(*variances, d)
        found = mean_over_datasets(effects + np.sqrt(v) * rng.standard_normal(d), v, category=["one"] * d)
        knapp[k] = inside(found.ci_low, found.ci_high, 0)
        plain[k] = inside(found.unweighted_ci_low, found.unweighted_ci_high, 0)
        new[k] = inside(found.prediction_low, found.prediction_high, draw(shape, 1, rng)[0])
    mean = "mean over datasets, effects skewed, coverage"
    return [
        Outcome(mean, "Hartung-Knapp t(D - 1)", COVERAGE, knapp),
        Outcome(mean, "unweighted, t(D - 1)", COVERAGE, plain),
        Outcome("effect of a new dataset, effects skewed, coverage", "prediction interval", COVERAGE, new),
    ]


def _crossfitted(apart: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    """48 pairs in 200 dimensions, half of whose variance both answers share; the truth is what is found on average."""
    estimators = {"d′": d_prime, "AUC": auc}
    found = {name: np.empty((n, 3)) for name in estimators}
    for k in range(n):
        activations = rng.standard_normal((1, 48, 200)) + rng.standard_normal((2, 48, 200))
        activations[0, :, 0] += apart * np.sqrt(2)
        projection = crossfit(activations, rng=rng).projection
        for name, estimate in estimators.items():
            one = estimate(projection, crossfitted=True)
            found[name][k] = one.estimate, one.ci_low, one.ci_high
    methods = "linearised over questions", "Wilson, clustered"
    hits = {name: inside(rows[:, 1], rows[:, 2], rows[:, 0].mean()) for name, rows in found.items()}
    return [
        Outcome(f"{name} of cross-fitted projections, coverage", method, COVERAGE, hits[name])
        for name, method in zip(hits, methods)
    ]


def _cells() -> dict[str, Cell]:
    cells = {}
    for shape, n_inputs in product(("lognormal", "very skewed"), (12, 60, 200)):
        setting = f"{n_inputs} inputs, every contrast over inputs: {SHAPES[shape].replace('slopes', 'law')}"
        cells[f"contrasts, {shape}, n = {n_inputs}"] = Cell(setting, partial(_every_contrast, shape, n_inputs), 2500)
    for shape, mean, n_inputs in product(("normal", "lognormal"), (1, 3), (20, 200)):
        law = SHAPES[shape].replace("slopes", "law")
        cells[f"departure, {shape}, {mean} SD, n = {n_inputs}"] = Cell(
            f"{n_inputs} inputs, mean bend of {mean} SD, {law}", partial(_departure, shape, mean, n_inputs), 1500
        )
    for shape, n_inputs in [("normal", 10), ("normal", 60), *(("lognormal", n) for n in (10, 20, 60, 500))]:
        setting = f"n = {n_inputs}, variances alike, {SHAPES[shape]}"
        cells[f"ratio of variances, {shape}, n = {n_inputs}"] = Cell(
            setting, partial(_variance_ratio, shape, n_inputs), 4000
        )
    for shape, n_inputs in [*product(("normal", "lognormal"), (10, 30, 100)), ("few", 30), ("few", 100)]:
        law = "a tenth of the slopes large" if shape == "few" else SHAPES[shape]
        setting = f"{n_inputs} inputs, slopes on two ranges, {law}"
        cells[f"over inputs, {shape}, n = {n_inputs}"] = Cell(setting, partial(_over_inputs, shape, n_inputs), 1200)
    for shape, n_pairs in product(("normal", "mixture", "lognormal"), (12, 100)):
        setting = f"{n_pairs} pairs, answers one SD apart, {SHAPES[shape].replace('slopes', 'projections')}"
        cells[f"projections, {shape}, n = {n_pairs}"] = Cell(setting, partial(_projections, shape, n_pairs), 4000)
    skewed = [("lognormal", d, questions) for d, questions in ((5, 40), (10, 40), (40, 40), (40, 200))]
    for shape, d, questions in [*skewed, ("normal", 10, 40)]:
        setting = f"D = {d} that do not differ, {questions} questions each, {SHAPES[shape]}"
        cells[f"means, {shape}, D = {d}, n = {questions}"] = Cell(setting, partial(_means, shape, d, questions), 2000)
    effects = SHAPES["lognormal"].replace("slopes", "effects")
    for named, errors, variances in (
        ("", ".1 to .45", (0.01, 0.2)),
        (", errors .01 to .06", ".01 to .06", (1e-4, 4e-3)),
    ):
        for d in (5, 8, 14, 40):
            setting = f"D = {d}, standard errors {errors} of the SD, {effects}"
            cells[f"between datasets, D = {d}{named}"] = Cell(
                setting, partial(_between_datasets, "lognormal", d, variances), 4000
            )
    for apart in (0, 1, 2):
        setting = f"48 pairs of 200 dimensions, {f'answers {apart} SD apart' if apart else 'answers alike'}"
        cells[f"cross-fitted, {apart} SD"] = Cell(setting, partial(_crossfitted, apart), 1500)
    return cells


CELLS: dict[str, Cell] = _cells()
