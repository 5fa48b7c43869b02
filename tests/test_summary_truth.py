"""What the first sentences and cards of a report say is so, whatever the claims they are made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from summary_claims import INPUTS, REFITS, SHARE, interval, signs, told

from analyses._claim import Claim
from analyses._effects import mean_of_adjusted
from analyses._means import error_claims
from reports import operators


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ((INPUTS, REFITS), "moves answers the intended way in 13 of 14 datasets, with the vector's own error counted."),
        (
            (INPUTS, signs("per_input.signs_refits", 2, 0, 1)),
            "moves answers the intended way in 2 of 3 datasets that have refits, with the vector's own error counted.",
        ),
        (
            (INPUTS, signs("per_input.signs_refits", 0, 0, 1)),
            "answers either way in the one dataset that has refits, with the vector's own error counted.",
        ),
        ((INPUTS,), "these very vectors move answers the intended way in 14 of 14 datasets."),
        (
            (signs("per_input.signs", 4, 2, 1),),
            "these very vectors move answers the intended way in 4 of 7 datasets and the wrong way in 2.",
        ),
        ((signs("per_input.signs", 1, 0, 0),), "this very vector moves answers the intended way in the one dataset."),
        (
            (signs("per_input.signs", 0, 1, 0),),
            "this very vector moves answers the wrong way in the one dataset, which is anti-steerable on average.",
        ),
        (
            (signs("per_input.signs", 0, 1, 0), signs("per_input.signs_refits", 0, 1, 0)),
            "the one dataset, which is anti-steerable on average, with the vector's own error counted.",
        ),
        (
            (signs("per_input.signs", 0, 1, 0), signs("per_input.signs_refits", 0, 0, 1)),
            "steering is not shown to move answers either way in the one dataset, with the vector's own error counted.",
        ),
    ],
)
def test_the_first_sentence_counts_the_vectors_own_error_or_says_these_very_vectors(claims, sentence):
    answer = told(SHARE, *claims)["answer"]
    assert answer.startswith("On average ")
    # The share of single inputs stands by itself: behind "not shown to" it would be one more thing not shown.
    assert f"{sentence} 10% of single inputs are moved the wrong way." in answer


def test_shares_of_one_dataset_hold_nothing_of_the_vectors_error_that_the_mean_before_them_counts():
    limits = {"estimate": 0.1, "ci_low": 0.05, "ci_high": 0.2}
    one, facts = (
        replace(SHARE, **limits, n=60, n_of="questions"),
        {"untold_everywhere": False, "known": [], "dataset": "d"},
    )
    bias = replace(one, key="explained.mean", n_of="inputs", facts=facts)
    inputs, refits = signs("per_input.signs", 1, 0, 0), signs("per_input.signs_refits", 1, 0, 0)
    assert told(one, bias, inputs, refits)["answer"].count("(5% to 20%, for this very vector)") == 2
    assert told(one, bias, inputs)["answer"].count("(5% to 20%)") == 2  # where that is said of the mean, too
    assert told(replace(SHARE, **limits), INPUTS, REFITS)["answer"].count("(5% to 20%)") == 1


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ((1, 0, 0), "it lies above 0 in the one dataset that has refits."),
        ((3, 0, 0), "it lies above 0 in all 3 datasets that have refits."),
        ((1, 0, 1), "it lies above 0 in 1 and on both sides of 0 in 1 of 2 datasets that have refits."),
        ((14, 0, 0), "the counts are the same."),
    ],
)
def test_intervals_with_the_vectors_own_error_are_said_to_be_of_the_datasets_that_have_refits(counts, sentence):
    refits = signs("per_input.signs_refits", *counts)
    assert f"own sampling error counted, {sentence}" in told(SHARE, INPUTS, refits)["lead"]


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ((1, 0, 19), "the intended way in 1 of 20 datasets (as chance alone would show in 40% of such studies)."),
        (
            (1, 1, 18),
            "(as chance alone would show in 38% of such studies) and the wrong way in 1 (as chance alone would show in",
        ),
        ((1, 0, 8), "the intended way in 1 of 9 datasets (as chance alone would show in 20% of such studies)."),
        ((2, 0, 10), "the intended way in 2 of 12 datasets (as chance alone may show where slopes are skewed)."),
        ((39, 1, 0), "the intended way in 39 of 40 datasets and the wrong way in 1."),
        ((5, 0, 15), "the intended way in 5 of 20 datasets."),
    ],
)
def test_counts_that_chance_alone_would_show_are_said_to_be_no_more(counts, sentence):
    assert sentence in told(SHARE, signs("per_input.signs", *counts))["answer"]


@pytest.mark.parametrize(("high", "wrong"), [(-0.1, True), (0.1, False)])
def test_a_mean_over_datasets_below_0_is_said_to_be_the_wrong_way(high, wrong):
    mean = Claim(key="per_input.mean", statement="", estimate=-0.3, ci_low=-0.5, ci_high=high, interval="t", n=14,
                 n_of="datasets")  # fmt: skip
    answer = told(SHARE, signs("per_input.signs", 0, 13, 1), mean)["answer"]
    assert ("over datasets, answers are moved the wrong way (anti-steerable on average)." in answer) == wrong


@pytest.mark.parametrize(("estimate", "goes"), [(-0.02, "None"), (0.04, "4%"), (0.3, "30%")])
@pytest.mark.parametrize("untold", [True, False])
def test_of_letter_and_word_it_is_said_what_the_share_allows(estimate, goes, untold):
    facts = {"untold_everywhere": untold, "known": ("letter", "word"), "dataset": "d"}
    share = interval("explained.mean", estimate, estimate - 0.1, estimate + 0.1, unit="share", facts=facts)
    page = told(SHARE, INPUTS, REFITS, share)
    verb, pair = "goes" if estimate > 0 else "is shown to go", "or" if untold else "and"
    assert (
        f"{goes} of the variance of steerability between inputs {verb} with answer letter {pair} word" in page["answer"]
    )
    assert ("not shown to differ from 0)" in page["answer"]) == (estimate == 0.04)
    assert page["cards"][1]["number"] == goes.lower()  # an interval that has 0 in it does not make a share none
    aside = ", which cannot be told apart here," if untold else ""
    assert f"(A or B) {pair} the word (Yes or No){aside} of the answer" in page["cards"][1]["words"]


def test_a_share_is_told_where_one_dataset_of_several_shows_less_than_chance_gives():
    mean = mean_of_adjusted(pd.Series([-0.01, *np.linspace(0.25, 0.35, 7)]))
    facts = {"untold_everywhere": False, "known": (), "dataset": "d"}
    share = Claim.over_datasets("explained.mean", "Share", mean, facts=facts)
    signed = signs("per_input.signs", 8, 0, 0)
    assert "26% of the variance of steerability between inputs goes with" in told(SHARE, signed, share)["answer"]


@pytest.mark.parametrize(
    ("n", "of", "begin"),
    [
        (14, "datasets", "30% of the variance"),
        (2, "datasets", "In the 2 of 14 datasets that tell, 30% of the variance"),
        (45, "inputs", "In the one dataset of 14 that tells, 30% of the variance"),
    ],
)
def test_a_share_of_the_datasets_that_have_letters_or_words_is_not_said_of_all(n, of, begin):
    facts = {"untold_everywhere": False, "known": ("letter", "word"), "dataset": "d"}
    share = replace(interval("explained.mean", 0.3, 0.2, 0.4, unit="share", facts=facts), n=n, n_of=of)
    answer = told(SHARE, signs("per_input.signs", 13, 0, 1), share)["answer"]
    assert f"{begin} of steerability between inputs goes with answer letter and word (20% to 40%)." in answer


def test_of_several_losses_the_one_that_the_paper_prints_is_told():
    shifts = {"base->user_neg": 0.2, "sys_pos->user_neg": 0.4, "base->sys_neg": 0.6}
    losses = [interval(f"gap.{shift}", loss, loss - 0.1, loss + 0.1) for shift, loss in shifts.items()]
    said = (
        "Under the prompt user (negative), the system (positive) vector steers 0.400 less than the base vector at home"
    )
    assert said in told(SHARE, INPUTS, REFITS, *losses)["answer"]


@pytest.mark.parametrize(
    ("counts", "does"),
    [
        ((0, 1, 0), "lowers propensity on average in the one dataset."),
        ((1, 0, 0), "raises propensity on average in the one dataset."),
        ((0, 0, 1), "is not shown to change propensity on average in the one dataset."),
        ((0, 0, 3), "is not shown to change propensity on average in any of 3 datasets."),
        ((1, 2, 0), "lowers propensity on average in 2 of 3 datasets and raises it in 1."),
    ],
)
def test_what_taking_a_direction_out_does_is_not_counted_of_one_either(counts, does):
    answer = operators._answer(signs("per_input.signs", *counts), SHARE)
    assert answer.startswith(f"Taking the vector's direction out (operator ablate) {does} It lowers it in 10% of")
    claims = {one.key: one for one in (SHARE, signs("per_input.signs", *counts))}
    assert "wrong way" not in operators._lead(claims)


def test_with_one_dataset_nothing_is_counted_of_one():
    """ "1 of 1" and "0 of 1 differ, 1 is not shown to" say of one vector what a word says."""
    one = signs("per_input.signs", 0, 1, 0), signs("per_input.signs_refits", 0, 0, 1)
    nulls = [
        Claim.counted(f"null.{kind}", "Datasets:", dict(zip(("differ", "not shown to differ", "cannot be resolved"),
                      counts)), "datasets", "")
        for kind, counts in (("shuffled", (0, 1, 0)), ("random", (1, 0, 0)))
    ]  # fmt: skip
    lead = told(SHARE, *one, *nulls)["lead"]
    assert lead == (
        "For this very vector the 95% interval of mean steerability over inputs lies below 0 in the one dataset: it "
        "moves answers the wrong way. With the vector's own sampling error counted, it lies on both sides of 0. The "
        "vector is not shown to differ from label-shuffled vectors. The vector differs from random directions."
    )
    frame = pd.DataFrame({"dataset": ["d"], "n": 30, "times_wider": 54.0})
    reliable = pd.DataFrame({"dataset": ["d"], "estimate": 0.4, "ci_low": 0.1, "ci_high": 0.6, "n": 30})
    for refits, counted in ((5, "counted, which only 5 refits tell roughly, it lies"), (10, "counted, it lies")):
        wider = error_claims(frame, reliable.assign(n_replicates=refits))[0]
        assert f"With the vector's own sampling error {counted}" in told(SHARE, *one, wider)["lead"]
    open_ = replace(nulls[0], counts=dict(zip(nulls[0].counts, (0, 0, 1))), facts={"n_null": 19, "n_null_needed": 39})
    assert (
        "19 label-shuffled vectors are too few to tell whether the vector differs from them; 39 are needed."
        in (told(SHARE, *one, open_)["lead"])
    )
    both = told(SHARE, *one, open_, replace(open_, key="null.random"))["lead"]
    said = "19 label-shuffled vectors, and as many random directions, are too few to tell whether the vector differs "
    assert both.count("too few") == 1, "nulls that are too few alike share a sentence"
    assert f"{said}from them; 39 are needed." in both


def test_one_dataset_in_which_letters_are_compared_is_not_one_of_1_datasets():
    facts = {"untold": (), "untold_everywhere": False, "known": ("A or B", "Yes or No"), "dataset": "d"}
    share = Claim.bare("explained.mean", "Share:", 0.5, 2, "datasets", "none", unit="share", facts=facts)
    letters = Claim.counted("option.pos_is_a", "Datasets:", {"differ": 1, "not shown to differ": 0}, "datasets", "")
    words = told(SHARE, INPUTS, share, letters)["cards"][1]["words"]
    assert "Steerability differs between A and B in 1 of 1 dataset (FDR 0.05)." in words


def test_all_of_two_datasets_are_both():
    pair = told(SHARE, signs("per_input.signs", 2, 0, 0), signs("per_input.signs_refits", 0, 0, 2))["lead"]
    assert "over inputs lies above 0 in both datasets. With" in pair
    assert pair.endswith("counted, it lies on both sides of 0 in both.")
    alike = told(SHARE, signs("per_input.signs", 1, 0, 1), signs("per_input.signs_refits", 1, 0, 1))["lead"]
    assert alike.endswith("in 1 of 2 datasets. With the vector's own sampling error counted, the counts are the same.")
    lone = told(SHARE, signs("per_input.signs", 0, 0, 1), signs("per_input.signs_refits", 0, 0, 1))["lead"]
    assert lone.endswith("With the vector's own sampling error counted, it lies there too.")
    apart = told(SHARE, signs("per_input.signs", 1, 0, 1))["lead"]
    assert apart.endswith("lies above 0 in 1 and on both sides of 0 in 1 of 2 datasets.")
