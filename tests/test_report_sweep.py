"""A sweep's report: the layer profile with its choice, everything else named as not in this cache."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import escape
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
from reporting import plain_cache
from scipy import stats
from tiny_sweep import write_sweep

import analyses
from analyses._sweeps import extreme, layer_claim, layer_rows
from steerstats import open_cache
from steerstats.cache import CacheReader, create_cache, write_unit
from steerstats.errors import InputError
from steerstats.sweeps import choose_sweep_layer


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Three datasets, three layers; layer 7 steers best."""
    root = tmp_path_factory.mktemp("sweep") / "cache"
    write_sweep(root, ["a", "b", "c"], [0.2, 0.9, 0.4], [-1.0, 0.0, 1.0])
    assert not CacheReader(root).missing
    return root


def test_the_report_shows_the_choice_and_names_what_a_sweep_lacks(sweep, tmp_path):
    from reports.render import render_report

    page = render_report([sweep], tmp_path / "out", jobs=1).read_text("utf-8")
    records = {
        path.stem: json.loads(path.read_text("utf-8")) for path in (tmp_path / "out" / "results").rglob("*.json")
    }
    (claim,) = records["layer_sweep"]["claims"]
    assert claim["estimate"] == pytest.approx(0.9, abs=0.1)
    assert "Layer 7 is the best of 3 in 100% of resamples" in claim["statement"]
    assert claim["statement"].endswith("; mean steerability at layer 7:")
    assert "Layer 7 is the best of 3" in page
    assert "a sweep over layers" in records["power"]["missing"]
    assert "4000 resamples of questions within these datasets, limits by t(" in records["layer_sweep"]["method"]


def test_rows_without_a_dataset_are_the_plain_mean_over_datasets(sweep):
    frame = layer_rows(open_cache(sweep), [3, 7, 9])
    own, over = frame[frame["dataset"].notna()], frame[frame["dataset"].isna()].set_index("layer")
    sem, margin = own.groupby("layer")["estimate"].sem(), stats.t.ppf(0.975, 2)
    np.testing.assert_allclose(over["estimate"], own.groupby("layer")["estimate"].mean(), rtol=1e-12)
    np.testing.assert_allclose(over["ci_high"] - over["estimate"], margin * sem, rtol=1e-9)
    assert [extreme(SimpleNamespace(operator=name)) for name in ("ablate", "add")] == ["lowest", "highest"]


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c")])
def test_a_dataset_that_the_chosen_layer_does_not_move_counts_in_the_mean_there(names, tmp_path):
    moved = CacheReader(write_sweep(tmp_path / "moved", names, [0.2, 0.9], [-1.0, 0.0, 1.0]))
    root = create_cache(tmp_path / "still", {"kind": "sweep", "spec_hash": "ab", "model": "m", "units": list(names)})
    for name in names:
        unit = moved[name].load()
        if name == "b":
            unit.arrays["propensity"][:, 1] = 0.0
        write_unit(root, name, unit)
    finding = analyses.run("layer_sweep", root, tmp_path / "out")
    best = choose_sweep_layer(root)
    assert (best.chosen, best.mean[1]) == (7, pytest.approx(0.9 * (len(names) - 1) / len(names), abs=0.1))
    (claim,) = finding.claims
    assert (claim.estimate, claim.n) == (pytest.approx(best.mean[1], rel=1e-9), len(names))


def test_a_sweep_of_one_dataset_speaks_of_its_questions_and_not_of_datasets(tmp_path):
    from reports.render import render_report

    write_sweep(tmp_path / "one", ["a"], [0.2, 0.9, 0.4], [-1.0, 0.0, 1.0])
    page = render_report([tmp_path / "one"], tmp_path / "out", jobs=1).read_text("utf-8")
    record = json.loads(next((tmp_path / "out" / "results").rglob("layer_sweep.json")).read_text("utf-8"))
    assert record["method"].startswith("mean steerability, base->base; t interval over questions; the choice: ")
    assert record["bars"] == "band: 95% t interval over questions."
    assert record["counted"] == "1 dataset, 3 layers, validation inputs."
    assert "thin lines" not in record["reading"]
    assert "an interval of a correlation" not in page, "a sweep correlates nothing"


def test_a_sweep_of_one_layer_names_no_best_one(tmp_path):
    from reports.render import render_report

    write_sweep(tmp_path / "one", ["a", "b", "c"], [0.2], [-1.0, 0.0, 1.0])
    page = render_report([tmp_path / "one"], tmp_path / "out", jobs=1).read_text("utf-8")
    record = json.loads(next((tmp_path / "out" / "results").rglob("layer_sweep.json")).read_text("utf-8"))
    (claim,) = record["claims"]
    assert claim["statement"].startswith("Layer 3 is the only one that was tried, and none was chosen; mean steer")
    assert record["counted"] == "3 datasets, 1 layer, validation inputs."
    assert "the choice" not in record["method"] + claim["interval"]
    for words in ("is the best", "could be as good", "looks better than it is", "allow for the choice", "Gupta"):
        assert words not in page


def test_the_report_is_about_validation_inputs_and_names_once_what_a_grid_would_tell(sweep, tmp_path):
    from reports.render import render_report

    page = render_report([sweep], tmp_path / "out", jobs=1).read_text("utf-8")
    assert "<li>validation inputs <b>90</b></li>" in page
    assert "90 validation inputs, 30 inputs in each" in page
    assert "test inputs, 30 inputs in each" not in page
    assert 'class="answer">Layer 7 is the best of 3' in page
    assert 'class="card"' not in page
    assert "<h1>At which layer to steer " in page
    chapters = re.findall(r'<section id="(\w+)"', page)
    assert chapters == ["summary", "layer", "untold", "claims", "methods", "provenance"], "its one figure comes first"
    untold = page.partition('<section id="untold"')[2].partition("</section>")[0]
    titles = {module.TITLE for module in map(import_module, (f"analyses.{name}" for name in analyses.SCRIPTS))}
    assert all(escape(title) in untold for title in titles - {"Layer sweep"})
    assert [section.title for section in analyses.SECTIONS] == re.findall(r'<span id="\w+">(.*?)</span>', untold)


def test_the_choice_on_a_cache_is_the_choice_on_its_slopes(sweep):
    choice = choose_sweep_layer(sweep, seed=1)
    assert choice.chosen == 7
    assert choice.n_datasets == 3
    assert choice.n_inputs == 90


def test_a_sweep_of_one_dataset_counts_its_questions(tmp_path):
    lone = write_sweep(tmp_path / "one", ["a"], [0.2, 0.9, 0.4], [-1.0, 0.0, 1.0])
    finding = analyses.run("layer_sweep", lone, tmp_path / "out")
    (claim,) = finding.claims
    assert (claim.n, claim.n_of) == (30, "questions")
    assert claim.interval == "t over questions; the choice of the highest is not in it"
    assert "such as these" not in claim.statement


def test_a_sweep_beside_another_cache_is_refused_before_any_work(sweep, tmp_path):
    from reports.render import render_report
    from reports.reproduce import reproduce

    for make in (render_report, reproduce):
        with pytest.raises(InputError, match="is a sweep over layers, which has a report of its own: give it alone"):
            make([plain_cache(), sweep], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_layer_that_loses_a_few_resamples_is_not_the_best_in_all_of_them(sweep):
    choice = choose_sweep_layer(sweep)
    shares = np.where(choice.layers == choice.chosen, 0.996, 0.002)
    best = {"estimate": 0.9, "ci_low": 0.8, "ci_high": 1.0, "n": 3}
    assert " of 3 in 99.6% of resamples" in layer_claim(replace(choice, share=shares), best).statement
