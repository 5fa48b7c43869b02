"""Do two models agree on which datasets can be steered? Both answer the same questions, so their errors agree too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from steerstats.errors import InputError, check_level, check_resamples
from steerstats.generalization.correlation import Comparison, CorrelationTable, correlation_table, measure
from steerstats.generalization.slopes import ID_SHIFT, PAPER_SHIFTS, Cells, Shift, SlopeGrid, parse_shifts, shift_name
from steerstats.resampling import collapse

SHARED_IGNORED = "shared question noise ignored: the corrected correlation is too high"


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
        One per model; datasets in common are used. Both models answer the same questions, so the errors of their
        means are not independent: questions are matched by their labels, and the covariance of the errors is
        estimated from those that both models answered. Errors of refits covary over the resamples of training
        pairs that both models name alike (`refit_draw`); where a model does not name them, equally many are taken to
        be of the same resamples, as those of one build spec are.
    shifts : sequence of (train, eval) or "train->eval"
        base->base is the comparison in distribution.
    rng, level, n_resamples
        As in `id_ood_correlation`.

    Raises
    ------
    InputError
        If the models share no dataset, or a shift is not in both grids or is named twice.

    Examples
    --------
    >>> import numpy as np
    >>> import steerstats
    >>> from steerstats.generalization import cross_model_agreement
    >>> grid = steerstats.open_cache(steerstats.demo_cache()).grid()
    >>> found = cross_model_agreement(grid, grid, ["base->base"], rng=np.random.default_rng(0), n_resamples=200)
    >>> found.estimate[0].item(), round(found.noise_correlation[0].item(), 6)  # a model and itself, noise and all
    (1.0, 1.0)
    """
    check_level(level)
    check_resamples(n_resamples)
    shifts = parse_shifts(shifts)
    common = tuple(name for name in first.datasets if name in second.slopes)
    if not common:
        raise InputError("the two models share no dataset")
    labelled = first.question is not None and second.question is not None
    one, other = measure(first, shifts, common), measure(second, shifts, common)
    shared = np.stack([_shared(a, b, labelled) for a, b in zip(one.cells, other.cells)])
    both = one.refitted & other.refitted
    paired = np.stack([_shared_vectors(a, b) for a, b in zip(one.cells, other.cells)])
    comparisons = []
    for k, shift in enumerate(shifts):
        noise = [m.of_inputs[:, k, k] + np.where(both[:, k], m.of_vectors[:, k, k], 0.0) for m in (one, other)]
        noise.append(shared[:, k] + np.where(both[:, k], paired[:, k], 0.0))
        comparisons.append(Comparison(shift_name(shift), one.mean[:, k], other.mean[:, k], tuple(noise), both[:, k]))
    excluded = one.n_excluded + other.n_excluded
    found = correlation_table(comparisons, common, excluded, rng, level, n_resamples)
    if labelled:
        apart = [
            name for name, a, b in zip(common, one.cells, other.cells) if not np.isin(a.question, b.question).any()
        ]
        notes = (f"no question in common, errors taken as independent: {', '.join(apart)}",) if apart else ()
        how = "errors of the two models' means are correlated as their answers to common questions are"
        return replace(found, assumptions=(*found.assumptions, how), warnings=(*notes, *found.warnings))
    return replace(
        found,
        assumptions=(*found.assumptions, SHARED_IGNORED),
        warnings=(SHARED_IGNORED, *found.warnings),
        noise_correlation=np.full_like(found.noise_correlation, np.nan),
    )


def _shared(one: Cells, other: Cells, labelled: bool) -> np.ndarray:
    """Covariance (n_shifts,) of the errors of two models' means on one dataset.

    Over the questions that both answered, cov(e1, e2) per question, times n_common / (n1 n2).
    """
    if not labelled:
        return np.zeros(len(one.slopes))
    sides = []
    for cells in (one, other):
        sums, sizes = collapse(cells.slopes, cells.question)
        labels = list(dict.fromkeys(cells.question.tolist()))  # in `collapse`'s order
        residual = (sums - cells.slopes.mean(axis=1, keepdims=True) * sizes) / sizes.sum()
        sides.append(dict(zip(labels, residual.T)))
    common = [label for label in sides[0] if label in sides[1]]
    if len(common) < 2:
        return np.zeros(len(one.slopes))
    first, second = (np.array([side[label] for label in common]) for side in sides)
    products = (first - first.mean(axis=0)) * (second - second.mean(axis=0))
    return products.sum(axis=0) * len(common) / (len(common) - 1)


def _shared_vectors(one: Cells, other: Cells) -> np.ndarray:
    """Covariance (n_shifts,) of two models' vector errors, over the resamples of training pairs that both have.

    Without names replicates are paired by number; those that are not of the other model's resamples have no
    covariance, so that they add noise and no bias.
    """
    nothing = np.zeros(len(one.slopes))
    if one.refits is None or other.refits is None:
        return nothing
    first, second = (cells.refits.mean(axis=2) for cells in (one, other))
    if one.draw is not None and other.draw is not None:
        common = [name for name in one.draw if name in other.draw]
        first, second = (part[[c.draw.index(k) for k in common]] for part, c in ((first, one), (second, other)))
    if len(first) != len(second) or len(first) < 2:
        return nothing
    products = (first - first.mean(axis=0)) * (second - second.mean(axis=0))
    return products.sum(axis=0) / (len(first) - 1)
