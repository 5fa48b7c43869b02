"""What the closed forms check before a fit, and what a reader has to know after it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from steerstats.errors import CannotEstimate, InputError
from steerstats.mixed.arrays import aliased_columns, relative_cholesky
from steerstats.rounding import ROUNDING

SINGULAR = "singular in lme4's sense"  # how every warning of a fit on the boundary begins
EXACT = "the curves are exactly linear in the design"
SINGULAR_TOLERANCE = 1e-4  # on the diagonal of the relative Cholesky factor, as in lme4's isSingular


def check_within(Z: np.ndarray, names: Sequence[str]) -> None:
    """Raise InputError where columns of Z are aliased: the model would have two random effects for one direction."""
    dropped = aliased_columns(Z)
    if dropped:
        raise InputError(f"random term {names[dropped[0]]!r} is determined by those before it: leave it out")


def check_identified(n_groups: int, m: int, p: int, q: int) -> None:
    """Raise CannotEstimate where residual and random effects, or the between-input variance, have no df."""
    if m <= q:
        raise CannotEstimate(
            f"{m} observations per group cannot tell {q} random effects from the residual: at least {q + 1} are "
            "needed (per-input slopes and `hc2_bell_mccaffrey` need no residual)"
        )
    if n_groups <= p:
        raise CannotEstimate(f"{n_groups} groups leave no degree of freedom beside {p} between-group columns")


def clean_zero(rss: float, scatter: np.ndarray, scale: float, count: int) -> tuple[float, np.ndarray]:
    """Set sums of squares that are rounding noise of exactly linear data to zero."""
    noise = count * (ROUNDING * scale) ** 2
    return (0.0 if rss <= noise else rss), (np.zeros_like(scatter) if scatter.trace() <= noise else scatter)


def is_singular(psi: np.ndarray, sigma2: float, rank: int) -> bool:
    """lme4's isSingular: the smallest diagonal element of the relative Cholesky factor is below 1e-4."""
    if rank < len(psi):
        return True
    if sigma2 == 0:
        return False
    return bool(relative_cholesky(psi / sigma2).diagonal().min() < SINGULAR_TOLERANCE)


def fit_warnings(sigma2: float, scatter: np.ndarray, df: int, q: int, singular: bool) -> tuple[str, ...]:
    """What a reader of a closed-form fit has to know."""
    warnings = []
    if not scatter.any():
        warnings.append("inputs do not differ beyond the fixed effects: standard errors are zero, tests say nothing")
    elif sigma2 == 0:
        warnings.append(f"{EXACT}: sigma^2 = 0 and the likelihood is unbounded")
    elif singular:
        warnings.append(
            f"{SINGULAR}: Psi is on the boundary given the lack of fit sigma^2; this does not say that inputs do not "
            "differ (see the variance of the per-input slopes)"
        )
    if df < q:
        warnings.append(f"{df} degrees of freedom between inputs for {q} random effects: Psi has rank {df} at most")
    return tuple(warnings)
