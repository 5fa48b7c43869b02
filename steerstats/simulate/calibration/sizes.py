"""Calibration of sizes for a mean and for a difference of two caches: is what is said to be found found as often?"""

from __future__ import annotations

from functools import partial

import numpy as np

from steerstats.generalization import SlopeGrid, compare_slopes, with_vector_error
from steerstats.generalization.compared import ComparedSlopes
from steerstats.meta import mean_over_datasets
from steerstats.power import EffectComponents, smallest_detectable_effect
from steerstats.simulate.calibration.cells import Cell, Outcome, inside

POWER, INPUTS, REFITS = 0.8, 50, 10
SIGMA = 1.0  # SD between inputs; of two caches, of their paired differences
VECTOR = 0.15  # SD of the error of a vector, or of a difference of two: as large as that of inputs
BASE = [("base", "base")]


def _smallest(d: int, tau: float, vector_df: float) -> float:
    """The effect that D datasets of this truth find with power .8."""
    truth = EffectComponents(
        between_datasets=tau**2,
        between_inputs=SIGMA**2,
        of_vector=VECTOR**2,
        n_pairs=100,
        vector_df=vector_df,
        n=d,
        method="true",
    )
    return float(smallest_detectable_effect(truth, n_inputs=INPUTS, n_datasets=d, power=POWER).effect[0])


def _refitted(own: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Slopes (refits, 1, 1, inputs) of refits that scatter about the study's own vector, by these errors."""
    return own + error.reshape(-1, 1, 1, 1)


def _compared(d: int, tau: float, effect: float, paired: bool, rng: np.random.Generator) -> ComparedSlopes:
    """Two caches of the same inputs, each of which has what it shares with the other besides what is its own.

    Of refits of the same resamples the vectors' errors share a part as large as the difference's.
    """
    grids: dict[str, SlopeGrid] = {}
    half = 1 / np.sqrt(2)
    shared = rng.standard_normal((d, 1, 1, INPUTS))
    together = VECTOR * rng.standard_normal((d, 1 + REFITS)) * paired
    differs = effect + tau * rng.standard_normal(d)
    for label, whether in (("first", 0), ("second", 1)):
        slopes, refits = {}, {}
        for k in range(d):
            errors = together[k] + half * VECTOR * rng.standard_normal(1 + REFITS)
            inputs = shared[k] + half * SIGMA * rng.standard_normal((1, 1, INPUTS))
            slopes[f"d{k}"] = inputs + whether * differs[k] + errors[0]
            refits[f"d{k}"] = _refitted(slopes[f"d{k}"], errors[1:])
        draws = {name: [f"{label * (not paired)}{j}" for j in range(REFITS)] for name in slopes}
        grids[label] = SlopeGrid(train=("base",), evaluate=("base",), slopes=slopes, refits=refits, refit_draw=draws)
    ids = {f"d{k}": range(INPUTS) for k in range(d)}
    # Bootstrap resamples serve the bands alone, which are not looked at.
    return compare_slopes(grids, dict.fromkeys(grids, ids), BASE, rng=rng, n_resamples=2)


def _difference(d: int, tau: float, paired: bool, rng: np.random.Generator, n: int) -> list[Outcome]:
    """Differences of the size that the comparison is said to find, by the mean to read or by one dataset's interval."""
    vector_df = (REFITS - 1) * (1 if paired else 2)
    effect, found = _smallest(d, tau, vector_df), np.empty(n, dtype=bool)
    for k in range(n):
        result = _compared(d, tau if d > 1 else 0.0, effect, paired, rng)
        if d > 1:
            told = result.over_datasets[("first", "second"), "base->base"].quoted
            low, high = told.ci_low, told.ci_high
        else:
            low, high = result.ci_low[0, 0, 0], result.ci_high[0, 0, 0]
        found[k] = not inside(low, high, 0)
    how = "the one to read" if d > 1 else "one dataset, vectors' error in it"
    return [Outcome("smallest detectable difference, power", how, POWER, found)]


def _mean(d: int, tau: float, rng: np.random.Generator, n: int) -> list[Outcome]:
    """Means of the size that the study is said to tell from 0, by the mean to read."""
    effect, found = _smallest(d, tau, REFITS - 1), np.empty(n, dtype=bool)
    for k in range(n):
        means, errors = np.empty(d), np.empty(d)
        for j in range(d):
            own = effect + tau * rng.standard_normal() + VECTOR * rng.standard_normal()
            slopes = own + SIGMA * rng.standard_normal(INPUTS)
            one = with_vector_error(slopes, _refitted(slopes, VECTOR * rng.standard_normal(REFITS))[:, 0, 0])
            means[j], errors[j] = one.estimate, one.se**2
        told = mean_over_datasets(means, errors).quoted
        found[k] = not inside(told.ci_low, told.ci_high, 0)
    return [Outcome("smallest detectable mean, power", "the one to read", POWER, found)]


def _cells() -> dict[str, Cell]:
    cells, size, tau_of = {}, f"{INPUTS} inputs, {REFITS} refits", "of the SD between inputs"
    cells["mean, D = 10, tau 0.2"] = Cell(f"D = 10, {size}, tau 0.2 {tau_of}", partial(_mean, 10, 0.2), 2000)
    for d, tau, paired in ((5, 0.2, True), (10, 0.2, True), (10, 0.2, False), (10, 0.0, True)):
        refits = "of the same resamples" if paired else "that err independently"
        setting = f"D = {d}, {size} {refits}, tau {tau:g} {tau_of}"
        # A comparison takes 40 ms: more would cost more minutes than a third digit is worth.
        cells[f"difference, D = {d}, tau {tau:g}, {refits}"] = Cell(setting, partial(_difference, d, tau, paired), 1000)
    for paired in (True, False):
        refits = "of the same resamples" if paired else "that err independently"
        setting = f"{size} {refits}, vectors' error as large as that of inputs"
        cells[f"difference, one dataset, {refits}"] = Cell(setting, partial(_difference, 1, 0.0, paired), 4000)
    return cells


CELLS: dict[str, Cell] = _cells()
