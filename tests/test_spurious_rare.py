"""Levels that one question holds alone cost that level and no other factor; rare levels are heard when pooled."""

from __future__ import annotations

import re

import numpy as np
import pytest
from paper_data import DATA, needs_data
from scipy import stats

from cache_builder.datasets import load_dataset, split_pairs
from steerstats.errors import CannotEstimate
from steerstats.spurious import (
    code_factors,
    factor_cells,
    pool_spurious_factors,
    published_variance_split,
    spurious_factors,
    variance_explained,
)
from steerstats.spurious.pooled import FEW_DF

N = 498
A = np.arange(N) % 2


def slopes(n: int = N, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n) + 0.5 * A[:n]


def yes_of(yes: int, no: int) -> np.ndarray:
    return np.r_[np.ones(yes), np.zeros(no), np.full(N - yes - no, -1)]


@pytest.mark.parametrize(
    ("yes", "terms", "words"),
    [
        (yes_of(98, 1), ("pos_is_a", "pos_is_yes[neither]"), r"pos_is_yes is No in one question alone \(1 input\)"),
        (yes_of(1, 0), ("pos_is_a",), r"pos_is_yes is Yes in one question alone \(1 input\).*neither in 497 inputs"),
        (yes_of(1, 1), ("pos_is_a",), "is Yes in one question alone .* and No in one question alone"),
        (yes_of(1, N - 1), ("pos_is_a",), "is Yes in one question alone .*; No in 497 inputs: no contrast is left"),
        (yes_of(0, N - 1), ("pos_is_a",), "is neither in one question alone .*; No in 497 inputs: no contrast is left"),
    ],
)
def test_a_level_of_one_question_leaves_and_the_other_factors_stay(yes, terms, words):
    factors = {"pos_is_a": A, "pos_is_yes": yes}
    fit = spurious_factors(slopes(), factors)
    assert fit.design.names == ("Intercept", *terms)
    assert fit.n == N
    (said,) = [text for text in fit.warnings if "one question alone" in text]
    assert re.search(words, said)
    assert fit.term("pos_is_a")["estimate"] == pytest.approx(0.5, abs=0.3)


def test_where_undefined_inputs_leave_a_lone_level_leaves_its_factor_and_is_no_neither():
    undefined = yes_of(98, 1)
    fit = spurious_factors(slopes(), {"pos_is_a": A, "pos_is_yes": undefined}, drop_undefined=True)
    assert fit.design.names == ("Intercept", "pos_is_a")
    assert fit.n == 99
    (said,) = [text for text in fit.warnings if "one question alone" in text]
    assert "no contrast is left, it is dropped" in said


@needs_data
def test_a_set_of_the_paper_with_one_no_is_not_lost():
    pairs = split_pairs(load_dataset("self-awareness-good-text-model", data_dir=DATA, order="balanced").pairs).test
    yes = np.array([{1: 1, 0: 0}.get(pair.pos_is_yes, -1) for pair in pairs])
    assert (yes == 0).sum() == 1
    factors, questions = {"pos_is_a": [pair.pos_is_a for pair in pairs], "pos_is_yes": yes}, [p.question for p in pairs]
    fit = spurious_factors(np.random.default_rng(0).normal(size=len(pairs)), factors, questions=questions)
    assert fit.design.names == ("Intercept", "pos_is_a", "pos_is_yes[neither]")
    assert any("pos_is_yes is No in one question alone (1 input)" in text for text in fit.warnings)


def test_what_is_folded_still_counts_in_shares_split_and_cells():
    factors, rng = {"pos_is_a": A, "pos_is_yes": yes_of(98, 1)}, np.random.default_rng(1)
    shares = variance_explained(slopes(), factors, rng=rng, n_resamples=50)
    assert shares.components[:2] == ("pos_is_a", "pos_is_yes")
    assert np.isfinite(shares.share).all()
    assert np.isfinite(published_variance_split(slopes(), factors, rng=rng, n_resamples=50).share).all()
    counts = factor_cells(slopes(), factors).to_frame().groupby("pos_is_yes")["n"].sum()
    assert counts.to_dict() == {"Yes": 98, "No": 1, "neither": 399}


def test_a_lone_neither_leaves_its_inputs_out_and_changes_no_other_estimate():
    yes = np.where(np.arange(N) == 5, -1, np.arange(N) // 2 % 2)
    factors = {"pos_is_a": A, "pos_is_yes": yes}
    fit = spurious_factors(slopes(), factors)
    assert fit.n == N - 1
    assert any("pos_is_yes is neither in one question alone (1 input)" in text for text in fit.warnings)
    whole = code_factors(factors, N)
    expected = np.linalg.lstsq(whole.columns, slopes(), rcond=None)[0]
    for name, value in zip(whole.names[:3], expected[:3]):
        assert fit.term(name)["estimate"] == pytest.approx(value, rel=1e-9)


def test_inputs_that_leave_may_leave_another_factor_with_a_level_of_one_question():
    yes, own = np.ones(N), (np.arange(N) // 3 % 2 == 0).astype(object)
    yes[[0, 1]], own[0] = 0, None  # without input 0, which alone has no level of its own factor, one No is left
    fit = spurious_factors(slopes(), {"pos_is_yes": yes, "factor_own": own, "pos_is_a": A})
    assert fit.design.names == ("Intercept", "factor_own", "pos_is_a")
    assert fit.n == N - 1
    assert any("pos_is_yes is No in one question alone (1 input)" in text for text in fit.warnings)


def test_twins_of_one_question_are_one_and_two_questions_are_enough():
    questions = np.arange(N) // 2
    alone = spurious_factors(slopes(), {"pos_is_a": A, "pos_is_yes": yes_of(98, 2)}, questions=questions)
    assert any("No in one question alone (2 inputs)" in text for text in alone.warnings)
    for yes, own in ((yes_of(98, 2), None), (yes_of(98, 4), questions)):
        fit = spurious_factors(slopes(), {"pos_is_a": A, "pos_is_yes": yes}, questions=own)
        assert np.isfinite(fit.term("pos_is_yes")["se"])
        assert not any("one question alone" in text for text in fit.warnings)


def test_a_cell_of_one_question_costs_the_interaction_alone():
    yes = np.where(A == 1, 1, np.arange(N) // 2 % 2)
    yes[7] = 0  # the only A and No
    fit = spurious_factors(slopes(), {"pos_is_a": A, "pos_is_yes": yes}, interactions=True)
    assert fit.design.names == ("Intercept", "pos_is_a", "pos_is_yes")
    assert any(text.startswith("pos_is_a:pos_is_yes: one question alone") for text in fit.warnings)
    yes = np.arange(N) // 2 % 2
    yes[[5, 6]] = -1  # one A and one B are neither
    fit = spurious_factors(slopes(), {"pos_is_a": A, "pos_is_yes": yes}, interactions=True)
    assert "pos_is_a:pos_is_yes" in fit.design.names
    assert any(text.startswith("pos_is_a:pos_is_yes[neither]: one question alone") for text in fit.warnings)


def test_a_numeric_factor_that_varies_in_one_question_goes_alone():
    length = np.zeros(N)
    length[3] = 9
    fit = spurious_factors(slopes(), {"length_difference": length, "pos_is_a": A})
    assert fit.design.names == ("Intercept", "pos_is_a")
    assert any(text.startswith("length_difference: one question alone") for text in fit.warnings)
    with pytest.raises(CannotEstimate, match="length_difference: one question alone"):
        spurious_factors(slopes(), {"length_difference": length})


def test_an_input_that_is_left_out_moves_no_other_to_another_question():
    length = np.zeros(N)
    length[[0, 100, 101]] = np.nan, 9, 5  # the two of one question alone
    fit = spurious_factors(slopes(), {"length_difference": length, "pos_is_a": A}, questions=np.arange(N) // 2)
    assert fit.design.names == ("Intercept", "pos_is_a")
    assert any(text.startswith("length_difference: one question alone") for text in fit.warnings)


def rare_fits(rng, rare: int, datasets: int = 10, n: int = 60, ordinary: int = 0) -> dict:
    """Effects of A, truly 0, in datasets with `rare` of n inputs A, and `ordinary` datasets with half."""
    counts = [rare] * datasets + [n // 2] * ordinary
    return {
        f"d{k}": spurious_factors(rng.normal(size=n), {"pos_is_a": np.arange(n) < count})
        for k, count in enumerate(counts)
    }


@pytest.mark.parametrize(("rare", "ordinary", "warned"), [(2, 0, 10), (10, 0, 10), (2, 4, 10), (20, 0, 0), (30, 2, 0)])
def test_rare_levels_are_named_when_pooled_and_the_unweighted_mean_is_to_be_read(rare, ordinary, warned):
    pooled = pool_spurious_factors(rare_fits(np.random.default_rng(2), rare, ordinary=ordinary))
    fit, row = pooled.pooled["slope", "pos_is_a"], pooled.to_frame().iloc[0]
    said = [text for text in pooled.warnings if "degrees of freedom" in text]
    least = min(pooled.datasets["df"])
    assert row["smallest_df"] == pytest.approx(least)
    assert (least < FEW_DF) == bool(warned)
    expected = 2 * stats.t.sf(abs(fit.unweighted_mean / fit.unweighted_se), fit.n - 1)
    assert row["p_unweighted"] == pytest.approx(expected)
    if warned:
        (text,) = said
        assert text.startswith(
            f"effect of pos_is_a on steerability: {warned} of {warned + ordinary} datasets have fewer than 20 degrees"
        )
        assert f"(the fewest: {least:.1f}, in d0)" in text
        assert fit.to_read == row["to_read"] == "unweighted"
        assert not any("read the floored one" in text for text in pooled.warnings), "one piece of advice, not two"
    else:
        assert not said
        assert fit.to_read != "unweighted"


def test_few_questions_of_which_half_are_a_are_not_said_to_be_a_rare_level():
    pooled = pool_spurious_factors(rare_fits(np.random.default_rng(2), 4, datasets=3, n=8))
    (text,) = (text for text in pooled.warnings if "fewer than 20 degrees" in text)
    assert "as questions are few or a level is rare there" in text
    assert "rare" not in pooled.pooled["slope", "pos_is_a"].why_to_read
    alone = spurious_factors(np.random.default_rng(2).normal(size=6), {"pos_is_a": np.arange(6) < 3})
    assert any("questions are few, or a factor level is rare" in text for text in alone.warnings)


def test_the_choice_is_the_one_that_holds_its_level():
    """2 of 60 rare, no effect and no difference: Q rejected 76%, Hartung-Knapp 9-12%, the unweighted mean 4-5%."""
    rng = np.random.default_rng(3)
    rejected = []
    for _ in range(90):
        pooled = pool_spurious_factors(rare_fits(rng, 2), terms=["pos_is_a"])
        key = ("slope", "pos_is_a")
        rejected.append([pooled.pooled[key].q_p < 0.05, pooled.p_unweighted[key] < 0.05])
    q, unweighted = np.mean(rejected, axis=0)
    assert q > 0.6
    assert unweighted <= 0.12
