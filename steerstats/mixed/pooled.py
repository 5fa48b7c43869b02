"""Pooling over few datasets: one mixed model per dataset, then a random-effects meta-analysis of every term."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steerstats.errors import CannotEstimate, InputError, check_level, how_many
from steerstats.meta import SE_TYPE, MetaAnalysis, mean_over_datasets
from steerstats.mixed.arrays import t_statistic
from steerstats.mixed.fit import fit_mixed
from steerstats.results import Result


@dataclass(frozen=True, kw_only=True)
class PooledEffects(Result):
    """Random-effects means over datasets, one per term.

    Parameters
    ----------
    pooled : mapping of term to MetaAnalysis
        In units of the estimate; `n` of each counts the datasets behind it.
    level : float
    """

    pooled: Mapping[str, MetaAnalysis]
    level: float = 0.95

    def to_frame(self) -> pd.DataFrame:
        """One row per term: the columns of `MixedFit.to_frame`, tau, prediction, and each interval `to_read` may name.

        `estimate` and its interval are the random-effects mean's, whatever `to_read` says.
        """
        fits = list(self.pooled.values())
        same = ("se", "ci_low", "ci_high", "n", "tau", "prediction_low", "prediction_high", "hk_factor")
        others = ("floored_ci_low", "floored_ci_high", "unweighted_mean", "unweighted_ci_low", "unweighted_ci_high")
        columns = {name: np.array([getattr(fit, name) for fit in fits]) for name in (*same, *others)}
        estimate, df = np.array([fit.mean for fit in fits]), columns["n"] - 1.0
        statistic, p = t_statistic(estimate, columns["se"], df, np.abs(estimate).max())
        frame = pd.DataFrame({"term": list(self.pooled), "estimate": estimate, "se": columns.pop("se"), "df": df})
        frame = frame.assign(statistic=statistic, p=p, ci_low=columns.pop("ci_low"), ci_high=columns.pop("ci_high"))
        return frame.assign(se_type=SE_TYPE, **columns, to_read=[fit.to_read for fit in fits])


def two_stage(formula: str, frame: pd.DataFrame, by: str = "dataset", *, level: float = 0.95) -> PooledEffects:
    """Fit the same mixed model in each dataset, and pool each of its fixed effects with `mean_over_datasets`.

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
        If fewer than two datasets can be fitted, or no term is estimated in two of them.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.mixed import two_stage
    >>> curves = steerstats.open_cache(steerstats.demo_cache()).curves_frame()
    >>> pooled = two_stage("y ~ lam * pos_is_a + (1 + lam | input)", curves).to_frame().set_index("term")
    >>> row = pooled.loc["lam:pos_is_a", ["ci_low", "ci_high", "tau"]]
    >>> row.astype(float).round(2).tolist()  # mean near 0, datasets far apart
    [-0.14, 0.15, 0.25]
    """
    level = check_level(level)
    if by not in frame.columns:
        raise InputError(f"column {by!r} is not in the frame: {list(frame.columns)}")
    fits, failed = {}, []
    for name, part in frame.groupby(by, sort=False, observed=True):
        try:
            fits[str(name)] = fit_mixed(formula, part)
        except CannotEstimate as error:
            failed.append(f"{by} {name!r} is left out: {error}")
    if len(fits) < 2:
        can = f"{len(fits)} of {how_many(len(fits) + len(failed), 'dataset')} can be fitted, and two are needed"
        raise CannotEstimate("; ".join([can, *failed]))
    pooled, warnings = {}, []
    for term in dict.fromkeys(term for fit in fits.values() for term in fit.terms):
        rows = {name: fit.terms.index(term) for name, fit in fits.items() if term in fit.terms}
        if len(rows) < len(fits):
            warnings.append(f"{term}: {len(fits) - len(rows)} of {len(fits)} datasets do not estimate it")
        effects, errors = (
            np.array([getattr(fits[name], part)[j] for name, j in rows.items()]) for part in ("estimate", "se")
        )
        try:
            pooled[term] = mean_over_datasets(effects, errors**2, names=list(rows), level=level)
        except CannotEstimate as error:
            warnings.append(f"{term} is left out: {error}")
            continue
        warnings += [f"{term}: {text}" for text in pooled[term].warnings]
    if not pooled:
        raise CannotEstimate(f"no term is estimated in two datasets: {'; '.join(warnings)}")
    first = next(iter(pooled.values()))
    return PooledEffects(
        pooled=pooled,
        level=level,
        method=f"{formula} per {by}; then random-effects meta-analysis, REML tau^2, Hartung-Knapp intervals on t(D-1)",
        assumptions=first.assumptions,
        warnings=(*warnings, *failed),
    )
