"""Slopes of a few datasets under every shift, with and without refits."""

from __future__ import annotations

import numpy as np

from steerstats.generalization import (
    SlopeGrid,
)

SETTINGS = ("base", "sys_pos", "sys_neg", "user_pos", "user_neg")


def make_grid(n_datasets: int = 3, n: int = 30, seed: int = 0, n_refits: int = 0, **extra) -> SlopeGrid:
    rng, slopes, refits = np.random.default_rng(seed), {}, {}
    for k in range(n_datasets):
        mean = rng.normal(2, 1) * rng.uniform(0.4, 1, (5, 5, 1))
        slopes[f"d{k}"] = mean + rng.normal(0, 1, n) + rng.normal(0, 0.5, (5, 5, n))
        if n_refits:
            refits[f"d{k}"] = slopes[f"d{k}"] + rng.normal(0, 0.2, (n_refits, 5, 5, 1))
    return SlopeGrid(train=SETTINGS, evaluate=SETTINGS, slopes=slopes, refits=refits or None, **extra)
