"""Nuisance factors of a unit's inputs as the estimators take them: four that builds record, and a user's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from steerstats.cache import NOT_DEFINED, Unit
from steerstats.errors import InputError
from steerstats.frames import factor_column

FACTORS = ("pos_is_a", "pos_is_yes", "length_difference", "prompt_tokens")
OWN = "factor_"
MOST_LEVELS = 8


def own_factors(unit: Unit) -> tuple[str, ...]:
    """Names of the factors that a user gave the inputs of a unit, `factor_NAME`."""
    return tuple(name.removeprefix("input_") for name in unit.names if name.startswith(f"input_{OWN}"))


def usual_levels(units: Iterable[tuple[Unit, np.ndarray]], names: Sequence[str]) -> dict[str, str]:
    """The most frequent level of each factor that is text, over datasets: what its effects are measured against.

    A dataset's own most frequent level would make one name, and one mean over datasets, of different contrasts.

    Parameters
    ----------
    units : iterable of (Unit, bool ndarray (n_inputs,))
        With the inputs that are kept.
    names : sequence of str
    """
    counts: dict[str, Counter[str]] = {}
    for unit, kept in units:
        for name in set(names) & set(own_factors(unit)):
            column = factor_column(unit.read(f"input_{name}")[kept])
            if _is_text(column):
                counts.setdefault(name, Counter()).update(column.dropna())
    return {name: _usual(found) for name, found in counts.items() if found}


def read_factors(
    unit: Unit, names: Sequence[str], kept: np.ndarray, evaluation: str, against: Mapping[str, str] | None = None
) -> dict[str, np.ndarray]:
    """Columns (n_kept,) of the named factors; one that the unit does not record is not in the answer.

    A user's own factor is `factor_NAME`: a number, a flag (1, 0, NaN where a record has none), or text, of which
    every level but one becomes a flag of its own, `factor_NAME=LEVEL vs OTHER`. `against` names that other level of
    each factor; without one, or where the unit lacks it, it is the most frequent one here.

    Raises
    ------
    InputError
        If a name is neither one of the four nor begins with `factor_`, or a text has too many levels.
    """
    found: dict[str, np.ndarray] = {}
    for name in names:
        if name not in FACTORS and not name.startswith(OWN):
            raise InputError(
                f"factor {name!r} is not known; there are {', '.join((*FACTORS, *own_factors(unit)))} "
                f"(your own are called {OWN}NAME)"
            )
        if name == "length_difference" and {"input_len_positive", "input_len_negative"} <= set(unit.names):
            pair = [unit.read(f"input_len_{side}")[kept] for side in ("positive", "negative")]
            found[name] = (pair[0] - pair[1]).astype(float)
        elif name == "prompt_tokens" and "input_prompt_tokens" in unit:
            found[name] = unit.read("input_prompt_tokens", setting_eval=evaluation)[kept].astype(float)
        elif f"input_{name}" in unit:
            values = unit.read(f"input_{name}")[kept]
            found |= {name: _flags(values)} if name in FACTORS else _own(name, factor_column(values), against or {})
    return found


def _own(name: str, column: pd.Series, against: Mapping[str, str]) -> dict[str, np.ndarray]:
    if not _is_text(column):
        flags = column.dtype == "boolean"
        return {name: _as_flags(column) if flags else column.to_numpy(dtype=float)}
    counts = Counter(column.dropna())
    if len(counts) > MOST_LEVELS:
        raise InputError(f"factor {name!r} has {len(counts)} levels; at most {MOST_LEVELS} can be told apart")
    if not counts:
        return {}
    other = against.get(name)
    other = other if other in counts else _usual(counts)
    rest = sorted(level for level in counts if level != other)
    return {f"{name}={level} vs {other}": _as_flags((column == level).where(column.notna())) for level in rest}


def _is_text(column: pd.Series) -> bool:
    """By what it is not: pandas before 3 keeps text as objects, and says "str" of no column."""
    return column.dtype != "boolean" and not pd.api.types.is_numeric_dtype(column)


def _usual(counts: Counter[str]) -> str:
    """The most frequent level, the first by name of several."""
    return min(counts, key=lambda level: (-counts[level], level))


def _flags(values: np.ndarray) -> np.ndarray:
    flags = values.astype(float)
    return np.where(flags == NOT_DEFINED, np.nan, flags)


def _as_flags(column: pd.Series) -> np.ndarray:
    """Booleans with None: that is how an estimator tells a flag from a number that happens to be 0 or 1."""
    return np.array([None if pd.isna(value) else bool(value) for value in column], dtype=object)
