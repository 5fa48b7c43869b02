"""Claims on shares of inputs or of a variance, which lie between 0 and 1."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from analyses._claim import Claim
from steerstats.resampling.questions import wilson_interval
from steerstats.results import Estimate

CUT, ROUNDING = "limits cut at 0 and 100%, between which a share lies", 1e-12
IMPOSSIBLE = "no interval: it would lie below 0, where no share can"
WRONG = "Share of inputs steered the wrong way"
FALLS = "Share of inputs whose propensity falls as the direction is taken out"  # operator ablate


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


def share_in(row: Mapping[str, float], column: str) -> dict[str, float]:
    """A share of the inputs of one dataset with Wilson's interval, on its number of questions."""
    share, n = float(row[column]), int(row["n"])
    low, high = wilson_interval(share, n)
    return {"estimate": share, "ci_low": low, "ci_high": high, "n": n}
