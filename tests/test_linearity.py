"""Linearity under skewed departures: how much too often it rejects is in the docstring, and the result says so."""

from __future__ import annotations

import numpy as np
import pytest

from steerstats.errors import CannotEstimate
from steerstats.linearity import linearity_test

GRID = np.array([-1.5, -1, -0.5, 0, 0.5, 1, 1.5])


def straight(rng: np.random.Generator, n: int, skewed: bool) -> np.ndarray:
    """Curves whose mean is a straight line, each with a curvature of its own."""
    curvature = rng.exponential(size=n) - 1 if skewed else rng.normal(size=n)
    return 2 * GRID + curvature[:, None] * GRID**2 + 0.3 * rng.normal(size=(n, 7))


@pytest.mark.parametrize(("skewed", "low", "high"), [(False, 0.03, 0.07), (True, 0.055, 0.1)])
def test_skewed_curvature_rejects_as_often_as_the_docstring_says(skewed, low, high):
    rng = np.random.default_rng(0)
    p = [linearity_test(straight(rng, 20, skewed), GRID).p_value for _ in range(700)]
    assert low < np.mean(np.array(p) < 0.05) < high


def test_two_questions_on_three_multipliers_are_too_few():
    curves = np.array([[0.0, 1.0, 2.2], [0.0, 1.0, 2.1]])
    with pytest.raises(CannotEstimate, match=r"2 questions for 1 non-linear contrast: .* at least 3"):
        linearity_test(curves, [-1, 0, 1])
    three = linearity_test(np.vstack([curves, [[0.0, 1.1, 2.4]]]), [-1, 0, 1])
    assert 0 < three.p_value < 1


def test_skewed_contrasts_over_few_questions_are_warned_of():
    rng = np.random.default_rng(1)
    few, many = (linearity_test(straight(rng, n, True), GRID) for n in (150, 200))
    assert few.warnings[0].startswith("the non-linear contrasts are skewed over 150 questions: the test rejects too")
    assert many.warnings == ()
    normal = [linearity_test(straight(rng, 150, False), GRID).warnings for _ in range(50)]
    assert sum(bool(found) for found in normal) <= 4
    assert "12-60 questions: 6-10% at 5%" in few.assumptions[0]
    assert "the vector is taken as given" in few.assumptions[2]
