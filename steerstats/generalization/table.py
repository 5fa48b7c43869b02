"""Mean steerability of every vector in every prompt, with the unsteered propensity: the table behind every gap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from steerstats.errors import CannotEstimate, check_level
from steerstats.generalization.slopes import (
    NO_WIDTH,
    SAMPLE,
    SlopeGrid,
    cells_frame,
    shift_name,
    unit_warnings,
    without_width,
)
from steerstats.generalization.vector_error import (
    cells_without,
    refit_doubts,
    se_types,
    vector_error_words,
    with_vector_error,
)
from steerstats.resampling.questions import question_means
from steerstats.results import Result
from steerstats.rounding import floats


@dataclass(frozen=True, kw_only=True)
class SteerabilityTable(Result):
    """Mean steerability over train x eval settings, and mean m(0) by evaluation setting.

    Parameters
    ----------
    datasets, train, evaluate : tuple of str
    mean, se, ci_low, ci_high : ndarray of shape (n_datasets, n_train, n_eval)
        Nats per unit multiplier; NaN where a cell was not evaluated.
    unsteered_mean, unsteered_ci_low, unsteered_ci_high : ndarray of shape (n_datasets, n_eval)
        Unsteered propensity in nats; NaN without it.
    n, n_excluded : ndarray of shape (n_datasets,)
        Questions complete in every evaluated cell, and inputs that were not.
    level : float
    includes_vector_error : ndarray of bool, shape (n_datasets, n_train, n_eval)
        Whether a cell's standard error and interval hold the vector's own sampling error. Unsteered propensities have
        no vector.
    """

    datasets: tuple[str, ...]
    train: tuple[str, ...]
    evaluate: tuple[str, ...]
    mean: np.ndarray
    se: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    unsteered_mean: np.ndarray
    unsteered_ci_low: np.ndarray
    unsteered_ci_high: np.ndarray
    n: np.ndarray
    n_excluded: np.ndarray
    level: float
    includes_vector_error: np.ndarray

    def to_frame(self) -> pd.DataFrame:
        """One row per dataset, train and eval setting; m(0) repeats over training settings."""
        axes = {"dataset": self.datasets, "train": self.train, "evaluate": self.evaluate}
        names = ("mean", "se", "ci_low", "ci_high", "includes_vector_error")
        unsteered = ("unsteered_mean", "unsteered_ci_low", "unsteered_ci_high")
        frame = cells_frame(self, names, axes, **{name: getattr(self, name)[:, None] for name in unsteered})
        return frame.assign(se_type=se_types(frame["includes_vector_error"]))


def steerability_table(grid: SlopeGrid, *, level: float = 0.95) -> SteerabilityTable:
    """Mean steerability of each dataset in every train x eval cell that was evaluated.

    Parameters
    ----------
    grid : SlopeGrid
        With `unsteered` for m(0); where it has `refits`, intervals include the vector's sampling error.
    level : float

    Returns
    -------
    SteerabilityTable
        t intervals over questions, on the inputs complete in all evaluated cells of the dataset.

    Raises
    ------
    CannotEstimate
        If no cell of a dataset was evaluated.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.generalization import steerability_table
    >>> table = steerability_table(steerstats.open_cache(steerstats.demo_cache()).grid(refits=True))
    >>> table.mean.shape  # dataset, train, evaluate
    (14, 6, 5)
    >>> round(float(table.mean[:, table.train.index("base"), table.evaluate.index("base")].mean()), 3)
    0.149
    """
    check_level(level)
    shape = (len(grid.datasets), len(grid.train), len(grid.evaluate))
    included = np.zeros(shape, dtype=bool)
    out = {name: np.full(shape, np.nan) for name in ("estimate", "se", "ci_low", "ci_high")}
    resting = np.full((3, shape[0], shape[2]), np.nan)
    n, n_excluded, warnings, doubted = [], [], [], {}
    for d, name in enumerate(grid.datasets):
        present = [(a, b) for a in grid.train for b in grid.evaluate if grid.has((a, b), name)]
        if not present:
            raise CannotEstimate(f"dataset {name!r} has no slope in any train x eval cell")
        cells = grid.cells(name, present)
        where = tuple(np.array([grid.place(shift) for shift in present]).T)
        *values, units = question_means(cells.slopes, cells.question, level)
        labels, again = np.array([shift_name(shift) for shift in present]), np.flatnonzero(cells.refitted)
        found = [
            with_vector_error(cells.slopes[k], cells.refits[:, k], questions=cells.question, level=level) for k in again
        ]
        for key, value in zip(out, values):
            value[again] = [getattr(one, key) for one in found]
            out[key][d][where] = value
        included[d][where] = cells.refitted
        if grid.unsteered is not None:
            resting[:, d] = _resting(floats(grid.unsteered[name])[:, cells.complete], cells.question, level)
        n.append(units)
        n_excluded.append(cells.n_excluded)
        doubted[name] = found, labels[again]
        warnings += unit_warnings(units, f"{name}: ")
        flat = labels[without_width(values[0], values[1])]
        if flat.size:
            warnings.append(f"{name}, {', '.join(flat)}: {NO_WIDTH}")
    present = np.isfinite(out["estimate"])
    named = [shift_name((a, b)) for a in grid.train for b in grid.evaluate]
    own, there = (cells.reshape(shape[0], -1) for cells in (included, present))
    warnings += [*refit_doubts(doubted), *cells_without(own, grid.datasets, named, present=there)]
    return SteerabilityTable(
        datasets=grid.datasets,
        train=grid.train,
        evaluate=grid.evaluate,
        mean=out["estimate"],
        se=out["se"],
        ci_low=out["ci_low"],
        ci_high=out["ci_high"],
        unsteered_mean=resting[0],
        unsteered_ci_low=resting[1],
        unsteered_ci_high=resting[2],
        n=np.array(n),
        n_excluded=np.array(n_excluded),
        level=level,
        includes_vector_error=included,
        method="mean over inputs complete in all evaluated cells, t interval over questions"
        + (" with Satterthwaite's degrees of freedom where there are refits" if included.any() else ""),
        assumptions=(SAMPLE, vector_error_words(included[present])),
        warnings=tuple(warnings),
    )


def _resting(values: np.ndarray, question: np.ndarray | None, level: float) -> np.ndarray:
    """Mean and interval of m(0) per evaluation setting, NaN where a setting lacks a value."""
    out = np.full((3, len(values)), np.nan)
    known = np.isfinite(values).all(axis=1)
    if known.any():
        found = question_means(values[known], question, level)
        out[:, known] = found.mean, found.ci_low, found.ci_high
    return out
