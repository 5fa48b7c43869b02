"""One script a claim: short, separate, honest about what a cache lacks, and equal to the published definitions."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reporting import TRUTH, hostile_cache, plain_cache, reproduction, scratch, write_cache

import analyses
from analyses import _published as published
from analyses._cache import study_of
from analyses._claim import Claim, Finding, publish
from analyses._tables import escape, to_latex
from steerstats import demo_cache, figures, open_cache
from steerstats.cache.table_file import _exact
from steerstats.errors import Absent, CacheError
from steerstats.generalization import steerability_table
from steerstats.results import Estimate

FOLDER = Path(analyses.__file__).parent
SCRIPTS = sorted(path for path in FOLDER.glob("[a-z]*.py"))


def results(script: str) -> dict:
    folder = next((reproduction() / "results").iterdir())
    return json.loads((folder / f"{script}.json").read_text("utf-8"))


def table(script: str) -> pd.DataFrame:
    return pd.read_csv(next((reproduction() / "results").iterdir()) / f"{script}.csv")


# --- the scripts themselves -----------------------------------------------------------------------


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short_has_a_main_and_knows_no_other_script(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) < 60
    tree = ast.parse(text)
    main = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    assert [argument.arg for argument in main.args.args] == ["cache", "out"]
    named = {node.targets[0].id for node in tree.body if isinstance(node, ast.Assign)}
    assert {"TITLE", "PAPER"} <= named
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("analyses"):
            parts = {node.module.partition(".")[2]} if "." in node.module else {alias.name for alias in node.names}
            assert all(part.startswith("_") for part in parts), f"{path.name} imports {parts}"


def test_every_script_is_in_the_report_and_in_the_readme_once():
    names = [path.stem for path in SCRIPTS]
    assert sorted(analyses.SCRIPTS) == names
    readme = (FOLDER / "README.md").read_text("utf-8")
    listed = re.findall(r"^\|.*\| `(\w+)\.py` \|", readme, flags=re.MULTILINE)
    assert sorted(listed) == names
    shared = {path.name for path in FOLDER.glob("_*.py")} - {"__init__.py"}
    assert set(re.findall(r"`(_\w+\.py)`", readme)) == shared


def test_every_figure_of_the_paper_has_a_script():
    papers = " ".join(results(script)["paper"] for script in analyses.SCRIPTS)
    found = {int(number) for number in re.findall(r"\d+", papers.replace("2025", ""))}
    assert {1, 2, 3, 4, 5, 6, 7, 16, 18} <= found


@pytest.mark.parametrize("script", analyses.SCRIPTS)
def test_what_a_script_hands_in_is_complete(script):
    finding = results(script)
    folder = next((reproduction() / "results").iterdir())
    if finding["missing"]:
        assert finding["missing"].startswith(("not in this cache: ", "cannot be estimated here: "))
        assert not (folder / f"{script}.svg").exists()
        return
    for suffix in ("svg", "pdf", "csv", "parquet", "tex"):
        assert (folder / f"{script}.{suffix}").stat().st_size > 0
    for part in ("title", "reading", "bars", "counted", "alt", "method"):
        assert finding[part], part
    assert finding["claims"]
    for claim in finding["claims"]:
        assert claim["n"] > 0
        assert claim["n_of"]
        assert claim["interval"], "every number says what its interval is, or why it has none"
        assert claim["statement"].endswith(":")
        if isinstance(claim["estimate"], float) and isinstance(claim["ci_low"], float):
            assert claim["ci_low"] <= claim["estimate"] <= claim["ci_high"]


def test_keys_of_claims_are_unique():
    keys = [claim["key"] for script in analyses.SCRIPTS for claim in results(script)["claims"]]
    assert len(keys) == len(set(keys)) > 20


def test_a_script_runs_by_itself(tmp_path):
    script = FOLDER / "multiplier_range.py"
    run = subprocess.run(
        [sys.executable, "-m", "analyses.multiplier_range", str(hostile_cache()), "-o", str(tmp_path)],
        capture_output=True, text=True, cwd=FOLDER.parent, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "Sensitivity to the multiplier range" in run.stdout
    ours = (tmp_path / "multiplier_range.json").read_bytes()
    assert ours == (next((reproduction() / "results").iterdir()) / "multiplier_range.json").read_bytes(), script


# --- what a cache lacks ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("null_vectors", "not in this cache: built without random or shuffled vectors"),
        ("debiased_vectors", "not in this cache: built without debiased vectors"),
        ("vector_sampling_error", "not in this cache: built without resampled vectors"),
        ("answer_mass", "not in this cache: built without the log-sum-exp over the vocabulary"),
        ("cross_model", "not in this cache: a second model; give it as a second cache"),
        ("layer_sweep", "not in this cache: one layer only; `steerstats sweep` builds a cache that has them all"),
    ],
)
def test_a_cache_is_told_what_it_lacks(script, reason, tmp_path):
    finding = analyses.run(script, plain_cache(), tmp_path)
    assert finding.missing == reason
    assert not finding.claims
    assert [path.name for path in tmp_path.iterdir()] == [f"{script}.json"]


def test_one_refit_tells_no_sampling_error(tmp_path):
    once = write_cache(tmp_path / "once", replace(TRUTH, datasets=["one"], mean_steerability=1.0, n_resampled=1))
    finding = analyses.run("vector_sampling_error", once, tmp_path / "out")
    assert finding.missing == "not in this cache: built without two resampled vectors, the fewest that show it"


def test_a_setting_that_is_not_there_is_named(tmp_path):
    base = {"settings": ("base",), "prompt_loss": {}, "prompt_intercept": {}, "n_resampled": 0}
    lone = write_cache(tmp_path / "lone", replace(TRUTH, datasets=["one"], mean_steerability=1.0, **base))
    finding = analyses.run("id_vs_ood", lone, tmp_path / "out")
    assert finding.missing == "not in this cache: built without user_neg, user_pos, sys_pos, sys_neg"


def test_figure_seven_says_of_its_intervals_what_its_estimator_does(tmp_path):
    finding = analyses.run("propensity_difference", demo_cache(), tmp_path)
    assert "jackknife of whole datasets" in finding.method.lower()
    limited = {claim.key: claim.interval for claim in finding.claims if np.isfinite(claim.ci_low)}
    assert limited == {"figure7.transfer_loss": "jackknife, whole datasets left out in turn"}
    alone = next(claim for claim in finding.claims if claim.key == "figure7.original")
    assert alone.interval == "too few datasets for an interval"
    # A perfect ranking has none either, whatever the number of datasets.
    perfect = replace(alone, n=40, interval="percentile over datasets")
    assert perfect.interval == "no interval, for the reason in the warnings"
    questions = replace(perfect, n=5, n_of="questions", interval="jackknife by question and replicate")
    assert questions.interval == "no interval, for the reason in the warnings", "no dataset is counted there"
    assert "leave whole datasets out" in finding.bars
    assert finding.seed is None


def test_a_damaged_cache_is_an_error_and_no_finding(tmp_path):
    broken = write_cache(tmp_path / "broken", replace(TRUTH, datasets=["one"], mean_steerability=1.0))
    file = broken / "units" / "one.h5"
    file.write_bytes(b"no HDF5" + file.read_bytes()[7:])
    with pytest.raises(CacheError, match=r"one\.h5"):
        analyses.run("propensity_curves", broken, tmp_path / "out")


@pytest.mark.parametrize("kind", [Absent, CacheError])
def test_what_is_absent_is_told_from_what_is_broken_by_the_errors_kind_and_not_its_words(kind, tmp_path, monkeypatch):
    def main(cache, out):
        raise kind("somewhere: /direction is not in this cache; it has activation")

    monkeypatch.setattr("analyses.propensity_curves.main", main)
    if kind is Absent:
        found = analyses.run("propensity_curves", demo_cache(), tmp_path)
        assert found.missing == "not in this cache; it has activation"
    else:
        with pytest.raises(CacheError, match="somewhere"):
            analyses.run("propensity_curves", demo_cache(), tmp_path)


# --- parity with the published definitions --------------------------------------------------------


def curves(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Propensity (input, multiplier) at base -> base, straight from the file."""
    unit = open_cache(hostile_cache()).reader[name]
    values = unit.read("propensity", setting_eval="base", vector="base").astype(float)
    return values.T, unit.coords["multiplier"]


@pytest.mark.parametrize("name", TRUTH.datasets)
def test_slopes_medians_and_shares_are_those_of_polyfit(name):
    values, grid = curves(name)
    slopes = np.array([np.polyfit(grid, row, 1)[0] for row in values])
    rows = table("per_input_steerability").query("dataset == @name").set_index("name")["estimate"]
    assert rows["mean"] == pytest.approx(slopes.mean(), rel=1e-10)
    assert rows["median"] == pytest.approx(np.median(slopes), rel=1e-10)
    assert rows["sd"] == pytest.approx(slopes.std(ddof=1), rel=1e-10)
    assert rows["published_nonpositive"] == pytest.approx((slopes <= 0).mean(), rel=1e-10)


@pytest.mark.parametrize("name", TRUTH.datasets)
def test_the_published_split_is_sequential_ols(name):
    values, grid = curves(name)
    slopes = np.array([np.polyfit(grid, row, 1)[0] for row in values])
    unit = open_cache(hostile_cache()).reader[name]
    a, yes = (unit.read(f"input_pos_is_{factor}") == 1 for factor in ("a", "yes"))

    def explained(*columns):
        x = np.column_stack([np.ones(len(slopes)), *columns]).astype(float)
        rest = slopes - x @ np.linalg.lstsq(x, slopes, rcond=None)[0]
        return 1 - rest @ rest / ((slopes - slopes.mean()) @ (slopes - slopes.mean()))

    rows = table("variance_explained").query("dataset == @name and split == 'published_sequential'")
    share = rows.set_index("component")["share"]
    assert share["pos_is_a"] == pytest.approx(explained(a), abs=1e-10)
    assert share["pos_is_yes after pos_is_a"] == pytest.approx(explained(a, yes) - explained(a), abs=1e-10)


def test_the_comparison_is_the_mean_paired_difference(tmp_path):
    finding = analyses.run("comparison", [hostile_cache(), plain_cache()], tmp_path)
    whole = pd.read_csv(tmp_path / "comparison.csv")
    assert set(whole["shift"]) == {"base->base", "base->user_neg", "base->user_pos", "sys_pos->user_neg"}
    assert set(zip(whole["first"], whole["second"])) == {("hostile", "plain")}
    frame = whole[whole["shift"] == "base->base"].set_index("dataset")
    one, other = study_of(hostile_cache()), study_of(plain_cache())
    for name in plain_truth():
        sides = [pd.Series(s.slopes(name).at("base->base"), s.unit(name).inputs) for s in (one, other)]
        paired = (sides[1] - sides[0]).dropna()
        assert len(paired) == TRUTH.n_inputs
        assert frame.loc[name, "estimate"] == pytest.approx(paired.mean(), rel=1e-10)
        # At home the two models differ by the same on every input; under a shift they do not.
        assert frame.loc[name, "band_low"] == frame.loc[name, "ci_low"] == pytest.approx(-0.2)
        apart = whole[(whole["shift"] == "base->user_neg") & (whole["dataset"] == name)].squeeze()
        assert apart["band_low"] < apart["ci_low"], "bands hold for all datasets at once"
    assert finding.counted.startswith(f"{2 * TRUTH.n_inputs} inputs")
    assert [path.name for path in sorted(tmp_path.glob("*.svg"))] == ["comparison.svg"]
    assert "->shared inputs" not in finding.method + finding.reading + str(whole.columns)


def plain_truth() -> tuple[str, ...]:
    return tuple(TRUTH.datasets[:2])


def test_scatters_have_the_first_model_or_the_base_prompt_across_and_the_other_up(tmp_path, monkeypatch):
    drawn, caches = [], (hostile_cache(), plain_cache())
    monkeypatch.setattr(figures, "agreement", lambda pairs, **_: drawn.append(pairs.set_index("dataset")))
    monkeypatch.setattr("analyses.cross_model.same_model", lambda *_: False)
    one, other = (
        steerability_table(study_of(cache).grid()).to_frame().set_index(["train", "evaluate", "dataset"])["mean"]
        for cache in caches
    )
    analyses.run("cross_model", list(caches), tmp_path)
    for name in plain_truth():
        expected = one["base", "base", name], other["base", "base", name]
        assert drawn[0].loc[name, ["x", "y"]].tolist() == pytest.approx(expected)
    drawn.clear()
    analyses.run("id_vs_ood", caches[0], tmp_path)
    for name in plain_truth():
        expected = one["base", "base", name], one["base", "user_neg", name]
        assert drawn[0].loc[name, ["x", "y"]].tolist() == pytest.approx(expected)


def test_the_table_of_settings_is_the_mean_over_datasets(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "transfer_table", lambda values, train, evaluate, **_: drawn.append(values))
    analyses.run("gap_parts", hostile_cache(), tmp_path)
    means = steerability_table(study_of(hostile_cache()).grid())
    np.testing.assert_allclose(drawn[0], means.mean.mean(axis=0))
    assert np.ptp(means.mean, axis=0).min() > 0.1


def test_the_smallest_detectable_gap_carries_the_limits_of_the_spread_between_datasets(tmp_path):
    (claim,) = results("power")["claims"]
    (row,) = study_of(hostile_cache()).power(shift="base->user_neg").to_frame().to_dict("records")
    assert (claim["ci_low"], claim["estimate"], claim["ci_high"]) == pytest.approx(
        (row["effect_low"], row["effect"], row["effect_high"]), nan_ok=True
    )
    alone = write_cache(tmp_path / "one", replace(TRUTH, datasets=TRUTH.datasets[:1], mean_steerability=[1.0]))
    (claim,) = analyses.run("power", alone, tmp_path / "out").claims
    assert np.isnan([claim.ci_low, claim.ci_high]).all()
    assert claim.interval == "a design figure from components whose uncertainty is not known"


# --- published values -----------------------------------------------------------------------------


def test_published_values_are_as_transcribed():
    assert [published.ID_OOD[m].value for m in (published.LLAMA, published.QWEN)] == [0.891, 0.694]
    assert [published.PROPENSITY[m].value for m in (published.LLAMA, published.QWEN)] == [-0.26, -0.46]
    assert (published.CROSS_ID.value, published.CROSS_OOD.value) == (0.769, 0.586)
    assert (published.MYOPIC_ANTI.value, published.MYOPIC_VARIANCE.value) == (0.49, 8.4)
    assert len(published.FORTY) == 40
    assert "not checked against the PDF" in published.CROSS_ID.source


SAME = {
    "model": "meta-llama/Llama-2-7b-chat-hf", "layer": 13, "datasets": sorted(published.FORTY), **published.PROTOCOL
}  # fmt: skip
STATED = replace(published.ID_OOD[published.LLAMA], shift="base->user_neg")  # as it would be if the notes said it


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0.87, 0.93, "consistent"),
        (0.83, 0.93, "cannot say"),
        (0.5, 0.95, "cannot say"),
        (0.2, 0.5, "inconsistent"),
        (np.nan, np.nan, "cannot say"),
    ],
)
def test_verdicts_need_the_interval_inside_a_margin(low, high, found):
    ours = Estimate(name="x", estimate=0.9, ci_low=low, ci_high=high, n=40, method="m")
    for model in (SAME["model"], "/models/Llama-2-7b-chat-hf/", "llama-2-7b-chat"):
        assert published.judge(ours, STATED, (SAME | {"model": model},), "base->user_neg")[0] == found


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model": "Qwen/Qwen1.5-14B-Chat"}, "model is Qwen/Qwen1.5-14B-Chat, there Llama-2-7b-chat"),
        ({"model": "me/Llama-2-7b-chat-tuned"}, "model is me/Llama-2-7b-chat-tuned, there Llama-2-7b-chat"),
        ({"layer": 14}, "layer is 14, there 13"),
        ({"layer": None}, "layer is not recorded, there 13"),
        ({"layer": [13, 14]}, "layers are 13, 14, there 13"),
        ({"split": "content"}, "split is content, there tan2024-literal"),
        ({"scope": None}, "not recorded here: scope"),
        ({"scope": None, "read": None}, "not recorded here: scope, token that vectors are read at"),
        ({"score": "logit_diff"}, "score is logit_diff, there logit_sum"),
        ({"operator": "ablate"}, "operator is ablate, there add"),
        ({"order": "balanced"}, "order of the options is balanced, there tan2024"),
        ({"method": "pca"}, "vectors' method is pca, there mean_difference"),
        ({"read": "last_token"}, "token that vectors are read at is last_token, there answer"),
        ({"rescale": "unit"}, "vectors' length is unit, there base"),
        ({"multipliers": "-1, 0, 1"}, "multipliers are -1, 0, 1, there -1.5, -1, -0.5, 0, 0.5, 1, 1.5"),
        ({"datasets": ["myopic-reward"]}, "1 of the paper's 40 datasets are here"),
    ],
)
def test_one_different_condition_is_enough_to_be_not_comparable(change, word):
    ours = Estimate(name="x", estimate=0.891, ci_low=0.88, ci_high=0.9, n=40, method="m")
    verdict, reason = published.judge(ours, STATED, (SAME | change,), "base->user_neg")
    assert verdict == "not comparable"
    assert reason == word


def test_claims_with_a_published_value_carry_verdict_and_reason():
    claims = {claim["key"]: claim for script in analyses.SCRIPTS for claim in results(script)["claims"]}
    myopic = claims["per_input.myopic"]
    assert (myopic["published"], myopic["verdict"]) == (0.49, "not comparable")
    assert "there Llama-2-7b-chat" in myopic["reason"]
    assert "arXiv 2407.12404" in myopic["source"]


# --- records and tables ---------------------------------------------------------------------------


def test_a_record_is_strict_json_whatever_the_numbers(tmp_path):
    claim = Claim(key="k", statement="s:", estimate=np.float64(1.5), ci_low=-np.inf, ci_high=np.nan, interval="i",
                  n=np.int64(3), n_of="datasets")  # fmt: skip
    publish(tmp_path, Finding(script="x", title="t", claims=(claim,)))
    read = json.loads((tmp_path / "x.json").read_text("utf-8"), parse_constant=pytest.fail)["claims"][0]
    assert (read["estimate"], read["ci_low"], read["ci_high"], read["n"]) == (1.5, "-inf", None, 3)


def test_latex_escapes_everything_and_keeps_booktabs():
    frame = pd.DataFrame({"data_set": ["a_b & 50% $x$ {\\input{x}} <~^>"], "x": [-0.5], "n": [3], "gone": [np.nan]})
    text = to_latex(frame, caption="50% of #1", label="one")
    body = text.splitlines()
    assert r"\toprule" in body
    assert r"\bottomrule" in body
    row = next(line for line in body if line.startswith("a"))
    assert r"\textbackslash{}input\{x\}" in row
    assert row.endswith(r"& $-$0.500 & 3 & -- \\")
    assert r"\caption{50\% of \#1}\label{tab:one}\\" in body
    assert r"\begin{longtable}{lrrr}" in body
    assert escape("λ → −1") == r"$\lambda$ $\to$ $-$1"


def test_tables_say_the_same_in_csv_and_parquet():
    folder = next((reproduction() / "results").iterdir())
    for script in ("per_input_steerability", "gap_parts"):
        left, right = (
            pd.read_csv(folder / f"{script}.csv", **_exact(pd.__version__)),
            pd.read_parquet(folder / f"{script}.parquet"),
        )
        pd.testing.assert_frame_equal(left, right, check_dtype=False, rtol=0, atol=0)


def test_the_seed_changes_intervals_and_not_estimates():
    runs = [analyses.run("gap_parts", hostile_cache(), scratch(), seed=seed) for seed in (0, 1)]
    estimates = [[claim.estimate for claim in run.claims] for run in runs]
    assert estimates[0] == pytest.approx(estimates[1], rel=1e-12)
    assert [run.seed for run in runs] == [0, 1]
