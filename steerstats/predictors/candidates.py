"""What a dataset's cached activations look like before anything is steered: candidates to predict steerability.

How far apart the answers lie is measured in `separation`; whether a candidate predicts anything is judged in
`associations` and `prediction`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steerstats.errors import InputError, check_level
from steerstats.predictors.separation import auc, d_prime
from steerstats.results import Estimate, Estimates
from steerstats.rounding import floats
from steerstats.steerability import mean_slope


@dataclass(frozen=True, kw_only=True)
class DatasetPredictors(Estimates):
    """Candidates of one dataset: `mean_cosine`, `d_prime`, `auc`, `norm_ratio`, `unembedding_alignment`."""

    def values(self) -> dict[str, float]:
        """Name to point estimate, a row for `dataset_associations`."""
        return {estimate.name: estimate.estimate for estimate in self.estimates}


def difference_cosine(cosines: np.ndarray, *, questions: Sequence | None = None, level: float = 0.95) -> Estimate:
    """Mean cosine of training differences with the vector (Braun et al., arXiv 2505.22637), t interval over questions.

    Parameters
    ----------
    cosines : array (n,)
        `pair_difference_cosine` of a cache, in-sample as in that paper, where n pairs of pure noise in many
        dimensions still show about 1/√n; or the cross-fitted ones of `crossfit`, which show about 0.
    questions : sequence (n,), optional

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.predictors import difference_cosine
    >>> cache = steerstats.open_cache(steerstats.demo_cache()).unit("likes-rain").unit
    >>> found = difference_cosine(cache.read("pair_difference_cosine", setting_train="base"))
    >>> print(found)
    mean_cosine: 0.218 [0.149, 0.287] (n = 48)
    >>> found.assumptions[0]
    'in-sample, pure noise would show about 0.144'
    """
    level, c = check_level(level), floats(cosines)
    if c.ndim != 1 or not np.isfinite(c).all() or (np.abs(c) > 1 + 1e-3).any():
        raise InputError(f"cosines have to be one row of numbers in [-1, 1]; their shape is {c.shape}")
    mean = mean_slope(c, questions=questions, level=level)
    return Estimate(
        name="mean_cosine",
        estimate=mean.estimate,
        se=mean.se,
        ci_low=mean.ci_low,
        ci_high=mean.ci_high,
        n=mean.n,
        level=level,
        method=f"mean cosine of {c.size} differences with the vector, t interval over questions",
        assumptions=(f"in-sample, pure noise would show about {1 / np.sqrt(c.size):.3f}",),
        warnings=mean.warnings,
    )


def dataset_predictors(
    projection: np.ndarray,
    cosines: np.ndarray,
    *,
    vector_norm: float,
    activation_norm: float,
    unembedding_cosine: float | None = None,
    questions: Sequence | None = None,
    level: float = 0.95,
) -> DatasetPredictors:
    """All candidates of one dataset and training setting, from the summaries that a cache keeps.

    Parameters
    ----------
    projection : array (2, n)
        `crossfit_projection`.
    cosines : array (n,)
        `pair_difference_cosine`.
    vector_norm, activation_norm : float
        Norm of the vector before rescaling (`vector_raw_norm`), and the mean norm of the activations it is added to.
    unembedding_cosine : float, optional
        Cosine of the vector with the unembedding difference of the two answer tokens (`vector_unembedding_cosine`);
        its size counts, since its sign only says which letter it favours.
    questions : sequence (n,), optional

    Returns
    -------
    DatasetPredictors
        The last two are properties of one vector and carry no interval.

    Examples
    --------
    >>> import steerstats
    >>> from steerstats.predictors import dataset_predictors
    >>> cache = steerstats.open_cache(steerstats.demo_cache()).unit("likes-rain").unit
    >>> arrays = [cache.read(name, setting_train="base") for name in ("crossfit_projection", "pair_difference_cosine")]
    >>> norms = {"vector_norm": 1.2, "activation_norm": 11.0}
    >>> {name: round(value, 2) for name, value in dataset_predictors(*arrays, **norms).values().items()}
    {'mean_cosine': 0.22, 'd_prime': 0.95, 'auc': 0.74, 'norm_ratio': 0.11}
    """
    if not (np.isfinite(vector_norm) and vector_norm >= 0 and np.isfinite(activation_norm) and activation_norm > 0):
        raise InputError(f"vector_norm {vector_norm!r} and activation_norm {activation_norm!r} have to be norms")
    nan = float("nan")
    cosine = difference_cosine(cosines, questions=questions, level=level)
    parts = [cosine]
    parts += [kind(projection, questions=questions, crossfitted=True, level=level) for kind in (d_prime, auc)]
    plain = {"norm_ratio": vector_norm / activation_norm}
    if unembedding_cosine is not None:
        plain["unembedding_alignment"] = abs(float(unembedding_cosine))
    parts += [
        Estimate(
            name=name,
            estimate=float(value),
            ci_low=nan,
            ci_high=nan,
            n=parts[0].n,
            level=level,
            method=f"{name} of the one full-data vector",
        )
        for name, value in plain.items()
    ]
    return DatasetPredictors(
        estimates=tuple(parts),
        method="; ".join(part.method for part in parts),
        assumptions=tuple(dict.fromkeys(text for part in parts for text in part.assumptions)),
        warnings=tuple(dict.fromkeys(text for part in parts for text in part.warnings)),
    )
