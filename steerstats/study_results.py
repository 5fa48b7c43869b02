"""What a study's main questions return: one estimator's results per dataset, and what they come to over datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from steerstats.distribution import SteerabilitySummary
from steerstats.errors import CannotEstimate
from steerstats.generalization import (
    CorrelationTable,
    GapTable,
    OverallGap,
    RatioTable,
    SteerabilityTable,
    VarianceTable,
)
from steerstats.meta import MetaAnalysis, mean_over_datasets
from steerstats.results import Estimate, Result
from steerstats.spurious import FactorCells, PooledSpuriousFactors, SpuriousFactors, VarianceExplained


@dataclass(frozen=True, kw_only=True)
class PerDataset(Result):
    """The same estimator on every dataset.

    Parameters
    ----------
    results : mapping of dataset to Result
        `table["myopic-reward"]` gives one.
    left_out : mapping of dataset to str
        Datasets on which it cannot be estimated, and why.
    """

    results: Mapping[str, Result]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def datasets(self) -> tuple[str, ...]:
        """Datasets with a result."""
        return tuple(self.results)

    def __getitem__(self, dataset: str) -> Result:
        if dataset in self.left_out:
            raise CannotEstimate(f"dataset {dataset}: {self.left_out[dataset]}")
        return self.results[dataset]

    def to_frame(self) -> pd.DataFrame:
        """The rows of every dataset's result, with a first column `dataset`."""
        return stack({name: result.to_frame() for name, result in self.results.items()})


@dataclass(frozen=True, kw_only=True)
class DatasetSteerability(PerDataset):
    """Steerability of every dataset under one shift, highest median first (the paper's figure 1).

    Parameters
    ----------
    results : mapping of dataset to SteerabilitySummary
        Mean, median, spread and sign shares over test inputs.
    shift : str
    vector_error : mapping of dataset to Estimate
        The mean again, with the vector's own sampling error in its interval; empty without refitted vectors.
    over_datasets : MetaAnalysis or None
        Random-effects mean of mean steerability; None with fewer than two datasets.
    """

    results: Mapping[str, SteerabilitySummary]
    shift: str
    vector_error: Mapping[str, Estimate]
    over_datasets: MetaAnalysis | None

    def means(self) -> pd.Series:
        """Mean steerability by dataset, in the table's order."""
        return pd.Series({name: result["mean"].estimate for name, result in self.results.items()}, name="mean")

    def to_frame(self) -> pd.DataFrame:
        """One row per dataset and estimate (name, estimate, se, ci_low, ci_high, level, n, unit, method).

        `includes_vector_error` tells the one row of a dataset, if any, whose interval holds the vector's own error.
        """
        parts = {}
        for name, result in self.results.items():
            parts[name] = result.to_frame().assign(includes_vector_error=False)
            if name in self.vector_error:
                own = self.vector_error[name]
                own = own.to_frame().assign(method=own.method, includes_vector_error=True)
                parts[name] = pd.concat([parts[name], own], ignore_index=True)
        return stack(parts).assign(shift=self.shift)


@dataclass(frozen=True, kw_only=True)
class SpuriousTable(PerDataset):
    """Steerability bias of every dataset, and over datasets.

    Parameters
    ----------
    results : mapping of dataset to SpuriousFactors
        Effects of A/B, Yes/No and their interaction on slope and unsteered propensity, with a mixed model.
    shift : str
    explained, published : mapping of dataset to VarianceExplained
        Shapley shares of adjusted R²; the paper's sequential split beside them.
    cells : mapping of dataset to FactorCells
        Means and counts by cell of the binary factors.
    over_datasets : PooledSpuriousFactors or None
        Two-stage means, Hartung–Knapp; None where fewer than two datasets inform every term.
    """

    results: Mapping[str, SpuriousFactors]
    shift: str
    explained: Mapping[str, VarianceExplained]
    published: Mapping[str, VarianceExplained]
    cells: Mapping[str, FactorCells]
    over_datasets: PooledSpuriousFactors | None

    def explained_frame(self) -> pd.DataFrame:
        """Variance shares: one row per dataset, split and component."""
        both = [stack({n: r.to_frame() for n, r in part.items()}) for part in (self.explained, self.published)]
        return pd.concat(both, ignore_index=True)

    def cells_frame(self) -> pd.DataFrame:
        """Means and counts by cell: one row per dataset and cell."""
        return stack({name: result.to_frame() for name, result in self.cells.items()})


@dataclass(frozen=True, kw_only=True)
class Generalization(Result):
    """Does steerability survive another prompt?

    Parameters
    ----------
    gaps : GapTable
        Gap of every dataset under every shift; its intervals include the vector's error where refits allow it.
    decomposition : GapTable
        The same gaps split into what the prompt does to any vector and what transfer costs. It is `gaps` itself
        where no refits are used; otherwise its intervals are about these very vectors.
    ratios : RatioTable or None
        Relative steerability with Fieller sets; None where eval->eval was not evaluated.
    correlations : CorrelationTable
        Spearman correlation over datasets of steerability in and out of distribution.
    overall : OverallGap or None
        Random-effects mean gap and its parts over datasets; None with fewer than two datasets.
    settings : SteerabilityTable
        Mean slope and unsteered propensity in the whole train × eval table.
    variances : VarianceTable
        Spread of slopes over inputs, in distribution and under each shift.
    """

    gaps: GapTable
    decomposition: GapTable
    ratios: RatioTable | None
    correlations: CorrelationTable
    overall: OverallGap | None
    settings: SteerabilityTable
    variances: VarianceTable

    def to_frame(self) -> pd.DataFrame:
        """One row per dataset, shift and component (gap, prompt, transfer)."""
        frame = self.gaps.to_frame()
        if self.decomposition is self.gaps:
            return frame
        parts = self.decomposition.to_frame()
        return pd.concat([frame[frame["component"] == "gap"], parts[parts["component"] != "gap"]], ignore_index=True)


def stack(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Frames of several datasets as one, with a first column `dataset`."""
    parts = []
    for name, frame in frames.items():
        part = frame.copy()
        part.insert(0, "dataset", name)
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"dataset": []})


def for_each(datasets: Iterable[str], estimate: Callable[[str], Result]) -> tuple[dict[str, Result], dict[str, str]]:
    """Results by dataset, and the reasons of those that cannot be estimated.

    Raises
    ------
    CannotEstimate
        If none can, with the first reason.
    """
    results, left_out = {}, {}
    for name in datasets:
        try:
            results[name] = estimate(name)
        except CannotEstimate as error:
            left_out[name] = str(error)
    if not results:
        name, reason = next(iter(left_out.items()))
        raise CannotEstimate(f"no dataset allows this; {name}: {reason}")
    return results, left_out


def doubts(results: Mapping[str, Result], left_out: Mapping[str, str]) -> tuple[str, ...]:
    """Warnings of every dataset, each with its name; one that all share is said once."""
    gathered: dict[str, list[str]] = {}
    for name, result in results.items():
        for text in result.warnings:
            gathered.setdefault(text, []).append(name)
    lines = [f"{name} is left out: {reason}" for name, reason in left_out.items()]
    for text, names in gathered.items():
        everywhere = len(names) == len(results) > 1
        lines.append(f"all datasets: {text}" if everywhere else f"{', '.join(names)}: {text}")
    return tuple(lines)


def pooled(
    effects: Mapping[str, float], errors: Mapping[str, float], category: Mapping[str, str] | None, level: float
) -> MetaAnalysis | None:
    """Random-effects mean over datasets, None where there are too few."""
    names = list(effects)
    try:
        return mean_over_datasets(
            np.array([effects[name] for name in names]),
            np.square([errors[name] for name in names]),
            names=names,
            category=None if category is None else [category[name] for name in names],
            level=level,
        )
    except CannotEstimate:
        return None
