"""Nuisance factors as columns of a design: what each column means, and what had to be left out.

Binary factors are coded ±½, so a main effect is the difference between its two levels at the balanced mean of the
others, whether or not an interaction is in the model. Inputs for which a factor is not defined (a positive option
that is neither Yes nor No) form a level of their own: they inform the other terms and stay out of this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steerstats.errors import CannotEstimate, InputError
from steerstats.mixed.arrays import aliased_columns
from steerstats.rounding import varies
from steerstats.spurious.rare import NEITHER, fold_lone_levels, without_lone_columns

Factors = Mapping[str, Sequence] | pd.DataFrame
ONE_LEVEL = "has one level or is defined nowhere: dropped"
NOT_VARYING = {
    ("pos_is_a", "pos_is_yes"): "neither whether the positive option is A or B nor whether it is Yes or No varies",
    ("pos_is_a",): "whether the positive option is A or B does not vary",
    ("pos_is_yes",): "whether the positive option is Yes or No does not vary",
}
UNDEFINED = {
    ("pos_is_a", "pos_is_yes"): "whether the positive option is A or B, or Yes or No, is defined for no input",
    ("pos_is_a",): "whether the positive option is A or B is defined for no input",
    ("pos_is_yes",): "whether the positive option is Yes or No is defined for no input",
}


@dataclass(frozen=True, kw_only=True)
class FactorDesign:
    """A design of nuisance factors, of full rank unless `code_factors` was asked for whole ones.

    Parameters
    ----------
    columns : ndarray (n_kept, p)
        Intercept first.
    names : tuple of str, length p
    owner : tuple of str, length p
        Factor (or "a:b" interaction) that each column belongs to; "" for the intercept.
    kept : bool ndarray (n,)
        Inputs in the design; a numeric factor that is missing leaves an input out, and a "neither" of one question.
    level : mapping of factor to ndarray (n,) of float
        Levels of the binary factors as given: 1, 0, NaN where not defined.
    aliased : tuple of str
        Columns that those before them determine, and that were dropped, unless whole factors were asked for.
    warnings : tuple of str
        What was dropped, and why.
    """

    columns: np.ndarray
    names: tuple[str, ...]
    owner: tuple[str, ...]
    kept: np.ndarray
    level: Mapping[str, np.ndarray]
    aliased: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def factors(self) -> tuple[str, ...]:
        """Factors with at least one column, interactions after main effects."""
        return tuple(dict.fromkeys(name for name in self.owner if name))


def code_factors(
    factors: Factors,
    n: int,
    *,
    interactions: Sequence[tuple[str, str]] = (),
    drop_undefined: bool = False,
    codes: np.ndarray | None = None,
    whole_factors: bool = False,
) -> FactorDesign:
    """Turn factors into a design, dropping what cannot be told apart and saying so.

    Parameters
    ----------
    factors : mapping or DataFrame of name -> (n,)
        Names that start with `pos_is_`, and columns of booleans, are binary: 1 or True, 0 or False, and −1, NaN or
        None where not defined. Everything else is numeric (a difference of option lengths, in characters), and is
        centred.
    n : int
        Inputs.
    interactions : sequence of pairs of factor names
    drop_undefined : bool
        Leave out inputs for which a binary factor is not defined instead of giving them a level.
    codes : int array (n,), optional
        Question of each input, for a design whose standard errors are clustered by question: what one question
        alone holds of a factor is then folded or left out (`steerstats.spurious.rare`), with a warning.
    whole_factors : bool
        Keep columns of a factor that others determine, unless all of them are: the design then is not of full rank,
        but says of each factor what it says alone.

    Raises
    ------
    InputError
        If a factor has the wrong length, holds another value, or an interaction names a factor that is not there.
    CannotEstimate
        If no input is left.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.spurious import code_factors
    >>> unit = steerstats.open_cache(steerstats.demo_cache()).unit("travels-far")
    >>> design = code_factors(unit.factors(["pos_is_a", "pos_is_yes"]), len(unit.inputs))
    >>> design.names, design.columns[0].tolist()  # the first input: B, Yes
    (('Intercept', 'pos_is_a', 'pos_is_yes'), [1.0, -0.5, 0.5])
    """
    read = {str(name): _read(str(name), factors[name], n) for name in factors}
    for pair in interactions:
        for name in pair:
            if name not in read:
                raise InputError(f"interaction {pair} names {name!r}; the factors are {sorted(read)}")
    warnings, kept = [], np.ones(n, dtype=bool)
    level = {name: values for name, (values, binary) in read.items() if binary}
    for name, (values, binary) in read.items():
        missing = np.isnan(values)
        if (not binary or drop_undefined) and missing.any() and not missing.all():
            kept &= ~missing
            warnings.append(f"{name} is missing for {int(missing.sum())} of {n} inputs: they are left out")
    if not kept.any():
        raise CannotEstimate(f"no input has all of {sorted(read)} defined")
    used = level
    if codes is not None:
        used, kept, said = fold_lone_levels(level, kept, codes)
        warnings += said

    blocks: dict[str, dict[str, np.ndarray]] = {}
    for name, (values, binary) in read.items():
        block = _binary_block(name, used[name][kept]) if binary else _numeric_block(name, values[kept])
        if not block and (not binary or used[name] is values):
            warnings.append(f"{name} {ONE_LEVEL}")
        blocks[name] = block
    for a, b in interactions:
        blocks[f"{a}:{b}"] = {
            f"{left}:{right}": x * y for left, x in blocks[a].items() for right, y in blocks[b].items()
        }
    each = [(name, factor, column) for factor, block in blocks.items() for name, column in block.items()]
    names, owner, columns = zip(("Intercept", "", np.ones(int(kept.sum()))), *each)
    stacked = np.column_stack(columns)
    aliased = aliased_columns(stacked)
    told = {one_factor(owner[j]) for j in range(len(names)) if j not in aliased}
    dropped = [j for j in aliased if not whole_factors or ":" in owner[j] or one_factor(owner[j]) not in told]
    warnings += [f"{names[j]} is determined by the columns before it: dropped" for j in dropped]
    left = [j for j in range(len(names)) if j not in dropped]
    if codes is not None:
        own = [owner[j] for j in left]
        alone, said = without_lone_columns(stacked[:, left], [names[j] for j in left], own, codes[kept])
        left, warnings = [left[j] for j in alone], warnings + said
    return FactorDesign(
        columns=stacked[:, left],
        names=tuple(names[j] for j in left),
        owner=tuple(owner[j] for j in left),
        kept=kept,
        level=level,
        aliased=tuple(names[j] for j in aliased),
        warnings=tuple(warnings),
    )


def one_factor(name: str) -> str:
    """The factor that flags of the levels of one text, `NAME=LEVEL vs OTHER`, make up; other names as they are."""
    return name if ":" in name else name.partition("=")[0]


def none_varies(factors: Factors, warnings: Iterable[str]) -> CannotEstimate:
    """The error where a design has no factor left, with the reasons; of A/B and Yes/No in words.

    Examples
    --------
    >>> from steerstats.spurious.coding import ONE_LEVEL, none_varies
    >>> str(none_varies({"pos_is_a": [1, 1]}, [f"pos_is_a {ONE_LEVEL}"]))
    'whether the positive option is A or B does not vary'
    >>> str(none_varies({"pos_is_a": [None, None]}, [f"pos_is_a {ONE_LEVEL}"]))  # such as of three options
    'whether the positive option is A or B is defined for no input'
    """
    nowhere = all(pd.isna(pd.Series(list(factors[name]), dtype=object)).all() for name in factors)
    told = (UNDEFINED if nowhere else NOT_VARYING).get(tuple(factors))
    reasons = "; ".join(text for text in warnings if told is None or not text.endswith(ONE_LEVEL))
    none = told or f"none of the factors {', '.join(factors)} varies"
    return CannotEstimate(": ".join(filter(None, [none, reasons])))


def check_name(name: str) -> None:
    """Raise InputError for a factor, or a level of one, whose name would be read as an interaction."""
    if set(name) & set(":[]"):
        raise InputError(f"factor {name!r} holds one of ':[]', which name interactions and levels; rename it")


def _read(name: str, values: Sequence, n: int) -> tuple[np.ndarray, bool]:
    """Values as floats with NaN where not defined, and whether the factor is binary."""
    check_name(name)
    series = pd.Series(list(values), dtype=object)
    if series.size != n:
        raise InputError(f"factor {name!r} has {series.size} values for {n} inputs")
    given = series[series.notna()]
    flags = given.size > 0 and given.map(lambda value: isinstance(value, bool | np.bool_)).all()
    binary = name.startswith("pos_is_") or bool(flags)
    try:
        numbers = pd.to_numeric(series.where(series.notna(), np.nan)).to_numpy(dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"factor {name!r} holds a value that is not a number: {error}") from error
    if binary:
        numbers = np.where(numbers == -1, np.nan, numbers)
        odd = np.flatnonzero(~np.isnan(numbers) & ~np.isin(numbers, (0, 1)))
        if odd.size:
            raise InputError(
                f"factor {name!r} is {numbers[odd[0]]:g} at input {odd[0]}; "
                "it has to be 1, 0, or −1, NaN or None where not defined"
            )
    elif np.isinf(numbers).any():
        raise InputError(f"factor {name!r} is infinite at input {int(np.argmax(np.isinf(numbers)))}")
    return numbers, binary


def _binary_block(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    missing = np.isnan(values)
    block = {}
    if np.unique(values[~missing]).size == 2:
        block[name] = np.where(missing, 0.0, values - 0.5)
    if missing.any() and not missing.all():
        block[f"{name}[{NEITHER}]"] = missing.astype(float)
    return block


def _numeric_block(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    if not varies(values):
        return {}
    return {name: values - values.mean()}
