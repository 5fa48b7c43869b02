"""Gaps, and differences between caches, over all datasets: the mean of means, and what the next dataset would show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steerstats.errors import CannotEstimate, check_level
from steerstats.generalization.gap import GapTable
from steerstats.generalization.matched import Pair
from steerstats.meta import LEFT_OUT, MetaAnalysis, mean_over_datasets, with_few_units
from steerstats.results import Result

ALL_ALIKE = (
    "every question differs by the same amount: the interval has no width, and says nothing about other questions"
)
NO_MEAN = "no mean over datasets"


@dataclass(frozen=True, kw_only=True)
class OverallGap(Result):
    """A meta-analysis over datasets per component and shift.

    Parameters
    ----------
    component, shift : tuple of str
        One entry per meta-analysis; components of a shift that have none are named in the warnings.
    analyses : tuple of MetaAnalysis
    n : int
        Datasets.
    """

    component: tuple[str, ...]
    shift: tuple[str, ...]
    analyses: tuple[MetaAnalysis, ...]
    n: int

    def of(self, component: str, shift: str) -> MetaAnalysis | None:
        """The meta-analysis of one component and shift, None where there is none."""
        keys = list(zip(self.component, self.shift))
        return self.analyses[keys.index((component, shift))] if (component, shift) in keys else None

    def absences(self) -> tuple[str, ...]:
        """Those of the warnings that name means, or datasets in them, that are not there."""
        return tuple(text for text in self.warnings if NO_MEAN in text or LEFT_OUT in text)

    def to_frame(self) -> pd.DataFrame:
        """Rows of each meta-analysis, with component and shift in front."""
        frames = []
        for component, shift, analysis in zip(self.component, self.shift, self.analyses):
            frame = analysis.to_frame()
            frame.insert(0, "component", component)
            frame.insert(1, "shift", shift)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)


def overall_gap(table: GapTable, *, category: Mapping[str, str] | None = None, level: float = 0.95) -> OverallGap:
    """Mean gap over datasets for each component and shift of a `GapTable`.

    Parameters
    ----------
    table : GapTable
    category : mapping of str to str, optional
        Dataset -> category; leave-one-out then leaves out categories.
    level : float

    Returns
    -------
    OverallGap
        The unweighted mean and the random-effects mean stand side by side.

    Raises
    ------
    CannotEstimate
        If no component of any shift has a mean, as with one dataset.

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats.generalization import gap_table, overall_gap
    >>> grid = steerstats.open_cache(steerstats.demo_cache()).grid()
    >>> table = gap_table(grid, ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=200)
    >>> overall = overall_gap(table).analyses[0]
    >>> [round(value, 3) for value in (overall.mean, overall.prediction_low, overall.prediction_high)]
    [0.063, -0.088, 0.214]
    """
    check_level(level)
    groups = None if category is None else [category[name] for name in table.datasets]
    units = dict(zip(table.datasets, map(int, table.n)))
    keys, analyses, warnings, few, refused = [], [], [], [], []
    for i, component in enumerate(table.components):
        for j, shift in enumerate(table.shifts):
            try:
                found = mean_over_datasets(
                    table.estimate[i, :, j], table.se[i, :, j] ** 2, names=table.datasets, category=groups, level=level
                )
            except CannotEstimate as error:
                # The prompt's part of a shift to the reference's own prompt is 0 by definition; others have a mean.
                refused.append(f"{component} {shift}: {NO_MEAN}: {error}")
                continue
            told = with_few_units(found, units, dict(zip(table.datasets, map(int, table.n_refits[i, :, j]))))
            keys.append((component, shift))
            analyses.append(told)
            warnings += [f"{component} {shift}: {text}" for text in told.warnings if text in found.warnings]
            few += [text for text in told.warnings if text not in found.warnings]
    if not analyses:
        raise CannotEstimate("; ".join(refused))
    return OverallGap(
        component=tuple(key[0] for key in keys),
        shift=tuple(key[1] for key in keys),
        analyses=tuple(analyses),
        n=len(table.datasets),
        method=analyses[0].method,
        assumptions=(*analyses[0].assumptions, *table.assumptions),
        warnings=tuple(dict.fromkeys((*refused, *warnings, *few))),
    )


def weighed_alike(variance: np.ndarray) -> np.ndarray:
    """One variance for all that have one, where some are 0 and none may be left out for not having changed.

    The random-effects mean is then the unweighted one, and Hartung and Knapp's interval its t interval; weights of
    1 / 0 have no other finite limit.
    """
    known = np.isfinite(variance)
    return np.where(known, variance[known].mean(), variance)


def means_of_pairs(
    pairs: tuple[Pair, ...],
    datasets: tuple[str, ...],
    shifts: tuple[str, ...],
    out: dict[str, np.ndarray],
    n: np.ndarray,
    n_refits: np.ndarray,
    level: float,
) -> tuple[dict, dict, tuple[str, ...]]:
    """Mean over datasets of every pair and shift, simultaneous limits of the one to read, and the doubts.

    Parameters
    ----------
    pairs : tuple of (str, str)
    datasets, shifts : tuple of str
    out : dict of str to ndarray
        "estimate" and "se" of shape (n_pairs, n_datasets, n_shifts).
    n : ndarray of int, shape (n_pairs, n_datasets)
        Questions.
    n_refits : ndarray of int, shape (n_pairs, n_datasets, n_shifts)
        Refitted vectors behind the standard errors that hold their error; 0 elsewhere.
    level : float
    """
    over, bands, notes, given = {}, {}, [], {}
    for p, s in np.ndindex(len(pairs), len(shifts)):
        effect, variance = out["estimate"][p, :, s], out["se"][p, :, s] ** 2
        there = np.isfinite(effect)
        known, still = there & np.isfinite(variance), there & (variance == 0)
        place = f"{' and '.join(pairs[p])}, {shifts[s]}"
        if still.any():
            which = "all datasets" if still[there].all() else ", ".join(n for n, has in zip(datasets, still) if has)
            notes.append(f"{place}, {which}: {ALL_ALIKE}")
        if there.sum() > 1 and (known.sum() < 2 or not variance[known].any()):
            notes.append(f"{place}: no mean over datasets, since fewer than two have a standard error above 0")
        elif there.sum() > 1:
            if still.any():
                variance = weighed_alike(variance)
                notes.append(f"{place}: all datasets weigh alike in the mean over datasets")
            given[p, s] = effect[there], variance[there], [n for n, has in zip(datasets, there) if has], place
    for (p, s), (effect, variance, names, place) in given.items():
        units, refits = (
            {name: int(count) for name, count in zip(datasets, counts) if name in names}
            for counts in (n[p], n_refits[p, :, s])
        )
        fit = with_few_units(mean_over_datasets(effect, variance, names=names, level=level), units, refits)
        wide = mean_over_datasets(effect, variance, names=names, level=1 - (1 - level) / len(given))
        band = wide.reading(fit.to_read)
        over[pairs[p], shifts[s]], bands[pairs[p], shifts[s]] = fit, (band.ci_low, band.ci_high)
        notes += [f"{place}: {text}" for text in fit.warnings]
    return over, bands, tuple(notes)
