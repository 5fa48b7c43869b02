"""Each dataset's vector against null vectors: p-values, and a decision for every dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from steerstats.errors import InputError, check_level, how_many
from steerstats.nulls.counts import ROUNDING, differ_at_least, null_vectors_needed, with_t_tail
from steerstats.results import Result
from steerstats.rounding import floats

DIFFERS = "differs from the null"
CANNOT_RESOLVE = "cannot resolve"
NOT_SHOWN = "not shown to differ"  # which is no finding of no difference
NAMES = {"random": "random directions", "shuffled": "label-shuffled vectors"}
QUANTILES = (0.025, 0.5, 0.975)
SAME = 1e-3  # relative: null vectors that differ by less in strength, all of them, are the vector itself up to sign
FEWEST_QUESTIONS = 20
"""Training questions; with fewer, the p-value of half flips is noticeably too small (`cache_builder.vectors.draws`)."""
EXCHANGEABLE = {
    "random": "the vector is exchangeable with the random vectors under the null",
    "shuffled": "the vector is exchangeable with the shuffled vectors under the null that the sign of each training "
    "question's difference is arbitrary; only approximately, since always half of the questions are exchanged (with "
    f"fewer than {FEWEST_QUESTIONS} training questions p is too small)",
}
METHOD = (
    "two-sided rank of |mean steerability| among {kind} vectors of the same norm, "
    "p = (1 + #{{|null| >= |observed|}}) / (R + 1); Benjamini-Hochberg over datasets"
)
TOGETHER = (
    "how many differ at least is bounded by partial conjunctions (Benjamini & Heller 2008), which are Fisher's "
    "combination of the largest p-values, each taken to the tail of t over training questions"
)
SHARE_NOTHING = (
    "for the number that differ at least, datasets share no training questions, so that their shuffles are independent"
)


@dataclass(frozen=True, kw_only=True)
class NullTable(Result):
    """Each dataset's vector against null vectors of one kind.

    Parameters
    ----------
    kind : str
        "random" or "shuffled".
    datasets : tuple of str
    mean : ndarray of shape (n_datasets,)
        Mean steerability under the dataset's own vector, nats per unit multiplier.
    null_abs_quantile : ndarray of shape (n_datasets,)
        The 1 − alpha quantile of |mean steerability| over null vectors.
    p, p_fdr : ndarray of shape (n_datasets,)
        Two-sided p-value, and Benjamini–Hochberg adjusted over the datasets. 1, with a warning, where all null
        vectors are as strong as the vector to a part in a thousand: they are that vector up to sign.
    decision : tuple of str
        "differs from the null" where `p_fdr` is at most alpha; else "cannot resolve" where even the smallest p-value
        that so few null vectors allow, 1 / (R + 1), would not have passed beside the other datasets' p-values; else
        "not shown to differ", which is not evidence of no difference. The constants `DIFFERS`, `CANNOT_RESOLVE` and
        `NOT_SHOWN`.
    anti_steerable : ndarray of shape (n_datasets,)
        Share of inputs with a negative slope under the dataset's own vector.
    null_anti_steerable : ndarray of shape (n_datasets, 3)
        2.5%, 50% and 97.5% quantiles, over null vectors, of the share of inputs with a negative slope.
    n, n_excluded : ndarray of shape (n_datasets,)
        Inputs complete under all vectors, and inputs that were not.
    n_null : ndarray of shape (n_datasets,)
        Null vectors.
    n_null_needed : int
        D / alpha − 1, rounded up: with as many, one dataset alone could pass whatever the others show.
    at_least : int or None
        As many vectors, if not more, differ from label-shuffled ones with confidence 1 − alpha, all datasets taken
        together (`differ_at_least`); where single datasets cannot be resolved, this often can. None of one dataset, and
        against random directions: the vectors of several may have a direction in common, and their p-values with it.
    alpha : float
        False discovery rate, and 1 − the confidence of `at_least`.
    """

    kind: str
    datasets: tuple[str, ...]
    mean: np.ndarray
    null_abs_quantile: np.ndarray
    p: np.ndarray
    p_fdr: np.ndarray
    decision: tuple[str, ...]
    anti_steerable: np.ndarray
    null_anti_steerable: np.ndarray
    n: np.ndarray
    n_excluded: np.ndarray
    n_null: np.ndarray
    n_null_needed: int
    at_least: int | None
    alpha: float

    @property
    def more_together(self) -> bool:
        """Whether more vectors are shown to differ by all datasets taken together than one by one."""
        return (self.at_least or 0) > self.decision.count(DIFFERS)

    def to_frame(self) -> pd.DataFrame:
        """One row per dataset."""
        names = ("mean", "null_abs_quantile", "p", "p_fdr", "decision", "anti_steerable", "n", "n_excluded", "n_null")
        frame = pd.DataFrame({"kind": self.kind, "dataset": list(self.datasets)})
        for name in names:
            frame[name] = getattr(self, name)
        for k, q in enumerate(("low", "median", "high")):
            frame[f"null_anti_steerable_{q}"] = self.null_anti_steerable[:, k]
        return frame


def null_table(
    slopes: Mapping[str, np.ndarray],
    null: Mapping[str, np.ndarray],
    *,
    kind: str,
    alpha: float = 0.05,
    questions: Mapping[str, float] | None = None,
) -> NullTable:
    """Compare the vectors of D datasets with null vectors of one kind.

    Parameters
    ----------
    slopes : mapping of str to array of shape (n_inputs,)
        Dataset -> per-input slopes under its own vector.
    null : mapping of str to array of shape (n_null, n_inputs)
        Dataset -> per-input slopes under each null vector, of the same norm and on the same inputs.
    kind : {"random", "shuffled"}
        Which null this is. Call once per kind.
    alpha : float
        False discovery rate over the datasets.
    questions : mapping of str to float, optional
        Dataset -> training questions of its vector, as far as they are known, or as many of one size as carry it
        (`resampling.question_weight.carrying_questions`). `at_least` allows for them, p does not.

    Raises
    ------
    InputError
        If a dataset has no null vectors, shapes do not fit, or no input is complete.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.nulls import null_table
    >>> study = steerstats.open_cache(steerstats.demo_cache())
    >>> slopes = {name: study.slopes(name).at("base->base") for name in ("likes-rain", "plans-ahead")}
    >>> null = {name: study.unit(name).control_slopes("random", "base->base") for name in slopes}
    >>> null_table(slopes, null, kind="random").to_frame()[["dataset", "p", "decision"]].round(3).values.tolist()
    [['likes-rain', 0.05, 'differs from the null'], ['plans-ahead', 0.05, 'differs from the null']]
    """
    if kind not in ("random", "shuffled"):
        raise InputError(f"kind {kind!r} is unknown; 'random' or 'shuffled', one at a time")
    alpha = check_level(alpha, "alpha", such_as=0.05)
    if not slopes:
        raise InputError("slopes is empty; at least one dataset is needed")
    rows = [_one(name, slopes[name], null, alpha) for name in slopes]
    columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    p_fdr = stats.false_discovery_control(columns["p"])
    # Sums of ranks meet alpha exactly (19 vectors, all p = 1/20): rounding must not decide.
    passed = p_fdr <= alpha * (1 + ROUNDING)
    open_ = ~passed & ~_could_pass(columns["p"], columns["n_null"], alpha)
    decision = np.select([passed, open_], [DIFFERS, CANNOT_RESOLVE], NOT_SHOWN)
    at_least, method, assumptions = None, METHOD.format(kind=kind), [EXCHANGEABLE[kind]]
    if kind == "shuffled" and len(slopes) > 1:
        known = np.array([(questions or {}).get(name, np.nan) for name in slopes], dtype=float)
        at_least = differ_at_least(with_t_tail(columns["p"], known), alpha)
        method, assumptions = f"{method}; {TOGETHER}", [*assumptions, SHARE_NOTHING]
    same = [name for name, one in zip(slopes, columns.pop("same")) if one]
    table = NullTable(
        kind=kind,
        datasets=tuple(slopes),
        **columns,
        p_fdr=p_fdr,
        decision=tuple(decision.tolist()),
        n_null_needed=null_vectors_needed(len(rows), alpha),
        at_least=at_least,
        alpha=alpha,
        method=method,
        assumptions=(*assumptions, "p-values of different datasets are independent or positively dependent"),
    )
    return replace(table, warnings=tuple(_doubts(table, same)))


def _doubts(table: NullTable, same: list[str]) -> list[str]:
    """What a reader has to know of a table, and of datasets whose null vectors are all the vector itself."""
    kind, needed, every = table.kind, table.n_null_needed, how_many(len(table.datasets), "dataset")
    open_, rate, warnings = np.array(table.decision) == CANNOT_RESOLVE, f"a false discovery rate of {table.alpha:g}", []
    if same:
        warnings.append(
            f"{', '.join(same)}: every {kind} vector is as strong as the vector itself to a part in a thousand, as "
            "label-shuffled PCA vectors are, which are the vector up to sign: no null, and p is set to 1"
        )
    if open_.any():
        together = f"all taken together, at least {table.at_least} of {every} differ ({1 - table.alpha:.0%} confidence)"
        warnings.append(
            f"{open_.sum()} of {every} cannot be resolved: {table.n_null[open_].min()} {NAMES[kind]} are too few for "
            f"{rate} over {every}; {needed} are needed" + (f"; {together}" if table.more_together else "")
        )
    elif table.n_null.min() < needed:
        warnings.append(
            f"{table.n_null.min()} {NAMES[kind]} cannot show a single dataset to differ at {rate} over {every}, only "
            f"several together; {needed} are needed for one"
        )
    return warnings


def _could_pass(p: np.ndarray, n_null: np.ndarray, alpha: float) -> np.ndarray:
    """Whether each dataset would have passed with no null vector as strong as its own, the others as they are."""
    out = np.zeros(len(p), bool)
    for k in range(len(p)):
        best = p.copy()
        best[k] = 1 / (n_null[k] + 1)
        out[k] = stats.false_discovery_control(best)[k] <= alpha * (1 + ROUNDING)
    return out


def _one(name: str, own: np.ndarray, null: Mapping[str, np.ndarray], alpha: float) -> dict:
    if name not in null:
        raise InputError(f"null lacks dataset {name!r}, which slopes has")
    own, others = floats(own), floats(null[name])
    if own.ndim != 1 or others.ndim != 2 or others.shape[1] != len(own) or len(others) == 0:
        raise InputError(
            f"{name}: slopes {own.shape} and null {others.shape}; (n_inputs,) and (n_null, n_inputs) are needed"
        )
    complete = np.isfinite(own) & np.isfinite(others).all(axis=0)
    if not complete.any():
        raise InputError(f"{name}: no input has a slope under the vector and all null vectors")
    own, others = own[complete], others[:, complete]
    mean, size = own.mean(), np.abs(others.mean(axis=1))
    same = len(size) > 1 and np.allclose(size, abs(mean), rtol=SAME, atol=0)
    return {
        "same": same,
        "mean": mean,
        "null_abs_quantile": np.quantile(size, 1 - alpha),
        # rounding must not decide between a vector and itself
        "p": 1.0 if same else (1 + np.count_nonzero(size >= abs(mean))) / (len(size) + 1),
        "anti_steerable": (own < 0).mean(),
        "null_anti_steerable": np.quantile((others < 0).mean(axis=1), QUANTILES),
        "n": int(complete.sum()),
        "n_excluded": int((~complete).sum()),
        "n_null": len(size),
    }
