"""Does a recomputed number agree with a published one? Only a margin stated beforehand can say so.

A wide interval that happens to contain the published value is not agreement: it cannot say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steerstats.errors import InputError
from steerstats.results import Estimate, Result

MUST_MATCH = ("model", "layer", "split", "scope", "score", "order", "vectors", "multipliers", "datasets", "shift")


@dataclass(frozen=True, kw_only=True)
class Verdict(Result):
    """A published value beside the recomputed one.

    Parameters
    ----------
    claim : str
    verdict : str
        "not comparable", "consistent", "cannot say" or "inconsistent".
    reason : str
        Why, in one sentence.
    published, margin : float
        The published value, and how far off still counts as the same.
    estimate, ci_low, ci_high : float
        Recomputed, with an interval for these very datasets (inputs and vectors resampled).
    n : int
    level : float
    differs_in : tuple of str
        Conditions in which the recomputed study differs from the published one, or that were not stated.
    """

    claim: str
    verdict: str
    reason: str
    published: float
    margin: float
    estimate: float
    ci_low: float
    ci_high: float
    n: int
    level: float
    differs_in: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        names = ("claim", "verdict", "published", "margin", "estimate", "ci_low", "ci_high", "n", "level", "reason")
        return pd.DataFrame({name: [getattr(self, name)] for name in names}).assign(
            differs_in=", ".join(self.differs_in)
        )


def verdict(
    claim: str, published: float, recomputed: Estimate, *, margin: float, matches: Mapping[str, bool]
) -> Verdict:
    """Judge a recomputed value against a published one.

    Parameters
    ----------
    claim : str
        What is claimed, in the paper's words or near them.
    published : float
    recomputed : Estimate
        With an interval for these very datasets.
    margin : float
        Positive, in the unit of the value; fixed before looking.
    matches : mapping of str to bool
        Whether each of `MUST_MATCH` equals what was published: model, layer, split, scope, score, order of the
        options, vectors (how they are made and how they act), multipliers, datasets, shift. A missing key counts as
        different.

    Returns
    -------
    Verdict
        "consistent" when the whole interval is within the margin of the published value, "inconsistent" when all
        of it is outside, "cannot say" between.

    Raises
    ------
    InputError
        If the margin is not positive, or `matches` names an unknown condition.

    Examples
    --------
    >>> from steerstats import Estimate
    >>> from steerstats.generalization import verdict
    >>> ours = Estimate(name="ID-OOD Spearman", estimate=0.86, ci_low=0.8, ci_high=0.91, n=40, method="recomputed")
    >>> same = dict.fromkeys(["model", "layer", "split", "scope", "score", "order", "vectors"], True)
    >>> same |= dict.fromkeys(["multipliers", "datasets", "shift"], True)
    >>> verdict("steerability transfers", 0.891, ours, margin=0.1, matches=same).verdict
    'consistent'
    >>> verdict("steerability transfers", 0.891, ours, margin=0.05, matches=same).verdict
    'cannot say'
    """
    if not margin > 0:
        raise InputError(f"margin is {margin}; a positive distance that still counts as the same is needed")
    unknown = sorted(set(matches) - set(MUST_MATCH))
    if unknown:
        raise InputError(f"matches names {', '.join(unknown)}; the conditions are {', '.join(MUST_MATCH)}")
    differs = tuple(name for name in MUST_MATCH if not matches.get(name, False))
    low, high = recomputed.ci_low, recomputed.ci_high
    near, far = published - margin, published + margin
    if differs:
        found, reason = "not comparable", f"the published study differs in {', '.join(differs)}"
    elif not (np.isfinite(low) and np.isfinite(high)):
        found, reason = "cannot say", "the recomputed value has no finite interval for these very datasets"
    elif near <= low and high <= far:
        found, reason = "consistent", f"the whole interval is within {margin:g} of the published value"
    elif high < near or low > far:
        found, reason = "inconsistent", f"the whole interval is more than {margin:g} from the published value"
    else:
        found, reason = "cannot say", f"the interval reaches both sides of the margin of {margin:g}"
        if near <= recomputed.estimate <= far:
            reason += ", inside which the value itself lies"
        if high - low > 2 * margin:
            reason += "; it is wider than the margin, so that no value could come out consistent with so few data"
    return Verdict(
        claim=claim,
        verdict=found,
        reason=reason,
        published=float(published),
        margin=float(margin),
        estimate=recomputed.estimate,
        ci_low=low,
        ci_high=high,
        n=recomputed.n,
        level=recomputed.level,
        differs_in=differs,
        method=f"interval against the published value ± {margin:g}, stated beforehand; recomputed: {recomputed.method}",
        assumptions=recomputed.assumptions,
        warnings=recomputed.warnings,
    )
