"""Is steerability more uneven out of distribution? Its variance over inputs, under each shift and without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from steerstats.errors import check_count, check_level
from steerstats.generalization.slopes import (
    ID_SHIFT,
    PAPER_SHIFTS,
    Shift,
    SlopeGrid,
    parse_shift,
    parse_shifts,
    shift_name,
)
from steerstats.generalization.vector_error import VECTOR_ERROR_OUT
from steerstats.resampling import (
    SumRatio,
    bonett_wright,
    bootstrap_correlation,
    collapse,
    correlation_of,
    quantile_pair,
)
from steerstats.resampling.ranks import MIN_FOR_INTERVAL
from steerstats.results import Result


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
        variance_ood / variance_id, interval from a t interval of its logarithm, robust to non-normal slopes.
    rho, rho_ci_low, rho_ci_high : ndarray of shape (n_shifts,)
        Spearman correlation over datasets between the two variances, percentile over datasets.
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
        keys = pd.MultiIndex.from_product([self.datasets, self.shifts], names=["dataset", "shift"])
        columns = {name: getattr(self, name).ravel() for name in ("variance_ood", "ratio", "ci_low", "ci_high")}
        columns["variance_id"] = np.repeat(self.variance_id, len(self.shifts))
        frame = pd.DataFrame(columns, index=keys).reset_index()
        for name in ("n", "n_excluded"):
            frame[name] = frame["dataset"].map(dict(zip(self.datasets, getattr(self, name)))).astype(int)
        return frame.assign(level=self.level)

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
    check_count("n_resamples", n_resamples)
    reference = parse_shift(reference)
    shifts = parse_shifts(shifts, reference=reference)
    rows, excluded, warnings = [], [], []
    for name in grid.datasets:
        cells = grid.cells(name, [reference, *shifts])
        excluded.append(cells.n_excluded)
        rows.append(_ratios(cells.slopes, cells.question, level))
        if rows[-1][-1] < 2 or not np.isfinite(rows[-1][2]).all():
            warnings.append(f"{name}: no spread over inputs in distribution, or a single question: no ratio")
    own, other, ratio, low, high, n = (np.array(column) for column in zip(*rows))
    rho = np.array([correlation_of(own, other[:, k]) for k in range(len(shifts))])
    limits = np.full((4, len(shifts)), np.nan)
    usable = np.isfinite(own).all() and np.isfinite(other).all()
    if len(own) >= MIN_FOR_INTERVAL and usable:
        for k in range(len(shifts)):
            draws = bootstrap_correlation(own, other[:, k], rng=rng, n_resamples=n_resamples)
            limits[:2, k] = np.clip(np.ravel(quantile_pair(draws[:, None], level)), -1, 1)
            limits[2:, k] = bonett_wright(rho[k], len(own), level)
    else:
        count = f"{len(own)} dataset{'s' * (len(own) > 1)}"
        warnings.append(f"{count}: no interval for the correlation (eight with known variances are needed)")
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
        "t interval of the log ratio by linearisation over questions; Spearman over datasets",
        assumptions=("the questions are a sample of those the dataset stands for", VECTOR_ERROR_OUT),
        warnings=tuple(warnings),
    )


def _ratios(slopes: np.ndarray, question: np.ndarray | None, level: float) -> tuple:
    """Variances, their ratios to the first cell's, and limits; a ratio of sums of squared deviations over questions."""
    squares = np.square(slopes - slopes.mean(axis=1, keepdims=True))
    sums, sizes = collapse(squares, question)
    variance = squares.sum(axis=1) / (slopes.shape[1] - 1) if slopes.shape[1] > 1 else np.full(len(slopes), np.nan)
    if len(sizes) < 2 or not sums[0].sum() > 0:
        nothing = np.full(len(slopes) - 1, np.nan)
        return variance[0], variance[1:], nothing, nothing, nothing, len(sizes)
    found = SumRatio(sums[1:], sums[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        margin = stats.t.ppf((1 + level) / 2, len(sizes) - 1) * found.se / found.estimate
    low, high = found.estimate * np.exp(-margin), found.estimate * np.exp(margin)
    return variance[0], variance[1:], found.estimate, low, high, len(sizes)
