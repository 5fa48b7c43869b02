"""The smallest effect that a study of each size detects, from variance components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from steerstats.errors import CannotEstimate, InputError, check_count, check_level, how_many
from steerstats.power.components import TAU_LEVEL, EffectComponents
from steerstats.results import Result

REFITS = {
    "gap": "under both shifts of the gap (controls.shifts)",
    "difference": "under the shift (controls.shifts) in both caches",
}
NOTABLE = 1.25  # a range of effects that goes further from the estimate than by this factor is said in a warning


@dataclass(frozen=True, kw_only=True)
class PowerTable(Result):
    """Smallest detectable effect of each design.

    Parameters
    ----------
    n_inputs, n_datasets : ndarray of int, shape (n_designs,)
    n_pairs : ndarray of shape (n_designs,)
        Training pairs; NaN where the vector's own error is not known, and pairs do not enter.
    effect : ndarray of shape (n_designs,)
        Smallest true effect, away from 0 on either side, found with the given power, nats per unit multiplier.
    effect_low, effect_high : ndarray of shape (n_designs,)
        The same at the 95% limits of the variance between datasets, from which the estimate may be far where few
        datasets were fitted; NaN for one dataset, which that variance does not enter, and where they are unknown.
    se : ndarray of shape (n_designs,)
        Standard error of the estimated effect.
    df : ndarray of shape (n_designs,)
        Degrees of freedom of the t test.
    half_width : ndarray of shape (n_designs,)
        Half the width of an interval at level 1 − alpha, the root of its mean square over such studies.
    power, alpha : float
    includes_vector_error : bool
    about : tuple of str
        "this dataset" (one dataset; the variance between datasets is not in it) or "a mean over datasets".
    effect_of : str
        As of the components.
    """

    n_inputs: np.ndarray
    n_pairs: np.ndarray
    n_datasets: np.ndarray
    effect: np.ndarray
    effect_low: np.ndarray
    effect_high: np.ndarray
    se: np.ndarray
    df: np.ndarray
    half_width: np.ndarray
    power: float
    alpha: float
    includes_vector_error: bool
    about: tuple[str, ...]
    effect_of: str = ""

    def _notes(self) -> list[tuple[str, str]]:
        return [("Effect", self.effect_of)] * bool(self.effect_of) + super()._notes()

    def to_frame(self) -> pd.DataFrame:
        """One row per design."""
        names = ("n_inputs", "n_pairs", "n_datasets", "effect", "effect_low", "effect_high", "se", "df", "half_width")
        frame = pd.DataFrame({name: getattr(self, name) for name in names})
        frame = frame.assign(power=self.power, alpha=self.alpha, includes_vector_error=self.includes_vector_error)
        return frame.assign(about=list(self.about))


def smallest_detectable_effect(
    components: EffectComponents,
    *,
    n_inputs: int | Sequence[int],
    n_datasets: int | Sequence[int] = 1,
    n_pairs: int | Sequence[int] | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
) -> PowerTable:
    """Smallest effect that a two-sided t test detects with the given power, for every combination of sizes.

    SE² = (tau² + σ²_vector · N₀ / N + σ²_inputs / n) / D, t(D − 1): the power of the unweighted mean, and of the mean
    that `mean_over_datasets` quotes where datasets differ. Where they do not, that mean detects effects somewhat less
    often (.77 for .80 with 10 datasets), since its interval is floored where estimates agree by chance.

    One dataset says nothing about datasets in general: its test is about that dataset alone, tau² is left out, and the
    row says "this dataset" with a warning. That test is the one of `with_vector_error`: t with Satterthwaite's degrees
    of freedom from n − 1 for the inputs and K − 1 for the vector's variance over K refits, n − 1 where the vector's
    error is not in it. In simulation its power was .80 for .80 with ten refits, .77 with three. The vector's variance
    falls as 1 / N.

    Parameters
    ----------
    components : EffectComponents
    n_inputs, n_datasets : int or sequence of int
        Test questions per dataset, and datasets.
    n_pairs : int or sequence of int, optional
        Training pairs; those of the fitted study when left out.
    power, alpha : float

    Raises
    ------
    InputError
        If a size is not a whole number or too small, or `components` do not say how well a vector's error is known.
    CannotEstimate
        If several datasets are asked for and tau² is unknown.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.power import gap_components, smallest_detectable_effect
    >>> grid = steerstats.open_cache(steerstats.demo_cache()).grid()
    >>> components = gap_components(grid, "base->user_neg")
    >>> table = smallest_detectable_effect(components, n_inputs=[50, 5000], n_datasets=[10, 40])
    >>> table.to_frame()[["n_inputs", "n_datasets", "effect"]].round(3).values.tolist()  # datasets help, inputs do not
    [[50.0, 10.0, 0.067], [50.0, 40.0, 0.031], [5000.0, 10.0, 0.066], [5000.0, 40.0, 0.03]]
    """
    alpha, power = check_level(alpha, "alpha", such_as=0.05), check_level(power, "power", such_as=0.8)
    if not alpha < power:
        raise InputError(f"power {power} and alpha {alpha}: 0 < alpha < power < 1 is needed")
    known, kind = np.isfinite(components.of_vector), components.kind
    pairs = components.n_pairs if n_pairs is None else n_pairs
    if n_pairs is not None and not known:
        raise CannotEstimate(
            "the components hold no vector variance, so that n_pairs has no effect: it takes refitted vectors "
            f"(controls.resampled) {REFITS.get(components.kind, 'under its shift (controls.shifts)')}"
        )
    sizes = [
        _sizes("n_inputs", n_inputs, 2),
        _sizes("n_pairs", pairs, 1) if known else [0],
        _sizes("n_datasets", n_datasets, 1),
    ]
    if known and components.vector_df is None and min(sizes[2]) == 1:
        raise InputError("components.vector_df is None: how well one dataset knows its vector's error depends on it")
    if max(sizes[2]) > 1 and not np.isfinite(components.between_datasets):
        raise CannotEstimate(
            ("the components come from one dataset" if components.n == 1 else f"fewer than two {kind}s have an error")
            + f": the variance between datasets is unknown, and so is the {kind} that several could show; n_datasets=1 "
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
            df = variance**2 / (of_inputs**2 / (n - 1) + of_vector**2 / components.vector_df)
        se, needed = np.sqrt(variance / d), noncentrality(df, power, alpha)
        limits = (components.between_low, components.between_high) if d > 1 else (np.nan, np.nan)
        ends = [needed * np.sqrt((of_inputs + of_vector + tau2) / d) for tau2 in limits]
        rows.append((n, pair, d, needed * se, se, df, *ends))
    inputs, pairs, datasets, effect, se, df, low, high = (np.array(column) for column in zip(*rows))
    assumptions = ["components of the next study equal those fitted"]
    assumptions += ["the vector's variance falls as 1 / pairs"] * bool(known)
    assumptions += components.assumptions
    warnings = list(components.warnings)
    if min(sizes[2]) == 1:
        assumptions.append(
            f"one dataset: the {kind} is that of this dataset, the variance between datasets is left out"
        )
        warnings.append(f"with one dataset the {kind} is about this dataset only, not about datasets in general")
    if components.between_low == 0 and max(sizes[2]) > 1:
        warnings.append(
            f"datasets may not differ at all: where they do not, the true {kind} lies below its range in half of "
            "studies, by a few per cent, as the variance between inputs is an estimate too"
        )
    wide = np.flatnonzero((high > NOTABLE * effect) | (low < effect / NOTABLE))
    if wide.size:
        k = wide[0]
        ends = " to ".join(f"{np.sqrt(limit):.2g}" for limit in (components.between_low, components.between_high))
        warnings.append(
            f"the spread between datasets is an estimate from {components.n} of them, {TAU_LEVEL:.0%} interval {ends}: "
            f"over this range the {kind} of {effect[k]:.2g} ({inputs[k]} inputs, {how_many(datasets[k], 'dataset')}) "
            f"runs from {low[k]:.2g} to {high[k]:.2g}"
        )
    return PowerTable(
        n_inputs=inputs,
        n_pairs=pairs if known else np.full(len(rows), np.nan),
        n_datasets=datasets,
        effect=effect,
        effect_low=low,
        effect_high=high,
        se=se,
        df=df,
        half_width=stats.t.ppf(1 - alpha / 2, df) * se,
        power=power,
        alpha=alpha,
        includes_vector_error=bool(known),
        about=tuple("a mean over datasets" if d > 1 else "this dataset" for d in datasets),
        effect_of=components.effect_of,
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
    >>> [round(noncentrality(df), 2) for df in (4, 39, 499)]  # standard errors that an effect needs for a power of .8
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
