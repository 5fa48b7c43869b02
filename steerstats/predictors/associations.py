"""Does a candidate rank inputs or datasets as steerability does: Spearman over datasets, and inside them.

The unit is the dataset, or its category where categories are given: units are bootstrapped and permuted whole, and
inside datasets correlations are averaged over datasets with an error that counts units. Permuting single datasets of
8 categories of 5 (within-category correlation .6 on both sides, unrelated) rejected at 5% in 19% of studies; permuting
whole categories in 4%.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from steerstats.errors import InputError, check_count, check_level, check_resamples, check_rng, gathered, how_many
from steerstats.resampling import bootstrap_correlation, quantile_pair, spearman
from steerstats.resampling.permutation import other_orders
from steerstats.resampling.ranks import MIN_FOR_INTERVAL, PERFECT, is_perfect
from steerstats.resampling.units import MIN_FOR_P, category_codes, deals, few_units
from steerstats.results import Result
from steerstats.rounding import floats, varies
from steerstats.spurious.clustered import cr2_bell_mccaffrey
from steerstats.steerability import require_symmetric

# Braun et al. (arXiv 2505.22637) on Llama-2-7b; Bas and Novak (arXiv 2511.18284) find no such relation.
PUBLISHED = {"mean_cosine": 0.76, "d_prime": 0.71}
PUBLISHED_NOTE = (
    "published beside: Braun et al. (arXiv 2505.22637), Spearman about .76 for the cosine and .71 for d′ on "
    "Llama-2-7b; Bas and Novak (arXiv 2511.18284) find no such relation. Transcribed from notes, not from the papers"
)


@dataclass(frozen=True, kw_only=True)
class RankAssociations(Result):
    """Rank correlation of each candidate with steerability.

    Parameters
    ----------
    predictors : tuple of str, length k
    rho, ci_low, ci_high, p : ndarray (k,)
        Spearman correlation (over datasets, or inside datasets and averaged), its interval, and a two-sided p-value.
        NaN where it is not defined or rests on too few units; a warning says which.
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
        Category of each dataset: categories are then the units, bootstrapped and permuted whole.

    Returns
    -------
    RankAssociations
        Percentile interval over units, none with fewer than eight or a perfect ranking; permutation p-values,
        single-step over the candidates, none with fewer than four; where there are no more than `n_permutations`
        other arrangements, each is used once. Permutations give the outcomes of a whole unit to another (`deal`):
        exact where categories are of one size, and close where they are not (type I error .04 at 5% in simulation,
        with six categories of 1 to 31 datasets).

    Raises
    ------
    InputError
        If shapes disagree, or a number is not finite.

    Examples
    --------
    >>> import numpy as np, pandas as pd, steerstats
    >>> from steerstats.predictors import dataset_associations
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> names, slopes = study.datasets, [study.slopes(name).at("base->base").mean() for name in study.datasets]
    >>> norm = [study.unit(name).unit.read("vector_raw_norm", vector="base") for name in names]
    >>> found = dataset_associations(pd.DataFrame({"norm": norm}), slopes, rng=np.random.default_rng(0))
    >>> found.to_frame()[["rho", "ci_low", "ci_high"]].round(2).values.tolist()
    [[0.37, -0.2, 0.85]]
    """
    level, n_resamples = check_level(level), check_resamples(n_resamples)
    n_permutations = check_count("n_permutations", n_permutations)
    check_rng(rng)
    y = floats(steerability)
    x = predictors.to_numpy(dtype=float)
    if y.ndim != 1 or x.shape[0] != y.size or not np.isfinite(y).all():
        raise InputError(f"{x.shape[0]} rows of predictors for steerability of shape {y.shape}; one finite number each")
    if np.isinf(x).any():
        raise InputError(f"predictor {predictors.columns[int(np.isinf(x).any(axis=0).argmax())]!r} is infinite")
    if not y.size:
        raise InputError("there is no dataset to correlate over")
    names = tuple(map(str, predictors.columns))
    cluster = np.arange(y.size) if category is None else category_codes(category, y.size)
    what = "datasets" if category is None else "categories"
    k = len(names)
    rho, low, high = np.full((3, k), np.nan)
    used = ~np.isnan(x)
    every = other_orders(y.size, n_permutations)
    if category is None and every is None:
        permuted = rng.permuted(np.broadcast_to(y, (n_permutations, y.size)), axis=1)
    else:
        permuted = y[deals(cluster, n_permutations, rng)]
    null = np.full((len(permuted), k), np.nan)
    notes: list[tuple[str, str]] = []
    for j, name in enumerate(names):
        rows = used[:, j]
        n = int(rows.sum())
        if n < 2 or not (varies(x[rows, j]) and varies(y[rows])):
            notes.append((name, f"{how_many(n, 'dataset')}, or all alike on one side: no correlation"))
            continue
        rho[j] = spearman(x[rows, j], y[rows])
        units = np.unique(cluster[rows]).size
        if units < MIN_FOR_P:
            notes.append((name, f"{units} {what} can be arranged in {math.factorial(units)} ways only: no p-value"))
        else:
            null[:, j] = spearman(np.broadcast_to(x[rows, j], (len(null), n)), permuted[:, rows])
        if units < MIN_FOR_INTERVAL:
            notes.append((name, f"{few_units(units, what)} say little about a correlation, no interval is given"))
            continue
        if is_perfect(rho[j]):
            notes.append((name, PERFECT))
            continue
        own = None if category is None else cluster[rows]
        draws = bootstrap_correlation(x[rows, j], y[rows], rng=rng, n_resamples=n_resamples, cluster=own)
        # An undefined resample (all datasets tied) could have been anything a correlation can be.
        low[j], high[j] = np.clip(quantile_pair(draws, level), -1, 1)
    size = np.abs(np.nan_to_num(null))
    top = size.max(axis=1)
    undefined = np.isnan(null).all(axis=0)
    p, p_family = (
        np.where(undefined, np.nan, (1 + (stat >= np.abs(rho) - 1e-12).sum(axis=0)) / (len(null) + 1))
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
        method=f"Spearman over datasets; percentile interval, {n_resamples} resamples of {what}; {len(null)} "
        f"permutations of {'datasets' if category is None else 'whole categories'}",
        numbers={"n_resamples": n_resamples, "n_permutations": len(null)},
        assumptions=(f"{what} are independent",),
        warnings=_gathered(notes, names),
    )


def within_dataset_associations(
    frame: pd.DataFrame,
    predictors: Sequence[str],
    *,
    multipliers: np.ndarray | None = None,
    category: str | None = None,
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
    category : str, optional
        Column of dataset categories, which are then the independent units.

    Returns
    -------
    RankAssociations
        Mean over datasets with a t(D − 1) interval, and the p-value of that t. With categories: CR2 standard error
        by category and Bell–McCaffrey degrees of freedom (`steerstats.spurious.clustered`).

    Raises
    ------
    InputError
        If a column is missing, or `unsteered` comes without multipliers.
    CannotEstimate
        If `unsteered` is a candidate on an asymmetric grid.

    Examples
    --------
    >>> import pandas as pd, steerstats
    >>> from steerstats.predictors import within_dataset_associations
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> units = [study.unit(name).unit for name in study.datasets]
    >>> frame = pd.concat([steerstats.slopes_frame(unit, setting_eval="base", vector="base") for unit in units])
    >>> found = within_dataset_associations(frame, ["pos_is_a"])
    >>> found.to_frame()[["rho", "ci_low", "ci_high", "n_datasets"]].round(2).values.tolist()
    [[0.12, -0.39, 0.64, 14.0]]
    """
    level = check_level(level)
    columns = ["dataset", "slope", *predictors] + ([category] if category else [])
    check_columns(frame, columns, predictors, multipliers)
    k, notes = len(predictors), []
    mean, low, high, p = np.full((4, k), np.nan)
    counts = np.zeros(k, dtype=int)
    what = "categories" if category else "datasets"
    blocks = [block for _, block in frame.groupby("dataset", sort=False)]
    for j, name in enumerate(predictors):
        rhos, families = [], []
        for block in blocks:
            pair = block[[name, "slope"]].astype(float).dropna().to_numpy()
            known = len(pair) >= 3 and all(map(varies, pair.T))
            value = float(spearman(pair[:, 0], pair[:, 1])) if known else np.nan
            if np.isfinite(value):
                rhos.append(value)
                families.append(block[category or "dataset"].iloc[0])
        rhos = np.array(rhos)
        counts[j] = d = rhos.size
        if d < len(blocks):
            notes.append((name, f"varies with the slope in {d} of {how_many(len(blocks), 'dataset')}"))
        if d == 0:
            continue
        mean[j], units = rhos.mean(), len(set(families))
        if units > 1:
            se, df = _mean_error(rhos, families)
            if se > 1e-12:
                half = stats.t.ppf((1 + level) / 2, df) * se
                low[j], high[j] = max(mean[j] - half, -1), min(mean[j] + half, 1)
                p[j] = 2 * stats.t.sf(abs(mean[j]) / se, df)
            else:
                notes.append((name, f"the correlation is the same in all {d} datasets: no interval"))
            if units < MIN_FOR_INTERVAL:
                notes.append((name, f"{few_units(units, what)}, the interval rests on its t distribution"))
        else:
            notes.append((name, f"one {'category' if category else 'dataset'} has no interval"))
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
        method="Spearman inside each dataset, unweighted mean over datasets, "
        + ("CR2 by category, Bell-McCaffrey t" if category else "t(D-1)"),
        assumptions=(f"{what} are independent",),
        warnings=_gathered(notes, predictors),
    )


def check_columns(
    frame: pd.DataFrame, columns: Sequence[str], predictors: Sequence[str], multipliers: np.ndarray | None
) -> None:
    """Refuse missing columns, and the unsteered propensity where the grid is not known to be symmetric.

    Examples
    --------
    >>> import pandas as pd
    >>> from steerstats.predictors.associations import check_columns
    >>> check_columns(pd.DataFrame({"slope": [0.1]}), ["slope", "projection"], ["projection"], None)
    Traceback (most recent call last):
    ...
    steerstats.errors.InputError: columns ['projection'] are missing; there are ['slope']
    """
    missing = [name for name in columns if name not in frame]
    if missing:
        raise InputError(f"columns {missing} are missing; there are {list(frame.columns)}")
    if not len(frame) or not len(predictors):
        raise InputError(f"{len(frame)} rows and {len(predictors)} predictors; at least one of each is needed")
    if "unsteered" in predictors:
        if multipliers is None:
            raise InputError("'unsteered' is a predictor: give multipliers, so that their symmetry can be checked")
        require_symmetric(multipliers, "predicting slopes from the unsteered propensity")


def _gathered(notes: Sequence[tuple[str, str]], names: Sequence[str]) -> tuple[str, ...]:
    """Each text once, after the candidates that it is about; alone where it is about all of them."""
    return tuple(
        text if len(own) == len(names) > 1 else f"{', '.join(own)}: {text}" for text, own in gathered(notes).items()
    )


def _mean_error(rhos: np.ndarray, families: Sequence) -> tuple[float, float]:
    """Standard error of the mean of correlations, and its degrees of freedom, counting families."""
    d = rhos.size
    if len(set(families)) == d:
        return float(rhos.std(ddof=1) / np.sqrt(d)), d - 1.0
    fit = cr2_bell_mccaffrey(np.ones((d, 1)), rhos[:, None], families, ["mean"], responses=["rho"])
    return float(fit.se[0, 0]), float(fit.df[0])
