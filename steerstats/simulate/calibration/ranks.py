"""Calibration of rank correlations where datasets are few, may fall into two groups, or come in categories."""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
import pandas as pd

from steerstats.generalization import corrected_spearman
from steerstats.generalization.fixed_datasets import draw_correlations
from steerstats.generalization.two_groups import two_groups
from steerstats.predictors import dataset_associations
from steerstats.resampling import quantile_pair, spearman
from steerstats.simulate.calibration.cells import COVERAGE, ERROR, Cell, Outcome, inside
from steerstats.simulate.calibration.datasets import true_and_observed

RESAMPLES = 400
POPULATION_DRAWS = 100_000
THESE = "Spearman of these datasets, coverage"


def _few_datasets(d: int, shape: str, rng: np.random.Generator, n: int) -> list[Outcome]:
    hits = np.empty(n, dtype=bool)
    for k in range(n):
        truth, seen = true_and_observed(0.9, 0.9, 0.3, shape, d, rng)
        hits[k] = _holds(draw_correlations(*seen, rng=rng, n_resamples=RESAMPLES), float(spearman(*truth)))
    return [Outcome(THESE, "draws of the true means", COVERAGE, hits)]


def _holds(draws: np.ndarray, truth: float) -> bool:
    return bool(inside(*quantile_pair(draws, COVERAGE), truth))


def _means(near: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """True means (2, d): next to zero (SD .02) for some, else 1.5 with an SD of .5; correlated by .8 in both groups."""
    z = rng.standard_normal((2, near.size))
    z[1] = 0.8 * z[0] + 0.6 * z[1]
    return np.where(near, 0.02, 0.5) * z + np.where(near, 0.0, 1.5)


def _observed_groups(share: float, noise: float, rng: np.random.Generator) -> tuple[np.ndarray, tuple]:
    """True means of 40 datasets and, as estimators take it, what is observed, with standard errors of `noise`."""
    truth = _means(np.arange(40) < round(40 * share), rng)
    return truth, (*truth + noise * rng.standard_normal((2, 40)), *np.full((2, 40), noise**2), np.zeros(40))


def _these_in_groups(share: float, noise: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    hits = np.empty(n, dtype=bool)
    for k in range(n):
        truth, seen = _observed_groups(share, noise, rng)
        hits[k] = _holds(draw_correlations(*seen, rng=rng, n_resamples=RESAMPLES), float(spearman(*truth)))
    return [Outcome(f"two groups, {THESE}", "draws of the true means", COVERAGE, hits)]


def _noise_free_in_groups(share: float, noise: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    population = float(spearman(*_means(np.arange(POPULATION_DRAWS) < share * POPULATION_DRAWS, rng)))
    hits, found = (np.empty(n, dtype=bool) for _ in range(2))
    for k in range(n):
        _, seen = _observed_groups(share, noise, rng)
        corrected, groups = corrected_spearman(*seen, rng=rng, n_resamples=RESAMPLES), two_groups(*seen)
        hits[k] = inside(corrected.ci_low, corrected.ci_high, population)
        found[k] = groups is not None and groups.clear
    return [
        Outcome("two groups, Spearman without noise, coverage", "percentile, disattenuated", COVERAGE, hits),
        Outcome("two groups, share found", "two normal laws for one", 1.0, found),
    ]


def _one_law(d: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    """How often datasets of one normal law pass for two groups, beyond doubt or not."""
    doubtful, clear = (np.empty(n, dtype=bool) for _ in range(2))
    for k in range(n):
        _, seen = true_and_observed(0.7, 0.8, 0.3, "normal", d, rng)
        groups = two_groups(*seen)
        doubtful[k], clear[k] = groups is not None, groups is not None and groups.clear
    return [
        Outcome("two groups where there is one, share", "possible", 0.0, doubtful),
        Outcome("two groups where there is one, share", "clear", 0.0, clear),
    ]


def _categories(sizes: tuple[int, ...], rng: np.random.Generator, n: int) -> list[Outcome]:
    """Datasets of one category share .6 of their variance on both sides, which have nothing to do with each other."""
    category = np.repeat(np.arange(len(sizes)), sizes)
    rejected = {"categories as units": np.empty(n, dtype=bool), "datasets as units": np.empty(n, dtype=bool)}
    for k in range(n):
        shared, own = rng.standard_normal((2, len(sizes)))[:, category], rng.standard_normal((2, category.size))
        x, y = np.sqrt(0.6) * shared + np.sqrt(0.4) * own
        for hits, unit in zip(rejected.values(), (category, None)):
            found = dataset_associations(
                pd.DataFrame({"x": x}), y, rng=rng, category=unit, n_permutations=199, n_resamples=2
            )
            hits[k] = found.p[0] <= ERROR
    return [Outcome("Spearman over categories, type I", method, ERROR, hits) for method, hits in rejected.items()]


def _cells() -> dict[str, Cell]:
    cells = {}
    for d, shape in product((8, 12), ("normal", "lognormal")):
        setting = f"{d} datasets, {shape}, rho 0.9, reliability 0.9, shared error 0.3"
        cells[f"few datasets' ranks, D = {d}, {shape}"] = Cell(setting, partial(_few_datasets, d, shape), 400)
    for d in (14, 40):
        setting = f"{d} datasets, normal, rho 0.7, reliability 0.8, shared error 0.3"
        cells[f"one law, D = {d}"] = Cell(setting, partial(_one_law, d), 400)
    for words, sizes in (("8 categories of 5", (5,) * 8), ("6 categories of 1 to 31", (1, 2, 4, 8, 16, 31))):
        cells[f"associations, {words}"] = Cell(f"{words} datasets, unrelated", partial(_categories, sizes), 800)
    for share, noise in product((0.3, 0.5), (0.04, 0.2)):
        setting = f"40 datasets, {share:g} of them next to zero, standard errors {noise:g}"
        simulate = partial(_noise_free_in_groups, share, noise)
        cells[f"two groups without noise, {share:g}, {noise:g}"] = Cell(setting, simulate, 800)
    for noise in (0.04, 0.2):
        setting = f"40 datasets, half of them next to zero, standard errors {noise:g}"
        cells[f"two groups, {noise:g}"] = Cell(setting, partial(_these_in_groups, 0.5, noise), 250)
    return cells


CELLS: dict[str, Cell] = _cells()
