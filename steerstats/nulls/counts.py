"""How many datasets so many null vectors can show to differ, and at least how many do, all of them taken together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from steerstats.errors import InputError, check_count, check_level
from steerstats.rounding import floats

ROUNDING = 1e-9


def null_vectors_needed(n_datasets: int, alpha: float = 0.05) -> int:
    """Null vectors with which one dataset alone could pass: the smallest R >= D / alpha − 1.

    Examples
    --------
    >>> from steerstats.nulls import null_vectors_needed
    >>> null_vectors_needed(40)  # one of forty datasets, at 5%
    799
    """
    n_datasets, alpha = check_count("n_datasets", n_datasets), check_level(alpha, "alpha", such_as=0.05)
    return int(np.ceil(n_datasets / alpha - 1 - ROUNDING))


def shown_together(n_null: int, n_datasets: int, alpha: float = 0.05) -> int:
    """Fewest datasets that R null vectors can show to differ, jointly: 1 / (R + 1) has to pass Benjamini–Hochberg.

    More than there are where none could be shown.

    Examples
    --------
    >>> from steerstats.nulls import shown_together
    >>> shown_together(19, 14), shown_together(18, 14), shown_together(279, 14)
    (14, 15, 1)
    """
    n_null, n_datasets = check_count("n_null", n_null), check_count("n_datasets", n_datasets)
    return int(np.ceil(n_datasets / check_level(alpha, "alpha", such_as=0.05) / (n_null + 1) - ROUNDING))


def differ_at_least(p: Sequence[float], alpha: float = 0.05) -> int:
    """Number of hypotheses that are false, at least, with confidence 1 − alpha; which ones they are is left open.

    Where single p-values are too large to pass beside each other, as those among few null vectors are, they still say
    this together. It is the largest u up to which every claim that fewer than v = 1, ..., u are false is rejected, by
    Fisher's combination of the D − v + 1 largest p-values.

    Parameters
    ----------
    p : sequence of float, of shape (n_hypotheses,)
        Independent p-values, which may be discrete: that makes the number smaller, not too large.
    alpha : float

    Returns
    -------
    int

    Raises
    ------
    InputError
        If there is none, or one is not above 0 and at most 1.

    References
    ----------
    Benjamini & Heller (2008), Screening for partial conjunction hypotheses, doi:10.1111/j.1541-0420.2007.00984.x.

    Examples
    --------
    >>> from steerstats.nulls import differ_at_least
    >>> differ_at_least([1 / 20] * 14)  # the strongest among 19 null vectors, in each of 14 datasets
    14
    >>> differ_at_least([1 / 20] * 11 + [0.1, 0.15, 0.45]), differ_at_least([0.3] * 14)
    (11, 0)
    """
    p = np.sort(floats(p).ravel())
    if not len(p) or not ((p > 0) & (p <= 1)).all():
        raise InputError(f"p is {p.tolist()}; p-values above 0 and at most 1 are needed")
    alpha = check_level(alpha, "alpha", such_as=0.05)
    combined = -2 * np.log(p[::-1]).cumsum()[::-1]  # of the largest, the largest but one and it, ... all
    # A p of exactly alpha counts, as in `null_table`: rounding must not decide.
    rejected = stats.chi2.sf(combined, 2 * np.arange(len(p), 0, -1)) <= alpha * (1 + ROUNDING)
    return int(np.cumprod(rejected).sum())


def with_t_tail(p: np.ndarray, questions: np.ndarray) -> np.ndarray:
    """P-values of half flips as what they stand for, a t test over so many training questions and not a z test.

    Few questions have few halves, which the vector beats all at once however many shuffles there are: of n in 2^(-n/2)
    of cases (exactly so of 2 and of 4, and somewhat more often from 6 on). No p stands for less.

    Parameters
    ----------
    p : ndarray of shape (n,)
        Two-sided.
    questions : ndarray of shape (n,)
        Training questions, or as many of one size as carry the vector; NaN where they are not known, and p stays.

    Examples
    --------
    >>> import numpy as np
    >>> from steerstats.nulls.counts import with_t_tail
    >>> with_t_tail(np.array([0.05, 0.05, 0.001, 0.05]), np.array([8, 60, 8, np.nan])).round(3).tolist()
    [0.091, 0.055, 0.062, 0.05]
    """
    questions = floats(questions)
    known = np.isfinite(questions)
    n = np.where(known, questions, 2)
    wide = 2 * stats.t.sf(stats.norm.isf(np.asarray(p) / 2), np.maximum(n, 2) - 1)
    return np.where(known, np.maximum(wide, 0.5 ** (n // 2)), p)
