"""Results of the checks around the estimates: vectors among themselves, multiplier grids, nulls, debiasing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steerstats.nulls import NullTable
from steerstats.resampling.questions import question_means
from steerstats.results import Estimate, Result
from steerstats.rounding import varies


@dataclass(frozen=True, kw_only=True)
class VectorCosines(Result):
    """How alike the vectors of different training settings are.

    Parameters
    ----------
    datasets, vectors : tuple of str
    cosine : ndarray (dataset, vector, vector)
        Cosine of the vectors as applied; over all steered layers together where there are several.
    stability : ndarray (dataset, vector, 3)
        2.5%, 50% and 97.5% quantile of the cosine between a vector and its bootstrap refits; NaN without refits.
        A refit shares the vector's own error: in many dimensions those of mean differences agree to about 1/√(2 − c²),
        c being the vector's cosine with the true direction, so that pairs of pure noise show about 0.71. No yardstick
        for the cosine between settings: those are fitted to the same pairs and share their errors, which raises it.
    norm : ndarray (dataset, vector)
        Norm before rescaling; NaN where not recorded.
    """

    datasets: tuple[str, ...]
    vectors: tuple[str, ...]
    cosine: np.ndarray
    stability: np.ndarray
    norm: np.ndarray

    def to_frame(self) -> pd.DataFrame:
        """One row per dataset and pair of vectors (each pair once, a vector with itself left out)."""
        first, second = np.triu_indices(len(self.vectors), k=1)
        names = [(name, self.vectors[a], self.vectors[b]) for name in self.datasets for a, b in zip(first, second)]
        frame = pd.DataFrame(names, columns=["dataset", "vector_a", "vector_b"])
        frame["cosine"] = self.cosine[:, first, second].ravel()
        for key, own in (("a", first), ("b", second)):
            for k, quantile in enumerate(("low", "median", "high")):
                frame[f"stability_{key}_{quantile}"] = self.stability[:, own, k].ravel()
            frame[f"raw_norm_{key}"] = self.norm[:, own].ravel()
        return frame


@dataclass(frozen=True, kw_only=True)
class MultiplierRange(Result):
    """Does steerability depend on how far the vector is pushed?

    Parameters
    ----------
    frame : DataFrame
        One row per dataset and range |λ| ≤ c: mean slope with its interval, the correlation over inputs with the
        slope over the whole grid, and the share of inputs whose slope has the other sign.
    shift : str
    """

    frame: pd.DataFrame
    shift: str

    def to_frame(self) -> pd.DataFrame:
        """One row per dataset and range."""
        return self.frame.copy()


@dataclass(frozen=True, kw_only=True)
class NullComparison(Result):
    """The vectors against vectors that know nothing; the two nulls answer different questions and stay apart.

    Parameters
    ----------
    random, shuffled : NullTable or None
        Random directions, and label-shuffled vectors, of the same norm; None where the cache has none.
    shift : str
    """

    random: NullTable | None
    shuffled: NullTable | None
    shift: str

    def to_frame(self) -> pd.DataFrame:
        """One row per kind of null and dataset."""
        return pd.concat([t.to_frame() for t in (self.random, self.shuffled) if t is not None], ignore_index=True)


@dataclass(frozen=True, kw_only=True)
class Debiased(Result):
    """What projecting the A/B and Yes/No directions out of the vector changes.

    Parameters
    ----------
    loss : mapping of dataset to Estimate
        Mean steerability lost, own minus debiased, paired by input; nats per unit multiplier.
    effects : DataFrame
        One row per dataset and term (pos_is_a, pos_is_yes): the effect on the slope under the vector and under the
        debiased one, each with its robust standard error and interval.
    shift : str
    """

    loss: Mapping[str, Estimate]
    effects: pd.DataFrame
    shift: str

    def to_frame(self) -> pd.DataFrame:
        """One row per dataset: the loss of mean steerability with its interval and method."""
        rows = [one.to_frame().assign(dataset=name, method=one.method) for name, one in self.loss.items()]
        frame = pd.concat(rows, ignore_index=True)
        return frame[["dataset", *[name for name in frame.columns if name != "dataset"]]]


def range_rows(
    dataset: str, slopes: np.ndarray, ranges: np.ndarray, question: np.ndarray, level: float
) -> pd.DataFrame:
    """Rows of `MultiplierRange` for one dataset; `slopes` is (input, range), the last range the whole grid."""
    mean, se, low, high, n = question_means(slopes.T, question, level)
    whole = slopes[:, -1]
    known = [varies(own) and varies(whole) for own in slopes.T]
    return pd.DataFrame(
        {
            "dataset": dataset,
            "range": ranges,
            "mean": mean,
            "se": se,
            "ci_low": low,
            "ci_high": high,
            "correlation_with_whole": [
                np.corrcoef(own, whole)[0, 1] if fine else np.nan for own, fine in zip(slopes.T, known)
            ],
            "share_other_sign": (np.sign(slopes) * np.sign(whole)[:, None] < 0).mean(axis=0),
            "level": level,
            "n": n,
            "se_type": "linearised over questions",
        }
    )
