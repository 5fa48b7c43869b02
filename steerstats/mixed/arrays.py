"""Small array helpers that every engine shares: checked input, aliased columns, t statistics with a safe zero."""

from __future__ import annotations

import numpy as np
from scipy import stats

from steerstats.errors import InputError

ALIAS_TOLERANCE = 1e-7  # of a column's norm left after the columns before it; R's `lm` uses the same


def as_finite(values: np.ndarray, name: str, ndim: int) -> np.ndarray:
    """`values` as a float array of `ndim` axes without NaN or inf.

    Raises
    ------
    InputError
        Naming the argument, and the first offending position.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != ndim:
        raise InputError(f"{name} has {array.ndim} axes; it needs {ndim}")
    if not np.isfinite(array).all():
        where = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"{name} holds {array[where]} at {where}; leave incomplete rows out first")
    return array


def aliased_columns(X: np.ndarray, tolerance: float = ALIAS_TOLERANCE) -> list[int]:
    """Columns that are linear combinations of columns before them, as R's `lm` would drop them.

    Parameters
    ----------
    X : ndarray, shape (n, p)
    tolerance : float
        Share of a column's norm that has to remain after projection on the columns kept so far.

    Returns
    -------
    list of int
    """
    norms = np.linalg.norm(X, axis=0)
    if len(X) >= X.shape[1] and norms.all():
        # A triangular factor with a safe diagonal settles the common case in one call.
        diagonal = np.abs(np.diag(np.linalg.qr(X / norms, mode="r")))
        if (diagonal > tolerance).all():
            return []
    basis = np.empty((len(X), 0))
    dropped = []
    for j, norm in enumerate(norms):
        if norm == 0:
            dropped.append(j)
            continue
        column = X[:, j] / norm
        for _ in range(2):  # twice is enough for orthogonality to rounding
            column = column - basis @ (basis.T @ column)
        left = np.linalg.norm(column)
        if left <= tolerance or basis.shape[1] == len(X):
            dropped.append(j)
        else:
            basis = np.column_stack([basis, column / left])
    return dropped


def t_statistic(
    estimate: np.ndarray, se: np.ndarray, df: np.ndarray, scale: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate over standard error and its two-sided p; 0/0 is NaN, and x/0 keeps its infinite t with p = 0.

    Parameters
    ----------
    estimate, se, df : ndarray
        Broadcastable.
    scale : float or ndarray
        Size of the response: an estimate below 1e-12 of it counts as zero where the standard error is zero.

    Returns
    -------
    statistic, p : ndarray
    """
    nought = (se == 0) & (np.abs(estimate) <= 1e-12 * scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(nought, np.nan, estimate / se)
        p = 2 * stats.t.sf(np.abs(statistic), df)
    return statistic, p


def relative_cholesky(psi: np.ndarray) -> np.ndarray:
    """Lower factor of a positive semi-definite matrix, zero columns where it has no rank left."""
    q = len(psi)
    factor = np.zeros_like(psi)
    for k in range(q):
        left = psi[k:, k] - factor[k:, :k] @ factor[k, :k]
        if left[0] > 1e-14 * max(psi[k, k], 0):
            factor[k:, k] = left / np.sqrt(left[0])
    return factor
