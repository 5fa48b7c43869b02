"""Steerability bias where a question has several inputs: CR2 against its definition and against known truth."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from known_truth import GRID, biased, covers
from scipy import linalg

from steerstats import open_cache
from steerstats.cache.table import import_table
from steerstats.errors import CannotEstimate
from steerstats.mixed import hc2_bell_mccaffrey
from steerstats.spurious import cr2_bell_mccaffrey, spurious_factors
from steerstats.study.results import doubts

REFERENCE = Path(__file__).parent / "reference"


def test_cr2_with_one_input_per_question_is_hc2():
    rng = np.random.default_rng(6)
    X = np.column_stack([np.ones(30), rng.integers(0, 2, 30), rng.normal(size=30)])
    Y = rng.normal(size=(30, 2))
    names, labels = ["i", "a", "b"], ["y", "z"]
    ours, theirs = (
        cr2_bell_mccaffrey(X, Y, np.arange(30), names, responses=labels),
        hc2_bell_mccaffrey(X, Y, names, responses=labels),
    )
    for field in ("estimate", "se", "df", "p", "ci_low", "ci_high", "covariance", "leverage"):
        np.testing.assert_allclose(getattr(ours, field), getattr(theirs, field), rtol=1e-8, err_msg=field)


def test_cr2_agrees_with_its_definition_in_full_matrices():
    rng = np.random.default_rng(7)
    codes = rng.permutation([0, 0, 1, 1, 1, 2, 3, 3, 4, 4, 5, 5, 6])
    X = np.column_stack([np.ones(13), rng.integers(0, 2, 13), rng.normal(size=13)])
    y = rng.normal(size=13)
    fit = cr2_bell_mccaffrey(X, y[:, None], codes, ["i", "a", "b"], responses=["y"])
    M = np.linalg.inv(X.T @ X)
    annihilator = np.eye(13) - X @ M @ X.T
    e = annihilator @ y
    meat, vectors = np.zeros((3, 3)), []
    for g in range(7):
        rows = codes == g
        A = linalg.fractional_matrix_power(annihilator[np.ix_(rows, rows)], -0.5)
        score = X[rows].T @ A @ e[rows]
        meat += np.outer(score, score)
        vectors.append(annihilator[:, rows] @ A @ X[rows] @ M)
    covariance = M @ meat @ M
    np.testing.assert_allclose(fit.covariance[..., 0], covariance, rtol=1e-9)
    for j in range(3):
        P = np.column_stack([v[:, j] for v in vectors])
        eigenvalues = np.linalg.eigvalsh(P.T @ P)
        assert fit.df[j] == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum(), rel=1e-8)


@pytest.mark.parametrize("case", ["alone", "twins", "uneven"])
def test_cr2_agrees_with_clubsandwich(case):
    both = [pd.read_csv(REFERENCE / f"clustered_{name}.csv") for name in ("inputs", "fits")]
    inputs, fits = (frame[frame["case"] == case] for frame in both)
    X = np.column_stack([np.ones(len(inputs)), inputs[["a", "yes", "length"]]])
    y, names = inputs[["slope"]].to_numpy(), list(fits["term"])
    ours = cr2_bell_mccaffrey(X, y, inputs["question"], names, responses=["slope"])
    for column in ("estimate", "se", "df", "p", "ci_low", "ci_high"):
        np.testing.assert_allclose(ours.to_frame()[column], fits[column], rtol=1e-9, err_msg=column)


def test_twins_cover_both_crossed_and_between_question_effects_and_hc2_does_not():
    rng = np.random.default_rng(8)
    questions, a = np.repeat(np.arange(20), 2), np.tile([0, 1], 20)
    hits = {"pos_is_a": [], "pos_is_yes": []}
    naive = {"pos_is_a": [], "pos_is_yes": []}
    for _ in range(300):
        yes = np.repeat(rng.permutation(np.arange(20) % 2), 2)
        slopes = np.repeat(rng.normal(0, 2, 20), 2) + a + rng.normal(0, 0.5, 40)
        for questions_or_none, into in ((questions, hits), (None, naive)):
            fit = spurious_factors(slopes, {"pos_is_a": a, "pos_is_yes": yes}, questions=questions_or_none)
            for term, truth in (("pos_is_a", 1), ("pos_is_yes", 0)):
                into[term].append(covers(fit, term, truth))
    assert all(0.91 <= np.mean(h) <= 0.985 for h in hits.values())
    assert np.mean(naive["pos_is_a"]) > 0.995
    assert np.mean(naive["pos_is_yes"]) < 0.88


@pytest.mark.parametrize(("rare", "few"), [(4, True), (8, False)])
def test_few_degrees_of_freedom_are_a_warning_where_unequal_spread_still_shows(rare, few):
    """4 of 20 questions rare, three times the spread: type I .076 (4,000 rounds) at df 4.6, so a warning below 7."""
    rng = np.random.default_rng(1)
    level = np.arange(20) < rare
    X = np.column_stack([np.ones(40), np.repeat(level - 0.5, 2)])
    spread = np.where(level, 3.0, 1.0)[:, None]
    errors = np.repeat(0.8 * rng.normal(size=(20, 1500)) * spread, 2, axis=0)
    errors += 0.6 * rng.normal(size=(40, 1500)) * np.repeat(spread, 2, axis=0)
    names = [str(k) for k in range(1500)]
    fit = cr2_bell_mccaffrey(X, errors, np.repeat(np.arange(20), 2), ["one", "a"], responses=names)
    plain = hc2_bell_mccaffrey(X[::2], errors[::2])
    for found in (fit, plain):
        assert any("fewer than 7 degrees of freedom for" in text for text in found.warnings) == few
    if few:
        assert np.mean(fit.p[1] < 0.05) > 0.06


def test_datasets_of_few_questions_share_one_warning_that_names_few_of_them(tmp_path):
    rng, datasets = np.random.default_rng(0), tuple(f"set-{k:02d}" for k in range(12))
    rows = [
        {"dataset": name, "input": str(k), "setting_train": "base", "setting_eval": "base", "multiplier": lam,
         "propensity": lam * rng.normal(1, 0.5), "pos_is_a": str(k < 2 + j % 4), "pos_is_yes": str(k % 2 == 0)}
        for j, name in enumerate(datasets) for k in range(8) for lam in (-1, 0, 1)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    study = open_cache(import_table(tmp_path / "t.csv", tmp_path / "c", model="m"))
    (said,) = [text for text in study.spurious_factors().warnings if "fewer than 7 degrees" in text]
    assert said.startswith("all datasets: fewer than 7 degrees of freedom for Intercept, pos_is_a, pos_is_yes: ")
    few = doubts({name: SimpleNamespace(warnings=("odd",) * (k < 11)) for k, name in enumerate(datasets)}, {})
    assert few == ("set-00, set-01, set-02, set-03, set-04 and 6 more: odd",)


def test_datasets_with_twins_and_without_tell_what_each_assumes(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"dataset": name, "input": str(k), "question": f"q{k // times}", "setting_train": "base",
         "setting_eval": "base", "multiplier": lam, "propensity": lam * rng.normal(), "pos_is_a": str(k % 2 == 0)}
        for name, times in (("alone", 1), ("twins", 2)) for k in range(12) for lam in (-1, 0, 1)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    path = import_table(tmp_path / "t.csv", tmp_path / "c", model="m")
    told = {names: open_cache(path, datasets=names).spurious_factors(n_resamples=20) for names in ("alone", "twins")}
    rows, questions = "rows are independent", "questions are independent"
    assert rows in told["alone"].assumptions
    assert rows not in told["twins"].assumptions
    both = open_cache(path).spurious_factors(n_resamples=20)
    assert set(both.assumptions) == {text for one in told.values() for text in one.assumptions} >= {rows, questions}


def test_twins_leave_the_mixed_model_out_and_a_factor_of_one_question_is_an_error():
    rng = np.random.default_rng(9)
    slopes, factors = biased(rng, n=40)
    twins = np.arange(40) // 2
    fit = spurious_factors(slopes, factors, propensity=slopes[:, None] * GRID, multipliers=GRID, questions=twins)
    assert fit.mixed is None
    assert fit.n_questions == 20
    assert set(fit.to_frame()["se_type"]) == {"CR2, Bell-McCaffrey df"}
    lone = np.r_[1, 1, np.zeros(38)]
    with pytest.raises(CannotEstimate, match=r"pos_is_a is A in one question alone \(2 inputs\)"):
        spurious_factors(slopes, {"pos_is_a": lone}, questions=twins)
    X = np.column_stack([np.ones(40), lone])
    with pytest.raises(CannotEstimate, match="question 0 alone"):
        cr2_bell_mccaffrey(X, slopes[:, None], twins, ["one", "a"], responses=["slope"])


def test_an_effect_that_every_question_repeats_is_said_to_have_no_standard_error():
    """Inputs differ, so that no fit is exact, and yet the scores of every question cancel."""
    level = np.random.default_rng(2).normal(size=12)
    a = np.tile([0.0, 1.0], 12)
    slopes = np.repeat(level, 2) + 0.3 * a
    unsteered = np.random.default_rng(3).normal(size=24)
    fit = spurious_factors(slopes, {"pos_is_a": a}, unsteered=unsteered, questions=np.repeat(np.arange(12), 2))
    row = fit.term("pos_is_a")
    assert (row["estimate"], row["se"]) == (pytest.approx(0.3), 0.0)
    assert fit.term("Intercept")["se"] > 0.1
    assert any("every question shows the same pos_is_a of slope" in text for text in fit.warnings)


def test_twins_keep_their_question_where_other_inputs_are_left_out():
    """Inputs without a value of a numeric factor leave; what remains is what one would have got without them."""
    rng = np.random.default_rng(8)
    slopes, unsteered, length = rng.normal(size=(3, 30))
    letter, questions = np.arange(30) % 2, np.repeat(np.arange(10), 3)
    length[[0, 1, 2, 7, 8, 20]] = np.nan  # the first three are a question
    kept = ~np.isnan(length)
    whole = spurious_factors(
        slopes, {"pos_is_a": letter, "length_difference": length}, unsteered=unsteered, questions=questions
    )
    rest = spurious_factors(
        slopes[kept],
        {"pos_is_a": letter[kept], "length_difference": length[kept]},
        unsteered=unsteered[kept],
        questions=questions[kept],
    )
    assert (whole.n, whole.n_questions) == (24, 9)
    pd.testing.assert_frame_equal(whole.robust_frame(), rest.robust_frame())
