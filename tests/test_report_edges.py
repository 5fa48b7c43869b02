"""Where reports meet the unusual: one input, nothing in common, and half a cache."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from reporting import TRUTH, hostile_cache, plain_cache, reproduction, scratch, write_cache

import analyses
from analyses import _published as published
from analyses._cache import study_of
from analyses._claim import Claim, sentence
from analyses._effects import share_words
from analyses._tables import PAPER, for_paper, to_latex
from analyses._words import number, percent, tidy, together
from reports import answer
from reports.embed import inline_svg
from reports.provenance import _flat
from reports.render import PRESETS, SWEEP_NAME, _facts, render_report
from reports.words import differences, summary
from steerstats.cache.table import import_table
from steerstats.errors import InputError
from steerstats.simulate import SimulationTruth, simulate_cache

BARE = {"n_resampled": 0, "n_random": 0, "n_shuffled": 0, "debiased": False, "logits": False}


def table(path: Path, dataset: str, inputs: int) -> Path:
    """An imported cache of one dataset with a few inputs."""
    rng, rows = np.random.default_rng(0), []
    for k in range(inputs):
        slope = rng.normal(0.5, 0.2)
        for value in (-1.0, -0.5, 0.0, 0.5, 1.0):
            rows.append({"dataset": dataset, "input": f"i{k}", "setting_train": "base", "setting_eval": "base",
                         "multiplier": value, "propensity": slope * value + 0.1 * k})  # fmt: skip
    pd.DataFrame(rows).to_csv(path / f"{dataset}.csv", index=False)
    return import_table(path / f"{dataset}.csv", path / dataset, model="mine")


# --- small and half caches ------------------------------------------------------------------------


def test_one_input_makes_a_report(tmp_path):
    page = render_report([table(tmp_path, "lone", 1)], tmp_path / "out", jobs=1).read_text("utf-8")
    assert "one input, no interval" in page
    assert "Read this first" not in page, "nothing is correlated over datasets, which are too few for it"
    assert page.count('<pre class="prompt') == 1, "the one input is shown once"
    assert "n = 1 input." in page
    assert "n = 1 question;" in page
    assert not re.findall(r"\b1 (?:questions|inputs|datasets)\b", page)


def test_caches_that_share_no_dataset_make_a_report_that_says_so(tmp_path):
    caches = [table(tmp_path, name, 12) for name in ("left", "right")]
    page = render_report(caches, tmp_path / "out", jobs=1).read_text("utf-8")
    missing = {
        path.stem: json.loads(path.read_text("utf-8"))["missing"]
        for path in (tmp_path / "out" / "results" / "left-and-right").glob("*.json")
    }
    for script in analyses.COMPARING:
        assert missing[script] == "cannot be estimated here: the two caches share no dataset"
    assert "the two caches share no dataset" in page


def test_caches_that_share_no_shift_are_told_so_and_no_damaged_ones(tmp_path):
    caches = [tmp_path / "home", tmp_path / "away"]
    for path, settings in zip(caches, (("base",), ("sys_pos", "user_neg"))):
        simulate_cache(path, SimulationTruth(datasets=2, n_inputs=12, settings=settings), model=path.name)
    finding = analyses.run("cross_model", caches, tmp_path / "out")
    assert finding.missing.startswith("cannot be estimated here: the two caches share none of base->base, ")


@pytest.fixture(scope="module")
def overlapping(tmp_path_factory):
    """Three caches, of which the last shares datasets with both others, and these none."""
    folder, held = tmp_path_factory.mktemp("overlapping"), {"a": ("x", "y"), "b": ("z",), "c": ("x", "y", "z")}
    for name, datasets in held.items():
        simulate_cache(folder / name, SimulationTruth(datasets=datasets, n_inputs=12, n_pairs=4), model=name)
    return folder


@pytest.mark.parametrize("order", ["abc", "acb"])
def test_caches_are_compared_whichever_two_of_them_share_a_dataset(order, overlapping, tmp_path):
    finding = analyses.run("comparison", [overlapping / name for name in order], tmp_path)
    assert not finding.missing
    assert {"a.c", "b.c"} == {".".join(sorted(claim.key.split(".")[1:3])) for claim in finding.claims}
    assert re.fullmatch("24 and 12 inputs that .*|12 and 24 inputs that .*", finding.counted)


def test_a_script_that_compares_two_caches_refuses_a_third(overlapping, tmp_path):
    for script in ("cross_model", "split_leakage"):
        finding = analyses.run(script, [overlapping / name for name in "acb"], tmp_path)
        assert finding.missing == (
            "cannot be estimated here: 3 caches are given, and two are compared here; give them two by two"
        )
    finding = analyses.run("comparison", [overlapping / "a", overlapping / "b"], tmp_path)
    assert finding.missing == "cannot be estimated here: the two caches share no dataset"


def test_a_cache_without_sys_neg_says_so_in_claims_and_caption_and_not_once_more_in_the_box(tmp_path):
    without = replace(TRUTH, settings=("base", "sys_pos", "user_pos", "user_neg"))
    cache = write_cache(tmp_path / "cache", without)
    finding = analyses.run("id_vs_ood", cache, tmp_path)
    why = "not in this cache: built without sys_neg"
    claims = {claim.key: claim for claim in finding.claims}
    assert len(claims) == 4
    assert claims["id_ood.sys_neg->user_pos"].shown == (why, "")
    assert finding.absent == (f"system (negative) → user (positive): {why}",)
    assert "3 shifts" in finding.alt
    gaps = {claim.key: claim for claim in analyses.run("gap_parts", cache, tmp_path).claims}
    assert gaps["gap.sys_neg->user_pos"].interval == why
    page = render_report([cache], tmp_path / "out", jobs=1).read_text("utf-8")
    section = page.partition('<section id="transfer"')[2].partition("</section>")[0]
    assert "<h3>Not here</h3>" not in section
    assert f"<b>Not here:</b> system (negative) → user (positive): {why}." in page
    assert f'<span class="value">{why}</span>' in page


def test_figure_seven_is_not_there_where_no_vector_is_used_in_a_setting_that_has_one_of_its_own(tmp_path):
    rows = pd.read_csv(table(tmp_path, "base", 4).parent / "base.csv")
    rows = pd.concat([rows, rows.assign(setting_eval="user_pos", propensity=0.5 * rows["propensity"])])
    rows.to_csv(tmp_path / "two.csv", index=False)
    finding = analyses.run("propensity_difference", import_table(tmp_path / "two.csv", tmp_path / "two", model="m"),
                           tmp_path / "out")  # fmt: skip
    lacks = "a vector made in one setting and used in another that has a vector of its own"
    assert finding.missing == f"not in this cache: the table has no rows for {lacks}"


def test_vectors_of_one_setting_have_no_cosines(tmp_path):
    base = {"settings": ("base",), "prompt_loss": {}, "prompt_intercept": {}, "n_resampled": 0}
    lone = write_cache(tmp_path / "lone", replace(TRUTH, datasets=["one"], mean_steerability=1.0, **base))
    finding = analyses.run("vector_cosines", lone, tmp_path / "out")
    assert finding.missing == "not in this cache: built with vectors of base only"


def test_one_dataset_has_intervals_over_its_questions(tmp_path):
    lone = write_cache(tmp_path / "lone", replace(TRUTH, datasets=("lone",), mean_steerability=0.7, **BARE))
    for script in ("linearity", "multiplier_range", "propensity_curves", "positive_option"):
        finding = analyses.run(script, lone, tmp_path / "out")
        assert finding.claims, script
        known = [claim for claim in finding.claims if np.isfinite(claim.ci_low)]
        assert known, script
        assert all(claim.ci_low <= claim.estimate <= claim.ci_high for claim in known)
    kinds = [claim.key for claim in analyses.run("positive_option", lone, tmp_path / "out").claims]
    assert {"option.A_Yes", "option.B_No"} <= set(kinds)


# --- several caches -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three() -> list[Path]:
    """Three caches of one model's name, so that only their own names tell them apart."""
    root = scratch()
    more = {**BARE, "n_resampled": 4, "datasets": ("x", "y")}
    # Of one seed: were their spreads alike too, they would differ by the same on every input.
    own = [{"mean_steerability": [1.0 + k, 0.5 + 1.3 * k], "input_sd": TRUTH.input_sd + k / 10} for k in range(3)]
    return [
        write_cache(root / name, replace(TRUTH, **this, **more), model="m")
        for name, this in zip(("one", "two", "three"), own)
    ]


def test_three_caches_are_compared_in_all_pairs_with_both_vectors_errors(three, tmp_path):
    finding = analyses.run("comparison", three, tmp_path)
    frame = pd.read_csv(tmp_path / "comparison.csv")
    assert list(dict.fromkeys(zip(frame["first"], frame["second"]))) == [
        ("one", "two"),
        ("one", "three"),
        ("two", "three"),
    ]
    assert frame["shift"].nunique() == 5
    at_home = frame[frame["shift"] == "base->base"]
    assert at_home["includes_vector_error"].all()
    assert at_home.query("first == 'one' and second == 'three'")["estimate"].mean() == pytest.approx(2.3, abs=0.2)
    assert (frame["band_low"] <= frame["ci_low"]).all()
    assert finding.pages == ("two minus one", "three minus one", "three minus two")
    assert {path.name for path in tmp_path.glob("*.svg")} == {"comparison.svg", "comparison-2.svg", "comparison-3.svg"}
    assert "Steerability in three minus that in one, base → base, unweighted mean over datasets:" in {
        claim.statement for claim in finding.claims
    }
    rows = differences([finding])
    assert len(rows) == 15
    assert rows[0]["second minus first"] == "two minus one"
    assert all(row["95% interval"] for row in rows)
    widths = {
        name: [np.ptp([float(limit.replace("−", "-")) for limit in row[name].strip("[]").split(", ")]) for row in rows]
        for name in ("95% interval", "for all at once")
    }
    assert (np.array(widths["for all at once"]) > widths["95% interval"]).all()


def test_beside_each_difference_stands_the_one_that_the_comparison_would_have_found(three, tmp_path):
    finding = analyses.run("comparison", three, tmp_path)
    rows = differences([finding])
    (row,) = [r for r in rows if (r["second minus first"], r["shift"]) == ("three minus one", "base → base")]
    one, _, other = (study_of(path) for path in three)
    table = one.power("base->base", other=other)
    value, *_ = together([table.effect[0], table.effect_low[0], table.effect_high[0]])
    assert row["found 80% of the time"].split(" ")[0] == value
    (claim,) = [c for c in finding.claims if c.key == "comparison.one.three.base->base"]
    assert f"a true difference of {row['found 80% of the time']} is found 80% of the time" in claim.interval
    assert (finding.numbers["power"], finding.numbers["alpha"]) == (table.power, table.alpha)
    assert "true difference that the 95% interval of that shift finds, by itself, 80% of the time" in finding.reading
    # A cache beside itself differs nowhere, and cannot say what would have been found.
    same = analyses.run("comparison", [three[0], three[0]], tmp_path / "same")
    assert not any("found" in text for text in (same.reading, *(claim.interval for claim in same.claims)))


def test_axes_name_what_tells_two_caches_apart(three, tmp_path, monkeypatch):
    # Two revisions of one model, say, whose names are alike.
    monkeypatch.setattr("analyses.cross_model.same_model", lambda *_: False)
    analyses.run("cross_model", three[:2], tmp_path)
    drawn = (tmp_path / "cross_model.svg").read_text("utf-8")
    assert ">one (nat/λ)<" in drawn
    assert ">two (nat/λ)<" in drawn
    # One pair has no heading that could say which cache is taken from which: its axes do.
    assert "before the minus steers more" in analyses.run("comparison", three[:2], tmp_path).reading
    assert re.search(r">two<.*>minus one<", (tmp_path / "comparison.svg").read_text("utf-8"), re.DOTALL)


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reproduce", "c", "--seed", "-1"], "--seed"),
        (["reproduce", "c", "-j", "-3"], "--jobs"),
        (["report"], "Missing argument"),
        (["report", "--bogus"], "No such option: --bogus"),
        (["bogus"], "No such command 'bogus'"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(run, arguments, message):
    code, out, errors = run(*arguments)
    assert code == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert message in errors
    assert "--help` shows how" in errors
    assert not out


def test_a_seed_that_makes_no_sense_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="seed"):
        render_report([plain_cache()], tmp_path / "out", seed=-1)
    assert not (tmp_path / "out").exists()


def test_a_script_by_itself_complains_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "analyses.power", str(tmp_path / "nowhere"), "-o", str(tmp_path)],
        capture_output=True, text=True, cwd=Path(analyses.__file__).parent.parent, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_the_claims_fit_a_terminal_of_80_columns():
    from rich.console import Console

    from reports.terminal import claims_table

    record = json.loads((reproduction() / "claims.json").read_text("utf-8"))
    for width in (60, 80):
        console = Console(record=True, width=width, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(claims_table(record), soft_wrap=False)
        lines = console.export_text().splitlines()
        assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "How well does it transfer?" in text
    assert "nat/λ" in text
    assert "their vector differs from random" in text, "in a column that is wide enough for it"
    assert text.count("Layer sweep") == 1


def test_a_thinned_drawing_draws_what_it_drew():
    folder = next((reproduction() / "results").iterdir())
    for name in ("gap_parts", "id_vs_ood", "linearity", "propensity_difference"):
        svg = (folder / f"{name}.svg").read_text("utf-8")
        shown = inline_svg(svg, f"a-long-prefix-{name}", "t", "d")
        assert len(shown) < 0.75 * len(svg)
        assert shown.count("<use ") == svg.count("<use ")
        assert re.findall(r">([^<>]+)</text>", shown) == re.findall(r">([^<>]+)</text>", svg)
        empty = len(re.findall(r'<path d="[^"]*"\s+style="fill: none"/>', svg))
        ends = [len(re.findall(r"\bM (?=-?\d)", text.rpartition("</title>")[2])) for text in (shown, svg)]
        assert 0 <= ends[1] - ends[0] <= empty + svg.count("<metadata>"), "no line is lost"
        ids = set(re.findall(r' id="([^"]+)"', shown))
        assert set(re.findall(r'href="#([^"]+)"', shown)) | set(re.findall(r"url\(#([^)]+)\)", shown)) <= ids
        parse = ElementTree.fromstring(shown.replace("&nbsp;", " "))
        assert parse.tag.endswith("svg")


# --- words and numbers ----------------------------------------------------------------------------


def test_a_share_that_may_be_negative_has_a_plain_interval_and_words(tmp_path):
    claim = Claim(key="explained.mean", statement="Share, mean over datasets:", estimate=-0.02, ci_low=-0.05,
                  ci_high=0.01, interval="t", n=3, n_of="datasets", unit="share",
                  facts=share_words({}, ())[1] | {"dataset": "d"})  # fmt: skip
    finding = replace(analyses.run("layer_sweep", plain_cache(), tmp_path), script="x", missing="", claims=(claim,))
    card = summary([finding])["cards"][1]
    assert (card["number"], card["interval"]) == ("none", "95% interval −5% to 1%")
    assert card["words"].startswith("less than chance would give (−2%): the variance between inputs is not shown to go")
    # An estimate below 0 is no proof of none: of a true 5%, 30 inputs show that little in 42% of studies.
    assert answer._bias({"explained.mean": replace(claim, ci_high=0.12), "per_input.signs": claim}) == (
        "None of the variance of steerability between inputs is shown to go with answer letter and word (−5% to 12%)."
    )


def test_published_values_are_printed_as_transcribed():
    values = [published.ID_OOD, published.PROPENSITY]
    assert [entry.text for table_ in values for entry in table_.values()] == ["0.891", "0.694", "-0.26", "-0.46"]
    facts = dict.fromkeys(("model", "layer", *published.PROTOCOL), "x") | {"datasets": []}
    claim = Claim.bare("k", "s:", 0.1, 3, "datasets", "none").against(
        published.PROPENSITY[published.LLAMA], facts, shift=published.ALL_PAIRS
    )
    assert (claim.published, claim.shown_published) == (-0.26, "−0.26")
    assert "->" not in "".join(entry.source for entry in (published.CROSS_OOD, published.CROSS_ID))


@pytest.mark.parametrize(
    ("values", "unit", "shown"),
    [
        ((0.99, 0.9881, 0.9918), "share", ["99.0%", "98.8%", "99.2%"]),
        ((0.14, 0.08, 0.21), "share", ["14%", "8%", "21%"]),
        ((-3.81e-4, -0.02, 0.03), "1", ["−0.0004", "−0.020", "0.030"]),
        ((0.5, -np.inf, np.inf), "1", ["0.500", "−∞", "∞"]),
        ((-80998.83, -120300.5, 754.009), "1", ["−80999", "−120300", "754"]),
        ((80998.83, 80998.71, 80999.0), "1", ["80998.8", "80998.7", "80999.0"]),
    ],
)
def test_an_estimate_and_its_limits_never_read_alike(values, unit, shown):
    assert together(values, unit) == shown


def test_signs_arrows_and_sentences():
    assert number(-0.0004) == "−0.0004"
    assert percent(-0.0001) == "0.0%"
    assert tidy("sys_pos->user_neg, -0.1135 to 0.02455") == "system (positive) → user (negative), −0.1135 to 0.02455"
    assert sentence("mean over inputs; t(3) interval; resampled (by question; whole)") == (
        "Mean over inputs; t(3) interval. Resampled (by question; whole)."
    )


def test_a_paper_gets_few_columns_and_an_estimate_with_its_limits_in_one():
    folder = next((reproduction() / "results").iterdir())
    for script in analyses.SCRIPTS:
        assert script in PAPER
        if (folder / f"{script}.csv").is_file():
            frame = for_paper(pd.read_csv(folder / f"{script}.csv"), script)
            assert 3 <= frame.shape[1] <= 7, script
            assert len(frame), script
    gaps = for_paper(pd.read_csv(folder / "gap_parts.csv"), "gap_parts")
    assert gaps["estimate [95%]"].str.fullmatch(r"−?\d+\.\d+ \[−?\d+\.\d+, −?\d+\.\d+\]").all()
    text = to_latex(gaps.head(3), caption="c", label="l")
    assert "textgreater" not in text
    assert r"base $\to$ user (negative)" in text
    claims = (reproduction() / "claims.tex").read_text("utf-8")
    assert claims.count(r"\\") > 40
    assert len(pd.read_csv(reproduction() / "claims.csv")) == claims.count("\n") - 14


def test_provenance_reads_as_words():
    assert (
        _flat({"commit": "ab", "dirty": True, "reason": "", "revision": None}) == "commit ab, uncommitted changes yes"
    )


def test_the_words_of_the_page_are_explained_and_notices_come_first():
    page = (reproduction() / "report.html").read_text("utf-8")
    summary_part = page.partition('<section id="summary"')[2].partition("</section>\n\n")[0]
    assert summary_part.index("Read this first") < summary_part.index('class="cards"')
    for word in ("nat", "shift", "FDR", "label-shuffled vectors"):
        assert f"<dt>{word}</dt>" in page
    assert "user (negative) user_neg" in page or "user (negative) is user_neg" in page
    assert hostile_cache().name not in page.partition("<footer>")[2]


@pytest.mark.parametrize(
    ("name", "shown"),
    [("kind <b>ness", True), ("kind-sweep", True), ("demo", False), ("demo-sweep", False), ("", False), (None, False)],
)
def test_a_study_is_called_by_the_name_that_its_spec_gives_it(name, shown):
    study = SimpleNamespace(spec={"name": name}, model="bundled:x", kind="sweep", datasets=(), units={}, settings=(),
                            reader=SimpleNamespace(spec_hash="0" * 64))  # fmt: skip
    assert (("study", name) in _facts({"a": study})) == shown
    assert any(what == "study" for what, _ in _facts({"a": study})) == shown
    both = dict(_facts({"a": study, "b": study}))
    assert both["a"].endswith(f"build {'0' * 12}{f', study {name}' if shown else ''}")


def test_the_names_that_name_no_study_are_those_of_the_presets():
    from cache_builder.spec import load_spec, presets
    from cache_builder.spec.sweep import sweep_spec

    assert set(PRESETS) == {"", *presets()}
    assert sweep_spec(load_spec("demo"), "all").name == f"demo{SWEEP_NAME}"
