"""Does a vector transfer worse between prompts that move the unsteered model further? Figure 7, and what drives it.

x = mean_i |m_i^eval(0) − m_i^train(0)|, y = s(train->eval) / |s(eval->eval)|, kept where s(eval->eval) > 0.25. The
original includes self-pairs, whose x is exactly 0 and y exactly 1; they alone induce a negative correlation.
Its "mean" vector is excluded, having no prompt of its own.

Pairs of one dataset are far from independent, so intervals jackknife whole datasets: t(D − 1) on Fisher's scale. With
25 datasets of 20 pairs and nothing to find, Spearman's missed zero in 4-5% of studies, a percentile interval over
datasets in 7-8%, and one over pairs in 26-48%. Pearson's correlation of ratios, which have heavy tails, keeps its level
less well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from steerstats.errors import CannotEstimate, InputError, check_level, how_many
from steerstats.generalization.slopes import SlopeGrid
from steerstats.resampling import correlation_of
from steerstats.resampling.ranks import MIN_FOR_INTERVAL
from steerstats.results import Result
from steerstats.rounding import floats

PUBLISHED_THRESHOLD = 0.25
VECTORS_RESAMPLED = (
    "each dataset comes with a vector of its own, so intervals, from the spread between datasets, include the vectors' "
    "own sampling error; the correlation is that of observed values, which error of vectors and inputs attenuates"
)


@dataclass(frozen=True, kw_only=True)
class PropensityShift(Result):
    """Points of figure 7 and their correlations under several definitions.

    Parameters
    ----------
    dataset, train, evaluate : ndarray of str, shape (n_points,)
    propensity_difference : ndarray of shape (n_points,)
        x, in nats.
    ratio : ndarray of shape (n_points,)
        y, relative steerability over |s(eval->eval)|.
    loss : ndarray of shape (n_points,)
        s(eval->eval) − s(train->eval), nats per unit multiplier.
    own : ndarray of shape (n_points,)
        s(eval->eval), nats per unit multiplier.
    self_pair : ndarray of bool, shape (n_points,)
    definition : tuple of str
        "original", "without self-pairs", "without self-pairs, threshold 0", "transfer loss", ...
    kind : tuple of str
        "spearman" or "pearson".
    estimate, ci_low, ci_high : ndarray of shape (n_rows,)
        Jackknife of whole datasets, t interval on Fisher's scale.
        NaN with fewer than eight contributing datasets, or where leaving one out gives ±1 or no correlation.
    n_points, n_datasets : ndarray of shape (n_rows,)
        (train, eval) pairs behind each row, and the datasets they come from.
    n : int
        Datasets of the grid, whether they contribute or not.
    level : float
    """

    dataset: np.ndarray
    train: np.ndarray
    evaluate: np.ndarray
    propensity_difference: np.ndarray
    ratio: np.ndarray
    loss: np.ndarray
    own: np.ndarray
    self_pair: np.ndarray
    definition: tuple[str, ...]
    kind: tuple[str, ...]
    estimate: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    n_points: np.ndarray
    n_datasets: np.ndarray
    n: int
    level: float

    def to_frame(self) -> pd.DataFrame:
        """One row per definition and kind of correlation; `n` counts the datasets that contribute to it."""
        names = ("definition", "kind", "estimate", "ci_low", "ci_high", "n_points")
        frame = pd.DataFrame({name: list(getattr(self, name)) for name in names})
        return frame.assign(n=self.n_datasets, level=self.level)

    def points(self) -> pd.DataFrame:
        """One row per dataset and (train, eval) pair."""
        names = ("dataset", "train", "evaluate", "propensity_difference", "ratio", "loss", "own", "self_pair")
        return pd.DataFrame({name: getattr(self, name) for name in names})


def propensity_shift(
    grid: SlopeGrid,
    *,
    threshold: float = PUBLISHED_THRESHOLD,
    other_thresholds: Sequence[float] = (0.0, 0.5),
    level: float = 0.95,
) -> PropensityShift:
    """Correlate the unsteered difference between two prompts with what a vector loses between them.

    Parameters
    ----------
    grid : SlopeGrid
        With `unsteered`. Training settings that are not evaluation settings ("mean") are left out.
    threshold : float
        Least s(eval->eval) for a ratio, nats per unit multiplier.
    other_thresholds : sequence of float
        Shown beside it, without self-pairs.
    level : float

    Returns
    -------
    PropensityShift
        Whole datasets are left out in turn: pairs of one dataset are far from independent.

    Raises
    ------
    InputError
        If the grid holds no unsteered propensities.
    CannotEstimate
        If no setting is both a training and an evaluation setting.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.generalization import propensity_shift
    >>> found = propensity_shift(steerstats.open_cache(steerstats.demo_cache()).grid()).to_frame()
    >>> found.query("kind == 'spearman'").set_index("definition")["estimate"].round(2)[["original", "transfer loss"]]
    definition
    original        -0.58
    transfer loss    0.49
    Name: estimate, dtype: float64
    """
    check_level(level)
    if grid.unsteered is None:
        raise InputError("the grid has no unsteered propensities m(0); figure 7 needs them")
    settings = [name for name in grid.train if name in grid.evaluate]
    if not settings:
        raise CannotEstimate("no setting is both a training and an evaluation setting")
    points = _points(grid, settings)
    if not points:
        raise CannotEstimate("no (train, eval) pair was evaluated together with eval->eval")
    dataset, train, evaluate, x, shifted, own = (np.array(column) for column in zip(*points))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = shifted / np.abs(own)
    loss, same = own - shifted, train == evaluate
    definitions = [("original", ratio, own > threshold), ("without self-pairs", ratio, (own > threshold) & ~same)]
    for other in other_thresholds:
        definitions.append((f"without self-pairs, threshold {other:g}", ratio, (own > other) & ~same))
    definitions += [("transfer loss", loss, ~same), ("transfer loss with self-pairs", loss, np.full(len(x), True))]
    rows, warnings, n = [], [], len(grid.datasets)
    if n < MIN_FOR_INTERVAL:
        warnings.append(f"{how_many(n, 'dataset')}, fewer than {MIN_FOR_INTERVAL}: no interval is given")
    for name, y, keep in definitions:
        for kind in ("spearman", "pearson"):
            estimate, low, high = float("nan"), float("nan"), float("nan")
            clusters = np.unique(dataset[keep])
            if keep.sum() > 1:
                estimate = float(correlation_of(x[keep], y[keep], kind=kind))
            if len(clusters) >= MIN_FOR_INTERVAL:
                low, high = jackknife_limits(x[keep], y[keep], dataset[keep], kind, level)
                if not np.isfinite(low):
                    warnings.append(f"{name}, {kind}: leaving one dataset out gives ±1 or no correlation; no interval")
            elif kind == "spearman" and n >= MIN_FOR_INTERVAL:
                had = f"only {len(clusters)} of {n} datasets contribute"
                warnings.append(f"{name}: {had}, fewer than {MIN_FOR_INTERVAL}; no interval")
            rows.append((name, kind, estimate, low, high, int(keep.sum()), len(clusters)))
    definition, kind, *numbers = zip(*rows)
    return PropensityShift(
        dataset=dataset,
        train=train,
        evaluate=evaluate,
        propensity_difference=x,
        ratio=ratio,
        loss=loss,
        own=own,
        self_pair=same,
        definition=definition,
        kind=kind,
        **dict(zip(("estimate", "ci_low", "ci_high", "n_points", "n_datasets"), map(np.array, numbers))),
        n=n,
        level=level,
        method=f"correlation over (train, eval) pairs; ratios where s(eval->eval) > {threshold:g} unless said; "
        "jackknife of whole datasets, t(D - 1) interval on Fisher's scale",
        numbers={"threshold": threshold},
        assumptions=("datasets are independent draws from one population", VECTORS_RESAMPLED),
        warnings=tuple(warnings),
    )


def jackknife_limits(x: np.ndarray, y: np.ndarray, dataset: np.ndarray, kind: str, level: float) -> tuple[float, float]:
    """t interval of a correlation over pairs, whole datasets left out in turn; NaN where one is ±1 or undefined."""
    names = np.unique(dataset)
    d = len(names)
    left = [correlation_of(x[dataset != name], y[dataset != name], kind=kind) for name in names]
    values = np.array([correlation_of(x, y, kind=kind), *left])
    if not (np.abs(values) < 1 - 1e-12).all():
        return float("nan"), float("nan")
    centre, *without = np.arctanh(values)
    margin = stats.t.ppf((1 + level) / 2, d - 1) * (d - 1) / np.sqrt(d) * np.std(without, ddof=1)
    return float(np.tanh(centre - margin)), float(np.tanh(centre + margin))


def _points(grid: SlopeGrid, settings: Sequence[str]) -> list[tuple]:
    points = []
    for name in grid.datasets:
        resting = floats(grid.unsteered[name])
        for a in settings:
            for b in settings:
                if not (grid.has((a, b), name) and grid.has((b, b), name)):
                    continue
                cells = grid.cells(name, [(a, b), (b, b)])
                at = [resting[grid.evaluate.index(setting)] for setting in (a, b)]
                use = cells.complete & np.isfinite(at).all(axis=0)
                if use.any():
                    kept = cells.slopes[:, use[cells.complete]].mean(axis=1)
                    points.append((name, a, b, np.abs(at[1] - at[0])[use].mean(), kept[0], kept[1]))
    return points
