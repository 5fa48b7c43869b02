"""How often each unit is drawn: the counts matrix that every bootstrap in steerstats shares.

A resample is a row of multinomial counts over the units of resampling (questions, or datasets), and a
weighted sum over the units is a matrix product. One draw therefore serves every statistic that is paired on
the same units. Rows come in chunks, so memory does not grow with the number of resamples.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from steerstats.errors import InputError, check_count, check_rng
from steerstats.rounding import floats

# Chunks that stay in the processor's cache: with 16 MiB a draw of 10,000 resamples took half as long again.
CHUNK_BYTES = 2**20


def iter_counts(
    n_units: int, n_resamples: int, rng: np.random.Generator, *, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[np.ndarray]:
    """Bootstrap counts, chunk by chunk.

    Parameters
    ----------
    n_units : int
        Units of resampling; each resample draws as many, with replacement.
    n_resamples : int
        Rows over all chunks.
    rng : numpy.random.Generator
        Used exactly as `rng.integers(0, n_units, (n_resamples, n_units))` does, which is also how
        `scipy.stats.bootstrap` draws.
    chunk_bytes : int
        Size of one float64 chunk. It does not change the numbers.

    Yields
    ------
    ndarray of shape (chunk, n_units), float64
        Non-negative whole numbers; each row sums to `n_units`.

    Raises
    ------
    InputError
        If there is no unit or no resample.

    Examples
    --------
    >>> import numpy as np
    >>> from steerstats.resampling import iter_counts
    >>> counts = next(iter_counts(5, 1000, np.random.default_rng(0)))
    >>> counts.shape, bool((counts.sum(axis=1) == 5).all())  # each row is one resample of five questions
    ((1000, 5), True)
    """
    n_units, n_resamples = check_count("n_units", n_units), check_count("n_resamples", n_resamples)
    check_rng(rng)
    rows = max(1, chunk_bytes // (8 * n_units))
    for start in range(0, n_resamples, rows):
        size = min(rows, n_resamples - start)
        index = rng.integers(0, n_units, (size, n_units))
        index += (np.arange(size) * n_units)[:, None]
        yield np.bincount(index.ravel(), minlength=size * n_units).reshape(size, n_units).astype(float)


def resampled_sums(columns: np.ndarray, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Sum of each column over the units of each resample.

    Parameters
    ----------
    columns : array of shape (n_units, k)
        What to sum.
    n_resamples, rng
        As in `iter_counts`.

    Returns
    -------
    ndarray of shape (n_resamples, k)

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats.resampling import resampled_sums
    >>> slopes = steerstats.open_cache(steerstats.demo_cache()).slopes("likes-rain").at("base->base")
    >>> means = resampled_sums(slopes[:, None], 2000, np.random.default_rng(0)) / len(slopes)
    >>> round(float(means.std()), 3), round(float(slopes.std(ddof=1) / len(slopes) ** 0.5), 3)
    (0.01, 0.01)
    """
    columns = floats(columns)
    if columns.ndim != 2:
        raise InputError(f"columns has shape {columns.shape}; (n_units, k) is needed")
    out = np.empty((check_count("n_resamples", n_resamples), columns.shape[1]))
    start = 0
    for counts in iter_counts(len(columns), n_resamples, rng):
        np.matmul(counts, columns, out=out[start : start + len(counts)])
        start += len(counts)
    return out


def collapse(values: np.ndarray, unit: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum inputs within their unit of resampling, so that twins of one question are drawn together.

    Parameters
    ----------
    values : array of shape (..., n_inputs)
        Finite numbers per input.
    unit : array of shape (n_inputs,) or None
        Label of each input's unit; None makes each input its own unit.

    Returns
    -------
    sums : ndarray of shape (..., n_units)
        Units in order of first appearance.
    sizes : ndarray of shape (n_units,)
        Inputs per unit.

    Raises
    ------
    InputError
        If `unit` has another length or lacks a label, or a value is not finite.

    Examples
    --------
    >>> from steerstats.resampling import collapse
    >>> sums, sizes = collapse([1.0, 2.0, 10.0], ["twin", "twin", "single"])
    >>> sums.tolist(), sizes.tolist()
    ([3.0, 10.0], [2.0, 1.0])
    """
    values = floats(values)
    n = values.shape[-1]
    if not np.isfinite(values).all():
        raise InputError("values hold NaN or infinite entries; drop the incomplete inputs first")
    if unit is None:
        return values, np.ones(n)
    refuse_unlabelled(unit, "unit")
    unit = np.asarray(unit)
    if unit.shape != (n,):
        raise InputError(f"unit has shape {unit.shape}; one label for each of the {n} inputs is needed")
    _, first, inverse, sizes = np.unique(unit, return_index=True, return_inverse=True, return_counts=True)
    appearance = np.argsort(first)
    if len(sizes) == n:
        return values, np.ones(n)
    place = np.empty_like(appearance)
    place[appearance] = np.arange(len(appearance))
    order = np.argsort(place[inverse], kind="stable")
    sizes = sizes[appearance]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return np.add.reduceat(values[..., order], starts, axis=-1), sizes.astype(float)


def refuse_unlabelled(labels: np.ndarray, name: str) -> None:
    """Raise InputError where a label is missing: such observations would count as one unit."""
    missing = np.ravel(pd.isna(labels))
    if missing.any():
        raise InputError(f"{name}[{int(missing.argmax())}] is missing; every observation needs a label")
