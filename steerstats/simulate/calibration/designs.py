"""Calibration of what designs can see: detectable gaps and what they rest on, shuffled nulls, squared effects."""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np

from steerstats.generalization import SlopeGrid, with_vector_error
from steerstats.meta import mean_over_datasets
from steerstats.nulls import DIFFERS, null_table
from steerstats.power import EffectComponents, gap_components, smallest_detectable_effect
from steerstats.simulate.calibration.cells import COVERAGE, ERROR, Cell, Outcome, inside

SHIFT = "base->other"
POWER = 0.8


def _spread(questions: int, tau: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    """The spread between 10 datasets, in SDs between questions, and the gap that rests on it."""
    d, sigma = 10, 1.0
    size = {"n_inputs": 50, "n_datasets": 20}
    truth = EffectComponents(
        between_datasets=tau**2, between_low=tau**2, between_high=tau**2, between_inputs=sigma**2, n=d, method="true"
    )
    needed = smallest_detectable_effect(truth, **size).effect[0]
    spread, gap = np.empty(n, dtype=bool), np.empty(n, dtype=bool)
    for k in range(n):
        gaps = tau * rng.standard_normal((d, 1)) + sigma * rng.standard_normal((d, questions))
        slopes = {f"d{j}": np.stack([one, np.zeros(questions)])[None] for j, one in enumerate(gaps)}
        found = gap_components(SlopeGrid(train=("base",), evaluate=("base", "other"), slopes=slopes), SHIFT)
        spread[k] = inside(found.between_low, found.between_high, tau**2)
        table = smallest_detectable_effect(found, **size)
        gap[k] = inside(table.effect_low[0], table.effect_high[0], needed)
    return [
        Outcome("spread of gaps between datasets, coverage", "Q-profile", COVERAGE, spread),
        Outcome("detectable gap, coverage", "at the limits of the spread", COVERAGE, gap),
    ]


def _over_datasets(d: int, tau: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    """Gaps of the size that the design is said to find."""
    inputs, sigma = 50, 1.0
    components = EffectComponents(between_datasets=tau**2, between_inputs=sigma**2, n=d, method="true")
    gap = smallest_detectable_effect(components, n_inputs=inputs, n_datasets=d, power=POWER).effect[0]
    weighted, plain, quoted = (np.empty(n, dtype=bool) for _ in range(3))
    for k in range(n):
        true = gap + tau * rng.standard_normal((d, 1))
        values = true + sigma * rng.standard_normal((d, inputs))
        means, errors = values.mean(axis=1), values.var(axis=1, ddof=1) / inputs
        found = mean_over_datasets(means, errors, category=["one"] * d)
        weighted[k] = not inside(found.ci_low, found.ci_high, 0)
        plain[k] = not inside(found.unweighted_ci_low, found.unweighted_ci_high, 0)
        quoted[k] = not inside(found.quoted.ci_low, found.quoted.ci_high, 0)
    return [
        Outcome("smallest detectable gap, power", "weighted mean, Hartung-Knapp", POWER, weighted),
        Outcome("smallest detectable gap, power", "unweighted mean, t(D - 1)", POWER, plain),
        Outcome("smallest detectable gap, power", "the one to read", POWER, quoted),
    ]


def _one_dataset(refits: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    inputs, sigma, vector = 50, 1.0, 0.15
    components = EffectComponents(
        between_datasets=np.nan,
        between_inputs=sigma**2,
        of_vector=vector**2,
        n_pairs=100,
        vector_df=refits - 1,
        n=1,
        method="true",
    )
    gap = smallest_detectable_effect(components, n_inputs=inputs, power=POWER).effect[0]
    found = np.empty(n, dtype=bool)
    for k in range(n):
        # Refits scatter about the study's own vector as that does about the one of all pairs of the world.
        own = gap + vector * rng.standard_normal()
        noise = sigma * rng.standard_normal(inputs)
        others = own + vector * rng.standard_normal((refits, 1)) + noise
        estimate = with_vector_error(own + noise, others)
        found[k] = not inside(estimate.ci_low, estimate.ci_high, 0)
    return [Outcome("smallest detectable gap, power", "one dataset, vector's error in it", POWER, found)]


def _half_shuffled(differences: np.ndarray, vectors: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Slopes, along the first dimension, of a vector and of so many of its norm with half of the questions exchanged.

    `differences` is (question, dimension); what is returned are (1,) and (vectors, 1).
    """
    questions = len(differences)
    half = np.argsort(rng.random((vectors, questions), dtype=np.float32), axis=1) < questions // 2
    trained, shuffled = differences.mean(axis=0), (1 - 2 * half) @ differences / questions
    scale = np.linalg.norm(trained) / np.linalg.norm(shuffled, axis=1)
    return trained[:1], (scale * shuffled[:, 0])[:, None]


def _shuffled(questions: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    """40 datasets whose questions agree on nothing; 999 vectors from exchanging half of the questions, of one norm.

    Of 64 dimensions the first is the one that steers.
    """
    false = np.empty(n, dtype=bool)
    for k in range(n):
        own, null = {}, {}
        for j in range(40):
            own[f"d{j}"], null[f"d{j}"] = _half_shuffled(rng.standard_normal((questions, 64)), 999, rng)
        false[k] = DIFFERS in null_table(own, null, kind="shuffled").decision
    return [Outcome("some dataset among 40, type I", "Benjamini-Hochberg among half-shuffled", ERROR, false)]


def _together(questions: int, vectors: int, rng: np.random.Generator, n: int) -> list[Outcome]:
    """14 datasets, the questions of 5 of which agree on the dimension that steers: at least how many do?"""
    too_many, some = (np.empty(n, dtype=bool) for _ in range(2))
    for k in range(n):
        own, null = {}, {}
        for j in range(14):
            differences = rng.standard_normal((questions, 64))
            differences[:, 0] += 2.0 * (j < 5)
            own[f"d{j}"], null[f"d{j}"] = _half_shuffled(differences, vectors, rng)
        least = null_table(own, null, kind="shuffled", questions=dict.fromkeys(own, questions)).at_least
        too_many[k], some[k] = least > 5, least > 0
    how = "partial conjunctions, Fisher"
    return [
        Outcome("vectors that differ at least, too many", how, ERROR, too_many),
        Outcome("vectors that differ at least, any where 5 of 14 do", how, 1.0, some),
    ]


def _squares(d: int, spread: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    """The fall of squared effects, noise taken out, under a debiasing that halves effects and their standard errors.

    Estimates before and after err independently, as debiasing leaves little in common with what it takes out.
    """
    errors = np.array([[0.1], [0.05]])
    hits = np.empty(n, dtype=bool)
    for k in range(n):
        estimates = spread * np.array([[1.0], [0.5]]) * rng.standard_normal(d) + errors * rng.standard_normal((2, d))
        before, after = estimates**2 - errors**2
        found = mean_over_datasets(before - after, np.ones(d), category=["one"] * d)
        hits[k] = inside(found.unweighted_ci_low, found.unweighted_ci_high, 0.75 * spread**2)
    if spread == 0:
        return [Outcome("fall of squared effects, type I", "unweighted, t(D - 1)", ERROR, ~hits)]
    return [Outcome("fall of squared effects, coverage", "unweighted, t(D - 1)", COVERAGE, hits)]


def _cells() -> dict[str, Cell]:
    cells = {}
    for tau, questions in product((0.1, 0.3), (4, 6, 10, 30)):
        setting = f"10 datasets of {questions} questions, tau {tau:g} of the SD between questions"
        cells[f"spread, {questions} questions, tau {tau:g}"] = Cell(setting, partial(_spread, questions, tau), 2000)
    for d, tau in ((5, 0.2), (10, 0.2), (10, 0.0)):
        setting = f"D = {d}, 50 inputs, tau {tau:g} of the SD between inputs"
        cells[f"power, D = {d}, tau {tau:g}"] = Cell(setting, partial(_over_datasets, d, tau), 2000)
    for refits in (3, 10):
        setting = f"50 inputs, {refits} refits, vector's error as large as that of inputs"
        cells[f"power, {refits} refits"] = Cell(setting, partial(_one_dataset, refits), 4000)
    for questions in (24, 40):
        setting = f"40 datasets of {questions} questions, 999 vectors"
        cells[f"shuffled, {questions} questions"] = Cell(setting, partial(_shuffled, questions), 800)
    for questions, vectors in product((6, 24), (19, 199)):
        setting = f"14 datasets of {questions} questions, 5 steer, {vectors} label-shuffled vectors"
        cells[f"together, {questions} questions, {vectors} vectors"] = Cell(
            setting, partial(_together, questions, vectors), 2000
        )
    for d, spread in product((5, 8), (0.0, 0.2, 0.5)):
        what = f"effects of SD {spread:g} halved by debiasing" if spread else "no effects"
        cells[f"squares, D = {d}, SD {spread:g}"] = Cell(
            f"D = {d}, {what}, standard errors .1 and .05", partial(_squares, d, spread), 4000
        )
    return cells


CELLS: dict[str, Cell] = _cells()
