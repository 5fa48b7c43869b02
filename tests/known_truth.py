"""Curves, biased slopes and grids drawn from a known truth, for tests of several rooms."""

from __future__ import annotations

import numpy as np

from steerstats.generalization import SlopeGrid

GRID = np.array([-1.5, -1, -0.5, 0, 0.5, 1, 1.5])


def curves(seed: int, *shape: int, grid: np.ndarray = GRID) -> np.ndarray:
    rng = np.random.default_rng(seed)
    a, b, c, d = rng.normal(size=(4, *shape, 1))
    return 3 * a + b * grid + 0.3 * c * grid**2 + 0.2 * d * grid**3 + 0.05 * rng.normal(size=(*shape, grid.size))


def biased(rng: np.random.Generator, n: int = 60, a: float = 1.5, yes: float = -0.5, cross: float = 0.0):
    """Slopes with a bias of `a` for A over B, `yes` for Yes over No; a sixth of inputs are neither."""
    factors = {
        "pos_is_a": rng.permutation(np.arange(n) % 2),
        "pos_is_yes": rng.permutation(np.where(np.arange(n) % 6 == 0, -1, np.arange(n) % 3 == 1)),
    }
    x, z = factors["pos_is_a"] - 0.5, np.where(factors["pos_is_yes"] < 0, 0, factors["pos_is_yes"] - 0.5)
    return 1 + a * x + yes * z + cross * x * z + rng.normal(size=n), factors


def covers(fit, term: str, truth: float) -> bool:
    j = fit.robust.terms.index(term)
    return bool(fit.robust.ci_low[j, 0] <= truth <= fit.robust.ci_high[j, 0])


def make_grid(means: np.ndarray, n: int = 200, seed: int = 0, spread: float = 1.0, n_refits: int = 0) -> SlopeGrid:
    """Two cells, base->base and base->user_neg, with the given true means (n_datasets, 2)."""
    rng, slopes, refits = np.random.default_rng(seed), {}, {}
    for k, pair in enumerate(means):
        slopes[f"d{k}"] = (pair[:, None] + rng.normal(0, spread, n) + rng.normal(0, spread, (2, n)))[None]
        wobble = np.random.default_rng((seed, k)).normal(0, 0.3, (n_refits, 1, 2, 1))
        refits[f"d{k}"] = slopes[f"d{k}"] + wobble
    return SlopeGrid(train=("base",), evaluate=("base", "user_neg"), slopes=slopes, refits=refits if n_refits else None)


def true_means(rho: float, n: int = 20, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).multivariate_normal([2, 1], [[1, rho], [rho, 1]], n)
