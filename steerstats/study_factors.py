"""Nuisance factors of a unit's inputs as the estimators take them: four that builds record, and a user's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from steerstats.cache import NOT_DEFINED, Unit
from steerstats.errors import InputError
from steerstats.frames import factor_column

FACTORS = ("pos_is_a", "pos_is_yes", "length_difference", "prompt_tokens")
OWN = "factor_"
MOST_LEVELS = 8


def known_factors(unit: Unit) -> tuple[str, ...]:
    """Names of the factors that a unit could have and of the user's own that it has."""
    own = (name.removeprefix("input_") for name in unit.names if name.startswith(f"input_{OWN}"))
    return (*FACTORS, *own)


def read_factors(unit: Unit, names: Sequence[str], kept: np.ndarray, evaluation: str) -> dict[str, np.ndarray]:
    """Columns (n_kept,) of the named factors; one that the unit does not record is not in the answer.

    A user's own factor is `factor_NAME`: a number, a flag (1, 0, NaN where a record has none), or text, of which
    every level but the most frequent becomes a flag of its own, `factor_NAME=LEVEL`.

    Raises
    ------
    InputError
        If a name is neither one of the four nor begins with `factor_`, or a text has too many levels.
    """
    found: dict[str, np.ndarray] = {}
    for name in names:
        if name not in FACTORS and not name.startswith(OWN):
            raise InputError(
                f"factor {name!r} is not known; there are {', '.join(known_factors(unit))} "
                f"(your own are called {OWN}NAME)"
            )
        if name == "length_difference" and {"input_len_positive", "input_len_negative"} <= set(unit.names):
            pair = [unit.read(f"input_len_{side}")[kept] for side in ("positive", "negative")]
            found[name] = (pair[0] - pair[1]).astype(float)
        elif name == "prompt_tokens" and "input_prompt_tokens" in unit:
            found[name] = unit.read("input_prompt_tokens", setting_eval=evaluation)[kept].astype(float)
        elif f"input_{name}" in unit:
            values = unit.read(f"input_{name}")[kept]
            found |= {name: _flags(values)} if name in FACTORS else _own(name, factor_column(values))
    return found


def _own(name: str, column: pd.Series) -> dict[str, np.ndarray]:
    if column.dtype == "boolean":
        return {name: _as_flags(column)}
    if pd.api.types.is_numeric_dtype(column):
        return {name: column.to_numpy(dtype=float)}
    levels, counts = np.unique(column.dropna().to_numpy(dtype=object), return_counts=True)
    if len(levels) > MOST_LEVELS:
        raise InputError(f"factor {name!r} has {len(levels)} levels; at most {MOST_LEVELS} can be told apart")
    rest = [level for k, level in enumerate(levels) if k != counts.argmax()] if len(levels) else []
    return {f"{name}={level}": _as_flags((column == level).where(column.notna())) for level in rest}


def _flags(values: np.ndarray) -> np.ndarray:
    flags = values.astype(float)
    return np.where(flags == NOT_DEFINED, np.nan, flags)


def _as_flags(column: pd.Series) -> np.ndarray:
    """Booleans with None: that is how an estimator tells a flag from a number that happens to be 0 or 1."""
    return np.array([None if pd.isna(value) else bool(value) for value in column], dtype=object)
