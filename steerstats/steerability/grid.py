"""The multiplier grid Λ: what it has to be, when m(0) may predict a slope, and how far engine error moves one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from steerstats.errors import CannotEstimate, InputError
from steerstats.rounding import floats


def check_grid(multipliers: np.ndarray) -> np.ndarray:
    """The grid as floats, refused unless it is one row of distinct finite numbers, two or more.

    Examples
    --------
    >>> from steerstats.steerability.grid import check_grid
    >>> check_grid([-1, 0, 1])
    array([-1.,  0.,  1.])
    >>> check_grid([0, 1, 1])
    Traceback (most recent call last):
    ...
    steerstats.errors.InputError: multipliers [0.0, 1.0, 1.0] repeat a value; each has to occur once
    """
    lam = floats(multipliers)
    if lam.ndim != 1 or not np.isfinite(lam).all():
        raise InputError(f"multipliers are {multipliers!r}; they have to be one row of finite numbers")
    if np.unique(lam).size != lam.size:
        raise InputError(f"multipliers {lam.tolist()} repeat a value; each has to occur once")
    if lam.size < 2:
        raise CannotEstimate(f"a slope needs at least two multipliers; this grid has {lam.size}")
    return lam


def slope_error(propensity_error: float, multipliers: np.ndarray) -> float:
    """Largest error of a slope when every logit difference may be off by `propensity_error`.

    The worst case max |Δs| = ε Σ|λ − λ̄| / Σ(λ − λ̄)², nats per unit multiplier. Slopes inside it have no sign that
    the engine can vouch for; pass it as `error` to `anti_steerable`.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.steerability.grid import slope_error
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> round(slope_error(0.01, study.unit("likes-rain").multipliers), 4)  # logits off by 0.01 nats
    0.0086
    """
    lam = check_grid(multipliers)
    if not np.isfinite(propensity_error) or propensity_error < 0:
        raise InputError(f"propensity_error is {propensity_error!r}; it has to be a number of nats, 0 or more")
    centred = lam - lam.mean()
    return float(propensity_error * np.abs(centred).sum() / (centred @ centred))


def is_symmetric(multipliers: np.ndarray) -> bool:
    """Whether −λ is in the grid for every λ in it (to 1e-9 of its width).

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.steerability.grid import is_symmetric
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> is_symmetric(study.unit("likes-rain").multipliers), is_symmetric([0, 1, 2])
    (True, False)
    """
    lam = np.sort(floats(multipliers))
    return bool(np.allclose(lam, -lam[::-1], rtol=0, atol=1e-9 * max(1.0, float(np.abs(lam).max()))))


def require_symmetric(multipliers: np.ndarray, purpose: str) -> None:
    """Refuse an asymmetric grid where m(0) would be used to predict slopes.

    Raises
    ------
    CannotEstimate
        If the grid is not symmetric about 0: the least-squares slope then has a weight on m(0) itself, so the two
        correlate by construction.

    Examples
    --------
    >>> from steerstats.steerability.grid import require_symmetric
    >>> require_symmetric([-1, 0, 2], "this model")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    steerstats.errors.CannotEstimate: this model needs multipliers symmetric about 0, this grid is [-1, 0, 2]: ...
    """
    if not is_symmetric(multipliers):
        raise CannotEstimate(
            f"{purpose} needs multipliers symmetric about 0, this grid is {np.sort(np.asarray(multipliers)).tolist()}: "
            "m(0) enters the slope by construction"
        )


def refuse_missing(y: np.ndarray, expected: np.ndarray, lam: np.ndarray, labels: Mapping[str, tuple]) -> None:
    """Refuse a curve (..., n, m) with a hole where `expected` (...) says it has none, naming its coordinates.

    Examples
    --------
    >>> import numpy as np
    >>> from steerstats.steerability.grid import refuse_missing
    >>> y = np.array([[0.1, 0.2, 0.3], [0.4, np.nan, 0.6]])
    >>> refuse_missing(y, np.array(True), np.array([-1.0, 0, 1]), {"input": ("q1", "q2")})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    steerstats.errors.InputError: propensity is not finite at input 'q2', at multiplier 0; ...
    """
    bad = ~np.isfinite(y) & expected[..., None, None]
    if not bad.any():
        return
    curves = np.argwhere(bad.any(axis=-1))
    first = tuple(curves[0])
    names = list(labels) or [f"axis {k}" for k in range(len(first) - 1)] + ["input"]
    where = ", ".join(
        f"{name} {labels[name][k]!r}" if name in labels else f"{name} {k}" for name, k in zip(names, first)
    )
    holes = lam[bad[first]]
    what = "at every multiplier" if holes.size == lam.size else f"at multiplier {', '.join(f'{v:g}' for v in holes)}"
    more = f" (and {len(curves) - 1} more curves)" if len(curves) > 1 else ""
    raise InputError(
        f"propensity is not finite at {where}, {what}{more}; drop the input everywhere, or mark it unplanned"
    )
