"""What measurement noise does to per-input slopes, from real replicates only: refitted vectors or paraphrases.

Residuals of a propensity curve are lack of fit, and A/B order is an effect: neither is a replicate, and without
replicates every function here raises. A shift that all inputs share (a refitted vector that is stronger throughout)
does not blur the differences between inputs; it is reported apart and belongs in the interval of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from steerstats.errors import CannotEstimate, InputError, check_level, check_resamples, check_rng
from steerstats.resampling.questions import group_codes, wilson_interval
from steerstats.results import Estimate, Result
from steerstats.rounding import ROUNDING, floats

Kind = Literal["refits", "paraphrases"]
# Share of resamples without reliability past which the corrected share's distribution is not one Wilson's n describes.
OFTEN = 0.025


@dataclass(frozen=True, kw_only=True)
class Reliability(Result):
    """How much of the spread of the measured slopes is a difference between inputs.

    Parameters
    ----------
    reliability : Estimate
        1 − noise variance / variance of the measured slopes; below 0 where the noise is the larger.
    sd_measured, sd_noise, sd_true : float
        SD over inputs of the measured slopes, of their noise, and √max(difference of squares, 0); nats per unit
        multiplier.
    sd_shared : float
        SD over replicates of the shift that all inputs share, for the slope of one replicate. It is part of the
        error of the mean, not of the reliability.
    measured, shrunken : ndarray (n,)
        The slopes, and the same drawn toward their mean by the reliability (clipped to [0, 1]): the best linear
        prediction of each noise-free slope.
    ceiling_correlation, ceiling_r2 : float
        Largest correlation, and R², that a perfect noise-free predictor can reach with the measured slopes.
    n_replicates : int
    kind : str
    """

    reliability: Estimate
    sd_measured: float
    sd_noise: float
    sd_true: float
    sd_shared: float
    measured: np.ndarray
    shrunken: np.ndarray
    ceiling_correlation: float
    ceiling_r2: float
    n_replicates: int
    kind: str

    def to_frame(self) -> pd.DataFrame:
        """One row: the reliability with its interval, the components, the ceilings, the counts."""
        names = ["sd_measured", "sd_noise", "sd_true", "sd_shared", "ceiling_correlation", "ceiling_r2"]
        columns = {name: getattr(self, name) for name in [*names, "n_replicates", "kind"]}
        return self.reliability.to_frame().assign(**columns)


def slope_reliability(
    replicates: np.ndarray,
    *,
    kind: Kind,
    slopes: np.ndarray | None = None,
    questions: Sequence | None = None,
    level: float = 0.95,
) -> Reliability:
    """Reliability of per-input slopes from a replicate axis.

    Parameters
    ----------
    replicates : array (R, n)
        Slopes of the same n inputs in R replicates, R ≥ 2, nats per unit multiplier.
    kind : "refits" or "paraphrases"
        Bootstrap refits of the vector scatter about the full-data vector as it does about the truth: they estimate
        the noise of `slopes` and are never averaged, V = var(s_i), noise = MS(input × refit). Paraphrases are
        independent measurements: the measured slope is their mean, V = MS(inputs)/R, noise = MS(input × paraphrase)/R.
    slopes : array (n,)
        Slopes under the full-data vector; needed for refits, refused for paraphrases.
    questions : sequence (n,), optional

    Returns
    -------
    Reliability
        Interval: jackknife of log(noise/V) by question and by replicate, the variances added, Satterthwaite t. For
        refits the variance that another draw of the full-data vector gives V is added too, as the refits show it.

    Raises
    ------
    CannotEstimate
        Without at least two replicates and three questions, or when measured slopes do not vary.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.steerability.replicates import slope_reliability
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> unit = study.unit("likes-rain")
    >>> refits, own = unit.control_slopes("resampled", "base->base"), unit.slopes.at("base->base")
    >>> found = slope_reliability(refits, kind="refits", slopes=own, questions=unit.question)
    >>> print(found.reliability)
    reliability: 0.895 [0.482, 0.979] (n = 60)
    """
    level = check_level(level)
    z, s = _check(replicates, slopes, kind)
    codes, groups = group_codes(questions, z.shape[1])
    if groups < 3:
        raise CannotEstimate(f"{groups} questions: a reliability needs at least 3")
    measured, variance, noise = _components(z, s)
    if variance <= (ROUNDING * np.abs(measured).max()) ** 2:
        raise CannotEstimate("the measured slopes are all equal: a reliability is not defined")
    value, warnings = 1 - noise / variance, []
    clipped = float(np.clip(value, 0, 1))
    if clipped != value:
        warnings.append("the noise is at least as large as the spread of the slopes: reliability below 0, used as 0")
    low, high = _ratio_limits(z, s, codes, groups, level, warnings)
    shared = z.mean(axis=1).var(ddof=1)
    reliability = Estimate(
        name="reliability",
        estimate=float(value),
        ci_low=float(1 - high),
        ci_high=float(1 - low),
        n=groups,
        level=level,
        method=f"1 − noise/variance from {len(z)} {kind}, jackknife by question and replicate"
        + ("" if s is None else ", and the vector's own draw"),
    )
    return Reliability(
        reliability=reliability,
        sd_measured=float(np.sqrt(variance)),
        sd_noise=float(np.sqrt(noise)),
        sd_true=float(np.sqrt(max(variance - noise, 0.0))),
        sd_shared=float(np.sqrt(shared)),
        measured=measured,
        shrunken=measured.mean() + clipped * (measured - measured.mean()),
        ceiling_correlation=float(np.sqrt(clipped)),
        ceiling_r2=clipped,
        n_replicates=len(z),
        kind=kind,
        method=reliability.method,
        assumptions=("noise has one variance over inputs", "replicates are exchangeable", "questions are independent"),
        warnings=tuple(warnings),
    )


def corrected_anti_steerable(
    replicates: np.ndarray,
    *,
    kind: Kind,
    rng: np.random.Generator,
    slopes: np.ndarray | None = None,
    questions: Sequence | None = None,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """Share of inputs whose noise-free slope is negative.

    Slopes are drawn toward their mean by √reliability, so that their variance is that of the noise-free slopes
    (Louis 1984, doi:10.1080/01621459.1984.10478062; shrinking by the reliability itself would narrow them too far),
    and those below 0 are counted. Interval: Wilson's, with the n that matches the variance over a bootstrap of
    questions and replicates (never above n, so that a share of 0 keeps an interval). Error of a refit that all inputs
    share moves the whole distribution across 0: each draw of refits is shifted by the centred mean of one of them,
    without which intervals are far too short. Where more than one resample in forty has no spread left beyond its
    noise, the interval also takes in the bootstrap quantiles, and a warning says so. In simulation 95% intervals
    covered .97 where vectors do not move the mean, .96 where they do by 0.3 of the noise-free spread, .90 there with 6
    refits for 20.

    Raises
    ------
    CannotEstimate
        As `slope_reliability`; and where the noise is at least as large as the spread of the slopes: drawn in to
        one point, they would all lie on one side of 0 whatever the truth is.

    Examples
    --------
    >>> import numpy as np, steerstats
    >>> from steerstats.steerability.replicates import corrected_anti_steerable
    >>> unit = steerstats.open_cache(steerstats.demo_cache()).unit("plans-ahead")
    >>> refits, own = unit.control_slopes("resampled", "base->base"), unit.slopes.at("base->base")
    >>> rng = np.random.default_rng(0)
    >>> print(corrected_anti_steerable(refits, kind="refits", slopes=own, rng=rng, n_resamples=200))
    anti_steerable_corrected: 0.333 [0.106, 0.677] (n = 60)
    >>> round(float((own < 0).mean()), 3)  # as measured
    0.4
    """
    n_resamples = check_resamples(n_resamples)
    check_rng(rng)
    fitted = slope_reliability(replicates, kind=kind, slopes=slopes, questions=questions, level=level)
    z, s = _check(replicates, slopes, kind)
    if fitted.reliability.estimate <= 0:
        raise CannotEstimate(
            f"the noise is at least as large as the spread of the slopes (SD {fitted.sd_noise:.3g} and "
            f"{fitted.sd_measured:.3g}): the share of negative noise-free slopes cannot be estimated"
        )
    codes, groups = group_codes(questions, z.shape[1])
    members = [np.flatnonzero(codes == g) for g in range(groups)]
    share, _ = _negative_share(z, s)
    means = z.mean(axis=1)  # of paraphrases the drawn ones' own means do the same
    shared = (means - means.mean()) * np.sqrt(len(z) / (len(z) - 1))
    draws, collapsed = np.empty(n_resamples), np.empty(n_resamples, dtype=bool)
    for b in range(n_resamples):
        inputs = np.concatenate([members[g] for g in rng.integers(groups, size=groups)])
        rows = rng.integers(len(z), size=len(z))
        # A drawn set that holds one replicate only says nothing of noise; draw again.
        while (rows == rows[0]).all():
            rows = rng.integers(len(z), size=len(z))
        own = None if s is None else s[inputs] + shared[rng.integers(len(z))]
        draws[b], collapsed[b] = _negative_share(z[np.ix_(rows, inputs)], own)
    sizes = np.bincount(codes)
    most = z.shape[1] ** 2 / float(sizes @ sizes) if share in (0.0, 1.0) else float(z.shape[1])
    spread = draws.var(ddof=1)
    effective = min(share * (1 - share) / spread, most) if spread > 0 and 0 < share < 1 else most
    low, high = wilson_interval(share, effective, level)
    how, warnings = "Wilson, bootstrap effective n", fitted.warnings
    if collapsed.mean() > OFTEN:
        # Wilson's interval knows a normal share; this one jumps to 0 or 1 where the reliability reaches 0.
        ends = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
        low, high = min(low, float(ends[0])), max(high, float(ends[1]))
        how += ", widened to the bootstrap quantiles"
        text = f"{collapsed.mean():.0%} of resamples have no spread beyond their noise: the corrected share says little"
        warnings = (*warnings, text)
    return Estimate(
        name="anti_steerable_corrected",
        estimate=share,
        ci_low=low,
        ci_high=high,
        n=groups,
        level=level,
        method=f"share below 0 of slopes drawn in by √reliability ({len(z)} {kind}); {how}",
        assumptions=("noise-free slopes have the shape of the measured ones", *fitted.assumptions),
        warnings=warnings,
    )


def _check(replicates: np.ndarray, slopes: np.ndarray | None, kind: str) -> tuple[np.ndarray, np.ndarray | None]:
    if kind not in ("refits", "paraphrases"):
        raise InputError(f"kind is {kind!r}; it has to be 'refits' or 'paraphrases'")
    z = floats(replicates)
    if z.ndim != 2 or z.shape[0] < 2:
        raise CannotEstimate(
            f"replicates have shape {z.shape}: noise corrections need at least two refitted vectors or paraphrases, "
            "shape (R, n inputs); residuals of the line are lack of fit and cannot stand in"
        )
    if not np.isfinite(z).all():
        r, i = np.argwhere(~np.isfinite(z))[0]
        raise InputError(f"replicates[{r}, {i}] is {z[r, i]}; every slope has to be finite")
    if kind == "paraphrases":
        if slopes is not None:
            raise InputError("slopes were given with paraphrases; their measured slope is the mean of the replicates")
        return z, None
    s = None if slopes is None else floats(slopes)
    if s is None or s.shape != z.shape[1:] or not np.isfinite(s).all():
        got = None if s is None else s.shape
        raise InputError(f"slopes are {got}; refits need the {z.shape[1]} finite slopes of the full-data vector")
    return z, s


def _components(z: np.ndarray, s: np.ndarray | None) -> tuple[np.ndarray, float, float]:
    """Measured slopes, their variance over inputs, and the noise in that variance."""
    replicates, n = z.shape
    apart = _apart(z)
    if np.abs(apart).max() <= ROUNDING * np.abs(z).max():
        apart = np.zeros_like(apart)
    noise = float((apart**2).sum() / ((replicates - 1) * (n - 1)))
    if s is None:
        mean = z.mean(axis=0)
        return mean, float(mean.var(ddof=1)), noise / replicates
    return s, float(s.var(ddof=1)), noise


def _apart(z: np.ndarray) -> np.ndarray:
    """What neither an input nor a replicate has as a whole."""
    return z - z.mean(axis=0) - z.mean(axis=1, keepdims=True) + z.mean()


def _ratio_limits(
    z: np.ndarray, s: np.ndarray | None, codes: np.ndarray, groups: int, level: float, warnings: list[str]
) -> tuple[float, float]:
    def log_ratio(rows: np.ndarray, inputs: np.ndarray) -> float:
        _, variance, noise = _components(z[np.ix_(rows, inputs)], None if s is None else s[inputs])
        # Deleting a paraphrase must not change the estimand: the noise is that of the mean of all of them.
        factor = rows.size / len(z) if s is None else 1.0
        true = variance - noise
        return np.log(noise * factor) - np.log(max(true + noise * factor, 1e-300)) if noise > 0 else -np.inf

    rows, inputs = np.arange(len(z)), np.arange(z.shape[1])
    centre = log_ratio(rows, inputs)
    by_question = np.array([log_ratio(rows, inputs[codes != g]) for g in range(groups)])
    by_replicate = np.array([])
    if len(z) > 2:
        by_replicate = np.array([log_ratio(rows[rows != r], inputs) for r in rows])
    else:
        warnings.append("two replicates: the interval takes them as given")
    jackknives = [by for by in (by_question, by_replicate) if by.size]
    if not all(np.isfinite(by).all() for by in (*jackknives, np.array([centre]))):
        warnings.append("no noise at all between replicates: no interval")
        return float("nan"), float("nan")
    parts = [((by.size - 1) ** 2 / by.size * by.var(ddof=1), by.size - 1) for by in jackknives]
    if s is not None:
        # Another draw of the full-data vector would move V, as each refit moves it here; what does not go together over
        # questions is in the jackknife by question already.
        moved = 2 * _apart(z) * (s - s.mean()) / (s.size - 1) / s.var(ddof=1)
        moved = np.stack([moved[:, codes == g].sum(axis=1) for g in range(groups)])
        together = moved.sum(axis=0).var(ddof=1) - moved.var(axis=1, ddof=1).sum()
        parts.append((max(together, 0.0), len(z) - 1))
    variance = sum(v for v, _ in parts)
    df = variance**2 / sum(v**2 / of for v, of in parts)
    half = stats.t.ppf((1 + level) / 2, df) * np.sqrt(variance)
    with np.errstate(over="ignore"):  # three questions may tell nothing: a limit is then infinite
        return float(np.exp(centre - half)), float(np.exp(centre + half))


def _negative_share(z: np.ndarray, s: np.ndarray | None) -> tuple[float, bool]:
    """Share below 0 of the slopes drawn in, and whether they were drawn in to one point."""
    measured, variance, noise = _components(z, s)
    keep = np.sqrt(np.clip(1 - noise / variance, 0, 1)) if variance > 0 else 0.0
    return float(np.mean(measured.mean() + keep * (measured - measured.mean()) < 0)), bool(keep == 0)
