"""Spearman correlation without measurement noise, under near-normal margins.

The observed rank correlation is turned into the normal correlation it implies, ρ = 2 sin(π ρ_s / 6); the known
error variances, and the error covariance of means over the same inputs, are taken out; and the result is turned
back. Skewed means are transformed first (see `margins`); reliabilities are those of the means themselves.
Both conversions: Pearson (1907); see Kruskal (1958, doi:10.1080/01621459.1958.10501481).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steerstats.errors import InputError, check_level, check_resamples
from steerstats.generalization.margins import near_normal
from steerstats.resampling import iter_counts, quantile_pair
from steerstats.resampling.ranks import correlation, weighted_midranks
from steerstats.rounding import floats

CLIPPED = "of resamples are clipped at 1 or undefined in the noise correction"


@dataclass(frozen=True)
class Corrected:
    """Noise-corrected Spearman correlation, with its percentile interval over datasets.

    Parameters
    ----------
    estimate, ci_low, ci_high : float
        Clipped to [-1, 1]; NaN where noise leaves no variance between datasets.
    reliability_x, reliability_y : float
        Share of the observed variance of the means, as they are, that is not noise.
    share_clipped : float
        Share of resamples whose corrected correlation left [-1, 1] or had no variance to correct.
    warnings : tuple of str
    """

    estimate: float
    ci_low: float
    ci_high: float
    reliability_x: float
    reliability_y: float
    share_clipped: float
    warnings: tuple[str, ...]


def corrected_spearman(
    x: np.ndarray,
    y: np.ndarray,
    var_x: np.ndarray,
    var_y: np.ndarray,
    covariance: np.ndarray,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    n_resamples: int = 10_000,
) -> Corrected:
    """Disattenuate a Spearman correlation inside each resample of datasets.

    Parameters
    ----------
    x, y : array of shape (n_datasets,)
        Observed means.
    var_x, var_y, covariance : array of shape (n_datasets,)
        Squared standard errors of those means, and the covariance of their errors (not zero where the same
        inputs, or the same vector, are behind both).
    rng : numpy.random.Generator
    level : float
    n_resamples : int

    Raises
    ------
    InputError
        If the five arrays are not vectors of one length, a mean is not finite, or a variance is negative.

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats.generalization import corrected_spearman, steerability_table
    >>> table = steerability_table(steerstats.open_cache(steerstats.demo_cache()).grid())
    >>> there, here = table.evaluate.index("user_neg"), table.evaluate.index("user_pos")  # the base vector in both
    >>> noise = [table.se[:, 0, there] ** 2, table.se[:, 0, here] ** 2, 0 * table.n]  # taken as independent
    >>> found = corrected_spearman(
    ...     table.mean[:, 0, there], table.mean[:, 0, here], *noise, rng=np.random.default_rng(0), n_resamples=500
    ... )
    >>> round(found.estimate, 2), round(found.reliability_x, 2)
    (-0.37, 0.92)
    """
    check_level(level)
    check_resamples(n_resamples)
    shapes = [np.shape(v) for v in (x, y, var_x, var_y, covariance)]
    if len(shapes[0]) != 1 or len(set(shapes)) > 1:
        raise InputError(f"x, y, var_x, var_y and covariance have shapes {shapes}; vectors of one length are needed")
    x, y, var_x, var_y, covariance = (floats(v) for v in (x, y, var_x, var_y, covariance))
    if not np.isfinite([x, y]).all():
        raise InputError("x or y holds NaN or infinite values; leave those datasets out")
    if np.nanmin([0.0, *var_x, *var_y]) < 0:
        raise InputError("var_x or var_y holds a negative number; squared standard errors are needed")
    noise = np.stack([var_x, var_y, covariance], axis=1)
    if len(x) < 3 or not np.isfinite(noise).all():
        nan = float("nan")
        return Corrected(
            nan, nan, nan, nan, nan, nan, ("measurement noise is unknown or datasets are too few to correct",)
        )
    once = np.ones((1, len(x)))
    _, reliability_x, reliability_y = _correct(x, y, noise, once, 1)
    (x, y, *noise), powers = near_normal(x, y, *noise.T)
    noise = np.stack(noise, axis=1)
    raw = _correct(x, y, noise, once, 1)[0]
    draws = np.concatenate([_correct(x, y, noise, counts, 2)[0] for counts in iter_counts(len(x), n_resamples, rng)])
    outside = np.isnan(draws) | (np.abs(draws) >= 1)
    low, high = quantile_pair(np.clip(draws, -1, 1), level)
    warnings = []
    if powers != (1, 1):
        said = " and ".join(f"{power:.2g}" for power in powers if power != 1)
        warnings.append(
            f"means are skewed over datasets: noise is taken out after a Yeo-Johnson transform (power {said})"
        )
    if not abs(raw[0]) < 1:
        warnings.append("the noise-corrected correlation left [-1, 1] and is clipped, or noise explains all variance")
    if outside.mean() > 0.025:
        warnings.append(f"{outside.mean():.0%} {CLIPPED}")
    return Corrected(
        estimate=float(np.clip(raw[0], -1, 1)),
        ci_low=max(low, -1.0),
        ci_high=min(high, 1.0),
        reliability_x=float(reliability_x[0]),
        reliability_y=float(reliability_y[0]),
        share_clipped=float(outside.mean()),
        warnings=tuple(warnings),
    )


def _correct(
    x: np.ndarray, y: np.ndarray, noise: np.ndarray, counts: np.ndarray, corrections: int
) -> tuple[np.ndarray, ...]:
    """A variance is (n − 1) / n of its source's in a sample, and once more in a resample: `corrections` undoes both."""
    rank_correlation = correlation(weighted_midranks(x, counts), weighted_midranks(y, counts), counts)
    normal = 2 * np.sin(np.pi * rank_correlation / 6)
    observed_x, observed_y = (_variance(v, counts, corrections) for v in (x, y))
    error_x, error_y, shared = (counts @ noise / counts.sum(axis=1, keepdims=True)).T
    true_x, true_y = observed_x - error_x, observed_y - error_y
    with np.errstate(divide="ignore", invalid="ignore"):
        corrected = (normal * np.sqrt(observed_x * observed_y) - shared) / np.sqrt(true_x * true_y)
        corrected = np.where((true_x > 0) & (true_y > 0), corrected, np.nan)
        # Beyond 1 the arcsine ends; keep the sign and the excess, so that clipping can be counted.
        inside = 6 / np.pi * np.arcsin(np.clip(corrected, -1, 1) / 2)
        value = np.where(np.abs(corrected) > 1, corrected, inside)
        return value, true_x / observed_x, true_y / observed_y


def _variance(v: np.ndarray, counts: np.ndarray, corrections: int) -> np.ndarray:
    n = len(v)
    centred = v - v.mean()
    total = counts.sum(axis=1)
    second, first = counts @ centred**2 / total, counts @ centred / total
    return (second - first**2) * (n / (n - 1)) ** corrections
