"""Rank correlations over datasets: does what steers in distribution steer out of it, and on another model?

Two questions hide in one coefficient, so both are answered. About a population of datasets, of which these are a
sample: resample datasets. About these very datasets, measured on finitely many inputs: keep them and let their
means vary as far as inputs (and vectors) leave them unknown. Beside them stand the analytic interval and the
correlation with measurement noise taken out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steerstats.errors import InputError
from steerstats.generalization.disattenuation import corrected_spearman
from steerstats.generalization.fixed_datasets import draw_correlations
from steerstats.generalization.slopes import ID_SHIFT, PAPER_SHIFTS, Shift, SlopeGrid, parse_shift, shift_name
from steerstats.resampling import (
    bonett_wright,
    bootstrap_correlation,
    mean_covariance,
    quantile_pair,
    spearman,
)
from steerstats.resampling.ranks import MIN_FOR_INTERVAL
from steerstats.results import Estimate, Result

POPULATION = "a population of datasets"
FIXED = "these datasets"
NOISE_FREE = "a population of datasets, without measurement noise"


@dataclass(frozen=True, kw_only=True)
class CorrelationTable(Result):
    """Spearman correlations over datasets, one row per comparison, target and interval.

    Parameters
    ----------
    comparison : tuple of str
        "base->base vs base->user_neg", ...
    target : tuple of str
        What the interval is about: a population of datasets, these datasets, or the population without noise.
    interval : tuple of str
        Name of the interval.
    estimate, ci_low, ci_high : ndarray of shape (n_rows,)
        NaN limits with fewer than eight datasets.
    reliability_x, reliability_y : ndarray of shape (n_rows,)
        Share of the variance between observed means that is not measurement noise.
    n : int
        Datasets.
    n_excluded : ndarray of shape (n_datasets,)
        Inputs left out as incomplete in some setting compared.
    datasets : tuple of str
    level : float
    includes_vector_error : bool
        Whether measurement noise holds the vector's own sampling error.
    """

    comparison: tuple[str, ...]
    target: tuple[str, ...]
    interval: tuple[str, ...]
    estimate: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    reliability_x: np.ndarray
    reliability_y: np.ndarray
    n: int
    n_excluded: np.ndarray
    datasets: tuple[str, ...]
    level: float
    includes_vector_error: bool

    def to_frame(self) -> pd.DataFrame:
        """One row per comparison, target and interval."""
        names = ("comparison", "target", "interval", "estimate", "ci_low", "ci_high", "reliability_x", "reliability_y")
        frame = pd.DataFrame({name: list(getattr(self, name)) for name in names})
        return frame.assign(n=self.n, level=self.level, includes_vector_error=self.includes_vector_error)

    def row(self, comparison: str, target: str = POPULATION, interval: str | None = None) -> dict:
        """One row as a dict; KeyError names what there is."""
        for record in self.to_frame().to_dict("records"):
            named = interval in (None, record["interval"])
            if named and record["comparison"] == comparison and record["target"] == target:
                return record
        raise KeyError(f"no row {comparison!r}, {target!r}, {interval!r}; there are {sorted(set(self.comparison))}")

    def as_estimate(self, comparison: str, target: str = FIXED, interval: str | None = None) -> Estimate:
        """One row as an `Estimate`, for a verdict against a published value (these datasets) or a table."""
        row = self.row(comparison, target, interval)
        others = tuple(f"{name}: " for name in set(self.comparison) - {comparison})
        return Estimate(
            name=f"Spearman, {comparison}",
            estimate=row["estimate"],
            ci_low=row["ci_low"],
            ci_high=row["ci_high"],
            n=self.n,
            level=self.level,
            method=f"{self.method}; interval for {target}: {row['interval']}",
            assumptions=self.assumptions,
            warnings=tuple(text for text in self.warnings if not text.startswith(others)),
        )


def id_ood_correlation(
    grid: SlopeGrid,
    shifts: Sequence[Shift | str] = PAPER_SHIFTS,
    *,
    rng: np.random.Generator,
    reference: Shift = ID_SHIFT,
    level: float = 0.95,
    n_resamples: int = 10_000,
) -> CorrelationTable:
    """Spearman correlation over datasets between steerability in distribution and under each shift.

    Parameters
    ----------
    grid : SlopeGrid
        With `refits`, measurement noise includes the vectors'.
    shifts : sequence of (train, eval) or "train->eval"
    rng : numpy.random.Generator
    reference : (train, eval)
    level : float
    n_resamples : int

    Returns
    -------
    CorrelationTable
        Per shift: percentile and Bonett–Wright for the population, the noise-corrected coefficient, and the
        interval for these datasets.
    """
    shifts = tuple(parse_shift(shift) for shift in shifts)
    measured = _measure(grid, [reference, *shifts])
    mean, covariance = measured.mean.T, measured.covariance.T
    comparisons = [
        (
            f"{shift_name(reference)} vs {shift_name(shift)}",
            (mean[0], mean[k], covariance[0, 0], covariance[k, k], covariance[0, k]),
        )
        for k, shift in enumerate(shifts, start=1)
    ]
    return _table(comparisons, grid.datasets, measured.n_excluded, rng, level, n_resamples, grid.refits is not None)


def cross_model_agreement(
    first: SlopeGrid,
    second: SlopeGrid,
    shifts: Sequence[Shift | str] = (ID_SHIFT, *PAPER_SHIFTS),
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    n_resamples: int = 10_000,
) -> CorrelationTable:
    """Spearman correlation over datasets of mean steerability between two models, per shift.

    Parameters
    ----------
    first, second : SlopeGrid
        One per model; datasets in common are used. Noise that both models share through their questions is
        ignored, since a question may be missing from one of them.
    shifts : sequence of (train, eval) or "train->eval"
        base->base is the comparison in distribution.
    rng, level, n_resamples
        As in `id_ood_correlation`.

    Returns
    -------
    CorrelationTable
    """
    shifts = tuple(parse_shift(shift) for shift in shifts)
    common = tuple(name for name in first.datasets if name in second.slopes)
    if not common:
        raise InputError("the two models share no dataset")
    one, other = _measure(first, shifts, common), _measure(second, shifts, common)
    comparisons = []
    for k, shift in enumerate(shifts):
        noise = one.covariance[:, k, k], other.covariance[:, k, k], np.zeros(len(common))
        comparisons.append((shift_name(shift), (one.mean[:, k], other.mean[:, k], *noise)))
    refitted = first.refits is not None and second.refits is not None
    excluded = one.n_excluded + other.n_excluded
    return _table(comparisons, common, excluded, rng, level, n_resamples, refitted)


@dataclass(frozen=True)
class _Measured:
    mean: np.ndarray  # (n_datasets, n_shifts)
    covariance: np.ndarray  # (n_datasets, n_shifts, n_shifts), of the means
    n_excluded: np.ndarray


def _measure(grid: SlopeGrid, shifts: Sequence[Shift], datasets: Sequence[str] | None = None) -> _Measured:
    means, covariances, excluded = [], [], []
    for name in grid.datasets if datasets is None else datasets:
        cells = grid.cells(name, shifts)
        mean, covariance, _ = mean_covariance(cells.slopes, cells.question)
        if cells.refits is not None:
            covariance = covariance + np.cov(cells.refits.mean(axis=2), rowvar=False).reshape(covariance.shape)
        means.append(mean)
        covariances.append(covariance)
        excluded.append(cells.n_excluded)
    return _Measured(np.array(means), np.array(covariances), np.array(excluded))


def _table(comparisons, datasets, n_excluded, rng, level: float, n_resamples: int, refitted: bool) -> CorrelationTable:
    n = len(datasets)
    rows, warnings = [], []
    if n < MIN_FOR_INTERVAL:
        warnings.append(
            f"{n} datasets: fewer than {MIN_FOR_INTERVAL} say little about a correlation, no interval is given"
        )
    for name, (x, y, *noise) in comparisons:
        rho = float(spearman(x, y))
        corrected = corrected_spearman(x, y, *noise, rng=rng, level=level, n_resamples=n_resamples)
        reliability = corrected.reliability_x, corrected.reliability_y
        enough = n >= MIN_FOR_INTERVAL
        if np.isnan(rho):
            warnings.append(f"{name}: all datasets are alike on one side, the correlation is not defined")
            enough = False
        nothing = (float("nan"), float("nan"))
        population = fixed = analytic = nothing
        if enough:
            draws = bootstrap_correlation(x, y, rng=rng, n_resamples=n_resamples)
            population = tuple(float(limit[0]) for limit in quantile_pair(draws[:, None], level))
            population = max(population[0], -1.0), min(population[1], 1.0)
            analytic = bonett_wright(rho, n, level)
            if np.isfinite(noise).all():
                known = draw_correlations(x, y, *noise, rng=rng, n_resamples=n_resamples)
                fixed = tuple(float(limit[0]) for limit in quantile_pair(known[:, None], level))
                if not fixed[0] <= rho <= fixed[1]:
                    warnings.append(
                        f"{name}: noise pulls the observed correlation out of the interval for its true value"
                    )
            if np.isnan(draws).any():
                warnings.append(
                    f"{name}: {int(np.isnan(draws).sum())} resamples without a correlation widen the interval"
                )
        rows.append((name, POPULATION, "percentile over datasets", rho, *population, *reliability))
        rows.append((name, POPULATION, "Bonett-Wright", rho, *analytic, *reliability))
        limits = (corrected.ci_low, corrected.ci_high) if enough else nothing
        rows.append((name, NOISE_FREE, "percentile, disattenuated", corrected.estimate, *limits, *reliability))
        rows.append((name, FIXED, "draws of the true means", rho, *fixed, *reliability))
        warnings += [f"{name}: {text}" for text in corrected.warnings]
    columns = list(zip(*rows))
    return CorrelationTable(
        comparison=columns[0],
        target=columns[1],
        interval=columns[2],
        **{key: np.array(columns[3 + k]) for k, key in enumerate(("estimate", "ci_low", "ci_high"))},
        reliability_x=np.array(columns[6]),
        reliability_y=np.array(columns[7]),
        n=n,
        n_excluded=n_excluded,
        datasets=tuple(datasets),
        level=level,
        includes_vector_error=refitted,
        method=f"Spearman correlation of mean steerability over {n} datasets; {n_resamples} resamples of datasets "
        "(population; target: the correlation of observed means), or as many draws of these datasets' "
        "true means given the observed ones (bivariate normal between datasets, covariance from resampled datasets, "
        "or from its posterior where a resample's is singular)",
        assumptions=(
            "for a population of datasets: datasets are independent draws from it (those of one category are not)",
            "noise-corrected and these datasets: true means near normal (coverage falls to 71-95% on lognormal ones)",
            "measurement noise includes the vector's own error" if refitted
            else "measurement noise is that of inputs only, not the vector's own error",
        ),
        warnings=tuple(warnings),
    )  # fmt: skip
