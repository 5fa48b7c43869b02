"""Bootstrap and permutation: explicit units of resampling, explicit randomness, arrays in and arrays out."""

from __future__ import annotations

from steerstats.resampling.counts import collapse, iter_counts, resampled_sums
from steerstats.resampling.intervals import Fieller, fieller, interval, quantile_pair, t_interval
from steerstats.resampling.permutation import group_difference_test, sign_flip_test, spearman_test
from steerstats.resampling.ranks import (
    bonett_wright,
    bootstrap_correlation,
    correlation_of,
    spearman,
    weighted_midranks,
)
from steerstats.resampling.simultaneous import max_t_bands, romano_wolf
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
    "bootstrap_correlation",
    "bootstrap_mean",
    "bootstrap_ratio",
    "collapse",
    "correlation_of",
    "fieller",
    "group_difference_test",
    "interval",
    "iter_counts",
    "max_t_bands",
    "mean_covariance",
    "quantile_pair",
    "resample",
    "resampled_sums",
    "romano_wolf",
    "sign_flip_test",
    "spearman",
    "spearman_test",
    "t_interval",
    "weighted_midranks",
]
