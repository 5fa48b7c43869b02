"""How much probability the two answers still hold at each multiplier.

Where steering breaks the answer format both answers lose their probability, the logit difference between them no
longer describes what the model does, and neither does its slope.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

import numpy as np
import pandas as pd

from steerstats.errors import InputError, check_level
from steerstats.generalization.slopes import SAMPLE, cells_frame, unit_warnings
from steerstats.generalization.vector_error import VECTOR_ERROR_OUT
from steerstats.resampling.questions import logit_limits, question_means
from steerstats.results import Result
from steerstats.rounding import floats

COLLAPSED_BELOW = 0.5


@dataclass(frozen=True, kw_only=True)
class AnswerMass(Result):
    """Probability mass on the two answers, by dataset and multiplier.

    Parameters
    ----------
    datasets : tuple of str
    multipliers : ndarray of shape (n_multipliers,)
    mean, ci_low, ci_high : ndarray of shape (n_datasets, n_multipliers)
        Mean mass over inputs with a t interval over questions on the logit scale (delta method at the mean). Where
        nearly all inputs hold nearly all of the mass, a sample of them seldom shows the others: at a mean of .92 with
        half of the inputs above .99, 95% intervals covered .88 with 20 questions, .94 with 60 and .95 with 300, and
        those that missed lay too high.
    share_low : ndarray of shape (n_datasets, n_multipliers)
        Share of inputs whose mass is below `threshold`.
    collapsed : ndarray of bool, shape (n_datasets, n_multipliers)
        Mean mass below `threshold`.
    threshold : float
    n, n_excluded : ndarray of shape (n_datasets,)
    level : float
    """

    datasets: tuple[str, ...]
    multipliers: np.ndarray
    mean: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    share_low: np.ndarray
    collapsed: np.ndarray
    threshold: float
    n: np.ndarray
    n_excluded: np.ndarray
    level: float

    def to_frame(self) -> pd.DataFrame:
        """One row per dataset and multiplier."""
        names = ("mean", "ci_low", "ci_high", "share_low", "collapsed")
        frame = cells_frame(self, names, {"dataset": self.datasets, "multiplier": self.multipliers})
        frame.insert(frame.columns.get_loc("level"), "threshold", self.threshold)
        return frame

    def _shown(self) -> pd.DataFrame:
        """One row per dataset, at the multiplier where its mass is lowest."""
        frame = self.to_frame()
        lowest = frame.loc[frame.groupby("dataset", sort=False)["mean"].idxmin()]
        return lowest.rename(columns={"multiplier": "lowest_at"})


def answer_mass(
    answer_logit: Mapping[str, np.ndarray],
    logsumexp: Mapping[str, np.ndarray],
    multipliers: np.ndarray,
    *,
    questions: Mapping[str, np.ndarray] | None = None,
    threshold: float = COLLAPSED_BELOW,
    level: float = 0.95,
) -> AnswerMass:
    """Mass on the two answers by multiplier, with datasets flagged where it collapses.

    Parameters
    ----------
    answer_logit : mapping of str to array of shape (n_multipliers, n_answers, n_inputs)
        Dataset -> logits of the positive and negative answer token, in nats.
    logsumexp : mapping of str to array of shape (n_multipliers, n_inputs)
        Dataset -> log of the summed exponentials over the vocabulary.
    multipliers : array of shape (n_multipliers,)
    questions : mapping of str to array of shape (n_inputs,), optional
    threshold : float
        Mean mass below which the answers have collapsed.
    level : float

    Raises
    ------
    InputError
        If shapes do not fit, a mass exceeds 1, no input is complete, or the threshold is no probability.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.generalization import answer_mass
    >>> unit = steerstats.open_cache(steerstats.demo_cache()).unit("likes-rain")
    >>> cell = {"setting_eval": "base", "vector": "base"}
    >>> logits, total = (unit.unit.read(name, **cell) for name in ("answer_logit", "logsumexp"))
    >>> found = answer_mass({"likes-rain": logits}, {"likes-rain": total}, unit.multipliers)
    >>> found.mean[0].round(2).tolist()
    [0.98, 0.98, 0.98, 0.98, 0.98, 0.98, 0.98]
    """
    check_level(level)
    if not (isinstance(threshold, Real) and 0 < threshold < 1):
        raise InputError(f"threshold is {threshold!r}; a probability strictly between 0 and 1 is needed, such as 0.5")
    multipliers = floats(multipliers)
    rows, warnings = [], []
    for name in answer_logit:
        if name not in logsumexp:
            raise InputError(f"logsumexp lacks dataset {name!r}, which answer_logit has")
        logits, total = floats(answer_logit[name]), floats(logsumexp[name])
        fits = logits.ndim == 3 and len(logits) == len(multipliers) and logits.shape[1] >= 2
        if not fits or total.shape != logits[:, 0].shape:
            raise InputError(
                f"{name}: answer_logit {logits.shape} and logsumexp {total.shape}; ({len(multipliers)}, answers >= 2, "
                f"n_inputs) and ({len(multipliers)}, n_inputs) are needed"
            )
        mass = np.exp(logits - total[:, None]).sum(axis=1)
        complete = np.isfinite(mass).all(axis=0)
        if not complete.any():
            raise InputError(f"{name}: no input has answer logits at every multiplier")
        if not complete.all():
            first, m = int(np.argmin(complete)), int(np.argmin(np.isfinite(mass[:, np.argmin(complete)])))
            warnings.append(
                f"{name}: {(~complete).sum()} of {len(complete)} inputs are left out, their logits are not finite; the "
                f"first is input {first} at multiplier {multipliers[m]:g}"
            )
        mass = mass[:, complete]
        if mass.max() > 1 + 1e-4:
            raise InputError(
                f"{name}: answers hold {mass.max():.4g} of the probability; logsumexp does not belong to them"
            )
        unit = None if questions is None else np.asarray(questions[name])[complete]
        mean, _, low, high, n = question_means(mass, unit, level)
        limits = logit_limits(np.clip(mean, 0, 1), (high - low) / 2)  # a mass may exceed 1 by rounding
        rows.append((mean, *limits, (mass < threshold).mean(axis=1), n, (~complete).sum()))
        warnings += unit_warnings(n, f"{name}: ") if n == 1 else ()
        below = multipliers[mean < threshold]
        if below.size:
            warnings.append(
                f"{name}: the answers hold less than {threshold:g} of the probability at multiplier "
                f"{', '.join(f'{m:g}' for m in below)}; slopes there no longer describe behaviour"
            )
    if not rows:
        raise InputError("answer_logit is empty; at least one dataset is needed")
    mean, low, high, share, n, excluded = (np.array(column) for column in zip(*rows))
    return AnswerMass(
        datasets=tuple(answer_logit),
        multipliers=multipliers,
        mean=mean,
        ci_low=low,
        ci_high=high,
        share_low=share,
        collapsed=mean < threshold,
        threshold=threshold,
        n=n,
        n_excluded=excluded,
        level=level,
        method="exp(answer logit - log-sum-exp) summed over both answers, mean over inputs, t interval over "
        "questions on the logit scale",
        assumptions=(SAMPLE, VECTOR_ERROR_OUT),
        warnings=tuple(warnings),
    )
