"""Claims on the shape of propensity curves: how far they bend, and what a narrower range of multipliers shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from analyses._cache import plain_mean
from analyses._claim import Claim
from analyses._shares import share_in
from analyses._words import number, percent
from steerstats.generalization.figure7 import jackknife_limits
from steerstats.resampling import correlation_of
from steerstats.resampling.questions import group_codes
from steerstats.study import Study

BY_QUESTION = (
    "by question: jackknife on Fisher's z scale, short for skewed slopes (95% intervals covered 92% for lognormal ones "
    "and 79% where a tenth of 30 inputs made the correlation)"
)
NOTABLE = 0.1  # of a share: what chance alone would show of it is then said
BENT = 0.025  # p of a bend whose two-sided 95% interval excludes 0, and their false discovery rate over datasets
HALF = 0.5  # of a mean curve's variation: a bend beyond it is large


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


def part_whole(multipliers: np.ndarray, widest: float) -> float:
    """Correlation of the slope on |λ| ≤ widest with that on all multipliers, for curves of independent noise.

    Examples
    --------
    >>> round(part_whole(np.array([-1.5, -1, -0.5, 0, 0.5, 1, 1.5]), 0.5), 3)
    0.267
    """
    inside = multipliers[np.abs(multipliers) <= widest]
    return float(np.sqrt(np.square(inside - inside.mean()).sum() / np.square(multipliers - multipliers.mean()).sum()))


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
