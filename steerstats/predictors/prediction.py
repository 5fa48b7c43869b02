"""Does anything predict steerability out of sample: ridge regression judged on datasets that it has not seen.

The unit is the dataset, or its category where categories are given: folds (those that choose the penalty, too),
permutations and the bootstrap take units whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product

import numpy as np
import pandas as pd
from sklearn.model_selection import LeaveOneGroupOut

from steerstats.errors import CannotEstimate, InputError, check_count, check_level, check_resamples, how_many
from steerstats.predictors.associations import check_columns
from steerstats.resampling import quantile_pair, resampled_sums
from steerstats.resampling.permutation import other_signs
from steerstats.resampling.questions import group_codes
from steerstats.resampling.ranks import MIN_FOR_INTERVAL
from steerstats.resampling.units import MIN_FOR_P, deal, deals, few_units
from steerstats.results import Result
from steerstats.rounding import varies

ALPHAS = np.logspace(-3, 4, 15)
MOST_FOLDS = 60  # so that fits without two of them stay below 1,800
MIN_FOR_R2 = 100
"""Units from which on a held-out R² has an interval: by percentile it is far too short with a few dozen of them."""
MIN_FOR_SIGNS = 6  # units: the signs of five can be turned in 32 ways, and all turned may fit as well as none turned
FEW_SIGNS = 2 ** (MIN_FOR_SIGNS - 1) - 1  # so many are always looked at, however few permutations are asked for


@dataclass(frozen=True, kw_only=True)
class CrossValidated(Result):
    """Ridge regression judged on datasets it has not seen.

    Parameters
    ----------
    r2, ci_low, ci_high : float
        1 − Σ(y − ŷ)²/Σ(y − mean of the training datasets)², each dataset weighing the same. Negative where the
        regression does worse than that mean. Interval: percentile over datasets (categories), predictions as given;
        NaN with fewer than 100, where it covers far less than it says and `p` is what to read.
    r2_within, within_low, within_high : float
        The same for what varies inside a dataset, both sides centred there; NaN where nothing does.
    p, p_within : float
        Share of rearrangements under the null that reach the observed value, which is one of them; NaN with fewer
        than four datasets (categories). `p`: means of whole datasets (categories) are dealt to others, and what varies
        inside keeps its place and gets a random sign, one for each dataset (category). `p_within`: the signs alone.
    null, null_within : ndarray
        The values of the others: drawn, `n_permutations` of them, or each once where there are no more.
    prediction : ndarray (n,)
        Held-out prediction of each row.
    coefficients : ndarray (k,)
        Mean over folds, per standard deviation of the predictor.
    alphas : ndarray (n_folds,)
        Penalty chosen in each fold, on predictors of unit variance and datasets of weight 1.
    predictors : tuple of str
    n, n_datasets, n_folds : int
        A fold is one dataset (category), or several where there are more than 60.
    """

    r2: float
    ci_low: float
    ci_high: float
    r2_within: float
    within_low: float
    within_high: float
    p: float
    p_within: float
    null: np.ndarray
    null_within: np.ndarray
    prediction: np.ndarray
    coefficients: np.ndarray
    alphas: np.ndarray
    predictors: tuple[str, ...]
    n: int
    n_datasets: int
    n_folds: int
    level: float = 0.95

    def to_frame(self) -> pd.DataFrame:
        """Two rows: over everything, and inside datasets."""
        return pd.DataFrame(
            {
                "part": ["all", "within datasets"],
                "r2": [self.r2, self.r2_within],
                "ci_low": [self.ci_low, self.within_low],
                "ci_high": [self.ci_high, self.within_high],
                "p": [self.p, self.p_within],
                "n": self.n,
                "n_datasets": self.n_datasets,
            }
        )


def cross_validated_ridge(
    frame: pd.DataFrame,
    predictors: Sequence[str],
    *,
    rng: np.random.Generator,
    multipliers: np.ndarray | None = None,
    category: str | None = None,
    n_permutations: int = 200,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> CrossValidated:
    """Ridge regression of steerability on the candidates, each dataset (category) judged by a fit to all others.

    Works on inputs (many rows per dataset) and on datasets (one row each). Predictors are standardised and the
    penalty is chosen inside the training datasets, leaving whole datasets (categories) out in turn again: inputs of a
    dataset share its level, and leaving single ones out would choose a penalty that fits that level. A few folds of
    several datasets would make R² and p depend on how datasets are grouped, by more than their errors: with 40
    datasets R² ran from -.36 to .06 over their orders. The null gives mean
    outcomes to other datasets (whole categories, their datasets shuffled inside: `deal`), flips the sign of what
    varies inside whole datasets (categories), and refits everything. That is exact where candidate and slope are
    related with either sign equally often over datasets, however strongly, and however alike the inputs of a question
    are; shuffling rows would instead test independence inside every dataset.

    Parameters
    ----------
    frame : DataFrame
        Rows with `dataset`, `slope`, and the candidates, all finite.
    predictors : sequence of column names
    rng : numpy.random.Generator
        For permutations and the bootstrap.
    multipliers : array (m,)
        As in `within_dataset_associations`.
    category : str, optional
        Column of dataset categories: they are then what folds, permutations and the interval take whole.

    Raises
    ------
    InputError
        If a column is missing or holds a value that is not finite.
    CannotEstimate
        With fewer than three datasets, or a target that does not vary.

    Examples
    --------
    >>> import numpy as np, pandas as pd, steerstats
    >>> from steerstats.predictors import cross_validated_ridge
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> units = [study.unit(name).unit for name in study.datasets]
    >>> frame = pd.concat([steerstats.slopes_frame(unit, setting_eval="base", vector="base") for unit in units])
    >>> names, grid = ["unsteered", "pos_is_a"], study.unit(study.datasets[0]).multipliers
    >>> fit = cross_validated_ridge(frame, names, multipliers=grid, rng=np.random.default_rng(0), n_permutations=19)
    >>> abs(round(fit.r2, 3)), fit.p  # no better than the mean of the other datasets
    (0.0, 0.4)
    """
    level = check_level(level)
    n_permutations = check_count("n_permutations", n_permutations)
    n_resamples = check_resamples(n_resamples)
    columns = ["dataset", "slope", *predictors] + ([category] if category else [])
    check_columns(frame, columns, predictors, multipliers)
    x, y = frame[list(predictors)].to_numpy(dtype=float), frame["slope"].to_numpy(dtype=float)
    for name, values in zip([*predictors, "slope"], [*x.T, y]):
        if not np.isfinite(values).all():
            raise InputError(f"column {name!r} is not finite at row {int(np.argmin(np.isfinite(values)))}")
    codes, d = group_codes(frame["dataset"], len(frame))
    split = codes if category is None else group_codes(frame[category], len(frame))[0]
    family = split[np.unique(codes, return_index=True)[1]]  # unit of each dataset
    if (family[codes] != split).any():
        torn = frame["dataset"].iloc[int(np.argmax(family[codes] != split))]
        raise InputError(f"dataset {torn} has several values of {category!r}; a dataset belongs to one")
    units, what = int(family.max()) + 1, "datasets" if category is None else "categories"
    if d < 3 or units < 2:
        there = f"{how_many(d, 'dataset')} in {how_many(units, 'group')}"
        raise CannotEstimate(f"{there}: cross-validation needs three datasets")
    if not varies(y):
        raise CannotEstimate("'slope' does not vary: there is nothing to predict")
    x = x * [varies(column) for column in x.T]  # rounding is not scaled to unit variance
    weights = 1 / np.bincount(codes)[codes]
    several = len(frame) > d
    # Where nothing varies inside any dataset what centring leaves is rounding, of which no share can be predicted.
    inside_known = several and bool((np.abs(_centred(y[:, None], codes)) > 1e-12 * np.abs(y).max()).any())
    # Columns: the data, then the null of `p`, then (with several rows per dataset) that of `p_within`.
    outcomes, n_null = _rearranged(y, codes, family, several, n_permutations, rng)
    prediction, baseline, coefficients, alphas = _held_out(x, outcomes, weights, codes, family)

    # (datasets, 4, columns): weighted squared errors of model and of baseline, in all and inside datasets.
    inside = (_centred(outcomes - prediction, codes), _centred(outcomes, codes))
    pieces = [outcomes - prediction, outcomes - baseline, *inside]
    sums = np.stack([_sum_by(weights[:, None] * piece**2, codes, d) for piece in pieces], axis=1)
    total = sums.sum(axis=0)
    warnings = []
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = 1 - total[0, : n_null + 1] / total[1, : n_null + 1]
        own = np.r_[0, n_null + 1 : total.shape[1]]
        within = 1 - total[2, own] / total[3, own] if inside_known else np.full_like(r2, np.nan)
    (low, high), limits = np.full((2, 2), np.nan), f"no interval of R² below {MIN_FOR_R2} {what}"
    if units >= MIN_FOR_R2:
        drawn = resampled_sums(_sum_by(sums[:, :, 0], family, units), n_resamples, rng)
        with np.errstate(divide="ignore", invalid="ignore"):
            draws = np.column_stack([1 - drawn[:, 0] / drawn[:, 1], 1 - drawn[:, 2] / drawn[:, 3]])
        (low, high), limits = quantile_pair(draws, level), f"percentile interval over {what}"
    if not inside_known:
        low[1] = high[1] = np.nan
    if several and not inside_known:
        warnings.append("'slope' does not vary inside any dataset: no R² there")
    if units < MIN_FOR_INTERVAL:
        warnings.append(f"{few_units(units, what)} say little about a fit over them")
    told = units >= MIN_FOR_P
    if not told:
        warnings.append(f"{units} {what} can be arranged in {math.factorial(units)} ways only: no p-value")
    elif several and units < MIN_FOR_SIGNS:
        warnings.append(
            f"{units} {what}: p inside datasets cannot fall below {0.5**units:.2g}, since signs can be flipped in "
            f"{2**units} ways only"
        )
    if np.isnan(alphas).any():
        warnings.append(f"{int(np.isnan(alphas).sum())} folds have one training dataset: no penalty, the mean is used")
    return CrossValidated(
        r2=float(r2[0]),
        ci_low=float(low[0]),
        ci_high=float(high[0]),
        r2_within=float(within[0]),
        within_low=float(low[1]),
        within_high=float(high[1]),
        p=_exceeding(r2) if told else float("nan"),
        p_within=_exceeding(within) if told and inside_known else float("nan"),
        null=r2[1:],
        null_within=within[1:],
        prediction=prediction[:, 0],
        coefficients=coefficients,
        alphas=alphas,
        predictors=tuple(predictors),
        n=len(frame),
        n_datasets=d,
        n_folds=alphas.size,
        level=level,
        method=f"ridge, {what} held out {'one at a time' if units <= MOST_FOLDS else f'in {MOST_FOLDS} folds'}, "
        f"penalty chosen by leaving out {what} among the rest, equal weight per dataset; {n_null} permutations of "
        f"whole {what}{f' (means exchanged, signs inside flipped by whole {what})' * several}; {limits}",
        assumptions=(
            f"{what} are exchangeable under the null"
            + (", and a relation inside them has either sign equally often" if several else ""),
            "predictions are taken as given in the interval",
        ),
        warnings=tuple(warnings),
    )


class _Sums:
    """Cross-products of every dataset, from which any set of datasets is fitted and judged without its rows.

    `gram` (d, 1 + k, 1 + k), `cross` (d, 1 + k, t) and `square` (d, t) are of the weighted [1, x] and outcomes.
    """

    def __init__(self, x: np.ndarray, outcomes: np.ndarray, weights: np.ndarray, codes: np.ndarray) -> None:
        d = int(codes.max()) + 1
        z = np.column_stack([np.ones(len(x)), x])
        self.gram, self.cross = np.empty((d, z.shape[1], z.shape[1])), np.empty((d, z.shape[1], outcomes.shape[1]))
        self.square = np.empty((d, outcomes.shape[1]))
        for g in range(d):
            rows = np.flatnonzero(codes == g)
            own, weighted = z[rows], z[rows] * weights[rows, None]
            self.gram[g], self.cross[g] = weighted.T @ own, weighted.T @ outcomes[rows]
            self.square[g] = weights[rows] @ outcomes[rows] ** 2
        self.total = self.gram.sum(axis=0), self.cross.sum(axis=0)
        self.smallest = 1e-12 * np.diag(self.total[0])[1:]

    def without(self, left_out: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Intercepts and slopes (alphas, 1 + k, t) of standardised ridge, the mean outcome (t,), the scales (k,)."""
        gram, cross = (whole - part[left_out].sum(axis=0) for whole, part in zip(self.total, (self.gram, self.cross)))
        total = gram[0, 0]
        mean_x, mean_y = gram[0, 1:] / total, cross[0] / total
        within = gram[1:, 1:] - total * np.outer(mean_x, mean_x)
        # A predictor that is constant here is not used.
        scale = np.where(np.diag(within) > self.smallest, np.sqrt(np.maximum(np.diag(within), 0) / total), np.inf)
        values, vectors = np.linalg.eigh(within / np.outer(scale, scale))
        rotated = vectors.T @ ((cross[1:] - total * np.outer(mean_x, mean_y)) / scale[:, None])
        shrunken = rotated / (np.maximum(values, 0)[:, None] + ALPHAS[:, None, None])
        slopes = (vectors @ shrunken) / scale[:, None]
        intercepts = mean_y - np.einsum("k,akt->at", mean_x, slopes)
        return np.concatenate([intercepts[:, None], slopes], axis=1), mean_y, scale

    def loss(self, datasets: np.ndarray, fitted: np.ndarray) -> np.ndarray:
        """Weighted squared error (alphas, t) of fits on datasets."""
        gram, cross = self.gram[datasets].sum(axis=0), self.cross[datasets].sum(axis=0)
        return self.square[datasets].sum(axis=0) + (fitted * (gram @ fitted - 2 * cross)).sum(axis=1)


def _held_out(
    x: np.ndarray, outcomes: np.ndarray, weights: np.ndarray, codes: np.ndarray, family: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Predictions and training means (n, t), coefficients (k,) and penalties (folds,) of the first outcome."""
    prediction, baseline = np.empty_like(outcomes), np.empty_like(outcomes)
    # Cross-products of centred numbers lose no digits to a large mean.
    x, middle = x - x.mean(axis=0), outcomes[:, 0].mean()
    z, sums = np.column_stack([np.ones(len(x)), x]), _Sums(x, outcomes - middle, weights, codes)
    fold = _folds(x, codes, family)
    losses = _losses(sums, fold)
    coefficients, alphas = np.zeros((len(losses), x.shape[1])), np.full(len(losses), np.nan)
    for k, (_, test) in enumerate(LeaveOneGroupOut().split(x, groups=fold[codes])):
        loss = losses[k]
        fitted, mean, scale = sums.without(fold == k)
        baseline[test] = mean + middle
        if loss is None:
            prediction[test] = baseline[test]
            continue
        chosen = np.argmin(loss, axis=0)
        best = np.take_along_axis(fitted, chosen[None, None, :], axis=0)[0]
        prediction[test] = z[test] @ best + middle
        coefficients[k], alphas[k] = best[1:, 0] * np.where(np.isinf(scale), 0, scale), ALPHAS[chosen[0]]
    return prediction, baseline, coefficients.mean(axis=0), alphas


def _folds(x: np.ndarray, codes: np.ndarray, family: np.ndarray) -> np.ndarray:
    """Fold (d,) of each dataset: its unit, which no order of the datasets and no name can change.

    Of more units than `MOST_FOLDS`, those go together that stand so many places apart in the order of their predictors,
    which the null leaves as they are.
    """
    units = int(family.max()) + 1
    if units <= MOST_FOLDS:
        return family
    mean = _sum_by(x, family[codes], units) / np.bincount(family[codes])[:, None]
    fold = np.empty(units, dtype=int)
    fold[np.lexsort(mean.T[::-1])] = np.arange(units) % MOST_FOLDS
    return fold[family]


def _losses(sums: _Sums, fold: np.ndarray) -> list[np.ndarray | None]:
    """For each fold, the error (alphas, t) on every other one in turn of what was fitted to the rest.

    A fit without two folds judges either of them for the other. Where training is one fold, its datasets take turns;
    None where it is one dataset.
    """
    folds = int(fold.max()) + 1
    if folds > 2:
        losses = [0.0] * folds
        for a, b in combinations(range(folds), 2):
            fitted = sums.without((fold == a) | (fold == b))[0]
            losses[a], losses[b] = losses[a] + sums.loss(fold == b, fitted), losses[b] + sums.loss(fold == a, fitted)
        return losses
    found: list[np.ndarray | None] = []
    for k in range(folds):
        inside, place = np.flatnonzero(fold != k), np.arange(fold.size)
        parts = [sums.loss(place == g, sums.without((fold == k) | (place == g))[0]) for g in inside if len(inside) > 1]
        found.append(np.sum(parts, axis=0) if parts else None)
    return found


def _rearranged(
    y: np.ndarray, codes: np.ndarray, family: np.ndarray, several: bool, times: int, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """The outcome as it is, with means dealt, and (with `several` rows) with signs turned alone: columns of (n, ...).

    Also how many of the columns are of the second kind. Where there are no more arrangements than `times` each is
    there once.
    """
    units = int(family.max()) + 1
    if not several:
        dealt = deals(family, times, rng)
        return np.column_stack([y, y[np.argsort(codes)][dealt].T[codes]]), len(dealt)
    inside = _centred(y[:, None], codes)
    means = _sum_by(y[:, None], codes, len(family))[:, 0] / np.bincount(codes)
    if units == len(family) and units <= 20 and math.factorial(units) * 2**units - 1 <= times:
        both = list(product(permutations(range(units)), product([1.0, -1.0], repeat=units)))[1:]
        dealt, turned = (np.array(part) for part in zip(*both))
        dealt, alone = dealt[:, family], other_signs(units, times)
    else:
        dealt = np.stack([deal(family, rng) for _ in range(times)])
        turned, alone = np.split(rng.choice([-1.0, 1.0], size=(2 * times, units)), 2)
        every = other_signs(units, max(times, FEW_SIGNS))
        alone = alone if every is None else every
    turned, alone = turned[:, family[codes]].T, alone[:, family[codes]].T
    kept = (y[:, None] - inside) + inside * alone
    return np.column_stack([y, means[dealt].T[codes] + inside * turned, kept]), len(dealt)


def _centred(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    counts = np.bincount(codes)[:, None]
    return values - (_sum_by(values, codes, len(counts)) / counts)[codes]


def _sum_by(values: np.ndarray, codes: np.ndarray, d: int) -> np.ndarray:
    out = np.zeros((d, values.shape[1]))
    np.add.at(out, codes, values)
    return out


def _exceeding(values: np.ndarray) -> float:
    return float((1 + (values[1:] >= values[0] - 1e-12).sum()) / values.size)
