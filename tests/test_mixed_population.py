"""Pooled datasets: a model that lets nothing differ between them says so; terms per dataset are heard."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from study_caches import written

import steerstats
from steerstats.cache import UnitData
from steerstats.errors import InputError
from steerstats.mixed import fit_mixed, two_stage
from steerstats.mixed.population import twin_warnings
from steerstats.simulate import SimulationTruth, simulate_unit

LAM = np.linspace(-1.5, 1.5, 7)
POOLED = "are pooled without a random term in it"


def datasets_frame(rng, datasets=6, n=20, sd_bias=0.0):
    """`datasets` datasets of n inputs; the effect of a on the slope has mean 0 and varies over datasets by sd_bias."""
    a = np.arange(n) % 2 - 0.5
    slopes = rng.normal(size=(datasets, n)) * 0.6 + rng.normal(size=(datasets, 1)) * sd_bias * a
    Y = rng.normal(size=(datasets, n, 1)) + slopes[..., None] * LAM + 0.3 * rng.normal(size=(datasets, n, 7))
    index = np.repeat(np.arange(datasets * n), 7)
    return pd.DataFrame(
        {
            "dataset": [f"d{k // n}" for k in index],
            "input": index % n,
            "unique": index,
            "lam": np.tile(LAM, datasets * n),
            "a": np.tile(np.repeat(a, 7), datasets),
            "y": Y.ravel(),
        }
    )


def pooled_warnings(fit):
    return [text for text in fit.warnings if POOLED in text]


@pytest.mark.parametrize(
    ("random", "population"),
    [
        ("(1 + lam | dataset:input)", None),
        ("(1 + lam | unique:dataset)", None),
        ("(1 + lam || dataset:input)", None),
        ("(1 + lam | unique)", "dataset"),
    ],
)
def test_datasets_without_a_term_of_their_own_are_named_first(random, population):
    fit = fit_mixed(f"y ~ lam * a + {random}", datasets_frame(np.random.default_rng(1)), population=population)
    (said,) = pooled_warnings(fit)
    assert fit.warnings[0] == said
    assert said.startswith("6 levels of 'dataset'")
    assert "Intercept, lam, a, lam:a count as the same" in said
    assert "add (1 + lam + a + lam:a | dataset)" in said
    assert "two_stage" in said


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ lam * a + (1 + lam * a | dataset) + (1 + lam | dataset:input)",
        "y ~ lam * a + (1 | dataset / input)",
        "y ~ lam * a * dataset + (1 + lam | dataset:input)",
    ],
)
def test_terms_by_dataset_random_or_fixed_are_enough(formula):
    fit = fit_mixed(formula, datasets_frame(np.random.default_rng(2)), population="dataset")
    assert not pooled_warnings(fit)


def test_only_the_effects_that_datasets_share_are_named():
    frame = datasets_frame(np.random.default_rng(3))
    (said,) = pooled_warnings(fit_mixed("y ~ lam * (dataset + a) + (1 + lam | dataset:input)", frame))
    assert "in it: a, lam:a count as" in said
    assert "add (0 + a + lam:a | dataset)" in said


def test_one_dataset_and_one_factor_have_nothing_to_say():
    frame = datasets_frame(np.random.default_rng(4))
    one = frame[frame["dataset"] == "d0"]
    assert not pooled_warnings(fit_mixed("y ~ lam * a + (1 + lam | dataset:input)", one, population="dataset"))
    assert not pooled_warnings(fit_mixed("y ~ lam * a + (1 + lam | unique)", frame))
    with pytest.raises(InputError, match=r"'datset' of formula .* is not in the frame"):
        fit_mixed("y ~ lam * a + (1 + lam | unique)", frame, population="datset")


def test_the_warning_is_about_a_real_error_and_names_the_cure():
    """Bias varying over six datasets around 0: N - p rejects it far too often, two stages do not."""
    rng = np.random.default_rng(5)
    rejected = []
    for _ in range(60):
        frame = datasets_frame(rng, sd_bias=0.6)
        naive = fit_mixed("y ~ lam * a + (1 + lam | dataset:input)", frame).to_frame().set_index("term")
        honest = two_stage("y ~ lam * a + (1 + lam | unique)", frame).to_frame().set_index("term")
        rejected.append([naive.loc["lam:a", "p"] < 0.05, honest.loc["lam:a", "p"] < 0.05])
    naive, honest = np.mean(rejected, axis=0)
    assert naive > 0.2
    assert honest < 0.15


def test_a_study_of_several_datasets_warns_whatever_the_input_column_is_called():
    study = steerstats.open_cache(steerstats.demo_cache())
    assert pooled_warnings(study.fit_mixed("y ~ lam * pos_is_a + (1 + lam | input)"))
    one = steerstats.open_cache(steerstats.demo_cache(), datasets=["likes-rain"])
    assert not pooled_warnings(one.fit_mixed("y ~ lam + (1 + lam | input)"))


# --- copies of a question ---------------------------------------------------------------------------------------

SHARED = "share their question with others"
FIXED = "y ~ lam * (pos_is_a + pos_is_yes)"
RIGHT = "(1 + lam | question) + (1 + lam | question:input)"


def twins_frame(rng, questions=20, orders=2, datasets=1):
    """Both orders of every question, whose slopes share nine tenths of their variance; nothing has an effect."""
    question = np.repeat(np.arange(questions), orders)
    n, shape = question.size, (datasets, questions)
    heights = rng.normal(size=shape)[:, question] + 0.5 * rng.normal(size=(datasets, n))
    slopes = np.sqrt(0.9) * rng.normal(size=shape)[:, question] + np.sqrt(0.1) * rng.normal(size=(datasets, n))
    Y = heights[..., None] + slopes[..., None] * LAM + 0.1 * rng.normal(size=(datasets, n, 7))
    return pd.DataFrame(
        {
            "dataset": np.repeat([f"d{k}" for k in range(datasets)], n * 7),
            "input": np.tile(np.repeat(np.arange(n), 7), datasets),
            "question": np.tile(np.repeat(question, 7), datasets),
            "lam": np.tile(LAM, datasets * n),
            "pos_is_a": np.tile(np.repeat(np.arange(n) % 2 - 0.5, 7), datasets),
            "pos_is_yes": np.tile(np.repeat(question % 2 - 0.5, 7), datasets),
            "y": Y.ravel(),
        }
    )


@pytest.mark.parametrize(
    ("random", "words"),
    [
        ("(1 + lam | input)", "no random term by 'question'"),
        ("(1 + lam | dataset:input)", "no random term by 'question'"),
        ("(1 + lam || input)", "no random term by 'question'"),
        ("(1 + lam | question:input)", "no random term by 'question'"),
        ("(1 | question) + (1 + lam | input)", "too little by 'question' (1)"),
    ],
)
def test_copies_of_a_question_that_count_as_independent_are_named_with_the_cure(random, words):
    frame = twins_frame(np.random.default_rng(6))
    (said,) = twin_warnings(f"{FIXED} + {random}", frame)
    assert said.startswith("40 of 40 inputs share their question with others (20 of 20 questions)")
    assert f"the formula has {words}: " in said
    assert said.endswith(f"fit {RIGHT}")
    inputs = frame["input"].drop_duplicates().to_numpy()
    some = frame[~frame["input"].isin(inputs[1:10:2])]  # the second copies of five questions
    (said,) = twin_warnings(f"{FIXED} + {random}", some)
    assert said.startswith("30 of 35 inputs share their question with others (15 of 20 questions)")


@pytest.mark.parametrize(
    "random",
    [RIGHT, "(1+lam|question) + (1 + lam | input)", "(1 + lam | question / input)", "(1 | dataset:question)"],
)
def test_a_term_by_question_is_enough(random):
    assert not twin_warnings(f"{FIXED} + {random}", twins_frame(np.random.default_rng(7)))


def test_only_fitted_rows_count_and_equal_questions_of_two_datasets_are_two():
    frame = twins_frame(np.random.default_rng(8))
    formula = f"{FIXED} + (1 + lam | input)"
    once = frame.assign(pos_is_yes=frame["pos_is_yes"].where(frame["input"] % 2 == 0))
    assert not twin_warnings(formula, once)
    assert twin_warnings("y ~ lam + (1 + lam | input)", once)
    single = twins_frame(np.random.default_rng(8), orders=1, datasets=2)
    assert not twin_warnings(formula, single)
    (said,) = twin_warnings(formula, twins_frame(np.random.default_rng(8), datasets=2))
    assert said.startswith("80 of 80 inputs")
    assert said.endswith(f"fit {RIGHT} one dataset at a time, or pool that with `two_stage`")


def test_copies_reject_far_too_often_and_the_formula_named_does_not():
    rng = np.random.default_rng(9)
    rejected = []
    for _ in range(35):
        frame = twins_frame(rng)
        fits = [fit_mixed(f"{FIXED} + {random}", frame) for random in ("(1 + lam | input)", RIGHT)]
        rejected.append([fit.to_frame().set_index("term").loc[["lam", "lam:pos_is_yes"], "p"] < 0.05 for fit in fits])
    naive, right = np.mean(rejected, axis=(0, 2))
    assert naive > 0.1
    assert right < 0.1


def test_a_study_says_which_inputs_share_a_question(tmp_path):
    truth = SimulationTruth(datasets=1, n_inputs=12, n_pairs=6, wiggle_sd=0.1)
    data, _ = simulate_unit(truth, "sim-00")
    question = np.repeat(data.arrays["input_question"][::2], 2)
    twins = UnitData({**data.arrays, "input_question": question}, data.attrs)
    study = steerstats.open_cache(written(tmp_path, {"sim-00": twins}))
    assert any(SHARED in text for text in study.fit_mixed("y ~ lam + (1 + lam | input)").warnings)
    assert not any(SHARED in text for text in study.fit_mixed(f"y ~ lam + {RIGHT}").warnings)
