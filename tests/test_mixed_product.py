"""The way without a model matrix: the same fit, taken only where it is exact, and no data remembered."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from steerstats.mixed import compare, engines, fit, fit_mixed, product
from steerstats.mixed.arrays import orthogonal
from steerstats.mixed.formula import build_design
from steerstats.mixed.product import product_design

LAM = np.linspace(-1.5, 1.5, 7)
FORMULA = "y ~ lam * (a + yes) + (1 + lam | input)"


def make_frame(rng, n=24):
    a, yes = np.arange(n) % 2, (np.arange(n) // 2) % 2
    Y = rng.normal(size=(n, 1)) + (1 + 0.4 * rng.normal(size=(n, 1)) + 0.3 * a[:, None]) * LAM + rng.normal(size=(n, 7))
    columns = {"input": np.repeat([f"i{k}" for k in range(n)], 7), "lam": np.tile(LAM, n)}
    factors = {"a": np.repeat(a, 7), "yes": np.repeat(yes, 7), "length": np.repeat(rng.normal(size=n), 7)}
    return pd.DataFrame(columns | factors | {"y": Y.ravel()})


@pytest.fixture
def frame():
    return make_frame(np.random.default_rng(1))


def by_matrix(formula, frame, reml=True):
    """The fit through `build_design`, whatever `fit_mixed` would choose."""
    design = build_design(formula, frame)
    return fit._result(design, engines.with_closed_form(design, reml)[0], reml, 0.95)


FORMULAS = [
    FORMULA,
    "y ~ lam * a * yes * length + (1 + lam | input)",
    "y ~ yes:lam + lam + yes + 1 + (lam | input)",
    "y ~ 0 + lam + lam:a + (0 + lam | input)",
    "y ~ a + (1 | input)",
    "y ~ 1 + (1 | input)",
    "y ~ (lam + lam:lam2 + lam2) * a + (1 + lam * lam2 | input)",
]


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", FORMULAS)
def test_both_ways_give_one_fit(frame, formula, reml):
    frame = frame.assign(lam2=frame.lam**2)
    assert product_design(formula, frame) is not None
    ours, known = fit_mixed(formula, frame, reml=reml), by_matrix(formula, frame, reml)
    assert (ours.terms, ours.columns, ours.n_groups) == (known.terms, known.columns, known.n_groups)
    assert (ours.engine, ours.engine_reason, ours.warnings) == (known.engine, known.engine_reason, known.warnings)
    for name in ("estimate", "se", "df", "covariance", "covariance_model"):
        np.testing.assert_allclose(getattr(ours, name), getattr(known, name), rtol=1e-9, atol=1e-12)
    assert ours.criterion == pytest.approx(known.criterion, rel=1e-12)
    np.testing.assert_allclose(ours.variance.psi[0], known.variance.psi[0], atol=1e-10)
    pd.testing.assert_frame_equal(ours.to_frame(), known.to_frame(), rtol=1e-8)


@pytest.mark.parametrize("formula", FORMULAS)
def test_its_matrix_and_fingerprint_are_those_of_the_built_design_bit_by_bit(frame, formula):
    frame = frame.assign(lam2=frame.lam**2)
    compact, built = product_design(formula, frame), build_design(formula, frame)
    np.testing.assert_array_equal(compact.X, built.X)
    np.testing.assert_array_equal(compact.y, built.y)
    ours, known = fit_mixed(formula, frame).fingerprint, by_matrix(formula, frame).fingerprint
    assert (ours[0], ours[1]) == (known[0], known[1])


def test_likelihood_ratios_work_across_the_two_ways(frame):
    big, small = fit_mixed(FORMULA, frame), fit_mixed("y ~ lam * (a + yes) + (1 | input)", frame)
    assert product_design("y ~ lam * (a + yes) + (1 | input)", frame) is None  # fixed lambda without a random one
    test = compare(small, big)
    assert test.statistic == pytest.approx(small.criterion - big.criterion)


def test_the_same_formula_on_other_columns_gives_other_numbers(frame):
    """What is remembered is the text: values, levels and rows are read anew."""
    first = fit_mixed(FORMULA, frame)
    moved = frame.assign(a=np.repeat(np.random.default_rng(2).permutation(frame.a[::7]), 7), y=frame.y**2)
    renamed = moved.assign(input=moved.input.str.upper()).iloc[: 20 * 7]
    for other in (moved, renamed):
        found, known = fit_mixed(FORMULA, other), by_matrix(FORMULA, other)
        np.testing.assert_allclose(found.estimate, known.estimate, rtol=1e-9)
        assert dict(found.n_groups) == dict(known.n_groups)
    np.testing.assert_array_equal(fit_mixed(FORMULA, frame).estimate, first.estimate)


def test_the_same_formula_on_other_dtypes_is_read_anew(frame):
    numeric = fit_mixed("y ~ lam * a + (1 + lam | input)", frame)
    for kind in (frame.a.map({0: "no", 1: "yes"}), frame.a.astype("category")):
        text = fit_mixed("y ~ lam * a + (1 + lam | input)", frame.assign(a=kind))
        assert text.terms[2].startswith("a[T.")
        assert text.estimate[3] == pytest.approx(numeric.estimate[3])
    for kind in ("bool", "int8", "float32", "Int64", "Float64"):
        again = fit_mixed("y ~ lam * a + (1 + lam | input)", frame.assign(a=frame.a.astype(kind)))
        assert again.terms == numeric.terms
        np.testing.assert_allclose(again.estimate, numeric.estimate, rtol=1e-9)


@pytest.mark.parametrize("kind", ["object", "category", "int", "string"])
def test_groups_of_any_type_are_told_apart(frame, kind):
    labels = frame.input.str[1:].astype(int) if kind == "int" else frame.input.astype(kind)
    found = fit_mixed(FORMULA, frame.assign(input=labels))
    np.testing.assert_allclose(found.estimate, by_matrix(FORMULA, frame).estimate, rtol=1e-9)


LABELS = ["object", "category", "int", "float", "string", "string[python]", "inferred", "datetime64[ns]"]


@pytest.mark.parametrize("kind", LABELS)
def test_groups_are_whole_blocks_of_rows_in_labels_of_any_type(kind):
    """Against the definition, block by block: a label that comes back, is missing, or has another number of rows."""

    def labels(numbers):
        series = pd.Series(numbers, dtype=float)
        if kind in ("int", "float"):
            return series.astype("Int64" if kind == "int" and series.hasnans else kind)
        if kind.startswith("datetime"):
            return pd.to_datetime(series, unit="D")
        texts = series.map(lambda number: None if np.isnan(number) else f"g{number:.0f}")
        return texts if kind == "inferred" else texts.astype(kind)

    whole = [4, 4, 4, 9, 9, 9, 2, 2, 2]
    assert product._rows_per_group(labels(whole)) == 3
    assert product._rows_per_group(labels(whole * 2)) == 0
    nan = float("nan")
    for other in (
        [],
        [4, 4, 4],
        [4, 9, 2],
        [4, 4, 4, 9, 9, 9, 4, 4, 4],
        [4, 4, 9, 9, 4, 4],
        [4, 4, 9, 9, 9, 2, 2, 2, 4],
        [4, 4, 4, 9, 9, 9, nan, nan, nan],
        [4, 4, 4, 9, 9, 9, 2, 2, nan],
        [4, 4, 4, 9, 9, 2, 2, 2, 2],
        [4, 4, 9, 9, 9, 9],
    ):
        assert product._rows_per_group(labels(other)) == 0, other


@pytest.mark.parametrize("shape", [(9, 1), (9, 4), (4, 4)])
@pytest.mark.parametrize("complete", [True, False])
def test_the_decomposition_is_numpys(shape, complete):
    matrix = np.random.default_rng(4).normal(size=shape)
    Q, R = np.linalg.qr(matrix, mode="complete" if complete else "reduced")
    ours = orthogonal(matrix, complete=complete)
    np.testing.assert_allclose(ours.Q[:, : shape[1]], Q[:, : shape[1]], atol=1e-14)
    np.testing.assert_allclose(ours.Q.T @ ours.Q, np.eye(len(Q.T)), atol=1e-14)
    np.testing.assert_allclose(ours.R, R[: shape[1]], atol=1e-14)


def test_many_related_columns_are_not_taken_for_collinear_ones():
    """Their determinant is tiny, the smallest eigenvalue is not: the second look decides."""
    rng = np.random.default_rng(5)
    near = [orthogonal(rng.normal(size=(60, 1)) + scale * rng.normal(size=(60, 9))).R for scale in (0.3, 1e-5)]
    assert [product._far_from_collinear(R, np.eye(2)) for R in near] == [True, False]
    assert not product._far_from_collinear(np.diag([1.0, 0.0]), np.eye(2))


def changed(name):
    frame = make_frame(np.random.default_rng(3))
    if name == "a missing response":
        frame.loc[5, "y"] = np.nan
    elif name == "a missing label":
        frame.loc[5, "input"] = None
    elif name == "rows out of order":
        frame = frame.sample(frac=1, random_state=1)
    elif name == "one multiplier of its own":
        frame.loc[9, "lam"] = 0.1
    elif name == "one row less":
        frame = frame.drop(index=8)
    elif name == "a factor that varies within one input":
        frame.loc[3, "a"] = 1 - frame.loc[3, "a"]
    elif name == "a label that comes back":
        frame["input"] = np.where(frame.input == "i7", "i3", frame.input)
    elif name == "aliased":
        frame["yes"] = frame["a"]
    elif name == "nearly aliased":
        frame["yes"] = frame["a"] + 1e-6 * frame["length"]
    elif name == "a column of zeros":
        frame["yes"] = 0
    return frame


@pytest.mark.parametrize(
    "name",
    [
        "a missing response",
        "a missing label",
        "rows out of order",
        "one multiplier of its own",
        "one row less",
        "a factor that varies within one input",
        "a label that comes back",
        "aliased",
        "nearly aliased",
        "a column of zeros",
    ],
)
def test_whatever_is_not_a_full_product_of_whole_groups_goes_the_general_way(name):
    frame = changed(name)
    assert product_design(FORMULA, frame) is None
    found = fit_mixed(FORMULA, frame)
    design = build_design(FORMULA, frame)
    assert found.n_obs == len(design.y)
    assert found.aliased == design.aliased
    assert (found.aliased != ()) == (name in ("aliased", "a column of zeros"))


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ lam * a + yes + (1 + lam | input)",
        "y ~ np.exp(lam) * a + (1 + np.exp(lam) | input)",
        "y ~ lam + (1 + lam || input)",
        "np.exp(y) ~ lam + (1 + lam | input)",
    ],
)
def test_other_formulas_go_the_general_way(frame, formula):
    assert product_design(formula, frame) is None
    assert fit_mixed(formula, frame).terms == build_design(formula, frame).names


def test_a_fit_keeps_its_own_numbers_when_the_frame_changes(frame):
    fitted = fit_mixed(FORMULA, frame)
    digest = fitted.fingerprint[0], fitted.fingerprint[1]
    frame.loc[:, "y"] = 0.0
    frame.loc[:, "a"] = 1
    assert (fitted.fingerprint[0], fitted.fingerprint[1]) == digest
