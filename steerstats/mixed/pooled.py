"""Pooling over few datasets: one mixed model per dataset, then random-effects meta-analysis with Hartung-Knapp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from steerstats.errors import CannotEstimate, InputError, check_level
from steerstats.mixed.arrays import as_finite, t_statistic
from steerstats.mixed.fit import fit_mixed
from steerstats.random_effects import prediction_limits, random_effects_mean
from steerstats.results import Result

SE_TYPE = "Hartung-Knapp, t(D-1)"


@dataclass(frozen=True, kw_only=True)
class PooledEffects(Result):
    """Random-effects means over datasets, one per term.

    Parameters
    ----------
    terms : tuple of str
    estimate, se, df, ci_low, ci_high : ndarray, shape (P,)
        Mean over the population of datasets, Hartung-Knapp standard error, D - 1, and interval.
    tau : ndarray, shape (P,)
        Standard deviation between datasets (REML), in units of the estimate.
    prediction_low, prediction_high : ndarray, shape (P,)
        Interval for the effect in a new dataset, NaN with two datasets.
    hk_factor : ndarray, shape (P,)
        Hartung and Knapp's q; far below 1, estimates agree by chance and `se` is too small.
    floored_ci_low, floored_ci_high : ndarray, shape (P,)
        The interval with max(1, q) for q.
    n : ndarray of int, shape (P,)
        Datasets behind each term.
    level : float
    """

    terms: tuple[str, ...]
    estimate: np.ndarray
    se: np.ndarray
    df: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    tau: np.ndarray
    prediction_low: np.ndarray
    prediction_high: np.ndarray
    hk_factor: np.ndarray
    floored_ci_low: np.ndarray
    floored_ci_high: np.ndarray
    n: np.ndarray
    level: float = 0.95

    def to_frame(self) -> pd.DataFrame:
        """One row per term: the columns of `MixedFit.to_frame`, then tau, prediction interval, and floored interval."""
        statistic, p = t_statistic(self.estimate, self.se, self.df, np.abs(self.estimate).max())
        frame = pd.DataFrame({"term": list(self.terms), "estimate": self.estimate, "se": self.se, "df": self.df})
        frame = frame.assign(statistic=statistic, p=p, ci_low=self.ci_low, ci_high=self.ci_high, se_type=SE_TYPE)
        names = ["n", "tau", "prediction_low", "prediction_high", "hk_factor", "floored_ci_low", "floored_ci_high"]
        return frame.assign(**{name: getattr(self, name) for name in names})


def hartung_knapp(
    estimates: np.ndarray,
    se: np.ndarray,
    names: Sequence[str] | None = None,
    *,
    level: float = 0.95,
) -> PooledEffects:
    """Random-effects mean of D estimates with known standard errors, per column.

    `steerstats.meta.mean_over_datasets` says more about one effect; this is the table of many terms.
    Weights 1/(se^2 + tau^2) with tau^2 by REML; variance of the mean by Hartung and Knapp's weighted residual mean
    square, t on D - 1.

    Parameters
    ----------
    estimates, se : ndarray, shape (D,) or (D, P)
        NaN in both marks a dataset in which a term could not be estimated.
    names : sequence of str, optional
        Names of the P columns.
    level : float

    Returns
    -------
    PooledEffects

    Raises
    ------
    InputError
        If shapes disagree or a standard error is not positive.
    CannotEstimate
        If a term has fewer than two datasets.

    References
    ----------
    Hartung and Knapp (2001), doi:10.1002/sim.791; IntHout et al. (2014), doi:10.1186/1471-2288-14-25; Röver,
    Knapp and Friede (2015), doi:10.1186/s12874-015-0091-1, for the factor kept at 1 or above.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.mixed import hartung_knapp
    >>> table = steerstats.open_cache(steerstats.demo_cache()).steerability().to_frame().query("name == 'mean'")
    >>> pooled = hartung_knapp(table["estimate"], table["se"], ["steerability"])
    >>> pooled.to_frame()[["estimate", "ci_low", "ci_high", "tau"]].round(2).values.tolist()
    [[0.15, 0.13, 0.17, 0.03]]
    """
    level = check_level(level)
    y, s = np.asarray(estimates, dtype=float), np.asarray(se, dtype=float)
    if y.shape != s.shape or y.ndim not in (1, 2):
        raise InputError(f"estimates have shape {y.shape}, se {s.shape}: both (D,) or (D, P)")
    y, s = (y[:, None], s[:, None]) if y.ndim == 1 else (y, s)
    terms = tuple(names) if names is not None else tuple(f"x{j}" for j in range(y.shape[1]))
    if len(terms) != y.shape[1]:
        raise InputError(f"{len(terms)} names for {y.shape[1]} columns")
    fits, limits, counts, warnings = [], [], [], []
    for j, term in enumerate(terms):
        there = ~(np.isnan(y[:, j]) & np.isnan(s[:, j]))
        values, errors = as_finite(y[there, j], f"estimates of {term}", 1), as_finite(s[there, j], f"se of {term}", 1)
        if len(values) < 2:
            raise CannotEstimate(f"{term!r} is estimated in {len(values)} dataset; pooling needs two")
        if (errors <= 0).any():
            raise InputError(f"se of {term!r} holds {errors.min():g}; a standard error is positive")
        if not there.all():
            warnings.append(f"{term}: {int((~there).sum())} of {len(there)} datasets do not estimate it")
        fits.append(random_effects_mean(values, errors**2, level))
        counts.append(len(values))
        limits.append(prediction_limits(values, errors**2, level))
        if fits[-1].collapsed:
            warnings.append(f"{term}: {fits[-1].doubt()}")
        if fits[-1].dominated:
            place = np.flatnonzero(there)[fits[-1].largest]
            warnings.append(f"{term}: {fits[-1].dominance(f'dataset {place + 1} of {len(there)}')}")

    def column(name: str) -> np.ndarray:
        return np.array([getattr(fit, name) for fit in fits])

    mean, error, tau, n = column("mean"), column("se"), np.sqrt(column("tau2")), np.array(counts)
    new_low, new_high = np.array(limits).T
    return PooledEffects(
        method="random-effects meta-analysis, REML tau^2, Hartung-Knapp intervals on t(D-1)",
        assumptions=("datasets are independent draws of one population", "dataset effects normal"),
        warnings=tuple(warnings),
        terms=terms,
        estimate=mean,
        se=error,
        df=(n - 1).astype(float),
        ci_low=column("low"),
        ci_high=column("high"),
        tau=tau,
        prediction_low=new_low,
        prediction_high=new_high,
        hk_factor=column("factor"),
        floored_ci_low=column("floored_low"),
        floored_ci_high=column("floored_high"),
        n=n,
        level=level,
    )


def two_stage(formula: str, frame: pd.DataFrame, by: str = "dataset", *, level: float = 0.95) -> PooledEffects:
    """Fit the same mixed model in each dataset, and pool its fixed effects with `hartung_knapp`.

    Parameters
    ----------
    formula : str
        The model of one dataset, "y ~ lam * (pos_is_a + pos_is_yes) + (1 + lam | input)".
    frame : DataFrame
        All datasets.
    by : str
        Column that tells datasets apart.
    level : float

    Returns
    -------
    PooledEffects
        Terms that a dataset cannot estimate (a factor with one level there) are pooled over the others, and
        counted in `warnings`.

    Raises
    ------
    InputError
        If `by` is no column.
    CannotEstimate
        If fewer than two datasets can be fitted.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.mixed import two_stage
    >>> curves = steerstats.open_cache(steerstats.demo_cache()).curves_frame()
    >>> pooled = two_stage("y ~ lam * pos_is_a + (1 + lam | input)", curves).to_frame().set_index("term")
    >>> pooled.loc["lam:pos_is_a", ["ci_low", "ci_high", "tau"]].round(2).tolist()  # mean near 0, datasets far apart
    [-0.14, 0.15, 0.25]
    """
    level = check_level(level)
    if by not in frame.columns:
        raise InputError(f"column {by!r} is not in the frame: {list(frame.columns)}")
    fits, failed = [], []
    for name, part in frame.groupby(by, sort=False, observed=True):
        try:
            fits.append(fit_mixed(formula, part, level=level))
        except CannotEstimate as error:
            failed.append(f"{by} {name!r} is left out: {error}")
    if len(fits) < 2:
        raise CannotEstimate(f"{len(fits)} of {len(fits) + len(failed)} datasets can be fitted. {' '.join(failed)}")
    terms = list(dict.fromkeys(term for fit in fits for term in fit.terms))
    estimates, errors = np.full((2, len(fits), len(terms)), np.nan)
    for d, fit in enumerate(fits):
        columns = [terms.index(term) for term in fit.terms]
        estimates[d, columns], errors[d, columns] = fit.estimate, fit.se
    known = (~np.isnan(estimates)).sum(axis=0) >= 2
    failed += [f"{term} is estimated in one dataset only and left out" for term, ok in zip(terms, known) if not ok]
    pooled = hartung_knapp(
        estimates[:, known], errors[:, known], [term for term, ok in zip(terms, known) if ok], level=level
    )
    return replace(pooled, warnings=(*pooled.warnings, *failed), method=f"{formula} per {by}; then {pooled.method}")
