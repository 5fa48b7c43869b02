"""Steerability bias over datasets: two stages, so that datasets may differ in their bias, never N − p over inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from steerstats.errors import CannotEstimate, check_level
from steerstats.meta import MetaAnalysis, mean_over_datasets
from steerstats.results import Result
from steerstats.spurious.effects import NO_VECTOR_ERROR, UNITS, SpuriousFactors


@dataclass(frozen=True, kw_only=True)
class PooledSpuriousFactors(Result):
    """Mean effect of each nuisance factor over datasets.

    Parameters
    ----------
    pooled : mapping of (response, term) to MetaAnalysis
        Random-effects mean, Hartung–Knapp t(D − 1), τ over datasets, prediction for a new dataset.
    p_value : mapping of (response, term) to float
        Two-sided test that the mean is 0, on D − 1 degrees of freedom; NaN where the datasets agree to the last digit.
    p_floored : mapping of (response, term) to float
        The same with the Hartung–Knapp factor kept at 1 or above: what to read where a warning says that datasets
        agree more closely than their standard errors let one expect.
    datasets : DataFrame
        The robust row of every dataset, response and term, with `p_fdr`, its p-value after Benjamini–Hochberg over
        the datasets of that response and term.
    """

    pooled: Mapping[tuple[str, str], MetaAnalysis]
    p_value: Mapping[tuple[str, str], float]
    p_floored: Mapping[tuple[str, str], float]
    datasets: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """One row per response and term, over datasets."""
        rows = []
        for (response, term), fit in self.pooled.items():
            rows.append(
                {
                    "response": response,
                    "term": term,
                    "estimate": fit.mean,
                    "se": fit.se,
                    "df": fit.n - 1,
                    "p": self.p_value[response, term],
                    "ci_low": fit.ci_low,
                    "ci_high": fit.ci_high,
                    "hk_factor": fit.hk_factor,
                    "p_floored": self.p_floored[response, term],
                    "floored_ci_low": fit.floored_ci_low,
                    "floored_ci_high": fit.floored_ci_high,
                    "tau": fit.tau,
                    "tau_ci_low": fit.tau_ci_low,
                    "tau_ci_high": fit.tau_ci_high,
                    "prediction_low": fit.prediction_low,
                    "prediction_high": fit.prediction_high,
                    "n_datasets": fit.n,
                    "se_type": "Hartung-Knapp t(D-1)",
                    "unit": UNITS[response],
                }
            )
        return pd.DataFrame(rows)


def pool_spurious_factors(
    datasets: Mapping[str, SpuriousFactors],
    *,
    category: Mapping[str, str] | None = None,
    terms: Sequence[str] | None = None,
    level: float = 0.95,
) -> PooledSpuriousFactors:
    """Two-stage random-effects mean of every term over the datasets that have it.

    Parameters
    ----------
    datasets : mapping of name to SpuriousFactors
        Fitted with the same factors and interactions; a dataset in which a term was dropped does not inform it.
    category : mapping of name to category, optional
        Leave-one-out then leaves out whole categories.
    terms : sequence of str, optional
        Default: every term but the intercept and the "neither" levels.

    Raises
    ------
    CannotEstimate
        If no term is estimated in two datasets, or models differ in their interactions.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.spurious import pool_spurious_factors, spurious_factors
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> units = {name: study.unit(name) for name in study.datasets}
    >>> fits = {k: spurious_factors(u.slopes.at("base->base"), u.factors(["pos_is_a"])) for k, u in units.items()}
    >>> row = pool_spurious_factors(fits).to_frame().iloc[0]
    >>> row[["ci_low", "ci_high", "tau"]].astype(float).round(2).tolist()  # no mean effect, and large ones that differ
    [-0.14, 0.15, 0.25]
    """
    level = check_level(level)
    if len({fit.interactions for fit in datasets.values()}) > 1:
        raise CannotEstimate("the datasets were fitted with different interactions: their terms do not mean the same")
    frames = [fit.robust_frame().assign(dataset=name) for name, fit in datasets.items()]
    if not frames:
        raise CannotEstimate("there is no dataset to pool")
    table = pd.concat(frames, ignore_index=True)
    wanted = list(terms) if terms is not None else [t for t in table["term"].unique() if _is_effect(t)]
    table = table[table["term"].isin(wanted)].reset_index(drop=True)
    table["p_fdr"] = np.nan
    pooled, p_value, p_floored, warnings = {}, {}, {}, []
    for (response, term), rows in table.groupby(["response", "term"], sort=False):
        tested = rows.index[rows["p"].notna()]
        if tested.size:
            table.loc[tested, "p_fdr"] = multipletests(table.loc[tested, "p"], method="fdr_bh")[1]
        if len(rows) < 2:
            warnings.append(f"{term} of {response} is estimated in one dataset only: not pooled")
            continue
        own = None if category is None else [category[name] for name in rows["dataset"]]
        try:
            fit = mean_over_datasets(
                rows["estimate"].to_numpy(),
                rows["se"].to_numpy() ** 2,
                names=list(rows["dataset"]),
                category=own,
                level=level,
            )
        except CannotEstimate as error:
            warnings.append(f"{term} of {response} is not pooled: {error}")
            continue
        pooled[response, term] = fit
        p_value[response, term] = _two_sided(fit, fit.se)
        p_floored[response, term] = _two_sided(fit, fit.floored_se)
        warnings += [f"{term} of {response}: {text}" for text in fit.warnings]
        if len(rows) < len(datasets):
            warnings.append(f"{term} of {response} is defined in {len(rows)} of {len(datasets)} datasets")
    if not pooled:
        raise CannotEstimate(
            f"no term of {', '.join(wanted) or 'any factor'} is estimated in two datasets: {'; '.join(warnings)}"
        )
    first = ["dataset", "response", "term"]
    return PooledSpuriousFactors(
        pooled=pooled,
        p_value=p_value,
        p_floored=p_floored,
        datasets=table[first + [name for name in table.columns if name not in first]],
        method="two stages: per-dataset regression (HC2/CR2), then random-effects mean, REML tau, Hartung-Knapp t(D-1)",
        assumptions=(
            "datasets are independent draws from one population; those of one category are not (see leave-one-out)",
            "each dataset's squared standard error is taken as its known variance, though it is estimated",
            "true effects are normal over datasets, which matters most to tau and the prediction interval",
            NO_VECTOR_ERROR,
        ),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _two_sided(fit: MetaAnalysis, se: float) -> float:
    return float(2 * stats.t.sf(abs(fit.mean) / se, fit.n - 1)) if se > 0 else float("nan")


def _is_effect(term: str) -> bool:
    return term != "Intercept" and "[" not in term
