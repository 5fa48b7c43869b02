"""The everyday model without its model matrix: products of numeric columns, the same complete design in every group.

`y ~ lam * (a + yes) + (1 + lam | input)` on 500 inputs x 7 multipliers has a matrix of 3,500 x 6 whose columns are
all (a function of the input) x (a function of the multiplier). Building it, finding that structure in it and hashing
it costs several times the fit. Here the structure is read off the formula and checked on the columns themselves:
each one has to be equal, bit by bit, within every group or over all groups. Where anything else is seen (a missing
value, other rows per group, text, a transformation, columns near collinearity) the answer is None and the general way
is taken. What is remembered between calls is what a formula's text says (and, for the place of each term, which of
its columns were constant within groups): a pure function of its key, so never a column, a dtype or a level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from steerstats.mixed.arrays import Orthogonal, orthogonal
from steerstats.mixed.formula import (
    Pool,
    RandomTerm,
    column_products,
    multiplied,
    parse_formula,
    product_names,
)

COLLINEAR = 1e-8  # smallest eigenvalue of the normalised cross-products, over W times over Z; aliasing begins at 1e-14


@dataclass(frozen=True, slots=True)
class ProductFormula:
    """A formula of products of columns with one random term on one column, as far as its text tells."""

    response: str
    columns: tuple[str, ...]
    fixed: tuple[tuple[str, ...], ...]
    random: tuple[tuple[str, ...], ...]
    terms: tuple[RandomTerm, ...]
    names: tuple[str, ...]
    z_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """Factors of the columns of W and of Z, and the row of W and column of Z of each fixed effect."""

    rows: tuple[tuple[str, ...], ...]
    along: tuple[tuple[str, ...], ...]
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductDesign:
    """A design X = W x Z kept as its factors, with the attributes of `Design` that a result needs.

    `Y` (N, m), `W` (N, p), `Z` one array (m, q); `factors` their decompositions, of Z and of W; `places` the row of
    Gamma and column of Z of each fixed effect; `scale` the largest absolute response.
    `columns` holds each numeric column as (N, 1), constant within groups, or (1, m), the same in all.
    """

    formula: str
    Y: np.ndarray
    scale: float
    W: np.ndarray
    Z: tuple[np.ndarray]
    factors: tuple[Orthogonal, Orthogonal]
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
        return multiplied(self.fixed, self.columns, self.Y.shape).reshape(self.Y.size, -1)


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
    # All look-ups in a row: pandas' way to a column is long, and twice as long for a processor that has just left it.
    labels, *series = [frame.get(name) for name in (read.terms[0].group[0], read.response, *read.columns)]
    numbers = [_numbers(one) for one in series]
    if any(one is None for one in numbers):
        return None
    y, *values = numbers
    m = _rows_per_group(labels)
    if not m:
        return None
    Y = y.reshape(-1, m).copy()
    scale = float(np.abs(Y).max())
    if not np.isfinite(scale):  # NaN and inf both reach the maximum
        return None

    columns, between = {}, []
    for name, one in zip(read.columns, values):
        grid = one.reshape(-1, m)
        if len(set(grid[0].tolist())) == 1:  # then it can only be constant within every group, else only alike in all
            column = grid[:, :1]
            between.append(name)
        else:
            column = grid[:1]
        if not ((grid == column).all() and np.isfinite(column).all()):  # NaN is unequal to itself
            return None
        columns[name] = column.copy()
    placed = _placement(formula, tuple(between))
    if placed is None:
        return None
    W = multiplied(placed.rows, columns, (len(Y), 1))[:, 0]
    Z = multiplied(placed.along, columns, (1, m))[0]
    if len(W) <= W.shape[1] or len(Z) <= Z.shape[1]:
        return None
    within, between_groups = orthogonal(Z, complete=True), orthogonal(W)
    if not _far_from_collinear(within.R, between_groups.R):
        return None
    return ProductDesign(
        formula=formula,
        Y=Y,
        scale=scale,
        W=W,
        Z=(Z,),
        factors=(within, between_groups),
        names=read.names,
        z_names=(read.z_names,),
        places=placed.places,
        terms=read.terms,
        levels=(len(Y),),
        columns=columns,
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
    return ProductFormula(response, columns, parts[0], parts[1], terms, *map(product_names, parts))


@lru_cache(maxsize=256)
def _placement(formula: str, between: tuple[str, ...]) -> Placement | None:
    """Where each fixed effect stands, if all of W x Z is there once; `between` are the columns constant in groups."""
    read = _read_formula(formula)
    if any(name in between for factors in read.random for name in factors):
        return None
    along = {tuple(sorted(factors)): k for k, factors in enumerate(read.random)}
    rows: dict[tuple[str, ...], int] = {}
    places = []
    for factors in read.fixed:
        k = along.get(tuple(sorted(name for name in factors if name not in between)))
        if k is None:
            return None
        row = rows.setdefault(tuple(name for name in factors if name in between), len(rows))
        places.append((row, k))
    if (
        not rows
        or len(along) != len(read.random)
        or len(set(places)) != len(places)
        or len(places) != len(rows) * len(along)
    ):
        return None
    return Placement(tuple(rows), read.random, tuple(places))


def _numbers(series: object) -> np.ndarray | None:
    """A column of numbers as floats; None for anything else, what stands for a missing or doubled column included."""
    if not isinstance(series, pd.Series) or not isinstance(series.dtype, np.dtype) or series.dtype.kind not in "fiu":
        return None
    return np.asarray(series.to_numpy(), dtype=float)


def _rows_per_group(series: object) -> int:
    """Rows of each group, if each group is one block of rows and all are equally long; 0 if not, or where it is 1."""
    if not isinstance(series, pd.Series):
        return 0
    n = len(series)
    if isinstance(series.dtype, pd.StringDtype) and series.dtype.storage == "pyarrow":
        ends, distinct = _string_blocks(series)
    else:
        ends, distinct = _blocks(series)
    m, ragged = divmod(n, distinct) if distinct > 1 else (0, 0)
    if m < 2 or ragged or len(ends) != distinct or not (ends == np.arange(m, n + 1, m)).all():
        return 0
    return m


def _string_blocks(series: pd.Series) -> tuple[np.ndarray, int]:
    """`_blocks` of Arrow's strings: comparing neighbours costs a third of the hash per row that factorising takes."""
    import pyarrow  # there, since the column is made of it
    from pyarrow import compute

    if not hasattr(compute, "run_end_encode"):  # pyarrow before 13
        return _blocks(series)
    labels = pyarrow.array(series.array)
    if isinstance(labels, pyarrow.ChunkedArray):
        labels = labels.combine_chunks()
    if labels.null_count:
        return np.empty(0, dtype=int), 0
    runs = compute.run_end_encode(labels)
    return runs.run_ends.to_numpy(), len(runs.values.unique())


def _blocks(series: pd.Series) -> tuple[np.ndarray, int]:
    """One past the last row of each run of equal labels, and how many labels there are; no run if one is missing."""
    if isinstance(series.dtype, np.dtype) and series.dtype.kind in "iub":
        codes = series.to_numpy()
    else:
        codes = series.array.codes if isinstance(series.dtype, pd.CategoricalDtype) else pd.factorize(series.array)[0]
        if not len(codes) or codes.min() < 0:
            return np.empty(0, dtype=int), 0
    ends = np.append(np.flatnonzero(codes[1:] != codes[:-1]) + 1, len(codes))
    return ends, len(set(codes[ends - 1].tolist())) if len(codes) else 0


def _far_from_collinear(*triangles: np.ndarray) -> bool:
    """Whether the smallest eigenvalues of the normalised cross-products of W and of Z, multiplied, exceed COLLINEAR.

    The squared distance of a column of W x Z from all others is the product of the distances in W and in Z. p
    eigenvalues that sum to p have a product below e times the smallest, so most designs need no more than the
    determinants, which are the shares of each column's square that those before it leave.
    """
    determinant = 1.0
    for R in triangles:
        for j, column in enumerate(R.T.tolist()):
            size = sum(value * value for value in column)
            determinant *= column[j] ** 2 / size if size else 0.0
    if not determinant or determinant > math.e**2 * COLLINEAR:
        return determinant > 0
    normalised = [R / np.linalg.norm(R, axis=0) for R in triangles]
    return math.prod(float(np.linalg.eigvalsh(R.T @ R)[0]) for R in normalised) > COLLINEAR
