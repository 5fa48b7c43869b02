"""What every estimator returns: a frozen result that carries its uncertainty, its n, its method and its doubts.

A concrete result is a frozen keyword-only dataclass that derives from `Result`, documents the shape and unit of
each field, and implements `to_frame`. Results hold numbers only; `steerstats.figures` draws them.

Frozen means: fields cannot be set, arrays are locked copies that no one else holds, and mappings are read-only copies
with locked arrays in them, after unpickling as before. Data frames are the one thing in a field that can be changed.
"""

from __future__ import annotations

import copyreg
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from steerstats.errors import InputError
from steerstats.text import MOST_ROWS, compact, format_number, html_items, limits, table_lines, wrapped

SLOPE_UNIT = "nat per unit multiplier"
VECTOR_AS_GIVEN = "the vector is taken as given: its own sampling error is not in these intervals"


@dataclass(frozen=True, kw_only=True)
class Result(ABC):
    """Base of all results.

    Parameters
    ----------
    method : str
        How the numbers were obtained, in words that can stand in a methods section.
    assumptions : tuple of str
        What has to hold for the intervals to mean what they say.
    warnings : tuple of str
        Assumptions seen to fail on these data (singular fit, ratio with a denominator near zero, too few
        datasets for a correlation, ...). Empty when there is nothing to say.
    numbers : mapping of str to float
        Numbers that `method` gives in words ("n_resamples", "n_permutations", ...), for who writes words of their own.

    Examples
    --------
    >>> import steerstats
    >>> result = steerstats.open_cache(steerstats.demo_cache()).linearity()
    >>> isinstance(result, steerstats.Result)
    True
    >>> result.assumptions[1]
    'questions are independent'
    >>> result.results["likes-rain"] = None
    Traceback (most recent call last):
    ...
    TypeError: 'mappingproxy' object does not support item assignment
    """

    method: str
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for own in fields(self):
            object.__setattr__(self, own.name, _frozen(getattr(self, own.name)))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # In the class itself, or `dataclass` writes others there: a comparison that arrays and frames make an error of,
        # and a text of every field, which fills a prompt with pages.
        cls.__eq__ = Result.__eq__
        cls.__repr__ = Result.__repr__

    def __eq__(self, other: object) -> bool:
        """Whether all fields are the same, numbers to the bit and NaN equal to NaN."""
        if other.__class__ is not self.__class__:
            return NotImplemented
        return _same(self, other)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Arrays come out of a pickle writeable.
        self.__dict__.update({name: _frozen(value) for name, value in state.items()})

    @abstractmethod
    def to_frame(self) -> pd.DataFrame:
        """The numbers as a tidy table, one row per estimate."""

    def summary(self) -> str:
        """The table, the method, the assumptions and the warnings, as text for a terminal."""
        return "\n".join([type(self).__name__, "", *table_lines(self._shown()), "", *wrapped(self._notes())])

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        table, common = compact(self._shown())
        body = table.to_html(index=False, max_rows=MOST_ROWS, border=0)
        items = html_items([("In every row", common)] * bool(common) + self._notes())
        return f"<div class='steerstats'><h4>{type(self).__name__}</h4>{body}<ul>{items}</ul></div>"

    def _shown(self) -> pd.DataFrame:
        """What stands on a terminal or in a notebook."""
        return self.to_frame()

    def _notes(self) -> list[tuple[str, str]]:
        """What stands under every table: the method, what it assumes, and what is doubtful."""
        return [
            ("Method", self.method),
            *(("Assumes", text) for text in self.assumptions),
            *(("Warning", text) for text in self.warnings),
        ]


@dataclass(frozen=True, kw_only=True)
class Estimate(Result):
    """One number with its interval.

    Parameters
    ----------
    name : str
        The estimand, in the field's words ("mean gap", "ID-OOD Spearman").
    estimate, ci_low, ci_high : float
        Point estimate and interval limits, in `unit`. A limit may be infinite (Fieller) or NaN (not defined,
        with a warning that says why).
    se : float
        Standard error in `unit`, NaN where the method gives none.
    n : int
        Number of units of resampling or observation behind the estimate.
    unit : str
        "nat per unit multiplier", "1" for a pure number, ...
    level : float
        Nominal coverage of the interval.

    Examples
    --------
    >>> import steerstats
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> mean = study.steerability()["likes-rain"]["mean"]
    >>> print(mean, mean.unit)
    mean: 0.128 [0.108, 0.149] (n = 60) nat per unit multiplier
    >>> mean.method
    'mean over 60 inputs, t interval over 60 questions'
    """

    name: str
    estimate: float
    ci_low: float
    ci_high: float
    n: int
    se: float = float("nan")
    unit: str = "1"
    level: float = 0.95

    def to_frame(self) -> pd.DataFrame:
        """One row: name, estimate, se, ci_low, ci_high, level, n, unit."""
        names = ["name", "estimate", "se", "ci_low", "ci_high", "level", "n", "unit"]
        return pd.DataFrame({name: [getattr(self, name)] for name in names})

    def __str__(self) -> str:
        return f"{self.name}: {format_number(self.estimate)} {limits(self.ci_low, self.ci_high)} (n = {self.n})"


@dataclass(frozen=True, kw_only=True)
class Estimates(Result):
    """Several estimates of one dataset, by name: `result["mean"]`."""

    estimates: tuple[Estimate, ...]

    def __getitem__(self, name: str) -> Estimate:
        found = {estimate.name: estimate for estimate in self.estimates}
        if name not in found:
            raise InputError(f"no estimate {name!r}; there are {', '.join(found)}")
        return found[name]

    def to_frame(self) -> pd.DataFrame:
        """One row per estimate, with the method of its interval."""
        rows = [estimate.to_frame().assign(method=estimate.method) for estimate in self.estimates]
        return pd.concat(rows, ignore_index=True)


def _frozen(value: Any) -> Any:
    if isinstance(value, np.ndarray) and _can_change(value):
        value = value.copy()
        value.flags.writeable = False
    elif isinstance(value, Mapping):
        return MappingProxyType({key: _frozen(inner) for key, inner in value.items()})
    return value


def _same(one: Any, two: Any) -> bool:
    """Equality of what fields hold: arrays and frames whole, what holds them part by part, NaN as NaN."""
    if one is two:
        return True
    if is_dataclass(one) and type(one) is type(two):
        return all(_same(getattr(one, own.name), getattr(two, own.name)) for own in fields(one))
    if isinstance(one, np.ndarray | pd.DataFrame | pd.Series) or isinstance(two, np.ndarray | pd.DataFrame | pd.Series):
        if type(one) is not type(two) or one.shape != two.shape:
            return False
        if isinstance(one, np.ndarray):
            if one.dtype != two.dtype:
                return False
            if one.dtype.kind != "O":
                return np.array_equal(one, two, equal_nan=one.dtype.kind in "fc")
            return all(map(_same, one.ravel().tolist(), two.ravel().tolist()))
        return one.equals(two)
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return list(one) == list(two) and all(_same(one[key], two[key]) for key in one)
    if isinstance(one, tuple | list) and type(one) is type(two):
        return len(one) == len(two) and all(map(_same, one, two))
    return bool(one == two) or bool(one != one and two != two)


def _can_change(array: np.ndarray) -> bool:
    """Whether the array, or one that it is a view of, is writeable."""
    while isinstance(array, np.ndarray):
        if array.flags.writeable:
            return True
        array = array.base
    return False


def _read_only(mapping: dict) -> MappingProxyType:
    return MappingProxyType(mapping)


# Python itself cannot pickle a read-only view of a mapping, nor copy one deeply (`dataclasses.asdict`).
copyreg.pickle(MappingProxyType, lambda proxy: (_read_only, (dict(proxy),)))
