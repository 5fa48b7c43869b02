"""Numbers as every estimator takes them: what a mask hides is none, and what only rounding sets apart is no spread."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

ROUNDING = 16 * np.finfo(float).eps
"""Share of the largest value below which differences, or a standard deviation, are rounding errors and no spread."""
STORED = 16 * float(np.finfo(np.float32).eps)
"""The same of what is computed from a cache, which keeps propensities as float32 differences of larger logits."""


def floats(values: ArrayLike) -> np.ndarray:
    """Numbers as float64; what a masked array hides is NaN, where `np.asarray` would take what lies below for data.

    Examples
    --------
    >>> import numpy as np
    >>> from steerstats.rounding import floats
    >>> floats([1, 2]), floats(np.ma.array([1, -999], mask=[False, True]))
    (array([1., 2.]), array([ 1., nan]))
    """
    if isinstance(values, np.ma.MaskedArray):
        return values.astype(float).filled(np.nan)
    return np.asarray(values, dtype=float)


def varies(values: np.ndarray, resolution: float = ROUNDING) -> bool:
    """Whether numbers differ by more than rounding: to rank or scale what does not is to rank its rounding errors.

    Parameters
    ----------
    values : array
    resolution : float
        Share of the largest that is rounding: `STORED` for what is computed from a cache.

    Examples
    --------
    >>> from steerstats.rounding import varies
    >>> varies([0.1, 0.3]), varies([0.3, 0.1 + 0.2]), varies([])
    (True, False, False)
    """
    values = floats(values)
    return bool(values.size and np.ptp(values) > resolution * np.abs(values).max())
