"""Lines, linearity test, intervals, HC2 effects and Shapley shares against base R (reference/steerability.R)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from steerstats.spurious import spurious_factors, variance_explained
from steerstats.steerability import anti_steerable, fit_steerability, linearity_test, mean_slope

FOLDER = Path(__file__).parent / "reference"
GRID = np.array([-1.5, -1, -0.5, 0, 0.5, 1, 1.5])
EXACT = {"rtol": 1e-8, "atol": 1e-9}


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    fits = pd.read_csv(FOLDER / "steerability_fits.csv")
    return {name: rows.sort_values("index")["value"].to_numpy() for name, rows in fits.groupby("quantity")}


@pytest.fixture(scope="module")
def inputs() -> pd.DataFrame:
    return pd.read_csv(FOLDER / "steerability_inputs.csv")


@pytest.fixture(scope="module")
def curves(inputs) -> np.ndarray:
    return inputs[[f"y{k}" for k in range(1, 8)]].to_numpy()


@pytest.mark.parametrize("quantity", ["slope", "intercept", "r_squared", "rmse", "curvature", "monotonicity"])
def test_lines(reference, curves, quantity):
    np.testing.assert_allclose(getattr(fit_steerability(curves, GRID), quantity), reference[quantity], **EXACT)


def test_linearity(reference, curves):
    test = linearity_test(curves, GRID)
    np.testing.assert_allclose(test.f_statistic, reference["linearity_f"][0], rtol=1e-8)
    np.testing.assert_allclose(test.p_value, reference["linearity_p"][0], rtol=1e-6)


def test_mean_and_wilson_limits(reference, curves):
    slopes = fit_steerability(curves, GRID).slope
    mean, negative = mean_slope(slopes), anti_steerable(slopes)["negative"]
    np.testing.assert_allclose([mean.ci_low, mean.ci_high], reference["mean_limits"], **EXACT)
    np.testing.assert_allclose([negative.ci_low, negative.ci_high], reference["negative_limits"], **EXACT)


def test_effects_and_shares(reference, inputs, curves):
    slopes = fit_steerability(curves, GRID).slope
    factors = {"pos_is_a": inputs["a"], "pos_is_yes": inputs["yes"], "length_difference": inputs["len"]}
    effects = spurious_factors(slopes, factors, interactions=True).robust_frame()
    np.testing.assert_allclose(effects["estimate"], reference["effect"], **EXACT)
    np.testing.assert_allclose(effects["se"], reference["effect_hc2"], **EXACT)
    shares = variance_explained(slopes, factors, rng=np.random.default_rng(0), interactions=True, n_resamples=10)
    np.testing.assert_allclose(shares.share[:4], [*reference["shapley"], *reference["shapley_interaction"]], **EXACT)
