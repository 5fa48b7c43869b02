"""Small array helpers that every engine shares: checked input, aliased columns, t statistics with a safe zero."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.linalg import lapack

from steerstats.errors import InputError

RANK_TOLERANCE = 1e-9
ALIAS_TOLERANCE = 1e-7  # of a column's norm left after the columns before it; R's `lm` uses the same


def as_finite(values: np.ndarray, name: str) -> np.ndarray:
    """`values` as a float array of two axes without NaN or inf.

    Raises
    ------
    InputError
        Naming the argument, and the first offending position.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 2:
        raise InputError(f"{name} has {array.ndim} axes; it needs 2")
    if not np.isfinite(array).all():
        where = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"{name} holds {array[where]} at {where}; leave incomplete rows out first")
    return array


def nearest_multiple(x: np.ndarray, z: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """`z` times the constant of each group (`codes`) that brings it nearest to `x`; 0 where z is 0 all over a group."""
    power = np.bincount(codes, z * z)
    return (np.bincount(codes, x * z) / np.where(power > 0, power, 1))[codes] * z


def aliased_columns(X: np.ndarray) -> list[int]:
    """Columns that are linear combinations of columns before them, as R's `lm` would drop them.

    Parameters
    ----------
    X : ndarray, shape (n, p)

    Returns
    -------
    list of int
    """
    norms = np.linalg.norm(X, axis=0)
    if len(X) >= X.shape[1] and norms.all():
        # A triangular factor with a safe diagonal settles the common case in one call.
        diagonal = np.abs(np.diag(np.linalg.qr(X / norms, mode="r")))
        if (diagonal > ALIAS_TOLERANCE).all():
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
        if left <= ALIAS_TOLERANCE:
            dropped.append(j)
        else:
            basis = np.column_stack([basis, column / left])
    return dropped


def column_rank(matrix: np.ndarray) -> int:
    """Rank of a matrix whose columns are of size one or less."""
    if not matrix.size:
        return 0
    return int(np.count_nonzero(np.linalg.svd(matrix, compute_uv=False) > RANK_TOLERANCE))


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


def t_columns(
    estimate: np.ndarray, se: np.ndarray, df: np.ndarray, scale: float, level: float
) -> dict[str, np.ndarray]:
    """The columns estimate, se, df, statistic, p, ci_low and ci_high of a table of t tests, in the arrays' shape."""
    statistic, p = t_statistic(estimate, se, df, scale)
    half = stats.t.ppf((1 + level) / 2, df) * se
    return {
        "estimate": estimate,
        "se": se,
        "df": df,
        "statistic": statistic,
        "p": p,
        "ci_low": estimate - half,
        "ci_high": estimate + half,
    }


def relative_cholesky(psi: np.ndarray) -> np.ndarray:
    """Lower factor of a positive semi-definite matrix, zero columns where it has no rank left."""
    rows = psi.tolist()  # matrices of a few columns: Python's own numbers are several times faster than arrays of one
    factor: list[list[float]] = [[0.0] * len(rows) for _ in rows]
    for k, row in enumerate(rows):
        pivot = row[k] - sum(value * value for value in factor[k][:k])
        if pivot > 1e-14 * max(row[k], 0.0):
            root = factor[k][k] = math.sqrt(pivot)
            for j in range(k + 1, len(rows)):
                factor[j][k] = (rows[j][k] - sum(a * b for a, b in zip(factor[j][:k], factor[k]))) / root
    return np.array(factor)


class Orthogonal(NamedTuple):
    """Q and R of a tall matrix: Q (n, p), or (n, n) if complete, and R (p, p) always."""

    Q: np.ndarray
    R: np.ndarray


def orthogonal(matrix: np.ndarray, *, complete: bool = False) -> Orthogonal:
    """`np.linalg.qr` of a matrix with n >= p, by the same LAPACK routines and at half the cost of a small one."""
    n, p = matrix.shape
    factored, tau, _, _ = lapack.dgeqrf(matrix)
    R = factored[:p].copy()
    for j in range(p):
        R[j + 1 :, j] = 0.0
    if complete:
        basis = np.zeros((n, n), order="F")
        basis[:, :p] = factored
        factored = basis
    return Orthogonal(lapack.dorgqr(factored, tau)[0], R)


def triangular_inverse(R: np.ndarray) -> np.ndarray:
    """Inverse of an upper triangle with zeros below it and none on its diagonal; LAPACK has none for no column."""
    return lapack.dtrtri(R)[0] if R.size else R
