"""Confidence intervals by name, from a statistic and its replicates.

Sources: Efron & Tibshirani (1993, doi:10.1201/9780429246593) for percentile, basic, studentised and BCa;
Fieller (1954, doi:10.1111/j.2517-6161.1954.tb00159.x) for ratios.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from steerstats.errors import InputError, check_level
from steerstats.resampling.statistics import Replicates
from steerstats.rounding import floats

METHODS = ("studentised", "percentile", "basic", "bca", "t", "normal")


def interval(replicates: Replicates, method: str = "studentised", level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided interval of every cell.

    Parameters
    ----------
    replicates : Replicates
    method : {"studentised", "percentile", "basic", "bca", "t", "normal"}
        "t" and "normal" use the linearised standard error only, so for a ratio they are the delta method.
    level : float
        Nominal coverage.

    Returns
    -------
    low, high : ndarray of shape (cells,)
        NaN with one unit. A studentised limit is infinite where too many resamples have no variance. Where the
        data themselves have no variance both limits equal the estimate.

    Raises
    ------
    InputError
        If the method has no such name, or the level is not inside (0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats.resampling import bootstrap_mean, interval
    >>> slopes = steerstats.open_cache(steerstats.demo_cache()).slopes("likes-rain").at("base->base")
    >>> found = bootstrap_mean(slopes, rng=np.random.default_rng(0), n_resamples=2000)
    >>> {name: np.ravel(interval(found, name)).round(3).tolist() for name in ("studentised", "percentile", "t")}
    {'studentised': [0.108, 0.15], 'percentile': [0.108, 0.149], 't': [0.108, 0.149]}
    """
    check_level(level)
    if method not in METHODS:
        raise InputError(f"interval method {method!r} is unknown; one of {', '.join(METHODS)}")
    r = replicates
    if r.n_units < 2:
        empty = np.full(r.estimate.shape, np.nan)
        return empty, empty.copy()
    if method == "t":
        return t_interval(r.estimate, r.se, r.n_units - 1, level)
    if method == "normal":
        return t_interval(r.estimate, r.se, np.inf, level)
    if method == "studentised":
        low, high = quantile_pair(r.t(), level)
        with np.errstate(invalid="ignore"):
            limits = r.estimate - r.se * high, r.estimate - r.se * low
        return tuple(np.where(r.se == 0, r.estimate, limit) for limit in limits)
    if method == "percentile":
        return quantile_pair(r.replicates, level)
    if method == "basic":
        low, high = quantile_pair(r.replicates, level)
        return 2 * r.estimate - high, 2 * r.estimate - low
    return _bca(r, level)


def t_interval(estimate: np.ndarray, se: np.ndarray, df: float, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """estimate ± t(df) · se; infinite `df` gives the normal interval.

    Examples
    --------
    >>> from steerstats.resampling import t_interval
    >>> [round(float(limit), 2) for limit in t_interval(1.0, 0.1, df=9)]
    [0.77, 1.23]
    """
    check_level(level)
    margin = stats.t.ppf((1 + level) / 2, df) * np.asarray(se)
    return estimate - margin, estimate + margin


@dataclass(frozen=True)
class Fieller:
    """Fieller's confidence set for a ratio.

    Parameters
    ----------
    low, high : ndarray
        Ends of the set: infinite unless `shape` is "bounded".
    excluded_low, excluded_high : ndarray
        For "two rays" the open interval between the rays, the only values the data reject; NaN otherwise.
    shape : ndarray of str
        "bounded"; "two rays", where the denominator is not distinguishable from zero but some ratios are still
        rejected; "whole line", where none is; "undefined" without a variance.
    """

    low: np.ndarray
    high: np.ndarray
    excluded_low: np.ndarray
    excluded_high: np.ndarray
    shape: np.ndarray


def fieller(
    numerator: np.ndarray,
    denominator: np.ndarray,
    var_numerator: np.ndarray,
    var_denominator: np.ndarray,
    covariance: np.ndarray,
    df: np.ndarray,
    level: float = 0.95,
) -> Fieller:
    """All ratios R for which numerator − R · denominator does not differ from zero at 1 − level.

    Parameters
    ----------
    numerator, denominator : array
        Means.
    var_numerator, var_denominator, covariance : array
        Of those means.
    df : array
        Degrees of freedom of the variances, n − 1 for independent inputs; without any there is no set.
    level : float

    Returns
    -------
    Fieller
        Fields broadcast over the arguments.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.resampling import fieller, mean_covariance
    >>> slopes = steerstats.open_cache(steerstats.demo_cache()).slopes("plans-ahead")
    >>> (y, x), c, n = mean_covariance([slopes.at("base->user_neg"), slopes.at("user_neg->user_neg")])
    >>> found = fieller(y, x, c[0, 0], c[1, 1], c[0, 1], n - 1, level=0.99)
    >>> str(found.shape), round(float(found.low), 2), round(float(found.high), 2)  # a denominator near zero
    ('bounded', 2.2, 25.3)
    """
    check_level(level)
    args = [floats(a) for a in (numerator, denominator, var_numerator, var_denominator, covariance)]
    y, x, vy, vx, c = np.broadcast_arrays(*args)
    t2 = stats.t.ppf((1 + level) / 2, df) ** 2  # NaN without a degree of freedom
    # a R² − 2 b R + k ≤ 0
    a, b, k = x**2 - t2 * vx, x * y - t2 * c, y**2 - t2 * vy
    discriminant = b**2 - a * k
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(np.maximum(discriminant, 0.0))
        # The stable pair of roots: one by division, the other from their product k / a.
        far = b + np.where(b < 0, -root, root)
        roots = np.stack([far / a, np.where(far == 0, 0.0, k / far)])
    first, second = roots.min(axis=0), roots.max(axis=0)
    bounded, rays = a > 0, (a <= 0) & (discriminant > 0)
    whole = (a <= 0) & (discriminant <= 0)
    shape = np.select([bounded, rays, whole], ["bounded", "two rays", "whole line"], "undefined")
    unbounded = np.where(shape == "undefined", np.nan, np.inf)
    return Fieller(
        low=np.where(bounded, first, -unbounded),
        high=np.where(bounded, second, unbounded),
        excluded_low=np.where(rays, first, np.nan),
        excluded_high=np.where(rays, second, np.nan),
        shape=shape,
    )


def quantile_pair(values: np.ndarray, level: float) -> tuple[np.ndarray | float, np.ndarray | float]:
    """The two tail quantiles of each column, never narrowed by what could not be computed.

    Parameters
    ----------
    values : array of shape (n_resamples, cells) or (n_resamples,)
        NaN (an undefined resample) counts as −inf for the lower and +inf for the upper quantile.
    level : float
        Mass between the two.

    Returns
    -------
    low, high : ndarray of shape (cells,), or float
        Linearly interpolated order statistics, as `numpy.quantile` has them on finite values.

    Examples
    --------
    >>> import numpy as np
    >>> from steerstats.resampling import quantile_pair
    >>> draws = np.append(np.linspace(0, 1, 101), np.nan)  # one resample was undefined
    >>> [round(limit, 3) for limit in quantile_pair(draws, 0.9)]
    [0.04, 0.959]
    """
    check_level(level)
    if values.ndim == 1:
        low, high = quantile_pair(values[:, None], level)
        return float(low[0]), float(high[0])
    tail = np.full(values.shape[1], (1 - level) / 2)
    rows = np.sort(values.T, axis=1)
    undefined = np.isnan(rows).sum(axis=1)
    if not undefined.any():
        return sorted_quantile(rows, tail), sorted_quantile(rows, 1 - tail)
    upper = np.where(np.isnan(rows), np.inf, rows)
    lower = np.sort(np.where(np.isnan(rows), -np.inf, rows), axis=1)
    return sorted_quantile(lower, tail), sorted_quantile(upper, 1 - tail)


def sorted_quantile(rows: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Quantile of each sorted row at its own probability, with infinities kept infinite.

    Parameters
    ----------
    rows : array of shape (cells, n_resamples)
        Sorted along the last axis, no NaN.
    probability : array of shape (cells,)
        NaN gives NaN.

    Returns
    -------
    ndarray of shape (cells,)
    """
    last = rows.shape[1] - 1
    place = np.clip(np.nan_to_num(probability), 0, 1) * last
    floor = np.floor(place).astype(int)
    pick = np.arange(len(rows))
    below, above = rows[pick, floor], rows[pick, np.minimum(floor + 1, last)]
    share = place - floor
    with np.errstate(invalid="ignore"):
        between = np.where(share < 0.5, below + (above - below) * share, above - (above - below) * (1 - share))
    # inf − inf is NaN: where two neighbours are equal, or the place is exact, nothing is interpolated.
    value = np.where((below == above) | (share == 0), below, between)
    # What lies between a number and an infinity is infinite, also where inf − inf would make it NaN.
    value = np.where(np.isposinf(above) & (share > 0), np.inf, value)
    value = np.where(np.isneginf(below) & (share > 0), -np.inf, value)
    return np.where(np.isnan(probability), np.nan, value)


def _bca(r: Replicates, level: float) -> tuple[np.ndarray, np.ndarray]:
    rows = np.sort(r.replicates.T, axis=1)
    if np.isnan(rows).any():
        empty = np.full(r.estimate.shape, np.nan)
        return empty, empty.copy()
    # Ties with the estimate count half, or a discrete statistic would bias z0; sums tie up to rounding only.
    slack = 1e-12 * (np.abs(r.estimate) + r.se)
    below = np.array([np.searchsorted(row, value, "left") for row, value in zip(rows, r.estimate - slack)])
    upto = np.array([np.searchsorted(row, value, "right") for row, value in zip(rows, r.estimate + slack)])
    z0 = special.ndtri((below + upto) / (2 * rows.shape[1]))
    limits = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = z0 + special.ndtri(tail)
        with np.errstate(invalid="ignore", divide="ignore"):
            limits.append(sorted_quantile(rows, special.ndtr(z0 + z / (1 - r.acceleration * z))))
    return tuple(np.where(r.se == 0, r.estimate, limit) for limit in limits)
