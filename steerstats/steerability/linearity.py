"""Are propensity curves straight over a dataset: Hotelling T² on the non-linear contrasts, with its effect size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize, stats

from steerstats.errors import CannotEstimate, InputError, check_level, how_many
from steerstats.resampling.questions import group_codes
from steerstats.results import VECTOR_AS_GIVEN, Result
from steerstats.rounding import floats
from steerstats.steerability.grid import check_grid, refuse_missing

SKEWED_BELOW = 200  # questions from which a skewed curvature hardly matters


@dataclass(frozen=True, kw_only=True)
class LinearityTest(Result):
    """Is the mean propensity curve a straight line, judged by how curves vary over inputs (Hotelling T²).

    Parameters
    ----------
    t_squared, f_statistic, p_value : float
        Hotelling's statistic, its F form, and the p-value on (`df_num`, `df_den`) degrees of freedom.
    distance, distance_low, distance_high : float
        Effect size: Mahalanobis length of the mean non-linear part in units of its spread over questions (over inputs,
        where none are twins), and its interval, by inverting the non-central F at its median and its tails. 0 is
        straight. The length as measured, √(T²/n_questions), is left out: of 12 questions with a true length of 0.3 on
        seven multipliers it is 0.9 on average, and of straight ones as much.
    rms_departure : float
        Root mean square over the grid of the mean curve's departure from its own line, nats. The mean is over inputs;
        T² is about the mean over questions, which differs where some have more inputs than others.
    nonlinear_share : float
        Share of the mean curve's variation over the grid that is not linear, 1 − R² of the mean curve. Inputs bend
        their mean a little by chance, so that it is above 0 where curves are straight on average.
    chance_share : float
        What that share would be by chance alone: the error variance of the mean's non-linear part in its place.
    n, n_questions : int
        Inputs, and independent questions that the test counts.
    """

    t_squared: float
    f_statistic: float
    df_num: int
    df_den: int
    p_value: float
    distance: float
    distance_low: float
    distance_high: float
    rms_departure: float
    nonlinear_share: float
    chance_share: float
    n: int
    n_questions: int
    level: float = 0.95

    def to_frame(self) -> pd.DataFrame:
        """One row with the statistic, the effect sizes and the counts."""
        names = [name for name in self.__dataclass_fields__ if name not in Result.__dataclass_fields__]
        return pd.DataFrame({name: [getattr(self, name)] for name in names})


def linearity_test(
    propensity: np.ndarray,
    multipliers: np.ndarray,
    *,
    questions: Sequence | None = None,
    level: float = 0.95,
    resolution: float = 1e-12,
) -> LinearityTest:
    """Hotelling's T² test, over inputs, of whether the mean propensity curve is straight, with its effect size.

    The m − 2 orthonormal contrasts that are blind to height and slope are averaged within question and tested
    against zero with their own covariance over questions, so unequal variances and correlations along the grid
    are allowed (λ against factor(λ) with independent residuals is not valid here).

    The F distribution is exact for normal contrasts. Skewed ones reject too often, in simulation with seven multipliers
    at 5%: where the curvature alone is lognormal over inputs, .08 with 12 and 20 questions, .07 with 60, .06 with 200;
    where all contrasts are, .19-.29 with 12, .13-.19 with 60, .10-.11 with 200. Below 200 questions contrasts that
    Mardia's test (1970, doi:10.1093/biomet/57.3.519) finds skewed at 1% come with a warning.

    Parameters
    ----------
    propensity : array (n, m)
        Curves of one dataset, nats.
    multipliers : array (m,)
    questions : sequence (n,), optional
        Question of each input; counterbalanced twins share one. Default: every input its own.
    level : float
    resolution : float
        Non-linear contrasts no larger than this share of the largest |propensity| are rounding: curves that show
        nothing else count as exactly linear. Use a small multiple of 1.2e-7 for values that were stored as float32.

    Raises
    ------
    CannotEstimate
        With two multipliers; with no more questions than contrasts, or fewer than three; or when the contrasts have
        no spread in some direction although their mean is not zero.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.steerability import linearity_test
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> unit = study.unit("likes-rain")
    >>> test = linearity_test(unit.propensity[unit.place("base->base")], unit.multipliers, questions=unit.question)
    >>> test.p_value < 0.001, round(test.nonlinear_share, 4)  # bent for certain, and by next to nothing
    (True, 0.0066)
    """
    level, lam = check_level(level), check_grid(multipliers)
    y = floats(propensity)
    if y.ndim != 2 or y.shape[1] != lam.size:
        raise InputError(f"propensity has shape {y.shape}; a linearity test takes (n inputs, {lam.size} multipliers)")
    refuse_missing(y, np.asarray(True), lam, {})
    k = lam.size - 2
    if k < 1:
        raise CannotEstimate("two multipliers cannot show a departure from a line; at least three are needed")
    codes, n_questions = group_codes(questions, y.shape[0])
    contrasts_told = how_many(k, "non-linear contrast")
    # Two units are never skew, so that with one contrast, too, there is nothing to hold their shape against.
    least = max(k + 1, 3)
    if n_questions < least:
        told = f"{how_many(n_questions, 'question')} for {contrasts_told}"
        raise CannotEstimate(f"{told}: Hotelling T² needs at least {least}")
    basis = np.linalg.qr(np.column_stack([np.ones_like(lam), lam, np.eye(lam.size)]))[0][:, 2:]
    contrasts = y @ basis
    counts = np.bincount(codes)
    units = np.column_stack([np.bincount(codes, weights=c) for c in contrasts.T]) / counts[:, None]
    mean, cov = units.mean(axis=0), np.atleast_2d(np.cov(units, rowvar=False))

    line = y.mean(axis=0) - y.mean()
    total = float(line @ line)
    departure = float(np.sum((line @ basis) ** 2))
    scale = max(float(np.abs(y).max()), 1e-300)
    largest = np.abs(contrasts).max()
    exactly_linear = largest <= resolution * scale
    if exactly_linear:  # what is left of them is rounding, and no share of anything
        departure = 0.0
    chance = 0.0 if exactly_linear else float(np.trace(cov)) / n_questions
    warnings = []
    note = "all curves are exactly linear" + (", to within rounding" if largest > 1e-12 * scale else "")
    if exactly_linear:
        t_squared = 0.0
    else:
        # Curves that share one shape differ only by rounding, of float64 or of what was stored, which would pass for an
        # enormous T².
        if np.linalg.matrix_rank(cov, tol=(max(1e-9, resolution) * scale) ** 2, hermitian=True) < k:
            raise CannotEstimate(
                f"the {k} non-linear contrasts vary over inputs in fewer than {k} directions; T² is not defined"
            )
        t_squared = n_questions * float(mean @ np.linalg.solve(cov, mean))
        if n_questions < SKEWED_BELOW and _skewness_p(units) < 0.01:
            warnings.append(
                f"the non-linear contrasts are skewed over {n_questions} questions: the test rejects too often (7-8% "
                f"at 5% for skewed curvature, up to 29% where all contrasts are skewed; 6-11% from {SKEWED_BELOW} "
                "questions on)"
            )
    df_den = n_questions - k
    f_statistic = t_squared * df_den / (k * (n_questions - 1))
    limits = (0.0, 0.0, 0.0) if exactly_linear else _noncentral_f_limits(f_statistic, k, df_den, level)
    distance, low, high = (float(np.sqrt(limit / n_questions)) for limit in limits)
    if high == 0 and not exactly_linear:
        warnings.append(
            "the mean curve is straighter than expected by chance: its distance has an empty interval, shown as 0"
        )
    return LinearityTest(
        t_squared=t_squared,
        f_statistic=f_statistic,
        df_num=k,
        df_den=df_den,
        p_value=float(stats.f.sf(f_statistic, k, df_den)),
        distance=distance,
        distance_low=low,
        distance_high=high,
        rms_departure=float(np.sqrt(departure / lam.size)),
        nonlinear_share=departure / total if total > 0 else float("nan"),
        chance_share=min(chance / total, 1.0) if total > 0 else float("nan"),
        n=y.shape[0],
        n_questions=n_questions,
        level=level,
        method=f"Hotelling T² on {contrasts_told} of the curve, units are questions",
        numbers={"n_contrasts": k},
        assumptions=(
            "contrasts by question are near normal, or many (skewed curvature, 12-60 questions: rejects 7-8% at 5%)",
            "questions are independent",
            VECTOR_AS_GIVEN,
        ),
        warnings=(note,) if exactly_linear else tuple(warnings),
    )


def _skewness_p(units: np.ndarray) -> float:
    """p-value of Mardia's multivariate skewness, with his correction for small samples."""
    n, k = units.shape
    centred = units - units.mean(axis=0)
    products = centred @ np.linalg.solve(centred.T @ centred / n, centred.T)
    correction = (k + 1) * (n + 1) * (n + 3) / (n * ((n + 1) * (k + 1) - 6))
    statistic = n * float((products**3).mean()) / 6 * correction
    return float(stats.chi2.sf(statistic, k * (k + 1) * (k + 2) / 6))


def _noncentral_f_limits(f: float, df_num: int, df_den: int, level: float) -> tuple[float, float, float]:
    """Non-centralities at which the observed F is the median, and at which it sits at the upper and the lower tail."""
    tail = (1 - level) / 2

    def solve(target: float) -> float:
        if stats.f.cdf(f, df_num, df_den) <= target:
            return 0.0
        if f > 1e6:  # scipy's non-central F fails further on; the numerator is by then all non-centrality
            return float(df_num * f * stats.chi2.ppf(1 - target, df_den) / df_den)
        top = 4.0 + 4 * df_num * f
        while stats.ncf.cdf(f, df_num, df_den, top) > target:
            top *= 2
        return optimize.brentq(lambda nc: stats.ncf.cdf(f, df_num, df_den, nc) - target, 1e-12, top)

    return solve(0.5), solve(1 - tail), solve(tail)
