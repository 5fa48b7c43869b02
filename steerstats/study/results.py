"""What a study's main questions return: one estimator's results per dataset, and what they come to over datasets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import pandas as pd

from steerstats.errors import CannotEstimate, InputError, first_few, gathered
from steerstats.meta import MetaAnalysis
from steerstats.operators import ABLATE, ADD
from steerstats.results import Estimate, Result
from steerstats.spurious import FactorCells, PooledSpuriousFactors, SpuriousFactors, VarianceExplained
from steerstats.steerability import SteerabilitySummary
from steerstats.study.headlines import OVER, UNIT, Headlined, middle, number, over_datasets, share, with_limits
from steerstats.study.unit import StudyUnit


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
        if dataset not in self.results:
            raise InputError(f"no dataset {dataset!r}; there are {', '.join(self.results)}")
        return self.results[dataset]

    def to_frame(self) -> pd.DataFrame:
        """The rows of every dataset's result, with a first column `dataset`."""
        return stack({name: result.to_frame() for name, result in self.results.items()})


@dataclass(frozen=True, kw_only=True)
class DatasetSteerability(Headlined, PerDataset):
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
    operator : str
        How the vectors act; under "ablate" a slope below 0 is no failure of theirs, and is not called one.
    """

    results: Mapping[str, SteerabilitySummary]
    shift: str
    vector_error: Mapping[str, Estimate]
    over_datasets: MetaAnalysis | None
    operator: str = ADD

    PARTS: ClassVar[Mapping[str, str]] = {
        "results": "every estimate of each dataset, with its method (also `result[dataset]`)",
        "vector_error": "the means again, with the vector's own sampling error in their intervals",
        "over_datasets": "the meta-analysis, leave-one-out included",
        "to_frame()": "all of it, one row per dataset and estimate",
    }

    def sections(self) -> list[tuple[str, pd.DataFrame]]:
        """The mean over datasets, what is anti-steerable, and one row for each dataset."""
        out, every = [], list(self.results.values())
        level = every[0]["mean"].level
        if self.over_datasets is not None:
            table = over_datasets([(self.shift, self.over_datasets)], "", level)
            out.append((f"Mean steerability over datasets, {UNIT} ({OVER})", table))
        taken = self.operator == ABLATE
        if len(every) > 1:  # of one dataset its row says all this
            wrong = [one["anti_steerable"].estimate for one in every]
            median, spread = middle(wrong, share)
            below = sum(one["mean"].estimate < 0 for one in every)
            what = "inputs whose propensity falls" if taken else "inputs steered the wrong way"
            counted = [(f"{what}, median over datasets", median, spread, str(len(every)))]
            counted.append(("datasets whose mean is below 0", str(below), "", str(len(every))))
            title = "What taking the direction out does (operator ablate)" if taken else "Anti-steerable"
            out.append((title, pd.DataFrame(counted, columns=["", "estimate", "range", "n"])))
        rows = []
        for name, one in self.results.items():
            mean, wrong = self.vector_error.get(name, one["mean"]), one["anti_steerable"]
            low, high = share(wrong.ci_low), share(wrong.ci_high)
            text = with_limits(mean.estimate, mean.ci_low, mean.ci_high)
            rows.append(
                {
                    "dataset": name,
                    "n": str(one["mean"].n),
                    f"mean [{level:.0%}]": text + (" v" if name in self.vector_error else ""),
                    "median": number(one["median"].estimate),
                    "SD": number(one["sd"].estimate),
                    f"{'below 0' if taken else 'wrong way'} [{level:.0%}]": f"{share(wrong.estimate)} [{low}, {high}]",
                }
            )
        title = f"Steerability by dataset, {self.shift}, {UNIT}, highest median first"
        said = "; v: the interval includes the vector's own error" if self.vector_error else ""
        return [*out, (title + said, pd.DataFrame(rows))]

    def means(self) -> pd.Series:
        """Mean steerability by dataset, in the table's order."""
        return pd.Series({name: result["mean"].estimate for name, result in self.results.items()}, name="mean")

    def to_frame(self) -> pd.DataFrame:
        """One row per dataset and estimate (name, estimate, se, ci_low, ci_high, level, n, unit, method).

        Names: `mean`, `median` and `sd` of the inputs' slopes, and shares of inputs by the slope's sign:
        `anti_steerable` (below 0 by more than numerical error), `within_error`, `steerable`, and whatever the error
        `negative` (below 0) and `published_nonpositive` (0 or below, as the original code counts). n: questions.

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
class SpuriousTable(Headlined, PerDataset):
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

    PARTS: ClassVar[Mapping[str, str]] = {
        "results": "effects of each dataset and its mixed model (also `result[dataset]`)",
        "explained": "variance shares of each dataset; as one table: .explained_frame()",
        "published": "the paper's sequential split beside them",
        "cells": "means and counts by A/B and Yes/No; as one table: .cells_frame()",
        "over_datasets": "pooled effects with tau, prediction intervals and p-values",
        "to_frame()": "every effect on slope and unsteered propensity, one row per dataset, model and term",
    }

    def sections(self) -> list[tuple[str, pd.DataFrame]]:
        """Effects over datasets, shares of variance over datasets, and one row for each dataset."""
        out = []
        if self.over_datasets is not None:
            for response, unit in (("slope", UNIT), ("unsteered", "nats")):
                pooled = [(term, fit) for (what, term), fit in self.over_datasets.pooled.items() if what == response]
                if pooled:
                    what = "steerability" if response == "slope" else "unsteered propensity"
                    table = over_datasets(pooled, "term", pooled[0][1].level)
                    out.append((f"Mean effect on {what} over datasets, {unit} ({OVER})", table))
        known = dict.fromkeys(name for one in self.explained.values() for name in one.components)
        components = sorted(known, key=("explained", "unexplained").__contains__)  # datasets may know other factors
        rows = []
        for component in components:
            having = [one for one in self.explained.values() if component in one.components]
            values = [one.share[one.components.index(component)] for one in having]
            rows.append((component, *middle(values, partial(number, digits=2)), str(len(having))))
        title = "Variance of steerability that goes with each factor (Shapley shares of adjusted R²), over datasets"
        table = pd.DataFrame(rows, columns=["component", "median", "range", "n"])
        if len(self.explained) == 1:  # one share has neither a median nor a range
            title, one = title.removesuffix(", over datasets"), next(iter(self.explained.values()))
            told = [with_limits(*row, 2) for row in zip(one.share, one.ci_low, one.ci_high)]
            table = pd.DataFrame({"component": one.components, f"share [{one.level:.0%}]": told})
        return [*out, (title, table), self._by_dataset()]

    def _by_dataset(self) -> tuple[str, pd.DataFrame]:
        slopes = {}
        for name, one in self.results.items():
            frame = one.to_frame()
            own = (frame["model"] == "per-input") & (frame["response"] == "slope") & (frame["term"] != "Intercept")
            slopes[name] = frame[own].set_index("term")
        terms = dict.fromkeys(term for frame in slopes.values() for term in frame.index)
        level = next(iter(self.explained.values())).level
        whole, rows = len(terms) <= 2, []
        for name, frame in slopes.items():
            row = {"dataset": name}
            for term in terms:
                row[term] = "–"
                if term in frame.index:
                    value, low, high = frame.loc[term, ["estimate", "ci_low", "ci_high"]]
                    star = "" if low <= 0 <= high else "*"
                    row[term] = with_limits(value, low, high, 2) if whole else number(value, 2) + star
            one = self.explained.get(name)
            k = -1 if one is None else one.components.index("explained")
            row["R²"] = "–" if one is None else with_limits(one.share[k], one.ci_low[k], one.ci_high[k], 2)
            rows.append(row)
        how = f"with {level:.0%} intervals" if whole else f"*: the {level:.0%} interval excludes 0"
        title = f"Effects on steerability by dataset, {self.shift}, {UNIT}, and share explained, {how}"
        return title, pd.DataFrame(rows)

    def explained_frame(self) -> pd.DataFrame:
        """Variance shares: one row per dataset, split and component."""
        both = [stack({n: r.to_frame() for n, r in part.items()}) for part in (self.explained, self.published)]
        return pd.concat(both, ignore_index=True)

    def cells_frame(self) -> pd.DataFrame:
        """Means and counts by cell: one row per dataset and cell."""
        return stack({name: result.to_frame() for name, result in self.cells.items()})


def stack(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Frames of several datasets as one, with a first column `dataset`."""
    parts = []
    for name, frame in frames.items():
        part = frame.copy()
        part.insert(0, "dataset", name)
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"dataset": []})


def for_each(
    units: Mapping[str, StudyUnit], estimate: Callable[[StudyUnit], Result]
) -> tuple[dict[str, Result], dict[str, str]]:
    """Results by dataset, and the reasons of those that cannot be estimated.

    Raises
    ------
    CannotEstimate
        If none can, with the first reason.
    """
    results, left_out = {}, {}
    for name, unit in units.items():
        try:
            results[name] = estimate(unit)
        except CannotEstimate as error:
            left_out[name] = str(error)
    if not results:
        name, reason = next(iter(left_out.items()))
        raise CannotEstimate(f"no dataset allows this; {name}: {reason}")
    return results, left_out


def doubts(results: Mapping[str, Result], left_out: Mapping[str, str]) -> tuple[str, ...]:
    """Warnings of every dataset, each with its name; one that all share is said once."""
    lines = [f"{name} is left out: {reason}" for name, reason in left_out.items()]
    for text, names in gathered((name, text) for name, one in results.items() for text in one.warnings).items():
        everywhere = len(names) == len(results) > 1
        lines.append(f"all datasets: {text}" if everywhere else f"{first_few(names)}: {text}")
    return tuple(lines)
