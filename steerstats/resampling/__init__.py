"""Bootstrap and permutation: explicit units of resampling, explicit randomness, arrays in and arrays out."""

from __future__ import annotations

from steerstats.resampling.counts import collapse, iter_counts, resampled_sums
from steerstats.resampling.intervals import Fieller, fieller, interval, quantile_pair, t_interval
from steerstats.resampling.ranks import bonett_wright, bootstrap_spearman, spearman, weighted_midranks
from steerstats.resampling.statistics import (
    Replicates,
    SumRatio,
    bootstrap_mean,
    bootstrap_ratio,
    mean_covariance,
    resample,
)

__all__ = [
    "Fieller",
    "Replicates",
    "SumRatio",
    "bonett_wright",
    "bootstrap_mean",
    "bootstrap_ratio",
    "bootstrap_spearman",
    "collapse",
    "fieller",
    "interval",
    "iter_counts",
    "mean_covariance",
    "quantile_pair",
    "resample",
    "resampled_sums",
    "spearman",
    "t_interval",
    "weighted_midranks",
]
