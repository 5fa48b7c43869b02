"""Units over datasets: single datasets, or whole categories where datasets of one category resemble each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from steerstats.errors import InputError
from steerstats.resampling.permutation import other_orders
from steerstats.resampling.questions import group_codes
from steerstats.resampling.ranks import MIN_FOR_INTERVAL

MIN_FOR_P = 4  # units: three can be arranged in 6 ways, and no p-value could fall below .17


def deal(unit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each dataset, the dataset whose outcome it gets when whole units change places.

    Parameters
    ----------
    unit : array of int (D,)
        Code 0..K−1 of the unit of each dataset; `arange(D)` where every dataset is its own.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of int (D,)
        Units are permuted, datasets shuffled inside, and a unit that is too small for its new place is repeated: a
        permutation of the datasets where all units are of one size.

    Examples
    --------
    >>> import numpy as np
    >>> from steerstats.resampling.units import deal
    >>> family = np.array([0, 0, 0, 1, 1, 1])
    >>> dealt = deal(family, np.random.default_rng(3))
    >>> family[dealt].tolist()  # whole families have changed places
    [1, 1, 1, 0, 0, 0]
    """
    order = rng.permutation(int(unit.max()) + 1)
    if order.size == unit.size:
        return order[unit]
    source = np.empty(unit.size, dtype=int)
    for place, family in enumerate(order):
        rows = np.flatnonzero(unit == place)
        source[rows] = np.resize(rng.permutation(np.flatnonzero(unit == family)), rows.size)
    return source


def deals(unit: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """`most` deals; where every dataset is its own unit and has no more than that many other places, each of them once.

    Draws of the few orders of four or five datasets can miss those that are as extreme, and give a p-value below what
    any order of so few can show.

    Returns
    -------
    ndarray of int (most or fewer, D)

    Examples
    --------
    >>> import numpy as np
    >>> from steerstats.resampling.units import deals
    >>> rng = np.random.default_rng(0)
    >>> deals(np.arange(4), 200, rng).shape, deals(np.arange(6), 200, rng).shape  # 4! = 24, 6! = 720
    ((23, 4), (200, 6))
    """
    single = int(unit.max()) + 1 == unit.size
    every = other_orders(unit.size, most) if single else None
    return np.stack([deal(unit, rng) for _ in range(most)]) if every is None else every[:, unit]


def few_units(n: int, what: str) -> str:
    """How a warning names too few units: the words that every table of correlations uses.

    Examples
    --------
    >>> from steerstats.resampling.units import few_units
    >>> few_units(5, "categories")
    '5 categories: fewer than 8'
    """
    what = {"datasets": "dataset", "categories": "category"}[what] if n == 1 else what
    return f"{n} {what}: fewer than {MIN_FOR_INTERVAL}"


def category_codes(category: Sequence, n: int) -> np.ndarray:
    """Category of each of n datasets as codes 0..K−1, in the order in which they come.

    Raises
    ------
    InputError
        If a dataset has none.

    Examples
    --------
    >>> from steerstats.resampling.units import category_codes
    >>> category_codes(["persona", "risk", "persona"], 3).tolist()
    [0, 1, 0]
    """
    labels = pd.Series(list(category), dtype=object)
    if labels.size != n or labels.isna().any():
        raise InputError(f"category has {int(labels.notna().sum())} labels for {n} datasets; each needs one")
    return group_codes(labels, n)[0]
