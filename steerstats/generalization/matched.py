"""What two caches share of one dataset: inputs matched by identity, and whether their refits saw the same pairs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steerstats.errors import InputError
from steerstats.generalization.slopes import Shift, SlopeGrid
from steerstats.generalization.vector_error import refit_variance
from steerstats.rounding import floats

Pair = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Refits of one cache, or differences of two caches' paired ones: what they add to a difference, in which cells."""

    means: np.ndarray  # (refits, cells), NaN columns where there are none
    draws: Hashable  # equal where the refits are of the same resamples


@dataclass(frozen=True, kw_only=True)
class Matched:
    """What a pair shares of one dataset: cells (indices of shifts), differences, questions, and its vectors."""

    cells: np.ndarray
    differences: np.ndarray  # (cells, inputs)
    question: np.ndarray  # (inputs,)
    vectors: tuple[Vectors, ...]  # none; one of paired refits; or both caches', the first's with its sign turned

    @property
    def refitted(self) -> np.ndarray:
        """Cells (bool) in which both caches have refits."""
        has = [np.isfinite(part.means).all(axis=0) for part in self.vectors]
        return np.logical_and.reduce(has) if has else np.zeros(len(self.cells), dtype=bool)

    def vector_parts(self, k: int) -> tuple[list[float], list[int]]:
        """What another draw of each vector adds to the variance of cell k's mean, and its degrees of freedom."""
        return [refit_variance(part.means[:, k]) for part in self.vectors], [len(p.means) - 1 for p in self.vectors]


def match(
    labels: Pair,
    grids: tuple[SlopeGrid, SlopeGrid],
    inputs: tuple[Mapping[str, Sequence[str]], Mapping[str, Sequence[str]]],
    name: str,
    shifts: list[Shift],
) -> Matched | None:
    """What a pair of caches shares of dataset `name`: cells, complete inputs and refits; None where there is nothing.

    Parameters
    ----------
    labels : (str, str)
        Names of the caches; refits whose resamples are not named are told apart by them.
    grids : (SlopeGrid, SlopeGrid)
    inputs : (mapping, mapping)
        Dataset -> identity of each input, per cache.
    name : str
    shifts : list of (train, eval)

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.generalization.matched import match
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> grid, inputs = study.grid(refits=True), {"likes-rain": study.unit("likes-rain").inputs}
    >>> found = match(("one", "same"), (grid, grid), (inputs, inputs), "likes-rain", [("base", "base")])
    >>> [part.means.ravel().any() for part in found.vectors]  # paired: a cache's refits do not differ from themselves
    [np.False_]
    """
    if any(name not in grid.slopes for grid in grids):
        return None
    cells = [k for k, shift in enumerate(shifts) if all(grid.has(shift, name) for grid in grids)]
    sides = [pd.Index(np.asarray(ids[name], dtype=object)) for ids in inputs]
    both = sides[0].intersection(sides[1], sort=False)
    if not cells or not len(both):
        return None
    rows = [side.get_indexer(both) for side in sides]
    slopes, refits, complete = [], [], np.ones(len(both), dtype=bool)
    for grid, row in zip(grids, rows):
        places = [grid.place(shifts[k]) for k in cells]
        slopes.append(np.stack([grid.slopes[name][i, j, row] for i, j in places]))
        complete &= np.isfinite(slopes[-1]).all(axis=0)
        again = None if grid.refits is None or name not in grid.refits else floats(grid.refits[name])
        refits.append(None if again is None else np.stack([again[:, i, j][:, row] for i, j in places], axis=1))
        if refits[-1] is not None:
            refitted = np.isfinite(refits[-1]).any(axis=(0, 2))
            complete &= np.isfinite(refits[-1][:, refitted]).all(axis=(0, 1))
    if not complete.any():
        return None
    question = both if grids[0].question is None else np.asarray(grids[0].question[name])[rows[0]]
    vectors: tuple[Vectors, ...] = ()
    if all(r is not None for r in refits):
        means = [r[..., complete].mean(axis=2) for r in refits]
        vectors = _vectors(means, [grid.draws(name) for grid in grids], labels)
    return Matched(
        cells=np.array(cells),
        differences=(slopes[1] - slopes[0])[:, complete],
        question=np.asarray(question)[complete],
        vectors=vectors,
    )


def check_inputs(grids: Mapping[str, SlopeGrid], inputs: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Refuse identities of inputs that are not one for each slope of a dataset."""
    for label, grid in grids.items():
        for name, values in grid.slopes.items():
            if len(inputs[label][name]) != values.shape[2]:
                raise InputError(
                    f"inputs[{label!r}][{name!r}] has {len(inputs[label][name])} labels for {values.shape[2]} slopes"
                )


def _vectors(means: list[np.ndarray], draws: list[tuple[str, ...] | None], labels: Pair) -> tuple[Vectors, ...]:
    """Refits of both caches, paired where they name the same resamples."""
    keys = [label if own is None else tuple(sorted(own)) for label, own in zip(labels, draws)]
    first, second = (m if own is None else m[np.argsort(own)] for m, own in zip(means, draws))
    if keys[0] == keys[1]:
        return (Vectors(means=second - first, draws=keys[0]),)
    return Vectors(means=-first, draws=keys[0]), Vectors(means=second, draws=keys[1])
