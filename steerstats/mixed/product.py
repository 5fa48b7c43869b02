"""The everyday model without its model matrix: products of numeric columns, the same complete design in every group.

`y ~ lam * (a + yes) + (1 + lam | input)` on 500 inputs x 7 multipliers has a matrix of 3,500 x 6 whose columns are
all (a function of the input) x (a function of the multiplier). Building it, finding that structure in it and hashing
it costs several times the fit. Here the structure is read off the formula and checked on the columns themselves:
each one has to be equal, bit by bit, within every group or over all groups. Where anything else is seen (a missing
value, other rows per group, text, a transformation, columns near collinearity) the answer is None and the general way
is taken. Only the formula's text is remembered between calls, never a column, a dtype or a level.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from steerstats.mixed.formula import Pool, RandomTerm, column_products, parse_formula

COLLINEAR = 1e-8  # smallest eigenvalue of the normalised cross-products, over W times over Z; aliasing begins at 1e-14


@dataclass(frozen=True, slots=True)
class ProductFormula:
    """A formula of products of columns with one random term on one column, as far as its text tells."""

    response: str
    columns: tuple[str, ...]
    fixed: tuple[tuple[str, ...], ...]
    random: tuple[tuple[str, ...], ...]
    terms: tuple[RandomTerm, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductDesign:
    """A design X = W x Z kept as its factors, with the attributes of `Design` that a result needs.

    `Y` (N, m), `W` (N, p), `Z` one array (m, q); `places` the row of Gamma and column of Z of each fixed effect.
    `columns` holds each numeric column as (N, 1), constant within groups, or (1, m), the same in all.
    """

    formula: str
    Y: np.ndarray
    W: np.ndarray
    Z: tuple[np.ndarray]
    names: tuple[str, ...]
    z_names: tuple[tuple[str, ...]]
    places: tuple[tuple[int, int], ...]
    terms: tuple[RandomTerm, ...]
    levels: tuple[int]
    columns: dict[str, np.ndarray]
    fixed: tuple[tuple[str, ...], ...]
    aliased: tuple[str, ...] = ()
    n_dropped: int = 0
    n_groups_lost: tuple[int, ...] = (0,)
    pools: tuple[Pool, ...] = ()

    @property
    def y(self) -> np.ndarray:
        """The response, shape (n,)."""
        return self.Y.ravel()

    @property
    def X(self) -> np.ndarray:
        """The model matrix (n, P), multiplied in the order of `build_design` and so equal to its matrix bit by bit."""
        matrix = np.ones((*self.Y.shape, len(self.fixed)))
        for j, factors in enumerate(self.fixed):
            for name in factors:
                matrix[..., j] *= self.columns[name]
        return matrix.reshape(self.Y.size, -1)


def product_design(formula: str, frame: pd.DataFrame) -> ProductDesign | None:
    """The factors of a design that is a full product with its random effects, or None where it has to be built.

    Parameters
    ----------
    formula : str
    frame : DataFrame
        One row per observation.

    Returns
    -------
    ProductDesign or None
        None says nothing about the model, only that this way does not lead to it.
    """
    read = _read_formula(formula)
    if read is None:
        return None
    numbers = []
    for name in (read.response, *read.columns):
        values = _numbers(frame, name)
        if values is None:
            return None
        numbers.append(values)
    codes, n_groups = _groups(frame, read.terms[0].group[0])
    n = len(numbers[0])
    if n_groups < 2 or n % n_groups:
        return None
    shape = n_groups, n // n_groups
    if not (codes.reshape(shape) == np.arange(n_groups)[:, None]).all():  # a missing label has the code -1
        return None

    columns, between = {}, set()
    for name, values in zip(read.columns, numbers[1:]):
        grid = values.reshape(shape)
        if (grid == grid[:, :1]).all():
            columns[name] = grid[:, :1]
            between.add(name)
        elif (grid == grid[0]).all():
            columns[name] = grid[:1]
        else:
            return None
    if any(name in between for factors in read.random for name in factors):
        return None
    placed = _places(read, between)
    if placed is None:
        return None
    rows, along, places = placed
    W, Z = np.ones((n_groups, len(rows))), np.ones((shape[1], len(along)))
    for matrix, keys in ((W, rows), (Z, along)):
        for j, factors in enumerate(keys):
            for name in factors:
                matrix[:, j] *= columns[name].ravel()
    # The distance of a column of W x Z from all others is the product of the distances in W and in Z.
    if not _smallest(W) * _smallest(Z) > COLLINEAR:
        return None
    return ProductDesign(
        formula=formula,
        Y=numbers[0].reshape(shape).copy(),
        W=W,
        Z=(Z,),
        names=_names(read.fixed),
        z_names=(_names(read.random),),
        places=places,
        terms=read.terms,
        levels=(n_groups,),
        columns={name: values.copy() for name, values in columns.items()},
        fixed=read.fixed,
    )


@lru_cache(maxsize=256)
def _read_formula(formula: str) -> ProductFormula | None:
    """What the text alone says; the key is the whole text, and the value names columns without knowing any."""
    response, fixed, terms = parse_formula(formula)
    if len(terms) != 1 or len(terms[0].group) != 1:
        return None
    parts = [column_products(text) for text in (fixed, terms[0].effects)]
    if None in parts:
        return None
    columns = tuple(dict.fromkeys(name for part in parts for factors in part for name in factors))
    return ProductFormula(response, columns, parts[0], parts[1], terms)


def _numbers(frame: pd.DataFrame, name: str) -> np.ndarray | None:
    """A column of finite numbers as floats; None for anything else, a missing or doubled column included."""
    if name not in frame:
        return None
    series = frame[name]
    if not isinstance(series, pd.Series) or not isinstance(series.dtype, np.dtype) or series.dtype.kind not in "fiu":
        return None
    values = np.asarray(series.to_numpy(), dtype=float)
    return values if np.isfinite(values).all() else None


def _groups(frame: pd.DataFrame, name: str) -> tuple[np.ndarray, int]:
    """Codes in order of appearance and their number; no group at all for a column that is missing or doubled."""
    series = frame.get(name)
    if not isinstance(series, pd.Series):
        return np.empty(0, dtype=int), 0
    # The array's own factorize skips the index of labels that pd.factorize(series) builds.
    codes, labels = pd.factorize(series.to_numpy()) if isinstance(series.dtype, np.dtype) else series.array.factorize()
    return codes, len(labels)


def _places(
    read: ProductFormula, between: set[str]
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]], tuple[tuple[int, int], ...]] | None:
    """Factors of the columns of W and of Z, and where each fixed effect stands, if all of W x Z is there once."""
    along = {tuple(sorted(factors)): k for k, factors in enumerate(read.random)}
    rows: dict[tuple[str, ...], int] = {}
    places = []
    for factors in read.fixed:
        k = along.get(tuple(sorted(name for name in factors if name not in between)))
        if k is None:
            return None
        row = rows.setdefault(tuple(name for name in factors if name in between), len(rows))
        places.append((row, k))
    if len(along) != len(read.random) or len(set(places)) != len(places) or len(places) != len(rows) * len(along):
        return None
    return list(rows), list(read.random), tuple(places)


def _names(terms: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    return tuple(":".join(factors) or "Intercept" for factors in terms)


def _smallest(matrix: np.ndarray) -> float:
    """Smallest eigenvalue of the cross-products of the normalised columns: 1 if orthogonal, 0 if aliased."""
    gram = matrix.T @ matrix
    size = np.sqrt(np.diag(gram))
    return float(np.linalg.eigvalsh(gram / np.outer(size, size))[0]) if size.size and size.all() else 0.0
