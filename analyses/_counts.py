"""Counts and words that several claims share: outcomes by sign, shares over datasets, p-values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from analyses._claim import Claim
from steerstats.meta import MetaAnalysis
from steerstats.mixed.checks import EXACT, SINGULAR
from steerstats.nulls import CANNOT_RESOLVE, DIFFERS, NOT_SHOWN
from steerstats.results import Estimate
from steerstats.spurious.effects import NO_MIXED
from steerstats.spurious.pooled import RESPONSE
from steerstats.study.estimates import POOLED
from steerstats.study.results import DatasetSteerability

OUTCOMES = {"works": "above 0", "below": "below 0", "undecided": "undecided"}
DECISIONS = {DIFFERS: "differ", NOT_SHOWN: "not shown to differ", CANNOT_RESOLVE: "cannot be resolved"}
MIXED = (SINGULAR, EXACT, NO_MIXED)
UNSTEERED = re.compile(rf"{POOLED}.* on {RESPONSE['unsteered']}: ")
BELOW = "a share lies below its own interval: resamples of few questions explain more by chance"
NO_MEAN = "fewer than two datasets have a standard error above 0"
CUT, ROUNDING = "limits cut at 0 and 100%, between which a share lies", 1e-12
IMPOSSIBLE = "no interval: it would lie below 0, where no share can"
WRONG = "Share of inputs steered the wrong way"
FALLS = "Share of inputs whose propensity falls as the direction is taken out"  # operator ablate


def sign_claims(result: DatasetSteerability) -> list[Claim]:
    """In how many datasets the vector works, works the wrong way, or neither is known; again with its own error."""
    claims = []
    inputs = [one["mean"] for one in result.results.values()]
    for key, means, doubt in (
        ("", inputs, ""),
        ("_refits", result.vector_error.values(), ", with the vector's own error"),
    ):
        if means:
            text = f"Datasets by where the 95% interval of mean steerability over their inputs lies{doubt}:"
            counts = {OUTCOMES[side]: count for side, count in signs(means).items()}
            why = "a count; each interval is for its dataset alone"
            claims.append(Claim.counted(f"per_input.signs{key}", text, counts, "datasets", why))
    return claims


def quoted_row(fit: MetaAnalysis) -> dict[str, float]:
    """The mean to read as the rows of frames have it."""
    told = fit.quoted
    return {"estimate": told.mean, "ci_low": told.ci_low, "ci_high": told.ci_high, "n": fit.n, "level": fit.level}


def mean_claim(result: DatasetSteerability, key: str = "per_input.mean", under: str = "base → base") -> Claim:
    """Mean steerability over datasets, the row that its warnings say to read; or in the one dataset that there is."""
    text, over = f"Mean steerability under {under},", result.over_datasets
    if over is None and len(result.results) > 1:
        return Claim.absent(key, f"{text} mean over datasets:", NO_MEAN)
    if over is None:
        ((name, one),) = result.results.items()
        mean = result.vector_error.get(name, one["mean"])
        return Claim.of(key, f"{text} in {name}:", mean, "questions")
    shared = {"unit": over.unit, "interval": over.quoted.interval}
    return Claim.row(key, f"{text} {over.quoted.name} over datasets:", quoted_row(over), "datasets", **shared)


def signs(means: Iterable[Estimate]) -> dict[str, int]:
    """How many intervals lie above 0 ("works"), below 0 ("below"), and decide nothing ("undecided")."""
    means = list(means)
    above, below = sum(one.ci_low > 0 for one in means), sum(one.ci_high < 0 for one in means)
    return {"works": above, "below": below, "undecided": len(means) - above - below}


def p_words(p: float, kind: str = "") -> str:
    """ "p = 0.03", and never a p of exactly 0 or 1; with too few units to permute there is none."""
    if math.isnan(p):
        return f"no {kind}p-value"
    return kind + ("p > 0.99" if p > 0.99 else "p < 0.001" if p < 0.001 else f"p = {p:.2g}")


def in_range(claim: Claim) -> Claim:
    """A share's claim with limits cut at 0 and 1, and saying so where that changes them.

    An adjusted share can itself be a little below 0 where nothing is explained; its lower limit is then left as it is,
    so that it stays between the two. Limits that are both below 0 hold no share at all, and are left out.
    """
    if claim.ci_high < 0:
        return replace(claim, ci_low=math.nan, ci_high=math.nan, interval=IMPOSSIBLE)
    low = max(claim.ci_low, 0.0) if claim.estimate >= 0 else claim.ci_low
    high = min(claim.ci_high, 1.0)
    if max(low - claim.ci_low, claim.ci_high - high) > ROUNDING:
        return replace(claim, ci_low=low, ci_high=high, interval=f"{claim.interval}; {CUT}")
    return claim


def share_claims(
    keys: tuple[str, str],
    text: str,
    mean: Estimate,
    most: Mapping[str, Any],
    how: str,
    of: str = "questions",
    facts: Mapping[str, Any] | None = None,
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
    facts : mapping, optional
        Of the first claim.
    """
    facts, where = dict(facts or {}), {"dataset": most["dataset"]}
    shared = {"unit": "share", "n_of": of}
    if mean.n == 1:
        text = f"{text}, in {most['dataset']}:"
        return [in_range(Claim.row(keys[0], text, most, interval=how, facts=facts | where, **shared))]
    if most["estimate"] > mean.estimate:
        how += "; not adjusted for picking the largest"
        text_most = f"{text}, where it is largest, in {most['dataset']}, picked after looking:"
    else:  # nothing was picked
        text_most = f"{text}, alike in all datasets, here of {most['dataset']}:"
    return [
        in_range(Claim.over_datasets(keys[0], text, mean, facts=facts)),
        in_range(Claim.row(keys[1], text_most, most, interval=how, facts=where, **shared)),
    ]


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


def own_warnings(result: DatasetSteerability) -> tuple[str, ...]:
    """Warnings about the datasets themselves, for scripts that show no random-effects mean over them."""
    over = result.over_datasets.warnings if result.over_datasets is not None else ()
    return tuple(text for text in result.warnings if text not in over)
