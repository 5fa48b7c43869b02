"""Skewed means of datasets brought near a normal law, where noise can be taken out of a rank correlation.

A rank correlation does not see a monotone transform of either side; the normal models behind the noise-corrected
coefficient and behind the draws of true means do. Under lognormal true means (log SD 1) intervals on the means
themselves are too short; on transformed ones, with 40 datasets and reliabilities of .9 and .98, those for these
datasets covered 99% and 97% in simulation, and noise-corrected ones 93% and 95%.

Source of the transform: Yeo & Johnson (2000, doi:10.1093/biomet/87.4.954).
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from steerstats.rounding import floats

MIN_DATASETS = 8
LIKELIHOOD_RATIO = float(stats.chi2.ppf(0.95, 1))  # means that a normal law fits are left as they are
POWERS = (-3.0, 5.0)
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(15)


def near_normal(
    x: np.ndarray, y: np.ndarray, var_x: np.ndarray, var_y: np.ndarray, covariance: np.ndarray
) -> tuple[tuple[np.ndarray, ...], tuple[float, float]]:
    """Both sides' means, Yeo–Johnson transformed where a normal law does not fit them, with the noise they then have.

    Parameters
    ----------
    x, y, var_x, var_y, covariance : array of shape (n_datasets,)
        Observed means, the variances of their errors, and the errors' covariance; finite.

    Returns
    -------
    tuple of five ndarrays of shape (n_datasets,)
        The same of the transformed means. An error's variance is that of the transform of the mean plus the error;
        its correlation with the other side's is kept.
    powers : tuple of float
        Of both transforms; 1 where nothing was done.

    Examples
    --------
    >>> import numpy as np
    >>> from steerstats.generalization.margins import near_normal
    >>> skewed = np.exp(np.linspace(-2, 2, 20))
    >>> noise = np.full(20, 0.04), np.full(20, 0.04), np.zeros(20)
    >>> (x, y, *_), powers = near_normal(skewed, np.linspace(-2, 2, 20), *noise)
    >>> [round(power, 1) for power in powers], bool((np.diff(x) > 0).all())  # y is left alone, and ranks are kept
    ([-0.7, 1.0], True)
    """
    x, y, var_x, var_y, covariance = (floats(v) for v in (x, y, var_x, var_y, covariance))
    scale = np.sqrt(var_x * var_y)
    correlation = np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)
    (new_x, new_var_x, power_x), (new_y, new_var_y, power_y) = (
        _transformed(*side) for side in ((x, var_x), (y, var_y))
    )
    if power_x == power_y == 1:
        return (x, y, var_x, var_y, covariance), (1.0, 1.0)
    new = (new_x, new_y, new_var_x, new_var_y, correlation * np.sqrt(new_var_x * new_var_y))
    return new, (power_x, power_y)


def _transformed(values: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    spread = values.std()
    if len(values) < MIN_DATASETS or not spread > 1e-12 * np.abs(values).max():
        return values, variance, 1.0
    z, sd = (values - np.median(values)) / spread, np.sqrt(variance) / spread
    power = float(np.clip(stats.yeojohnson_normmax(z), *POWERS))
    if 2 * (stats.yeojohnson_llf(power, z) - stats.yeojohnson_llf(1.0, z)) < LIKELIHOOD_RATIO:
        return values, variance, 1.0
    seen = stats.yeojohnson((z[:, None] + sd[:, None] * NODES).ravel(), power).reshape(len(z), -1)
    weights = WEIGHTS / WEIGHTS.sum()
    mean = seen @ weights
    return stats.yeojohnson(z, power), np.square(seen - mean[:, None]) @ weights, power
