"""How small a gap could this study have seen? And how many inputs, pairs or datasets would the next one need?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from steerstats.errors import CannotEstimate, InputError, check_count, check_level, how_many
from steerstats.generalization.slopes import ID_SHIFT, Shift, SlopeGrid, parse_shift, shift_name
from steerstats.generalization.vector_error import refit_variance
from steerstats.meta import FEW_UNITS
from steerstats.random_effects import q_profile, reml_tau2
from steerstats.resampling import mean_covariance
from steerstats.results import Result

TAU_LEVEL = 0.95
NOTABLE = 1.25  # a range of gaps that goes further from the estimate than by this factor is said in a warning


@dataclass(frozen=True, kw_only=True)
class GapComponents(Result):
    """Where the variance of an estimated gap comes from.

    Parameters
    ----------
    between_datasets : float
        Variance of the true gap over datasets (tau²), in (nats per unit multiplier)².
    between_low, between_high : float
        Its 95% limits (Q-profile); NaN when unknown.
    between_inputs : float
        Variance of the gap over questions of a dataset, averaged over datasets.
    of_vector : float
        Sampling variance of a vector from `n_pairs` training pairs, averaged over datasets; NaN when unknown.
    n_pairs : int or None
        Training pairs behind `of_vector`.
    n_refits : int or None
        Refitted vectors behind `of_vector`, the fewest of any dataset: one less are the degrees of freedom with which
        a study of one dataset knows its vector's error.
    n : int
        Datasets the components were fitted on.
    gap_of : str
        Which gap it is, "base->base minus base->user_neg"; "" where that was not said.
    """

    between_datasets: float
    between_low: float = float("nan")
    between_high: float = float("nan")
    between_inputs: float
    of_vector: float = float("nan")
    n_pairs: int | None = None
    n_refits: int | None = None
    n: int
    gap_of: str = ""

    def to_frame(self) -> pd.DataFrame:
        """One row per component."""
        rows = [
            ("between datasets", self.between_datasets),
            ("between inputs", self.between_inputs),
            ("of the vector", self.of_vector),
        ]
        frame = pd.DataFrame(rows, columns=["component", "variance"])
        frame["ci_low"], frame["ci_high"] = [self.between_low, np.nan, np.nan], [self.between_high, np.nan, np.nan]
        return frame.assign(sd=np.sqrt(frame["variance"]), n=self.n, n_pairs=self.n_pairs, n_refits=self.n_refits)


@dataclass(frozen=True, kw_only=True)
class PowerTable(Result):
    """Smallest detectable gap of each design.

    Parameters
    ----------
    n_inputs, n_datasets : ndarray of int, shape (n_designs,)
    n_pairs : ndarray of shape (n_designs,)
        Training pairs; NaN where the vector's own error is not known, and pairs do not enter.
    gap : ndarray of shape (n_designs,)
        Smallest true mean gap found with the given power, nats per unit multiplier.
    gap_low, gap_high : ndarray of shape (n_designs,)
        The same at the 95% limits of the variance between datasets, from which the estimate may be far where few
        datasets were fitted; NaN for one dataset, which that variance does not enter, and where they are unknown.
    se : ndarray of shape (n_designs,)
        Standard error of the estimated mean gap.
    df : ndarray of shape (n_designs,)
        Degrees of freedom of the t test.
    power, alpha : float
    includes_vector_error : bool
    about : tuple of str
        "this dataset" (one dataset; the variance between datasets is not in it) or "a mean over datasets".
    gap_of : str
        As of the components.
    """

    n_inputs: np.ndarray
    n_pairs: np.ndarray
    n_datasets: np.ndarray
    gap: np.ndarray
    gap_low: np.ndarray
    gap_high: np.ndarray
    se: np.ndarray
    df: np.ndarray
    power: float
    alpha: float
    includes_vector_error: bool
    about: tuple[str, ...]
    gap_of: str = ""

    def _notes(self) -> list[tuple[str, str]]:
        return [("Gap", self.gap_of)] * bool(self.gap_of) + super()._notes()

    def to_frame(self) -> pd.DataFrame:
        """One row per design."""
        names = ("n_inputs", "n_pairs", "n_datasets", "gap", "gap_low", "gap_high", "se", "df")
        frame = pd.DataFrame({name: getattr(self, name) for name in names})
        frame = frame.assign(power=self.power, alpha=self.alpha, includes_vector_error=self.includes_vector_error)
        return frame.assign(about=list(self.about))


def fit_components(
    grid: SlopeGrid,
    shift: Shift | str,
    *,
    n_pairs: int | None = None,
    reference: Shift = ID_SHIFT,
    why_no_refits: str = "no refitted vectors",
) -> GapComponents:
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
        If no dataset has two questions.
    InputError
        If there are refits and `n_pairs` is missing, or the shift is the reference.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.power import fit_components
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> found = fit_components(study.grid(), "base->user_neg")
    >>> found.to_frame().set_index("component")["sd"].round(3).to_dict()
    {'between datasets': 0.067, 'between inputs': 0.066, 'of the vector': nan}
    """
    shift = parse_shift(shift)
    if shift == tuple(reference):
        raise InputError(f"{shift_name(shift)} is the reference itself and has no gap; ask about another shift")
    if grid.refits is not None and n_pairs is None:
        raise InputError("n_pairs is needed with refits: the vector's variance is that of so many training pairs")
    n_pairs = None if n_pairs is None else check_count("n_pairs", n_pairs)
    rows = []
    for name in grid.datasets:
        cells = grid.cells(name, [reference, shift])
        mean, covariance, n_units = mean_covariance(cells.slopes[0] - cells.slopes[1], cells.question)
        if n_units < 2:
            continue
        # A grid may hold refits of some datasets and cells only.
        apart = np.empty(0) if cells.refits is None else (cells.refits[:, 0] - cells.refits[:, 1]).mean(axis=1)
        apart = apart[np.isfinite(apart)]
        vector = refit_variance(apart) if len(apart) > 1 else np.nan
        rows.append((name, n_units, mean[0], covariance[0, 0], vector, len(apart)))
    if not rows:
        raise CannotEstimate("no dataset has two questions; the variance between inputs is unknown")
    names, *columns = zip(*rows)
    units, means, errors, of_vector, refits = map(np.array, columns)
    measured = np.isfinite(of_vector)
    typical = float(of_vector[measured].mean()) if measured.any() else float("nan")
    squared_errors = errors + np.where(measured, of_vector, np.nan_to_num(typical))
    # As in a mean over datasets: a gap without error would have all of the weight.
    usable = squared_errors > 0
    many, found = usable.sum() > 1, (means[usable], squared_errors[usable])
    warnings = []
    if not usable.all():
        still = ", ".join(name for name, use in zip(names, usable) if not use)
        warnings.append(f"every question has the same gap in {still}: left out of the variance between datasets")
    if measured.any() and not measured.all():
        warnings.append(
            f"the vector's variance is known in {measured.sum()} of {len(means)} datasets; the others get its mean"
        )
    if len(means) < 5:
        warnings.append(f"only {how_many(len(means), 'dataset')}: the variance between datasets is poorly known")
    if (few := (units < FEW_UNITS).sum()) and many:
        warnings.append(
            f"{few} of {len(units)} datasets have fewer than {FEW_UNITS} questions (the fewest: {min(units)}), and the "
            "variance between datasets takes their uncertain standard errors as known: with 10 datasets of 4, 6 and 10 "
            "questions its 95% limits held the truth 69-86%, 83-90% and 89-95% of the time in simulation, most often "
            "where datasets differ most, and the range of gaps at these limits 66-86%, 82-90% and 90-95%, else lying "
            "mostly above it"
        )
    if not measured.any():
        where = "not in it, and a gap is a lower bound" if len(means) == 1 else "counted as difference between datasets"
        warnings.append(f"{why_no_refits}: the vector's own error is {where}")
    low, high = q_profile(*found, TAU_LEVEL) if many else (float("nan"), float("nan"))
    gap_of = f"{shift_name(reference)} minus {shift_name(shift)}"
    return GapComponents(
        between_datasets=reml_tau2(*found) if many else float("nan"),
        between_low=low,
        between_high=high,
        between_inputs=float(np.mean(errors * units)),
        of_vector=typical,
        n_pairs=n_pairs if measured.any() else None,
        n_refits=int(refits[measured].min()) if measured.any() else None,
        n=len(means),
        gap_of=gap_of,
        method=f"gap {gap_of}: REML between datasets (Q-profile limits), mean "
        "sample variance between questions, mean variance over refitted vectors",
        warnings=tuple(warnings),
    )


def smallest_detectable_gap(
    components: GapComponents,
    *,
    n_inputs: int | Sequence[int],
    n_datasets: int | Sequence[int] = 1,
    n_pairs: int | Sequence[int] | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
) -> PowerTable:
    """Smallest mean gap that a two-sided t test detects with the given power, for every combination of sizes.

    SE² = (tau² + σ²_vector · N₀ / N + σ²_inputs / n) / D, t(D − 1): the power of the unweighted mean, and of the mean
    that `mean_over_datasets` quotes where datasets differ. Where they do not, that mean detects gaps somewhat less
    often (.77 for .80 with 10 datasets), since its interval is floored where estimates agree by chance.

    One dataset says nothing about datasets in general: its test is about that dataset alone, tau² is left out, and the
    row says "this dataset" with a warning. That test is the one of `with_vector_error`: t with Satterthwaite's degrees
    of freedom from n − 1 for the inputs and K − 1 for the vector's variance over K refits, n − 1 where the vector's
    error is not in it. In simulation its power was .80 for .80 with ten refits, .77 with three. The vector's variance
    falls as 1 / N.

    Parameters
    ----------
    components : GapComponents
    n_inputs, n_datasets : int or sequence of int
        Test questions per dataset, and datasets.
    n_pairs : int or sequence of int, optional
        Training pairs; those of the fitted study when left out.
    power, alpha : float

    Raises
    ------
    InputError
        If a size is not a whole number or too small, or `components` do not say how many refits are behind them.
    CannotEstimate
        If several datasets are asked for and tau² is unknown.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.power import fit_components, smallest_detectable_gap
    >>> grid = steerstats.open_cache(steerstats.demo_cache()).grid()
    >>> components = fit_components(grid, "base->user_neg")
    >>> table = smallest_detectable_gap(components, n_inputs=[50, 5000], n_datasets=[10, 40])
    >>> table.to_frame()[["n_inputs", "n_datasets", "gap"]].round(3).values.tolist()  # datasets help, inputs do not
    [[50.0, 10.0, 0.067], [50.0, 40.0, 0.031], [5000.0, 10.0, 0.066], [5000.0, 40.0, 0.03]]
    """
    alpha, power = check_level(alpha, "alpha", such_as=0.05), check_level(power, "power", such_as=0.8)
    if not alpha < power:
        raise InputError(f"power {power} and alpha {alpha}: 0 < alpha < power < 1 is needed")
    known = np.isfinite(components.of_vector)
    pairs = components.n_pairs if n_pairs is None else n_pairs
    if n_pairs is not None and not known:
        raise CannotEstimate(
            "the components hold no vector variance, so that n_pairs has no effect: it takes refitted vectors "
            "(controls.resampled) under both shifts of the gap (controls.shifts)"
        )
    sizes = [
        _sizes("n_inputs", n_inputs, 2),
        _sizes("n_pairs", pairs, 1) if known else [0],
        _sizes("n_datasets", n_datasets, 1),
    ]
    if known and components.n_refits is None and min(sizes[2]) == 1:
        raise InputError("components.n_refits is None: how well one dataset knows its vector's error depends on it")
    if max(sizes[2]) > 1 and not np.isfinite(components.between_datasets):
        raise CannotEstimate(
            ("the components come from one dataset" if components.n == 1 else "fewer than two gaps have an error")
            + ": the variance between datasets is unknown, and so is the gap that several could show; n_datasets=1 "
            "asks about this dataset alone"
        )
    rows = []
    for n, pair, d in product(*sizes):
        of_inputs = components.between_inputs / n
        of_vector = components.of_vector * components.n_pairs / pair if known else 0.0
        variance, df = of_inputs + of_vector, n - 1.0
        if d > 1:
            variance, df = variance + components.between_datasets, d - 1.0
        elif of_vector > 0:
            df = variance**2 / (of_inputs**2 / (n - 1) + of_vector**2 / (components.n_refits - 1))
        se, needed = np.sqrt(variance / d), noncentrality(df, power, alpha)
        limits = (components.between_low, components.between_high) if d > 1 else (np.nan, np.nan)
        ends = [needed * np.sqrt((of_inputs + of_vector + tau2) / d) for tau2 in limits]
        rows.append((n, pair, d, needed * se, se, df, *ends))
    inputs, pairs, datasets, gap, se, df, low, high = (np.array(column) for column in zip(*rows))
    assumptions = ["components of the next study equal those fitted"]
    assumptions += ["the vector's variance falls as 1 / pairs"] * bool(known)
    warnings = list(components.warnings)
    if min(sizes[2]) == 1:
        assumptions.append("one dataset: the gap is that of this dataset, the variance between datasets is left out")
        warnings.append("with one dataset the gap is about this dataset only, not about datasets in general")
    if components.between_low == 0 and max(sizes[2]) > 1:
        warnings.append(
            "datasets may not differ at all: where they do not, the true gap lies below its range in half of studies, "
            "by a few per cent, as the variance between inputs is an estimate too"
        )
    wide = np.flatnonzero((high > NOTABLE * gap) | (low < gap / NOTABLE))
    if wide.size:
        k = wide[0]
        ends = " to ".join(f"{np.sqrt(limit):.2g}" for limit in (components.between_low, components.between_high))
        warnings.append(
            f"the spread between datasets is an estimate from {components.n} of them, {TAU_LEVEL:.0%} interval {ends}: "
            f"over this range the gap of {gap[k]:.2g} ({inputs[k]} inputs, {how_many(datasets[k], 'dataset')}) runs "
            f"from {low[k]:.2g} to {high[k]:.2g}"
        )
    return PowerTable(
        n_inputs=inputs,
        n_pairs=pairs if known else np.full(len(rows), np.nan),
        n_datasets=datasets,
        gap=gap,
        gap_low=low,
        gap_high=high,
        se=se,
        df=df,
        power=power,
        alpha=alpha,
        includes_vector_error=bool(known),
        about=tuple("a mean over datasets" if d > 1 else "this dataset" for d in datasets),
        gap_of=components.gap_of,
        method=f"two-sided t test at {alpha:g} with power {power:g}, noncentral t, from fitted variance components",
        numbers={"alpha": alpha, "power": power},
        assumptions=tuple(assumptions),
        warnings=tuple(warnings),
    )


def _sizes(name: str, values: int | Sequence[int], at_least: int) -> list[int]:
    several = np.atleast_1d(np.asarray(values, dtype=object)).ravel().tolist()
    if not several:
        raise InputError(f"{name} is empty; at least one size is needed")
    return [check_count(name, value, at_least=at_least) for value in several]


def noncentrality(df: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """Noncentrality at which a two-sided t test with `df` degrees of freedom has the given power.

    Examples
    --------
    >>> from steerstats.power import noncentrality
    >>> [round(noncentrality(df), 2) for df in (4, 39, 499)]  # standard errors that a gap needs for a power of .8
    [3.76, 2.87, 2.81]
    """
    # P(|T| > c) as the mean of a normal probability over the chi distribution, by the trapezoid rule on the normal
    # scale of that distribution: scipy 1.17's noncentral t is NaN for some of the df and shifts needed here.
    z = np.linspace(-8.2, 8.2, 401)
    weights = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    squares = np.where(z < 0, stats.chi2.ppf(special.ndtr(z), df), stats.chi2.isf(special.ndtr(-z), df))
    critical = np.sqrt(squares / df) * stats.t.ppf(1 - alpha / 2, df)

    def excess(shift: float) -> float:
        return float(weights @ (special.ndtr(shift - critical) + special.ndtr(-shift - critical)) - power)

    top = 4.0
    while excess(top) < 0:
        top *= 2
    return float(optimize.brentq(excess, 0.0, top, xtol=1e-10))
