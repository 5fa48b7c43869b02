"""What is spread and what is only rounding: one rule for every estimator."""

from __future__ import annotations

import numpy as np

ROUNDING = 16 * np.finfo(float).eps
"""Share of the largest value below which differences, or a standard deviation, are rounding errors and no spread."""
STORED = 16 * float(np.finfo(np.float32).eps)
"""The same of what is computed from a cache, which keeps propensities as float32 differences of larger logits."""


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
    values = np.asarray(values, dtype=float)
    return bool(values.size and np.ptp(values) > resolution * np.abs(values).max())
