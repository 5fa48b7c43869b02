"""Numbers of a cache that an estimate rests on: what is not finite is named with its coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np

from steerstats.cache.reader import Unit
from steerstats.cache.schema import BY_NAME, GRID, PLANNED_SUMMARIES
from steerstats.errors import CacheError


def read_finite(unit: Unit, name: str, **labels: Any) -> np.ndarray:
    """`unit.read` for numbers that an estimate rests on: a NaN or an infinity is refused with its coordinates.

    Parameters
    ----------
    unit : Unit
    name : str
        A numeric array of the schema.
    **labels
        As in `Unit.read`. Where the array depends on `/planned`, cells that were not planned may be NaN.

    Returns
    -------
    numpy.ndarray
        float64.

    Raises
    ------
    CacheError
        Naming the array, the value, and the label of every axis at the first one that is not finite.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.cache import read_finite
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> unit = study.unit(study.datasets[0]).unit
    >>> read_finite(unit, "answer_logit", setting_eval="base", vector="base").shape  # multiplier, answer, input
    (7, 2, 60)
    """
    values = np.asarray(unit.read(name, **labels), dtype=float)
    bad = ~np.isfinite(values)
    if bad.any() and name in (*GRID, *PLANNED_SUMMARIES):
        planned = unit.read("planned", **{axis: labels[axis] for axis in ("setting_eval", "vector") if axis in labels})
        bad &= planned.astype(bool).reshape(planned.shape + (1,) * (values.ndim - planned.ndim))
    if bad.any():
        first = iter(np.argwhere(bad)[0])
        value, more = values[bad][0], int(bad.sum()) - 1
        place = []
        for axis in BY_NAME[name].dims:
            label = labels.get(axis, unit.coords[axis])
            one = label[next(first)] if isinstance(label, (list, tuple, np.ndarray)) else label
            place.append(f"{axis}={one}")
        rest = f" (and {more} more)" if more else ""
        raise CacheError(f"{unit.where}: /{name} is {value} at {', '.join(place)}{rest}; it should be finite")
    return values
