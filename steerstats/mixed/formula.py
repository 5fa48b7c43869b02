"""Mixed-model formulas: lme4's random terms parsed here, the fixed part and each random part given to formulaic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from formulaic import Formula
from formulaic.errors import FormulaicError

from steerstats.errors import InputError
from steerstats.mixed.arrays import aliased_columns


@dataclass(frozen=True, slots=True)
class RandomTerm:
    """One `(effects | group)`: `effects` a one-sided formula, `group` the columns whose crossing is the group."""

    effects: str
    group: tuple[str, ...]

    @property
    def label(self) -> str:
        return ":".join(self.group)


@dataclass(frozen=True, slots=True)
class Pool:
    """A factor whose levels the model pools without a random term in it: its codes (n,), 0..n_levels-1."""

    label: str
    codes: np.ndarray
    n_levels: int


@dataclass(frozen=True, slots=True)
class Design:
    """A formula evaluated on a frame; rows as in the frame, incomplete ones left out.

    `y` (n,), `X` (n, P) without aliased columns, `Z` one (n, k) array per random term, `codes` one (n,) integer
    array per term with values 0..n_levels-1, `names` of the columns of X and `z_names` of those of each Z. `pools`
    are the outer factors of crossings `a:b` (and the population asked for) that have no random term of their own.
    """

    formula: str
    y: np.ndarray
    X: np.ndarray
    names: tuple[str, ...]
    aliased: tuple[str, ...]
    terms: tuple[RandomTerm, ...]
    Z: tuple[np.ndarray, ...]
    z_names: tuple[tuple[str, ...], ...]
    codes: tuple[np.ndarray, ...]
    levels: tuple[int, ...]
    n_dropped: int
    n_groups_lost: tuple[int, ...]
    pools: tuple[Pool, ...] = ()

    @property
    def scale(self) -> float:
        """Largest absolute response."""
        return float(np.abs(self.y).max())


@lru_cache(maxsize=256)
def parse_formula(formula: str) -> tuple[str, str, tuple[RandomTerm, ...]]:
    """Split `y ~ fixed + (effects | group) + ...` into response, fixed part and random terms.

    Parameters
    ----------
    formula : str
        `(1 + lam | input)`, `(0 + lam | input)`, `(1 + lam || input)` (uncorrelated), `(1 | dataset:input)` and
        `(1 | dataset / input)` are understood.

    Returns
    -------
    response, fixed : str
    terms : tuple of RandomTerm

    Raises
    ------
    InputError
        If there is no `~`, no random term, one without effects, an effect twice, or a parenthesis is not closed.
    """
    response, tilde, right = formula.partition("~")
    if not tilde or not response.strip():
        raise InputError(f"formula {formula!r} has no response: write 'y ~ fixed + (1 + lam | input)'")
    fixed, random = [], []
    for piece in _split_sum(right, formula):
        inner = piece[1:-1] if piece.startswith("(") and piece.endswith(")") else ""
        if "|" in inner:
            random.extend(_random_terms(inner, formula))
        elif "|" in piece:
            raise InputError(f"random term in {piece!r} of formula {formula!r} has to stand alone in parentheses")
        else:
            fixed.append(piece)
    if not random:
        raise InputError(f"formula {formula!r} has no random term such as (1 + lam | input)")
    given = [(frozenset(term.group), name) for term in random for name in effect_names(term.effects)]
    for group, name in given:
        if given.count((group, name)) > 1:
            where = ":".join(sorted(group))
            raise InputError(
                f"formula {formula!r} gives {where} the random effect {name!r} twice; one variance is enough"
            )
    return response.strip(), " + ".join(fixed) or "1", tuple(random)


def build_design(formula: str, frame: pd.DataFrame, population: str | None = None) -> Design:
    """Evaluate a mixed-model formula on a frame.

    Parameters
    ----------
    formula : str
    frame : DataFrame
        One row per observation.
    population : str, optional
        A column whose levels are a sample, whether or not the formula names it.

    Raises
    ------
    InputError
        If a column is missing or there twice, a term is not finite in every complete row, the response is not one
        numeric column, or nothing is left after dropping incomplete rows.
    """
    response, fixed, terms = parse_formula(formula)
    texts = [fixed, *(term.effects for term in terms)]
    parts = [_formula(text) for text in texts]
    answer = None if response in frame.columns else _formula(f"0 + {response}")
    needed, grouping = _columns(formula, frame)
    grouping |= set() if population is None else {population}
    missing = sorted((needed | grouping) - set(map(str, frame.columns)))
    if missing:
        hint = f"; numpy's function is written np.{missing[0]}" if f"{missing[0]}(" in formula else ""
        raise InputError(
            f"column {missing[0]!r} of formula {formula!r} is not in the frame: {list(frame.columns)}{hint}"
        )
    if twice := sorted((needed | grouping) & set(map(str, frame.columns[frame.columns.duplicated()]))):
        raise InputError(f"the frame has several columns {twice[0]!r}; formula {formula!r} needs one")
    kept, n_dropped, lost = _complete_rows(frame, sorted(needed), sorted(grouping), terms, formula)
    series = {name: kept[name] for name in needed | grouping}  # a look-up in a frame costs more than the algebra
    y = _column(series[response], response) if answer is None else _expression(answer, response, kept, formula)
    matrices, names = [], []
    for text, part in zip(texts, parts):
        matrix, columns = _products(text, series) or _evaluate(part, kept, formula)
        matrices.append(_finite(matrix, columns, formula))
        names.append(columns)
    dropped = aliased_columns(matrices[0])
    codes, levels = zip(*(_codes(series, term.group) for term in terms))
    return Design(
        formula=formula,
        y=y,
        X=np.delete(matrices[0], dropped, axis=1) if dropped else matrices[0],
        names=tuple(name for j, name in enumerate(names[0]) if j not in dropped),
        aliased=tuple(names[0][j] for j in dropped),
        terms=terms,
        Z=tuple(matrices[1:]),
        z_names=tuple(names[1:]),
        codes=codes,
        levels=levels,
        n_dropped=n_dropped,
        n_groups_lost=lost,
        pools=_pools(kept, terms, levels, population),
    )


def complete_rows(formula: str, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a frame that a formula is fitted to: those with no missing value in a column of it."""
    return frame[frame[list(set.union(*_columns(formula, frame)))].notna().all(axis=1)]


def _columns(formula: str, frame: pd.DataFrame) -> tuple[set[str], set[str]]:
    """The columns that response and effects of a formula are made of, and those that name its groups."""
    response, fixed, terms = parse_formula(formula)
    there = response in frame.columns
    texts = [fixed, *(term.effects for term in terms), *([] if there else [f"0 + {response}"])]
    needed = {str(name) for text in texts for name in _formula(text).required_variables}
    return needed | ({response} if there else set()), {name for term in terms for name in term.group}


def effect_names(effects: str) -> dict[str, None]:
    """The effects of a random term in their order, "1" for its intercept."""
    return dict.fromkeys(map(str, _formula(effects)))


def _split_sum(text: str, formula: str) -> list[str]:
    """Pieces between the plus signs that stand outside all brackets; a minus stays with its piece."""
    pieces, depth, current = [], 0, ""
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            break
        if character == "+" and depth == 0:
            pieces.append(current.strip())
            current = ""
        else:
            current += character
    if depth != 0:
        raise InputError(f"brackets of formula {formula!r} do not match")
    pieces.append(current.strip())
    if not all(pieces):
        raise InputError(f"formula {formula!r} has an empty term beside a '+'")
    return pieces


def _random_terms(inner: str, formula: str) -> list[RandomTerm]:
    """The terms of one parenthesis: `||` splits the effects, `/` nests the groups."""
    bar = "||" if "||" in inner else "|"
    effects, _, group = (text.strip() for text in inner.partition(bar))
    if not effects or not group:
        raise InputError(f"random term ({inner}) of formula {formula!r} needs effects before and a group after '|'")
    paths = [part.strip() for part in group.split("/")]
    groups = [":".join(paths[: k + 1]) for k in range(len(paths))]
    columns = [tuple(name.strip() for name in text.split(":")) for text in groups]
    if not all(name.replace("_", "a").isalnum() for names in columns for name in names):
        raise InputError(f"group {group!r} of formula {formula!r} is not a column, a:b or a/b")
    found = effect_names(effects)
    if not found:
        raise InputError(f"random term ({inner}) of formula {formula!r} has no effect; write at least '1'")
    if bar == "|":
        return [RandomTerm(effects, names) for names in columns]
    return [RandomTerm("1" if name == "1" else f"0 + {name}", names) for names in columns for name in found]


@lru_cache(maxsize=256)
def _formula(text: str) -> Formula:
    try:
        return Formula(text)
    except (FormulaicError, SyntaxError) as error:
        raise InputError(f"{text!r} is not a formula: {error}") from error


def _complete_rows(
    frame: pd.DataFrame, needed: list[str], grouping: list[str], terms: tuple[RandomTerm, ...], formula: str
) -> tuple[pd.DataFrame, int, tuple[int, ...]]:
    """Rows without missing values, how many are left out, and how many groups of each term vanish with them."""
    used = list(dict.fromkeys(needed + grouping))
    complete = np.logical_and.reduce([frame[name].notna().to_numpy() for name in used])
    n_dropped = int(len(frame) - complete.sum())
    if not complete.any():
        raise InputError(f"no row of the frame is complete in {used}")
    kept = frame[complete] if n_dropped else frame
    for name in needed:
        values = kept[name]
        if values.dtype.kind == "f" and not np.isfinite(values.to_numpy()).all():
            raise InputError(f"column {name!r} of formula {formula!r} holds an infinite value")
    lost = [0] * len(terms)
    if n_dropped:
        lost = [_codes(frame, term.group)[1] - _codes(kept, term.group)[1] for term in terms]
    return kept, n_dropped, tuple(lost)


def _column(series: pd.Series, name: str) -> np.ndarray:
    try:
        return series.to_numpy(dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"response {name!r} is not numeric: {series.dtype}") from error


def _expression(part: Formula, response: str, frame: pd.DataFrame, formula: str) -> np.ndarray:
    """A response such as np.log(y), which has to be one column of finite numbers."""
    matrix, columns = _evaluate(part, frame, formula)
    if len(columns) != 1:
        raise InputError(f"response {response!r} of formula {formula!r} is {len(columns)} columns; it has to be one")
    return _finite(matrix, columns, formula)[:, 0]


def _finite(matrix: np.ndarray, names: tuple[str, ...], formula: str) -> np.ndarray:
    bad = np.argwhere(~np.isfinite(matrix))
    if bad.size:
        row, column = bad[0]
        raise InputError(
            f"{names[column]!r} of formula {formula!r} is not finite in every row: {matrix[row, column]} in the "
            f"complete row {row}"
        )
    return matrix


def _evaluate(part: Formula, frame: pd.DataFrame, formula: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Model matrix as floats, and its column names with "Intercept" for the constant."""
    if part.required_variables:
        try:
            # "ignore" keeps rows in which a function gives NaN: `_finite` names them, formulaic would drop them.
            with np.errstate(all="ignore"):
                matrix = part.get_model_matrix(frame, context={}, output="numpy", na_action="ignore")
        except FormulaicError as error:
            raise InputError(f"formula {formula!r} cannot be evaluated: {error}") from error
        names = tuple(map(str, matrix.model_spec.column_names))
        return np.asarray(matrix, dtype=float).reshape(len(frame), len(names)), names
    # formulaic has no rows to count when no column is named.
    raise InputError(f"{part} of formula {formula!r} names no column")


@lru_cache(maxsize=256)
def column_products(text: str) -> tuple[tuple[str, ...], ...] | None:
    """The columns that each term of a one-sided formula multiplies, None if a term is anything but such a product."""
    part = _formula(text)
    variables = {str(name) for name in part.required_variables}
    terms = tuple(tuple(factor.expr for factor in term.factors if factor.expr != "1") for term in part)
    return terms if variables.issuperset(name for factors in terms for name in factors) else None


def _products(text: str, frame: Mapping[str, pd.Series]) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """The model matrix where every term is a product of numeric columns: formulaic's answer at a tenth of its cost."""
    terms = column_products(text)
    if terms is None:
        return None
    columns: dict[str, np.ndarray] = {}
    for name in {name for factors in terms for name in factors}:
        if frame[name].dtype.kind not in "fiu":
            return None
        columns[name] = frame[name].to_numpy(dtype=float)
    return multiplied(terms, columns, (len(next(iter(frame.values()))),)), product_names(terms)


def multiplied(
    terms: Sequence[tuple[str, ...]], columns: Mapping[str, np.ndarray], shape: tuple[int, ...]
) -> np.ndarray:
    """Products of columns that broadcast to `shape`, along a last axis of one for each term."""
    matrix = np.ones((*shape, len(terms)))
    for j, factors in enumerate(terms):
        for name in factors:
            matrix[..., j] *= columns[name]
    return matrix


def product_names(terms: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Names of the products of columns, "Intercept" for that of none."""
    return tuple(":".join(factors) or "Intercept" for factors in terms)


def _pools(
    frame: pd.DataFrame, terms: tuple[RandomTerm, ...], levels: tuple[int, ...], population: str | None
) -> tuple[Pool, ...]:
    """Outer factors of crossings, and the population asked for, with several levels and no random term in them."""
    asked = [] if population is None else [(population,)]
    for term, count in zip(terms, levels):
        if len(term.group) > 1 and _codes(frame, term.group[:1])[1] == count:
            # `input:dataset` with names that are unique: the first column is the unit, the others pool it.
            asked += [(name,) for name in term.group[1:]]
        else:
            asked += [term.group[: k + 1] for k in range(len(term.group) - 1)]
    random = {frozenset(term.group) for term in terms}
    pools = {}
    for columns in asked:
        if frozenset(columns) not in random:
            codes, n_levels = _codes(frame, columns)
            if n_levels > 1:
                pools[":".join(columns)] = Pool(":".join(columns), codes, n_levels)
    return tuple(pools.values())


def _codes(frame: Mapping[str, pd.Series], group: tuple[str, ...]) -> tuple[np.ndarray, int]:
    """Integer codes of the crossing of columns, in order of appearance; a missing label counts as no group."""
    codes, levels = np.zeros(len(frame[group[0]]), dtype=np.int64), 1
    for name in group:
        more, uniques = pd.factorize(frame[name])
        joint = np.where((codes < 0) | (more < 0), -1, codes * len(uniques) + more)
        if len(group) > 1:
            joint, kinds = pd.factorize(np.where(joint < 0, np.nan, joint.astype(float)))
            codes, levels = joint.astype(np.int64), len(kinds)
        else:
            codes, levels = joint, len(uniques)
    return codes, levels
