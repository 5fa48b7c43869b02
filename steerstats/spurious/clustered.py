"""HC2 with Bell–McCaffrey degrees of freedom, carried over to clusters (CR2): for counterbalanced twins.

Two orders of one question share what is hard about the question. Treating them as independent inputs misjudges
every standard error, in both directions. With one input per question this is `hc2_bell_mccaffrey` exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from steerstats.errors import CannotEstimate, check_level
from steerstats.mixed import RobustFit
from steerstats.mixed.arrays import as_finite
from steerstats.mixed.robust import LINEAR, refuse_aliased, residuals, robust_fit
from steerstats.resampling.questions import group_codes


def cr2_bell_mccaffrey(
    X: np.ndarray,
    Y: np.ndarray,
    clusters: Sequence,
    names: Sequence[str],
    *,
    responses: Sequence[str],
    level: float = 0.95,
) -> RobustFit:
    r"""Least squares with the bias-reduced cluster-robust covariance and Bell–McCaffrey degrees of freedom.

    :math:`V = M(\sum_g X_g'A_g e_g e_g'A_g X_g)M`, :math:`A_g = (I - H_{gg})^{-1/2}`, :math:`M = (X'X)^{-1}`, under
    an identity working model. For coefficient j, with :math:`v_g = A_g X_g M_j`, the degrees of freedom are
    :math:`(\mathrm{tr}\,\Omega)^2/\mathrm{tr}\,\Omega^2`,
    :math:`\Omega_{gh} = v_g'(I-H)_{gh}v_h`; only p × p matrices are formed.

    Parameters
    ----------
    X : array (n, p)
    Y : array (n, k)
    clusters : sequence (n,)
        Question of each input.
    names, responses : sequence of str
        Of the p columns of X and the k columns of Y.
    level : float

    Raises
    ------
    CannotEstimate
        If columns are aliased, or one question alone determines a coefficient.

    References
    ----------
    Bell and McCaffrey (2002), Survey Methodology 28(2); Pustejovsky and Tipton (2018),
    doi:10.1080/07350015.2016.1247004.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.spurious import cr2_bell_mccaffrey
    >>> unit = steerstats.open_cache(steerstats.demo_cache()).unit("travels-far")
    >>> slopes = unit.slopes.at("base->base")
    >>> design = [[1, a - 0.5] for a in unit.factors(["pos_is_a"])["pos_is_a"]]
    >>> fit = cr2_bell_mccaffrey(design, slopes[:, None], unit.question, ["Intercept", "A"], responses=["slope"])
    >>> fit.to_frame()["se_type"][0]  # no twins here, so these are HC2's numbers
    'CR2, Bell-McCaffrey df'
    """
    level = check_level(level)
    X, Y = as_finite(X, "X"), as_finite(Y, "Y")
    n, p = X.shape
    codes, groups = group_codes(clusters, n)
    refuse_aliased(X, names)
    q, r = np.linalg.qr(X)
    inverse = np.linalg.solve(r, np.eye(p))
    influence = q @ inverse.T  # rows (X'X)^-1 x_i
    estimate = inverse @ (q.T @ Y)
    residual, scale, exact = residuals(X, Y, estimate)

    scores = np.empty((groups, p, Y.shape[1]))
    lengths = np.empty((groups, p))  # v_g'v_g
    loads = np.empty((groups, p, p))  # Q_g'v_g: axis 1 the coefficient, axis 2 the basis
    order = np.argsort(codes, kind="stable")
    for g, rows in enumerate(np.split(order, np.cumsum(np.bincount(codes))[:-1])):
        values, vectors = np.linalg.eigh(np.eye(rows.size) - q[rows] @ q[rows].T)
        if values[0] < 1e-10:
            raise CannotEstimate(
                f"question {list(clusters)[rows[0]]} alone determines a coefficient (leverage 1); "
                "a factor level needs two questions"
            )
        v = (vectors / np.sqrt(values)) @ vectors.T @ influence[rows]
        scores[g] = v.T @ residual[rows]
        lengths[g] = (v**2).sum(axis=0)
        loads[g] = v.T @ q[rows]
    covariance = np.einsum("gak,gbk->abk", scores, scores)
    trace = (lengths - (loads**2).sum(axis=2)).sum(axis=0)
    inner = np.einsum("gja,gjb->jab", loads, loads)
    squares = (
        (lengths**2).sum(axis=0) - 2 * np.einsum("gj,gja,gja->j", lengths, loads, loads) + (inner**2).sum(axis=(1, 2))
    )
    df = trace**2 / squares
    se = np.sqrt(np.einsum("aak->ak", covariance))
    # Where every question shows the same effect its scores cancel, to rounding, although inputs differ.
    alike = (se <= 1e-13 * scale) & ~exact
    se = np.where(alike, 0.0, se)
    warnings = []
    for label, flat in zip(responses, alike.T):
        if flat.any():
            which = ", ".join(name for name, one in zip(names, flat) if one)
            warnings.append(f"every question shows the same {which} of {label}: no standard error, tests say nothing")
    return robust_fit(
        estimate, se, df, covariance, scale, exact, warnings=warnings,
        method="ordinary least squares, CR2 standard errors by question, Bell-McCaffrey degrees of freedom",
        assumptions=("questions are independent", LINEAR),
        terms=tuple(names), responses=tuple(responses), leverage=(q**2).sum(axis=1), n=n, level=level,
        se_type="CR2, Bell-McCaffrey df",
    )  # fmt: skip
