"""Permutation tests on exchangeable units, all with p = (1 + #{as extreme}) / (1 + arrangements looked at).

With few units every other arrangement is looked at, once: draws of the few there are could miss by chance those that
are as extreme, and give a p-value that no arrangement of so few units can show. Else `n_permutations` are drawn.

Source of the added one: Phipson & Smyth (2010, doi:10.2202/1544-6115.1585).
"""

from __future__ import annotations

import math
from itertools import combinations, permutations, product

import numpy as np
from scipy import stats

from steerstats.errors import CannotEstimate, InputError, check_count, check_rng
from steerstats.resampling.counts import collapse
from steerstats.resampling.ranks import paired
from steerstats.rounding import floats


def sign_flip_test(
    values: np.ndarray,
    *,
    rng: np.random.Generator,
    unit: np.ndarray | None = None,
    n_permutations: int = 9_999,
) -> np.ndarray:
    """Two-sided p-value of "the differences are symmetric about zero", for paired differences.

    Parameters
    ----------
    values : array of shape (n_inputs,) or (cells, n_inputs)
        Paired differences (gaps); all cells get the same flips.
    rng : numpy.random.Generator
    unit : array of shape (n_inputs,), optional
        All inputs of a unit flip together.
    n_permutations : int
        At most; fewer where the units have fewer signs.

    Returns
    -------
    ndarray of shape (cells,)

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats.resampling import sign_flip_test
    >>> slopes = steerstats.open_cache(steerstats.demo_cache()).slopes("likes-rain")
    >>> gaps = slopes.at("base->base") - slopes.at("base->user_neg")
    >>> sign_flip_test(gaps, rng=np.random.default_rng(0), unit=slopes.question, n_permutations=999)
    array([0.001])
    """
    check_rng(rng)
    sums, _ = collapse(np.atleast_2d(values), unit)
    observed, scale = sums.sum(axis=1), np.abs(sums).sum(axis=1)
    chunks, every = _chunks(n_permutations, sums.shape[1]), other_signs(sums.shape[1], n_permutations)
    if every is not None:
        return (1 + _as_extreme(every @ sums.T, observed, scale)) / (len(every) + 1)
    extreme = np.zeros(len(observed), dtype=int)
    for rows in chunks:
        signs = rng.integers(0, 2, (rows, sums.shape[1])) * 2.0 - 1.0
        extreme += _as_extreme(signs @ sums.T, observed, scale)
    return (1 + extreme) / (n_permutations + 1)


def group_difference_test(
    values: np.ndarray,
    group: np.ndarray,
    *,
    rng: np.random.Generator,
    n_permutations: int = 9_999,
) -> float:
    """Two-sided p-value of "both groups come from one distribution", by the difference of their means.

    Parameters
    ----------
    values : array of shape (n,)
        One value per unit.
    group : array of shape (n,)
        Two distinct labels.
    rng : numpy.random.Generator
    n_permutations : int

    Raises
    ------
    CannotEstimate
        If there are not exactly two groups.

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats.resampling import group_difference_test
    >>> unit = steerstats.open_cache(steerstats.demo_cache()).unit("likes-rain")
    >>> is_a = unit.factors("pos_is_a")["pos_is_a"]
    >>> slopes = unit.slopes.at("base->base")
    >>> group_difference_test(slopes, is_a, rng=np.random.default_rng(0), n_permutations=999)
    0.001
    """
    check_rng(rng)
    values = floats(values)
    labels, codes = np.unique(np.asarray(group), return_inverse=True)
    if len(labels) != 2:
        raise CannotEstimate(f"group has the labels {labels.tolist()}; a difference needs exactly two")
    if codes.shape != values.shape or not np.isfinite(values).all():
        raise InputError(f"values {values.shape} must be finite and have one label each, group is {codes.shape}")
    n = np.bincount(codes)
    centred = values - values.mean()
    # With the total fixed at zero, the difference of means is a multiple of one group's sum.
    observed, scale = np.array([(codes @ centred) * (1 / n[1] + 1 / n[0])]), np.abs(centred).sum(keepdims=True)
    chunks, ways = _chunks(n_permutations, len(values)), math.comb(len(values), n[1])
    if ways <= n_permutations + 1:
        drawn = np.array([centred[list(own)].sum() for own in combinations(range(len(values)), n[1])])
        return float(_as_extreme(drawn[:, None] * (1 / n[1] + 1 / n[0]), observed, scale)[0] / ways)
    extreme = 0
    for rows in chunks:
        shuffled = rng.permuted(np.broadcast_to(codes, (rows, len(codes))), axis=1)
        drawn = (shuffled @ centred) * (1 / n[1] + 1 / n[0])
        extreme += int(_as_extreme(drawn[:, None], observed, scale)[0])
    return (1 + extreme) / (n_permutations + 1)


def spearman_test(
    x: np.ndarray, y: np.ndarray, *, rng: np.random.Generator, n_permutations: int = 9_999
) -> tuple[float, float]:
    """Spearman correlation and its two-sided permutation p-value, rows exchanged whole.

    Parameters
    ----------
    x, y : array of shape (n,) or (n_clusters, n_within)
        In the second form whole rows of `y` are permuted (all pairs of a dataset move together).
    rng : numpy.random.Generator
    n_permutations : int

    Returns
    -------
    rho, p : float
        Both NaN where a side is constant.

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats.resampling import spearman_test
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> shifts = "base->base", "sys_neg->user_pos"
    >>> x, y = ([study.slopes(name).at(shift).mean() for name in study.datasets] for shift in shifts)
    >>> rho, p = spearman_test(x, y, rng=np.random.default_rng(0), n_permutations=999)
    >>> round(rho, 2), round(p, 2)
    (0.69, 0.01)
    """
    check_rng(rng)
    x, y = floats(x), floats(y)
    if x.shape != y.shape or x.ndim not in (1, 2):
        raise InputError(f"x {x.shape} and y {y.shape} must have one shape, (n,) or (n_clusters, n_within)")
    shape = (len(x), x[0].size if x.ndim == 2 else 1)
    paired(x.ravel(), y.ravel())
    ranks = [stats.rankdata(v.ravel()).reshape(shape) for v in (x, y)]
    a, b = (r - r.mean() for r in ranks)
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    if scale < 1e-9:
        return float("nan"), float("nan")
    # products[i, j]: what row i of x contributes when it is given row j of y.
    products = a @ b.T
    observed = np.array([np.trace(products)])
    index = np.arange(len(x))
    chunks, every = _chunks(n_permutations, len(x)), other_orders(len(x), n_permutations)
    extreme = 0
    for rows in chunks if every is None else [len(every)]:
        shuffled = rng.permuted(np.broadcast_to(index, (rows, len(index))), axis=1) if every is None else every
        drawn = products[index, shuffled].sum(axis=1)
        extreme += int(_as_extreme(drawn[:, None], observed, np.array([scale]))[0])
    return float(observed[0] / scale), (1 + extreme) / (1 + (n_permutations if every is None else len(every)))


def other_signs(units: int, most: int) -> np.ndarray | None:
    """Every choice of signs but the one that turns nothing, or None where there are more than `most`.

    Returns
    -------
    ndarray of shape (2 ** units − 1, units) or None

    Examples
    --------
    >>> from steerstats.resampling.permutation import other_signs
    >>> other_signs(2, 199).tolist(), other_signs(8, 199)
    ([[1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], None)
    """
    return None if 2**units - 1 > most else _rows(product([1.0, -1.0], repeat=units))


def other_orders(units: int, most: int) -> np.ndarray | None:
    """Every order of units 0, 1, ... but that one, or None where there are more than `most`.

    Returns
    -------
    ndarray of int of shape (units! − 1, units) or None

    Examples
    --------
    >>> from steerstats.resampling.permutation import other_orders
    >>> other_orders(3, 199).tolist(), other_orders(6, 199)
    ([[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]], None)
    """
    # 21! is beyond any count of permutations that one could ask for.
    return None if units > 20 or math.factorial(units) - 1 > most else _rows(permutations(range(units)))


def _rows(arrangements) -> np.ndarray:
    return np.array(list(arrangements))[1:]


def _as_extreme(drawn: np.ndarray, observed: np.ndarray, scale: np.ndarray) -> np.ndarray:
    # Ties of equal sums added in another order must count as ties.
    return (np.abs(drawn) >= np.abs(observed) - 1e-12 * scale).sum(axis=0)


def _chunks(total: int, width: int) -> list[int]:
    total = check_count("n_permutations", total)
    rows = max(1, 2**22 // (8 * max(width, 1)))
    return [min(rows, total - start) for start in range(0, total, rows)]
