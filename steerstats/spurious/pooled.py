"""Steerability bias over datasets: two stages, so that datasets may differ in their bias, never N − p over inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from steerstats.errors import CannotEstimate, check_level, first_few, gathered
from steerstats.meta import MetaAnalysis, mean_over_datasets
from steerstats.results import Result
from steerstats.spurious.effects import NO_VECTOR_ERROR, UNITS, SpuriousFactors

ALONE = "estimated in one dataset only, not pooled"
RESPONSE = {"slope": "steerability", "unsteered": "the unsteered propensity"}
FEW_DF = 20  # of a dataset's effect; chosen by the simulation that `few_df_warning` quotes


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
        agree more closely than their standard errors suggest.
    p_unweighted : mapping of (response, term) to float
        The t test of the unweighted mean on D − 1 degrees of freedom: what to read where `to_read` of the fit says
        "unweighted", because one dataset dominates, standard errors go with the effects, or effects of some rest on few
        degrees of freedom.
    smallest_df : mapping of (response, term) to float
        Fewest degrees of freedom behind a dataset's standard error, which pooling takes as known.
    datasets : DataFrame
        The robust row of every dataset, response and term, with `p_fdr`, its p-value after Benjamini–Hochberg over
        the datasets of that response and term.
    """

    pooled: Mapping[tuple[str, str], MetaAnalysis]
    p_value: Mapping[tuple[str, str], float]
    p_floored: Mapping[tuple[str, str], float]
    p_unweighted: Mapping[tuple[str, str], float]
    smallest_df: Mapping[tuple[str, str], float]
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
                    "unweighted_mean": fit.unweighted_mean,
                    "p_unweighted": self.p_unweighted[response, term],
                    "unweighted_ci_low": fit.unweighted_ci_low,
                    "unweighted_ci_high": fit.unweighted_ci_high,
                    "to_read": fit.to_read,
                    "smallest_df": self.smallest_df[response, term],
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

    Where a dataset's effect has fewer than 20 degrees of freedom (it has few questions, or a level is rare there), a
    warning says that Q, tau and its limits do not hold, and `to_read` of the fit is "unweighted".

    Parameters
    ----------
    datasets : mapping of name to SpuriousFactors
        Fitted with the same factors and interactions; a dataset in which a term was dropped does not inform it.
    category : mapping of name to category, optional
        Leave-one-out then leaves out whole categories.
    terms : sequence of str, optional
        Default: every term but the intercept and the "neither" levels.
    level : float

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
    effects = (term for term in table["term"].unique() if term != "Intercept" and "[" not in term)
    wanted = list(effects if terms is None else terms)
    table = table[table["term"].isin(wanted)].reset_index(drop=True)
    table["p_fdr"] = np.nan
    pooled, smallest, notes = {}, {}, []
    for (response, term), rows in table.groupby(["response", "term"], sort=False):
        tested = rows.index[rows["p"].notna()]
        if tested.size:
            table.loc[tested, "p_fdr"] = stats.false_discovery_control(table.loc[tested, "p"])
        if len(rows) < 2:
            notes.append((response, term, ALONE))
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
            notes.append((response, term, f"not pooled: {error}"))
            continue
        used = rows[rows["se"] > 0]
        smallest[response, term] = float(used["df"].min())
        if said := few_df_warning(dict(zip(used["dataset"], used["df"]))):
            # The floored interval takes the standard errors as known too.
            fit = fit.read_unweighted("effects of some rest on few degrees of freedom", *said)
        pooled[response, term] = fit
        notes += [(response, term, text) for text in fit.warnings]
        if len(rows) < len(datasets):
            notes.append((response, term, f"defined in {len(rows)} of {len(datasets)} datasets"))
    if not pooled:
        none = f"no term of {first_few(wanted) or 'any factor'} is estimated in two datasets"
        raise CannotEstimate("; ".join([none, *_by_text([note for note in notes if note[2] != ALONE])]))
    warnings = _by_text(notes)
    first = ["dataset", "response", "term"]
    return PooledSpuriousFactors(
        pooled=pooled,
        p_value={key: _two_sided(fit, fit.mean, fit.se) for key, fit in pooled.items()},
        p_floored={key: _two_sided(fit, fit.mean, fit.floored_se) for key, fit in pooled.items()},
        p_unweighted={key: _two_sided(fit, fit.unweighted_mean, fit.unweighted_se) for key, fit in pooled.items()},
        smallest_df=smallest,
        datasets=table[first + [name for name in table.columns if name not in first]],
        method="two stages: per-dataset regression (HC2/CR2), then random-effects mean, REML tau, Hartung-Knapp t(D-1)",
        assumptions=(
            "datasets are independent draws from one population; those of one category are not (see leave-one-out)",
            "each dataset's squared standard error is taken as its known variance, though it is estimated",
            "true effects are normal over datasets, which matters most to tau and the prediction interval",
            NO_VECTOR_ERROR,
        ),
        warnings=warnings,
    )


def _by_text(notes: Sequence[tuple[str, str, str]]) -> tuple[str, ...]:
    """(response, term, text) -> "effect of A, B on steerability: text": what holds for many terms is said once."""
    terms = gathered((term, (response, text)) for response, term, text in notes)
    return tuple(
        f"effect of {', '.join(own)} on {RESPONSE[response]}: {text}" for (response, text), own in terms.items()
    )


def few_df_warning(df: Mapping[str, float]) -> tuple[str, ...]:
    """What to warn of where standard errors have few degrees of freedom: pooling takes them as known.

    Parameters
    ----------
    df : mapping of str to float
        Degrees of freedom of each dataset's effect.

    Examples
    --------
    >>> from steerstats.spurious.pooled import few_df_warning
    >>> few_df_warning({"one": 58.0, "two": 38.1})
    ()
    >>> few_df_warning({"one": 58.0, "two": 2.2})[0][:72]
    '1 of 2 datasets have fewer than 20 degrees of freedom (the fewest: 2.2, '
    """
    few = {name: value for name, value in df.items() if value < FEW_DF}
    if not few:
        return ()
    least = min(few, key=few.__getitem__)
    text = (
        f"{len(few)} of {len(df)} datasets have fewer than {FEW_DF} degrees of freedom (the fewest: "
        f"{few[least]:.1f}, in {least}), as questions are few or a level is rare there: their standard errors are "
        "uncertain, and Q, tau with its limits, the prediction and Hartung-Knapp take them as known (with no "
        "difference between 10 datasets Q's 5% test rejected 84% of the time at 1 degree of freedom, 56% at 2, 25% at "
        "5, 12% at 13 and 6% at 38, and the mean's 11%, 12%, 8%, 6% and 6%); read the unweighted mean, whose test "
        "rejected 4-6%"
    )
    return (text,)


def _two_sided(fit: MetaAnalysis, mean: float, se: float) -> float:
    return float(2 * stats.t.sf(abs(mean) / se, fit.n - 1)) if se > 0 else float("nan")
