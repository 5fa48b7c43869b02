"""Questions as the unit of sampling: who belongs together, how much a cluster counts, and an interval for a share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from steerstats.errors import CannotEstimate, InputError, check_level
from steerstats.resampling import mean_covariance, t_interval
from steerstats.resampling.question_weight import question_df
from steerstats.rounding import floats

__all__ = ["QuestionMeans", "group_codes", "logit_limits", "question_means", "wilson_interval"]


class QuestionMeans(NamedTuple):
    """Means over inputs with their errors over questions: four arrays (k,), and the number of questions."""

    mean: np.ndarray
    se: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    n: int


def group_codes(questions: Sequence | None, n: int) -> tuple[np.ndarray, int]:
    """Question of each input as codes 0..G−1, and G; without questions every input is its own.

    Examples
    --------
    >>> from steerstats.resampling.questions import group_codes
    >>> group_codes(["q7", "q2", "q7"], 3)
    (array([0, 1, 0]), 2)
    """
    if questions is None:
        return np.arange(n), n
    labels = pd.Series(list(questions), dtype=object)
    if labels.size != n:
        raise InputError(f"questions has {labels.size} entries for {n} inputs")
    codes = pd.factorize(labels)[0]
    if (codes < 0).any():
        raise InputError(f"questions[{int(np.argmin(codes))}] is missing; every input needs its question")
    return codes, int(codes.max()) + 1


def question_means(values: np.ndarray, questions: Sequence | None, level: float) -> QuestionMeans:
    """Means of several quantities over the same inputs, standard errors clustered by question, t intervals.

    The t quantile is that of `question_df`: G − 1 degrees of freedom, fewer where a few questions hold most inputs.

    Parameters
    ----------
    values : array (k, n_inputs)
        Finite.
    questions : sequence (n_inputs,), optional
    level : float

    Returns
    -------
    QuestionMeans
        Limits are NaN with one question.

    Examples
    --------
    >>> from steerstats.resampling.questions import question_means
    >>> found = question_means([[1.0, 2.0, 3.0]], None, 0.95)
    >>> found.mean.tolist(), found.ci_low.round(2).tolist(), found.n
    ([2.0], [-0.48], 3)
    """
    values = floats(values)
    mean, covariance, n = mean_covariance(values, questions)
    se = np.sqrt(np.diag(covariance))
    if n < 2:
        return QuestionMeans(mean, se, np.full_like(mean, np.nan), np.full_like(mean, np.nan), n)
    codes, groups = group_codes(questions, values.shape[1])
    df = np.array([question_df(one, codes, groups, level) for one in values])
    return QuestionMeans(mean, se, *t_interval(mean, se, df, level), n)


def wilson_interval(share: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion; `n` may be an effective size.

    Examples
    --------
    >>> from steerstats.resampling.questions import wilson_interval
    >>> [round(limit, 3) for limit in wilson_interval(0.0, 40)]  # none of 40 is not "none"
    [0.0, 0.088]
    """
    if not (0 <= share <= 1 and n > 0):
        raise InputError(f"share is {share!r} of n = {n!r}; a share in [0, 1] of a positive number is needed")
    z = stats.norm.ppf((1 + check_level(level)) / 2)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # The formula reaches 0 and 1 only up to rounding where the share does.
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return float(low), float(high)


def logit_limits(
    mean: np.ndarray, margin: np.ndarray, bounds: tuple[float, float] = (0.0, 1.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Limits inside `bounds` of means with symmetric ones, by the delta method at the mean; a mean on a bound has none.

    Between -1 and 1 this is Fisher's z: z is half a logit, and the half cancels on the way back.

    Examples
    --------
    >>> from steerstats.resampling.questions import logit_limits
    >>> [round(float(limit), 3) for limit in logit_limits(0.95, 0.06)]
    [0.843, 0.985]
    """
    low, high = bounds
    mean, margin = floats(mean), floats(margin)
    room = (mean - low) * (high - mean)
    step = np.divide(margin * (high - low), room, out=np.where(np.isnan(margin), np.nan, 0.0), where=room > 0)
    with np.errstate(divide="ignore", over="ignore"):
        place = np.log((mean - low) / (high - mean))
        below, above = (low + (high - low) / (1 + np.exp(-(place + sign * step))) for sign in (-1, 1))
    return below, above


def check_slopes(slopes: np.ndarray, questions: Sequence | None) -> tuple[np.ndarray, np.ndarray, int]:
    """Slopes of one dataset as floats, with `group_codes`; refused unless all are finite."""
    s = floats(slopes)
    if s.ndim != 1:
        raise InputError(f"slopes have shape {s.shape}; this takes the inputs of one dataset, shape (n,)")
    if s.size == 0:
        raise CannotEstimate("slopes are empty: there is no input to summarise")
    if not np.isfinite(s).all():
        at = int(np.flatnonzero(~np.isfinite(s))[0])
        raise InputError(f"slopes[{at}] is {s[at]}; every slope has to be finite")
    return s, *group_codes(questions, s.size)


def mean_se(values: np.ndarray, codes: np.ndarray, groups: int) -> float:
    """Standard error of a mean over questions, NaN with one."""
    if groups == 1:
        return float("nan")
    sums = np.bincount(codes, weights=values - values.mean())
    return float(np.sqrt(groups / (groups - 1) * (sums @ sums)) / values.size)


def effective_size(inside: np.ndarray, codes: np.ndarray, groups: int, level: float) -> float:
    """Korn–Graubard effective number of independent inputs behind a share (never more than there are)."""
    n, share = inside.size, inside.mean()
    sizes = np.bincount(codes)
    if share in (0.0, 1.0) or groups == 1:
        return n**2 / float(sizes @ sizes)
    clustered = mean_se(inside, codes, groups) ** 2
    independent = share * (1 - share) / (n - 1)
    df = question_df(inside, codes, groups, level)
    few = (stats.norm.ppf((1 + level) / 2) / stats.t.ppf((1 + level) / 2, df)) ** 2
    return n * few / max(clustered / independent, 1.0)
