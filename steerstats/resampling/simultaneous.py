"""Many cells at once: simultaneous bands, and p-values that keep the family-wise error.

Sources: Westfall & Young (1993) for the single step; Romano & Wolf (2005, doi:10.1198/016214504000000539) for
the step-down.
"""

from __future__ import annotations

import numpy as np

from steerstats.errors import InputError, check_level
from steerstats.resampling.intervals import sorted_quantile
from steerstats.rounding import floats


def max_t_bands(
    estimate: np.ndarray, se: np.ndarray, t: np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Bands that cover every cell at once with the given probability, from the largest |t| of each resample.

    Parameters
    ----------
    estimate, se : array of shape (cells,)
        Cells without a standard error (NaN) are outside the family; cells with a standard error of 0 get a band
        of no width.
    t : array of shape (n_resamples, cells)
        Studentised deviations (`Replicates.t`). An infinite one makes its resample's maximum infinite.
    level : float

    Returns
    -------
    low, high : ndarray of shape (cells,)
        NaN outside the family; infinite where more than 1 − level of the maxima are.

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats.resampling import bootstrap_mean, max_t_bands
    >>> slopes = steerstats.open_cache(steerstats.demo_cache()).slopes("likes-rain")
    >>> gaps = [slopes.at("base->base") - slopes.at(shift) for shift in ("base->user_neg", "base->user_pos")]
    >>> found = bootstrap_mean(gaps, rng=np.random.default_rng(0), n_resamples=2000)
    >>> [limit.round(3).tolist() for limit in max_t_bands(found.estimate, found.se, found.t())]
    [[0.077, 0.021], [0.102, 0.049]]
    """
    check_level(level)
    estimate, se, t = _family(estimate, se, t)
    use = np.flatnonzero(np.isfinite(se))
    if use.size == 0:
        return np.full(estimate.shape, np.nan), np.full(estimate.shape, np.nan)
    largest = np.zeros(len(t), dtype=t.dtype)
    for k in use:
        np.maximum(largest, _size(t, k), out=largest)
    critical = sorted_quantile(np.sort(largest)[None], np.array([level]))[0]
    with np.errstate(invalid="ignore"):
        margin = np.where(se == 0, 0.0, critical * se)
    return estimate - margin, estimate + margin


def romano_wolf(estimate: np.ndarray, se: np.ndarray, t: np.ndarray, null: float = 0.0) -> np.ndarray:
    """Step-down p-values of "this cell equals `null`", two-sided, keeping the family-wise error.

    Parameters
    ----------
    estimate, se : array of shape (cells,)
    t : array of shape (n_resamples, cells)
        As in `max_t_bands`.
    null : float

    Returns
    -------
    ndarray of shape (cells,)
        At least 1 / (n_resamples + 1); NaN where the standard error is NaN. A cell without variance that
        differs from the null has the smallest p-value, one that equals it 1.

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats.resampling import bootstrap_mean, romano_wolf
    >>> slopes = steerstats.open_cache(steerstats.demo_cache()).slopes("tells-truth")
    >>> gaps = [slopes.at("base->base") - slopes.at(shift) for shift in ("base->user_neg", "base->user_pos")]
    >>> found = bootstrap_mean(gaps, rng=np.random.default_rng(0), n_resamples=999)
    >>> romano_wolf(found.estimate, found.se, found.t()).round(3).tolist()
    [0.001, 0.522]
    """
    estimate, se, t = _family(estimate, se, t)
    p = np.full(estimate.shape, np.nan)
    use = np.flatnonzero(np.isfinite(se))
    if use.size == 0:
        return p
    difference = np.abs(estimate[use] - null)
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = np.where(difference == 0, 0.0, difference / se[use])
    order = np.argsort(observed, kind="stable")
    # From the least significant cell up, so that each step's maximum is over the cells not yet rejected.
    largest = np.zeros(len(t), dtype=t.dtype)
    stepwise = np.empty(len(use))
    for k in order:
        np.maximum(largest, _size(t, use[k]), out=largest)
        stepwise[k] = (1 + np.count_nonzero(largest >= observed[k])) / (len(t) + 1)
    if np.isinf(observed).any():
        # inf >= inf says nothing: a cell without variance is decided by its value alone.
        stepwise[np.isinf(observed)] = 1 / (len(t) + 1)
    p[use[order[::-1]]] = np.maximum.accumulate(stepwise[order[::-1]])
    return p


def _family(estimate: np.ndarray, se: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    estimate, se, t = floats(estimate), floats(se), np.asarray(t)
    if estimate.shape != se.shape or t.ndim != 2 or t.shape[1:] != estimate.shape:
        raise InputError(
            f"estimate {estimate.shape}, se {se.shape} and t {t.shape} do not fit: t is (resamples, cells)"
        )
    return estimate, se, t


def _size(t: np.ndarray, cell: int) -> np.ndarray:
    """|t| of one cell, column by column to spare memory; an undefined t is evidence of nothing and counts as inf."""
    size = np.abs(t[:, cell])
    size[np.isnan(size)] = np.inf
    return size
