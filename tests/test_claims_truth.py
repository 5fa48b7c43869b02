"""Claims and the sentences made of them say what was computed: which error, which interval, which rows, which n."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from reporting import TRUTH, hostile_cache, write_cache
from scipy import stats

import analyses._shifts as shifts
from analyses import _published as published
from analyses import (
    null_vectors,
    per_input_steerability,
    predictors,
    propensity_difference,
    variance_explained,
    vector_cosines,
)
from analyses._claim import Claim, Finding
from analyses._effects import effect_claims, mean_of_adjusted, myopic_variance
from analyses._single import error_claims
from reports import operators
from reports.words import summary
from steerstats import demo_cache, mean_over_datasets, open_cache
from steerstats.meta import with_few_units
from steerstats.nulls import null_table
from steerstats.study.doubt_results import NullComparison
from steerstats.study.unit import StudyUnit


def signs(key: str, above: int, below: int, open_: int) -> Claim:
    counts = {"above 0": above, "below 0": below, "undecided": open_}
    return Claim.counted(key, "Datasets by sign:", counts, "datasets", "counts")


SHARE = Claim.bare("per_input.anti_share", "Share, mean over datasets:", 0.1, 14, "datasets", "none", unit="share",
                   facts={"dataset": "d"})  # fmt: skip
INPUTS, REFITS = signs("per_input.signs", 14, 0, 0), signs("per_input.signs_refits", 13, 0, 1)


def told(*claims: Claim) -> dict:
    return summary([Finding(script="per_input_steerability", title="x", claims=claims)])


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ((INPUTS, REFITS), "moves answers the intended way in 13 of 14 datasets, with the vector's own error counted."),
        (
            (INPUTS, signs("per_input.signs_refits", 1, 0, 1)),
            "moves answers the intended way in 1 of 2 datasets that have refits, with the vector's own error counted.",
        ),
        (
            (INPUTS, signs("per_input.signs_refits", 0, 0, 1)),
            "answers either way in the one dataset that has refits, with the vector's own error counted.",
        ),
        ((INPUTS,), "these very vectors move answers the intended way in 14 of 14 datasets."),
        (
            (signs("per_input.signs", 1, 2, 1),),
            "these very vectors move answers the intended way in 1 of 4 datasets and the wrong way in 2.",
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
        ((2, 0, 10), "the intended way in 2 of 12 datasets."),
        ((39, 1, 0), "the intended way in 39 of 40 datasets and the wrong way in 1."),
        ((3, 0, 17), "the intended way in 3 of 20 datasets."),
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


def interval(key: str, estimate: float, low: float, high: float, **more) -> Claim:
    return Claim(key=key, statement="", estimate=estimate, ci_low=low, ci_high=high, interval="t", n=14,
                 n_of="datasets", **more)  # fmt: skip


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


DOMINATED = mean_over_datasets([0.15, 0.5, -0.4], np.array([0.01, 0.5, 0.5]) ** 2)
COLLAPSED = mean_over_datasets([0.101, 0.100, 0.099, 0.1, 0.1], np.full(5, 0.1) ** 2)
PLAIN = mean_over_datasets([0.3, 0.1, -0.1, 0.2, 0.4], np.full(5, 0.1) ** 2)


@pytest.mark.parametrize(
    ("fit", "limits", "named", "says"),
    [
        (DOMINATED, ("unweighted_ci_low", "unweighted_ci_high"), "unweighted mean", "read the unweighted mean"),
        (COLLAPSED, ("floored_ci_low", "floored_ci_high"), "random-effects mean", "read the floored one"),
        (PLAIN, ("ci_low", "ci_high"), "random-effects mean", ""),
    ],
)
def test_what_is_quoted_is_the_row_that_the_fits_own_warning_says_to_read(fit, limits, named, says):
    assert any(says in text for text in fit.warnings) if says else not fit.warnings
    low, high = (getattr(fit, name) for name in limits)
    told = fit.quoted
    assert (told.ci_low, told.ci_high, told.name) == (low, high, named)
    assert told.plain == (says == "")
    spread, new, signed = effect_claims("pos_is_a", "A rather than B", fit, 1e-6, "plain")
    assert (signed.ci_low, signed.ci_high) == (low, high)
    assert signed.interval == ("plain" if says == "" else told.interval)
    assert (spread.estimate, spread.ci_high, new.ci_low) == (fit.tau, fit.tau_ci_high, fit.prediction_low)
    assert ("p < 0.001" in signed.statement) == (says == ""), "the plain p belongs to the plain interval"


def test_a_published_variance_stands_beside_a_variance_and_not_beside_an_sd():
    study = open_cache(hostile_cache())
    slopes, sd = study.slopes("myopic-reward").at("base->base"), study.steerability()["myopic-reward"]["sd"]
    claim = myopic_variance(study)
    assert claim.estimate == pytest.approx(np.var(slopes, ddof=1))
    assert (claim.ci_low, claim.ci_high, claim.n) == (sd.ci_low**2, sd.ci_high**2, sd.n)
    assert (claim.published, claim.unit) == (8.4, "(nat per unit multiplier)²")


def test_two_datasets_leave_nothing_to_say_of_a_third():
    two = mean_over_datasets([0.1, 0.3], [0.01, 0.02])
    keys = [one.key for one in effect_claims("pos_is_a", "A rather than B", two, 0.3, "plain")]
    assert keys == ["effects.pos_is_a.tau", "effects.pos_is_a"]


@pytest.mark.parametrize(
    ("fit", "why"),
    [
        (DOMINATED, "one dataset holds more than half of the weight"),
        (PLAIN, "standard errors of some rest on few questions"),
        (mean_over_datasets([0.1, 0.2], [1e-4, 1.0]), "standard errors of some rest on few questions"),
    ],
)
def test_why_the_unweighted_mean_is_read_is_what_is_so(fit, why):
    few = with_few_units(fit, {"a": 5, "b": 60})
    assert few.quoted.interval.endswith(f"unweighted, since {why}")
    assert few.quoted.ci_low == fit.unweighted_ci_low
    assert with_few_units(fit, {"a": 20, "b": 60}) is fit


def test_the_gap_that_heads_the_report_is_that_row_too(monkeypatch):
    class Table:
        shifts, components = ("base->user_neg",), ("gap",)

        def to_frame(self):
            return None

    class Overall:
        of = staticmethod(lambda component, shift: DOMINATED)

    class Study:
        datasets, category = ("a", "b", "c"), None

    monkeypatch.setattr(shifts, "overall_gap", lambda *_, **__: Overall)
    monkeypatch.setattr(shifts, "absent_claims", lambda *_: [])
    gap = shifts.gap_claims(Study, Table())[0]
    assert DOMINATED.ci_low > 0 > DOMINATED.unweighted_ci_low
    assert "unweighted mean over datasets" in gap.statement
    assert (gap.ci_low, gap.ci_high) == (DOMINATED.unweighted_ci_low, DOMINATED.unweighted_ci_high)
    assert "the vector is not shown to steer less than at home" in told(SHARE, INPUTS, gap)["answer"]


SAME = {
    "model": "meta-llama/Llama-2-7b-chat-hf", "layer": 13, "datasets": sorted(published.FORTY), **published.PROTOCOL
}  # fmt: skip


@pytest.mark.parametrize("shift", ["base->user_neg", "base->user_pos", "sys_pos->user_neg"])
def test_a_published_value_whose_shift_is_not_stated_is_judged_against_none(shift):
    own = Claim(key="x", statement="", estimate=0.89, ci_low=0.0, ci_high=1.0, interval="", n=40, n_of="datasets")
    ours = own.against(published.ID_OOD[published.LLAMA], SAME, shift=shift, limits=(0.88, 0.9))
    assert ours.verdict == "not comparable"
    assert ours.reason == "the shift of the published value is not stated"


def test_a_published_value_is_judged_under_its_own_shift_alone():
    own = Claim(key="x", statement="", estimate=0.586, ci_low=0.57, ci_high=0.6, interval="", n=40, n_of="datasets")
    facts = SAME, SAME | {"model": "Qwen/Qwen1.5-14B-Chat", "layer": 21}
    given, held = (
        own.against(published.CROSS_OOD, *facts, shift="sys_pos->user_neg", vector_error=known)
        for known in (False, True)
    )
    assert (given.verdict, held.verdict) == ("consistent", "consistent")
    # Other training pairs would have given other vectors: a verdict that leaves this out says so.
    assert given.reason == f"{held.reason}; for these very vectors, whose own error is not in the interval"
    assert own.against(published.CROSS_OOD, *facts[::-1], shift="sys_pos->user_neg") == given, "agreement has no order"
    other = own.against(published.CROSS_OOD, *facts, shift="base->user_neg")
    assert (other.verdict, other.reason) == ("not comparable", "shift is base->user_neg, there sys_pos->user_neg")


def test_the_published_share_is_compared_with_slopes_of_0_or_less(monkeypatch, tmp_path):
    """As the published code counts them, whatever numerical error allows."""
    monkeypatch.setattr(StudyUnit, "slope_error", 0.4)
    # A study of its own: answers are kept by study, and other tests ask of the cache what holds without the patch.
    found = per_input_steerability.main(open_cache(hostile_cache()), tmp_path)
    slopes = open_cache(hostile_cache()).slopes("myopic-reward").at("base->base")
    claim = next(claim for claim in found.claims if claim.key == "per_input.myopic")
    assert (slopes < -0.4).mean() < (slopes <= 0).mean() == pytest.approx(claim.estimate)
    assert "slope is 0 or less" in claim.statement


def test_an_interval_for_a_population_of_datasets_judges_nothing(monkeypatch, tmp_path):
    names = tuple(f"d{k}" for k in range(9))
    few = {"n_random": 0, "n_shuffled": 0, "n_resampled": 0, "debiased": False, "logits": False}
    truth = replace(TRUTH, datasets=names, mean_steerability=list(np.linspace(0.8, 1.4, 9)), **few)
    monkeypatch.setattr(propensity_difference, "facts_of", lambda _: SAME)
    claim = propensity_difference.main(write_cache(tmp_path / "nine", truth), tmp_path).claims[0]
    assert np.isfinite([claim.ci_low, claim.ci_high]).all()
    assert claim.verdict == "cannot say"
    assert claim.reason == "the recomputed value has no finite interval for these very datasets"


def test_n_is_named_for_what_it_counts(tmp_path):
    """With every question asked twice, a count of questions is half of that of inputs."""
    few = {"n_random": 0, "n_shuffled": 0, "n_resampled": 0, "debiased": False, "logits": False}
    cache = write_cache(tmp_path / "twins", replace(TRUTH, counterbalance=True, **few))
    study = open_cache(cache)
    inputs, questions = ({f(study.unit(one)) for one in study.datasets} for f in (
        lambda unit: len(unit.inputs), lambda unit: len(set(unit.question))))  # fmt: skip
    assert inputs.isdisjoint(questions)
    counted = {"inputs": inputs, "questions": questions, "datasets": {len(study.datasets)}}
    for script in (per_input_steerability, variance_explained):
        for claim in script.main(cache, tmp_path).claims:
            assert claim.n in counted[claim.n_of], claim.key


def test_a_dataset_that_cannot_be_resolved_is_not_one_that_does_not_differ(monkeypatch, tmp_path):
    """Two of 14 vectors beat all 99 shuffled ones, which are too few for two alone to pass: open, not "0 differ"."""
    rng = np.random.default_rng(0)
    null = {f"d{k}": rng.normal(0, 0.1, (99, 1)) + rng.normal(0, 0.1, (99, 40)) for k in range(14)}
    slopes = {f"d{k}": np.full(40, 5.0 if k < 2 else 0.05) + rng.normal(0, 0.01, 40) for k in range(14)}
    table = null_table(slopes, null, kind="shuffled")
    result = NullComparison(random=None, shuffled=table, shift="base->base", method=table.method)
    monkeypatch.setattr(null_vectors, "ask", lambda *_: result)
    monkeypatch.setattr(null_vectors, "order_by_median", lambda _: list(slopes))
    claim = null_vectors.main(hostile_cache(), tmp_path).claims[0]
    assert claim.counts == {"differ": 0, "not shown to differ": 12, "cannot be resolved": 2}
    lead = told(SHARE, INPUTS, claim)["lead"]
    assert "0 of 14 vectors differ from label-shuffled vectors, 12 are not shown to, and 2 cannot be resolved" in lead
    every = replace(claim, counts={"differ": 14, "not shown to differ": 0, "cannot be resolved": 0})
    assert "14 of 14 vectors differ from label-shuffled vectors." in told(every)["lead"]
    none = replace(claim, counts={"differ": 0, "not shown to differ": 0, "cannot be resolved": 14})
    few = "99 label-shuffled vectors are too few to tell whether the vectors differ from them; 279 are needed to "
    assert f"{few}tell it for one dataset among 14." in told(none)["lead"]


def test_a_high_cosine_between_settings_is_not_called_the_same_vector(tmp_path):
    reading = vector_cosines.main(hostile_cache(), tmp_path).reading
    assert "share sampling error" in reading
    assert "the same vector" not in reading


def test_the_alignment_that_a_claim_correlates_is_the_size_of_the_cosine_and_is_called_that(tmp_path):
    study = open_cache(demo_cache())
    found = {claim.key: claim for claim in predictors.main(demo_cache(), tmp_path).claims}
    units = [study.unit(name) for name in study.datasets]
    means = [unit.slopes.at("base->base").mean() for unit in units]
    cosine = [float(unit.unit.read("vector_unembedding_cosine", vector=unit.vectors["base"])) for unit in units]
    size, signed = (stats.spearmanr(values, means)[0] for values in (np.abs(cosine), cosine))
    claim = found["predictors.unembedding_alignment"]
    assert abs(size - signed) > 0.1
    assert claim.estimate == pytest.approx(size)
    assert "(size of the cosine of the vector with the unembedding" in claim.statement


def test_a_reliability_is_called_a_share_of_the_variance_that_it_is():
    rows = open_cache(demo_cache(), datasets=["likes-rain"]).reliability().to_frame()
    frame = rows[["dataset", "n"]].assign(times_wider=2.0)
    claim = error_claims(frame, rows)[1]
    assert claim.estimate == pytest.approx(1 - (rows["sd_noise"] / rows["sd_measured"]).item() ** 2)
    assert claim.statement.startswith("Share of the variance of slopes that lies between inputs and not between refits")
