"""Is steerability more uneven out of distribution? Its variance over inputs, under each shift and without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from steerstats.errors import check_level, check_resamples
from steerstats.generalization.correlation import noise_pulls
from steerstats.generalization.slopes import (
    ID_SHIFT,
    PAPER_SHIFTS,
    SAMPLE,
    Shift,
    SlopeGrid,
    cells_frame,
    parse_shift,
    parse_shifts,
    shift_name,
    unit_warnings,
)
from steerstats.generalization.vector_error import VECTOR_ERROR_OUT
from steerstats.resampling import (
    bonett_wright,
    bootstrap_correlation,
    collapse,
    correlation_of,
    quantile_pair,
)
from steerstats.resampling.ranks import MIN_FOR_INTERVAL, ONE_DATASET, PERFECT, TWO_DATASETS, is_perfect
from steerstats.results import Result
from steerstats.rounding import STORED

MIN_QUESTIONS = 3  # two leave one, which has no variance


@dataclass(frozen=True, kw_only=True)
class VarianceTable(Result):
    """Variance of per-input steerability in distribution and under each shift.

    Parameters
    ----------
    datasets, shifts : tuple of str
    variance_id : ndarray of shape (n_datasets,)
        ddof = 1, (nats per unit multiplier)².
    variance_ood : ndarray of shape (n_datasets, n_shifts)
    ratio, ci_low, ci_high : ndarray of shape (n_datasets, n_shifts)
        variance_ood / variance_id, with the jackknife interval of its logarithm; NaN limits below three questions.
    rho, rho_ci_low, rho_ci_high : ndarray of shape (n_shifts,)
        Spearman correlation over datasets between the two variances, percentile over datasets; NaN limits with a
        perfect ranking, where every resample repeats it.
    rho_bw_low, rho_bw_high : ndarray of shape (n_shifts,)
        Its Bonett–Wright interval.
    n, n_excluded : ndarray of shape (n_datasets,)
    level : float
    """

    datasets: tuple[str, ...]
    shifts: tuple[str, ...]
    variance_id: np.ndarray
    variance_ood: np.ndarray
    ratio: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    rho: np.ndarray
    rho_ci_low: np.ndarray
    rho_ci_high: np.ndarray
    rho_bw_low: np.ndarray
    rho_bw_high: np.ndarray
    n: np.ndarray
    n_excluded: np.ndarray
    level: float

    def to_frame(self) -> pd.DataFrame:
        """One row per dataset and shift."""
        names, axes = ("variance_ood", "ratio", "ci_low", "ci_high"), {"dataset": self.datasets, "shift": self.shifts}
        return cells_frame(self, names, axes, variance_id=self.variance_id[:, None])

    def correlations(self) -> pd.DataFrame:
        """One row per shift: rho with both intervals."""
        names = ("rho", "rho_ci_low", "rho_ci_high", "rho_bw_low", "rho_bw_high")
        return pd.DataFrame({"shift": self.shifts, **{name: getattr(self, name) for name in names}}).assign(
            n=len(self.datasets), level=self.level
        )


def steerability_variance(
    grid: SlopeGrid,
    shifts: Sequence[Shift | str] = PAPER_SHIFTS,
    *,
    rng: np.random.Generator,
    reference: Shift = ID_SHIFT,
    level: float = 0.95,
    n_resamples: int = 10_000,
) -> VarianceTable:
    """Variance of steerability over inputs, in distribution against each shift.

    Parameters
    ----------
    grid : SlopeGrid
    shifts : sequence of (train, eval) or "train->eval"
    rng : numpy.random.Generator
    reference : (train, eval)
    level : float
    n_resamples : int

    Returns
    -------
    VarianceTable
        The log ratio is jackknifed by question (Miller 1968, doi:10.1214/aoms/1177698418) and given a t interval on
        G − 1 about the estimate. In simulation 95% intervals covered .95 for normal slopes (n = 10 and 60), but .89
        (n = 10 and 20), .91 (n = 60) and .93 (n = 500) for lognormal ones: with few questions or heavy tails,
        variances differ less surely than the intervals say.

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats.generalization import steerability_variance
    >>> grid = steerstats.open_cache(steerstats.demo_cache()).grid(["base->base", "base->user_neg"])
    >>> found = steerability_variance(grid, ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=200)
    >>> int((found.ci_high < 1).sum()), len(found.datasets)  # where slopes spread less under the other prompt
    (7, 14)
    """
    check_level(level)
    check_resamples(n_resamples)
    reference = parse_shift(reference)
    shifts = parse_shifts(shifts, reference=reference)
    rows, excluded, warnings = [], [], []
    for name in grid.datasets:
        cells = grid.cells(name, [reference, *shifts])
        excluded.append(cells.n_excluded)
        rows.append(found := _ratios(cells.slopes, cells.question, level))
        warnings += _doubts(name, shifts, found)
    own, other, ratio, low, high, n, noise = (np.array(column) for column in zip(*rows))
    rho = np.array([correlation_of(own, other[:, k]) for k in range(len(shifts))])
    limits = np.full((4, len(shifts)), np.nan)
    usable = np.isfinite(own).all() and np.isfinite(other).all()
    if len(own) >= MIN_FOR_INTERVAL and usable:
        for k, shift in enumerate(shifts):
            if said := _noisy(own, other[:, k], noise[:, [0, 0, k + 1], [0, k + 1, k + 1]], rho[k]):
                warnings.append(f"{shift_name(shift)}, correlation of variances: {said}")
            if is_perfect(rho[k]):
                warnings.append(f"{shift_name(shift)}, correlation of variances: {PERFECT}")
                continue
            draws = bootstrap_correlation(own, other[:, k], rng=rng, n_resamples=n_resamples)
            limits[:2, k] = np.clip(quantile_pair(draws, level), -1, 1)
            limits[2:, k] = bonett_wright(rho[k], len(own), level)
    elif len(own) > 2:
        warnings.append(f"{len(own)} datasets: no interval for the correlation (eight with known variances are needed)")
    else:
        warnings.append(ONE_DATASET if len(own) == 1 else TWO_DATASETS)
    return VarianceTable(
        datasets=grid.datasets,
        shifts=tuple(map(shift_name, shifts)),
        variance_id=own,
        variance_ood=other,
        ratio=ratio,
        ci_low=low,
        ci_high=high,
        rho=rho,
        rho_ci_low=limits[0],
        rho_ci_high=limits[1],
        rho_bw_low=limits[2],
        rho_bw_high=limits[3],
        n=n,
        n_excluded=np.array(excluded),
        level=level,
        method=f"variance of per-input slopes (ddof 1), {shift_name(reference)} against each shift on the same inputs; "
        "jackknife of the log ratio over questions, t interval; Spearman over datasets",
        assumptions=(
            SAMPLE,
            "slopes have a finite fourth moment; with heavy tails or few questions the ratio's intervals are too short",
            VECTOR_ERROR_OUT,
        ),
        warnings=tuple(warnings),
    )


class _Ratios(NamedTuple):
    """Variances of one dataset's slopes, and their ratios under each shift to that in distribution."""

    own: float
    other: np.ndarray  # (shifts,), as are the ratios and their limits
    ratio: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n_questions: int
    noise: np.ndarray  # covariance of the errors of all the log variances, NaN where they have none


def _doubts(name: str, shifts: Sequence[Shift], found: _Ratios) -> list[str]:
    """What is missing from a dataset's ratios, or doubtful in their intervals."""
    groups = found.n_questions
    if not np.isfinite(found.ratio).all():
        return [f"{name}: no spread over inputs in distribution, or a single question: no ratio"]
    if groups < MIN_QUESTIONS:
        return [f"{name}: {groups} questions are too few to jackknife a ratio of variances: no interval"]
    warnings = list(unit_warnings(groups, f"{name}: "))
    without = ", ".join(shift_name(shift) for shift, limit in zip(shifts, found.low) if not np.isfinite(limit))
    if without:
        warnings.append(f"{name}, {without}: slopes that are equal, but for one question at most, give no interval")
    return warnings


def _noisy(own: np.ndarray, other: np.ndarray, noise: np.ndarray, rho: float) -> str:
    """What the sampling error of variances does to their correlation: both are of the same inputs.

    With slopes of 60 inputs that correlate .9 between the two sides, and true variances that are alike in all
    datasets, 139 of 150 intervals lay off 0 with 14 datasets, and 60 of 60 with 40.
    """
    first, shared, second = noise.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.array([np.log(side).var(ddof=1) for side in (own, other)])
        reliability = 1 - np.array([first, second]) / spread
        return noise_pulls("log variances", tuple(reliability), shared / np.sqrt(first * second), rho)


def _ratios(slopes: np.ndarray, question: np.ndarray | None, level: float) -> _Ratios:
    """Of slopes whose first cell is that in distribution; limits from the log ratio, jackknifed over questions."""
    n_inputs = slopes.shape[1]
    deviations = slopes - slopes.mean(axis=1, keepdims=True)
    # A cell without spread is rounding error of its size, as in `slope_spread`.
    rounding = STORED * np.abs(slopes).max(axis=1)
    flat = np.abs(deviations).max(axis=1) <= rounding
    deviations[flat] = 0.0
    first, sizes = collapse(deviations, question)
    squares, _ = collapse(np.square(deviations), question)
    total, groups = squares.sum(axis=1), len(sizes)
    variance = total / (n_inputs - 1) if n_inputs > 1 else np.full(len(slopes), np.nan)
    low, high = np.full((2, len(slopes) - 1), np.nan)
    noise = np.full((len(slopes), len(slopes)), np.nan)
    if groups < 2 or not total[0] > 0:
        return _Ratios(variance[0], variance[1:], low, low, high, groups, noise)
    ratio, left = variance[1:] / variance[0], n_inputs - sizes
    if groups >= MIN_QUESTIONS and (left > 1).all():
        without = (total[:, None] - squares - np.square(first) / left) / (left - 1)
        spread = (without > np.maximum(1e-14 * variance, rounding**2)[:, None]).all(axis=1)
        able = spread[1:] & spread[0]
        logs = np.log(without[1:][able] / without[0])
        if spread[0]:
            noise[np.ix_(spread, spread)] = (groups - 1) ** 2 / groups * np.cov(np.log(without[spread]))
        error = (groups - 1) / np.sqrt(groups) * logs.std(axis=1, ddof=1)
        margin = stats.t.ppf((1 + level) / 2, groups - 1) * error
        low[able], high[able] = ratio[able] * np.exp(-margin), ratio[able] * np.exp(margin)
    return _Ratios(variance[0], variance[1:], ratio, low, high, groups, noise)
