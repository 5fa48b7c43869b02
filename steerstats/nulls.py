"""Is this vector better than a vector of the same norm that knows nothing, or nothing about the labels?

Random directions and label-shuffled vectors answer different questions and are never pooled. The p-value counts
vectors, not inputs: p = (1 + #{|s̄_r| >= |s̄|}) / (R + 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from steerstats.errors import InputError, check_count, check_level, first_few, how_many
from steerstats.resampling.question_weight import carrying_questions
from steerstats.results import Result

DIFFERS = "differs from the null"
CANNOT_RESOLVE = "cannot resolve"
NOT_SHOWN = "not shown to differ"  # which is no finding of no difference
NAMES = {"random": "random directions", "shuffled": "label-shuffled vectors"}
QUANTILES = (0.025, 0.5, 0.975)
ROUNDING = 1e-9
SAME = 1e-3  # relative: null vectors that differ by less in strength, all of them, are the vector itself up to sign
FEWEST_QUESTIONS = 20
"""Training questions; with fewer, the p-value of half flips is noticeably too small (`cache_builder.vectors.draws`)."""
EXCHANGEABLE = {
    "random": "the vector is exchangeable with the random vectors under the null",
    "shuffled": "the vector is exchangeable with the shuffled vectors under the null that the sign of each training "
    "question's difference is arbitrary; only approximately, since always half of the questions are exchanged (with "
    f"fewer than {FEWEST_QUESTIONS} training questions p is too small)",
}
NOTABLE = 1.3  # p-values too small by this factor: at 5%, those of fewer than 20 questions
HIGH = 0.075  # a level for 5% that is said where questions are many and a few of them carry the mean
SHUFFLES = 19  # label-shuffled vectors: the fewest that can show anything at 5%
STUDIES, FLIPS = 4000, 400


def shuffled_level(sizes: Sequence[int], *, rng: np.random.Generator) -> float:
    """How often a vector without information passes at 5% against label-shuffled ones, copies being answered alike.

    Questions of nearly equal size are exchanged in pairs, one of each two. What the larger ones of a dataset happen to
    agree on is then in its vector and in no shuffle of it, and where few of them carry the mean that is much of it.
    One that carries it alone has no such partner, and does no harm.

    Parameters
    ----------
    sizes : sequence of int
        Training pairs of each question.
    rng : numpy.random.Generator

    Returns
    -------
    float
        By simulation of normal differences between questions, to .004 or so.

    Examples
    --------
    >>> import numpy as np
    >>> from steerstats.nulls import shuffled_level
    >>> [round(shuffled_level(sizes, rng=np.random.default_rng(0)), 2) for sizes in ([1] * 60, [30, 29] + [1] * 60)]
    [0.06, 0.35]
    """
    sizes = np.sort(np.asarray(sizes, dtype=float))[::-1]
    pairs, odd = divmod(len(sizes), 2)
    # As a builder exchanges them: the largest first, those of one size in random order, one of each two at random.
    order = np.argsort(-sizes + 0.5 * rng.random((FLIPS, len(sizes))), axis=1)
    turned = rng.choice([-1.0, 1.0], size=(FLIPS, pairs + odd))
    signs = np.stack([turned, -turned], axis=2).reshape(FLIPS, -1)[:, : len(sizes)]
    flips = np.empty_like(signs)
    np.put_along_axis(flips, order, signs, axis=1)
    differences = sizes * rng.standard_normal((STUDIES, len(sizes)))
    own, others = np.abs(differences.sum(axis=1)), np.abs(differences @ flips.T)
    return float(np.mean((others < own[:, None]).mean(axis=1) ** SHUFFLES))


def shuffled_doubt(sizes: Sequence[int], *, rng: np.random.Generator) -> str:
    """Why p-values against label-shuffled vectors are too small, from the training questions; "" where they are not.

    Parameters
    ----------
    sizes : sequence of int
        Training pairs of each question.
    rng : numpy.random.Generator
        For `shuffled_level`.

    Examples
    --------
    >>> import numpy as np
    >>> from steerstats.nulls import shuffled_doubt
    >>> shuffled_doubt([1] * 12, rng=np.random.default_rng(0))[:76]
    'with 12 training questions, p-values of label-shuffled vectors are too small'
    >>> shuffled_doubt([1] * 40, rng=np.random.default_rng(0))
    ''
    """
    few = 1 < len(sizes) < FEWEST_QUESTIONS  # of a single one every shuffle is the vector up to sign, and p is 1
    if not few and carrying_questions(sizes) >= FEWEST_QUESTIONS:
        return ""
    level = shuffled_level(sizes, rng=rng)
    small = f"p-values of label-shuffled vectors are too small (in simulation, {level:.0%} of vectors without "
    small += "information passed at 5%)"
    if few:
        return f"with {len(sizes)} training questions, {small}"
    if level <= HIGH:
        return ""
    first, second = sorted(sizes)[:-3:-1]
    return (
        f"the two largest of {len(sizes)} training questions hold {first} and {second} of {sum(sizes)} pairs: where "
        f"copies of a question are answered alike, {small}"
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
    alpha : float
        False discovery rate.
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
    alpha: float

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
    slopes: Mapping[str, np.ndarray], null: Mapping[str, np.ndarray], *, kind: str, alpha: float = 0.05
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

    Returns
    -------
    NullTable

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
    needed, every = null_vectors_needed(len(rows), alpha), how_many(len(rows), "dataset")
    p_fdr = stats.false_discovery_control(columns["p"])
    # Sums of ranks meet alpha exactly (19 vectors, all p = 1/20): rounding must not decide.
    passed = p_fdr <= alpha * (1 + ROUNDING)
    open_ = ~passed & ~_could_pass(columns["p"], columns["n_null"], alpha)
    decision = np.select([passed, open_], [DIFFERS, CANNOT_RESOLVE], NOT_SHOWN)
    warnings = []
    same = [name for name, one in zip(slopes, columns.pop("same")) if one]
    if same:
        warnings.append(
            f"{', '.join(same)}: every {kind} vector is as strong as the vector itself to a part in a thousand, as "
            "label-shuffled PCA vectors are, which are the vector up to sign: no null, and p is set to 1"
        )
    if open_.any():
        warnings.append(
            f"{open_.sum()} of {every} cannot be resolved: {columns['n_null'][open_].min()} {NAMES[kind]} "
            f"are too few for a false discovery rate of {alpha:g} over {every}; {needed} are needed"
        )
    elif columns["n_null"].min() < needed:
        warnings.append(
            f"{columns['n_null'].min()} {NAMES[kind]} cannot show a single dataset to differ at a false discovery "
            f"rate of {alpha:g} over {every}, only several together; {needed} are needed for one"
        )
    return NullTable(
        kind=kind,
        datasets=tuple(slopes),
        **columns,
        p_fdr=p_fdr,
        decision=tuple(decision.tolist()),
        n_null_needed=needed,
        alpha=alpha,
        method=f"two-sided rank of |mean steerability| among {kind} vectors of the same norm, "
        "p = (1 + #{|null| >= |observed|}) / (R + 1); Benjamini-Hochberg over datasets",
        assumptions=(
            EXCHANGEABLE[kind],
            "p-values of different datasets are independent or positively dependent",
        ),
        warnings=tuple(warnings),
    )


def null_vectors_needed(n_datasets: int, alpha: float = 0.05) -> int:
    """Null vectors with which one dataset alone could pass: the smallest R >= D / alpha − 1.

    Examples
    --------
    >>> from steerstats.nulls import null_vectors_needed
    >>> null_vectors_needed(40)  # one of forty datasets, at 5%
    799
    """
    n_datasets, alpha = check_count("n_datasets", n_datasets), check_level(alpha, "alpha", such_as=0.05)
    return int(np.ceil(n_datasets / alpha - 1 - 1e-9))


def shown_together(n_null: int, n_datasets: int, alpha: float = 0.05) -> int:
    """Fewest datasets that R null vectors can show to differ, jointly: 1 / (R + 1) has to pass Benjamini–Hochberg.

    More than there are where none could be shown.

    Examples
    --------
    >>> from steerstats.nulls import shown_together
    >>> shown_together(19, 14), shown_together(18, 14), shown_together(279, 14)
    (14, 15, 1)
    """
    n_null, n_datasets = check_count("n_null", n_null), check_count("n_datasets", n_datasets)
    return int(np.ceil(n_datasets / check_level(alpha, "alpha", such_as=0.05) / (n_null + 1) - 1e-9))


def tail_doubt(table: NullTable, questions: Mapping[str, int]) -> str:
    """Which datasets pass against label-shuffled vectors only because p is too small far out; "" where none does.

    Exchanging half of the questions takes what they agree on out of the null's spread, which makes a z test of what
    is a t test on n − 1 degrees of freedom: hardly to be seen at 5% with 20 questions or more, but the smaller p, the
    more it is too small, and one of many datasets passes by a small p alone.

    Parameters
    ----------
    table : NullTable
    questions : mapping of str to int
        Training questions of the datasets, where they are known.

    Examples
    --------
    >>> import numpy as np
    >>> from steerstats.nulls import null_table, tail_doubt
    >>> null = {f"d{k}": np.arange(1.0, 200)[:, None] for k in range(10)}  # 199 vectors
    >>> slopes = {name: np.array([200.0 if name == "d0" else 50.0]) for name in null}
    >>> tail_doubt(null_table(slopes, null, kind="shuffled"), {"d0": 30})[:69]
    'd0: p-values are too small this far out (0.005 from 30 training quest'
    >>> tail_doubt(null_table(slopes, null, kind="shuffled"), {"d0": 300})
    ''
    """
    passed = [k for k, decision in enumerate(table.decision) if decision == DIFFERS]
    needed = table.alpha * len(passed) / len(table.datasets)
    honest = {}
    for k in passed:
        if (n := questions.get(table.datasets[k], 0)) >= FEWEST_QUESTIONS:
            honest[k] = 2 * float(stats.t.sf(stats.norm.isf(table.p[k] / 2), n - 1))
    doubted = [k for k, p in honest.items() if p > NOTABLE * needed]
    if not doubted:
        return ""
    worst = max(doubted, key=honest.__getitem__)
    return (
        f"{first_few([table.datasets[k] for k in doubted])}: p-values are too small this far out "
        f"({table.p[worst]:.2g} from {questions[table.datasets[worst]]} training questions stands for about "
        f"{honest[worst]:.2g}, and {needed:.2g} was needed): of simulated studies of 40 datasets without information, "
        "19% with 24 questions each and 12% with 40 showed one to differ at 5%"
    )


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
    own, others = np.asarray(own, float), np.asarray(null[name], float)
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
