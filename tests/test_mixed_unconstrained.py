"""Standard errors with missing cells: those of the closed form as far as it reaches, and tests of the right size."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from steerstats.mixed import fit_mixed, joint_test
from steerstats.mixed.formula import build_design
from steerstats.mixed.unconstrained import unconstrained_covariance

LAM = np.linspace(-1.5, 1.5, 7)
FORMULA = "y ~ lam * a + (1 + lam | input)"


def make_frame(rng, n=60, sd_slope=0.1, lack_of_fit=1.0):
    """Curves that bend: `lack_of_fit` is orthogonal to lines, so small slope spreads lie on REML's boundary."""
    a = np.arange(n) % 2
    b = rng.normal(size=(n, 2)) * [1, sd_slope]
    bent = rng.normal(size=(n, 7))
    Z = np.column_stack([np.ones(7), LAM])
    Y = b @ Z.T + lack_of_fit * (bent - bent @ Z @ np.linalg.pinv(Z))
    columns = {"input": np.repeat(np.arange(n), 7), "lam": np.tile(LAM, n), "a": np.repeat(a, 7), "y": Y.ravel()}
    return pd.DataFrame(columns)


def free(frame, formula=FORMULA, **changes):
    design, fit = build_design(formula, frame), fit_mixed(formula, frame, engine="sufficient")
    given = {"beta": fit.estimate, "psi": fit.variance.psi[0], "sigma2": fit.variance.sigma2} | changes
    return unconstrained_covariance(
        design.y, design.X, design.Z[0], design.codes[0], np.zeros(design.Z[0].shape[1], int), **given
    )


@pytest.mark.parametrize("sd_slope", [0.1, 0.8])
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", [FORMULA, "y ~ lam * a + I(lam ** 2) + (1 + lam | input)", "y ~ a + (1 | input)"])
def test_on_complete_designs_they_are_those_of_the_closed_form(sd_slope, reml, formula):
    frame = make_frame(np.random.default_rng(1), n=24, sd_slope=sd_slope)
    exact, searched = (fit_mixed(formula, frame, engine=e, reml=reml) for e in ("closed_form", "sufficient"))
    np.testing.assert_allclose(searched.se, exact.se, rtol=1e-5)
    np.testing.assert_allclose(searched.covariance, exact.covariance, rtol=1e-4, atol=1e-6 * exact.covariance.max())
    assert set(searched.se_type) == {"unconstrained variance, containment df"}


def test_inside_the_parameter_space_they_are_the_models():
    frame = make_frame(np.random.default_rng(2), sd_slope=0.8, lack_of_fit=0.4).drop(index=[3, 30, 31, 200])
    fit = fit_mixed(FORMULA, frame)
    assert not fit.singular
    np.testing.assert_allclose(fit.covariance, fit.covariance_model, rtol=1e-6)


def test_the_system_is_that_of_the_dense_traces():
    """MINQUE with the n x n matrices written out, at weights that are nobody's optimum."""
    frame = make_frame(np.random.default_rng(3), n=12).sample(frac=0.7, random_state=1)
    design = build_design(FORMULA, frame)
    y, X, Z, codes = design.y, design.X, design.Z[0], design.codes[0]
    psi, sigma2 = np.array([[0.7, 0.2], [0.2, 0.3]]), 0.9
    same = codes[:, None] == codes[None, :]
    parts = [np.array([[1, 0], [0, 0]]), np.array([[0, 1], [1, 0]]), np.array([[0, 0], [0, 1]])]
    kernels = [(Z @ part @ Z.T) * same for part in parts] + [np.eye(len(y))]
    inverse = np.linalg.inv((Z @ psi @ Z.T) * same + sigma2 * np.eye(len(y)))
    M = np.linalg.inv(X.T @ inverse @ X)
    P = inverse - inverse @ X @ M @ X.T @ inverse
    system = [[np.trace(P @ a @ P @ b) for b in kernels] for a in kernels]
    theta = np.linalg.solve(system, [y @ P @ a @ P @ y for a in kernels])
    V = sum(t * kernel for t, kernel in zip(theta, kernels))
    expected = M @ X.T @ inverse @ V @ inverse @ X @ M
    beta = M @ X.T @ inverse @ y
    np.testing.assert_allclose(free(frame, beta=beta, psi=psi, sigma2=sigma2), expected, rtol=1e-8)


def test_one_missing_cell_moves_a_p_value_by_little():
    frame = make_frame(np.random.default_rng(4), sd_slope=0.1)
    whole, holed = fit_mixed(FORMULA, frame), fit_mixed(FORMULA, frame.drop(index=10))
    assert whole.singular
    assert (whole.engine, holed.engine) == ("closed_form", "sufficient")
    np.testing.assert_allclose(holed.se, whole.se, rtol=0.03)
    assert holed.se[3] < 0.9 * np.sqrt(holed.covariance_model[3, 3])  # what the constrained model would have said


@pytest.mark.parametrize("dropped", [0.0024, 0.3])
def test_slope_tests_hold_their_level_on_the_boundary(dropped):
    """60 inputs, slope SD .1, large lack of fit: the constrained standard errors reject next to nothing."""
    rng = np.random.default_rng(6)
    p, joint, constrained = [], [], []
    for _ in range(400):
        frame = make_frame(rng, sd_slope=0.1)
        frame = frame.drop(index=rng.choice(len(frame), max(int(dropped * len(frame)), 1), replace=False))
        fit = fit_mixed(FORMULA, frame)
        p.append(fit.to_frame().set_index("term").loc["lam:a", "p"])
        joint.append(joint_test(fit, ["lam:a"]).p)
        constrained.append(abs(fit.estimate[3]) > 2.0017 * np.sqrt(fit.covariance_model[3, 3]))
    assert 0.03 <= np.mean(np.array(p) < 0.05) <= 0.075
    assert np.mean(constrained) < 0.025
    np.testing.assert_allclose(joint, p, rtol=1e-8)


def test_without_an_exact_way_the_warning_says_conservative():
    rng = np.random.default_rng(7)
    parts = [make_frame(rng, n=10, sd_slope=0.1).assign(dataset=f"d{d}") for d in range(5)]
    nested = fit_mixed("y ~ lam + (1 + lam | dataset) + (1 + lam | dataset:input)", pd.concat(parts))
    assert nested.singular
    assert any("conservative on the boundary" in text for text in nested.warnings)
    assert set(nested.se_type) == {"model, containment df"}
    one = fit_mixed(FORMULA, make_frame(rng, sd_slope=0.1).drop(index=5))
    assert one.singular
    assert not any("conservative" in text for text in one.warnings)


def test_components_that_are_not_identified_give_nothing():
    frame = make_frame(np.random.default_rng(8), n=30)
    pairs = frame[frame["lam"].abs() == 1.5]  # two multipliers: Psi and sigma^2 cannot be told apart
    given = {"beta": np.zeros(4), "psi": np.eye(2), "sigma2": 1.0}
    design = build_design(FORMULA, pairs)
    assert unconstrained_covariance(design.y, design.X, design.Z[0], design.codes[0], np.zeros(2, int), **given) is None
