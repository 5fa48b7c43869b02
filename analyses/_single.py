"""Claims on what every input has, over datasets where there are several and over questions where there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analyses._cache import plain_mean
from analyses._claim import Claim
from analyses._counts import CUT
from analyses._words import number, percent
from steerstats.errors import CannotEstimate
from steerstats.generalization.figure7 import jackknife_limits
from steerstats.generalization.slopes import NO_WIDTH
from steerstats.meta import FEW_REFITS
from steerstats.resampling import correlation_of
from steerstats.resampling.questions import group_codes, wilson_interval
from steerstats.results import SLOPE_UNIT, Estimate
from steerstats.steerability import mean_slope
from steerstats.study import Study

BY_QUESTION = (
    "by question: jackknife on Fisher's z scale, short for skewed slopes (95% intervals covered 92% for lognormal ones "
    "and 79% where a tenth of 30 inputs made the correlation)"
)
SKEWED = "too short for skewed slopes (of 95% intervals 70% to 89% held the truth for lognormal ones, 10 to 500 inputs)"
SQUARED = "too short, since squares are skewed (see how to read the figure)"
SQUARES = (
    "Intervals of the fall in squares are too short: with 5 to 8 datasets whose biases differ, 82–86% held the truth "
    "in simulation and the others lay below it; without any bias, 12–15% showed a change: a rise where slopes vary "
    "less under the debiased vector, a fall where they vary more."
)
LIFTED = "what lies below 0 being used as 0 lifts the mean and its limits, which may lie above the truth"
NOTABLE = 0.1  # of a share: what chance alone would show of it is then said
BENT = 0.025  # p of a bend whose two-sided 95% interval excludes 0, and their false discovery rate over datasets
HALF = 0.5  # of a mean curve's variation: a bend beyond it is large


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


def doubted(found: Estimate, why: str) -> Estimate:
    """The same, whose interval is told with what is wrong with it."""
    return replace(found, method=f"{found.method}; {why}")


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


def correlation_in(x: np.ndarray, y: np.ndarray, questions: Sequence) -> dict[str, float]:
    """A correlation over the inputs of one dataset, jackknifed by question on Fisher's z scale, t(G − 1).

    Fisher's own interval takes the inputs for normal ones, and is far too short for skewed slopes and bent curves.
    Where this one ends, `BY_QUESTION` says.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([0.1, 0.9, 1.8, 3.2, 3.9])
    >>> found = correlation_in(x, np.arange(5.0), range(5))
    >>> round(found["estimate"], 3), round(found["ci_low"], 2), found["n"]
    (0.995, 0.88, 5)
    """
    codes, groups = group_codes(questions, len(x))
    low, high = jackknife_limits(x, y, codes, "pearson", 0.95) if groups > 2 else (np.nan, np.nan)
    return {"estimate": correlation_of(x, y, kind="pearson"), "ci_low": low, "ci_high": high, "n": groups}


def part_whole(multipliers: np.ndarray, widest: float) -> float:
    """Correlation of the slope on |λ| ≤ widest with that on all multipliers, for curves of independent noise.

    Examples
    --------
    >>> round(part_whole(np.array([-1.5, -1, -0.5, 0, 0.5, 1, 1.5]), 0.5), 3)
    0.267
    """
    inside = multipliers[np.abs(multipliers) <= widest]
    return float(np.sqrt(np.square(inside - inside.mean()).sum() / np.square(multipliers - multipliers.mean()).sum()))


def share_in(row: Mapping[str, float], column: str) -> dict[str, float]:
    """A share of the inputs of one dataset with Wilson's interval, on its number of questions."""
    share, n = float(row[column]), int(row["n"])
    low, high = wilson_interval(share, n)
    return {"estimate": share, "ci_low": low, "ci_high": high, "n": n}


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


def range_claims(study: Study, inner: pd.DataFrame, narrow: float) -> tuple[tuple[Claim, Claim], float]:
    """How slopes on |λ| ≤ narrow go with those on the whole grid, and the share of inputs of the other sign.

    Parameters
    ----------
    study : Study
    inner : DataFrame
        Rows of `MultiplierRange` on that range, one a dataset.
    narrow : float
    """
    texts = (
        f"Correlation over inputs of slopes on |λ| ≤ {narrow:g} with slopes on the whole grid",
        f"Inputs whose slope on |λ| ≤ {narrow:g} has the other sign",
    )
    if len(inner) == 1:
        row = inner.iloc[0]
        unit, other = study.units[row["dataset"]], share_in(row, "share_other_sign")
        slopes = unit.fit.range_slope[unit.place(("base", "base"))]
        part = slopes[:, np.flatnonzero(unit.fit.ranges == narrow)[0]]
        same = correlation_in(part, slopes[:, -1], unit.question)
        how = BY_QUESTION if np.isfinite(same["ci_low"]) else "no interval: too few questions, or slopes too alike"
        where = f", in {row['dataset']}:"
        return (
            Claim.row("range.correlation", texts[0] + where, same, "questions", interval=how),
            Claim.row("range.sign", texts[1] + where, other, "questions", unit="share", interval="Wilson"),
        ), other["estimate"]
    same = plain_mean(inner["correlation_with_whole"], "correlation", bounds=(-1.0, 1.0))
    other = plain_mean(inner["share_other_sign"], "share with the other sign", "share")
    return (
        Claim.over_datasets("range.correlation", texts[0], same),
        Claim.over_datasets("range.sign", texts[1], other),
    ), other.estimate


def by_chance(frame: pd.DataFrame) -> str:
    """What a share of non-linear variation has to be held against: that of curves which are straight on average."""
    chance = frame["chance_share"].mean()
    if not chance > NOTABLE * frame["nonlinear_share"].mean():
        return ""
    return f" (by chance, curves that are straight on average would show {percent(chance)})"


def how_bent(study: Study, frame: pd.DataFrame) -> str:
    """The end of a sentence on mean curves that bend: how large that is, and whether noise can be in it."""
    # The rest may owe its share to chance: that of a flat curve is large. Of 40 straight ones, one or more lies beyond
    # its own interval in two of three studies; with one dataset this is whether its interval excludes 0.
    bent = frame[stats.false_discovery_control(frame["p_value"]) <= BENT]
    if bent.empty:
        size = "; here no mean curve is shown to bend"
        if (frame["p_value"] <= BENT).any():
            size += f" at a false discovery rate of {BENT:.1%}, since of several intervals some exclude 0 by chance"
    else:
        most = bent["nonlinear_share"].max()
        size = f", or as here {percent(most)} of its variation" if most > HALF else ": it is systematic, not large"
    # Of a table's scores nobody knows what noise is in them.
    noise = "" if study.kind == "import" else " Logits are deterministic, so misfit is shape, not noise."
    return f"{size} (RMS departure at most {number(frame['rms_departure'].max())} nats).{noise}"
