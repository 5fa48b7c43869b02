"""The closed form for a fixed part that is more than W x Z: fixed curvature, say, without a random one.

Exact whenever the fixed space is (span W x Z) plus columns whose part along Z lies in span W x Z. Then least
squares is generalised least squares, the part along Z knows Psi, and all else only sigma^2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steerstats.mixed.arrays import column_rank
from steerstats.mixed.checks import check_identified, check_within, clean_zero
from steerstats.mixed.closed_form import Components, solve_components


@dataclass(frozen=True, slots=True)
class CompleteFit:
    """Estimates: beta (P,), covariances (P, P), df (P,), Psi (q, q) on the scale of Z, S (q, q), and N - p."""

    beta: np.ndarray
    covariance: np.ndarray
    covariance_model: np.ndarray
    df: np.ndarray
    psi: np.ndarray
    sigma2: float
    rank: int
    scatter: np.ndarray
    df_between: int
    criterion: float


def fit_complete(
    Y: np.ndarray, Z: np.ndarray, X: np.ndarray, *, reml: bool = True, names: tuple[str, ...] = ()
) -> CompleteFit | None:
    """Exact fit for one complete design Z in every group and fixed effects X, or None where it is not exact.

    Parameters
    ----------
    Y : ndarray, shape (N, m)
    Z : ndarray, shape (m, q)
    X : ndarray, shape (N, m, P)
        Fixed effects of full column rank.
    reml : bool
    names : tuple of str
        Names of the columns of Z, for messages.

    Raises
    ------
    CannotEstimate
        If m = q, N = p, or the within part has no degree of freedom left.
    """
    (n_groups, m), (q, P) = Y.shape, (Z.shape[1], X.shape[2])
    check_within(Z, names or tuple(map(str, range(q))))
    Q, R = np.linalg.qr(Z, mode="complete")
    R = R[:q]
    along = np.einsum("nmp,mk->nkp", X, Q[:, :q])
    across = np.einsum("nmp,mk->nkp", X, Q[:, q:]).reshape(-1, P)
    size = np.linalg.norm(X.reshape(-1, P), axis=0)
    rank_across = column_rank(across / size)
    p = column_rank(along.reshape(n_groups, -1) / np.tile(size, q))
    if P - rank_across != p * q:
        return None
    check_identified(n_groups, m, p, q)
    within_df = n_groups * (m - q) - rank_across
    if within_df < 1:
        return None

    flat = X.reshape(-1, P)
    basis, triangle = np.linalg.qr(flat)
    beta = np.linalg.solve(triangle, basis.T @ Y.ravel())
    error = (Y.ravel() - flat @ beta).reshape(n_groups, m)
    T = error @ Q[:, :q]
    rss, scatter = clean_zero(float(np.sum((error @ Q[:, q:]) ** 2)), T.T @ T, float(np.abs(Y).max()), n_groups * m)
    nu, n_within = (n_groups - p, within_df) if reml else (n_groups, n_groups * (m - q))
    parts = solve_components(scatter, nu, rss, n_within)

    # Each coefficient is a linear function of T and of the rest; both parts carry their own variance.
    influence = np.linalg.solve(triangle, basis.T).T.reshape(n_groups, m, P)
    weight_along = np.einsum("nmp,mk->nkp", influence, Q[:, :q])
    weight_across = np.einsum("nmp,mk->nkp", influence, Q[:, q:]).reshape(-1, P)
    gram_across = weight_across.T @ weight_across
    free = scatter / (n_groups - p)
    covariance, df = _with_df(weight_along, gram_across, free, n_groups - p, rss / within_df, within_df)
    back = np.linalg.solve(R, np.eye(q))
    return CompleteFit(
        beta=beta,
        covariance=covariance,
        covariance_model=np.einsum("nkp,kl,nlr->pr", weight_along, parts.sigma, weight_along, optimize=True)
        + parts.sigma2 * gram_across,
        df=df,
        psi=back @ parts.psi @ back.T,
        sigma2=parts.sigma2,
        rank=parts.rank,
        scatter=back @ scatter @ back.T,
        df_between=n_groups - p,
        criterion=_criterion(parts, scatter, rss, along, across, reml, Y.shape),
    )


def _with_df(
    along: np.ndarray, across: np.ndarray, sigma: np.ndarray, nu: int, s2: float, nu2: int
) -> tuple[np.ndarray, np.ndarray]:
    """Covariance from unconstrained mean squares; Satterthwaite df, which are exactly nu or nu2 for pure terms."""
    inner = np.einsum("nkp,nlp->pkl", along, along) @ sigma
    between = np.trace(inner, axis1=1, axis2=2)
    within = np.diag(across) * s2
    covariance = np.einsum("nkp,kl,nlr->pr", along, sigma, along, optimize=True) + across * s2
    spread = np.trace(inner @ inner, axis1=1, axis2=2) / nu + within**2 / nu2
    with np.errstate(invalid="ignore"):
        df = np.where(spread > 0, (between + within) ** 2 / spread, nu)
    return covariance, df


def _criterion(
    parts: Components,
    scatter: np.ndarray,
    rss: float,
    along: np.ndarray,
    across: np.ndarray,
    reml: bool,
    shape: tuple[int, int],
) -> float:
    """lme4's REML criterion or deviance; -inf where sigma^2 = 0."""
    if parts.sigma2 == 0:
        return -np.inf
    (n_groups, m), (q, P) = shape, along.shape[1:]
    logdet = n_groups * ((m - q) * np.log(parts.sigma2) + np.linalg.slogdet(parts.sigma)[1])
    quadratic = rss / parts.sigma2 + np.trace(np.linalg.solve(parts.sigma, scatter))
    criterion = n_groups * m * np.log(2 * np.pi) + logdet + quadratic
    if reml:
        precision = np.linalg.inv(parts.sigma)
        information = np.einsum("nkp,kl,nlr->pr", along, precision, along, optimize=True)
        information += across.T @ across / parts.sigma2
        criterion += np.linalg.slogdet(information)[1] - P * np.log(2 * np.pi)
    return float(criterion)
