"""Per-input steerability: one straight line per propensity curve, all curves at once, and how far each is from a line.

Answer logits are deterministic, so what the line leaves over is lack of fit and not sampling noise: nothing here
gives a p-value, a standard error or a noise ceiling to a single input. What varies is the input; statements over
inputs (mean, median, spread, anti-steerable share) are in `distribution`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from steerstats.errors import CannotEstimate, InputError
from steerstats.results import Result
from steerstats.rounding import floats
from steerstats.steerability.grid import check_grid, is_symmetric, refuse_missing


@dataclass(frozen=True, kw_only=True)
class SteerabilityFit(Result):
    """The straight line through every propensity curve. `...` are the leading axes of the input.

    Parameters
    ----------
    slope : ndarray (..., n)
        Steerability s_i, nats per unit multiplier; exactly 0 where the curve is constant up to float64 rounding.
    intercept : ndarray (..., n)
        Height of the line at multiplier 0, nats. Not the unsteered propensity unless the curve is straight.
    unsteered : ndarray (..., n)
        m_i(0) as measured, nats; NaN where the grid has no 0. (A study has NaN, too, where the vector acts at 0.)
    r_squared : ndarray (..., n)
        Share of the curve's variation over the grid that the line takes; NaN where the curve is constant.
    rmse, root_rss : ndarray (..., n)
        √(RSS/m), and √RSS as on the axis of the published figure; nats.
    curvature : ndarray (..., n)
        Coefficient of λ² in the quadratic fit, nats per squared unit multiplier; NaN with two multipliers.
    slope_negative, slope_positive : ndarray (..., n)
        Slope over λ ≤ 0 and over λ ≥ 0 alone; NaN where that half of the grid has fewer than two points.
    monotonicity : ndarray (..., n)
        Mean sign of m(λ_k) − m(λ_j) over all j < k (Kendall's tau-a with λ): 1 rising throughout, −1 falling.
    ranges : ndarray (r,)
        Widths c for which the slope was fitted again on |λ| ≤ c alone; the last is the whole grid.
    range_slope : ndarray (..., n, r)
        Those slopes. Where they change with c, steerability is a property of the grid as much as of the input.
    multipliers : ndarray (m,)
        The grid Λ.
    coords : mapping of str to tuple
        Labels of each axis but the last, in order; empty when none were given.
    """

    slope: np.ndarray
    intercept: np.ndarray
    unsteered: np.ndarray
    r_squared: np.ndarray
    rmse: np.ndarray
    root_rss: np.ndarray
    curvature: np.ndarray
    slope_negative: np.ndarray
    slope_positive: np.ndarray
    monotonicity: np.ndarray
    ranges: np.ndarray
    range_slope: np.ndarray
    multipliers: np.ndarray
    coords: Mapping[str, tuple] = field(default_factory=dict)

    PER_INPUT = (
        "slope", "intercept", "unsteered", "r_squared", "rmse", "root_rss",
        "curvature", "slope_negative", "slope_positive", "monotonicity",
    )  # fmt: skip

    def to_frame(self) -> pd.DataFrame:
        """One row per curve: its coordinates, then every per-input number."""
        shape = self.slope.shape
        names = list(self.coords) or [f"axis_{k}" for k in range(len(shape) - 1)] + ["input"]
        labels = [np.asarray(v, dtype=object) for v in self.coords.values()] or [np.arange(k) for k in shape]
        places = np.indices(shape).reshape(len(shape), -1)
        columns = {name: label[place] for name, label, place in zip(names, labels, places)}
        columns |= {name: getattr(self, name).ravel() for name in self.PER_INPUT}
        return pd.DataFrame(columns)


def fit_steerability(
    propensity: np.ndarray,
    multipliers: np.ndarray,
    *,
    planned: np.ndarray | None = None,
    coords: Mapping[str, Sequence] | None = None,
) -> SteerabilityFit:
    """Closed-form least-squares line of propensity on multiplier, for all inputs at once.

    Parameters
    ----------
    propensity : array (..., n, m)
        Logit differences m_i(λ) in nats.
    multipliers : array (m,)
        The grid Λ; distinct, finite, in any order, at least two.
    planned : bool array, broadcastable to (...), optional
        Where curves are expected; elsewhere they may be NaN and the results are NaN. Default: everywhere.
    coords : mapping of axis name to labels, optional
        One entry per axis of `propensity` but the last, in order; used in errors and frames.

    Raises
    ------
    InputError
        If shapes do not match, the grid repeats a multiplier, or a planned curve holds a NaN or an infinity
        (the message names its coordinates).
    CannotEstimate
        If there are fewer than two multipliers or no input.

    Examples
    --------
    >>> import steerstats
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> unit = study.unit("likes-rain")
    >>> curves = unit.propensity[unit.place("base->base")]
    >>> fit = steerstats.fit_steerability(curves, unit.multipliers)
    >>> fit.slope[:3].round(3).tolist()  # of the first three inputs
    [0.177, 0.151, 0.172]
    >>> float(fit.r_squared.min().round(3))  # the least straight of all
    0.944
    """
    lam = check_grid(multipliers)
    y = floats(propensity)
    if y.ndim < 2 or y.shape[-1] != lam.size:
        raise InputError(
            f"propensity has shape {np.shape(propensity)}; it has to be (..., n inputs, {lam.size} multipliers)"
        )
    if y.shape[-2] == 0:
        raise CannotEstimate(f"propensity has shape {y.shape}: there is no input to fit")
    labels = _check_coords(coords, y.shape[:-1])
    expected = np.broadcast_to(True if planned is None else np.asarray(planned, dtype=bool), y.shape[:-2])
    refuse_missing(y, expected, lam, labels)
    y = np.where(expected[..., None, None], y, np.nan)

    m = lam.size
    centre = y.mean(axis=-1, keepdims=True)
    slope = _slope(y, lam)
    residual = (y - centre) - slope[..., None] * (lam - lam.mean())
    rss = np.einsum("...m,...m->...", residual, residual)
    tss = np.einsum("...m,...m->...", y - centre, y - centre)
    constant = _constant(y)
    with np.errstate(invalid="ignore", divide="ignore"):
        r_squared = np.where(constant, np.nan, 1 - rss / tss)
    zero = np.flatnonzero(lam == 0)
    ranges = np.array([c for c in np.unique(np.abs(lam)) if (np.abs(lam) <= c).sum() >= 2])

    curvature = y @ np.linalg.pinv(np.vander(lam, 3))[0] if m > 2 else np.full(slope.shape, np.nan)
    warnings = list(grid_warnings(lam))
    if constant.any():
        warnings.append(f"{int(constant.sum())} curves are constant: their slope is 0 and their R² is undefined")
    return SteerabilityFit(
        slope=slope,
        intercept=centre[..., 0] - slope * lam.mean(),
        unsteered=y[..., zero[0]] if zero.size else np.full(slope.shape, np.nan),
        r_squared=r_squared,
        rmse=np.sqrt(rss / m),
        root_rss=np.sqrt(rss),
        curvature=np.where(constant & (m > 2), 0.0, curvature),
        slope_negative=_slope_where(y, lam, lam <= 0),
        slope_positive=_slope_where(y, lam, lam >= 0),
        monotonicity=np.where(constant, 0.0, _monotonicity(y, lam)),
        ranges=ranges,
        range_slope=np.stack([_slope_where(y, lam, np.abs(lam) <= c) for c in ranges], axis=-1),
        multipliers=lam,
        coords=labels,
        method=f"least-squares line of propensity on {m} multipliers in [{lam.min():g}, {lam.max():g}], per input",
        assumptions=("logits are deterministic: residuals are lack of fit, so no input carries a p-value",),
        warnings=tuple(warnings),
    )


def grid_warnings(multipliers: np.ndarray) -> tuple[str, ...]:
    """What a grid alone makes doubtful about every slope fitted on it.

    Examples
    --------
    >>> from steerstats.steerability import grid_warnings
    >>> grid_warnings([-1, 0, 1])
    ()
    >>> grid_warnings([-1, 1])[0][:16]
    'two multipliers:'
    """
    lam, found = check_grid(multipliers), []
    if lam.size == 2:
        found.append("two multipliers: every curve is its own line, lack of fit and curvature cannot be seen")
    if not is_symmetric(lam):
        found.append(
            "the multipliers are not symmetric about 0: a bend of the curve changes the slope, and the unsteered "
            "propensity is a part of the slope and must not be used to predict it"
        )
    return tuple(found)


def _check_coords(coords: Mapping[str, Sequence] | None, shape: tuple[int, ...]) -> dict[str, tuple]:
    if not coords:
        return {}
    labels = {name: tuple(values) for name, values in coords.items()}
    sizes = tuple(len(values) for values in labels.values())
    if sizes != shape:
        raise InputError(f"coords {list(labels)} have lengths {sizes}; the axes before the multipliers are {shape}")
    return labels


def _slope(y: np.ndarray, lam: np.ndarray) -> np.ndarray:
    centred = lam - lam.mean()
    # Of a constant curve the product is ±1e-16 by rounding, and half of those would count as the wrong way.
    return np.where(_constant(y), 0.0, y @ (centred / (centred @ centred)))


def _constant(y: np.ndarray) -> np.ndarray:
    """Whether curves (..., m) are flat up to float64 rounding; False where they are NaN."""
    apart = y - y.mean(axis=-1, keepdims=True)
    spread = np.einsum("...m,...m->...", apart, apart)
    return spread <= y.shape[-1] * (8 * np.finfo(float).eps * np.abs(y).max(axis=-1)) ** 2


def _slope_where(y: np.ndarray, lam: np.ndarray, keep: np.ndarray) -> np.ndarray:
    return _slope(y[..., keep], lam[keep]) if keep.sum() >= 2 else np.full(y.shape[:-1], np.nan)


def _monotonicity(y: np.ndarray, lam: np.ndarray) -> np.ndarray:
    ordered = y[..., np.argsort(lam)]
    m = lam.size
    # One lag at a time keeps the temporary at the size of the grid instead of all m(m-1)/2 pairs.
    signs = sum(np.sign(ordered[..., lag:] - ordered[..., :-lag]).sum(axis=-1) for lag in range(1, m))
    return signs / (m * (m - 1) / 2)
