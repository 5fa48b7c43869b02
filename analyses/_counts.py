"""Counts and words that several claims share: outcomes by sign, p-values, and factors that cannot be told apart."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from scipy import stats

from analyses._claim import Claim
from steerstats.meta import MetaAnalysis
from steerstats.nulls import CANNOT_RESOLVE, DIFFERS, NOT_SHOWN
from steerstats.random_effects import DOMINANT
from steerstats.results import Estimate
from steerstats.study_results import DatasetSteerability

OUTCOMES = {"works": "above 0", "below": "below 0", "undecided": "open"}
DECISIONS = {DIFFERS: "differ", NOT_SHOWN: "not shown to differ", CANNOT_RESOLVE: "cannot be resolved"}
UNTOLD = "which cannot be told apart here"
ONE = {"pos_is_a": "A/B explains", "pos_is_yes": "Yes/No explains"}  # where one factor is all that is known
SINGULAR = "singular in lme4's sense"
POOLED = "over datasets: "  # how warnings about a mean over datasets begin
CUT, ROUNDING = "limits cut at 0 and 100%, between which a share lies", 1e-12
LARGEST, CHOSEN = ", where it is largest, in ", ", picked after looking:"  # the statement of an extreme


def sign_claims(result: DatasetSteerability) -> list[Claim]:
    """In how many datasets the vector works, works the wrong way, or neither is known; again with its own error."""
    claims = []
    inputs = [one["mean"] for one in result.results.values()]
    for key, means, doubt in (
        ("", inputs, "over inputs"),
        ("_refits", result.vector_error.values(), "over inputs, with the vector's own error"),
    ):
        if means:
            text = f"Datasets by where the 95% interval of their mean steerability lies, {doubt}:"
            counts = {OUTCOMES[side]: count for side, count in signs(means).items()}
            why = "a count of intervals that are not simultaneous"
            claims.append(Claim.counted(f"per_input.signs{key}", text, counts, "datasets", why))
    return claims


class Recommended(NamedTuple):
    """The row of a meta-analysis that is to be read: the one that its own warnings name, where it has any.

    `interval` is None where the row is the random-effects mean with its plain interval.
    """

    mean: float
    se: float
    low: float
    high: float
    name: str
    interval: str | None

    @property
    def row(self) -> dict[str, float]:
        """As the rows of frames have it."""
        return {"estimate": self.mean, "ci_low": self.low, "ci_high": self.high}


def recommended(fit: MetaAnalysis) -> Recommended:
    """Which mean and interval to quote: unweighted where one dataset dominates, floored where agreement is chance."""
    if fit.to_read == "unweighted":
        dominated = fit.largest_weight > DOMINANT
        why = "one dataset holds more than half of the weight" if dominated else "standard errors of some are uncertain"
        how = f"t(D − 1) over datasets, unweighted, since {why}"
        limits = fit.unweighted_ci_low, fit.unweighted_ci_high
        return Recommended(fit.unweighted_mean, fit.unweighted_se, *limits, "unweighted mean", how)
    if fit.to_read == "floored":
        how = "Hartung–Knapp t(D − 1) over datasets, floored, since the plain interval is short by chance"
        limits = fit.floored_ci_low, fit.floored_ci_high
        return Recommended(fit.mean, fit.floored_se, *limits, "random-effects mean", how)
    return Recommended(fit.mean, fit.se, fit.ci_low, fit.ci_high, "random-effects mean", None)


def signs(means: Iterable[Estimate]) -> dict[str, int]:
    """How many intervals lie above 0 ("works"), below 0 ("below"), and decide nothing ("undecided")."""
    means = list(means)
    above, below = sum(one.ci_low > 0 for one in means), sum(one.ci_high < 0 for one in means)
    return {"works": above, "below": below, "undecided": len(means) - above - below}


def p_words(p: float) -> str:
    """ "p = 0.03", and never a p of exactly 0 or 1; with too few units to permute there is none."""
    if math.isnan(p):
        return "no p-value"
    return "p > 0.99" if p > 0.99 else "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def cannot_tell_apart(results: Mapping[str, Any]) -> list[str]:
    """Datasets in which the word (Yes or No) is determined by the letter (A or B), so that one effect stands for both.

    Parameters
    ----------
    results : mapping of dataset to SpuriousFactors
    """
    told = ("pos_is_yes is determined by", "pos_is_a is determined by")
    return [name for name, one in results.items() if any(text.startswith(told) for text in one.warnings)]


def share_words(results: Mapping[str, Any], factors: Collection[str]) -> str:
    """What the share of the explained variance is a share of, with what cannot be told apart.

    Parameters
    ----------
    results : mapping of dataset to SpuriousFactors
    factors : collection of str
        Those that have a share in any dataset; many caches know of one alone.
    """
    same = cannot_tell_apart(results)
    if not same and len(alone := [name for name in ONE if name in factors]) == 1:
        return f"Share of the variance that {ONE[alone[0]]}"
    if not same:
        return "Share of the variance that A/B and Yes/No explain"
    told = UNTOLD if len(same) == len(results) else f"which cannot be told apart in {', '.join(same)}"
    return f"Share of the variance that A/B or Yes/No, {told}, explain"


def in_range(claim: Claim) -> Claim:
    """A share's claim with limits cut at 0 and 1, and saying so where that changes them.

    An adjusted share can itself be a little below 0 where nothing is explained; its lower limit is then left as it is,
    so that it stays between the two.
    """
    low = max(claim.ci_low, 0.0) if claim.estimate >= 0 else claim.ci_low
    high = min(claim.ci_high, 1.0)
    if max(low - claim.ci_low, claim.ci_high - high) > ROUNDING:
        return replace(claim, ci_low=low, ci_high=high, interval=f"{claim.interval}; {CUT}")
    return claim


def share_claims(
    keys: tuple[str, str], text: str, mean: Estimate, most: Mapping[str, Any], how: str, of: str = "questions"
) -> list[Claim]:
    """Mean share over datasets and the largest one; with one dataset, its own share with its own interval.

    Parameters
    ----------
    keys : (str, str)
        Of the mean and of the largest.
    text : str
        What is shared, as a sentence begins.
    mean : Estimate
        Over datasets.
    most : mapping
        The row of the dataset with the most: dataset, estimate, ci_low, ci_high, n.
    how : str
        What that row's interval is.
    of : str
        What that row's n counts: "inputs" or "questions", of which a counterbalanced dataset has half as many.
    """
    if mean.n == 1:
        return [in_range(Claim.row(keys[0], f"{text}, in {most['dataset']}:", most, of, unit="share", interval=how))]
    how += "; it does not allow for the choice"
    text_most = f"{text}{LARGEST}{most['dataset']}{CHOSEN}"
    return [
        in_range(Claim.of(keys[0], f"{text}, mean over datasets:", mean, "datasets")),
        in_range(Claim.row(keys[1], text_most, most, of, unit="share", interval=how)),
    ]


def one_for_both(name: str, results: Mapping[str, Any]) -> str:
    """The name of a factor's effect, with the factor that it cannot be told from."""
    if not cannot_tell_apart(results):
        return name
    return f"{name} (letter or word: {UNTOLD if len(results) == 1 else 'not told apart in every dataset'})"


def effect_claims(term: str, name: str, fit: MetaAnalysis, p: float, how: str) -> list[Claim]:
    """What is said of one effect over datasets: its spread, where a new dataset would lie, and the signed mean.

    The signed mean stands last: datasets with effects of either sign average to nothing, which is no absence of bias.
    `p` and `how` are those of the plain interval; where the fit's warnings name another row, that row is quoted.
    """
    told = recommended(fit)
    if told.interval is not None:
        p = 2 * float(stats.t.sf(abs(told.mean / told.se), fit.n - 1)) if told.se > 0 else math.nan
    shared = {"n": fit.n, "n_of": "datasets", "unit": fit.unit, "level": fit.level}
    return [
        Claim(
            key=f"effects.{term}.tau",
            statement=f"SD between datasets of the effect of {name} on steerability (τ):",
            estimate=fit.tau,
            ci_low=fit.tau_ci_low,
            ci_high=fit.tau_ci_high,
            interval="Q-profile interval; REML",
            **shared,
        ),
        Claim(
            key=f"effects.{term}.new",
            statement=f"Range in which the effect of {name} would lie in a new dataset, about its mean:",
            estimate=fit.mean,
            ci_low=fit.prediction_low,
            ci_high=fit.prediction_high,
            interval="prediction interval, confidence distribution of tau"
            if fit.n > 2
            else "no prediction interval from two datasets",
            **shared,
        ),
        Claim(
            key=f"effects.{term}",
            statement=f"Signed mean of the effect of {name}, in which effects of either sign cancel ({p_words(p)}):",
            estimate=told.mean,
            ci_low=told.low,
            ci_high=told.high,
            interval=told.interval or how,
            **shared,
        ),
    ]


def of_shown(warnings: Iterable[str]) -> tuple[str, ...]:
    """Warnings without those of the mixed model and of means over datasets, for scripts that show neither."""
    return tuple(text for text in warnings if SINGULAR not in text and not text.startswith(POOLED))


def own_warnings(result: DatasetSteerability) -> tuple[str, ...]:
    """Warnings about the datasets themselves, for scripts that show no random-effects mean over them."""
    over = result.over_datasets.warnings if result.over_datasets is not None else ()
    return tuple(text for text in result.warnings if text not in over)


def plain_singular(warnings: Iterable[str]) -> tuple[str, ...]:
    """The mixed model's boundary warning in words."""
    return tuple(
        f"{text.partition(SINGULAR)[0]}the mixed model in the table estimates a variance or a correlation at the edge "
        "of what is possible; that does not mean that inputs do not differ"
        if SINGULAR in text
        else text
        for text in warnings
    )
