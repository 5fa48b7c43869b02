"""What questions of unequal size do to an interval over questions: how many of them carry it, and its quantile.

Duplicates of a question stay together, so that a few questions may hold a large part of a dataset's inputs (five hold
a third of one of the paper's). A t interval with one degree of freedom a question is then too short.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import integrate, optimize, stats

from steerstats.rounding import floats

__all__ = ["carrying_questions", "question_df", "weight_warnings"]

ENOUGH = 30
"""Questions that carry a mean, from which on t(G - 1) is nearly right: it covered .93-.95 in simulation with 30 that
hold half of 600 inputs, and .91-.93 with two and five that hold a quarter and a third."""
FEW = 10
"""Questions below which the bootstraps and score intervals, which have no such quantile, are said to be too short."""
STEP = 1 / 20  # of the intraclass correlation: a dataset's cells share their quantiles, which change less than that


def carrying_questions(sizes: np.ndarray) -> float:
    """How many questions of one size would make the variance of a mean as uncertain as these do, (Σn²)² / Σn⁴.

    That is where copies of a question give the same answer; where they have nothing in common there are more.

    Examples
    --------
    >>> carrying_questions([1, 1, 1, 1])
    4.0
    >>> round(carrying_questions([30, 30] + 200 * [1]), 1)
    2.5
    """
    squares = np.square(floats(sizes))
    return float(squares.sum() ** 2 / np.square(squares).sum())


def weight_warnings(sizes: np.ndarray, place: str = "") -> tuple[str, ...]:
    """What to say of questions that weigh so unequally that bootstraps over questions, and score intervals, err.

    Examples
    --------
    >>> weight_warnings([30, 30] + 200 * [1], "likes-rain: ")[0][:58]
    'likes-rain: 2 of 202 questions hold 60 of 260 inputs: wher'
    >>> weight_warnings(60 * [2])
    ()
    """
    sizes = np.asarray(sizes)
    carried = carrying_questions(sizes)
    if len(sizes) < FEW or carried >= FEW:
        return ()
    largest = np.sort(sizes)[::-1]
    n_large = max(1, round(carried))
    text = (
        f"{place}{n_large} of {len(sizes)} questions hold {int(largest[:n_large].sum())} of {int(sizes.sum())} inputs: "
        "where copies of a question are answered alike, intervals rest on these few (95% ones by bootstrap covered "
        ".89-.93 in simulation, and those of a share .92-.95)"
    )
    return (text,)


def question_df(values: np.ndarray, codes: np.ndarray, groups: int, level: float) -> float:
    """Degrees of freedom of the t interval over questions whose standard error is that of `questions.mean_se`.

    With questions of one size, or enough that carry the mean, G − 1. Else those whose t quantile is the exact one of
    the studentised mean when an input is μ + question + own part, both normal (a ratio of quadratic forms; Imhof 1961,
    doi:10.1093/biomet/48.3-4.419), with the intraclass correlation that an analysis of variance of the values gives,
    to a twentieth. It covered .95-.96 in simulation where t(G − 1) covered .91-.93: with two and five large questions.

    Parameters
    ----------
    values : array (n,)
    codes : int array (n,)
        Question of each, 0..G−1.
    groups : int
        G.
    level : float
        Of the interval.

    Examples
    --------
    >>> codes = np.repeat(np.arange(202), [30, 30] + 200 * [1])
    >>> alike = np.random.default_rng(0).normal(size=202)[codes]  # copies answer alike
    >>> 1 < question_df(alike, codes, 202, 0.95) < 202 - 1
    True
    """
    sizes = np.bincount(codes).astype(float)
    if groups < 2 or (sizes == sizes[0]).all() or carrying_questions(sizes) >= ENOUGH:
        return groups - 1.0
    n, deviations = values.size, values - values.mean()
    sums = np.bincount(codes, weights=deviations)
    between_squares = float(sums**2 @ (1 / sizes))
    own = max(float(deviations @ deviations) - between_squares, 0.0) / (n - groups)
    usual = (n - sizes @ sizes / n) / (groups - 1)
    shared = max(between_squares / (groups - 1) - own, 0.0) / usual
    if own + shared <= 0:
        return groups - 1.0
    alike = round(shared / (own + shared) / STEP) * STEP
    kinds, counts = np.unique(sizes, return_counts=True)
    return _df_of_sizes(tuple(kinds), tuple(counts.tolist()), alike, level)


@lru_cache(maxsize=4096)
def _df_of_sizes(kinds: tuple[float, ...], counts: tuple[int, ...], alike: float, level: float) -> float:
    """`question_df` where so many questions hold so many inputs each, and copies correlate so much."""
    kinds, counts = np.array(kinds), np.array(counts)
    variances = (1 - alike) * kinds + alike * kinds**2
    most, upper = counts.sum() - 1.0, (1 + level) / 2

    def excess(df: float) -> float:
        return _beyond(stats.t.ppf(upper, df), kinds, counts, variances / variances.max()) - (1 - level)

    if excess(most) <= 0:
        return most
    return 1.0 if excess(1.0) >= 0 else float(optimize.brentq(excess, 1.0, most, rtol=1e-3))


def _beyond(quantile: float, kinds: np.ndarray, counts: np.ndarray, variances: np.ndarray) -> float:
    """P(|mean| > quantile x standard error) for independent question sums e_g ~ N(0, variance of their size)."""
    n, groups = kinds @ counts, counts.sum()
    weight = quantile**2 * groups / (groups - 1)
    # In sums over the questions of one size, scaled to unit length; what is orthogonal to them enters e'e alone.
    ones, share = np.sqrt(counts), kinds * np.sqrt(counts) / n
    form = np.outer(ones, ones) * (1 - weight * counts @ (kinds / n) ** 2)
    form -= weight * (np.eye(len(kinds)) - np.outer(ones, share) - np.outer(share, ones))
    scale = np.sqrt(variances)
    values = np.concatenate([np.linalg.eigvalsh(form * np.outer(scale, scale)), -weight * variances])
    times = np.concatenate([np.ones(len(kinds)), counts - 1.0])
    values, times = values[times > 0], times[times > 0]
    values = values / values.max()

    def integrand(u: float) -> float:
        angle = 0.5 * times @ np.arctan(values * u)
        return float(np.sin(angle) / u * np.exp(-0.25 * times @ np.log1p((values * u) ** 2)))

    return 0.5 + integrate.quad(integrand, 0, np.inf, limit=200)[0] / np.pi
