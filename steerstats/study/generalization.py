"""What `Study.generalization` returns: gaps, correlations, ratios and the tables behind them, headline first."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from steerstats.errors import how_many
from steerstats.generalization import (
    CorrelationTable,
    GapTable,
    OverallGap,
    RatioTable,
    SteerabilityTable,
    VarianceTable,
)
from steerstats.generalization.correlation import FIXED, NOISE_FREE, POPULATION
from steerstats.study.headlines import OVER, UNIT, Headlined, limits, middle, number, over_datasets, with_limits


@dataclass(frozen=True, kw_only=True)
class Generalization(Headlined):
    """Does steerability survive another prompt?

    Parameters
    ----------
    gaps : GapTable
        Gap of every dataset under every shift, split into what the prompt does to any vector and what transfer costs;
        intervals include the vector's error cell by cell, where refits allow it.
    ratios : RatioTable or None
        Relative steerability with Fieller sets; None where eval->eval was not evaluated.
    correlations : CorrelationTable
        Spearman correlation over datasets of steerability in and out of distribution.
    overall : OverallGap or None
        Random-effects mean gap and its parts over datasets; None where no two datasets have a standard error.
    settings : SteerabilityTable
        Mean slope and unsteered propensity in the whole train × eval table.
    variances : VarianceTable
        Spread of slopes over inputs, in distribution and under each shift.
    """

    gaps: GapTable
    ratios: RatioTable | None
    correlations: CorrelationTable
    overall: OverallGap | None
    settings: SteerabilityTable
    variances: VarianceTable

    PARTS: ClassVar[Mapping[str, str]] = {
        "gaps": "every gap and its parts, with bands and adjusted p-values",
        "overall": "each over datasets: leave-one-out, tau, prediction interval",
        "correlations": "every rank correlation, target and interval, with reliabilities",
        "ratios": "relative steerability with Fieller sets",
        "settings": "mean slope and unsteered propensity in every train × eval cell",
        "variances": "spread of slopes over inputs under each shift",
    }

    def sections(self) -> list[tuple[str, pd.DataFrame]]:
        """Gaps over datasets, rank correlations, ratios, the train × eval table, and one row for each dataset."""
        out, level, d = [], self.gaps.level, len(self.gaps.datasets)
        if self.overall is not None:
            for component in self.gaps.components:
                keys = zip(self.overall.component, self.overall.shift, self.overall.analyses)
                rows = [(shift, found) for own, shift, found in keys if own == component]
                if not rows:
                    continue
                what = {"gap": "gap", "prompt": "part due to the prompt", "transfer": "part due to transfer"}[component]
                title = f"Mean {what} over datasets, {UNIT} ({OVER})"
                out.append((title, over_datasets(rows, "shift", level)))
        elif d == 1:  # of several the rows by dataset say it
            g = self.gaps
            rows = [
                (shift, with_limits(g.estimate[0, 0, k], g.ci_low[0, 0, k], g.ci_high[0, 0, k]), str(g.n[0]))
                for k, shift in enumerate(g.shifts)
            ]
            title = f"Mean gap of {g.datasets[0]}, {UNIT}"
            out.append((title, pd.DataFrame(rows, columns=["shift", f"gap [{level:.0%}]", "n"])))
        out += [self._correlations()] * (d > 2) + self._ratios()
        table = self.settings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a cell that no dataset has is NaN
            means = np.nanmean(table.mean, axis=0)
        cells = [[name, *map(number, row)] for name, row in zip(table.train, means)]
        title = f"Mean steerability of each vector (row) in each prompt (column), {how_many(d, 'dataset')} unweighted"
        there = np.isfinite(table.mean)
        title += ", of those that have the cell" * bool((there.any(axis=0) != there.all(axis=0)).any())
        out.append((title, pd.DataFrame(cells, columns=["vector", *table.evaluate])))
        return [*out, self._by_dataset()]

    def _correlations(self) -> tuple[str, pd.DataFrame]:
        rows, c = [], self.correlations
        for name in dict.fromkeys(c.comparison):
            population, free, fixed = (c.row(name, target) for target in (POPULATION, NOISE_FREE, FIXED))
            corrected = with_limits(free["estimate"], free["ci_low"], free["ci_high"], 2)
            limited = [limits(row["ci_low"], row["ci_high"], 2) for row in (population, fixed)]
            rows.append([name.split(" vs ")[-1], number(population["estimate"], 2), limited[0], corrected, limited[1]])
        title = f"Spearman correlation with base->base over {how_many(c.n, 'dataset')}, {c.level:.0%} intervals "
        title += "(percentile over datasets; noise removed, percentile; draws of the true means of these datasets)"
        return title, pd.DataFrame(rows, columns=["shift", "rho", "population", "without noise", "these datasets"])

    def _ratios(self) -> list[tuple[str, pd.DataFrame]]:
        if self.ratios is None:
            return []
        rows = []
        for k, shift in enumerate(self.ratios.shifts):
            bounded = int((self.ratios.shape[:, k] == "bounded").sum())
            rows.append((shift, *middle(self.ratios.estimate[:, k]), f"{bounded} of {len(self.ratios.datasets)}"))
        title = "Relative steerability over datasets (Fieller sets: bounded where the denominator is not zero)"
        table = pd.DataFrame(rows, columns=["shift", "median", "range", "bounded"])
        if len(self.ratios.datasets) == 1:  # one ratio has neither a median nor a range
            title = title.replace(" over datasets", "")
            table = table.drop(columns="range").rename(columns={"median": "ratio"})
            table["bounded"] = ["yes" if text.startswith("1") else "no" for text in table["bounded"]]
        return [(title, table)]

    def _by_dataset(self) -> tuple[str, pd.DataFrame]:
        rows, g, t = [], self.gaps, self.settings
        home = t.mean[:, t.train.index("base"), t.evaluate.index("base")]
        for d, name in enumerate(g.datasets):
            row = {"dataset": name, "n": str(g.n[d]), "base\n->base": number(home[d])}
            for k, shift in enumerate(g.shifts):
                star = "" if g.band_low[0, d, k] <= 0 <= g.band_high[0, d, k] or np.isnan(g.band_low[0, d, k]) else "*"
                row[shift.replace("->", "\n->")] = number(g.estimate[0, d, k]) + (star or " ")
            rows.append(row)
        title = f"Mean steerability at home and gap under each shift, {UNIT}; *: its simultaneous {g.level:.0%} band "
        return title + "excludes 0", pd.DataFrame(rows)

    def to_frame(self) -> pd.DataFrame:
        """One row per dataset, shift and component (gap, prompt, transfer)."""
        return self.gaps.to_frame()
