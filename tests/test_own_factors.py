"""Factors of a user's own: one contrast has one meaning in every dataset, and the report shows what they do."""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from example_table import example_rows
from reporting import hostile_cache, reproduction, scratch
from statsmodels.api import OLS, add_constant

import analyses
from analyses._effects import of_slopes
from analyses._own import panels
from analyses._words import plain_codes
from reports.methods import methods
from reports.tables import cells
from reports.words import missed, summary
from steerstats import open_cache
from steerstats.cache.table import import_table
from steerstats.errors import CannotEstimate, InputError
from steerstats.spurious import variance_explained
from steerstats.study import factors

SEEN, LAW = 0.4, -0.3  # effects that the table below is made with, nats per unit multiplier
USUAL = {"one": "art", "two": "art", "three": "tax"}  # the most frequent topic of each dataset; art over all


@cache
def claims_folder() -> Path:
    return scratch()


@cache
def study():
    rng = np.random.default_rng(3)
    lam, rows = np.arange(-2.0, 3.0), []
    for dataset, usual in USUAL.items():
        topics = [*["art", "law", "tax"] * 30, *[usual] * (20 if usual == "tax" else 40)]
        for k, topic in enumerate(topics):
            seen = bool(rng.random() < 0.5)
            slope = 1 + SEEN * (seen - 0.5) + LAW * (topic == "law") + rng.normal(0, 0.1)
            given = {"pos_is_a": bool(k % 2), "factor_topic": topic, "factor_seen": seen, "factor_load": rng.normal()}
            given |= {"dataset": dataset, "input": f"q{k}", "setting_train": "base", "setting_eval": "base"}
            rows += [given | {"multiplier": m, "propensity": slope * m} for m in lam]
    table = scratch() / "own-factors.csv"
    pd.DataFrame(rows).to_csv(table, index=False)
    return open_cache(import_table(table, scratch() / "own-factors", model="toy"))


@cache
def finding():
    return analyses.run("own_factors", study(), claims_folder())


def test_a_level_is_measured_against_the_same_other_one_in_every_dataset():
    result = study().spurious_factors(factors=["factor_topic"], n_resamples=50)
    terms = set(result.to_frame()["term"]) - {"Intercept"}
    assert terms == {"factor_topic=law vs art", "factor_topic=tax vs art"}
    unit = study().unit("one").unit
    kept = np.flatnonzero(unit.read("input_factor_topic") == "law")
    assert factors.usual_levels([(unit, kept)], ["factor_topic"]) == {"factor_topic": "law"}, "of the inputs that count"
    fit = result.over_datasets.pooled["slope", "factor_topic=law vs art"]
    assert fit.n == 3
    assert fit.ci_low < LAW < fit.ci_high
    own = study().unit("three").factors("factor_topic")
    assert list(own) == ["factor_topic=art vs tax", "factor_topic=law vs tax"], "a dataset alone has its own usual one"


def test_a_level_that_no_design_can_name_costs_its_own_factor_alone(tmp_path):
    rows = pd.DataFrame(list(example_rows()))
    rows["factor_topic"] = np.where(rows["input"].isin(["q0", "q1"]), "art: old", "law")
    rows["factor_seen"] = rows["input"].isin(["q0", "q3"])
    rows.to_csv(tmp_path / "scores.csv", index=False)
    cache_path = import_table(tmp_path / "scores.csv", tmp_path / "cache", model="toy")
    found = analyses.run("own_factors", cache_path, tmp_path / "out")
    assert any(claim.key.startswith("own.factor_seen") for claim in found.claims), found.missing
    assert not any("topic" in claim.key for claim in found.claims)
    assert any("left out: factor 'factor_topic=law vs art: old' holds one of ':[]'" in text for text in found.warnings)


def test_text_that_pandas_calls_object_is_text():
    """As all text was before pandas 3: each dataset was then measured against its own usual level."""
    assert factors._is_text(pd.Series(["art", None], dtype=object))
    assert not any(factors._is_text(pd.Series([True, None], dtype=kind)) for kind in ("boolean", "float"))


def test_a_dataset_without_the_common_level_names_its_own():
    unit = study().unit("one")
    found = unit.factors("factor_topic", against={"factor_topic": "sport"})
    assert list(found) == ["factor_topic=law vs art", "factor_topic=tax vs art"]


def test_levels_of_one_text_share_one_part_of_the_variance():
    unit = study().unit("one")
    slopes, columns = unit.slopes.at("base->base"), unit.factors(["factor_topic", "factor_seen"])
    found = variance_explained(slopes, columns, rng=np.random.default_rng(0), n_resamples=50)
    assert found.components == ("factor_topic", "factor_seen", "explained", "unexplained")

    def explained(*names: str) -> float:
        own = [column.astype(float) for name, column in columns.items() if name.startswith(names)]
        return OLS(slopes, add_constant(np.column_stack(own))).fit().rsquared_adj

    # Two players have a share by hand: half of what each gives alone and after the other.
    topic, seen, both = explained("factor_topic"), explained("factor_seen"), explained("factor_topic", "factor_seen")
    assert topic > 0.05
    np.testing.assert_allclose(found.share[:3], [(topic + both - seen) / 2, (seen + both - topic) / 2, both])


def test_the_report_tells_what_own_factors_do():
    claims = {claim.key: claim for claim in finding().claims}
    seen = claims["effects.factor_seen"]
    assert "seen (yes rather than no)" in seen.statement
    assert seen.ci_low < SEEN < seen.ci_high
    assert "topic: law rather than art" in claims["effects.factor_topic=law vs art"].statement
    load = claims["effects.factor_load"]
    assert "load (one unit more)" in load.statement
    assert load.ci_low < 0 < load.ci_high
    assert claims["own.factor_load.share"].estimate < 0.05 < claims["own.factor_seen.share"].estimate
    assert "adjusted for chance" in claims["own.factor_load.share"].statement, "it may be below 0"
    assert finding().pages == ("Load", "Seen", "Topic")
    for name in ("own_factors", "own_factors-2", "own_factors-3"):
        assert (claims_folder() / f"{name}.svg").is_file()
    assert json.loads((claims_folder() / "own_factors.json").read_text())["missing"] == ""


def test_the_summary_tells_of_own_factors_where_it_has_no_letter_and_word_to_tell_of():
    _, card, _ = summary([finding()], prefix="c1-")["cards"]
    shown = {claim.key: claim.shown[0] for claim in finding().claims}
    for name in ("load", "seen", "topic"):
        assert f"{name} explains {shown[f'own.factor_{name}.share']} (" in card["words"]
    assert card["words"].count("mean over 3 datasets") == 3
    assert card["link"] == "c1-own_factors"
    assert card["missing"]
    assert "words" not in summary([])["cards"][1]


def test_no_mixed_model_is_told_of_where_none_is_shown():
    assert "linear mixed model" in study().spurious_factors(factors=["factor_seen"], n_resamples=50).method
    said = " ".join(methods({"toy": study()}, [finding()], 0, {})[0])
    assert "HC2 standard errors" in finding().method
    assert "HC2 standard errors" in said
    assert "mixed model" not in f"{finding().method} {finding().warnings} {said}".lower()


def test_of_a_mixed_model_that_twins_forbid_nothing_is_said_either():
    said = ("all datasets: inputs share questions: no mixed model, which would take twins for independent inputs", "x")
    result = SimpleNamespace(method="a; linear mixed model, REML; b", warnings=said)
    assert of_slopes(result, ["note"], ()) == {"method": "a; b", "warnings": ("x", "note")}


def test_what_cannot_be_judged_is_named_and_the_rest_is():
    rows = pd.DataFrame(
        {"dataset": "one", "input": f"q{k}", "setting_train": "base", "setting_eval": "base", "multiplier": m,
         "propensity": (1 + k % 3) * m, "factor_id": f"name {k}", "factor_same": 1, "factor_odd": k % 2 == 1}
        for k in range(12) for m in (-1.0, 0.0, 1.0)
    )  # fmt: skip
    table = scratch() / "many-levels.csv"
    rows.to_csv(table, index=False)
    found = analyses.run("own_factors", import_table(table, scratch() / "many-levels", model="toy"), scratch() / "many")
    assert [claim.key for claim in found.claims if claim.key.startswith("effects.")] == ["effects.factor_odd"]
    said = " ".join(found.warnings)
    assert "left out: factor 'factor_id' has 12 levels; at most 8 can be told apart" in said
    assert "same varies in no dataset" in said


def test_a_cache_without_own_factors_says_so():
    found = analyses.run("own_factors", hostile_cache(), scratch() / "none")
    assert found.missing == 'not in this cache: built without factors of your own ("factors" of a pair)'


def test_a_page_does_not_miss_factors_that_nobody_recorded():
    table = scratch() / "plain.csv"
    pd.DataFrame(list(example_rows())).drop(columns="factor_topic", errors="ignore").to_csv(table, index=False)
    mine = import_table(table, scratch() / "plain", model="toy")
    for one in (hostile_cache(), mine):
        found = analyses.run("own_factors", one, scratch() / "page")
        assert found.missing
        assert not missed(found.missing)
    assert "Effects of factors of your own" not in (reproduction() / "report.html").read_text("utf-8")
    same = pd.read_csv(table).assign(factor_same="x")
    same.to_csv(table, index=False)
    found = analyses.run("own_factors", import_table(table, scratch() / "same", model="toy"), scratch() / "same-page")
    assert missed(found.missing), "one that was recorded and tells nothing is named"


def test_a_misspelt_factor_is_named_with_those_there_are():
    with pytest.raises(InputError, match=r"'factor_tpoic' is in no dataset of this cache; there are .*factor_topic"):
        study().spurious_factors(factors=["pos_is_a", "factor_tpoic"])


def test_own_factors_stand_beside_what_the_table_knows_of_letter_and_word(tmp_path):
    k, m = (part.ravel() for part in np.meshgrid(np.arange(24), [-1, 0, 1], indexing="ij"))
    rows = pd.DataFrame({"dataset": "a", "input": k, "setting_train": "base", "setting_eval": "base", "multiplier": m})
    rows = rows.assign(propensity=m * (1 + k % 5 + k % 2), pos_is_a=k % 2 == 1, factor_tone=np.where(k % 3, "x", "y"))
    for name, table, words in (
        ("letter", rows, ", beside A/B, in a:"),
        ("none", rows.drop(columns="pos_is_a"), "tone explains, in a:"),
        ("open", rows.assign(pos_is_a="", pos_is_yes=""), "tone explains, in a:"),  # recorded, and defined nowhere
    ):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        cache = import_table(tmp_path / f"{name}.csv", tmp_path / name, model="m")
        found = analyses.run("own_factors", cache, tmp_path / f"{name}-out")
        assert found.claims[0].statement.endswith(words)
        assert "adjusted for chance" in found.claims[0].statement  # and may be below 0 where an effect is shown
        assert "Yes/No" not in f"{found.reading} {found.claims}"
        assert not any("pooled" in text for text in found.warnings), "of one dataset nobody expects a mean"
        assert not any("dropped" in text for text in found.warnings), "what nobody asked for"
        if name != "letter":
            with pytest.raises(CannotEstimate, match=r"; factors=study.own_factors asks for factor_tone$"):
                open_cache(cache).spurious_factors()
            assert "own_factors" not in analyses.run("spurious_effects", cache, tmp_path / f"{name}-page").missing


def test_warnings_call_own_factors_what_claims_call_them():
    for response in ("steerability", "the unsteered propensity"):
        assert plain_codes(f"effect of factor_season=early winter vs late summer on {response}: only 2 datasets") == (
            f"effect of season: early winter rather than late summer on {response}: only 2 datasets"
        )
    assert plain_codes("effect of pos_is_a, pos_is_yes on steerability: few") == (
        "effect of A rather than B, Yes rather than No on steerability: few"
    )
    assert plain_codes("factor_two.things, factor_len is estimated in one") == "two.things, len is estimated in one"
    assert plain_codes("none of the factors factor_a, factor_len varies") == "none of the factors a, len varies"
    assert plain_codes("every question shows the same factor_len of slope: few") == (
        "every question shows the same len of slope: few"
    )
    assert plain_codes("add columns factor_NAME to the table") == "add columns factor_NAME to the table"
    assert plain_codes("few for pos_is_yes[neither], factor_topic=art vs law[neither], factor_seen[neither]: x") == (
        "few for neither Yes nor No (against their middle), topic: not recorded, seen: not recorded: x"
    )


def test_a_table_calls_inputs_without_a_factor_and_errors_by_question_what_they_are():
    rows = {"term": ["pos_is_yes", "pos_is_yes[neither]", "factor_topic=art vs law[neither]"]}
    rows |= {"se_type": ["HC2, Bell-McCaffrey df", "CR2, Bell-McCaffrey df", "CR2, Bell-McCaffrey df"]}
    assert cells(pd.DataFrame(rows), "t")["rows"] == [
        ["Yes rather than No", "HC2, Bell–McCaffrey"],
        ["neither Yes nor No (against their middle)", "CR2, Bell–McCaffrey"],
        ["topic: not recorded", "CR2, Bell–McCaffrey"],
    ]


@pytest.mark.parametrize("multipliers", [(0, 1), (-1, 0, 1)])  # too few for a mixed model; curves that it fits exactly
def test_where_no_mixed_model_is_shown_none_is_warned_of(multipliers, tmp_path):
    lines = ["dataset,input,setting_train,setting_eval,multiplier,propensity,pos_is_a,factor_len"]
    cells = [(k, m) for k in range(20) for m in multipliers]
    lines += [f"a,i{k},base,base,{m},{k % 7 + k % 3 * m},{k % 2},{k % 5}" for k, m in cells]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    cache = import_table(tmp_path / "t.csv", tmp_path / "c", model="m")
    about = ("mixed model", "likelihood")
    for script in ("positive_option", "variance_explained", "own_factors"):
        found = analyses.run(script, cache, tmp_path / script)
        assert found.claims
        assert not [text for text in found.warnings if any(words in text for words in about)]


def test_a_text_that_is_alike_for_all_inputs_is_said_not_to_vary(tmp_path):
    lines = ["dataset,input,setting_train,setting_eval,multiplier,propensity,factor_tone,factor_len"]
    lines += [f"a,i{k},base,base,{m},{k % 7 + k * m},calm,{k % 5}" for k in range(20) for m in (-1, 0, 1)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    found = analyses.run("own_factors", import_table(tmp_path / "t.csv", tmp_path / "c", model="m"), tmp_path / "out")
    assert "tone varies in no dataset" in found.warnings


def test_a_level_of_one_question_alone_is_not_said_not_to_vary():
    rows = pd.DataFrame(
        {"dataset": name, "input": f"q{k}", "setting_train": "base", "setting_eval": "base", "multiplier": m,
         "propensity": (1 + k * 7 % 5) * m, "factor_rare": k == 3, "pos_is_a": k % 2 == 0}
        for name in ("one", "two") for k in range(40) for m in (-1.0, 0.0, 1.0)
    )  # fmt: skip
    table = scratch() / "rare.csv"
    rows.to_csv(table, index=False)
    found = analyses.run("own_factors", import_table(table, scratch() / "rare", model="toy"), scratch() / "rare-out")
    assert "rare has a level in one question alone wherever it varies" in found.missing
    assert "varies in no dataset" not in found.missing


def test_labels_of_panels_abreast_do_not_run_into_each_other():
    rows = pd.DataFrame({"dataset": ["one", "two"], "estimate": 0.1, "ci_low": 0.0, "ci_high": 0.2, "n": 40, "p": 0.5})
    terms = [f"factor_intensity={level} vs usually" for level in ("often", "sometimes", "truly")]
    figure = panels(dict.fromkeys(terms, rows), "text")
    figure.draw_without_rendering()
    boxes = [ax.xaxis.label.get_window_extent() for ax in figure.axes]
    assert [one.x1 < other.x0 for one, other in pairwise(boxes)] == [True, True]
    assert boxes[-1].x1 < figure.bbox.x1


def test_a_share_below_its_own_interval_is_explained(tmp_path):
    k, m = (part.ravel() for part in np.meshgrid(np.arange(24), [-1, 0, 1], indexing="ij"))
    rows = pd.DataFrame({"dataset": "a", "input": k, "setting_train": "base", "setting_eval": "base", "multiplier": m})
    rows.assign(propensity=m * (1 + k // 2 % 5), factor_tone=k % 2 == 1).to_csv(tmp_path / "even.csv", index=False)
    found = analyses.run("own_factors", import_table(tmp_path / "even.csv", tmp_path / "even", model="m"), tmp_path)
    share = next(claim for claim in found.claims if claim.key == "own.factor_tone.share")
    assert share.estimate < share.ci_low
    assert any("a share lies below its own interval" in text for text in found.warnings)
    assert not any("below its own interval" in text for text in finding().warnings)


def unlike(tmp_path):
    """A cache whose datasets do not know of the same factors."""
    k, m = (part.ravel() for part in np.meshgrid(np.arange(24), [-1, 0, 1], indexing="ij"))
    shared = pd.DataFrame({"input": k, "setting_train": "base", "setting_eval": "base", "multiplier": m})
    slopes = 1 + k * 7 % 5 + k % 2
    kinds = {"a": (k % 2 == 1, "factor_tone"), "b": (k % 2 == 1, "factor_tone"), "c": (None, "factor_mood")}
    rows = [
        shared.assign(
            dataset=name, propensity=m * slopes + k * 5 % 7, pos_is_a=letter, **{own: np.where(k % 3, "x", "y")}
        )
        for name, (letter, own) in kinds.items()
    ]
    pd.concat(rows).to_csv(tmp_path / "two.csv", index=False)
    return import_table(tmp_path / "two.csv", tmp_path / "two", model="m")


def test_a_share_stands_beside_what_its_own_datasets_know_and_warnings_are_of_what_is_shown(tmp_path):
    found = analyses.run("own_factors", unlike(tmp_path), tmp_path / "out")
    share = {claim.key: claim.statement for claim in found.claims}
    assert share["own.factor_tone.share"].endswith("that tone explains, beside A/B, mean over datasets:")
    assert share["own.factor_mood.share"].endswith("that mood explains, in c:")
    assert any("on steerability" in plain_codes(text) for text in found.warnings)
    assert not any("unsteered" in text for text in found.warnings), "no effect on it is shown"


def test_a_summary_names_what_all_factors_explain_after_each_of_them(tmp_path):
    study = open_cache(unlike(tmp_path))
    result = study.spurious_factors(factors=["pos_is_a", "factor_tone", "factor_mood"], n_resamples=50)
    (shares,) = (table for title, table in result.sections() if title.startswith("Variance of steerability"))
    assert shares["component"].tolist() == ["pos_is_a", "factor_tone", "factor_mood", "explained", "unexplained"]
