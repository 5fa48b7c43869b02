"""Calibration where little is known of errors: few questions, refits or degrees of freedom, few training questions."""

from __future__ import annotations

from functools import partial

import numpy as np

from steerstats.generalization import with_vector_error
from steerstats.meta import mean_over_datasets
from steerstats.simulate.calibration.cells import COVERAGE, ERROR, Cell, Outcome, inside

HOMOGENEITY = "Cochran's Q, chi²(D - 1)"
WEIGHTED, PLAIN = "Hartung-Knapp t(D - 1)", "unweighted, t(D - 1)"


def _few(d: int, df: int, part: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    """Datasets do not differ; `part` of each error variance is estimated on `df` degrees of freedom, the rest known."""
    differ, weighted, plain = (np.empty(n, dtype=bool) for _ in range(3))
    for k in range(n):
        v = part * rng.chisquare(df, d) / df + 1 - part
        found = mean_over_datasets(rng.standard_normal(d), v, category=["one"] * d)
        differ[k] = found.q_p <= ERROR
        weighted[k] = inside(found.ci_low, found.ci_high, 0)
        plain[k] = inside(found.unweighted_ci_low, found.unweighted_ci_high, 0)
    return [
        Outcome("datasets share one effect, errors uncertain, type I", HOMOGENEITY, ERROR, differ),
        Outcome("mean over datasets, errors uncertain, coverage", WEIGHTED, COVERAGE, weighted),
        Outcome("mean over datasets, errors uncertain, coverage", PLAIN, COVERAGE, plain),
    ]


def _trained(questions: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    """Vectors err more than inputs do, and 20 refits resample the training questions."""
    refits, inputs = 20, 50
    hits = np.empty(n, dtype=bool)
    for k in range(n):
        differences = np.sqrt(questions) * rng.standard_normal(questions)
        again = differences[rng.integers(questions, size=(refits, questions))].mean(axis=1)
        noise = 2.0 * rng.standard_normal(inputs)
        found = with_vector_error(differences.mean() + noise, again[:, None] + noise)
        hits[k] = inside(found.ci_low, found.ci_high, 0)
    return [Outcome("mean gap, any vector, coverage", "with refits", COVERAGE, hits)]


def _cells() -> dict[str, Cell]:
    cells = {}
    for questions in (3, 5, 10, 20):
        setting = f"D = 20 that do not differ, {questions} questions each"
        cells[f"few questions, {questions}"] = Cell(setting, partial(_few, 20, questions - 1, 1.0), 2000)
    for refits in (3, 5, 10):
        setting = f"D = 20 that do not differ, {refits} refits each, nine tenths of the variance the vector's"
        cells[f"few refits, {refits}"] = Cell(setting, partial(_few, 20, refits - 1, 0.9), 2000)
    for df in (1, 2, 5, 13, 38):
        setting = f"D = 10 that do not differ, {df} degrees of freedom each"
        cells[f"few degrees of freedom, {df}"] = Cell(setting, partial(_few, 10, df, 1.0), 2000)
    for questions in (4, 8, 12, 20):
        setting = f"50 inputs, 20 refits on {questions} training questions, vectors err more than inputs"
        cells[f"trained on {questions} questions"] = Cell(setting, partial(_trained, questions), 4000)
    return cells


CELLS: dict[str, Cell] = _cells()
