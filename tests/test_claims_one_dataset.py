"""A cache of one dataset has that dataset's own numbers and intervals, in words that count nothing of one."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from reporting import TRUTH, scratch, write_cache

import analyses
from analyses._cache import each_of
from analyses._claim import Claim
from analyses._curves import by_chance, correlation_in
from analyses._effects import cell_claims
from analyses._means import error_claims, inputs_claim
from analyses._shifts import gap_claims
from reports import answer
from reports.notices import notices_of
from steerstats import demo_cache, open_cache
from steerstats.cache.table import import_table
from steerstats.errors import CannotEstimate
from steerstats.resampling.ranks import ONE_DATASET, TWO_DATASETS
from steerstats.spurious import spurious_factors, variance_explained


@cache
def lone() -> object:
    return write_cache(scratch() / "one", replace(TRUTH, datasets=("lone",), mean_steerability=0.7))


def claims_of(script: str) -> dict[str, Claim]:
    return {claim.key: claim for claim in analyses.run(script, lone(), scratch()).claims}


def test_what_debiasing_costs_has_the_datasets_own_interval():
    row = open_cache(lone()).debiased().to_frame().iloc[0]
    claim = claims_of("debiased_vectors")["debiased.loss"]
    assert claim.statement == "Steerability lost by debiasing, in lone:"
    assert (claim.estimate, claim.ci_low, claim.ci_high) == (row["estimate"], row["ci_low"], row["ci_high"])
    assert (claim.n, claim.n_of) == (row["n"], "questions")
    assert claim.ci_low < claim.estimate < claim.ci_high


def test_the_probability_of_the_answers_has_the_datasets_own_interval():
    frame = open_cache(lone()).answer_mass().to_frame()
    found = claims_of("answer_mass")
    for key, row in (
        ("mass.unsteered", frame[frame["multiplier"] == 0].iloc[0]),
        ("mass.lowest", frame.loc[frame["mean"].idxmin()]),
    ):
        claim = found[key]
        assert claim.statement.endswith(", in lone:")
        assert (claim.estimate, claim.ci_low) == (row["mean"], row["ci_low"])
        assert claim.ci_high == min(row["ci_high"], 1.0)
        assert claim.n_of == "questions"


@pytest.mark.parametrize("script", ["linearity", "vector_cosines", "vector_sampling_error", "propensity_curves"])
def test_a_claim_on_one_dataset_names_it(script):
    assert all("lone" in claim.statement for claim in claims_of(script).values())


def test_each_loss_of_one_dataset_is_that_of_its_own_shift():
    study = open_cache(demo_cache(), datasets=["likes-rain"])
    gaps = study.generalization(n_resamples=20).gaps
    rows = gaps.to_frame().set_index(["component", "shift"])["estimate"]
    found = {claim.key: claim.estimate for claim in gap_claims(study, gaps)}
    for part, shift in rows.index:
        assert found[f"{part}.{shift.split('->')[1] if part == 'prompt' else shift}"] == rows[part, shift]
    assert rows["gap"].nunique() == 4


def test_slopes_on_a_narrow_range_are_held_against_those_on_the_whole_grid(tmp_path):
    study = open_cache(demo_cache(), datasets=["plans-ahead"])
    unit = study.unit("plans-ahead")
    curves = unit.propensity[unit.place(("base", "base"))]
    near = np.abs(unit.multipliers) <= 0.5
    part, whole = (np.polyfit(unit.multipliers[kept], curves[:, kept].T, 1)[0] for kept in (near, near | True))
    found = {claim.key: claim for claim in analyses.run("multiplier_range", study, tmp_path).claims}
    assert found["range.correlation"].estimate == pytest.approx(np.corrcoef(part, whole)[0, 1], rel=1e-6)
    assert found["range.sign"].estimate == pytest.approx(np.mean(part * whole < 0))
    assert found["range.sign"].estimate > 0


def test_multipliers_of_one_size_have_no_narrower_range():
    truth = replace(TRUTH, datasets=("lone",), mean_steerability=0.7, multipliers=(-1.0, 0.0, 1.0))
    found = analyses.run("multiplier_range", write_cache(scratch() / "one-size", truth), scratch() / "narrow")
    assert "multipliers of more than one size" in found.missing


def test_the_fall_of_a_squared_effect_is_what_it_was_less_what_it_is():
    effects = open_cache(lone()).debiased().effects.query("term == 'pos_is_a'").set_index("vector")
    square = effects["estimate"] ** 2 - effects["se"] ** 2
    found = claims_of("debiased_vectors")["debiased.pos_is_a"].estimate
    assert found == pytest.approx(square["own"] - square["debiased"])


def test_answers_that_steering_alone_costs_are_not_said_to_be_lost_without_it(tmp_path, monkeypatch):
    study = open_cache(demo_cache(), datasets=["likes-rain"])
    result = study.answer_mass()
    only_last = replace(result, collapsed=np.arange(len(result.multipliers))[None] == len(result.multipliers) - 1)
    monkeypatch.setattr("analyses.answer_mass.ask", lambda *_: only_last)
    finding = analyses.run("answer_mass", study, tmp_path)
    assert "are flagged (likes-rain)" in finding.reading
    assert [claim.facts["lost"] for claim in finding.claims] == [[], ["likes-rain"]]
    (said,) = [text for text in notices_of(study, [finding]) if "the answers" in text]
    assert said.startswith("in likes-rain steering leaves the answers less than half of the probability at some mult")
    finding = replace(finding, claims=(finding.claims[0], replace(finding.claims[1], facts={"lost": []})))
    assert not any("the answers" in text for text in notices_of(study, [finding]))


def test_nothing_is_said_of_each_of_one():
    found = analyses.run("propensity_curves", lone(), scratch())
    assert found.counted == "20 questions in the one dataset."
    assert each_of(14) == "each of 14 datasets"


@pytest.mark.parametrize("script", ["id_vs_ood", "predictors"])
def test_what_is_all_of_correlations_over_datasets_says_once_that_it_needs_several(script):
    found = analyses.run(script, lone(), scratch())
    assert found.missing == f"cannot be estimated here: {ONE_DATASET}"
    two = open_cache(demo_cache(), datasets=["likes-rain", "likes-spice"])
    assert analyses.run(script, two, scratch()).missing == f"cannot be estimated here: {TWO_DATASETS}"


def test_variances_of_one_dataset_have_their_ratio_in_place_of_a_correlation():
    frame = open_cache(lone()).generalization(n_resamples=20).variances.to_frame().set_index("shift")
    found = claims_of("variance_id_ood")
    assert list(found) == [f"variance_ratio.{shift}" for shift in frame.index]
    assert ONE_DATASET not in analyses.run("variance_id_ood", lone(), scratch()).warnings
    for shift, row in frame.iterrows():
        claim = found[f"variance_ratio.{shift}"]
        assert (claim.estimate, claim.ci_low, claim.ci_high) == (row["ratio"], row["ci_low"], row["ci_high"])
        assert (claim.n, claim.n_of) == (20, "questions")


# --- the vector's own error -----------------------------------------------------------------------


def errors(values, refits=5) -> tuple[Claim, Claim]:
    names = [f"d{k}" for k in range(len(values))]
    frame = pd.DataFrame({"dataset": names, "n": 30, "times_wider": 54.475})
    reliable = pd.DataFrame({"dataset": names, "estimate": values, "ci_low": -2499.0, "ci_high": 0.28, "n": 30})
    return error_claims(frame, reliable.assign(n_replicates=refits))


def test_a_reliability_below_0_is_shown_as_the_0_that_it_is_used_as():
    claim = errors([-41.468])[1]
    assert claim.shown == ("0%", "[0%, 28%]")
    assert "not between refits (below 0, used as 0), in d0:" in claim.statement
    several = errors([-0.5, 0.4, 0.8])[1]
    assert several.estimate == pytest.approx(0.4)
    assert 0 < several.ci_low < several.ci_high < 1
    assert "(below 0 in 1 of 3 datasets, used as 0), mean over datasets:" in several.statement
    assert several.interval.endswith("; what lies below 0 being used as 0 lifts the mean and its limits, which may lie "
                                     "above the truth")  # fmt: skip
    assert "lifts" not in claim.interval
    assert "below 0" not in errors([0.5, 0.4, 0.8])[1].statement
    assert "lifts" not in errors([0.5, 0.4, 0.8])[1].interval


def test_a_factor_that_few_refits_tell_says_so():
    assert "only 5 refits tell that error" in errors([0.4])[0].statement
    assert "refits tell" not in errors([0.4], refits=10)[0].statement
    assert "only 5 refits tell that error" in errors([0.4, 0.5], refits=[12, 5])[0].statement
    assert any("only 3 refitted" in text for text in analyses.run("vector_sampling_error", lone(), scratch()).warnings)


# --- names that belong to code --------------------------------------------------------------------


def test_that_no_factor_varies_is_said_without_their_names_in_code():
    slopes, alike = np.random.default_rng(0).normal(size=12), np.ones(12)
    both, of_three = {"pos_is_a": alike, "pos_is_yes": alike}, np.full(12, np.nan)
    for estimator, more in ((spurious_factors, {}), (variance_explained, {"rng": np.random.default_rng(0)})):
        for factors, told in (
            (both, "neither whether the positive option is A or B nor whether it is Yes or No varies"),
            ({"pos_is_a": alike}, "whether the positive option is A or B does not vary"),
            ({"pos_is_a": of_three}, "whether the positive option is A or B is defined for no input"),
            (
                {"pos_is_a": of_three, "pos_is_yes": of_three},
                "whether the positive option is A or B, or Yes or No, is defined for no input",
            ),
        ):
            with pytest.raises(CannotEstimate) as error:
                estimator(slopes, factors, **more)
            assert str(error.value) == told


def test_a_constant_curve_costs_its_own_r2_and_not_the_other_inputs():
    question = np.array(["q0", "q1", "q2", "q3"])
    study = SimpleNamespace(units={"d": SimpleNamespace(question=question)})
    values = {"d": np.array([np.nan, 0.5, 0.6, 0.7])}
    claim, found = inputs_claim(study, "r2", "R²", values, (0.0, 1.0))
    assert (claim.estimate, claim.n) == (pytest.approx(0.6), 3)
    assert "1 of 4 inputs, for which it is not defined, left out" in claim.statement
    several = values | {"e": np.full(4, 0.8), "f": np.full(4, 0.9), "flat": np.full(4, np.nan)}
    _, found = inputs_claim(study, "r2", "R²", several, (0.0, 1.0))
    assert (found.estimate, found.n) == (pytest.approx((0.6 + 0.8 + 0.9) / 3), 3)
    with pytest.raises(CannotEstimate, match="defined for none of 4 inputs"):
        inputs_claim(study, "r2", "R²", {"flat": several["flat"]}, (0.0, 1.0))


def test_a_page_with_one_letter_alone_names_no_factor_as_code_does(tmp_path):
    from steerstats.cache import UnitData, create_cache, write_unit
    from steerstats.simulate import simulate_unit

    truth = replace(TRUTH, datasets=("lone",), mean_steerability=0.7, n_random=0, n_shuffled=0, n_resampled=0)
    create_cache(tmp_path / "c", {"kind": "grid", "spec_hash": "0" * 64, "model": "m", "units": ["lone"]})
    data, _ = simulate_unit(truth, "lone", seed=7, model="m")
    same = {name: np.ones_like(data.arrays[name]) for name in ("input_pos_is_a", "input_pos_is_yes")}
    write_unit(tmp_path / "c", "lone", UnitData(dict(data.arrays) | same, {**data.attrs, "spec_hash": "0" * 64}))
    for script in ("positive_option", "variance_explained", "spurious_effects"):
        missing = analyses.run(script, tmp_path / "c", tmp_path).missing
        assert "neither whether the positive option is A or B nor whether it is Yes or No varies" in missing
        assert not re.search(r"\[|pos_is", missing)


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (("A, neither", "B, neither"), ("A:", "B:")),
        (("A, Yes", "A, neither"), ("A, Yes:", "A, neither Yes nor No:")),
    ],
)
def test_a_kind_of_option_without_yes_or_no_is_named_by_its_letter(cells, told):
    shared = {"dataset": "d", "mean": 0.1, "ci_low": 0.0, "ci_high": 0.2, "n_questions": 9}
    claims = cell_claims(pd.DataFrame([{**shared, "cell": cell} for cell in cells]))
    assert [claim.statement.partition("option is ")[2] for claim in claims] == list(told)


@pytest.mark.parametrize(("share", "said"), [(0.06, True), (0.8, False), (0.0, False)])
def test_a_share_that_chance_alone_would_show_is_said_to_be_that(share, said):
    frame = pd.DataFrame({"nonlinear_share": [share], "chance_share": [0.05 if share else 0.0]})
    assert by_chance(frame) == " (by chance, curves that are straight on average would show 5%)" * said


# --- the range of multipliers ---------------------------------------------------------------------


def test_the_correlation_between_ranges_covers_where_slopes_are_skewed_and_curves_bent():
    """Fisher's own interval covered .53 of these."""
    rng, hits = np.random.default_rng(3), 0
    truth = 1 / np.sqrt(1 + 0.7**2)
    for _ in range(300):
        slopes, bend = np.exp(rng.standard_normal((2, 30)))
        found = correlation_in(slopes + 0.7 * bend, slopes, range(30))
        hits += found["ci_low"] <= truth <= found["ci_high"]
    assert hits / 300 > 0.84


def test_twins_do_not_narrow_the_correlation_between_ranges():
    x, y = np.random.default_rng(4).normal(size=(2, 12)) + np.arange(12)
    once, twice = correlation_in(x, y, range(12)), correlation_in(np.tile(x, 2), np.tile(y, 2), [*range(12)] * 2)
    assert twice == pytest.approx(once)
    assert twice["n"] == 12


def test_two_questions_have_no_interval_of_a_correlation_and_none_is_named(tmp_path):
    rows = [
        (
            "one",
            f"q{i}",
            "base",
            "base",
            multiplier,
            (1 + i % 2) * multiplier + 0.3 * i * multiplier**3,
            f"pair {i // 2}",
        )
        for i in range(4)
        for multiplier in (-2.0, -1.0, 0.0, 1.0, 2.0)
    ]
    columns = ["dataset", "input", "setting_train", "setting_eval", "multiplier", "propensity", "question"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "t.csv", index=False)
    cache = import_table(tmp_path / "t.csv", tmp_path / "cache", model="m")
    claim = analyses.run("multiplier_range", cache, tmp_path / "out").claims[0]
    assert np.isfinite(claim.estimate)
    assert (claim.n, claim.shown[1]) == (2, "")
    assert claim.interval.startswith("no interval: too few questions")


def test_a_claim_without_an_interval_blames_no_datasets_where_it_counts_questions():
    shared = {"key": "k", "statement": "S:", "estimate": 0.4, "ci_low": np.nan, "ci_high": np.nan, "n": 5}
    own = Claim(**shared, n_of="questions", interval="jackknife by question and replicate")
    over = Claim(**shared, n_of="datasets", interval="percentile over datasets")
    assert own.interval == "no interval, for the reason in the warnings"
    assert over.interval == "too few datasets for an interval"


@pytest.mark.parametrize(
    ("script", "key", "said"),
    [
        ("per_input_steerability", "per_input.spread", "held the truth for lognormal ones"),
        ("linearity", "linearity.distance", "too short for skewed departures"),
    ],
)
def test_intervals_that_skewed_inputs_break_say_so_beside_their_number(script, key, said):
    assert said in claims_of(script)[key].interval


def test_the_parts_of_a_loss_say_that_the_vectors_error_is_in_the_loss_alone():
    """Of other vectors the parts' intervals held 30-39% where the loss's own held 97%."""
    found = claims_of("gap_parts")
    loss, part = found["gap.base->user_neg"], found["prompt.user_neg"]
    assert loss.interval.endswith("; the vectors' own error is in it")
    assert part.interval.endswith("; for these very vectors")
    mean = Claim(key="per_input.mean", statement="", estimate=0.7, ci_low=0.6, ci_high=0.8, interval="", n=20,
                 n_of="questions")  # fmt: skip
    sure = {key: replace(one, ci_low=one.estimate - 1e-3, ci_high=one.estimate + 1e-3) for key, one in found.items()}
    assert answer._loss(sure | {"per_input.mean": mean}).count("for these very vectors") == 2
