"""Two models' vector errors: correlated over the resamples of training pairs that both name, and over no others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from steerstats.generalization import SlopeGrid, cross_model_agreement

NAMES = [f"r{k}" for k in range(10)]


def models() -> tuple[SlopeGrid, SlopeGrid]:
    """Refits of the second model deviate just as those of the first do, and inputs have no noise of their own."""
    rng = np.random.default_rng(0)
    pair = []
    wobble = {f"d{k}": rng.normal(0, 0.4, (10, 1, 1, 1)) for k in range(9)}
    for _ in range(2):
        slopes = {name: rng.normal() + rng.normal(0, 1e-6, (1, 1, 20)) for name in wobble}
        refits = {name: slopes[name] + wobble[name] for name in wobble}
        pair.append(SlopeGrid(train=("base",), evaluate=("base",), slopes=slopes, refits=refits))
    return pair[0], pair[1]


def noise_correlation(first: SlopeGrid, second: SlopeGrid) -> float:
    questions = {name: [f"q{i}" for i in range(20)] for name in first.datasets}
    sides = [replace(one, question=questions) for one in (first, second)]
    found = cross_model_agreement(*sides, ["base->base"], rng=np.random.default_rng(0), n_resamples=50)
    return float(found.noise_correlation[0])


def named(grid: SlopeGrid, names: list[str], rows: list[int] | None = None) -> SlopeGrid:
    refits = grid.refits if rows is None else {name: values[rows] for name, values in grid.refits.items()}
    return replace(grid, refits=refits, refit_draw=dict.fromkeys(grid.datasets, names))


def test_replicates_are_matched_by_name_and_not_by_place():
    first, second = models()
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    turned = named(second, [NAMES[k] for k in order], order)
    assert noise_correlation(named(first, NAMES), turned) == pytest.approx(1, abs=1e-6)
    half = named(second, NAMES[:6], list(range(6)))
    assert noise_correlation(named(first, NAMES), half) > 0.7, "also where one model has fewer refits"


def test_other_pairs_resamples_have_nothing_in_common():
    first, second = models()
    other = named(second, [f"elsewhere{k}" for k in range(10)])
    assert noise_correlation(named(first, NAMES), other) == pytest.approx(0, abs=1e-9)
    assert noise_correlation(first, second) == pytest.approx(1, abs=1e-6), "without names, by number"
