"""Which layer to steer: the best one of a sweep, by a stated rule, with how sure that is.

The rule is the highest mean steerability over datasets (each dataset counts once) on validation inputs; under operator
ablate, where a vector is taken out and not put in, the lowest: the layer whose removal lowers propensity most. The best
of many noisy means is too good on average, so the choice carries the share of resamples that agree with it, and the
layers that the data cannot tell from it, on these datasets and on others like them; its size has to be judged on the
test split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.stats import norm as normal
from scipy.stats import t as student

from steerstats.errors import CacheError, CannotEstimate, InputError, check_level, check_resamples, check_rng
from steerstats.operators import ABLATE, ADD
from steerstats.resampling import collapse, resampled_sums
from steerstats.resampling.seeds import NamedStreams
from steerstats.rounding import floats
from steerstats.study.headlines import UNIT, Headlined, number, share, with_limits

RULE = "the layer with the highest mean steerability over datasets, each counting once, on validation inputs"
RULE_ABLATE = (
    "operator ablate: the layer at which taking the vector's direction out lowers propensity most, the one with the "
    "lowest mean slope over datasets, each counting once, on validation inputs"
)
ONE_LAYER = "mean steerability over datasets, each counting once, on validation inputs, at the one layer that was tried"
CHOSEN = (
    "intervals, shares and layers not told apart here are about these datasets and take the vectors as given",
    "for other datasets: these are independent draws, and differences between layers roughly normal",
    "the best of several looks better than it is, and its interval does not allow for that: judge it on test inputs",
)
GIVEN = ("the interval is about these datasets and takes the vectors as given",)  # of one layer

FEW_QUESTIONS = 10


@dataclass(frozen=True, kw_only=True)
class LayerChoice(Headlined):
    """The chosen layer and the profile it was chosen from.

    Parameters
    ----------
    layers : ndarray (n_layers,)
    mean : ndarray (n_layers,)
        Mean steerability over datasets, nats per unit multiplier.
    ci_low, ci_high : ndarray (n_layers,)
        Student interval of each mean; questions vary within these datasets.
    share : ndarray (n_layers,)
        Share of resamples in which the layer is the best; sums to 1.
    behind, behind_low, behind_high : ndarray (n_layers,)
        How far each layer is behind the chosen one, paired by input, with its simultaneous interval (max-|t| over
        all pairs of layers, so that it holds although the data chose the winner). 0 for the chosen one. How far below
        it, and under operator ablate how far above it.
    chosen : int
    rivals : tuple of int
        Layers whose interval of `behind` holds 0: with the chosen one they hold the best layer for these datasets at
        the stated level.
    p_best : ndarray (n_layers,)
        p of the hypothesis that the layer is the best one over all datasets such as these (each one's mean, vector
        error included, is one observation): a one-sided paired t of the chosen against it, times the number of other
        layers. 1 for the chosen one; NaN with one dataset.
    contenders : tuple of int
        Layers that this does not rule out: with the chosen one they hold the best layer for datasets such as these at
        the stated level. Empty with one dataset, whose `p_best` is NaN.
    n_datasets, n_inputs : int
    level : float
        Of all intervals.
    operator : str
        How the vectors act. Under "ablate" the best layer is that with the lowest mean.
    """

    layers: np.ndarray
    mean: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    share: np.ndarray
    behind: np.ndarray
    behind_low: np.ndarray
    behind_high: np.ndarray
    chosen: int
    rivals: tuple[int, ...]
    p_best: np.ndarray
    contenders: tuple[int, ...]
    n_datasets: int
    n_inputs: int
    level: float = 0.95
    operator: str = ADD

    PARTS: ClassVar[Mapping[str, str]] = {
        "chosen": "the layer; .rivals and .contenders are those that could be as good, here and elsewhere",
        "to_frame()": "all of it, one row a layer",
    }

    def to_frame(self) -> pd.DataFrame:
        """One row a layer."""
        names = ["mean", "ci_low", "ci_high", "share", "behind", "behind_low", "behind_high", "p_best"]
        frame = pd.DataFrame({"layer": self.layers, **{name: getattr(self, name) for name in names}})
        return frame.assign(chosen=self.layers == self.chosen, n=self.n_datasets)

    @property
    def alone(self) -> bool:
        """Whether one layer was all there was, so that nothing was chosen."""
        return len(self.layers) == 1

    def doubts(self) -> str:
        """Which other layers could be the best, here and elsewhere; to be said after the choice. "" without others."""
        if self.alone:
            return ""
        here = f"; not told apart from it here: {_runs(self.layers, self.rivals)}" if self.rivals else ""
        if self.n_datasets == 1:
            return here
        elsewhere = f"{here}; on datasets such as these, at {self.level:.0%}, "
        if not self.contenders:
            return f"{elsewhere}no other layer could be as good"
        if len(self.contenders) == len(self.layers) - 1:
            return f"{elsewhere}any layer could be as good"
        return f"{elsewhere}as good could be: {_runs(self.layers, self.contenders)}"

    def sections(self) -> list[tuple[str, pd.DataFrame]]:
        """The choice in a sentence, then one row a layer."""
        best = int(np.flatnonzero(self.layers == self.chosen)[0])
        title = f"Layer {self.chosen}: {number(self.mean[best])} {UNIT}"
        if self.alone:
            title += "; no other layer was tried, and none was chosen"
        else:
            title += f", best in {share(self.share[best])} of resamples of these datasets' questions, the vectors as "
            title += f"given{self.doubts()}"
        if self.operator == ABLATE and not self.alone:
            title += ". Operator ablate: best is lowest, where taking the direction out lowers propensity most"
        behind = [
            "chosen" if layer == self.chosen else with_limits(*row)
            for layer, row in zip(self.layers, np.transpose([self.behind, self.behind_low, self.behind_high]))
        ]
        # A report's interval is for other datasets such as these, and wider.
        which = "these datasets" if self.n_datasets > 1 else "this dataset"
        table = {
            "layer": [str(layer) for layer in self.layers],
            f"mean, {which} [{self.level:.0%}]": [
                with_limits(*row) for row in np.transpose([self.mean, self.ci_low, self.ci_high])
            ],
            "best in": [share(one) for one in self.share],
            f"behind [{self.level:.0%}, all at once]": behind,
        }
        return [(title, pd.DataFrame(table))]


def choose_layer(
    slopes: Mapping[str, np.ndarray],
    layers: np.ndarray,
    *,
    rng: np.random.Generator,
    questions: Mapping[str, np.ndarray] | None = None,
    n_resamples: int = 4000,
    level: float = 0.95,
    operator: str = ADD,
) -> LayerChoice:
    """Choose the layer with the highest mean steerability, under operator ablate that with the lowest.

    Parameters
    ----------
    slopes : mapping of dataset to ndarray (n_layers, n_inputs)
        Per-input steerability, nats per unit multiplier.
    layers : ndarray (n_layers,)
    rng : numpy.random.Generator
        One child for each dataset.
    questions : mapping of dataset to ndarray (n_inputs,), optional
        Units of resampling, where inputs share them.
    n_resamples : int
    level : float
    operator : str
        How the vectors act, as the spec of the build names it.

    Raises
    ------
    InputError
        If shapes disagree, a layer stands twice, a dataset's questions are missing or a slope is not finite.
    CannotEstimate
        If a dataset has fewer than two questions: its error cannot be estimated.

    Examples
    --------
    >>> import numpy as np, steerstats
    >>> rng = np.random.default_rng(0)
    >>> slopes = {"kindness": np.array([[0.2], [0.9], [0.4]]) + rng.normal(scale=0.1, size=(3, 40))}
    >>> steerstats.choose_layer(slopes, np.array([8, 12, 16]), rng=rng).chosen
    12
    """
    level, n_resamples = check_level(level), check_resamples(n_resamples)
    check_rng(rng)
    layers = np.asarray(layers)
    if layers.ndim != 1 or not len(layers):
        raise InputError(f"layers have shape {layers.shape}; they should be (n_layers,), one at least")
    named, times = np.unique(layers, return_counts=True)
    if times.max() > 1:
        raise InputError(f"layers name {named[times.argmax()]} twice; each stands once")
    if not slopes:
        raise InputError("no dataset to choose a layer on")
    lacking = [] if questions is None else [name for name in slopes if name not in questions]
    if lacking:
        raise InputError(f"questions of dataset {lacking[0]} are missing")
    means, draws, freedom, n_inputs = [], [], [], 0
    for (name, values), stream in zip(slopes.items(), rng.spawn(len(slopes))):
        values = floats(values)
        if values.ndim != 2 or len(values) != len(layers):
            raise InputError(
                f"dataset {name}: slopes have shape {values.shape}; they should be ({len(layers)}, inputs)"
            )
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            raise InputError(f"dataset {name}: the slope of input {column} at layer {layers[row]} is not finite")
        sums, sizes = collapse(values, None if questions is None else questions[name])
        if len(sizes) < 2:
            raise CannotEstimate(f"dataset {name} has one question; a bootstrap needs two at least")
        drawn = resampled_sums(np.column_stack([sums.T, sizes]), n_resamples, stream)
        means.append(values.mean(axis=1))
        # A bootstrap's variance is (n - 1)/n of an unbiased one, half of it with two questions.
        wider = np.sqrt(len(sizes) / (len(sizes) - 1))
        draws.append(means[-1] + wider * (drawn[:, :-1] / drawn[:, -1:] - means[-1]))
        freedom.append(len(sizes) - 1)
        n_inputs += values.shape[1]
    mean, resampled = np.mean(means, axis=0), np.mean(draws, axis=0)
    df = _freedom(draws, freedom)
    sign, rule = (-1, RULE_ABLATE) if operator == ABLATE else (1, RULE)
    best = int((sign * mean).argmax())
    half = student.ppf((1 + level) / 2, df) * resampled.std(axis=0, ddof=1)
    winners = np.bincount((sign * resampled).argmax(axis=1), minlength=len(layers)) / n_resamples
    behind = sign * (mean[best] - mean)
    se = (resampled[:, [best]] - resampled).std(axis=0, ddof=1)
    # The same tail of a t as of the normal that the resamples follow: the errors themselves are estimated.
    reach = float(student.isf(normal.sf(_reach(mean, resampled, level)), df))
    p_best = _could_be_best(np.array(means), best, sign)
    inside = (behind - reach * se <= 0) & (np.arange(len(layers)) != best)
    elsewhere = f"; on others: paired t({len(slopes) - 1}) over datasets, p times {len(layers) - 1} (Bonferroni)"
    what, assumptions = "intervals and the layers not told apart assume", CHOSEN
    if len(layers) == 1:
        rule, elsewhere, what, assumptions = ONE_LAYER, "", "the interval assumes", GIVEN
    warnings = [] if winners[best] >= 0.5 else [f"only {winners[best]:.0%} of resamples agree with the choice"]
    if min(freedom) < FEW_QUESTIONS - 1:
        warnings.append(f"datasets of {min(freedom) + 1} questions: {what} roughly normal slopes")
    if operator == ABLATE and mean[best] >= 0:
        warnings.append("at no layer does taking the direction out lower propensity")
    return LayerChoice(
        layers=layers,
        mean=mean,
        ci_low=mean - half,
        ci_high=mean + half,
        share=winners,
        behind=behind,
        behind_low=behind - reach * se,
        behind_high=behind + reach * se,
        chosen=int(layers[best]),
        rivals=tuple(int(layer) for layer in layers[inside]),
        p_best=p_best,
        contenders=tuple(int(layer) for layer in layers[(p_best > 1 - level) & (np.arange(len(layers)) != best)]),
        n_datasets=len(slopes),
        n_inputs=n_inputs,
        level=level,
        operator=operator,
        method=f"{rule}; {n_resamples} resamples of questions within these datasets, limits by t({df:.3g})"
        + elsewhere * (len(slopes) > 1),
        numbers={"n_resamples": n_resamples},
        assumptions=assumptions,
        warnings=tuple(warnings),
    )


def _could_be_best(means: np.ndarray, best: int, sign: int) -> np.ndarray:
    """p of "this layer is the best over all such datasets", for every layer; `means` is (n_datasets, n_layers).

    The true best is ruled out only where a layer that is no better beats it in a t test; n_layers - 1 could, so by
    Bonferroni it happens at no more than the level, whichever of them the data chose (selecting a subset that holds
    the best, Gupta 1965). All pairs at once, which bands need, would cost far more here.
    """
    n_datasets, n_layers = means.shape
    if n_datasets < 2:
        return np.full(n_layers, np.nan)
    lead = sign * (means[:, [best]] - means)
    mean, se = lead.mean(axis=0), lead.std(axis=0, ddof=1) / np.sqrt(n_datasets)
    # A lead that is the same in every dataset, to rounding, is a lead beyond doubt, and one of zero is none.
    t = np.divide(mean, se, out=np.where(mean > 0, np.inf, 0.0), where=se > 1e-12 * np.abs(means).max())
    p = np.minimum(1.0, max(n_layers - 1, 1) * student.sf(t, n_datasets - 1))
    p[best] = 1.0
    return p


def _runs(layers: np.ndarray, some: tuple[int, ...]) -> str:
    """Layers as "layers 8, 12 to 15": three or more that are neighbours in the sweep are one stretch."""
    places = np.flatnonzero(np.isin(layers, some))
    words = []
    for one in np.split(layers[places], np.flatnonzero(np.diff(places) > 1) + 1):
        words += [f"{one[0]} to {one[-1]}"] if len(one) > 2 else [str(layer) for layer in one]
    return f"layer{'s' * (len(some) > 1)} {', '.join(words)}"


def _freedom(draws: list[np.ndarray], freedom: list[int]) -> float:
    """Degrees of freedom of the mean's variance over datasets (Welch 1947), the least of all layers."""
    variance = np.array([one.var(axis=0, ddof=1) for one in draws])
    with np.errstate(invalid="ignore", divide="ignore"):
        df = variance.sum(axis=0) ** 2 / (variance**2 / np.array(freedom)[:, None]).sum(axis=0)
    return float(np.min(df, where=np.isfinite(df), initial=sum(freedom)))


def _reach(mean: np.ndarray, resampled: np.ndarray, level: float) -> float:
    """Quantile of the largest |t| over all pairs of layers.

    Over all pairs, not over those with the winner: the winner is chosen by the data, and only bands that hold for
    every pair at once hold for the ones that the data picked (multiple comparisons with the best, Hsu 1984).
    """
    largest = np.zeros(len(resampled))
    for first in range(len(mean) - 1):
        spread = resampled[:, [first]] - resampled[:, first + 1 :]
        se = spread.std(axis=0, ddof=1)
        error = np.abs(spread - (mean[first] - mean[first + 1 :]))
        t = np.divide(error, se, out=np.zeros_like(error), where=se > 0)
        largest = np.maximum(largest, t.max(axis=1))
    return float(np.quantile(largest, level))


def choose_sweep_layer(path: object, *, seed: int = 0) -> LayerChoice:
    """`choose_layer` on a sweep's cache, over all its datasets in the base setting.

    Raises
    ------
    CacheError
        If the cache is no sweep.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.sweeps import choose_sweep_layer
    >>> try:
    ...     choose_sweep_layer(steerstats.demo_cache())
    ... except steerstats.CacheError as error:
    ...     print(str(error).partition("cache.h5 ")[2])
    is a cache of kind grid; a layer is chosen on a sweep (`steerstats sweep`)
    """
    from steerstats.study import open_cache

    study = open_cache(path)
    if study.kind != "sweep":
        raise CacheError(f"{path} is a cache of kind {study.kind}; a layer is chosen on a sweep (`steerstats sweep`)")
    layers = np.unique(study.units[study.datasets[0]].unit.read("vector_layer"))
    at_layer = [open_cache(path, layer=int(layer)) for layer in layers]
    slopes = {name: np.stack([one.slopes(name).at("base->base") for one in at_layer]) for name in study.datasets}
    questions = {name: unit.question for name, unit in study.units.items()}
    if len(study.operators) > 1:
        raise CacheError(
            f"{path} holds the operators {', '.join(study.operators)}; no one rule chooses a layer for all"
        )
    rng = NamedStreams(seed, "layer choice", study.datasets)
    return choose_layer(slopes, layers, questions=questions, rng=rng, operator=study.operators[0])
