"""Which way inputs steer: shares of anti-steerable, too close to tell, and steerable ones, with Wilson intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steerstats.errors import InputError, check_level, how_many
from steerstats.resampling.questions import check_slopes, effective_size, wilson_interval
from steerstats.results import VECTOR_AS_GIVEN, Estimate, Estimates
from steerstats.rounding import floats


@dataclass(frozen=True, kw_only=True)
class SignClasses(Estimates):
    """How many inputs steer the wrong way.

    Parameters
    ----------
    estimates : tuple of Estimate
        `anti_steerable` (s < −error), `within_error` (|s| ≤ error), `steerable` (s > error), then `negative`
        (s < 0 whatever the error) and `published_nonpositive` (s ≤ 0, as the original code counts).
    count : tuple of int
        Inputs in each, in the same order; the first three add up to n.
    error : ndarray (n,)
        Numerical error of each slope that the classes allow for, nats per unit multiplier.
    """

    count: tuple[int, ...]
    error: np.ndarray

    def to_frame(self) -> pd.DataFrame:
        """One row per class: name, estimate, interval, method, n, count."""
        return super().to_frame().assign(count=self.count)


def anti_steerable(
    slopes: np.ndarray,
    *,
    error: float | np.ndarray = 0.0,
    questions: Sequence | None = None,
    level: float = 0.95,
) -> SignClasses:
    """Share of anti-steerable inputs, of inputs too close to zero to tell, and of steerable ones.

    Parameters
    ----------
    slopes : array (n,)
    error : float or array (n,)
        Numerical error of a slope (`slope_error`), nats per unit multiplier. Slopes within it form a class of
        their own; with 0 that class holds the exact zeros.
    questions : sequence (n,), optional

    Returns
    -------
    SignClasses
        Wilson intervals (doi:10.1080/01621459.1927.10502953). With twins, n in Wilson's formula is the effective
        size n/deff of Korn and Graubard, with its t correction for few questions and deff not below 1; where the
        share is 0 or 1 and shows no clustering, twins are counted as one (n²/Σ n_g²).

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.steerability import anti_steerable
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> slopes = study.slopes("likes-rain")
    >>> signs = anti_steerable(slopes.at("base->base"), questions=slopes.question)
    >>> print(signs["anti_steerable"])
    anti_steerable: 0.033 [0.009, 0.114] (n = 60)
    >>> signs.count[:3]  # anti-steerable, too close to 0 to tell, steerable
    (2, 0, 58)
    """
    level = check_level(level)
    s, codes, groups = check_slopes(slopes, questions)
    allowed = np.broadcast_to(floats(error), s.shape)
    if not (np.isfinite(allowed).all() and (allowed >= 0).all()):
        raise InputError(f"error is {error!r}; it has to be finite and 0 or more (nats per unit multiplier)")
    members = {
        "anti_steerable": s < -allowed,
        "within_error": np.abs(s) <= allowed,
        "steerable": s > allowed,
        "negative": s < 0,
        "published_nonpositive": s <= 0,
    }
    shares = [_share(name, inside, codes, groups, level) for name, inside in members.items()]
    warnings = ()
    if members["within_error"].any() and (allowed > 0).any():
        near = int(members["within_error"].sum())
        warnings = (f"{how_many(near, 'slope')} {'is' if near == 1 else 'are'} within numerical error of zero",)
    return SignClasses(
        estimates=tuple(shares),
        count=tuple(int(inside.sum()) for inside in members.values()),
        error=allowed,
        method=shares[0].method,
        assumptions=("questions are independent", VECTOR_AS_GIVEN),
        warnings=warnings,
    )


def _share(name: str, inside: np.ndarray, codes: np.ndarray, groups: int, level: float) -> Estimate:
    n, share = inside.size, float(inside.mean())
    effective, how = float(n), f"Wilson interval, {n} inputs"
    if groups < n:
        effective = effective_size(inside.astype(float), codes, groups, level)
        how += f" in {groups} questions, effective size by the design effect"
    low, high = wilson_interval(share, effective, level)
    return Estimate(
        name=name,
        estimate=share,
        ci_low=low,
        ci_high=high,
        n=groups,
        level=level,
        method=how,
    )
