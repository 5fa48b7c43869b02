"""What all calibration cells share: a cell, an outcome, and inputs whose law is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

COVERAGE, ERROR = 0.95, 0.05
RESAMPLES = 999
BLOCK = 250  # studies that share one matrix of bootstrap counts

SHAPES = {  # of skewness 0, 3.7, 6.2, 0.8
    "normal": "normal slopes",
    "lognormal": "lognormal slopes (log SD .8)",
    "very skewed": "lognormal slopes (log SD 1)",
    "mixture": "two groups of inputs, 4:1",
}


class Outcome(NamedTuple):
    """What one method did in every simulated study.

    `values` has one entry per study: whether the interval covered or the test rejected (bool), or a share (float).
    """

    quantity: str
    method: str
    target: float
    values: np.ndarray


@dataclass(frozen=True)
class Cell:
    """One simulated situation.

    Parameters
    ----------
    setting : str
        The situation in words.
    simulate : callable (rng, n_simulations) -> list of Outcome
    n_simulations : int
        Studies behind the committed table.
    """

    setting: str
    simulate: Callable[[np.random.Generator, int], list[Outcome]]
    n_simulations: int


def draw(shape: str, size: tuple[int, ...] | int, rng: np.random.Generator) -> np.ndarray:
    """Deviations of mean 0 and variance 1, of one of the `SHAPES`."""
    z = rng.standard_normal(size)
    if shape == "normal":
        return z
    if shape == "mixture":
        return np.where(rng.random(size) < 0.2, 1.6, -0.4) + 0.6 * z
    sigma = 0.8 if shape == "lognormal" else 1.0
    return (np.exp(sigma * z) - np.exp(sigma**2 / 2)) / np.sqrt(np.expm1(sigma**2) * np.exp(sigma**2))


def inside(low: np.ndarray | float, high: np.ndarray | float, truth: np.ndarray | float) -> np.ndarray:
    """Whether limits hold the truth; an undefined limit holds nothing."""
    return (np.asarray(low) <= truth) & (truth <= np.asarray(high))


def blocks(n: int) -> Iterator[int]:
    """Sizes of the blocks that n studies come in."""
    for start in range(0, n, BLOCK):
        yield min(BLOCK, n - start)
