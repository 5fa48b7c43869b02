"""Claims say what a reader needs to know to believe them, in words that people use."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from example_table import example_rows
from reporting import TRUTH, hostile_cache, reproduction, scratch, write_cache

import analyses
from analyses._cache import absent_shifts, ask, between, datasets_of, study_of
from analyses._claim import Claim, Finding
from analyses._words import p_words, tidy, together
from reports.answer import answer, lead, limits
from reports.provenance import _flat
from reports.render import _differences, render_report
from reports.tables import cells
from reports.words import NOTHING, summary
from steerstats import figures
from steerstats.cache.table import import_table


@cache
def findings_of(which: str) -> tuple:
    """Findings of the sections behind the summary, on three datasets or on one."""
    path = hostile_cache()
    if which == "one":
        path = write_cache(scratch() / "one", replace(TRUTH, datasets=("lone",), mean_steerability=0.7))
    names = ("per_input_steerability", "positive_option", "variance_explained", "spurious_effects", "id_vs_ood",
             "gap_parts", "propensity_difference", "null_vectors")  # fmt: skip
    return tuple(analyses.run(name, path, scratch()) for name in names)


def claims_of(which: str) -> dict:
    return {claim.key: claim for finding in findings_of(which) for claim in finding.claims}


def test_the_first_sentence_counts_all_three_outcomes_and_the_vectors_error():
    means = study_of(hostile_cache()).steerability()
    own = [one["mean"] for one in means.results.values()]
    up, down = sum(one.ci_low > 0 for one in own), sum(one.ci_high < 0 for one in own)
    said = summary(findings_of("three"))["lead"]
    assert (up, down) == (2, 0)
    assert "of mean steerability over inputs lies above 0 in 2 and on both sides of 0 in 1 of 3 datasets." in said
    again = sum(one.ci_low > 0 for one in means.vector_error.values())
    assert again == up
    assert "With the vector's own sampling error counted, the counts are the same." in said
    every = Claim.counted("per_input.signs", "", {"above 0": 3, "below 0": 0, "undecided": 0}, "datasets", "")
    assert "lies above 0 in all 3 datasets." in lead({"per_input.signs": every})
    assert "label-shuffled vectors" in said
    assert "beyond doubt" not in said


def test_an_effect_is_headed_by_its_spread_and_no_claim_is_printed_twice():
    effects = next(one for one in findings_of("three") if one.script == "spurious_effects").claims
    assert [claim.key for claim in effects][:3] == ["effects.pos_is_a.tau", "effects.pos_is_a.new", "effects.pos_is_a"]
    fit = study_of(hostile_cache()).spurious_factors().over_datasets.pooled["slope", "pos_is_a"]
    assert (effects[1].ci_low, effects[1].ci_high) == (fit.prediction_low, fit.prediction_high)
    assert "effects of opposite sign cancel" in effects[2].statement
    told = [(claim.estimate, claim.ci_low, claim.ci_high) for claim in claims_of("three").values()]
    told = [one for one in told if np.isfinite(one[1])]
    assert len(told) == len(set(told)), "the same numbers under two names"


@pytest.mark.parametrize(
    ("p", "words"), [(1.0, "p > 0.99"), (0.0001, "p < 0.001"), (0.034, "p = 0.034"), (np.nan, "no p-value")]
)
def test_p_values_are_never_exactly_one_or_nothing(p, words):
    assert p_words(p) == words


def test_transfer_is_headed_by_one_shift_with_its_interval_and_the_others_are_a_range():
    claims, card = claims_of("three"), summary(findings_of("three"))["cards"][2]
    first = claims["gap.sys_pos->user_neg"]
    others = [one.estimate for key, one in claims.items() if key.startswith("gap.") and one is not first]
    assert (card["number"], card["interval"]) == (first.shown[0], limits(first)), "three datasets rank without interval"
    assert card["interval"].startswith("95% interval ")
    assert "under system (positive) → user (negative), the shift that the paper prints" in card["words"]
    low, high = together([min(others), max(others)])
    assert f"The other shifts lose {low} to {high}" in card["words"]
    assert "A rank correlation over datasets needs more datasets." in card["words"]
    for one in summary(findings_of("three"))["cards"][:2]:
        assert "not adjusted for picking the largest" in one["words"]


def test_the_transfer_card_says_on_the_numbers_line_what_it_is_and_goes_on_from_there():
    def claim(key, low, estimate, high):
        return Claim(key=key, statement="", estimate=estimate, ci_low=low, ci_high=high, interval="t", n=9,
                     n_of="datasets")  # fmt: skip

    gaps = [claim("gap.sys_pos->user_neg", -0.01, 0.006, 0.03), claim("gap.base->user_neg", -0.01, 0.02, 0.04),
            claim("gap.base->user_pos", 0.01, 0.035, 0.05)]  # fmt: skip
    nothing = claim("per_input.mean", -0.1, 0.02, 0.2)

    def card(*claims):
        return summary([Finding(script="id_vs_ood", title="x", claims=claims)])["cards"][2]

    lost = card(nothing, *gaps)
    assert (lost["number"], lost["unit"]) == ("0.006", "nats per unit multiplier")
    assert lost["words"] == (
        "are lost under system (positive) → user (negative), the shift that the paper prints, not shown to differ from "
        "0. The other shifts lose 0.020 to 0.035; 1 of these 2 intervals includes 0. A rank correlation over datasets "
        f"needs more datasets. {NOTHING}"
    )
    assert "The other shift loses 0.020; its interval includes 0." in card(*gaps[:2])["words"]
    assert "The other shift loses 0.035. A rank" in card(gaps[0], gaps[2])["words"]
    ranks = [replace(one, key=one.key.replace("gap.", "id_ood.")) for one in gaps[:2]]
    rank = card(*ranks, *gaps)
    assert (rank["number"], rank["unit"]) == ("0.006", "rank correlation")
    assert rank["words"].startswith("of the datasets' steerability under base → base with that under system")
    assert "Under the other shift the correlation is 0.020; its interval includes 0." in rank["words"]
    tied = card(*(replace(one, ci_low=np.nan, ci_high=np.nan, estimate=1.0, n=9) for one in ranks), *gaps)
    assert (tied["number"], tied["unit"]) == ("0.006", "nats per unit multiplier")
    assert "; 1 of these 2 intervals includes 0. The rank correlation is 1.000, without an interval." in tied["words"]
    exact = replace(ranks[0], estimate=1.0, ci_low=np.nan, ci_high=np.nan)
    some = card(exact, ranks[1], replace(ranks[1], key="id_ood.base->user_pos"), *gaps)["words"]
    assert "the other shifts the correlation is 0.020 to 1.000; the one interval there is includes 0." in some
    bare = card(*(replace(one, ci_low=np.nan, ci_high=np.nan) for one in ranks))
    assert (bare["number"], bare["unit"], bare["interval"]) == ("0.006", "rank correlation", "no interval")
    assert "lost" not in bare["words"]


def test_the_title_is_answered_with_the_mean_its_variance_and_what_a_shift_costs():
    claims, answer = claims_of("three"), summary(findings_of("three"))["answer"]
    up, mean = claims["per_input.signs_refits"].counts["above 0"], claims["per_input.mean"]
    over = study_of(hostile_cache()).steerability().over_datasets.quoted
    assert (mean.estimate, mean.ci_low, mean.ci_high) == (over.mean, over.ci_low, over.ci_high)
    size = f"(mean steerability {mean.shown[0]} nats per unit multiplier, {limits(mean)})"
    wrong, variance = (claims[key] for key in ("per_input.anti_share", "explained.mean"))
    counted = f"On average steering moves answers the intended way in {up} of 3 datasets, with the vector's own error"
    assert answer.startswith(f"{counted} counted {size}. ")
    assert variance.ci_low <= 0 < variance.estimate
    for claim, words, doubt in (
        (wrong, "of single inputs are moved the wrong way", ""),
        (
            variance,
            "of the variance of steerability between inputs goes with answer letter and word",
            ", not shown to differ from 0",
        ),
    ):
        assert f"{claim.shown[0]} {words} ({limits(claim).removeprefix('95% interval ')}{doubt}). " in f"{answer} "
    assert mean.ci_low < 0, "so that nothing is told of a loss"
    assert "Under the prompt" not in answer


def test_losses_warn_of_losses_and_not_of_what_other_figures_show():
    result = ask(study_of(hostile_cache()), "generalization")
    said = next(finding.warnings for finding in findings_of("three") if finding.script == "gap_parts")
    others = {*result.correlations.warnings, *result.variances.warnings, *result.ratios.warnings}
    others -= {*result.gaps.warnings, *result.settings.warnings}
    assert others & set(result.warnings), "there is something to leave out"
    assert not others & set(said)
    assert set(result.gaps.warnings) <= set(said)


def test_where_nothing_steers_at_home_no_loss_is_told():
    shared = {"interval": "t", "n": 3, "n_of": "datasets"}
    rest = {"ci_low": 0.02, "ci_high": 0.1} | shared
    signs = Claim.counted("per_input.signs", "", {"above 0": 0, "below 0": 0, "undecided": 3}, "datasets", "")
    share = Claim(key="per_input.anti_share", statement="", estimate=0.5, unit="share", facts={"dataset": "d"}, **rest)
    gap = Claim(key="gap.base->user_neg", statement="", estimate=0.06, **rest)
    for low, told_of in ((0.01, True), (-0.01, False)):
        mean = Claim(key="per_input.mean", statement="", estimate=0.02, ci_low=low, ci_high=0.05, **shared)
        found = summary([Finding(script="per_input_steerability", title="x", claims=(mean, signs, share, gap))])
        assert ("steers 0.060 less than at home (0.020 to 0.100)." in found["answer"]) == told_of
        assert found["cards"][2]["words"].endswith(NOTHING) != told_of
    # The answer may tell that each of three datasets has its interval above 0: then the mean alone is open.
    assert "mean steerability" in NOTHING
    assert "vectors" not in NOTHING


def test_outcomes_by_sign_are_one_claim_that_adds_up():
    claim = claims_of("three")["per_input.signs"]
    assert sum(claim.counts.values()) == claim.n == 3
    assert list(claim.counts) == ["above 0", "below 0", "undecided"]
    assert claim.shown[0] == ", ".join(f"{count} {kind}" for kind, count in claim.counts.items())
    assert sum(key.startswith("per_input.signs") for key in claims_of("three")) == 2


def test_one_dataset_has_its_own_intervals_and_no_plural():
    cards = summary(findings_of("one"))["cards"]
    assert cards[0]["interval"].startswith("95% interval ")
    assert cards[1]["interval"].startswith("95% interval ")
    assert cards[2]["interval"].startswith("95% interval ")
    assert "A rank correlation over datasets needs more datasets." in cards[2]["words"]
    words = str(cards) + str(findings_of("one"))
    assert "average over" not in str(cards)
    assert "1 datasets" not in words
    assert ", mean over datasets" not in words


def test_a_method_names_no_size_of_one_dataset_and_the_mixed_model_only_where_it_stands():
    for finding in findings_of("three"):
        assert "20 inputs" not in finding.method
        assert "20 questions" not in finding.method
        assert "lme4" not in " ".join(finding.warnings)


def test_figure_7_counts_the_datasets_that_give_points():
    grid = next(one for one in findings_of("three") if one.script == "propensity_difference")
    points = study_of(hostile_cache()).propensity_shift().points()
    kept = points[(points["own"] > 0.25) & ~points["self_pair"]]
    claim = next(one for one in grid.claims if one.key == "figure7.without_self-pairs")
    assert claim.n == kept["dataset"].nunique()
    assert f"({len(kept)} pairs)" in claim.n_of
    assert claim.interval == "too few datasets for an interval"


@pytest.mark.parametrize("evaluated", ["base", "user_neg"])
def test_an_imported_table_is_told_what_to_add_and_never_crashes(tmp_path, evaluated):
    frame = pd.DataFrame(list(example_rows())).drop(columns=["pos_is_a", "pos_is_yes"], errors="ignore")
    frame["setting_eval"] = evaluated
    frame.to_csv(tmp_path / "t.csv", index=False)
    cache_path = import_table(tmp_path / "t.csv", tmp_path / "cache", model="mine")
    page = render_report([cache_path], tmp_path / "out", jobs=1).read_text("utf-8")
    assert "built without" not in page
    assert "the table has no rows for" in page
    if evaluated == "base":
        assert "add columns pos_is_a, pos_is_yes to the table" in page


def test_a_shift_that_some_datasets_lack_is_not_said_to_be_lacking_in_three(tmp_path):
    rows = pd.DataFrame(list(example_rows()))
    parts = [rows.assign(dataset=f"d{k}") for k in range(6)]
    pd.concat([*parts, parts[0].assign(setting_eval="user_neg")]).to_csv(tmp_path / "t.csv", index=False)
    study = study_of(import_table(tmp_path / "t.csv", tmp_path / "cache", model="m"))
    why = absent_shifts(study)["base", "user_neg"]
    assert why == "not in this cache: the table has no rows for base->user_neg in d1, d2, d3 and 2 more"


def test_no_heading_stands_twice_and_identifiers_are_put_in_words():
    frame = pd.DataFrame({"name": ["anti_steerable", "shapley_adjusted_r2"], "ci_low": [0.0, 0.1], "ci_high": [1.0, 2],
                          "inputs_10_percent": [0.0, 1], "inputs_90_percent": [2.0, 1]})  # fmt: skip
    view = cells(frame, "x")
    heads = [column["name"] for column in view["columns"]]
    assert len(heads) == len(set(heads))
    assert "_" not in str(view["rows"])


def test_the_key_of_the_cloud_can_be_seen():
    with figures.style():
        _, ax = figures.canvas(width=4, height=3)
        figures.slope_and_misfit(pd.DataFrame({"slope": [-1.0, 1.0], "rmse": [0.1, 0.2]}), ax=ax)
    for handle in ax.get_legend().legend_handles:
        assert handle.get_sizes()[0] > 20
        assert handle.get_alpha() == 1


def test_confounded_factors_are_named_first_and_attributions_are_printed(tmp_path):
    from steerstats.cache import UnitData, create_cache, write_unit
    from steerstats.simulate import simulate_unit

    truth = replace(TRUTH, n_random=0, n_shuffled=0, n_resampled=0, debiased=False)
    manifest = {"kind": "grid", "spec_hash": "0" * 64, "model": "m", "units": list(truth.datasets)}
    create_cache(tmp_path / "c", manifest)
    for name in truth.datasets:
        data, _ = simulate_unit(truth, name, seed=7, model="m")
        arrays = dict(data.arrays) | {"input_pos_is_yes": data.arrays["input_pos_is_a"].copy()}
        attrs = {**data.attrs, "spec_hash": "0" * 64, "attribution": "Questions by A. Author, CC BY 4.0"}
        write_unit(tmp_path / "c", name, UnitData(arrays, attrs))
    page = render_report([tmp_path / "c"], tmp_path / "out", jobs=1).read_text("utf-8")
    notice = page.partition("Read this first")[2].partition("</ul>")[0]
    assert "cannot be told apart here" in notice
    assert "the letter (A or B) or the word (Yes or No), which cannot be told apart here," in page
    assert page.count("Questions by A. Author, CC BY 4.0") == 1


@pytest.fixture(scope="module")
def record():
    return json.loads((reproduction() / "claims.json").read_text("utf-8"))


def test_every_statement_stands_by_itself(record):
    """Statements are read one by one, in `claims.json` and in the table of all claims."""
    said = [claim["statement"] for finding in record["findings"] for claim in finding["claims"]]
    assert len(said) > 30
    assert [text for text in said if re.match(r"(The same|The largest|It|Share in)\b", text)] == []
    assert not any(" when it is " in text for text in said)
    assert len(said) == len(set(said))


def test_a_section_warns_of_what_it_shows_and_of_nothing_else(record):
    warned = {finding["script"]: " ".join(finding["warnings"]) for finding in record["findings"]}
    assert "prediction interval" not in warned["per_input_steerability"]
    for script in ("positive_option", "variance_explained"):
        assert "over datasets, effect of " not in warned[script]


def test_a_table_without_a_model_asks_of_steering_and_not_of_a_model_called_not_recorded(tmp_path):
    pd.DataFrame(list(example_rows())).to_csv(tmp_path / "t.csv", index=False)
    cache_path = import_table(tmp_path / "t.csv", tmp_path / "cache", model="not recorded")
    page = render_report([cache_path], tmp_path / "out", jobs=1).read_text("utf-8")
    assert "<title>Does steering work?</title>" in page
    assert "Scores were imported from a table, which does not name the model." in page
    elsewhere = page.replace("ow exactly the propensities were computed is not recorded", "")
    assert elsewhere.count("not recorded") == elsewhere.count("<dt>model</dt><dd>not recorded</dd>") == 1
    assert "<code>steerstats sweep</code>" in page


def test_a_table_that_knows_the_letter_alone_speaks_of_the_letter_alone(tmp_path):
    """Most caches of one's own: options (A) and (B), and no Yes or No anywhere."""
    pd.DataFrame(list(example_rows())).to_csv(tmp_path / "t.csv", index=False)
    page = import_table(tmp_path / "t.csv", tmp_path / "cache", model="mine")
    page = render_report([page], tmp_path / "out", jobs=1).read_text("utf-8")
    assert "Share of the variance that A/B explains" in page
    assert re.search(r"(goes|is shown to go) with the answer&#39;s letter( \([^)]*\))?\.", page)
    assert "as published (sequential)" not in page, "a panel with nothing in it"
    for text in ("Yes/No explain", "the word (Yes or No)", "letter and word"):
        assert text not in page


def test_names_ranges_and_columns_are_written_as_people_write_them():
    assert tidy("Bell-McCaffrey, Hartung-Knapp t(D-1); 12-60 questions: 6-10% at 5%") == (
        "Bell–McCaffrey, Hartung–Knapp t(D − 1); 12–60 questions: 6–10% at 5%"
    )
    assert tidy("where the column includes_vector_error says so") == 'where the column "vector error in it" says so'
    assert tidy("Llama-2-7b-chat, 2026-11-25, sim-2-3") == "Llama-2-7b-chat, 2026-11-25, sim-2-3"


def test_provenance_gives_numbers_that_people_can_read():
    assert _flat({"difference": 3.814697265625e-06, "tolerance": 0.0001, "passed": True, "codes": 4}) == (
        "difference 3.8e−06, tolerance 1.0e−04, passed yes, codes 4"
    )


def test_none_of_several_is_not_said_to_be_shown_where_all_is_open():
    share = Claim(key="per_input.anti_share", statement="Share, mean over datasets:", estimate=0.2, ci_low=0.1,
                  ci_high=0.3, interval="t", n=3, n_of="datasets", unit="share")  # fmt: skip

    def said(up: int, down: int, undecided: int) -> str:
        counts = {"above 0": up, "below 0": down, "undecided": undecided}
        signs = Claim.counted("per_input.signs", "", counts, "datasets", "")
        return answer({"per_input.signs": signs, "per_input.anti_share": share}).partition(".")[0]

    assert (
        said(0, 0, 3) == "On average these very vectors are not shown to move answers either way in any of 3 datasets"
    )
    assert said(2, 0, 1) == "On average these very vectors move answers the intended way in 2 of 3 datasets"
    assert said(0, 2, 1).endswith("in 0 of 3 datasets and the wrong way in 2")


def test_a_column_that_is_empty_all_through_is_not_told_of_in_a_caption():
    frame = pd.DataFrame({"claim": list("abcd"), "published": "", "low": np.nan, "unit": "nat"})
    assert cells(frame, "Claims")["caption"] == "Claims (in every row: unit nat)"


@pytest.mark.parametrize("where", ["in crowds", "mean over datasets"])
def test_the_table_between_caches_says_of_which_datasets_it_is(where):
    row = {"second minus first": "b minus a", "shift": "base → base", "over": where, "difference": "0.1"}
    told = _differences([row, row | {"shift": "base → user (negative)"}])
    assert told["caption"].endswith(f"nats per unit multiplier, {where}")
    assert "over" not in [column["name"] for column in told["columns"]]
    both = _differences([row, row | {"over": "in rain"}])
    assert "over" in [column["name"] for column in both["columns"]]


def test_what_refits_of_pure_noise_agree_to_stands_beside_the_cosine_with_refits(tmp_path):
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(100, 2000))
    again = rng.multinomial(100, np.full(100, 0.01), size=20) / 100 @ pairs
    noise = again @ pairs.mean(axis=0) / np.linalg.norm(again, axis=1) / np.linalg.norm(pairs.mean(axis=0))
    claims = {claim.key: claim for claim in analyses.run("vector_cosines", hostile_cache(), tmp_path).claims}
    assert f"pure noise would show about {np.median(noise):.2f}" in claims["cosines.refits"].statement


def test_one_question_each_is_one_question():
    assert [between(some, "questions") for some in ([1, 1], [1, 3], [4])] == [
        "1 question",
        "1 to 3 questions",
        "4 questions",
    ]
    assert datasets_of(1, [1], "inputs") == "1 dataset, 1 input each"
