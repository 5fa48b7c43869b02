"""Effects of nuisance factors as claims: which mean to quote, what cannot be told apart, and which warnings to show."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from scipy import stats

from analyses import _published as published
from analyses._cache import ask, facts_of, plain_mean
from analyses._claim import Claim
from analyses._means import SKEWED, quoted_row
from analyses._words import p_words
from steerstats.meta import MetaAnalysis
from steerstats.mixed.checks import EXACT, SINGULAR
from steerstats.results import SLOPE_UNIT, Estimate
from steerstats.spurious.effects import NO_MIXED
from steerstats.spurious.pooled import RESPONSE
from steerstats.study import Study
from steerstats.study.estimates import POOLED
from steerstats.study.results import SpuriousTable

MEAN = "mean over datasets"  # the row of a figure that is none of the datasets
BARS = (
    "95% intervals, HC2 (CR2 with twins) with Bell–McCaffrey degrees of freedom; the mean over datasets: "
    "Hartung–Knapp t(D − 1), or what the warnings say to read instead."
)
UNTOLD = "which cannot be told apart here"
LETTER, WORD = "letter", "word"
ONE = {"pos_is_a": (LETTER, "A/B explains"), "pos_is_yes": (WORD, "Yes/No explains")}  # where that is all there is
MIXED = (SINGULAR, EXACT, NO_MIXED)
UNSTEERED = re.compile(rf"{POOLED}.* on {RESPONSE['unsteered']}: ")
BELOW = "a share lies below its own interval: resamples of few questions explain more by chance"
SQUARED = "too short, since squares are skewed (see how to read the figure)"
SQUARES = (
    "Intervals of the fall in squares are too short: with 5 to 8 datasets whose biases differ, 82–86% held the truth "
    "in simulation and the others lay below it; without any bias, 12–15% showed a change: a rise where slopes vary "
    "less under the debiased vector, a fall where they vary more."
)


def cannot_tell_apart(results: Mapping[str, Any]) -> list[str]:
    """Datasets in which the word (Yes or No) is determined by the letter (A or B), so that one effect stands for both.

    Parameters
    ----------
    results : mapping of dataset to SpuriousFactors
    """
    return [name for name, one in results.items() if {"pos_is_a", "pos_is_yes"} & set(one.design.aliased)]


def share_words(results: Mapping[str, Any], factors: Collection[str]) -> tuple[str, dict[str, Any]]:
    """What the share of the explained variance is a share of, with what cannot be told apart, as words and as facts.

    Parameters
    ----------
    results : mapping of dataset to SpuriousFactors
    factors : collection of str
        Those that have a share in any dataset; many caches know of one alone.

    Returns
    -------
    text : str
    facts : dict
        `known` names the factors; `untold` the datasets that cannot tell them apart, `untold_everywhere` if all.
    """
    same = cannot_tell_apart(results)
    facts = {"known": [LETTER, WORD], "untold": same, "untold_everywhere": 0 < len(same) == len(results)}
    if not same and len(alone := [name for name in ONE if name in factors]) == 1:
        name, explains = ONE[alone[0]]
        return f"Share of the variance that {explains}", facts | {"known": [name]}
    if not same:
        return "Share of the variance that A/B and Yes/No explain", facts
    told = UNTOLD if len(same) == len(results) else f"which cannot be told apart in {', '.join(same)}"
    return f"Share of the variance that A/B or Yes/No, {told}, explain", facts


def mean_of_adjusted(shares: pd.Series) -> Estimate:
    """Mean over datasets of shares adjusted for chance, which may be below 0: no logit takes these.

    A logit keeps limits off 0, too, so that it is taken only where the plain limits are off it: of three datasets in
    which nothing is explained, one study in twenty has three shares above 0.
    """
    mean = plain_mean(shares, "share explained", "share", bounds=(-math.inf, math.inf))
    if shares.between(0, 1, "neither").all() and (mean.ci_low > 0 or len(shares) < 3):
        return plain_mean(shares, "share explained", "share")
    return mean


def myopic_variance(study: Study) -> Claim:
    """The variance that the paper gives for one dataset, beside which stands ours."""
    sd = ask(study, "steerability")["myopic-reward"]["sd"]
    row = {name: getattr(sd, name) ** 2 for name in ("estimate", "ci_low", "ci_high")} | {"n": sd.n}
    text, unit = "Variance of steerability in myopic-reward:", f"({SLOPE_UNIT})²"
    claim = Claim.row("explained.myopic", text, row, "questions", unit=unit, interval=f"{sd.method}; {SKEWED}")
    return claim.against(published.MYOPIC_VARIANCE, facts_of(study), shift=published.HOME)


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
    told = fit.quoted
    if not told.plain:
        p = 2 * float(stats.t.sf(abs(told.mean / told.se), fit.n - 1)) if told.se > 0 else math.nan
    rows = [
        (".tau", f"SD between datasets of the effect of {name} on steerability (τ):",
         (fit.tau, fit.tau_ci_low, fit.tau_ci_high), "Q-profile interval; REML"),
        (".new", f"Effect of {name} on steerability expected in a new dataset (prediction interval):",
         (fit.mean, fit.prediction_low, fit.prediction_high), "prediction interval, confidence distribution of tau"),
        ("", f"Signed mean of the effect of {name}, in which effects of opposite sign cancel ({p_words(p)}):",
         (told.mean, told.ci_low, told.ci_high), how if told.plain else told.interval),
    ]  # fmt: skip
    if fit.n == 2:
        del rows[1]  # two datasets leave no prediction interval, and without one there is nothing to say of a third
    names, shared = ("estimate", "ci_low", "ci_high"), {"n": fit.n, "unit": fit.unit, "level": fit.level}
    return [
        Claim.row(f"effects.{term}{key}", text, dict(zip(names, values)), "datasets", interval=interval, **shared)
        for key, text, values, interval in rows
    ]


def said_of(result: SpuriousTable, rows: pd.DataFrame, term: str, name: str) -> tuple[pd.DataFrame, list[Claim]]:
    """What there is to draw and to say of one term: its rows, the mean over datasets last, and the claims.

    Parameters
    ----------
    result : SpuriousTable
    rows : DataFrame
        Robust rows of the slope; those of other terms are left out.
    term, name : str
        As the design calls it, and in words ("A rather than B").
    """
    own, key, pooled = rows[rows["term"] == term], ("slope", term), result.over_datasets
    if pooled is not None and key in pooled.pooled:
        fit = pooled.pooled[key]
        claims = effect_claims(term, name, fit, pooled.p_value[key], pooled.method)
        return pd.concat([own, pd.DataFrame([{"dataset": MEAN, **quoted_row(fit)}])], ignore_index=True), claims
    claims = []
    if len(own) == 1:
        one = own.iloc[0]
        text = f"Effect of {name} on steerability, in {one['dataset']} ({p_words(one['p'])}):"
        claims.append(Claim.row(f"effects.{term}", text, one, "inputs", unit=one["unit"], interval=one["se_type"]))
    return own, claims


def plain_singular(warnings: Iterable[str]) -> tuple[str, ...]:
    """The mixed model's boundary warning in words."""
    return tuple(
        f"{text.partition(SINGULAR)[0]}the mixed model in the table estimates a variance or a correlation at the edge "
        "of what is possible; that does not mean that inputs do not differ"
        if SINGULAR in text
        else text
        for text in warnings
    )


def cell_claims(frame: pd.DataFrame) -> list[Claim]:
    """Mean steerability of each kind of positive option in the one dataset there is."""
    names = {"estimate": "mean", "ci_low": "ci_low", "ci_high": "ci_high", "n": "n_questions"}
    claims, words = [], frame["cell"].str.endswith(", neither")
    # Where no input has Yes or No the word tells no kinds apart, and "A" says it all.
    neither = ", neither", "" if words.all() else ", neither Yes nor No"
    for row in frame[frame["mean"].notna()].to_dict("records"):
        text = f"Mean steerability in {row['dataset']} where the positive option is {row['cell'].replace(*neither)}:"
        found = {key: row[name] for key, name in names.items()}
        how = "t interval over questions" if found["ci_low"] == found["ci_low"] else "one question: no interval"
        key = f"option.{row['cell'].replace(', ', '_')}"
        claims.append(Claim.row(key, text, found, "questions", unit=SLOPE_UNIT, interval=how))
    return claims


def of_shown(warnings: Iterable[str]) -> tuple[str, ...]:
    """Warnings without those of the mixed model and of means over datasets, for scripts that show neither."""
    return tuple(text for text in warnings if not _of_mixed(text) and not text.startswith(POOLED))


def of_slopes(result: Any, notes: Sequence[str], claims: Sequence[Claim]) -> dict[str, Any]:
    """Method and warnings without the mixed model and unsteered propensities, for scripts that show neither."""
    method = "; ".join(part for part in result.method.split("; ") if not part.startswith("linear mixed model"))
    about = [text for text in result.warnings if not _of_mixed(text) and not UNSTEERED.match(text)]
    below = any(claim.unit == "share" and claim.estimate < claim.ci_low for claim in claims)
    return {"method": method, "warnings": (*about, *notes, *[BELOW] * below)}


def _of_mixed(text: str) -> bool:
    return any(words in text for words in MIXED)
