"""HC2 standard errors with Bell-McCaffrey degrees of freedom: honest intervals when one factor level is rare.

Regressing per-input slopes on nuisance factors gives errors whose variance differs between the levels, and
often a level with few inputs in it. HC2 is unbiased there when the errors happen to be homoscedastic, and
Bell and McCaffrey's degrees of freedom say how little such an estimate may be based on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from steerstats.errors import CannotEstimate, InputError
from steerstats.mixed.arrays import aliased_columns, as_finite, t_statistic
from steerstats.results import Result


@dataclass(frozen=True, kw_only=True)
class RobustFit(Result):
    """Least squares of one or more responses on one design, with HC2 inference.

    Parameters
    ----------
    terms : tuple of str
        The p columns of the design.
    responses : tuple of str
        The k columns of the response.
    estimate, se, t, p, ci_low, ci_high : ndarray, shape (p, k), or (p,) for a one-dimensional response
        In units of the response per unit of the column.
    df : ndarray, shape (p,)
        Bell-McCaffrey degrees of freedom; they depend on the design alone.
    leverage : ndarray, shape (n,)
        Diagonal of the hat matrix.
    covariance : ndarray, shape (p, p, k), or (p, p)
        HC2 covariance of the coefficients.
    n, n_clusters : int
        Rows, and independent units among them.
    level : float
        Nominal coverage of the intervals.
    se_type : str
    """

    terms: tuple[str, ...]
    responses: tuple[str, ...]
    estimate: np.ndarray
    se: np.ndarray
    df: np.ndarray
    t: np.ndarray
    p: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    leverage: np.ndarray
    covariance: np.ndarray
    n: int
    n_clusters: int
    level: float = 0.95
    se_type: str = "HC2, Bell-McCaffrey df"

    def to_frame(self) -> pd.DataFrame:
        """One row per response and term: estimate, se, df, statistic, p, ci_low, ci_high, se_type, n."""
        n_terms, n_responses = len(self.terms), len(self.responses)
        columns = {
            "response": np.repeat(self.responses, n_terms),
            "term": np.tile(self.terms, n_responses),
        }
        for name, values in [("estimate", self.estimate), ("se", self.se)]:
            columns[name] = values.reshape(n_terms, n_responses).T.ravel()
        columns["df"] = np.tile(self.df, n_responses)
        for name in ["t", "p", "ci_low", "ci_high"]:
            values = getattr(self, name).reshape(n_terms, n_responses)
            columns["statistic" if name == "t" else name] = values.T.ravel()
        frame = pd.DataFrame(columns).assign(se_type=self.se_type, n=self.n)
        return frame.drop(columns="response") if n_responses == 1 else frame


def hc2_bell_mccaffrey(
    X: np.ndarray,
    Y: np.ndarray,
    names: Sequence[str] | None = None,
    *,
    responses: Sequence[str] | None = None,
    clusters: Sequence[object] | None = None,
    level: float = 0.95,
) -> RobustFit:
    r"""Ordinary least squares with HC2 standard errors and Bell-McCaffrey degrees of freedom.

    With hat matrix H, residuals e and, for coefficient j, :math:`g_i = [(X'X)^{-1}x_i]_j/\sqrt{1-h_i}`, the
    variance is :math:`\sum_i g_i^2 e_i^2`, a quadratic form in the errors. Matching its first two moments under
    homoscedastic normal errors to a scaled chi-square gives
    :math:`\nu_j = (\mathrm{tr}\,A)^2/\mathrm{tr}(A^2)` with :math:`A = \mathrm{diag}(g)(I-H)\mathrm{diag}(g)`.
    The n x n matrices are never formed. Clustered rows (CR2) put :math:`(I-H_{gg})^{-1/2}` of each cluster in the
    place of the square root.

    Parameters
    ----------
    X : ndarray, shape (n, p)
        Design, intercept included by the caller.
    Y : ndarray, shape (n,) or (n, k)
        Response(s), such as per-input slopes in nats per unit multiplier.
    names : sequence of str, optional
        Names of the p columns.
    responses : sequence of str, optional
        Names of the k responses.
    clusters : sequence of length n, optional
        Label of the independent unit of each row, such as the question of counterbalanced twins. Standard errors
        are then CR2, of which HC2 is the case of clusters of one.
    level : float
        Nominal coverage of the intervals.

    Returns
    -------
    RobustFit

    Raises
    ------
    InputError
        If shapes disagree or a value is not finite.
    CannotEstimate
        If columns are aliased, or an observation (a cluster) has leverage 1: it alone determines a coefficient,
        so its residual says nothing of its variance.

    References
    ----------
    MacKinnon and White (1985), doi:10.1016/0304-4076(85)90158-7; Bell and McCaffrey (2002), Survey
    Methodology 28(2); Imbens and Kolesar (2016), doi:10.1162/REST_a_00552; Pustejovsky and Tipton
    (2018), doi:10.1080/07350015.2016.1247004.
    """
    X = as_finite(X, "X", 2)
    Y = np.asarray(Y, dtype=float)
    flat = Y.ndim == 1
    Y = as_finite(Y[:, None] if flat else Y, "Y", 2)
    n, p = X.shape
    if len(Y) != n:
        raise InputError(f"Y has {len(Y)} rows; X has {n}")
    terms = tuple(names) if names is not None else tuple(f"x{j}" for j in range(p))
    labels = tuple(responses) if responses is not None else tuple(f"y{j}" for j in range(Y.shape[1]))
    if len(terms) != p or len(labels) != Y.shape[1]:
        raise InputError(
            f"{len(terms)} names and {len(labels)} responses given for {p} columns of X, {Y.shape[1]} of Y"
        )
    if n < p:
        raise CannotEstimate(f"{n} observations cannot determine {p} coefficients")
    aliased = [terms[j] for j in aliased_columns(X)]
    if aliased:
        raise CannotEstimate(f"columns {aliased} are determined by the columns before them: leave them out")

    Q, R = np.linalg.qr(X)
    leverage = np.einsum("ij,ij->i", Q, Q)
    estimate = np.linalg.solve(R, Q.T @ Y)
    residual = Y - X @ estimate
    # Least squares leaves rounding noise where the fit is exact; a variance of noise would look like evidence.
    scale = np.abs(Y).max(axis=0)
    exact = np.abs(residual).max(axis=0) <= 1e-13 * np.maximum(scale, np.finfo(float).tiny)
    residual = np.where(exact, 0.0, residual)

    influence = np.linalg.solve(R, Q.T).T  # (n, p): row i holds (X'X)^-1 x_i
    codes = np.arange(n) if clusters is None else _cluster_codes(clusters, n)
    covariance, df = _sandwich(Q, influence, residual, codes)

    se = np.sqrt(np.einsum("aak->ak", covariance))
    t, p_value = t_statistic(estimate, se, df[:, None], scale)
    half = stats.t.ppf((1 + level) / 2, df)[:, None] * se
    warnings = []
    if exact.any():
        bad = [label for label, flag in zip(labels, exact) if flag]
        warnings.append(f"the design fits {bad} exactly: standard errors are zero, tests say nothing")
    if df.min() < 4:
        few = [f"{term} ({value:.1f})" for term, value in zip(terms, df) if value < 4]
        warnings.append(f"fewer than 4 degrees of freedom for {', '.join(few)}: a factor level is rare")

    kind, unit = ("HC2", "rows") if clusters is None else ("CR2", "clusters")

    def shaped(values: np.ndarray) -> np.ndarray:
        return values[..., 0] if flat else values

    return RobustFit(
        method=f"ordinary least squares, {kind} standard errors, Bell-McCaffrey degrees of freedom",
        assumptions=(f"{unit} are independent", "the mean is linear in the columns of the design"),
        warnings=tuple(warnings),
        terms=terms,
        responses=labels,
        estimate=shaped(estimate),
        se=shaped(se),
        df=df,
        t=shaped(t),
        p=shaped(p_value),
        ci_low=shaped(estimate - half),
        ci_high=shaped(estimate + half),
        leverage=leverage,
        covariance=shaped(covariance),
        n=n,
        n_clusters=int(codes.max()) + 1,
        level=level,
        se_type=f"{kind}, Bell-McCaffrey df",
    )


def _cluster_codes(clusters: Sequence[object], n: int) -> np.ndarray:
    """Integer codes 0..G-1 of the clusters."""
    if len(clusters) != n:
        raise InputError(f"{len(clusters)} cluster labels for {n} rows")
    codes = pd.factorize(np.asarray(clusters))[0]
    if codes.min() < 0:
        raise InputError(f"cluster label {int(np.argmin(codes))} is missing")
    return codes


def _sandwich(
    Q: np.ndarray, influence: np.ndarray, residual: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Covariance (p, p, k) and df (p,) of CR2, clusters of one row being HC2.

    With A = (I - H_gg)^(-1/2), w_g = A X_g (X'X)^-1 and v_g = Q_g' w_g, the quadratic form behind the variance of one
    coefficient has the G x G matrix diag(|w_g|^2) - VV', whose traces need only V'V.
    """
    p, k = Q.shape[1], residual.shape[1]
    covariance = np.zeros((p, p, k))
    trace, square, inner = np.zeros(p), np.zeros(p), np.zeros((p, p, p))
    order, sizes = np.argsort(codes, kind="stable"), np.bincount(codes)
    first = np.cumsum(sizes) - sizes
    for size in np.unique(sizes):
        rows = order[first[sizes == size][:, None] + np.arange(size)]  # (groups of this size, size)
        own = Q[rows]
        values, vectors = np.linalg.eigh(np.eye(size) - own @ own.transpose(0, 2, 1))
        if values.min() < 1e-10:
            full = rows[values[:, 0] < 1e-10][:, 0]
            shown = ", ".join(map(str, full[:5])) + (", ..." if full.size > 5 else "")
            what = "row" if size == 1 else f"the cluster of {size} with row"
            raise CannotEstimate(
                f"leverage is 1 at {what} {shown} of {len(Q)}: there is no residual there; a factor level needs two "
                f"{'inputs' if size == 1 else 'clusters'}"
            )
        root = (vectors / np.sqrt(values)[:, None, :]) @ vectors.transpose(0, 2, 1)
        w = root @ influence[rows]
        score = np.einsum("gsp,gsk->gpk", w, residual[rows])
        covariance += np.einsum("gak,gbk->abk", score, score)
        v = np.einsum("gsq,gsp->gpq", own, w)
        length, along = (w**2).sum(axis=1), (v**2).sum(axis=2)
        trace += (length - along).sum(axis=0)
        square += (length**2 - 2 * length * along).sum(axis=0)
        inner += np.einsum("gpq,gpr->pqr", v, v)
    return covariance, trace**2 / (square + (inner**2).sum(axis=(1, 2)))
