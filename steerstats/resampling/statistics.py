"""Means, gaps and ratios of sums over resamples, each with its standard error inside every resample.

All of them are one statistic: a ratio of two sums over units. With the unit sizes below the line it is a mean
(of inputs, clustered by question); with another setting's slopes below the line it is a relative
steerability. Its standard error is the linearised one, which for a mean of independent inputs is the usual
sd / sqrt(n), and so everything that a studentised interval needs is again a sum over units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steerstats.errors import InputError, check_count
from steerstats.resampling.counts import collapse, iter_counts
from steerstats.rounding import STORED, floats

# Below this share of the resampled squares a variance is the rounding error of a constant resample.
CONSTANT_RESAMPLE = 1e-13
EXACT = 1e-14  # share of the raw values below which residuals of numbers that were never stored are rounding


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """A statistic of several cells, and what it was in every resample.

    Parameters
    ----------
    estimate, se : ndarray of shape (cells,)
        On the data. `se` is NaN with one unit.
    replicates, se_replicates : ndarray of shape (n_resamples, cells)
        On each resample. A standard error is exactly 0 where the resample has no variance.
    acceleration : ndarray of shape (cells,)
        Jackknife acceleration for BCa intervals; NaN where the jackknife has no variance.
    n_units : int
        Units that were resampled.
    resolution : float
        That of `SumRatio`.
    """

    estimate: np.ndarray
    se: np.ndarray
    replicates: np.ndarray
    se_replicates: np.ndarray
    acceleration: np.ndarray
    n_units: int
    resolution: float = EXACT

    def t(self) -> np.ndarray:
        """Studentised deviations, (n_resamples, cells): infinite where only the standard error is 0."""
        deviation = self.replicates - self.estimate
        scale = np.abs(self.replicates) + np.abs(self.estimate)
        deviation[np.abs(deviation) <= EXACT * scale] = 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            t = deviation / self.se_replicates
        t[(np.abs(deviation) <= self.resolution * scale) & (self.se_replicates == 0)] = 0.0
        return t

    def t_with(self, cells: np.ndarray | int, deviation: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Studentised deviations of some cells whose resamples add an independent deviation of known variance."""
        deviation = self.replicates[:, cells] - self.estimate[cells] + deviation
        with np.errstate(divide="ignore", invalid="ignore"):
            t = deviation / np.sqrt(self.se_replicates[:, cells] ** 2 + variance)
        return np.where(deviation == 0, 0.0, t)


class SumRatio:
    """Ratios of sums over units, sum(numerator) / sum(denominator), for many cells at once.

    Parameters
    ----------
    numerator : array of shape (cells, n_units)
    denominator : array of shape (n_units,) or (cells, n_units)
        Unit sizes for means.
    resolution : float
        Share of the numerators' size below which their residuals are rounding errors and no spread:
        `steerstats.rounding.STORED` for what is computed from a cache, where resamples of equal gaps would else have
        a t of millions in place of an infinite one.
    size : float, optional
        Of the numbers whose differences the numerators sum, which sets their rounding; by default the numerators' own.
    """

    def __init__(
        self, numerator: np.ndarray, denominator: np.ndarray, *, resolution: float = EXACT, size: float | None = None
    ) -> None:
        numerator = np.atleast_2d(floats(numerator))
        denominator = np.atleast_2d(floats(denominator))
        if numerator.shape[1] != denominator.shape[1] or len(denominator) not in (1, len(numerator)):
            raise InputError(
                f"numerator {numerator.shape} and denominator {denominator.shape} do not pair: "
                "same units, and one denominator or one for each cell"
            )
        self.n_cells, self.n_units = numerator.shape
        self.total = denominator.sum(axis=1)
        above = numerator.sum(axis=1)
        total = np.broadcast_to(self.total, above.shape)
        self.estimate = np.divide(above, total, out=np.full(above.shape, np.nan), where=total != 0)
        # Residuals keep the sums below free of cancellation: replicates are estimate + small deviation.
        residual = numerator - self.estimate[:, None] * denominator
        self.resolution = resolution
        self._floor = resolution**2 * np.square(numerator if size is None else size * denominator).sum(axis=1)
        residual[np.square(residual).sum(axis=1) <= self._floor] = 0.0
        self.se = _standard_error(np.square(residual).sum(axis=1), self._floor, self.total, self.n_units)
        self.acceleration = _acceleration(residual, denominator, self.total)
        self.plain = bool(np.all(denominator == 1.0))
        if self.plain:
            self.columns = np.concatenate([residual, np.square(residual)]).T
        else:
            parts = [residual, np.square(residual), residual * denominator, denominator, np.square(denominator)]
            self.columns = np.concatenate(parts).T

    def from_sums(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Statistic and standard error from the resampled sums of `columns`, each (chunk, cells)."""
        k = self.n_cells
        first, second = sums[:, :k], sums[:, k : 2 * k]
        if self.plain:
            shift = first / self.n_units
            squares = second - self.n_units * np.square(shift)
            total = float(self.n_units)
        else:
            d = 1 if sums.shape[1] == 3 * k + 2 else k
            cross = sums[:, 2 * k : 3 * k]
            total = sums[:, 3 * k : 3 * k + d]
            with np.errstate(divide="ignore", invalid="ignore"):
                shift = first / total
                squares = second - 2 * shift * cross + np.square(shift) * sums[:, 3 * k + d :]
        se = _standard_error(squares, CONSTANT_RESAMPLE * second + self._floor, total, self.n_units)
        return self.estimate + shift, se


def resample(statistics: Sequence[SumRatio], *, rng: np.random.Generator, n_resamples: int) -> list[Replicates]:
    """Bootstrap several statistics of the same units on the same resamples.

    Parameters
    ----------
    statistics : sequence of SumRatio
        All over the same units.
    rng, n_resamples
        As in `iter_counts`.

    Returns
    -------
    list of Replicates
        In the order of `statistics`, and paired: row b of each is the same resample.

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats.resampling import SumRatio, resample
    >>> slopes = steerstats.open_cache(steerstats.demo_cache()).slopes("likes-rain")
    >>> away, home = slopes.at("base->user_pos"), slopes.at("user_pos->user_pos")
    >>> statistics = [SumRatio(away, np.ones(len(away))), SumRatio(away, home)]  # a mean and a ratio
    >>> mean, ratio = resample(statistics, rng=np.random.default_rng(0), n_resamples=500)
    >>> mean.replicates.shape, round(float(ratio.estimate[0]), 3)
    ((500, 1), 1.009)
    """
    n_resamples = check_count("n_resamples", n_resamples)
    if not statistics:
        raise InputError("statistics is empty; at least one SumRatio is needed")
    n_units = statistics[0].n_units
    if any(statistic.n_units != n_units for statistic in statistics):
        raise InputError(f"statistics of one resampling must share their units, not {[s.n_units for s in statistics]}")
    columns = np.concatenate([statistic.columns for statistic in statistics], axis=1)
    edges = np.cumsum([0] + [statistic.columns.shape[1] for statistic in statistics])
    values = [np.empty((n_resamples, statistic.n_cells)) for statistic in statistics]
    errors = [np.empty((n_resamples, statistic.n_cells)) for statistic in statistics]
    start = 0
    for counts in iter_counts(n_units, n_resamples, rng):
        sums = counts @ columns
        rows = slice(start, start + len(counts))
        for k, statistic in enumerate(statistics):
            values[k][rows], errors[k][rows] = statistic.from_sums(sums[:, edges[k] : edges[k + 1]])
        start += len(counts)
    return [
        Replicates(
            estimate=statistic.estimate,
            se=statistic.se,
            replicates=value,
            se_replicates=error,
            acceleration=statistic.acceleration,
            n_units=n_units,
            resolution=statistic.resolution,
        )
        for statistic, value, error in zip(statistics, values, errors)
    ]


def bootstrap_mean(
    values: np.ndarray,
    *,
    rng: np.random.Generator,
    n_resamples: int = 10_000,
    unit: np.ndarray | None = None,
) -> Replicates:
    """Bootstrap the means of several paired cells, clustered by unit.

    Parameters
    ----------
    values : array of shape (cells, n_inputs) or (n_inputs,)
        Finite; inputs are shared by all cells.
    rng : numpy.random.Generator
    n_resamples : int
    unit : array of shape (n_inputs,), optional
        Label of each input's unit (its question).

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats.resampling import bootstrap_mean
    >>> slopes = steerstats.open_cache(steerstats.demo_cache()).slopes("likes-rain")
    >>> found = bootstrap_mean(slopes.at("base->base"), rng=np.random.default_rng(0), unit=slopes.question)
    >>> round(float(found.estimate[0]), 3), round(float(found.se[0]), 4), found.n_units
    (0.128, 0.0104, 60)
    """
    sums, sizes = collapse(np.atleast_2d(values), unit)
    return resample([SumRatio(sums, sizes)], rng=rng, n_resamples=n_resamples)[0]


def bootstrap_ratio(
    numerator: np.ndarray,
    denominator: np.ndarray,
    *,
    rng: np.random.Generator,
    n_resamples: int = 10_000,
    unit: np.ndarray | None = None,
) -> Replicates:
    """Bootstrap ratios of means, mean(numerator) / mean(denominator), on shared inputs.

    Parameters
    ----------
    numerator : array of shape (cells, n_inputs) or (n_inputs,)
    denominator : array of shape (n_inputs,) or (cells, n_inputs)
    rng, n_resamples, unit
        As in `bootstrap_mean`.

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats.resampling import bootstrap_ratio, interval
    >>> slopes = steerstats.open_cache(steerstats.demo_cache()).slopes("likes-rain")
    >>> sides = slopes.at("base->user_neg"), slopes.at("user_neg->user_neg")
    >>> found = bootstrap_ratio(*sides, rng=np.random.default_rng(0), n_resamples=2000)
    >>> np.ravel(interval(found, "bca")).round(2).tolist()
    [-1.12, -0.31]
    """
    above, _ = collapse(np.atleast_2d(numerator), unit)
    below, _ = collapse(np.atleast_2d(denominator), unit)
    return resample([SumRatio(above, below)], rng=rng, n_resamples=n_resamples)[0]


def mean_covariance(values: np.ndarray, unit: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, int]:
    """Means of several cells, and the covariance matrix of those means, clustered by unit.

    Parameters
    ----------
    values : array of shape (cells, n_inputs)
    unit : array of shape (n_inputs,), optional

    Returns
    -------
    mean : ndarray of shape (cells,)
    covariance : ndarray of shape (cells, cells)
        Of the means; ddof = 1 over units, NaN with a single unit, exactly 0 where all units have the same mean.
    n_units : int

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.resampling import mean_covariance
    >>> slopes = steerstats.open_cache(steerstats.demo_cache()).slopes("likes-rain")
    >>> cells = [slopes.at("base->base"), slopes.at("base->user_neg")]
    >>> mean, covariance, n = mean_covariance(cells, slopes.question)
    >>> mean.round(3).tolist(), (1e4 * covariance).round(2).tolist(), n
    ([0.128, 0.039], [[1.08, 0.98], [0.98, 1.17]], 60)
    """
    values = np.atleast_2d(floats(values))
    sums, sizes = collapse(values, unit)
    n_units = len(sizes)
    mean = sums.sum(axis=1) / sizes.sum()
    residual = sums - mean[:, None] * sizes
    residual[np.abs(residual / sizes).max(axis=1) <= STORED * np.abs(values).max(axis=1)] = 0.0
    if n_units < 2:
        return mean, np.full((len(mean), len(mean)), np.nan), n_units
    return mean, residual @ residual.T * (n_units / (n_units - 1)) / sizes.sum() ** 2, n_units


def _standard_error(squares: np.ndarray, floor: np.ndarray, total: np.ndarray | float, n_units: int) -> np.ndarray:
    if n_units < 2:
        return np.full(np.shape(squares), np.nan)
    squares = np.where(squares <= floor, 0.0, squares)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(squares * (n_units / (n_units - 1))) / np.abs(total)


def _acceleration(residual: np.ndarray, denominator: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Efron's acceleration from the exact leave-one-unit-out values, skewness / 6 of their deviations."""
    n_units = residual.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        left_out = -residual / (total[:, None] - denominator)
        u = (n_units - 1) * (left_out.mean(axis=1, keepdims=True) - left_out)
        return (u**3).sum(axis=1) / (6 * np.square(u).sum(axis=1) ** 1.5)
