"""Does a candidate rank inputs or datasets as steerability does: Spearman over datasets, and inside them.

The unit is the dataset: bootstrapped and permuted whole over datasets, averaged over datasets inside them. Braun et
al. (arXiv 2505.22637) report .76 and .71 for the mean cosine and d′; Bas and Novak (arXiv 2511.18284) find no such
relation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from steerstats.errors import CannotEstimate, InputError, check_count, check_level
from steerstats.grid import require_symmetric
from steerstats.resampling import bootstrap_correlation, quantile_pair, spearman
from steerstats.results import Result

FEW_DATASETS = 8
PUBLISHED = {"mean_cosine": 0.76, "d_prime": 0.71}  # Braun et al., Llama-2-7b


@dataclass(frozen=True, kw_only=True)
class RankAssociations(Result):
    """Rank correlation of each candidate with steerability.

    Parameters
    ----------
    predictors : tuple of str, length k
    rho, ci_low, ci_high, p : ndarray (k,)
        Spearman correlation (over datasets, or inside datasets and averaged), its interval, and a two-sided p-value.
    p_family : ndarray (k,)
        p-value of the largest |ρ| among the candidates under the same permutations; NaN where not permuted.
    published : ndarray (k,)
        The value of Braun et al. where there is one.
    n_datasets : ndarray (k,)
        Datasets in which the correlation is defined.
    """

    predictors: tuple[str, ...]
    rho: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    p: np.ndarray
    p_family: np.ndarray
    published: np.ndarray
    n_datasets: np.ndarray
    level: float = 0.95

    def to_frame(self) -> pd.DataFrame:
        """One row per candidate."""
        names = ["rho", "ci_low", "ci_high", "p", "p_family", "published", "n_datasets"]
        return pd.DataFrame({"predictor": self.predictors} | {name: getattr(self, name) for name in names})


def dataset_associations(
    predictors: pd.DataFrame,
    steerability: np.ndarray,
    *,
    rng: np.random.Generator,
    category: Sequence | None = None,
    n_resamples: int = 5000,
    n_permutations: int = 5000,
    level: float = 0.95,
) -> RankAssociations:
    """Spearman correlation over datasets of each candidate with mean steerability.

    Parameters
    ----------
    predictors : DataFrame (D rows, k candidates)
        One row per dataset; a missing value leaves that dataset out of that candidate.
    steerability : array (D,)
        Mean steerability, nats per unit multiplier.
    rng : numpy.random.Generator
    category : sequence (D,), optional
        Categories are bootstrapped whole.

    Returns
    -------
    RankAssociations
        Percentile interval over datasets; permutation p-values, single-step over the candidates.

    Raises
    ------
    CannotEstimate
        With fewer than four datasets.
    """
    level, n_resamples = check_level(level), check_count("n_resamples", n_resamples)
    n_permutations = check_count("n_permutations", n_permutations)
    y = np.asarray(steerability, dtype=float)
    x = predictors.to_numpy(dtype=float)
    if y.ndim != 1 or x.shape[0] != y.size or not np.isfinite(y).all():
        raise InputError(f"{x.shape[0]} rows of predictors for steerability of shape {y.shape}; one finite number each")
    if np.isinf(x).any():
        raise InputError(f"predictor {predictors.columns[int(np.isinf(x).any(axis=0).argmax())]!r} is infinite")
    if y.size < 4:
        raise CannotEstimate(f"{y.size} datasets: a correlation over datasets needs at least four")
    names = tuple(map(str, predictors.columns))
    cluster = None if category is None else np.asarray(list(category))
    k = len(names)
    rho, low, high = np.full((3, k), np.nan)
    used = ~np.isnan(x)
    permuted = rng.permuted(np.broadcast_to(y, (n_permutations, y.size)), axis=1)
    null = np.full((n_permutations, k), np.nan)
    warnings = []
    for j, name in enumerate(names):
        rows = used[:, j]
        n = int(rows.sum())
        if n < 4 or np.ptp(x[rows, j]) == 0:
            warnings.append(f"{name} is constant or known for {n} datasets only: no correlation")
            continue
        rho[j] = spearman(x[rows, j], y[rows])
        own = None if cluster is None else cluster[rows]
        draws = bootstrap_correlation(x[rows, j], y[rows], rng=rng, n_resamples=n_resamples, cluster=own)
        # An undefined resample (all datasets tied) could have been anything a correlation can be.
        low[j], high[j] = np.clip(np.ravel(quantile_pair(draws[:, None], level)), -1, 1)
        null[:, j] = spearman(np.broadcast_to(x[rows, j], (n_permutations, n)), permuted[:, rows])
        if n < FEW_DATASETS:
            warnings.append(f"{name}: {n} datasets are fewer than {FEW_DATASETS}, the interval says little")
    size = np.abs(np.nan_to_num(null))
    top = size.max(axis=1)
    undefined = np.isnan(rho)
    p, p_family = (
        np.where(undefined, np.nan, (1 + (stat >= np.abs(rho) - 1e-12).sum(axis=0)) / (n_permutations + 1))
        for stat in (size, top[:, None])
    )
    return RankAssociations(
        predictors=names,
        rho=rho,
        ci_low=low,
        ci_high=high,
        p=p,
        p_family=p_family,
        published=np.array([PUBLISHED.get(name, np.nan) for name in names]),
        n_datasets=used.sum(axis=0),
        level=level,
        method=f"Spearman over datasets; percentile interval, {n_resamples} resamples of "
        f"{'datasets' if category is None else 'categories'}; {n_permutations} permutations of datasets",
        assumptions=("datasets are independent" if category is None else "categories are independent",),
        warnings=tuple(warnings),
    )


def within_dataset_associations(
    frame: pd.DataFrame,
    predictors: Sequence[str],
    *,
    multipliers: np.ndarray | None = None,
    target: str = "slope",
    dataset: str = "dataset",
    level: float = 0.95,
) -> RankAssociations:
    """Spearman correlation of each per-input candidate with the slope, inside each dataset, averaged over them.

    Parameters
    ----------
    frame : DataFrame
        One row per input with columns `dataset`, `slope` and the candidates; undefined factors are NaN.
    predictors : sequence of column names
        Such as `projection`, `unsteered`, `pos_is_a`.
    multipliers : array (m,)
        The grid; needed, and needed symmetric, where `unsteered` is a candidate.

    Returns
    -------
    RankAssociations
        Mean over datasets with a t(D − 1) interval, and the p-value of that t.

    Raises
    ------
    InputError
        If a column is missing, or `unsteered` comes without multipliers.
    CannotEstimate
        If `unsteered` is a candidate on an asymmetric grid.
    """
    level = check_level(level)
    check_columns(frame, [dataset, target, *predictors], predictors, multipliers)
    k, few = len(predictors), []
    mean, low, high, p = np.full((4, k), np.nan)
    counts = np.zeros(k, dtype=int)
    blocks = [block for _, block in frame.groupby(dataset, sort=False)]
    for j, name in enumerate(predictors):
        rhos = []
        for block in blocks:
            pair = block[[name, target]].astype(float).dropna().to_numpy()
            if len(pair) >= 3:
                rhos.append(float(spearman(pair[:, 0], pair[:, 1])))
        rhos = np.array([value for value in rhos if np.isfinite(value)])
        counts[j] = d = rhos.size
        if d < len(blocks):
            few.append(f"{name} varies with the slope in {d} of {len(blocks)} datasets")
        if d == 0:
            continue
        mean[j] = rhos.mean()
        if d > 1:
            se = rhos.std(ddof=1) / np.sqrt(d)
            half = stats.t.ppf((1 + level) / 2, d - 1) * se
            low[j], high[j] = max(mean[j] - half, -1), min(mean[j] + half, 1)
            p[j] = 2 * stats.t.sf(abs(mean[j]) / se, d - 1) if se > 0 else np.nan
        if d < FEW_DATASETS:
            few.append(f"{name}: {d} datasets are fewer than {FEW_DATASETS}, the interval says little")
    return RankAssociations(
        predictors=tuple(predictors),
        rho=mean,
        ci_low=low,
        ci_high=high,
        p=p,
        p_family=np.full(k, np.nan),
        published=np.full(k, np.nan),
        n_datasets=counts,
        level=level,
        method="Spearman inside each dataset, unweighted mean over datasets, t(D-1)",
        assumptions=("datasets are independent",),
        warnings=tuple(few),
    )


def check_columns(
    frame: pd.DataFrame, columns: Sequence[str], predictors: Sequence[str], multipliers: np.ndarray | None
) -> None:
    """Refuse missing columns, and the unsteered propensity where the grid is not known to be symmetric."""
    missing = [name for name in columns if name not in frame]
    if missing or not len(frame) or not len(predictors):
        raise InputError(f"columns {missing or list(predictors)} of {len(frame)} rows; there are {list(frame.columns)}")
    if "unsteered" in predictors:
        if multipliers is None:
            raise InputError("'unsteered' is a predictor: give multipliers, so that their symmetry can be checked")
        require_symmetric(multipliers, "predicting slopes from the unsteered propensity")
