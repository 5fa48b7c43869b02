"""Steerability of inputs, and what a dataset's inputs show together: how much, how unequal, how straight, how noisy."""

from __future__ import annotations

from steerstats.steerability.distribution import (
    SteerabilitySummary,
    mean_slope,
    median_slope,
    slope_spread,
    summarise_steerability,
)
from steerstats.steerability.fit import SteerabilityFit, fit_steerability, grid_warnings
from steerstats.steerability.grid import is_symmetric, require_symmetric, slope_error
from steerstats.steerability.linearity import LinearityTest, linearity_test
from steerstats.steerability.signs import SignClasses, anti_steerable

__all__ = [
    "LinearityTest",
    "SignClasses",
    "SteerabilityFit",
    "SteerabilitySummary",
    "anti_steerable",
    "fit_steerability",
    "grid_warnings",
    "is_symmetric",
    "linearity_test",
    "mean_slope",
    "median_slope",
    "require_symmetric",
    "slope_error",
    "slope_spread",
    "summarise_steerability",
]
