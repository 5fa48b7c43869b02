"""Does anything foretell steerability out of sample: ridge regression judged on datasets that it has not seen.

The unit is the dataset: folds, permutations and the bootstrap take datasets whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from steerstats.associations import FEW_DATASETS, check_columns
from steerstats.distribution import group_codes
from steerstats.errors import CannotEstimate, InputError, check_count, check_level
from steerstats.resampling import quantile_pair, resampled_sums
from steerstats.results import Result

ALPHAS = np.logspace(-3, 4, 15)


@dataclass(frozen=True, kw_only=True)
class CrossValidated(Result):
    """Ridge regression judged on datasets it has not seen.

    Parameters
    ----------
    r2, ci_low, ci_high : float
        1 − Σ(y − ŷ)²/Σ(y − mean of the training datasets)², each dataset weighing the same. Negative where the
        regression does worse than that mean. Interval: percentile over datasets, predictions as given.
    r2_within, within_low, within_high : float
        The same for what varies inside a dataset, both sides centred there; NaN with one row per dataset.
    p, p_within : float
        Share of permutations of whole datasets that reach the observed value (plus one).
    null, null_within : ndarray (n_permutations,)
        Their values.
    prediction : ndarray (n,)
        Held-out prediction of each row.
    coefficients : ndarray (k,)
        Mean over folds, per standard deviation of the predictor.
    predictors : tuple of str
    n, n_datasets, n_folds : int
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
    target: str = "slope",
    dataset: str = "dataset",
    category: str | None = None,
    n_folds: int = 5,
    n_permutations: int = 200,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> CrossValidated:
    """Ridge regression of steerability on the candidates, fitted on some datasets and judged on others.

    Works on inputs (many rows per dataset) and on datasets (one row each). Predictors are standardised and the
    penalty is chosen inside the training datasets by leave-one-out. The null deals whole blocks of outcomes to other
    datasets, rows shuffled inside (a block too short is repeated), and fits everything anew.

    Parameters
    ----------
    frame : DataFrame
        Rows with `dataset`, `target`, and the candidates, all finite.
    predictors : sequence of column names
    rng : numpy.random.Generator
        For permutations and the bootstrap.
    multipliers : array (m,)
        As in `within_dataset_associations`.
    category : str, optional
        Column of dataset categories: folds then never split one.
    n_folds : int
        At most the number of datasets (categories).

    Raises
    ------
    InputError
        If a column is missing or holds a value that is not finite.
    CannotEstimate
        With fewer than three datasets, or a target that does not vary.
    """
    level, n_folds = check_level(level), check_count("n_folds", n_folds, at_least=2)
    n_permutations, n_resamples = check_count("n_permutations", n_permutations), check_count("n_resamples", n_resamples)
    columns = [dataset, target, *predictors] + ([category] if category else [])
    check_columns(frame, columns, predictors, multipliers)
    x, y = frame[list(predictors)].to_numpy(dtype=float), frame[target].to_numpy(dtype=float)
    for name, values in zip([*predictors, target], [*x.T, y]):
        if not np.isfinite(values).all():
            raise InputError(f"column {name!r} is not finite at row {int(np.argmin(np.isfinite(values)))}")
    codes, d = group_codes(frame[dataset], len(frame))
    split = codes if category is None else group_codes(frame[category], len(frame))[0]
    folds = min(n_folds, int(split.max()) + 1)
    if d < 3 or folds < 2:
        raise CannotEstimate(f"{d} datasets in {int(split.max()) + 1} groups: cross-validation needs three datasets")
    if np.ptp(y) == 0:
        raise CannotEstimate(f"{target!r} does not vary: there is nothing to foretell")
    weights = 1 / np.bincount(codes)[codes]
    outcomes = np.column_stack([y, *(_deal(y, codes, d, rng) for _ in range(n_permutations))])
    prediction, baseline, coefficients = _held_out(x, outcomes, weights, split, folds)

    # (datasets, 4, 1 + permutations): weighted squared errors of model and of baseline, in all and inside datasets.
    inside = (_centred(outcomes - prediction, codes), _centred(outcomes, codes))
    pieces = [outcomes - prediction, outcomes - baseline, *inside]
    sums = np.stack([_sum_by(weights[:, None] * piece**2, codes, d) for piece in pieces], axis=1)
    total = sums.sum(axis=0)
    several = len(frame) > d
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = 1 - total[0] / total[1]
        within = 1 - total[2] / total[3] if several else np.full_like(r2, np.nan)
        drawn = resampled_sums(sums[:, :, 0], n_resamples, rng)
        draws = np.column_stack([1 - drawn[:, 0] / drawn[:, 1], 1 - drawn[:, 2] / drawn[:, 3]])
    low, high = quantile_pair(draws, level)
    if not several:
        low[1] = high[1] = np.nan
    warnings = [f"{d} datasets are fewer than {FEW_DATASETS}: a fit over them says little"] if d < FEW_DATASETS else []
    return CrossValidated(
        r2=float(r2[0]),
        ci_low=float(low[0]),
        ci_high=float(high[0]),
        r2_within=float(within[0]),
        within_low=float(low[1]),
        within_high=float(high[1]),
        p=_exceeding(r2),
        p_within=_exceeding(within) if several else float("nan"),
        null=r2[1:],
        null_within=within[1:],
        prediction=prediction[:, 0],
        coefficients=coefficients,
        predictors=tuple(predictors),
        n=len(frame),
        n_datasets=d,
        n_folds=folds,
        level=level,
        method=f"ridge, {folds}-fold cross-validation over {'categories' if category else 'datasets'} (GroupKFold), "
        f"equal weight per dataset; {n_permutations} permutations of whole datasets; percentile interval over datasets",
        assumptions=("datasets are exchangeable under the null", "predictions are taken as given in the interval"),
        warnings=tuple(warnings),
    )


def _held_out(
    x: np.ndarray, outcomes: np.ndarray, weights: np.ndarray, split: np.ndarray, folds: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    prediction, baseline = np.empty_like(outcomes), np.empty_like(outcomes)
    coefficients = np.zeros((folds, x.shape[1]))
    for k, (train, test) in enumerate(GroupKFold(folds).split(x, groups=split)):
        scaler = StandardScaler().fit(x[train], sample_weight=weights[train])
        baseline[test] = np.average(outcomes[train], axis=0, weights=weights[train])
        # All permutations share one decomposition of the predictors; in slices, for memory.
        for start in range(0, outcomes.shape[1], 64):
            part = slice(start, start + 64)
            model = RidgeCV(ALPHAS, alpha_per_target=True)
            model.fit(scaler.transform(x[train]), outcomes[train, part], sample_weight=weights[train])
            prediction[test, part] = model.predict(scaler.transform(x[test])).reshape(test.size, -1)
            if start == 0:
                coefficients[k] = np.atleast_2d(model.coef_)[0]
    return prediction, baseline, coefficients.mean(axis=0)


def _deal(y: np.ndarray, codes: np.ndarray, d: int, rng: np.random.Generator) -> np.ndarray:
    blocks = [y[codes == g] for g in range(d)]
    out = np.empty_like(y)
    for g, source in enumerate(rng.permutation(d)):
        rows = np.flatnonzero(codes == g)
        out[rows] = np.resize(rng.permutation(blocks[source]), rows.size)
    return out


def _centred(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    counts = np.bincount(codes)[:, None]
    return values - (_sum_by(values, codes, len(counts)) / counts)[codes]


def _sum_by(values: np.ndarray, codes: np.ndarray, d: int) -> np.ndarray:
    out = np.zeros((d, values.shape[1]))
    np.add.at(out, codes, values)
    return out


def _exceeding(values: np.ndarray) -> float:
    return float((1 + (values[1:] >= values[0] - 1e-12).sum()) / values.size)
