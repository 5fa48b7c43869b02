"""Spearman correlations: on the data, inside every resample, and their analytic interval.

Source of the analytic interval: Bonett & Wright (2000, doi:10.1007/BF02294183).
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from steerstats.errors import InputError, check_level
from steerstats.resampling.counts import iter_counts, refuse_unlabelled
from steerstats.rounding import floats, varies

MIN_FOR_INTERVAL = 8
TWO_DATASETS = "two datasets rank alike or in reverse, whatever is so"
ONE_DATASET = "one dataset has no ranking, and a correlation over datasets takes several"
PERFECT = (
    "the ranking is perfect, so that every resample repeats it: its interval has no width, and says nothing about "
    "other datasets; none is given"
)


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman correlation along the last axis, midranks for ties.

    Parameters
    ----------
    x, y : array of shape (..., n)

    Returns
    -------
    ndarray of shape (...,)
        NaN where either side is constant or has fewer than two values.

    Examples
    --------
    >>> from steerstats.resampling import spearman
    >>> spearman([1, 2, 3, 4], [1, 2, 2, 5]).round(3)  # ties share their middle rank
    np.float64(0.949)
    """
    rank_x, rank_y = (stats.rankdata(floats(v), axis=-1) for v in (x, y))
    return correlation(rank_x, rank_y, np.ones_like(rank_x))


def weighted_midranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Midranks that each observation has in a sample that holds it `counts` times.

    Parameters
    ----------
    values : array of shape (n,)
    counts : array of shape (n_resamples, n)

    Returns
    -------
    ndarray of shape (n_resamples, n)
        Ranks from 1; where a count is 0 the rank the observation would share, which carries no weight.

    Examples
    --------
    >>> import numpy as np
    >>> from steerstats.resampling import weighted_midranks
    >>> weighted_midranks(np.array([3.0, 1.0, 2.0]), np.array([[1, 1, 1], [0, 2, 1]]))  # the second drew 1.0 twice
    array([[3. , 1. , 2. ],
           [3.5, 1.5, 3. ]])
    """
    _, level = np.unique(values, return_inverse=True)
    order = np.argsort(level, kind="stable")
    starts = np.flatnonzero(np.diff(level[order], prepend=-1))
    tied = np.add.reduceat(np.asarray(counts)[:, order], starts, axis=1)
    ranks = np.cumsum(tied, axis=1) - (tied - 1) / 2
    return ranks[:, level]


def correlation_of(x: np.ndarray, y: np.ndarray, *, kind: str = "spearman") -> float:
    """Spearman or Pearson correlation of two vectors, NaN where one is constant (but for rounding) or not finite.

    Parameters
    ----------
    x, y : array of shape (n,)
    kind : {"spearman", "pearson"}

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.resampling import correlation_of
    >>> slopes = steerstats.open_cache(steerstats.demo_cache()).slopes("likes-rain")
    >>> round(correlation_of(slopes.at("base->base"), slopes.at("base->user_neg"), kind="pearson"), 2)
    0.87
    """
    x, y = floats(x), floats(y)
    if not (np.isfinite(x).all() and np.isfinite(y).all() and varies(x) and varies(y)):
        return float("nan")
    if kind == "spearman":
        return float(spearman(x, y))
    x, y = (_standardised(v) for v in paired(x, y))
    return float(correlation(x, y, np.ones_like(x)))


def bootstrap_correlation(
    x: np.ndarray,
    y: np.ndarray,
    *,
    rng: np.random.Generator,
    n_resamples: int = 10_000,
    cluster: np.ndarray | None = None,
    kind: str = "spearman",
) -> np.ndarray:
    """Correlation in bootstrap resamples of the observations, or of whole clusters of them.

    Parameters
    ----------
    x, y : array of shape (n,)
        Finite.
    rng : numpy.random.Generator
    n_resamples : int
    cluster : array of shape (n,), optional
        Label of each observation's cluster (the dataset of a (train, eval) pair); clusters are drawn whole.
    kind : {"spearman", "pearson"}

    Returns
    -------
    ndarray of shape (n_resamples,)
        NaN where a resample is constant on either side; `quantile_pair` lets those widen the interval.

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats.resampling import bootstrap_correlation, quantile_pair
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> shifts = "base->base", "sys_neg->user_pos"
    >>> x, y = ([study.slopes(name).at(shift).mean() for name in study.datasets] for shift in shifts)
    >>> draws = bootstrap_correlation(x, y, rng=np.random.default_rng(0), n_resamples=2000)
    >>> [round(limit, 2) for limit in quantile_pair(draws, 0.95)]  # another fourteen datasets
    [0.29, 0.86]
    """
    x, y = paired(x, y)
    if kind not in ("spearman", "pearson"):
        raise InputError(f"kind {kind!r} is unknown; 'spearman' or 'pearson'")
    codes = np.arange(len(x))
    if cluster is not None:
        refuse_unlabelled(cluster, "cluster")
        codes = np.unique(np.asarray(cluster), return_inverse=True)[1]
    if codes.shape != x.shape:
        raise InputError(f"cluster has shape {codes.shape}; one label for each of the {len(x)} observations is needed")
    scaled = [_standardised(v) for v in (x, y)]
    out = []
    for drawn in iter_counts(codes.max() + 1, n_resamples, rng):
        counts = drawn[:, codes]
        sides = scaled if kind == "pearson" else [weighted_midranks(v, counts) for v in (x, y)]
        out.append(correlation(*sides, counts))
    return np.concatenate(out)


def bonett_wright(rho: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Analytic interval of a Spearman correlation, tanh(atanh ρ ± z √((1 + ρ²/2) / (n − 3))).

    Parameters
    ----------
    rho : float
    n : int
        Pairs behind it; at least four.
    level : float

    Returns
    -------
    low, high : float
        NaN with fewer than four pairs, or with |ρ| = 1, where the formula has no width.

    Examples
    --------
    >>> from steerstats.resampling import bonett_wright
    >>> [round(limit, 2) for limit in bonett_wright(0.891, 40)]  # the paper's ID-OOD correlation for Llama-2-7b-chat
    [0.78, 0.95]
    """
    check_level(level)
    if n < 4 or not abs(rho) < 1:
        return float("nan"), float("nan")
    margin = stats.norm.ppf((1 + level) / 2) * np.sqrt((1 + rho**2 / 2) / (n - 3))
    return float(np.tanh(np.arctanh(rho) - margin)), float(np.tanh(np.arctanh(rho) + margin))


def paired(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as finite float vectors of one length, or an InputError."""
    x, y = floats(x), floats(y)
    if x.ndim != 1 or x.shape != y.shape or len(x) == 0:
        raise InputError(f"x {x.shape} and y {y.shape} must be vectors of one length, not empty")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("x or y holds NaN or infinite values; drop those pairs first")
    return x, y


def correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted product-moment correlation along the last axis, NaN where a side is constant.

    Parameters
    ----------
    x, y : array of shape (..., n)
        Ranks, or values of unit variance: a sum of squares under 1e-9 counts as constant.
    weights : array of shape (..., n)
    """
    total = weights.sum(axis=-1, keepdims=True)
    x = x - (weights * x).sum(axis=-1, keepdims=True) / total
    y = y - (weights * y).sum(axis=-1, keepdims=True) / total
    wx = weights * x
    xx, yy, xy = (wx * x).sum(axis=-1), (weights * y * y).sum(axis=-1), (wx * y).sum(axis=-1)
    constant = (xx < 1e-9) | (yy < 1e-9)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(constant, np.nan, np.clip(xy / np.sqrt(xx * yy), -1, 1))


def _standardised(v: np.ndarray) -> np.ndarray:
    return (v - v.mean()) / v.std() if varies(v) else np.zeros_like(v)


def is_perfect(rho: float) -> bool:
    """Whether a rank correlation is ±1, where resamples of datasets have nothing to say.

    With eight datasets and a true correlation near 1 many studies rank perfectly.

    Examples
    --------
    >>> from steerstats.resampling.ranks import is_perfect
    >>> is_perfect(-1.0), is_perfect(0.99)
    (True, False)
    """
    return bool(abs(rho) > 1 - 1e-12)
