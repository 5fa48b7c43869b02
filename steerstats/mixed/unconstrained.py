r"""Standard errors that do not know Psi >= 0, for one grouping factor with missing cells or grids of its own.

On the boundary the fitted Psi and sigma^2 are pulled up together, and slopes look less sure than they are: tests that
should reject 5% reject nothing. The closed form answers with the unconstrained S/(N - p). Where groups differ in their
design the same role is played by the minimum norm quadratic unbiased estimate of (sigma^2, Psi), which solves

.. math:: \sum_k \mathrm{tr}(P V_j P V_k)\,\theta_k = y' P V_j P y, \qquad V = \sum_k \theta_k V_k,

with P taken at the fitted components. It is unbiased whatever they are, is a solution of the REML equations where
these have one inside the parameter space (nothing changes there), and is S/(N - p) on complete designs.
"""

from __future__ import annotations

import numpy as np

ILL_CONDITIONED = 1e11


def unconstrained_covariance(
    y: np.ndarray,
    X: np.ndarray,
    Z: np.ndarray,
    codes: np.ndarray,
    blocks: np.ndarray,
    *,
    beta: np.ndarray,
    psi: np.ndarray,
    sigma2: float,
) -> np.ndarray | None:
    """Covariance of the generalised least-squares coefficients under unconstrained variance components.

    Parameters
    ----------
    y : ndarray, shape (n,)
    X : ndarray, shape (n, P)
    Z : ndarray, shape (n, q)
        Random-effects design of the one grouping factor.
    codes : ndarray, shape (n,)
        Group of each row, 0..N-1.
    blocks : ndarray, shape (q,)
        Effects of different blocks are independent.
    beta, psi, sigma2
        The fit: coefficients (P,), covariance (q, q) and residual variance, which give the weights.

    Returns
    -------
    ndarray, shape (P, P), or None
        None where the components are not identified, or a coefficient's variance would not be positive.

    References
    ----------
    Rao (1971), doi:10.1016/0047-259X(71)90001-7; Searle, Casella and McCulloch (1992), Variance Components, ch. 11.
    """
    n, (P, q) = len(y), (X.shape[1], Z.shape[1])
    order = np.argsort(codes, kind="stable")
    y, X, Z, codes = y[order], X[order], Z[order], codes[order]
    start = np.flatnonzero(np.diff(codes, prepend=-1))
    scale = np.sqrt(np.mean(Z**2, axis=0))  # effects of like size: the system below is then well conditioned
    Z, psi = Z / scale, psi * np.outer(scale, scale)
    error = y - X @ beta
    # Z'V^-1 = (sigma^2 I + Z'Z Psi)^-1 Z' per group, which needs no inverse of Psi.
    own = np.add.reduceat(np.einsum("ni,nj->nij", Z, Z), start)
    shrink = np.linalg.inv(sigma2 * np.eye(q) + own @ psi)
    ZX = np.add.reduceat(np.einsum("ni,np->nip", Z, X), start)
    T, U = shrink @ own, shrink @ ZX  # Z'V^-1 Z, Z'V^-1 X
    score = np.einsum("gij,gj->gi", shrink, np.add.reduceat(Z * error[:, None], start))  # Z'V^-1 e
    information = (X.T @ X - np.einsum("gip,ij,gjr->pr", ZX, psi, U, optimize=True)) / sigma2
    M = np.linalg.inv(information)

    pairs = [(j, k) for j in range(q) for k in range(j, q) if blocks[j] == blocks[k]]
    basis = np.zeros((len(pairs), q, q))
    for row, (j, k) in enumerate(pairs):
        basis[row, j, k] = basis[row, k, j] = 1.0
    at = np.array([psi[j, k] for j, k in pairs])
    bread = U @ M @ np.swapaxes(U, 1, 2)
    spread = np.einsum("gip,aij,gjr->apr", U, basis, U, optimize=True)
    TE, BE = np.einsum("gij,ajk->gaik", T, basis), np.einsum("gij,ajk->gaik", bread, basis)
    between = spread @ M
    among = (
        np.einsum("gaij,gbji->ab", TE, TE, optimize=True)
        - np.einsum("gaij,gbji->ab", TE, BE, optimize=True)
        - np.einsum("gaij,gbji->ab", BE, TE, optimize=True)
        + np.einsum("apr,brp->ab", between, between)
    )
    # The traces with the residual's V_0 = I follow from P V P = P, where V = sigma^2 I + sum of theta_k V_k.
    trace = np.einsum("gaii->a", TE) - np.einsum("gaii->a", BE)
    with_residual = (trace - among @ at) / sigma2
    residual = ((n - P - at @ trace) / sigma2 - at @ with_residual) / sigma2
    system = np.block([[among, with_residual[:, None]], [with_residual[None, :], np.array([[residual]])]])
    weighted = (error - np.einsum("ni,ij,nj->n", Z, psi, score[codes], optimize=True)) / sigma2  # V^-1 e
    right = np.append(np.einsum("gi,aij,gj->a", score, basis, score, optimize=True), weighted @ weighted)
    size = np.sqrt(np.maximum(np.diag(system), np.finfo(float).tiny))
    system, right = system / np.outer(size, size), right / size
    if not np.isfinite(system).all() or np.linalg.cond(system) > ILL_CONDITIONED:
        return None
    theta = np.linalg.solve(system, right) / size

    squares = (information - np.einsum("a,apr->pr", at, spread)) / sigma2  # X'V^-2 X
    covariance = M @ (np.einsum("a,apr->pr", theta[:-1], spread) + theta[-1] * squares) @ M
    if not (np.diag(covariance) > 1e-12 * np.diag(M)).all():
        return None
    return (covariance + covariance.T) / 2
