"""Calibration within one dataset: mean gap, ratio, spread, shares and the mass on the answers, the vector's error."""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
from scipy import special

from steerstats.generalization import answer_mass, from_disjoint_folds, ratio, with_vector_error
from steerstats.resampling import bootstrap_mean, bootstrap_ratio, interval
from steerstats.simulate.calibration.cells import COVERAGE, RESAMPLES, SHAPES, Cell, Outcome, blocks, draw, inside
from steerstats.spurious import published_variance_split, variance_explained
from steerstats.steerability import anti_steerable, slope_spread
from steerstats.steerability.replicates import corrected_anti_steerable


def _mean_gap(shape: str, n_inputs: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    methods, truth = ("studentised", "percentile", "bca", "t"), 0.3
    hits = {method: [] for method in methods}
    for size in blocks(n):
        gaps = truth + draw(shape, (size, n_inputs), rng)
        found = bootstrap_mean(gaps, rng=rng, n_resamples=RESAMPLES)
        for method in methods:
            hits[method].append(inside(*interval(found, method), truth))
    return [_coverage("mean gap, coverage", method, hits[method]) for method in methods]


def _ratio(z: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    """Denominator z standard errors from zero over 50 inputs, true ratio .7, slopes correlated .5 over inputs."""
    n_inputs, truth = 50, 0.7
    hits = {method: [] for method in ("fieller", "delta", "studentised", "bca", "percentile")}
    mean = z / np.sqrt(n_inputs)
    for size in blocks(n):
        deviation = rng.standard_normal((size, n_inputs))
        below = mean + deviation
        above = truth * mean + 0.5 * deviation + np.sqrt(0.75) * rng.standard_normal((size, n_inputs))
        found = bootstrap_ratio(above, below, rng=rng, n_resamples=RESAMPLES)
        for method in ("studentised", "bca", "percentile"):
            hits[method].append(inside(*interval(found, method), truth))
        for method in ("fieller", "delta"):
            sets = [ratio(y, x, method=method) for y, x in zip(above, below)]
            hits[method].append(np.array([_in_set(found, truth) for found in sets]))
    quantity = "relative steerability, coverage"
    return [_coverage(quantity, method, values) for method, values in hits.items()]


def _coverage(quantity: str, method: str, hits: list[np.ndarray]) -> Outcome:
    printed = {"bca": "BCa", "fieller": "Fieller", "t": "t on n - 1"}.get(method, method)
    return Outcome(quantity, printed, COVERAGE, np.concatenate(hits))


def _in_set(found, truth: float) -> bool:
    return found.ci_low <= truth <= found.ci_high and not found.excluded_low < truth < found.excluded_high


def _spread(shape: str, n_inputs: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    found = [slope_spread(row) for row in draw(shape, (n, n_inputs), rng)]
    hits = np.array([e.ci_low <= 1 <= e.ci_high for e in found])
    return [Outcome("SD of steerability, coverage", "jackknife of the log variance", COVERAGE, hits)]


def _anti_steerable(share: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    wilson, percentile = [], []
    for size in blocks(n):
        slopes = rng.standard_normal((size, 500)) - special.ndtri(share)
        found = [anti_steerable(row)["anti_steerable"] for row in slopes]
        wilson.append(np.array([e.ci_low <= share <= e.ci_high for e in found]))
        draws = bootstrap_mean((slopes < 0).astype(float), rng=rng, n_resamples=RESAMPLES)
        percentile.append(inside(*interval(draws, "percentile"), share))
    quantity = "anti-steerable share, coverage"
    return [
        _coverage(quantity, "Wilson", wilson),
        _coverage(quantity, "percentile (not offered)", percentile),
    ]


def _explained(shape: str, share: float, n_inputs: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    """Letter and word, each half of the inputs and with half of the share; the rest has one of the `SHAPES`."""
    hits, words = np.empty(n, dtype=bool), np.arange(n_inputs) // 2 % 2
    factors = {"pos_is_a": np.arange(n_inputs) % 2, "pos_is_yes": words}
    for k in range(n):
        known = np.sqrt(2 * share) * (factors["pos_is_a"] + words)
        slopes = known + np.sqrt(1 - share) * draw(shape, n_inputs, rng)
        found = variance_explained(slopes, factors, rng=rng, n_resamples=400)
        place = found.components.index("explained")
        hits[k] = inside(found.ci_low[place], found.ci_high[place], share)
    return [Outcome("variance explained, coverage", "percentile", COVERAGE, hits)]


def _both_orders(
    share: float, questions: int, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Both orders of every question, which share 80% of what the letter, alone of effect, leaves; word by question."""
    question = np.repeat(np.arange(questions), 2)
    factors = {"pos_is_a": np.tile([1, 0], questions), "pos_is_yes": question % 2}
    own = np.sqrt(0.8) * rng.standard_normal(questions)[question] + np.sqrt(0.2) * rng.standard_normal(len(question))
    return np.sqrt(share) * (2 * factors["pos_is_a"] - 1) + np.sqrt(1 - share) * own, factors, question


def _explained_in_orders(share: float, questions: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    """The order-free share where `_both_orders` holds."""
    hits = np.empty(n, dtype=bool)
    for k in range(n):
        slopes, factors, question = _both_orders(share, questions, rng)
        found = variance_explained(slopes, factors, rng=rng, questions=question, n_resamples=400)
        place = found.components.index("explained")
        hits[k] = inside(found.ci_low[place], found.ci_high[place], share)
    return [Outcome("variance explained, both orders, coverage", "percentile", COVERAGE, hits)]


def _published(share: float, questions: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    """The sequential split where `_both_orders` holds."""
    hits = np.empty((2, n), dtype=bool)
    for k in range(n):
        slopes, factors, question = _both_orders(share, questions, rng)
        found = published_variance_split(slopes, factors, rng=rng, questions=question, n_resamples=400)
        for row, name in zip(hits, ("pos_is_a", "both")):
            place = found.components.index(name)
            row[k] = inside(found.ci_low[place], found.ci_high[place], share)
    names = "the letter", "letter and word"
    return [
        Outcome(f"published split, {name}, coverage", "percentile", COVERAGE, row) for name, row in zip(names, hits)
    ]


def _vector_error(sigma: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    """500 inputs of SD .6, so that they alone leave a standard error of .027; 20 refits."""
    truth, test_only, with_refits = 0.3, [], []
    for size in blocks(n):
        values = truth + sigma * rng.standard_normal((size, 1)) + 0.6 * rng.standard_normal((size, 500))
        found = bootstrap_mean(values, rng=rng, n_resamples=RESAMPLES)
        test_only.append(inside(*interval(found, "studentised"), truth))
        shifts = sigma * rng.standard_normal((size, 20, 1))
        both = [with_vector_error(row, row + shift) for row, shift in zip(values, shifts)]
        with_refits.append(np.array([e.ci_low <= truth <= e.ci_high for e in both]))
    quantity = "mean gap, any vector, coverage"
    return [
        _coverage(quantity, "test inputs only", test_only),
        _coverage(quantity, "with refits", with_refits),
    ]


def _noise_free_share(shared: float, refits: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    """150 inputs about .5 with a noise-free spread of 1, so that 31% are below 0; noise SD .4."""
    truth, measured, corrected = float(special.ndtr(-0.5)), np.empty(n, dtype=bool), np.empty(n, dtype=bool)
    for k in range(n):
        slopes = rng.normal(0.5, 1, 150) + rng.normal(0, 0.4, 150) + shared * rng.standard_normal()
        others = slopes + rng.normal(0, 0.4, (refits, 150)) + shared * rng.standard_normal((refits, 1))
        found = (
            anti_steerable(slopes)["anti_steerable"],
            corrected_anti_steerable(others, kind="refits", slopes=slopes, rng=rng, n_resamples=200),
        )
        measured[k], corrected[k] = (e.ci_low <= truth <= e.ci_high for e in found)
    quantity = "anti-steerable share without noise, coverage"
    return [
        Outcome(quantity, "corrected by refits", COVERAGE, corrected),
        Outcome(quantity, "Wilson, as measured", COVERAGE, measured),
    ]


def _folds(n_folds: int, sigma: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    hits = np.empty(n, dtype=bool)
    for k in range(n):
        vector, inputs = sigma * rng.standard_normal((n_folds, 1)), 0.6 * rng.standard_normal(200)
        e = from_disjoint_folds(0.3 + vector + inputs + 0.2 * rng.standard_normal((n_folds, 200)))
        hits[k] = e.ci_low <= 0.3 <= e.ci_high
    return [Outcome("mean gap, any fold's vector, coverage", "crossed, Satterthwaite t", COVERAGE, hits)]


def _answer_mass(n_inputs: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    """Log odds of the mass are normal over inputs, with mean 5 and SD 3: few inputs take most from the mean."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(150)
    truth, hits = weights @ special.expit(5 + 3 * nodes) / weights.sum(), np.empty(n, dtype=bool)
    for k in range(n):
        half = np.log(special.expit(5 + 3 * rng.standard_normal(n_inputs)) / 2)
        found = answer_mass({"d": np.stack([half, half])[None]}, {"d": np.zeros((1, n_inputs))}, np.zeros(1))
        hits[k] = inside(found.ci_low[0, 0], found.ci_high[0, 0], truth)
    return [Outcome("mass on the answers, coverage", "t on the logit scale", COVERAGE, hits)]


def _cells() -> dict[str, Cell]:
    cells = {}
    for n_inputs in (50, 500):
        for shape, words in SHAPES.items():
            setting = f"n = {n_inputs}, {words}"
            cells[f"gap, {shape}, n = {n_inputs}"] = Cell(setting, partial(_mean_gap, shape, n_inputs), 8000)
    for z, words in ((10, "strong"), (3, "weak"), (1, "noise")):
        setting = f"n = 50, denominator at z = {z} ({words})"
        cells[f"ratio, denominator z = {z}"] = Cell(setting, partial(_ratio, z), 5000)
    for n_inputs in (10, 50, 500):
        for shape, words in SHAPES.items():
            setting = f"n = {n_inputs}, {words}"
            cells[f"sd, {shape}, n = {n_inputs}"] = Cell(setting, partial(_spread, shape, n_inputs), 3000)
    for share in (0.002, 0.1, 0.5):
        setting = f"n = 500, true share {share:g}"
        cells[f"anti-steerable, {share:g}"] = Cell(setting, partial(_anti_steerable, share), 2500)
    for n_inputs in (60, 300):
        for shape in ("normal", "mixture", "lognormal"):
            for share in (0.1, 0.8):
                setting = f"n = {n_inputs}, true share {share:g}, the rest: {SHAPES[shape]}"
                simulate = partial(_explained, shape, share, n_inputs)
                cells[f"explained, {shape}, {share:g}, n = {n_inputs}"] = Cell(setting, simulate, 1500)
    for share in (0.1, 0.4, 0.7):
        for questions in (10, 30, 100):
            setting = f"{questions} questions in both orders, true share {share:g}"
            simulate = partial(_published, share, questions)
            cells[f"published split, {share:g}, {questions} questions"] = Cell(setting, simulate, 1500)
    for share, questions in product((0.1, 0.4, 0.7), (10, 30, 100)):
        setting = f"{questions} questions in both orders, true share {share:g}"
        simulate = partial(_explained_in_orders, share, questions)
        cells[f"explained in both orders, {share:g}, {questions} questions"] = Cell(setting, simulate, 1500)
    for sigma in (0.02, 0.05, 0.1):
        setting = f"n = 500, input SD .6, vector SD {sigma:g}, 20 refits"
        cells[f"vector error, {sigma:g}"] = Cell(setting, partial(_vector_error, sigma), 2500)
    for shared, refits in ((0.0, 20), (0.3, 20), (0.3, 6)):
        setting = f"n = 150, vector SD {shared:g} of the noise-free spread, {refits} refits"
        name = f"anti-steerable without noise, {shared:g}, {refits} refits"
        cells[name] = Cell(setting, partial(_noise_free_share, shared, refits), 800)
    for n_folds, sigma in ((2, ".1"), (3, ".1"), (5, ".05")):
        setting = f"n = 200, input SD .6, vector SD {sigma}, interaction SD .2, {n_folds} folds"
        cells[f"vector error, {n_folds} folds"] = Cell(setting, partial(_folds, n_folds, float(sigma)), 2500)
    for n_inputs in (20, 60, 300):
        setting = f"n = {n_inputs}, mean .92, half of the inputs above .99"
        cells[f"answer mass, n = {n_inputs}"] = Cell(setting, partial(_answer_mass, n_inputs), 3000)
    return cells


CELLS: dict[str, Cell] = _cells()
