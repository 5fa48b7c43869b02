"""The exact maximum of a mixed model in which every input has the same complete design: no optimiser.

With rotated coefficients T = Y Q (Z = QR) the likelihood splits into a within part that knows only sigma^2 and a
between part with covariance Sigma_T = R Psi R' + sigma^2 I. The eigenvectors of T's residual scatter are those of
the optimum, Psi >= 0 becomes theta_k >= sigma^2, and pooling the eigenvalues that violate it is the boundary
solution. Array functions; `steerstats.mixed.fit_mixed` puts a formula in front of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.linalg import lapack

from steerstats.errors import InputError, check_level
from steerstats.mixed.arrays import Orthogonal, aliased_columns, as_finite, orthogonal, t_columns, triangular_inverse
from steerstats.mixed.checks import check_identified, check_within, clean_zero, fit_warnings, is_singular
from steerstats.results import Result

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, kw_only=True)
class Components:
    """Variance components of one unstructured term, on the rotated scale, as `solve_components` finds them.

    Parameters
    ----------
    psi : ndarray, shape (q, q)
        Psi on the rotated scale, R Psi R'.
    sigma2 : float
        Residual variance, nats squared.
    rank : int
        Rank of Psi: q less the number of pooled eigenvalues.
    theta, scatter_values : ndarray, shape (q,)
        Eigenvalues of Sigma_T and of the scatter, on the same eigenvectors.
    """

    psi: np.ndarray
    sigma2: float
    rank: int
    theta: np.ndarray
    scatter_values: np.ndarray

    @property
    def sigma(self) -> np.ndarray:
        """Sigma_T = R Psi R' + sigma^2 I, shape (q, q)."""
        return self.psi + self.sigma2 * np.eye(len(self.psi))


@dataclass(frozen=True, kw_only=True)
class ClosedForm(Result):
    """A mixed model y_i = Z (Gamma' w_i + b_i) + e_i, b_i ~ N(0, Psi), in closed form.

    Parameters
    ----------
    rows, columns : tuple of str
        Names of the p columns of W that were kept, and of the q columns of Z.
    coefficients, se, se_model : ndarray, shape (p, q)
        Gamma in nats per unit of W and Z; its standard errors from the unconstrained S/(N - p) (exact t on
        N - p, on the boundary too), and those of the constrained model (lme4's).
    psi : ndarray, shape (q, q)
        Covariance of the random effects.
    sigma2 : float
        Residual variance: lack of fit for deterministic logits, not sampling noise.
    scatter : ndarray, shape (q, q)
        S = E'E, cross-products of the between-input residuals of the per-input coefficients.
    gram_inverse : ndarray, shape (p, p)
        (W'W)^-1.
    within_inverse : ndarray, shape (q, q)
        (Z'Z)^-1.
    df : int
        N - p.
    criterion : float
        REML criterion or deviance, as lme4 defines them; -inf for exactly linear data.
    reml, singular : bool
        `singular`: parity with lme4's isSingular. It says that Psi is on the boundary of the parameter space
        given sigma^2, not that inputs do not differ.
    rank : int
        Rank of Psi.
    aliased : tuple of str
        Columns of W that were dropped.
    n_groups, n_obs : int
    scale : float
        Largest absolute response, against which an exact zero is judged.
    level : float
    se_type : str
        What `se` is.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    coefficients: np.ndarray
    se: np.ndarray
    se_model: np.ndarray
    psi: np.ndarray
    sigma2: float
    scatter: np.ndarray
    gram_inverse: np.ndarray
    within_inverse: np.ndarray
    df: int
    criterion: float
    reml: bool
    singular: bool
    rank: int
    aliased: tuple[str, ...]
    n_groups: int
    n_obs: int
    scale: float
    level: float = 0.95
    se_type: str = "unconstrained S/(N-p)"

    @property
    def log_likelihood(self) -> float:
        """Half the negative criterion: the restricted log-likelihood under REML."""
        return -self.criterion / 2

    def to_frame(self) -> pd.DataFrame:
        """One row per fixed effect: term, estimate, se, df, statistic, p, ci_low, ci_high, se_type."""
        terms = [join_terms(row, column) for column in self.columns for row in self.rows]
        df = np.full(self.se.shape, float(self.df))
        values = t_columns(self.coefficients, self.se, df, self.scale, self.level)
        frame = pd.DataFrame({"term": terms} | {name: array.T.ravel() for name, array in values.items()})
        return frame.assign(se_type=self.se_type)


def closed_form(
    Y: np.ndarray,
    Z: np.ndarray,
    W: np.ndarray,
    *,
    reml: bool = True,
    row_names: Sequence[str] | None = None,
    column_names: Sequence[str] | None = None,
    level: float = 0.95,
) -> ClosedForm:
    r"""Fit y_i = Z(\Gamma'w_i + b_i) + e_i exactly, boundary included.

    Parameters
    ----------
    Y : ndarray, shape (N, m)
        Propensities in nats of N inputs at the same m multipliers.
    Z : ndarray, shape (m, q)
        Design within an input, for instance 1 and lambda. All its columns have random effects.
    W : ndarray, shape (N, p)
        Design between inputs, intercept included by the caller. Each column interacts with all of Z.
    reml : bool
        Restricted maximum likelihood, or maximum likelihood.
    row_names, column_names : sequence of str, optional
        Names of the columns of W and of Z; "Intercept" is left out of joint names.
    level : float
        Nominal coverage of the intervals.

    Raises
    ------
    InputError
        If shapes disagree, a value is not finite, or Z has no column or aliased ones.
    CannotEstimate
        If m = q (the residual cannot be told from the random effects) or N = p.

    Notes
    -----
    :math:`-2\ell = N(m-q)\log\sigma^2 + RSS/\sigma^2 + \nu\log|\Sigma| + \mathrm{tr}(\Sigma^{-1}S)` + constant,
    :math:`\nu = N - p` under REML and N under ML: the growth-curve model of Potthoff and Roy (1964),
    doi:10.1093/biomet/51.3-4.313, with covariance :math:`Z\Psi Z' + \sigma^2 I`.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.mixed import closed_form
    >>> unit = steerstats.open_cache(steerstats.demo_cache()).unit("travels-far")
    >>> within = [[1, multiplier] for multiplier in unit.multipliers]
    >>> between = [[1, a - 0.5] for a in unit.factors(["pos_is_a"])["pos_is_a"]]
    >>> fit = closed_form(unit.propensity[unit.place("base->base")], within, between,
    ...                   row_names=["Intercept", "A"], column_names=["Intercept", "lam"])
    >>> fit.to_frame().set_index("term")["estimate"].round(2).to_dict()
    {'Intercept': 1.51, 'A': 0.04, 'lam': 0.23, 'lam:A': 0.29}
    """
    level = check_level(level)
    Y, Z, W = as_finite(Y, "Y"), as_finite(Z, "Z"), as_finite(W, "W")
    (n_groups, m), q = Y.shape, Z.shape[1]
    if len(Z) != m or len(W) != n_groups:
        raise InputError(f"Y is {n_groups} x {m}: Z needs {m} rows and has {len(Z)}, W {n_groups} and has {len(W)}")
    if not q:
        raise InputError("Z has no column: a mixed model needs a random effect, such as an intercept")
    columns = tuple(column_names) if column_names is not None else tuple(f"z{k}" for k in range(q))
    rows = tuple(row_names) if row_names is not None else tuple(f"w{j}" for j in range(W.shape[1]))
    check_within(Z, columns)
    dropped = aliased_columns(W)
    if dropped:
        W = np.delete(W, dropped, axis=1)
    check_identified(n_groups, m, W.shape[1], q)
    return fit_factored(
        Y,
        orthogonal(Z, complete=True),
        orthogonal(W),
        reml=reml,
        rows=tuple(row for j, row in enumerate(rows) if j not in dropped),
        columns=columns,
        level=level,
        scale=float(np.abs(Y).max()),
        aliased=tuple(rows[j] for j in dropped),
    )


def fit_factored(
    Y: np.ndarray,
    within: Orthogonal,
    between: Orthogonal,
    *,
    reml: bool,
    rows: Sequence[str],
    columns: Sequence[str],
    level: float,
    scale: float,
    aliased: tuple[str, ...] = (),
) -> ClosedForm:
    """`closed_form` of checked Y, Z (complete basis) and W (full rank), N > p and m > q; `scale` is the largest |Y|."""
    (Q, R), (QW, RW) = within, between
    (n_groups, m), q, p = Y.shape, len(R), len(RW)
    rotated_Y = Q.T @ Y.T  # the first q columns of Q span Z
    T, rest = rotated_Y[:q].T, rotated_Y[q:]
    rss = float(np.vdot(rest, rest))
    rotated = QW.T @ T
    E = T - QW @ rotated
    scatter = E.T @ E
    n_within = n_groups * (m - q)
    rss, scatter = clean_zero(rss, scatter, scale, n_groups * m)
    parts = solve_components(scatter, n_groups - p if reml else n_groups, rss, n_within)

    inverse_W, back = triangular_inverse(RW), triangular_inverse(R)
    gram_inverse = inverse_W @ inverse_W.T
    coefficients = inverse_W @ rotated @ back.T  # on the scale of Z: Gamma = A R^-T
    psi, S = (back @ matrix @ back.T for matrix in (parts.psi, scatter))
    for matrix in (psi, S):  # a variance of nothing can come out below zero by rounding, and then has no root
        np.fill_diagonal(matrix, np.maximum(matrix.diagonal(), 0.0))
    diagonal = gram_inverse.diagonal()[:, None]
    within_inverse = back @ back.T
    constrained = psi.diagonal() + parts.sigma2 * within_inverse.diagonal()

    criterion = -np.inf
    if parts.sigma2 > 0:
        # Sigma and S share their eigenvectors, so log|Sigma| and tr(Sigma^-1 S) need none of them.
        logdet_sigma = float(np.log(parts.theta).sum())
        quadratic = rss / parts.sigma2 + float((parts.scatter_values / parts.theta).sum())
        criterion = n_groups * m * LOG_2PI + n_within * math.log(parts.sigma2) + n_groups * logdet_sigma + quadratic
        if reml:
            logdet_W, logdet_R = (sum(math.log(abs(x)) for x in matrix.diagonal().tolist()) for matrix in (RW, R))
            criterion += 2 * q * logdet_W + 2 * p * logdet_R - p * logdet_sigma - p * q * LOG_2PI
    singular = is_singular(psi, parts.sigma2, parts.rank)
    return ClosedForm(
        method=f"linear mixed model, {'REML' if reml else 'ML'}, closed form (same complete design in every input)",
        assumptions=(
            "random effects and residuals normal, residuals of equal variance",
            "residuals independent given the random effects: for deterministic logits they are lack of fit",
        ),
        warnings=fit_warnings(parts.sigma2, S, n_groups - p, q, singular),
        rows=tuple(rows),
        columns=tuple(columns),
        coefficients=coefficients,
        se=np.sqrt(diagonal * S.diagonal() / (n_groups - p)),
        se_model=np.sqrt(diagonal * constrained),
        psi=psi,
        sigma2=parts.sigma2,
        scatter=S,
        gram_inverse=gram_inverse,
        within_inverse=within_inverse,
        df=n_groups - p,
        criterion=float(criterion),
        reml=reml,
        singular=singular,
        rank=parts.rank,
        aliased=aliased,
        n_groups=n_groups,
        n_obs=n_groups * m,
        scale=scale,
        level=level,
    )


def solve_components(scatter: np.ndarray, nu: float, rss: float, n_within: float) -> Components:
    """Maximise the split likelihood over sigma^2 > 0 and Psi >= 0 by pooling eigenvalues.

    Parameters
    ----------
    scatter : ndarray, shape (q, q)
        Residual cross-products of the rotated coefficients.
    nu, n_within : float
        Degrees of freedom of `scatter` and of `rss`.
    rss : float
        Within sum of squares.
    """
    eigenvalues, vectors, _ = lapack.dsyevd(scatter, lower=1)
    eigenvalues = np.maximum(eigenvalues, 0)
    total, weight, pooled = rss, n_within, 0
    for value in eigenvalues.tolist():
        if value / nu >= total / weight:
            break
        total, weight, pooled = total + value, weight + nu, pooled + 1
    sigma2 = total / weight
    theta = eigenvalues / nu
    theta[:pooled] = sigma2
    excess = theta - sigma2
    return Components(
        psi=(vectors * excess) @ vectors.T,
        sigma2=float(sigma2),
        rank=int(np.count_nonzero(excess > 0)),
        theta=theta,
        scatter_values=eigenvalues,
    )


def join_terms(row: str, column: str) -> str:
    """Name of a product column, "Intercept" being silent."""
    if row == "Intercept":
        return column
    return row if column == "Intercept" else f"{column}:{row}"
