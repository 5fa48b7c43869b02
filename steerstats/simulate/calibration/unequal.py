"""Calibration where few carry most of the weight: questions with many copies, datasets far more precise than others."""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np

from steerstats.meta import mean_over_datasets
from steerstats.resampling import bootstrap_mean, interval, t_interval
from steerstats.resampling.questions import question_means
from steerstats.simulate.calibration.cells import COVERAGE, RESAMPLES, Cell, Outcome, blocks, inside
from steerstats.steerability import anti_steerable

SIZES = {  # inputs of each question: the first as in a test half of the paper
    "5 of 329 questions hold 154 of 483 inputs": [38, 33, 31, 27, 25] + 5 * [2] + 319 * [1],
    "2 of 202 questions hold 60 of 260 inputs": [30, 30] + 200 * [1],
    "30 of 330 questions hold 300 of 600 inputs": 30 * [10] + 300 * [1],
}


def _copies(sizes: list[int], alike: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    """Copies of a question share a part of their variance; half of all slopes are negative."""
    codes, groups = np.repeat(np.arange(len(sizes)), sizes), len(sizes)
    hits = {name: [] for name in ("question_df", "G - 1", "studentised", "percentile", "share")}
    for size in blocks(n):
        own = rng.standard_normal((size, codes.size))
        slopes = np.sqrt(alike) * rng.standard_normal((size, groups))[:, codes] + np.sqrt(1 - alike) * own
        found = question_means(slopes, codes, COVERAGE)
        hits["question_df"].append(inside(found.ci_low, found.ci_high, 0))
        hits["G - 1"].append(inside(*t_interval(found.mean, found.se, groups - 1), 0))
        draws = bootstrap_mean(slopes, rng=rng, n_resamples=RESAMPLES, unit=codes)
        for method in ("studentised", "percentile"):
            hits[method].append(inside(*interval(draws, method), 0))
        shares = [anti_steerable(row, questions=codes)["anti_steerable"] for row in slopes]
        hits["share"].append(np.array([one.ci_low <= 0.5 <= one.ci_high for one in shares]))
    mean = "mean over unequal questions, coverage"
    rows = {
        (mean, "t, degrees of freedom of such sizes"): "question_df",
        (mean, "t on G - 1 (not offered)"): "G - 1",
        (mean, "studentised"): "studentised",
        (mean, "percentile"): "percentile",
        ("share of unequal questions, coverage", "Wilson, clustered"): "share",
    }
    return [Outcome(*row, COVERAGE, np.concatenate(hits[name])) for row, name in rows.items()]


def _dominated(d: int, share: float, own: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    """True effects have variance 1; the error variance `own` of one leaves it that share of the true weight."""
    weight = (1 - share) / share / (d - 1) / (1 + own)
    errors = np.concatenate([[own], np.full(d - 1, 1 / weight - 1)])
    hits = {name: np.empty(n, dtype=bool) for name in ("plain", "floored", "unweighted", "prediction")}
    for k in range(n):
        effects = np.sqrt(1 + errors) * rng.standard_normal(d)
        found = mean_over_datasets(effects, errors, category=["one"] * d)
        hits["plain"][k] = inside(found.ci_low, found.ci_high, 0)
        hits["floored"][k] = inside(found.floored_ci_low, found.floored_ci_high, 0)
        hits["unweighted"][k] = inside(found.unweighted_ci_low, found.unweighted_ci_high, 0)
        hits["prediction"][k] = inside(found.prediction_low, found.prediction_high, rng.standard_normal())
    mean = "mean over datasets, one dominates, coverage"
    return [
        Outcome(mean, "Hartung-Knapp t(D - 1)", COVERAGE, hits["plain"]),
        Outcome(mean, "Hartung-Knapp, factor at least 1", COVERAGE, hits["floored"]),
        Outcome(mean, "unweighted, t(D - 1)", COVERAGE, hits["unweighted"]),
        Outcome(
            "effect of a new dataset, one dominates, coverage", "prediction interval", COVERAGE, hits["prediction"]
        ),
    ]


def _cells() -> dict[str, Cell]:
    cells = {}
    for (words, sizes), alike in product(SIZES.items(), (0.5, 1.0)):
        setting = f"{words}, copies share {alike:g} of their variance"
        cells[f"copies, {words[:8].strip()}, {alike:g}"] = Cell(setting, partial(_copies, sizes, alike), 2000)
    for d, share, own in product((5, 20), (0.6, 0.95), (0.05, 1.0)):
        setting = f"{d} datasets, one with {share:g} of the weight and an error variance of {own:g} tau²"
        cells[f"dominated, D = {d}, {share:g}, {own:g}"] = Cell(setting, partial(_dominated, d, share, own), 2000)
    return cells


CELLS: dict[str, Cell] = _cells()
