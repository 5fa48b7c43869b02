"""The effects that a study may be planned for: a gap, a mean steerability, a difference of two caches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from steerstats.errors import CannotEstimate, InputError, check_count
from steerstats.generalization.compared import pairing_words, shared_datasets
from steerstats.generalization.matched import Matched, check_inputs, match
from steerstats.generalization.slopes import ID_SHIFT, Shift, SlopeGrid, parse_shift, shift_name
from steerstats.generalization.vector_error import refit_variance
from steerstats.power.components import EffectComponents, Measured, fit
from steerstats.resampling import mean_covariance

NO_REFITS = "no refitted vectors"
SAME_INPUTS = "both caches of the next comparison hold the same inputs"


def gap_components(
    grid: SlopeGrid,
    shift: Shift | str,
    *,
    n_pairs: int | None = None,
    reference: Shift = ID_SHIFT,
    why_no_refits: str = NO_REFITS,
) -> EffectComponents:
    """Variance components of one shift's gap from a study that was run.

    Parameters
    ----------
    grid : SlopeGrid
        With `refits` for the vector's part.
    shift : (train, eval) or "train->eval"
    n_pairs : int, optional
        Training pairs behind the vectors, the harmonic mean where datasets differ; needed with `refits`.
    reference : (train, eval)
    why_no_refits : str
        What to say, in the warning, of a grid without `refits`.

    Raises
    ------
    CannotEstimate
        If no dataset has two questions, or every question has the same gap.
    InputError
        If there are refits and `n_pairs` is missing, or the shift is the reference.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.power import gap_components
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> found = gap_components(study.grid(), "base->user_neg")
    >>> found.to_frame().set_index("component")["sd"].round(3).to_dict()
    {'between datasets': 0.067, 'between inputs': 0.066, 'of the vector': nan}
    """
    shift = parse_shift(shift)
    if shift == tuple(reference):
        raise InputError(f"{shift_name(shift)} is the reference itself and has no gap; ask about another shift")
    return fit(
        _in_each(grid, [reference, shift], lambda slopes: slopes[..., 0, :] - slopes[..., 1, :]),
        kind="gap",
        effect_of=f"gap {shift_name(reference)} minus {shift_name(shift)}",
        n_pairs=_pairs(n_pairs, grid.refits is not None),
        why_no_refits=why_no_refits,
    )


def mean_components(
    grid: SlopeGrid, shift: Shift | str = ID_SHIFT, *, n_pairs: int | None = None, why_no_refits: str = NO_REFITS
) -> EffectComponents:
    """Variance components of the mean steerability under one shift, for how far from 0 a mean has to lie to be told.

    Parameters
    ----------
    grid, shift, n_pairs, why_no_refits
        As in `gap_components`.

    Raises
    ------
    CannotEstimate
        If no dataset has two questions, or every question has the same slope.
    InputError
        If there are refits and `n_pairs` is missing.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.power import mean_components
    >>> grid = steerstats.open_cache(steerstats.demo_cache()).grid(refits=True)
    >>> mean_components(grid, "base->base", n_pairs=48).to_frame().set_index("component")["sd"].round(3).to_dict()
    {'between datasets': 0.01, 'between inputs': 0.13, 'of the vector': 0.034}
    """
    shift = parse_shift(shift)
    return fit(
        _in_each(grid, [shift], lambda slopes: slopes[..., 0, :]),
        kind="mean",
        effect_of=f"mean steerability under {shift_name(shift)}",
        n_pairs=_pairs(n_pairs, grid.refits is not None),
        why_no_refits=why_no_refits,
    )


def difference_components(
    grids: Mapping[str, SlopeGrid],
    inputs: Mapping[str, Mapping[str, Sequence[str]]],
    shift: Shift | str = ID_SHIFT,
    *,
    n_pairs: int | None = None,
    why_no_refits: str = f"{NO_REFITS} in both caches",
) -> EffectComponents:
    """Variance components of the difference in mean steerability between two caches, second minus first.

    Inputs and refits are matched as `generalization.compare_slopes` matches them: paired by input, and refits of the
    same resamples of training pairs by resample; elsewhere the variances of the two caches' vectors add. In simulation
    a difference that is said to be found with power .80 was found .77-.81 of the time by the mean to read of
    `compare_slopes` over 5 and 10 datasets, and .80 by the interval of one.

    Parameters
    ----------
    grids : mapping of str to SlopeGrid
        Name of a cache -> its slopes; two of them.
    inputs : mapping of str to mapping of str to sequence of str
        Name of a cache -> dataset -> identity of each input, in the order of the slopes.
    shift : (train, eval) or "train->eval"
    n_pairs : int, optional
        Training pairs behind the vectors, the harmonic mean where datasets or caches differ; needed where both caches
        have refits.
    why_no_refits : str

    Raises
    ------
    CannotEstimate
        If the caches share no input under the shift, no dataset has two questions, or every question differs by the
        same amount.
    InputError
        If there are not two grids, identities do not fit their slopes, or `n_pairs` is missing.

    Examples
    --------
    >>> from dataclasses import replace
    >>> import steerstats
    >>> from steerstats.power import difference_components
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> whole = study.grid(["base->base"])
    >>> half = replace(whole, slopes={name: values / 2 for name, values in whole.slopes.items()})
    >>> inputs = {name: study.unit(name).inputs for name in study.datasets}
    >>> found = difference_components({"whole": whole, "half": half}, {"whole": inputs, "half": inputs})
    >>> found.to_frame().set_index("component")["sd"].round(3).to_dict()  # half of those of the mean
    {'between datasets': 0.016, 'between inputs': 0.065, 'of the vector': nan}
    """
    shift, labels = parse_shift(shift), tuple(grids)
    if len(labels) != 2:
        raise InputError(f"{len(labels)} caches are given; a difference is between two")
    check_inputs(grids, inputs)
    sides, ids = tuple(grids.values()), tuple(inputs[label] for label in labels)
    matched = {name: match(labels, sides, ids, name, [shift]) for name in shared_datasets(grids)}
    matched = {name: one for name, one in matched.items() if one is not None}
    if not matched:
        raise CannotEstimate(f"the caches share no input of any dataset in {shift_name(shift)}")
    included = np.array([one.refitted for one in matched.values()])[None]
    paired = np.array([len(one.vectors) == 1 for one in matched.values()])[None]
    return fit(
        [_difference(name, one) for name, one in matched.items()],
        kind="difference",
        effect_of=f"difference in mean steerability under {shift_name(shift)}, {labels[1]} minus {labels[0]}",
        n_pairs=_pairs(n_pairs, bool(included.any())),
        why_no_refits=why_no_refits,
        alike=True,
        assumptions=(SAME_INPUTS, *pairing_words(included, paired)),
    )


def _in_each(grid: SlopeGrid, shifts: list[Shift], effect: Callable[[np.ndarray], np.ndarray]) -> list[Measured]:
    """An effect of (..., shifts, inputs) in each dataset of a grid."""
    found = []
    for name in grid.datasets:
        cells = grid.cells(name, shifts)
        # A grid may hold refits of some datasets and cells only.
        refits = np.empty(0) if cells.refits is None else effect(cells.refits).mean(axis=1)
        refits = refits[np.isfinite(refits)]
        vectors = (refit_variance(refits), len(refits) - 1) if len(refits) > 1 else ()
        mean, covariance, n = mean_covariance(effect(cells.slopes), cells.question)
        found.append(Measured(name, n, mean[0], covariance[0, 0], *vectors))
    return found


def _difference(name: str, one: Matched) -> Measured:
    """The difference of one dataset, of which one cell is matched."""
    mean, covariance, n = mean_covariance(one.differences[0], one.question)
    vectors: tuple[float, ...] = ()
    if one.refitted[0]:
        variances, dfs = one.vector_parts(0)
        total, weight = sum(variances), sum(variance**2 / df for variance, df in zip(variances, dfs))
        # One part has its own degrees of freedom, with no rounding.
        vectors = total, total**2 / weight if weight > 0 and len(dfs) > 1 else min(dfs)
    return Measured(name, n, mean[0], covariance[0, 0], *vectors)


def _pairs(n_pairs: int | None, refits: bool) -> int | None:
    if refits and n_pairs is None:
        raise InputError("n_pairs is needed with refits: the vector's variance is that of so many training pairs")
    return None if n_pairs is None else check_count("n_pairs", n_pairs)
