"""The gap over all datasets: the mean of means, and what the next dataset would show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from steerstats.errors import check_level
from steerstats.generalization.gap import GapTable
from steerstats.meta import MetaAnalysis, mean_over_datasets
from steerstats.results import Result


@dataclass(frozen=True, kw_only=True)
class OverallGap(Result):
    """A meta-analysis over datasets per component and shift.

    Parameters
    ----------
    component, shift : tuple of str
        One entry per meta-analysis.
    analyses : tuple of MetaAnalysis
    n : int
        Datasets.
    """

    component: tuple[str, ...]
    shift: tuple[str, ...]
    analyses: tuple[MetaAnalysis, ...]
    n: int

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
    keys, analyses, warnings = [], [], []
    for i, component in enumerate(table.components):
        for j, shift in enumerate(table.shifts):
            found = mean_over_datasets(
                table.estimate[i, :, j], table.se[i, :, j] ** 2, names=table.datasets, category=groups, level=level
            )
            keys.append((component, shift))
            analyses.append(found)
            warnings += [f"{component} {shift}: {text}" for text in found.warnings]
    return OverallGap(
        component=tuple(key[0] for key in keys),
        shift=tuple(key[1] for key in keys),
        analyses=tuple(analyses),
        n=len(table.datasets),
        method=analyses[0].method,
        assumptions=(*analyses[0].assumptions, *table.assumptions),
        warnings=tuple(dict.fromkeys(warnings)),
    )
