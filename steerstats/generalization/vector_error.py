"""The vector's own sampling error: a vector is an estimate too, from finitely many training pairs.

Refits on bootstrap resamples of the pairs show how far the full-data vector could have come out elsewhere. Their
variance is that of one vector and is never divided by the number of refits; only vectors from disjoint pairs
average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from steerstats.errors import CannotEstimate, InputError, check_level, first_few, gathered
from steerstats.generalization.slopes import SINGLE, without_width
from steerstats.meta import FEW_REFITS
from steerstats.resampling import collapse, mean_covariance, resampled_sums
from steerstats.resampling.question_weight import question_df
from steerstats.resampling.questions import group_codes
from steerstats.results import SLOPE_UNIT, Estimate
from steerstats.rounding import STORED, floats, varies

VECTOR_ERROR_IN = "the interval includes the vector's own sampling error"
VECTOR_ERROR_OUT = "the interval does not include the vector's own sampling error: it holds for this very vector"
VECTOR_ERROR_MIXED = (
    "intervals include the vector's own sampling error where the column includes_vector_error says so, and elsewhere "
    "hold for this very vector"
)
FLAT = "every question and every vector gives the same value: the interval has no width"


def vector_error_words(included: np.ndarray) -> str:
    """The assumption that fits a table whose cells include the vector's error or not."""
    return VECTOR_ERROR_IN if np.all(included) else VECTOR_ERROR_MIXED if np.any(included) else VECTOR_ERROR_OUT


def se_types(included: Sequence[bool]) -> list[str]:
    """What the standard error of each row is over: questions alone, or vectors as well."""
    return ["linearised over questions" + (", plus variance of refits" if vectors else "") for vectors in included]


def cells_without(
    included: np.ndarray, datasets: Sequence[str], cells: Sequence[str], *, present: np.ndarray | None = None
) -> tuple[str, ...]:
    """The warnings that name the cells without refits, where others have them.

    Parameters
    ----------
    included : ndarray of bool, shape (n_datasets, n_cells)
    datasets, cells : sequence of str
    present : ndarray of bool, same shape, optional
        Cells that were evaluated; by default all. Of the others there is nothing to say.
    """
    present = np.ones_like(included) if present is None else present
    cells = [cell for cell, has in zip(cells, present.any(axis=0)) if has]
    included, present = (part[:, present.any(axis=0)] for part in (included & present, present))
    if np.all(included[present]) or not np.any(included):
        return ()
    why = "no refits were measured there"
    anywhere = included.any(axis=0)
    lines = []
    if anywhere.sum() < len(cells) - anywhere.sum():
        having = [cell for cell, has in zip(cells, anywhere) if has]
        lines.append(
            f"only intervals of {', '.join(having)} include the vector's own error: no refits were measured elsewhere"
        )
    elif not anywhere.all():
        lacking = [cell for cell, has in zip(cells, anywhere) if not has]
        lines.append(f"intervals of {', '.join(lacking)} hold for these very vectors: {why}")
    for name, row in zip(datasets, anywhere & present & ~included):
        lacking = [cell for cell, lacks in zip(cells, row) if lacks]
        if lacking:
            lines.append(f"{name}: intervals of {', '.join(lacking)} hold for these very vectors: {why}")
    return tuple(lines)


def refit_doubts(found: Mapping[str, tuple[Sequence[Estimate], Sequence[str]]]) -> list[str]:
    """What `with_vector_error` doubts of the cells of datasets, each doubt once with those that share it.

    Single questions and intervals without width are left to the table, which has them in cells without refits too.

    Parameters
    ----------
    found : mapping of dataset to (sequence of Estimate, sequence of str)
        The estimates, and the name of each one's cell.
    """
    doubts = []
    for dataset, (estimates, cells) in found.items():
        said = ((cell, text) for estimate, cell in zip(estimates, cells) for text in estimate.warnings)
        for text, which in gathered(said).items():
            where = "" if len(which) == len(cells) > 1 else f", {', '.join(which)}"
            doubts += [(dataset, f"{where}: {text}")] * (text not in (SINGLE, FLAT))
    return [f"{first_few(datasets)}{text}" for text, datasets in gathered(doubts).items()]


def with_vector_error(
    values: np.ndarray,
    refits: np.ndarray,
    *,
    questions: np.ndarray | None = None,
    level: float = 0.95,
    name: str = "mean gap",
) -> Estimate:
    """Mean over inputs under the full-data vector, with an interval for another draw of pairs and of inputs.

    Var = σ̂²_vector + σ̂²_inputs / n, t with Satterthwaite's degrees of freedom. σ̂²_vector is the variance of the
    refits' means; their interaction (σ²_input×vector / n) is in both terms, so the interval is slightly too wide.
    Resamples of n training questions show (n − 1) / n of the vector's variance, on n − 1 degrees of freedom at best,
    which the interval does not allow for: where vectors err more than inputs, 95% intervals
    covered .85, .91, .92 and .93 with 4, 8, 12 and 20 questions.

    Parameters
    ----------
    values : array of shape (n_inputs,)
        Per-input gaps (or slopes) under the vector of all pairs, in nats per unit multiplier. For a gap, form
        the gap first: errors of two vectors fitted on the same pairs are not independent.
    refits : array of shape (n_refits, n_inputs)
        The same under each vector refitted on a bootstrap resample of the pairs.
    questions : array of shape (n_inputs,), optional
    level : float
    name : str

    Raises
    ------
    CannotEstimate
        With fewer than two refits.
    InputError
        If the shapes do not fit.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.generalization import with_vector_error
    >>> unit = steerstats.open_cache(steerstats.demo_cache()).unit("likes-rain")
    >>> slopes, refits = unit.slopes.at("base->base"), unit.control_slopes("resampled", "base->base")
    >>> print(with_vector_error(slopes, refits, questions=unit.question, name="mean steerability"))
    mean steerability: 0.128 [0.053, 0.204] (n = 60)
    """
    check_level(level)
    values, refits = _checked(values, refits)
    if len(refits) < 2:
        raise CannotEstimate(f"{len(refits)} refitted vectors; the vector's variance needs at least two")
    mean, covariance, n_units = mean_covariance(values, questions)
    df = question_df(values, *group_codes(questions, len(values)), level)
    refit_means = refits.mean(axis=1)
    from_vector, from_inputs = refit_variance(refit_means), float(covariance[0, 0])
    shift = float(refit_means.mean() - mean[0])
    warnings = [] if len(refits) >= FEW_REFITS else [f"only {len(refits)} refitted vectors"]
    if from_vector > 0 and abs(shift) > 2 * np.sqrt(from_vector):
        warnings.append(f"refitted vectors differ from the full-data vector on average by {shift:.3g} (bootstrap bias)")
    return _estimate(
        name, float(mean[0]), [from_vector, from_inputs], [len(refits) - 1, df], n_units, level,
        f"mean over inputs; variance of {len(refits)} refitted vectors plus variance over {n_units} questions; "
        "Satterthwaite t", warnings,
    )  # fmt: skip


def from_disjoint_folds(
    folds: np.ndarray, *, questions: np.ndarray | None = None, level: float = 0.95, name: str = "mean gap"
) -> Estimate:
    """Mean over inputs and over vectors from disjoint training pairs, as two crossed random samples.

    Var = (MS_vector + MS_input − MS_residual) / (F n). The estimand is a vector trained on N / F pairs, not N. A cache
    holds such vectors where it was built with `controls.folds`. Where vectors err more than inputs, 95% intervals
    covered .91 with two folds and .93 with three; where they err less, .94 with five.

    Parameters
    ----------
    folds : array of shape (n_folds, n_inputs)
        Gaps (or slopes) under each fold's vector.
    questions : array of shape (n_inputs,), optional
        Twins are averaged within their question first, and questions then count equally.
    level : float
    name : str

    Raises
    ------
    CannotEstimate
        With fewer than two folds or two questions.

    Examples
    --------
    >>> from steerstats.generalization import from_disjoint_folds
    >>> from steerstats.simulate import SimulationTruth, simulate_unit
    >>> truth = SimulationTruth(datasets=["d"], mean_steerability=[1.0], n_folds=5, vector_sd=0.05)
    >>> data, _ = simulate_unit(truth, "d", seed=1)
    >>> folds = data.arrays["vector_kind"] == "fold"
    >>> at_plus_one = data.arrays["propensity"][0, folds, 5] - data.arrays["propensity"][0, folds, 3]
    >>> print(from_disjoint_folds(at_plus_one[:5], name="slope between multipliers 0 and 1"))
    slope between multipliers 0 and 1: 0.915 [0.693, 1.136] (n = 60)
    """
    check_level(level)
    folds = np.atleast_2d(floats(folds))
    sums, sizes = collapse(folds, questions)
    y = sums / sizes
    f, n = y.shape
    if f < 2 or n < 2:
        raise CannotEstimate(f"{f} folds and {n} questions; at least two of each are needed")
    grand = y.mean()
    by_fold, by_input = y.mean(axis=1), y.mean(axis=0)
    residual = y - by_fold[:, None] - by_input + grand
    ms = [n * by_fold.var(ddof=1), f * by_input.var(ddof=1), (residual**2).sum() / ((f - 1) * (n - 1))]
    warnings = []
    parts, dfs = [ms[0] / (f * n), ms[1] / (f * n), -ms[2] / (f * n)], [f - 1, n - 1, (f - 1) * (n - 1)]
    if sum(parts) < max(parts[:2]):
        # The subtraction may not take the variance below what either sample alone shows.
        keep = int(np.argmax(parts[:2]))
        parts, dfs = [parts[keep]], [dfs[keep]]
    if f < 5:
        warnings.append(f"only {f} folds" + (": 95% intervals covered 91% in simulation" if f == 2 else ""))
    return _estimate(
        name, float(grand), parts, dfs, n, level,
        f"mean over {f} vectors from disjoint pairs and {n} questions, crossed random effects, Satterthwaite t",
        warnings, ("the estimand is a vector from one fold's pairs, fewer than the full vector's",),
    )  # fmt: skip


def refit_variance(means: np.ndarray) -> float:
    """Variance of one cell's means over refits; refits that are one vector leave rounding in place of 0."""
    return float(means.var(ddof=1)) if varies(means, STORED) else 0.0


def refit_draws(means: np.ndarray, n_resamples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What another draw of training pairs would add to several cells' means, and how well that is known.

    Parameters
    ----------
    means : array of shape (n_refits, cells)
        Mean over inputs under each refit; refits are paired over cells.
    n_resamples : int
    rng : numpy.random.Generator

    Returns
    -------
    deviation : ndarray of shape (n_resamples, cells)
        One refit's deviation per resample, scaled to the unbiased variance.
    variance : ndarray of shape (n_resamples, cells)
        The refits' variance as a resample of them shows it, so that a t formed with it has heavy enough tails.
    """
    k = len(means)
    centred = (means - means.mean(axis=0)) * np.sqrt(k / (k - 1))
    centred[:, [not varies(column, STORED) for column in means.T]] = 0.0
    deviation = centred[rng.integers(0, k, n_resamples)]
    sums = resampled_sums(np.concatenate([centred, centred**2], axis=1), n_resamples, rng)
    first, second = np.split(sums / k, 2, axis=1)
    return deviation, np.maximum(second - first**2, 0.0)


def satterthwaite(parts: Sequence[float], dfs: Sequence[float], level: float) -> tuple[float, float]:
    """Standard error from the parts of a variance with their degrees of freedom, and half the width of the interval."""
    variance, weight = sum(parts), sum(part**2 / df for part, df in zip(parts, dfs))
    df = variance**2 / weight if weight > 0 else np.inf
    se = float(np.sqrt(variance))
    return se, float(stats.t.ppf((1 + level) / 2, df)) * se if se > 0 else 0.0


def _estimate(
    name: str,
    estimate: float,
    parts: list[float],
    dfs: list[float],
    n: int,
    level: float,
    method: str,
    warnings: list[str],
    assumptions: tuple[str, ...] = (),
) -> Estimate:
    if n < 2:
        low = high = se = float("nan")
        warnings = [*warnings, SINGLE]
    else:
        se, margin = satterthwaite(parts, dfs, level)
        low, high = estimate - margin, estimate + margin
        if without_width(estimate, se):
            warnings = [*warnings, FLAT]
    return Estimate(
        name=name,
        estimate=estimate,
        se=se,
        ci_low=low,
        ci_high=high,
        n=n,
        unit=SLOPE_UNIT,
        level=level,
        method=method,
        assumptions=(VECTOR_ERROR_IN, *assumptions),
        warnings=tuple(warnings),
    )


def _checked(values: np.ndarray, refits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, refits = floats(values), floats(refits)
    if values.ndim != 1 or refits.ndim != 2 or refits.shape[1] != len(values):
        raise InputError(
            f"values {values.shape} and refits {refits.shape}: (n_inputs,) and (n_refits, n_inputs) are needed"
        )
    if not (np.isfinite(values).all() and np.isfinite(refits).all()):
        raise InputError("values or refits hold NaN or infinite entries; drop the incomplete inputs first")
    return values, refits
