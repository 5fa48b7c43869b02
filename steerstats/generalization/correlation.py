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

from steerstats.errors import InputError, check_level, check_resamples, how_many
from steerstats.generalization.disattenuation import CLIPPED, Corrected, corrected_spearman
from steerstats.generalization.fixed_datasets import draw_correlations
from steerstats.generalization.slopes import (
    ID_SHIFT,
    PAPER_SHIFTS,
    Cells,
    Shift,
    SlopeGrid,
    parse_shift,
    parse_shifts,
    shift_name,
)
from steerstats.generalization.two_groups import two_groups
from steerstats.resampling import (
    bonett_wright,
    bootstrap_correlation,
    correlation_of,
    mean_covariance,
    quantile_pair,
)
from steerstats.resampling.ranks import MIN_FOR_INTERVAL, ONE_DATASET, PERFECT, TWO_DATASETS, is_perfect
from steerstats.results import Estimate, Result

POPULATION = "a population of datasets"
FIXED = "these datasets"
NOISE_FREE = "a population of datasets, without measurement noise"
GROUPED = (
    "two groups of datasets (of {tight} and {others}) describe the means clearly better than one normal distribution; "
    "each has its own in the interval for these datasets; the noise-corrected interval assumes one for all, and may be "
    "far too short (it covered 91-96% in simulation with three tenths of 40 datasets next to zero, 30-86% "
    "with half of them)"
)
ONE_LAW = (
    "noise-corrected and these datasets: true means near normal (skewed ones after a Yeo-Johnson transform); for these "
    "datasets, normal in each of two groups where that fits clearly better"
)
MAYBE_GROUPED = (
    "two groups of datasets (of {tight} and {others}) may describe the means better than one normal distribution; if "
    "so, the interval for these datasets and the noise-corrected one are too short"
)

NOISY = 0.8  # a reliability below which the correlation of observed means is said to be another than that of true ones


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
        NaN limits with fewer than eight datasets, and for a population where the ranking is perfect.
    reliability_x, reliability_y : ndarray of shape (n_rows,)
        Share of the variance between observed means that is not measurement noise.
    n : int
        Datasets.
    n_excluded : ndarray of shape (n_datasets,)
        Inputs left out as incomplete in some setting compared.
    datasets : tuple of str
    level : float
    includes_vector_error : ndarray of bool, shape (n_rows,)
        Whether measurement noise holds the vectors' own sampling error, in every dataset and on both sides.
    noise_correlation : ndarray of shape (n_rows,)
        Correlation of the two sides' measurement noise, over all datasets: errors of means over the same questions
        (and of vectors from the same pairs) are not independent. NaN where it is not known.
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
    includes_vector_error: np.ndarray
    noise_correlation: np.ndarray

    def to_frame(self) -> pd.DataFrame:
        """One row per comparison, target and interval."""
        names = ("comparison", "target", "interval", "estimate", "ci_low", "ci_high", "reliability_x", "reliability_y")
        names = (*names, "noise_correlation", "includes_vector_error")
        frame = pd.DataFrame({name: list(getattr(self, name)) for name in names})
        return frame.assign(n=self.n, level=self.level)

    def row(self, comparison: str, target: str = POPULATION, interval: str | None = None) -> dict:
        """One row as a dict; InputError names what there is."""
        for record in self.to_frame().to_dict("records"):
            named = interval in (None, record["interval"])
            if named and record["comparison"] == comparison and record["target"] == target:
                return record
        asked = ", ".join(repr(name) for name in (comparison, target, interval) if name is not None)
        there = [name for column in (self.comparison, self.target, self.interval) for name in dict.fromkeys(column)]
        raise InputError(f"no row {asked}; there are {', '.join(map(repr, there))}")

    def as_estimate(self, comparison: str, target: str = FIXED, interval: str | None = None) -> Estimate:
        """One row as an `Estimate`, for a verdict against a published value (these datasets) or a table."""
        row = self.row(comparison, target, interval)
        others = tuple(f"{name}{mark}" for name in set(self.comparison) - {comparison} for mark in (": ", ", "))
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
        Where both sides of a comparison have `refits`, measurement noise includes the vectors' errors: with refits of
        one side alone, the error of a vector that acts in both would count in one only.
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

    Raises
    ------
    InputError
        If a shift is not in the grid, is named twice, or is the reference.

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats.generalization import id_ood_correlation
    >>> grid = steerstats.open_cache(steerstats.demo_cache()).grid()
    >>> found = id_ood_correlation(grid, ["base->user_pos"], rng=np.random.default_rng(0), n_resamples=500)
    >>> row = found.row("base->base vs base->user_pos", interval="Bonett-Wright")
    >>> [round(row[name], 2) for name in ("estimate", "ci_low", "ci_high")]
    [0.64, 0.1, 0.88]
    """
    check_level(level)
    check_resamples(n_resamples)
    reference = parse_shift(reference)
    shifts = parse_shifts(shifts, reference=reference)
    measured = measure(grid, [reference, *shifts])
    mean, comparisons = measured.mean.T, []
    for k, shift in enumerate(shifts, start=1):
        both = measured.refitted[:, 0] & measured.refitted[:, k]
        noise = (measured.of_inputs.T + np.where(both, measured.of_vectors.T, 0.0))[[0, k, 0], [0, k, k]]
        name = f"{shift_name(reference)} vs {shift_name(shift)}"
        comparisons.append(Comparison(name, mean[0], mean[k], tuple(noise), both))
    return correlation_table(comparisons, grid.datasets, measured.n_excluded, rng, level, n_resamples)


@dataclass(frozen=True)
class Comparison:
    """Two means of every dataset, with the variances and the covariance of their errors.

    `refitted` says in which datasets these hold the error of both sides' vectors.
    """

    name: str
    x: np.ndarray  # (n_datasets,), as all below
    y: np.ndarray
    noise: tuple[np.ndarray, np.ndarray, np.ndarray]  # variance of the errors of x, that of y, and their covariance
    refitted: np.ndarray

    @property
    def noise_correlation(self) -> float:
        """Correlation of the errors, over all datasets together."""
        var_x, var_y, covariance = (one.mean() for one in self.noise)
        scale = np.sqrt(var_x * var_y)
        return float(covariance / scale) if scale > 0 else float("nan")


@dataclass(frozen=True)
class Measured:
    """Means of every dataset in several cells, and how well they are known."""

    mean: np.ndarray  # (n_datasets, n_shifts)
    of_inputs: np.ndarray  # (n_datasets, n_shifts, n_shifts), covariance of the means over other questions
    of_vectors: np.ndarray  # the same over another draw of vectors, 0 where there are no refits
    refitted: np.ndarray  # (n_datasets, n_shifts)
    n_excluded: np.ndarray
    cells: list[Cells]


def measure(grid: SlopeGrid, shifts: Sequence[Shift], datasets: Sequence[str] | None = None) -> Measured:
    """Means and their error covariances on the inputs complete in all the shifts."""
    cells = [grid.cells(name, shifts) for name in (grid.datasets if datasets is None else datasets)]
    found = [mean_covariance(one.slopes, one.question)[:2] for one in cells]
    return Measured(
        mean=np.array([mean for mean, _ in found]),
        of_inputs=np.array([own for _, own in found]),
        of_vectors=np.array([one.vector_covariance() for one in cells]),
        refitted=np.array([one.refitted for one in cells]),
        n_excluded=np.array([one.n_excluded for one in cells]),
        cells=cells,
    )


def correlation_table(
    comparisons: Sequence[Comparison],
    datasets: Sequence[str],
    n_excluded: np.ndarray,
    rng: np.random.Generator,
    level: float,
    n_resamples: int,
) -> CorrelationTable:
    """Every target and interval of each comparison."""
    n = len(datasets)
    rows, warnings = [], []
    if n < 3:
        warnings.append(ONE_DATASET if n == 1 else TWO_DATASETS)
    elif n < MIN_FOR_INTERVAL:
        warnings.append(
            f"{n} datasets: fewer than {MIN_FOR_INTERVAL} say little about a correlation, no interval is given"
        )
    for one in comparisons:
        found, said = _compared(one, rng, level, n_resamples)
        rows += found
        warnings += said if n > 2 else []
        if one.refitted.any() and not one.refitted.all():
            without = ", ".join(dataset for dataset, has in zip(datasets, one.refitted) if not has)
            warnings.append(f"{one.name}: measurement noise is that of inputs only in {without}, without refits")
    comparison, target, interval, *numbers = zip(*rows)
    fields = ("estimate", "ci_low", "ci_high", "reliability_x", "reliability_y")
    fields += ("noise_correlation", "includes_vector_error")
    refitted = np.array([one.refitted for one in comparisons])
    noise = "measurement noise is that of inputs only, not the vector's own error"
    if refitted.any():
        where = "" if refitted.all() else " where there are refits, and is elsewhere that of inputs only"
        noise = f"measurement noise includes the vector's own error{where}"
    return CorrelationTable(
        comparison=comparison,
        target=target,
        interval=interval,
        **dict(zip(fields, map(np.array, numbers))),
        n=n,
        n_excluded=n_excluded,
        datasets=tuple(datasets),
        level=level,
        method=f"Spearman correlation of mean steerability over {how_many(n, 'dataset')}; {n_resamples} resamples of "
        "datasets (population; target: the correlation of observed means), or as many draws of these datasets' true "
        "means given the observed ones (bivariate normal between datasets, covariance from resampled datasets, or from "
        "its posterior where a resample's is singular)",
        numbers={"n_resamples": n_resamples},
        assumptions=(
            "for a population of datasets: datasets are independent draws from it (those of one category are not)",
            ONE_LAW,
            noise,
        ),
        warnings=tuple(warnings),
    )


def _compared(
    one: Comparison, rng: np.random.Generator, level: float, n_resamples: int
) -> tuple[list[tuple], list[str]]:
    """The rows of one comparison, and what to warn of."""
    name, x, y, errors, n = one.name, one.x, one.y, one.noise, len(one.x)
    nothing, warnings, options = (float("nan"), float("nan")), [], {"rng": rng, "n_resamples": n_resamples}
    rho = correlation_of(x, y)
    corrected = corrected_spearman(x, y, *errors, level=level, **options)
    enough = n >= MIN_FOR_INTERVAL
    if np.isnan(rho):
        warnings.append(f"{name}: all {n} datasets have the same mean on one side, the correlation is not defined")
        enough = False
    population = fixed = analytic = nothing
    if enough:
        draws = bootstrap_correlation(x, y, **options)
        if is_perfect(rho):
            warnings.append(f"{name}, {POPULATION}: {PERFECT}")
        else:
            low, high = quantile_pair(draws, level)
            population = max(low, -1.0), min(high, 1.0)
        analytic = bonett_wright(rho, n, level)
        if np.isfinite(errors).all():
            known = draw_correlations(x, y, *errors, **options)
            warnings += [f"{name}: {text}" for text in _grouped(x, y, errors)]
            fixed = quantile_pair(known, level)
            if not fixed[0] <= rho <= fixed[1]:
                warnings.append(f"{name}: noise pulls the observed correlation out of the interval for its true value")
        if np.isnan(draws).any():
            warnings.append(f"{name}: {int(np.isnan(draws).sum())} resamples without a correlation widen the interval")
    limits = (corrected.ci_low, corrected.ci_high) if enough else nothing
    if limits[0] == limits[1]:  # every resample clipped
        warnings.append(f"{name}, {NOISE_FREE}: every resample gives {limits[0]:g}; no interval is given")
        limits = nothing
    # What clips resamples is no matter where no interval is made of them.
    said = [text for text in corrected.warnings if enough or not text.endswith(CLIPPED)]
    warnings += [f"{name}: {text}" for text in (*_noisy(one, corrected, rho), *said)]
    shared = corrected.reliability_x, corrected.reliability_y, one.noise_correlation, bool(one.refitted.all())
    rows = [
        (name, POPULATION, "percentile over datasets", rho, *population, *shared),
        (name, POPULATION, "Bonett-Wright", rho, *analytic, *shared),
        (name, NOISE_FREE, "percentile, disattenuated", corrected.estimate, *limits, *shared),
        (name, FIXED, "draws of the true means", rho, *fixed, *shared),
    ]
    return rows, warnings


def _noisy(one: Comparison, corrected: Corrected, rho: float) -> list[str]:
    """What the noise of the means does to their correlation, where it is much of their spread.

    With 12 datasets of 6 questions, reliability .4, unrelated true means and noise that correlates .9 between the two
    sides, 45 of 100 population intervals missed 0; with reliability .7, 17 of 100.
    """
    reliability = corrected.reliability_x, corrected.reliability_y
    text = noise_pulls("means", reliability, one.noise_correlation, rho)
    removed = f"; with the noise removed, {corrected.estimate:.2f}" if np.isfinite(corrected.estimate) else ""
    return [text + removed] if text else []


def noise_pulls(what: str, reliability: tuple[float, float], noise_correlation: float, rho: float) -> str:
    """What noise does to a correlation of observed values; "" where it is little of their spread.

    Examples
    --------
    >>> from steerstats.generalization.correlation import noise_pulls
    >>> noise_pulls("means", (0.9, 0.5), 0.3, 0.4)[:70]
    '10% and 50% of the variance between observed means is noise that corre'
    """
    if np.isnan([rho, *reliability]).any() or min(reliability) >= NOISY:
        return ""
    parts = " and ".join(f"{min(1 - share, 1):.0%}" for share in reliability)
    known = noise_correlation != 0
    noise = f"noise that correlates {noise_correlation:.2f} between the two sides" if known else "noise"
    return (
        f"{parts} of the variance between observed {what} is {noise}, and pulls their correlation towards "
        f"{f'{noise_correlation:.2f}' if known else '0'}: {rho:.2f} and its intervals for a population are for "
        f"observed {what}, not for true ones"
    )


def _grouped(x: np.ndarray, y: np.ndarray, errors: tuple[np.ndarray, ...]) -> list[str]:
    found = two_groups(x, y, *errors)
    if found is None:
        return []
    tight = int(found.tight.sum())
    return [(GROUPED if found.clear else MAYBE_GROUPED).format(tight=tight, others=len(x) - tight)]
