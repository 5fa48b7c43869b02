"""Relative steerability: how much of what an in-place vector does a vector from elsewhere does, as a ratio.

relative steerability = s(v_A on B) / s(v_B on B). Its denominator can be near zero, and then no number describes
it: Fieller's set says so by its shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steerstats.errors import InputError, check_level, check_resamples, check_rng
from steerstats.generalization.slopes import (
    NO_WIDTH,
    ONE_SIDED,
    PAPER_SHIFTS,
    SAMPLE,
    Cells,
    Shift,
    SlopeGrid,
    cells_frame,
    parse_shifts,
    shift_name,
    unit_warnings,
)
from steerstats.generalization.vector_error import VECTOR_ERROR_OUT, cells_without, vector_error_words
from steerstats.resampling import Fieller, SumRatio, collapse, fieller, interval, mean_covariance, resample, t_interval
from steerstats.resampling.question_weight import question_df
from steerstats.resampling.questions import group_codes
from steerstats.results import Estimate, Result
from steerstats.rounding import STORED

METHODS = ("fieller", "delta", "studentised", "percentile", "basic", "bca")
NEAR_ZERO = 3.0
ROUNDING = 1e-12  # share of the slopes' own size below which their mean is rounding


@dataclass(frozen=True, kw_only=True)
class RatioEstimate(Estimate):
    """A ratio with its confidence set.

    Parameters
    ----------
    shape : str
        "bounded": an interval. "two rays": everything but (excluded_low, excluded_high). "whole line": no ratio
        is rejected. "undefined": no variance. "half line": one limit of a resampling method is infinite.
    excluded_low, excluded_high : float
        The gap between two rays, NaN otherwise.
    """

    shape: str
    excluded_low: float = float("nan")
    excluded_high: float = float("nan")

    def to_frame(self) -> pd.DataFrame:
        """One row, as of an `Estimate`, with the shape of the set."""
        extra = {"shape": self.shape, "excluded_low": self.excluded_low, "excluded_high": self.excluded_high}
        return super().to_frame().assign(**extra)


@dataclass(frozen=True, kw_only=True)
class RatioTable(Result):
    """Relative steerability of every dataset under every shift.

    Parameters
    ----------
    datasets, shifts : tuple of str
    estimate, ci_low, ci_high : ndarray of shape (n_datasets, n_shifts)
        Pure numbers; limits are infinite where the set is unbounded.
    shape : ndarray of str, same shape
        As in `RatioEstimate`.
    excluded_low, excluded_high : ndarray of the same shape
    denominator : ndarray of the same shape
        s(v_B on B), nats per unit multiplier.
    denominator_z : ndarray of the same shape
        The denominator over its standard error.
    n, n_excluded : ndarray of shape (n_datasets,)
    level : float
    includes_vector_error : ndarray of bool, shape (n_datasets, n_shifts)
        Where the set holds the vectors' own sampling error: where both vectors have refits, and the method is
        Fieller's or delta.
    """

    datasets: tuple[str, ...]
    shifts: tuple[str, ...]
    estimate: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    shape: np.ndarray
    excluded_low: np.ndarray
    excluded_high: np.ndarray
    denominator: np.ndarray
    denominator_z: np.ndarray
    n: np.ndarray
    n_excluded: np.ndarray
    level: float
    includes_vector_error: np.ndarray

    def to_frame(self) -> pd.DataFrame:
        """One row per dataset and shift."""
        names = ("estimate", "ci_low", "ci_high", "shape", "excluded_low", "excluded_high", "denominator")
        names = (*names, "denominator_z", "includes_vector_error")
        return cells_frame(self, names, {"dataset": self.datasets, "shift": self.shifts})


def ratio(
    numerator: np.ndarray,
    denominator: np.ndarray,
    *,
    rng: np.random.Generator | None = None,
    questions: np.ndarray | None = None,
    method: str = "fieller",
    level: float = 0.95,
    n_resamples: int = 10_000,
) -> RatioEstimate:
    """Ratio of two mean slopes on the same inputs.

    Parameters
    ----------
    numerator, denominator : array of shape (n_inputs,)
        Slopes of v_A and of v_B in the same evaluation setting; incomplete inputs are left out and counted.
    rng : numpy.random.Generator, optional
        Needed by the resampling methods, not by "fieller" and "delta".
    questions : array of shape (n_inputs,), optional
    method : {"fieller", "delta", "studentised", "percentile", "basic", "bca"}
    level : float
    n_resamples : int

    Raises
    ------
    InputError
        If shapes differ, no input is complete, the method is unknown, or it resamples and `rng` is missing.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.generalization import ratio
    >>> slopes = steerstats.open_cache(steerstats.demo_cache()).slopes("likes-rain")
    >>> found = ratio(slopes.at("base->user_neg"), slopes.at("user_neg->user_neg"), questions=slopes.question)
    >>> print(found, found.shape)
    relative steerability: -0.713 [-1.150, -0.307] (n = 60) bounded
    """
    check_level(level)
    check_resamples(n_resamples)
    sides = {"numerator": numerator, "denominator": denominator}
    cells = Cells.paired(sides, questions, "both above and below the line")
    row = _rows(cells, np.array([0]), np.array([1]), rng, method, level, n_resamples)
    return RatioEstimate(
        name="relative steerability",
        **{k: float(row[k][0]) for k in ("estimate", "se", "ci_low", "ci_high", "excluded_low", "excluded_high")},
        shape=str(row["shape"][0]),
        n=row["n"],
        level=level,
        method=f"ratio of means over {row['n']} questions, {method} interval",
        assumptions=(SAMPLE, VECTOR_ERROR_OUT),
        warnings=(*unit_warnings(row["n"], "", cells.question), *_row_warnings("", row, 0), *cells.left_out()),
    )


def relative_steerability(
    grid: SlopeGrid,
    shifts: Sequence[Shift | str] = PAPER_SHIFTS,
    *,
    rng: np.random.Generator | None = None,
    method: str = "fieller",
    level: float = 0.95,
    n_resamples: int = 10_000,
) -> RatioTable:
    """s(v_A on B) / s(v_B on B) for each dataset and each shift A->B.

    Parameters
    ----------
    grid : SlopeGrid
        Where it has `refits`, Fieller and delta sets include the vectors' sampling error; the resampling methods do
        not.
    shifts : sequence of (train, eval) or "train->eval"
        The cell eval->eval has to be in the grid for each.
    rng, method, level, n_resamples
        As in `ratio`.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.generalization import relative_steerability
    >>> grid = steerstats.open_cache(steerstats.demo_cache()).grid()
    >>> table = relative_steerability(grid, ["base->user_neg"])
    >>> table.shape[:, 0].tolist().count("bounded"), len(table.datasets)
    (14, 14)
    """
    check_level(level)
    check_resamples(n_resamples)
    shifts = parse_shifts(shifts)
    cells = list(dict.fromkeys([*shifts, *((b, b) for _, b in shifts)]))
    above = np.array([cells.index(shift) for shift in shifts])
    below = np.array([cells.index((b, b)) for _, b in shifts])
    children = [None] * len(grid.datasets) if rng is None else check_rng(rng).spawn(len(grid.datasets))
    rows, excluded, notes = [], [], []
    for name, child in zip(grid.datasets, children):
        complete = grid.cells(name, cells)
        rows.append(_rows(complete, above, below, child, method, level, n_resamples))
        excluded.append(complete.n_excluded)
        notes += unit_warnings(rows[-1]["n"], f"{name}: ", complete.question)
        for k, shift in enumerate(shifts):
            notes += _row_warnings(f"{name} {shift_name(shift)}: ", rows[-1], k)
    names = ("estimate", "ci_low", "ci_high", "shape", "excluded_low", "excluded_high", "denominator", "denominator_z")
    included = np.stack([row["included"] for row in rows])
    notes += cells_without(included, grid.datasets, list(map(shift_name, shifts)))
    return RatioTable(
        datasets=grid.datasets,
        shifts=tuple(map(shift_name, shifts)),
        **{name: np.stack([row[name] for row in rows]) for name in names},
        n=np.array([row["n"] for row in rows]),
        n_excluded=np.array(excluded),
        level=level,
        includes_vector_error=included,
        method=f"s(v_train on eval) / s(v_eval on eval), ratio of means over inputs, {method} intervals",
        assumptions=(SAMPLE, vector_error_words(included)),
        warnings=tuple(notes),
    )


def _rows(cells: Cells, above, below, rng, method: str, level: float, n_resamples: int) -> dict:
    """Ratios slopes[above] / slopes[below] of one dataset, each with its set."""
    if method not in METHODS:
        raise InputError(f"interval method {method!r} is unknown for a ratio; one of {', '.join(METHODS)}")
    mean, covariance, n = mean_covariance(cells.slopes, cells.question)
    # A ratio takes its vectors' error where both of them have refits, so that none is in one half of it only.
    included = cells.refitted[above] & cells.refitted[below] & (method in METHODS[:2])
    of_vectors = cells.vector_covariance()
    pair = np.stack([above, below])
    from_inputs, from_vectors = (c[pair[:, None], pair[None]] for c in (covariance, of_vectors))  # (2, 2, ratios)
    from_vectors = from_vectors * included
    y, x = mean[above], mean[below]
    # Slopes that cancel leave a mean of rounding errors: a ratio to that is a number about nothing.
    zero = np.abs(x) <= ROUNDING * np.abs(cells.slopes[below]).mean(axis=1)
    estimate = np.divide(y, x, out=np.full(x.shape, np.nan), where=~zero)
    codes, groups = group_codes(cells.question, cells.slopes.shape[1])
    # Of y − ratio · x, whose variance the ratio's is.
    contrasts = cells.slopes[above] - np.nan_to_num(estimate)[:, None] * cells.slopes[below]
    weight = np.stack([np.ones_like(x), -estimate])
    parts = [
        np.where(zero, np.nan, mean_covariance(contrasts, cells.question)[1].diagonal()),
        np.einsum("ik,ijk,jk->k", weight, from_vectors, weight),
    ]
    variance = np.maximum(parts[0] + parts[1], 0.0)
    df = np.array([question_df(one, codes, groups, level) for one in contrasts])
    if included.any():
        spread = parts[0] ** 2 / np.maximum(df, 1) + parts[1] ** 2 / (len(cells.refits) - 1)
        df = np.divide(variance**2, spread, out=df, where=included & (spread > 0))
    total = from_inputs + from_vectors
    with np.errstate(divide="ignore", invalid="ignore"):
        se = np.sqrt(variance) / np.abs(x)
        z = np.where(zero, 0.0, np.abs(x)) / np.sqrt(total[1, 1])
    out = {"estimate": estimate, "se": se, "denominator": x, "denominator_z": z, "n": n, "included": included}
    if method == "fieller":
        found = fieller(y, x, total[0, 0], total[1, 1], total[0, 1], df, level)
    elif method == "delta":
        found = _between(*t_interval(estimate, se, df, level))
    elif rng is None:
        raise InputError(f"the {method!r} interval resamples: rng is needed")
    else:
        sums = [collapse(cells.slopes[side], cells.question)[0] for side in (above, below)]
        replicates = resample([SumRatio(*sums, resolution=STORED)], rng=rng, n_resamples=n_resamples)[0]
        found = _between(*interval(replicates, method, level))
    out |= {"ci_low": found.low, "ci_high": found.high, "shape": found.shape}
    out |= {"excluded_low": found.excluded_low, "excluded_high": found.excluded_high}
    lost = zero & ((method != "fieller") | ~(total[1, 1] > 0))
    # A vector relative to itself is 1 by definition, whatever its denominator. Where every question gives the same
    # ratio, limits would be the root of a difference of rounding errors apart.
    same = (above == below) & (n > 1) & ~zero
    flat = (n > 1) & (variance <= (ROUNDING * np.abs(cells.slopes[above]).mean(axis=1)) ** 2)
    flat &= out["shape"] == "bounded"
    out["shape"] = np.where(lost, "undefined", np.where(same, "bounded", out["shape"]))
    for key in ("ci_low", "ci_high"):
        out[key] = np.where(lost, np.nan, np.where(same | flat, estimate, out[key]))
    for key in ("excluded_low", "excluded_high"):
        out[key] = np.where(lost | same, np.nan, out[key])
    out["no_width"] = flat & ~same
    return out


def _between(low: np.ndarray, high: np.ndarray) -> Fieller:
    """The sets between two limits, in which nothing is excluded."""
    infinite = np.isinf(low).astype(int) + np.isinf(high)
    named = [np.isnan(low) | np.isnan(high), infinite == 2, infinite == 1]
    shape = np.select(named, ["undefined", "whole line", "half line"], "bounded")
    nothing = np.full(low.shape, np.nan)
    return Fieller(low=low, high=high, excluded_low=nothing, excluded_high=nothing, shape=shape)


def _row_warnings(place: str, row: dict, k: int) -> list[str]:
    z = row["denominator_z"][k]
    if np.isnan(row["estimate"][k]):
        return [f"{place}the denominator is zero: the ratio is not defined"]
    if row["n"] > 1 and not z >= NEAR_ZERO:
        return [f"{place}the denominator is near zero ({row['denominator'][k]:.3g}, {z:.1f} standard errors)"]
    if row["no_width"][k]:
        return [f"{place}{NO_WIDTH}"]
    return [f"{place}{ONE_SIDED}"] if row["shape"][k] == "half line" else []
