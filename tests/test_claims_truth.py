"""Claims and the sentences made of them say what was computed: which error, which interval, which rows, which n."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from reporting import TRUTH, hostile_cache, write_cache
from scipy import stats
from summary_claims import INPUTS, SHARE, told

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
from analyses._claim import Claim
from analyses._effects import effect_claims, myopic_variance
from analyses._means import error_claims
from steerstats import demo_cache, mean_over_datasets, open_cache
from steerstats.meta import with_few_units
from steerstats.nulls import DIFFERS, null_table
from steerstats.study.doubt_results import NullComparison
from steerstats.study.unit import StudyUnit

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


def test_a_mean_over_datasets_has_beside_it_why_it_is_the_one_to_read(tmp_path):
    said = " ".join(per_input_steerability.main(hostile_cache(), tmp_path).warnings)
    assert "3 of 3 datasets have fewer than 10 refits" in said
    assert "read the unweighted mean" in said
    assert "prediction interval say little" not in said, "no prediction is shown there"


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
    (claim,) = null_vectors.main(hostile_cache(), tmp_path).claims
    assert claim.counts == {"differ": 0, "not shown to differ": 12, "cannot be resolved": 2}
    lead = told(SHARE, INPUTS, claim)["lead"]
    assert "0 of 14 vectors differ from label-shuffled vectors, 12 are not shown to, and 2 cannot be resolved" in lead
    every = replace(claim, counts={"differ": 14, "not shown to differ": 0, "cannot be resolved": 0})
    assert "14 of 14 vectors differ from label-shuffled vectors." in told(every)["lead"]
    none = replace(claim, counts={"differ": 0, "not shown to differ": 0, "cannot be resolved": 14})
    few = "99 label-shuffled vectors are too few to tell whether the vectors differ from them; 279 are needed to "
    assert f"{few}tell it for one dataset among 14." in told(none)["lead"]


def test_vectors_that_only_together_are_shown_to_differ_are_told_so(monkeypatch, tmp_path):
    null = {f"d{k}": np.arange(1.0, 20)[:, None] * np.ones(2) for k in range(14)}
    slopes = {f"d{k}": np.full(2, 20.0 if k < 11 else 18.5) for k in range(14)}
    table = null_table(slopes, null, kind="shuffled")
    result = NullComparison(random=None, shuffled=table, shift="base->base", method=table.method)
    monkeypatch.setattr(null_vectors, "ask", lambda *_: result)
    monkeypatch.setattr(null_vectors, "order_by_median", lambda _: list(slopes))
    claim, together = null_vectors.main(hostile_cache(), tmp_path).claims
    assert 11 < table.at_least < 14
    assert together.counts == {"differ at least": table.at_least, "may differ or not": 14 - table.at_least}
    said = f"At least {table.at_least} of 14 vectors differ from label-shuffled vectors (95% confidence, all taken "
    assert f"{said}together); 19 such vectors are too few to say which" in told(SHARE, INPUTS, claim, together)["lead"]
    random = replace(claim, key="null.random")
    lead = told(SHARE, INPUTS, claim, together, random)["lead"]
    assert "19 random directions are too few to tell whether the vectors differ" in lead, "not said of these"
    some = replace(claim, counts=dict(zip(claim.counts, (4, 10, 0))))
    least = "4 of 14 vectors differ from label-shuffled vectors, 10 are not shown to; all taken together, at least "
    assert f"{least}{table.at_least} do (95% confidence)." in told(SHARE, INPUTS, some, together)["lead"]
    # Where more of them are shown to differ one by one, beside whom "2 differ at least" would read as a contradiction.
    null = {f"d{k}": np.arange(1.0, 200)[:, None] * np.ones(2) for k in range(4)}
    slopes = {f"d{k}": np.full(2, size) for k, size in enumerate((199.5, 199.5, 198.5, 20.5))}
    table = null_table(slopes, null, kind="shuffled")
    assert (table.decision.count(DIFFERS), table.at_least) == (3, 2)
    monkeypatch.setattr(null_vectors, "ask", lambda *_: replace(result, shuffled=table))
    monkeypatch.setattr(null_vectors, "order_by_median", lambda _: list(slopes))
    assert [one.key for one in null_vectors.main(hostile_cache(), tmp_path).claims] == ["null.shuffled"]
    assert "together" not in f"{table.warnings}"


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
