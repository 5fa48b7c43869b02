"""Claims on means: over datasets where there are several, of the one dataset where there is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analyses._cache import plain_mean
from analyses._claim import Claim
from analyses._shares import CUT
from steerstats.errors import CannotEstimate
from steerstats.generalization.slopes import NO_WIDTH
from steerstats.meta import FEW_REFITS, MetaAnalysis
from steerstats.results import Estimate
from steerstats.steerability import mean_slope
from steerstats.study import Study
from steerstats.study.results import DatasetSteerability

OUTCOMES = {"works": "above 0", "below": "below 0", "undecided": "undecided"}
NO_MEAN = "fewer than two datasets have a standard error above 0"
SKEWED = "too short for skewed slopes (of 95% intervals 70% to 89% held the truth for lognormal ones, 10 to 500 inputs)"
LIFTED = "what lies below 0 being used as 0 lifts the mean and its limits, which may lie above the truth"


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


def signs(means: Iterable[Estimate]) -> dict[str, int]:
    """How many intervals lie above 0 ("works"), below 0 ("below"), and decide nothing ("undecided")."""
    means = list(means)
    above, below = sum(one.ci_low > 0 for one in means), sum(one.ci_high < 0 for one in means)
    return {"works": above, "below": below, "undecided": len(means) - above - below}


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


def own_warnings(result: DatasetSteerability) -> tuple[str, ...]:
    """Warnings about the datasets themselves, for scripts that show no random-effects mean over them."""
    over = result.over_datasets.warnings if result.over_datasets is not None else ()
    return tuple(text for text in result.warnings if text not in over)


def mean_warnings(result: DatasetSteerability) -> tuple[str, ...]:
    """The same and those on which mean to read, for scripts that show it without tau and a prediction."""
    own = own_warnings(result)
    return tuple(text for text in result.warnings if text in own or "read the " in text)


def inputs_claim(
    study: Study, key: str, text: str, values: Mapping[str, np.ndarray], bounds: tuple[float, float]
) -> tuple[Claim, Estimate]:
    """A claim on the mean over inputs: over datasets each counting alike, or in the one dataset there is.

    Inputs for which the quantity is not defined (R² of a constant curve) are left out, and the claim says how many.

    Parameters
    ----------
    study : Study
    key, text : str
        The text without its end.
    values : mapping of dataset to ndarray (n_inputs,)
    bounds : (float, float)
        Range of the quantity.
    """
    known = {name: np.isfinite(one) for name, one in values.items()}
    total, defined = (sum(count(one) for one in known.values()) for count in (len, np.count_nonzero))
    if not defined:
        raise CannotEstimate(f"{text} is defined for none of {total} inputs")
    if defined < total:
        text = f"{text} ({total - defined} of {total} inputs, for which it is not defined, left out)"
    if len(values) > 1:
        means = [one[known[name]].mean() if known[name].any() else np.nan for name, one in values.items()]
        found = plain_mean(means, key, bounds=bounds)
        return Claim.over_datasets(key, text, found, over="inputs"), found
    ((name, own),) = values.items()
    inside = known[name]
    found = replace(mean_slope(own[inside], questions=study.units[name].question[inside]), unit="1")
    low, high = max(found.ci_low, bounds[0]), min(found.ci_high, bounds[1])
    if found.n > 1:
        flat = f"; {NO_WIDTH}" if found.se == 0 else ""
        found = replace(found, ci_low=low, ci_high=high, method=f"t interval over {found.n} questions{flat}")
    else:
        found = replace(found, method="one question: no interval")
    return Claim.of(key, f"{text}, mean over inputs, in {name}:", found, "questions"), found


def mean_or_own(
    key: str,
    text: str,
    found: Estimate,
    rows: pd.DataFrame,
    how: str = "one dataset: no interval",
    end: str = "",
    **more: Any,
) -> Claim:
    """A claim on the mean over datasets, or on the one dataset there is with its own interval where it has one.

    Parameters
    ----------
    key, text : str
        The text without its end.
    found : Estimate
        Over datasets.
    rows : DataFrame
        One row a dataset: dataset, estimate, n (questions) and, where there is an interval of its own, its limits.
    how : str
        What that interval is.
    end : str
        What the text says last.
    **more
        Further fields of the claim.
    """
    if len(rows) != 1:
        return Claim.over_datasets(key, text, found, end=end, **more)
    row = {"ci_low": np.nan, "ci_high": np.nan} | dict(rows.iloc[0])
    text = f"{text}, in {row['dataset']}{end}:"
    return Claim.row(key, text, row, "questions", unit=found.unit, interval=how, **more)


def doubted(found: Estimate, why: str) -> Estimate:
    """The same, whose interval is told with what is wrong with it."""
    return replace(found, method=f"{found.method}; {why}")


def error_claims(frame: pd.DataFrame, reliable: pd.DataFrame) -> tuple[Claim, Claim]:
    """By what factor the vector's own error widens the mean's interval, and the reliability of slopes.

    A reliability below 0 says that the refits differ by more than the inputs do: it is used as 0, since no share of a
    spread is below it.

    Parameters
    ----------
    frame : DataFrame
        dataset, n, times_wider.
    reliable : DataFrame
        Rows of `Study.reliability`, one a dataset.
    """
    wider = plain_mean(frame["times_wider"], "times wider", bounds=(0.0, np.inf))
    own = frame[["dataset", "n"]].assign(estimate=frame["times_wider"])
    refits = int(reliable["n_replicates"].min())
    few = f" (a rough figure: only {refits} refits tell that error)" if refits < FEW_REFITS else ""
    text = f"Factor by which counting the vector's own error widens the interval of mean steerability{few}"
    below, n = int((reliable["estimate"] < 0).sum()), len(reliable)
    where = "" if n == 1 else f" in {below} of {n} datasets"
    zero = f" (below 0{where}, used as 0)" if below else ""
    cut = reliable.assign(**{name: reliable[name].clip(0.0, 1.0) for name in ("estimate", "ci_low", "ci_high")})
    share = plain_mean(cut["estimate"], "reliability", "share")
    if below and n > 1:  # a single one far below 0 would decide a mean of what is not cut
        share = doubted(share, LIFTED)
    spread = f"Share of the variance of slopes that lies between inputs and not between refits{zero}"
    how = f"jackknife by question and replicate, and the vector's own draw{f'; {CUT}' if below else ''}"
    return (
        mean_or_own("vector_error.wider", text, wider, own, facts={"few_refits": refits} if few else {}),
        mean_or_own("vector_error.reliability", spread, share, cut, how),
    )
