"""Balanced crossed random intercepts, input x template: REML from an analysis of variance, boundary included.

With every combination seen equally often, V has one eigenvalue per stratum (mean, each factor, residual). If the
fixed effects split over the strata too, least squares is generalised least squares and the restricted likelihood
is that of independent mean squares under theta_factor >= sigma^2; pooling the smallest violator is its maximum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steerstats.errors import CannotEstimate
from steerstats.mixed.arrays import column_rank
from steerstats.rounding import ROUNDING


@dataclass(frozen=True, slots=True)
class CrossedFit:
    """Estimates: beta (P,), covariances (P, P), df (P,), one variance per factor, sigma^2, and REML criterion."""

    beta: np.ndarray
    covariance: np.ndarray
    covariance_model: np.ndarray
    df: np.ndarray
    variances: np.ndarray
    sigma2: float
    criterion: float


def fit_crossed(y: np.ndarray, X: np.ndarray, codes: list[np.ndarray]) -> CrossedFit | None:
    """REML fit of y = X beta + one random intercept per factor + residual, or None where the design is not balanced.

    Parameters
    ----------
    y : ndarray, shape (n,)
    X : ndarray, shape (n, P)
        Of full column rank, with the constant in its span.
    codes : list of ndarray, shape (n,) each
        Levels 0..a-1 of each factor.

    Returns
    -------
    CrossedFit or None
        None if combinations are not seen equally often, or a fixed effect lies across strata.

    Raises
    ------
    CannotEstimate
        If a factor, or the residual, has no degree of freedom left.
    """
    n, P = X.shape
    levels = [int(code.max()) + 1 for code in codes]
    cells = np.ravel_multi_index(codes, levels)
    counts = np.bincount(cells, minlength=int(np.prod(levels)))
    if counts.min() != counts.max():
        return None
    strata = _strata(X, codes, levels)
    ranks = [column_rank(part / np.linalg.norm(X, axis=0)) for part in strata]
    if sum(ranks) != P or ranks[0] != 1:
        return None

    basis, triangle = np.linalg.qr(X)
    beta = np.linalg.solve(triangle, basis.T @ y)
    error = y - X @ beta
    sums = np.array([float(np.sum(part**2)) for part in _strata(error[:, None], codes, levels)[1:]])
    sums[sums <= n * (ROUNDING * np.abs(y).max()) ** 2] = 0.0
    sizes = np.array([*levels, n - sum(levels) + len(levels)]) - 1
    free = sizes - np.array(ranks[1:])
    if free.min() < 1:
        short = int(np.argmin(free))
        what = f"random factor {short + 1}" if short < len(levels) else "the residual"
        raise CannotEstimate(f"{what} has {free[short]} degrees of freedom beside the fixed effects")
    means = sums / free
    sigma2, theta = _pool(sums, free)

    inverse = np.linalg.solve(triangle, np.eye(P))
    inverse = inverse @ inverse.T
    grams = [inverse @ part.T @ part @ inverse for part in strata]
    theta_mean = theta.sum() - (len(levels) - 1) * sigma2
    constrained = theta_mean * grams[0] + sum(g * t for g, t in zip(grams[1:], [*theta, sigma2]))
    covariance, df = _inference(grams, means, free, theta_mean)

    criterion = -np.inf
    if sigma2 > 0:
        eigenvalues = np.array([theta_mean, *theta, sigma2])
        information = sum(part.T @ part / value for part, value in zip(strata, eigenvalues))
        criterion = (
            (n - P) * np.log(2 * np.pi)
            + float(np.array([1, *sizes]) @ np.log(eigenvalues))
            + float(np.sum(sums / eigenvalues[1:]))
            + float(np.linalg.slogdet(information)[1])
        )
    per_level = n / np.array(levels)
    return CrossedFit(
        beta=beta,
        covariance=covariance,
        covariance_model=constrained,
        df=df,
        variances=(theta - sigma2) / per_level,
        sigma2=sigma2,
        criterion=float(criterion),
    )


def _strata(columns: np.ndarray, codes: list[np.ndarray], levels: list[int]) -> list[np.ndarray]:
    """Projections of columns on the mean, on each factor's main effect, and the rest."""
    mean = np.broadcast_to(columns.mean(axis=0), columns.shape)
    parts = [mean]
    for code, count in zip(codes, levels):
        sums = np.stack([np.bincount(code, column, minlength=count) for column in columns.T], axis=1)
        parts.append((sums * (count / len(columns)))[code] - mean)
    return [*parts, columns - sum(parts)]


def _pool(sums: np.ndarray, free: np.ndarray) -> tuple[float, np.ndarray]:
    """sigma^2 and theta per factor under theta >= sigma^2, the smallest mean square pooled first."""
    total, weight = sums[-1], float(free[-1])
    theta = sums[:-1] / free[:-1]
    for k in np.argsort(theta):
        if theta[k] >= total / weight:
            break
        total, weight = total + sums[k], weight + free[k]
    sigma2 = total / weight
    return float(sigma2), np.maximum(theta, sigma2)


def _inference(
    grams: list[np.ndarray], means: np.ndarray, free: np.ndarray, theta_mean: float
) -> tuple[np.ndarray, np.ndarray]:
    """Covariance and Satterthwaite df from unconstrained mean squares; one-stratum terms are exact."""
    of_mean = np.append(np.ones(len(means) - 1), -(len(means) - 2.0))
    if of_mean @ means <= 0:  # the combination may be negative; the constrained one is not
        of_mean = of_mean * 0 + theta_mean / max(means.sum(), np.finfo(float).tiny)
    weights = [gram + grams[0] * extra for gram, extra in zip(grams[1:], of_mean)]
    covariance = sum(weight * mean for weight, mean in zip(weights, means))
    spread = sum(np.diag(weight) ** 2 * mean**2 / nu for weight, mean, nu in zip(weights, means, free))
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.where(spread > 0, np.diag(covariance) ** 2 / spread, float(free.min()))
    return covariance, df
