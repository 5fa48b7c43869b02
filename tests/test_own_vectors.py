"""Vectors of one's own are told what they do: known slopes and differences are recovered, and lengths are said."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from example_table import example_rows
from reporting import TRUTH, hostile_cache, reproduction, scratch

import analyses
from analyses._cache import facts_of
from analyses._own_vectors import claims_of, length_notes, own_cells, rows_of
from reports.methods_data import cache_paragraphs
from reports.references import Cited
from reports.reproduce import reproduce
from reports.words import missed
from steerstats import open_cache
from steerstats.cache import UnitData, create_cache, write_unit
from steerstats.cache.schema import BY_NAME, GRID, PLANNED_SUMMARIES
from steerstats.cache.table import import_table
from steerstats.generalization import gap
from steerstats.simulate import simulate_unit
from steerstats.steerability import anti_steerable

MORE = {"mine": 0.5, "weak": -0.4}  # mean slope beside that of the base vector, nats per unit multiplier
BARE = {"n_resampled": 0, "n_random": 0, "n_shuffled": 0, "debiased": False, "logits": False, "activations": False}


def with_own(data: UnitData, name: str, slopes: np.ndarray, *, norm: float, layer: int, settings) -> UnitData:
    """The unit with one vector more, as a build writes one of `vectors.files`: the base vector's slopes plus these."""
    arrays, at = dict(data.arrays), list(data.arrays["vector"]).index("base")
    for key, values in arrays.items():
        if "vector" in BY_NAME[key].dims:
            axis = BY_NAME[key].dims.index("vector")
            arrays[key] = np.concatenate([values, np.take(values, [at], axis=axis)], axis=axis)
    for key, value in (("vector", name), ("vector_kind", "imported"), ("vector_setting", name)):
        arrays[key] = np.array([*arrays[key][:-1], value], dtype=object)
    if "vector_method" in arrays:
        arrays["vector_method"] = np.array([*arrays["vector_method"][:-1], "imported"], dtype=object)
    arrays["vector_norm"] = np.append(arrays["vector_norm"][:-1], norm).astype(np.float32)
    arrays["vector_layer"] = np.full((len(arrays["vector"]), 1), 13, dtype=np.int32)
    arrays["vector_layer"][-1] = layer
    arrays["slot"] = np.array([0], dtype=np.int32)
    line = arrays["multiplier"][:, None] * slopes
    arrays["propensity"][:, -1] = (arrays["propensity"][:, at] + line).astype(np.float32)
    for setting in set(arrays["setting_eval"]) - set(settings):
        unplan(arrays, setting, -1)
    return UnitData(arrays, data.attrs)


def unplan(arrays: dict[str, np.ndarray], setting: str, vector: int) -> None:
    """A cell as it is stored where nobody asked for it."""
    row = list(arrays["setting_eval"]).index(setting)
    arrays["planned"][row, vector] = 0
    for name in {*GRID, *PLANNED_SUMMARIES} & set(arrays):
        arrays[name][row, vector] = np.nan


def added(dataset: str, vector: str, n: int) -> np.ndarray:
    """What every input's slope is beside that under the base vector."""
    rng = np.random.default_rng([len(dataset), len(vector)])
    return MORE[vector] + rng.normal(0, 0.1, n)


def write(
    path: Path, names, vectors, *, norm=None, layer: int = 13, settings=("base", "user_neg"), base_in_neg: bool = True
) -> Path:
    truth = replace(TRUTH, datasets=tuple(names), mean_steerability=[0.2] * len(names), **BARE)
    create_cache(path, {"kind": "grid", "spec_hash": "ab", "model": "m", "units": list(names), "spec": {}})
    for name in names:
        data, _ = simulate_unit(truth, name, seed=7, model="m")
        base = list(data.arrays["vector"]).index("base")
        for vector in vectors:
            more, length = added(name, vector, len(data.arrays["input"])), norm or data.arrays["vector_norm"][base]
            data = with_own(data, vector, more, norm=length, layer=layer, settings=settings)
        if not base_in_neg:
            unplan(data.arrays, "user_neg", base)
        write_unit(path, name, UnitData(data.arrays, {**data.attrs, "spec_hash": "ab"}))
    return path


@cache
def several() -> Path:
    return write(scratch() / "several", ("one", "second", "another"), ("mine", "weak"))


@cache
def found():
    folder = scratch()
    return analyses.run("own_vectors", several(), folder), pd.read_csv(folder / "own_vectors.csv"), folder


def claim(finding, key):
    return next(one for one in finding.claims if one.key == f"own_vectors.{key}")


@pytest.mark.parametrize("vector", list(MORE))
@pytest.mark.parametrize("setting", ["base", "user_neg"])
def test_known_means_shares_and_differences_are_recovered(vector, setting):
    finding, rows, _ = found()
    study = open_cache(several())
    rows = rows[(rows["vector"] == vector) & (rows["evaluated"] == setting)].set_index("dataset")
    assert set(rows.index) == set(study.datasets)
    for name in study.datasets:
        unit = study.unit(name)
        every = added(name, vector, len(unit.unit.coords["input"]))[unit.kept]
        base = unit.slopes.at(f"base->{setting}")
        row = rows.loc[name]
        assert row["difference"] == pytest.approx(every.mean(), abs=1e-5)
        assert row["difference_low"] < row["difference"] < row["difference_high"]
        assert row["base_mean"] == pytest.approx(base.mean(), abs=1e-9)
        assert row["mean"] == pytest.approx((base + every).mean(), abs=1e-5)
        wilson = anti_steerable(base + every, error=unit.slope_error, questions=unit.question)["anti_steerable"]
        assert row[["anti_steerable", "anti_low", "anti_high"]].tolist() == pytest.approx(
            [wilson.estimate, wilson.ci_low, wilson.ci_high]
        )
    over = claim(finding, f"{vector}.{setting}.difference")
    assert over.estimate == pytest.approx(rows["difference"].mean(), rel=1e-9)
    assert over.ci_low < MORE[vector] < over.ci_high
    mean, quoted = claim(finding, f"{vector}.{setting}.mean"), study.steerability(f"{vector}->{setting}").over_datasets
    assert (mean.estimate, mean.ci_low, mean.ci_high) == pytest.approx(
        (quoted.quoted.mean, quoted.quoted.ci_low, quoted.quoted.ci_high)
    )
    if setting == "base":
        assert claim(finding, f"{vector}.base.anti").estimate == pytest.approx(rows["anti_steerable"].mean())


def test_differences_are_resampled_by_question_and_the_largest_share_is_that_of_its_dataset(monkeypatch):
    study, asked = open_cache(several()), []
    monkeypatch.setattr(
        "analyses._own_vectors.gap", lambda *sides, questions, **more: asked.append(questions) or gap(*sides, **more)
    )
    cells, _ = own_cells(study)
    questions = [study.unit(name).question for cell in cells for name in cell.own.results]
    for own, expected in zip(asked, questions, strict=True):
        np.testing.assert_array_equal(own, expected)
    shares = rows_of(cells[0]).set_index("dataset")["anti_steerable"]
    (worst,) = [one for one in claims_of(cells[0]) if one.key.endswith(".worst")]
    assert (worst.facts["dataset"], worst.estimate) == (shares.idxmax(), shares.max())
    assert shares.nunique() > 1


def test_a_shorter_vector_is_noted_and_none_where_directions_are_taken_out():
    rows = pd.DataFrame({"vector": ["mine"], "norm": [0.5], "base_norm": [1.0], "layer": ["3"], "base_layer": ["3"]})
    added, taken = (length_notes(rows, SimpleNamespace(operators={name})) for name in ("add", "ablate"))
    assert "mine has the norm 0.500, the base vector 1.000" in added[0]
    assert not taken


def test_several_vectors_have_a_figure_each_and_no_warning_of_length_where_it_is_the_same():
    finding, rows, folder = found()
    assert finding.pages == ("mine", "weak")
    assert (folder / "own_vectors.svg").is_file()
    assert (folder / "own_vectors-2.svg").is_file()
    assert not [text for text in finding.warnings if "norm" in text or "layer" in text]
    assert np.allclose(rows["norm"], rows["base_norm"])
    assert "taken as given" in finding.reading
    assert "main vectors" not in finding.method, "which these are not"
    assert any("own sampling error" in text for text in finding.assumptions)
    assert not finding.absent, "settings that nobody asked for are not missed"


def test_one_dataset_one_setting_and_another_length_and_layer(tmp_path):
    lone = write(tmp_path / "lone", ("one",), ("mine",), norm=12.5, layer=14, settings=("base",))
    finding = analyses.run("own_vectors", lone, tmp_path / "out")
    assert [one.key for one in finding.claims] == [
        f"own_vectors.mine.base.{what}" for what in ("mean", "anti", "difference")
    ]
    assert all("in one:" in one.statement and one.n_of == "questions" for one in finding.claims)
    difference = claim(finding, "mine.base.difference")
    assert difference.ci_low < difference.estimate < difference.ci_high
    assert "studentised" in difference.interval
    (length,) = [text for text in finding.warnings if "mine has the norm 12.500, the base vector " in text]
    assert 'files_rescale = "base"' in length
    assert (
        "mine steers layer 14, the base vector layer 13: a difference to the base vector is one of layers too"
        in finding.warnings
    )
    (row,) = pd.read_csv(tmp_path / "out" / "own_vectors.csv").to_dict("records")
    assert (row["norm"], row["layer"], row["base_layer"]) == (12.5, 14, 13)


def test_the_base_vector_itself_differs_by_rounding_and_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setitem(MORE, "same", 0.0)
    monkeypatch.setattr("test_own_vectors.added", lambda dataset, vector, n: np.zeros(n))
    finding = analyses.run("own_vectors", write(tmp_path / "same", ("one",), ("same",)), tmp_path / "out")
    assert any("same moves no input otherwise than the base vector does" in text for text in finding.warnings)


def test_where_the_base_vector_was_not_evaluated_the_rest_is_told(tmp_path):
    """`shifts = ["mine->user_neg"]`, say: the user's vector in a setting that the base vector was not used in."""
    path = write(tmp_path / "alone", ("one", "second"), ("mine",), base_in_neg=False)
    finding = analyses.run("own_vectors", path, tmp_path / "out")
    assert not finding.missing
    assert (
        claim(finding, "mine.user_neg.difference").shown[0] == "not in this cache: built without base → user (negative)"
    )
    assert np.isfinite(claim(finding, "mine.user_neg.mean").estimate)
    assert np.isfinite(claim(finding, "mine.base.difference").estimate)


def test_a_page_does_not_miss_vectors_that_nobody_brought():
    table = scratch() / "plain.csv"
    pd.DataFrame(list(example_rows())).to_csv(table, index=False)
    for one in (hostile_cache(), import_table(table, scratch() / "plain", model="toy")):
        finding = analyses.run("own_vectors", one, scratch() / "page")
        assert "vectors of your own" in finding.missing
        assert not missed(finding.missing)
    assert "of your own" not in (reproduction() / "report.html").read_text("utf-8")


def test_the_report_of_a_cache_that_has_one_holds_its_numbers(tmp_path):
    lone = write(tmp_path / "lone", ("one",), ("mine",), norm=12.5)
    reproduce([lone], tmp_path / "out", jobs=1)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "Vectors of your own beside the base vector" in page
    assert "Mean steerability under mine → base, in one:" in page
    record = json.loads((tmp_path / "out" / "claims.json").read_text("utf-8"))
    own = next(one for one in record["findings"] if one["script"] == "own_vectors")
    told = [one["key"].rpartition(".")[2] for one in own["claims"]]
    assert told == ["mean", "anti", "difference", "mean", "difference"], "shares elsewhere are in the table"


@pytest.mark.parametrize(("layer", "words"), [(7, "(counted from 0; mine: block 7)"), (13, "(counted from 0)")])
def test_methods_name_the_block_that_a_vector_of_ones_own_steers(tmp_path, layer, words):
    study = open_cache(write(tmp_path / "cache", ["a"], ["mine"], layer=layer))
    assert f"the output of decoder block 13 {words}" in cache_paragraphs({"a": study}, Cited())[0]


def test_a_vector_of_ones_own_at_another_layer_leaves_the_study_its_layer(tmp_path):
    study = open_cache(write(tmp_path / "other", ("one",), ("mine",), layer=7))
    assert study.unit("one").steered_layers == (13,)
    assert facts_of(study)["layer"] == 13
