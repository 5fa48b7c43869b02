"""What the template gets: each part of a finding in its place, with its own n, interval and words."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analyses._claim import Claim, Finding
from reports import details, sections
from reports.collect import Done, Job
from reports.notices import notices_of
from reports.render import _claim_table
from reports.terminal import _row
from steerstats import demo_cache, figures, open_cache

CLAIM = Claim(key="x.mean", statement="Mean <b>steerability</b>:", estimate=0.5, ci_low=0.25, ci_high=0.75,
              interval="t interval", n=14, n_of="datasets", unit="nat", published=0.4, published_text="0.40",
              source="Table 2", verdict="agrees", reason="the interval holds it")  # fmt: skip
FINDING = Finding(script="x", title="Title", reading="Read it so.", bars="95% intervals", counted="14 datasets",
                  alt="A long description of what the figure shows.", method="ols", assumptions=("lines",),
                  warnings=("few datasets",), absent=("sys_neg: not built",), claims=(CLAIM,),
                  pages=("one", "two", "three", "four"))  # fmt: skip
DONE = Done(Job("x", "mine", ("c",), ("mine",)), FINDING, 0.0)


def test_a_caption_has_each_part_behind_its_own_word():
    assert sections._caption(FINDING) == [
        [("How to read it.", "Read it so.")],
        [("Bars:", "95% intervals"), ("n:", "14 datasets")],
        [("Method:", "Ols."), ("Assumes:", "Lines.")],
        [("Not here:", "sys_neg: not built.")],
    ]


def test_a_claim_is_shown_with_interval_unit_n_and_the_published_value():
    view = sections.claim_view(CLAIM)
    assert (view["value"], view["interval"], view["unit"]) == ("0.500", "[0.250, 0.750]", "nat")
    assert view["fine_print"] == "n = 14 datasets; t interval"
    assert view["published"] == "Published: 0.40 (Table 2);"
    assert (view["verdict"], view["reason"]) == ("agrees", "the interval holds it")
    assert sections.claim_view(replace(CLAIM, reason="multipliers are -1, 0"))["reason"] == "multipliers are −1, 0"


@pytest.fixture
def written(tmp_path):
    folder = tmp_path / "results" / "mine"
    folder.mkdir(parents=True)
    with figures.style():
        for name in ("x", "x-2", "x-3", "x-4"):
            figures.save(figures.canvas()[0], folder / name)
    pd.DataFrame({"dataset": ["a"], "value": [1.0]}).to_parquet(folder / "x.parquet")
    return sections.finding_view(DONE, tmp_path, True)


def test_a_findings_figures_have_its_description_and_those_after_the_third_are_folded(written):
    drawn = written["figures"]
    assert [one["folded"] for one in drawn] == [False, False, False, True]
    assert [one["heading"] for one in drawn] == ["one", "two", "three", "four"]
    for one in drawn:
        assert re.search(r"<title[^>]*>(.*?)</title>", one["svg"])[1] == f"Title: {one['heading']}"
        assert re.search(r"<desc[^>]*>(.*?)</desc>", one["svg"])[1] == FINDING.alt
    assert len({re.search(r'aria-labelledby="([^"]+)"', one["svg"])[1] for one in drawn}) == 4


def test_a_finding_names_its_cache_its_file_and_its_warnings(written):
    assert (written["cache"], written["file"]) == ("mine", "results/mine/x.csv")
    assert written["warnings"] == ["Few datasets."]


def test_the_table_of_claims_has_each_number_in_its_column():
    view = _claim_table([DONE], True)
    row = dict(zip((column["name"] for column in view["columns"]), view["rows"][0]))
    assert row == {
        "claim": "Mean <b>steerability</b>", "estimate": "0.500", "95% interval": "[0.250, 0.750]", "unit": "nat",
        "n": "14 datasets", "published": "0.40", "verdict": "agrees", "cache": "mine",
    }  # fmt: skip


def test_a_row_in_the_terminal_has_limits_n_and_verdict_and_no_markup():
    words, value, n = (text.plain for text in _row(CLAIM))
    assert words == "Mean <b>steerability</b>  published 0.40: agrees"
    assert (value, n) == ("0.500 [0.250, 0.750] nat", "14 ds")
    assert _row(Claim.bare("x", "[red]Share", 0.1, 30, "questions", "none"))[0].plain == "[red]Share"
    assert _row(Claim.bare("x", "Share", 0.1, 30, "questions", "none"))[2].plain == "30 qu"


def test_text_between_backticks_is_code_and_markup_in_it_is_text():
    assert sections._code("give `-s <b>`, not <i>") == "give <code>-s &lt;b&gt;</code>, not &lt;i&gt;"


def test_the_curve_of_a_dataset_is_told_from_its_lowest_multiplier_to_its_highest():
    curve = pd.DataFrame({"multiplier": [-1.5, 0.0, 1.5], "estimate": [-2.0, 0.1, 3.0]})
    svg = details._figure(curve.assign(ci_low=-3.0, ci_high=4.0), "d", "p")
    assert "Mean propensity runs from −2.000 at λ = −1.500 to 3.000 at λ = 1.500." in svg


@pytest.mark.parametrize(("n", "key", "few"), [(7, "id_ood.x", True), (8, "id_ood.x", False), (7, "gap.x", False)])
def test_a_page_begins_with_correlations_that_have_no_interval_where_there_are_some(n, key, few):
    study = open_cache(demo_cache(), datasets=open_cache(demo_cache()).datasets[:n])
    finding = Finding(script="s", title="T", claims=(replace(CLAIM, key=key),))
    said = f"{n} datasets are too few for an interval of a correlation over datasets."
    assert (said in notices_of(study, [finding])) == few


@pytest.mark.parametrize(("n", "words"), [(1, "one input, no interval. n = 1 input."), (20, "n = 20 inputs.")])
def test_the_caption_of_a_curve_counts_inputs(n, words):
    assert details._caption(n).endswith(words)


def test_the_numbers_of_a_dataset_are_its_own_rows_with_their_own_n():
    measures = pd.DataFrame({"dataset": ["a", "b", "a"], "name": ["anti_steerable", "mean", "mean"],
                             "estimate": [0.25, 9.0, 1.5], "ci_low": [0.1, 8.0, 1.0], "ci_high": [0.4, 10.0, 2.0],
                             "n": [30, 50, 20]})  # fmt: skip
    gaps = pd.DataFrame({"dataset": ["a", "a", "b"], "component": ["gap", "prompt", "gap"],
                         "shift": "base->user_neg", "estimate": [0.3, 7.0, 8.0], "ci_low": [np.nan, 6.0, 7.0],
                         "ci_high": [np.nan, 8.0, 9.0], "n": [19, 19, 50]})  # fmt: skip
    explained = pd.DataFrame({"dataset": "a", "split": ["sequential_r2", "shapley_adjusted_r2"] * 2,
                              "component": ["explained", "explained", "pos_is_a", "pos_is_a"],
                              "share": [0.9, 0.6, 0.9, 0.6], "ci_low": 0.5, "ci_high": 0.7, "n": 18})  # fmt: skip
    tables = {"per_input_steerability": measures, "gap_parts": gaps}
    assert details._numbers("a", tables, explained) == [
        ("mean steerability", "1.500", "1.000 to 2.000", "20"),
        ("anti-steerable inputs", "25%", "10% to 40%", "30"),
        ("variance that A/B explains", "60%", "50% to 70%", "18"),
        ("lost under base → user (negative)", "0.300", "none", "19"),
    ]
