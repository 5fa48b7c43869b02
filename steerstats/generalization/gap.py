"""The generalisation gap: what steerability loses when the prompt shifts, and which part of it is transfer.

gap = s(base->base) − s(train->eval), paired by input, positive when something is lost. It is the sum of what the
evaluation prompt does to any vector, s(base->base) − s(eval->eval), and of what transfer costs,
s(eval->eval) − s(train->eval).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steerstats.errors import check_level, check_resamples, check_rng, first_few
from steerstats.generalization.slopes import (
    ID_SHIFT,
    NO_WIDTH,
    ONE_SIDED,
    PAPER_SHIFTS,
    SAMPLE,
    Cells,
    Shift,
    SlopeGrid,
    cells_frame,
    parse_shift,
    parse_shifts,
    shift_name,
    unit_warnings,
    without_width,
)
from steerstats.generalization.vector_error import (
    VECTOR_ERROR_OUT,
    cells_without,
    refit_doubts,
    refit_draws,
    se_types,
    vector_error_words,
    with_vector_error,
)
from steerstats.resampling import Replicates, SumRatio, collapse, interval, resample
from steerstats.resampling.simultaneous import max_t_bands, romano_wolf
from steerstats.results import SLOPE_UNIT, Estimate, Result
from steerstats.rounding import STORED

COMPONENTS = ("gap", "prompt", "transfer")
PLURALS = ("gaps", "parts of the prompt", "parts of transfer")


def gap(
    reference: np.ndarray,
    shifted: np.ndarray,
    *,
    rng: np.random.Generator,
    questions: np.ndarray | None = None,
    method: str = "studentised",
    level: float = 0.95,
    n_resamples: int = 10_000,
) -> Estimate:
    """Mean gap of one dataset under one shift, reference − shifted, paired by input.

    Parameters
    ----------
    reference, shifted : array of shape (n_inputs,)
        Slopes in nats per unit multiplier. Inputs with a NaN on either side are left out and counted.
    rng : numpy.random.Generator
    questions : array of shape (n_inputs,), optional
        Unit of resampling.
    method : {"studentised", "percentile", "basic", "bca", "t", "normal"}
    level : float
    n_resamples : int

    Returns
    -------
    Estimate
        Limits are NaN with a single question.

    Raises
    ------
    InputError
        If the shapes differ or no input is complete.

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats.generalization import gap
    >>> slopes = steerstats.open_cache(steerstats.demo_cache()).slopes("likes-rain")
    >>> at_home, away = slopes.at("base->base"), slopes.at("base->user_neg")
    >>> print(gap(at_home, away, rng=np.random.default_rng(0), questions=slopes.question))
    mean gap: 0.089 [0.079, 0.101] (n = 60)
    """
    check_level(level)
    check_resamples(n_resamples)
    cells = Cells.paired({"reference": reference, "shifted": shifted}, questions, "on both sides of the gap")
    replicates = _resampled(cells.slopes[0] - cells.slopes[1], cells, rng, n_resamples)
    low, high = interval(replicates, method, level)
    return Estimate(
        name="mean gap",
        estimate=float(replicates.estimate[0]),
        se=float(replicates.se[0]),
        ci_low=float(low[0]),
        ci_high=float(high[0]),
        n=replicates.n_units,
        unit=SLOPE_UNIT,
        level=level,
        method=method_of_gaps(n_resamples, f"{replicates.n_units} questions", method),
        numbers={"n_resamples": n_resamples},
        assumptions=(SAMPLE, VECTOR_ERROR_OUT),
        warnings=unit_warnings(replicates.n_units, "", cells.question)
        + cells.left_out()
        + ((ONE_SIDED,) if np.isinf([low[0], high[0]]).any() else ())
        + ((NO_WIDTH,) if replicates.se[0] == 0 else ()),
    )


def method_of_gaps(n_resamples: int, questions: str = "each dataset's questions", method: str = "studentised") -> str:
    """How a mean gap and its interval are made; those of several datasets name no number of questions."""
    return f"mean over inputs, {method} interval, {n_resamples} resamples of {questions}"


@dataclass(frozen=True, kw_only=True)
class GapTable(Result):
    """Gaps of every dataset under every shift, each with its two parts.

    Parameters
    ----------
    components : tuple of str
        "gap", and where eval->eval was evaluated "prompt" and "transfer", which sum to it.
    datasets, shifts : tuple of str
    estimate, se, ci_low, ci_high : ndarray of shape (n_components, n_datasets, n_shifts)
        Nats per unit multiplier.
    band_low, band_high : ndarray of the same shape
        Simultaneous over dataset x shift, within a component.
    p_adjusted : ndarray of the same shape
        Romano–Wolf step-down p-value of "no gap", over dataset x shift within a component.
    n, n_excluded : ndarray of shape (n_datasets,)
        Questions behind each dataset's numbers, and inputs left out as incomplete.
    level : float
    n_refits : ndarray of int, same shape as `estimate`
        Refitted vectors behind the standard error, where both slopes of a difference have them; 0 elsewhere.
    """

    components: tuple[str, ...]
    datasets: tuple[str, ...]
    shifts: tuple[str, ...]
    estimate: np.ndarray
    se: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    band_low: np.ndarray
    band_high: np.ndarray
    p_adjusted: np.ndarray
    n: np.ndarray
    n_excluded: np.ndarray
    level: float
    n_refits: np.ndarray

    @property
    def includes_vector_error(self) -> np.ndarray:
        """Where the standard error, interval, band and p-value hold the vector's own sampling error (bool)."""
        return self.n_refits > 0

    def to_frame(self) -> pd.DataFrame:
        """One row per dataset, shift and component."""
        axes = {"component": self.components, "dataset": self.datasets, "shift": self.shifts}
        names = ("estimate", "se", "ci_low", "ci_high", "band_low", "band_high", "p_adjusted", "includes_vector_error")
        frame = cells_frame(self, names, axes)
        return frame.assign(se_type=se_types(frame["includes_vector_error"]))


def gap_table(
    grid: SlopeGrid,
    shifts: Sequence[Shift | str] = PAPER_SHIFTS,
    *,
    rng: np.random.Generator,
    reference: Shift = ID_SHIFT,
    level: float = 0.95,
    n_resamples: int = 10_000,
) -> GapTable:
    """Gaps of all datasets under all shifts, with their decomposition, bands and adjusted p-values.

    Parameters
    ----------
    grid : SlopeGrid
        Intervals are studentised; where it has `refits`, everything includes the vector's sampling error, and they are
        Satterthwaite t.
    shifts : sequence of (train, eval) or "train->eval"
    rng : numpy.random.Generator
        Each dataset gets an independent child generator, in the order of the grid.
    reference : (train, eval)
    level : float
    n_resamples : int

    Raises
    ------
    InputError
        If a shift is not in the grid, is named twice, or is the reference.

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats.generalization import gap_table
    >>> study = steerstats.open_cache(steerstats.demo_cache(), datasets=["likes-rain"])
    >>> table = gap_table(study.grid(), ["base->user_neg"], rng=np.random.default_rng(0), n_resamples=500)
    >>> dict(zip(table.components, table.estimate[:, 0, 0].round(3).tolist()))  # the last two sum to the first
    {'gap': 0.089, 'prompt': 0.183, 'transfer': -0.094}
    """
    check_level(level)
    check_resamples(n_resamples)
    check_rng(rng)
    reference = parse_shift(reference)
    shifts = parse_shifts(shifts, reference=reference)
    own = [(evaluate, evaluate) for _, evaluate in shifts]
    components = COMPONENTS if all(grid.has(shift) for shift in own) else COMPONENTS[:1]
    wanted = [reference, *shifts, *(own if len(components) > 1 else [])]
    labels = {component: [_label(component, shift) for shift in shifts] for component in components}
    cell_names = np.concatenate(list(labels.values()))
    shape = (len(components), len(grid.datasets), len(shifts))
    out = {name: np.full(shape, np.nan) for name in ("estimate", "se", "ci_low", "ci_high")}
    t, n_refits = np.zeros((*shape, n_resamples), dtype=np.float32), np.zeros(shape, dtype=int)
    n, n_excluded, warnings, doubted = [], [], [], {}
    for d, (name, child) in enumerate(zip(grid.datasets, rng.spawn(len(grid.datasets)))):
        cells = grid.cells(name, wanted)
        parts = _parts(cells.slopes, len(shifts), len(components))
        replicates = _resampled(parts, cells, child, n_resamples)
        values = [v.copy() for v in (replicates.estimate, replicates.se, *interval(replicates, "studentised", level))]
        deviations = replicates.t()
        refits = None if cells.refits is None else _parts(cells.refits, len(shifts), len(components))
        again = np.zeros(len(parts), dtype=bool) if refits is None else np.isfinite(refits).all(axis=(0, 2))
        if again.any():
            found = [
                with_vector_error(parts[k], refits[:, k], questions=cells.question, level=level)
                for k in np.flatnonzero(again)
            ]
            for key, value in zip(out, values):
                value[again] = [getattr(e, key) for e in found]
            vectors = refit_draws(refits[:, again].mean(axis=2), n_resamples, child)
            deviations[:, again] = replicates.t_with(again, *vectors)
            n_refits[:, d] = len(refits) * again.reshape(shape[::2])
            doubted[name] = found, cell_names[again]
        t[:, d] = deviations.T.reshape(*shape[::2], n_resamples)
        for key, value in zip(out, values):
            out[key][:, d] = np.reshape(value, shape[::2])
        n.append(replicates.n_units)
        n_excluded.append(cells.n_excluded)
        warnings += unit_warnings(replicates.n_units, f"{name}: ", cells.question)
        flat = without_width(out["estimate"][0, d], out["se"][0, d])
        alike = [shift_name(shift) for shift, here in zip(shifts, flat) if here]
        if alike:
            warnings.append(f"{name}, {', '.join(alike)}: {NO_WIDTH}")
    warnings += refit_doubts(doubted)
    bands, p = _families(out["estimate"], out["se"], t, level)
    if len(components) == 1:
        warnings.append("not every prompt was asked with a vector of its own: losses are shown without their two parts")
    of_cells = [
        [[f"{one} in {name}" for one in labels[component]] for name in grid.datasets] for component in components
    ]
    warnings += _infinite_limits(np.isinf([out["ci_low"], out["ci_high"]]).any(axis=0), bands, t, np.array(of_cells))
    included = n_refits > 0
    for component, where in zip(components, included):
        warnings += cells_without(where, grid.datasets, labels[component])
        if included.any() and not where.any():
            warnings.append(f"{component}: intervals hold for these very vectors: eval->eval has no refits")
    how = "Satterthwaite t" if included.all() else "studentised bootstrap"
    if included.any() and not included.all():
        how = f"Satterthwaite t where there are refits, else {how}"
    return GapTable(
        components=components,
        datasets=grid.datasets,
        shifts=tuple(map(shift_name, shifts)),
        **out,
        band_low=bands[0],
        band_high=bands[1],
        p_adjusted=p,
        n=np.array(n),
        n_excluded=np.array(n_excluded),
        level=level,
        n_refits=n_refits,
        method=f"{shift_name(reference)} minus shift, mean over inputs paired by input; {how} intervals; single-step "
        f"max-|t| bands and Romano–Wolf p-values; {n_resamples} resamples of questions, independent between datasets",
        numbers={"n_resamples": n_resamples},
        assumptions=(SAMPLE, vector_error_words(included)),
        warnings=tuple(warnings),
    )


def _resampled(differences: np.ndarray, cells: Cells, rng: np.random.Generator, n_resamples: int) -> Replicates:
    """Means of differences between slopes over resamples of questions; they are rounded as the slopes are."""
    sums, sizes = collapse(differences, cells.question)
    means = SumRatio(sums, sizes, resolution=STORED, size=np.abs(cells.slopes).max())
    return resample([means], rng=rng, n_resamples=n_resamples)[0]


def _infinite_limits(limits: np.ndarray, bands: np.ndarray, t: np.ndarray, names: np.ndarray) -> list[str]:
    """Warnings on cells (components, datasets, shifts) that have no limit, and on those that take it from all bands."""
    found, why = [], "too many of their resamples have no variance"
    if limits.any():
        found.append(f"limits of {first_few(names[limits].tolist())} are infinite: {why}")
    for k in range(len(names)):  # the cells of a component are one family
        if np.isinf(bands[:, k]).any():
            cause = names[k][np.isinf(t[k]).any(axis=-1)].tolist()
            found.append(f"simultaneous bands of all {PLURALS[k]} are infinite because of {first_few(cause)}: {why}")
    return found


def _label(component: str, shift: Shift) -> str:
    """How a warning names a cell."""
    return shift_name(shift) if component == "gap" else f"{component} of {shift_name(shift)}"


def _parts(slopes: np.ndarray, n_shifts: int, n_components: int) -> np.ndarray:
    """(…, 1 + n_shifts [+ n_shifts], n_inputs) slopes -> (…, n_components * n_shifts, n_inputs) gaps."""
    reference, shifted = slopes[..., :1, :], slopes[..., 1 : 1 + n_shifts, :]
    if n_components == 1:
        return reference - shifted
    own = slopes[..., 1 + n_shifts :, :]
    return np.concatenate([reference - shifted, reference - own, own - shifted], axis=-2)


def _families(estimate: np.ndarray, se: np.ndarray, t: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    bands, p = np.empty((2, *estimate.shape)), np.empty(estimate.shape)
    for k in range(len(estimate)):
        family = estimate[k].ravel(), se[k].ravel(), t[k].reshape(se[k].size, -1).T
        for side, limit in enumerate(max_t_bands(*family, level)):
            bands[side, k] = limit.reshape(estimate[k].shape)
        p[k] = romano_wolf(*family).reshape(estimate[k].shape)
    return bands, p
