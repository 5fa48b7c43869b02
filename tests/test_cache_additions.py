"""Additions to the contract: the user's own factors, several wrong answers, arrays that are written part by part."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest
from example_table import example_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cache import ATTRS, edit, make_cache, make_unit, text
from test_cache_hostile import repacked

from steerstats.cache import (
    BY_NAME,
    CacheReader,
    UnitData,
    check_unit,
    content_hash,
    create_cache,
    pack,
    read_finite,
    sidecar,
    verify,
    write_unit,
    writer,
)
from steerstats.cache.schema import Streamed
from steerstats.cache.table import import_table
from steerstats.cache.writer import CHUNK_BYTES, row_chunks
from steerstats.errors import CacheError, InputError
from steerstats.frames import inputs_frame, pairs_frame, propensity_frame

FACTORS = {
    "input_factor_topic": text(["law", "art", "", "law", "art", "art"]),
    "input_factor_year": np.array([1990.0, np.nan, 2001.0, 3.0, 4.0, 5.0]),
    "input_factor_harmful": np.array([1, 0, -1, 1, 0, 0], dtype=np.int8),
    "pair_factor_topic": text(["law"] * 4),
}


def save(folder, arrays) -> CacheReader:
    create_cache(folder, {"kind": "simulated", "spec_hash": ATTRS["spec_hash"], "units": ["openness"], "model": "m"})
    write_unit(folder, "openness", UnitData(arrays, ATTRS))
    return CacheReader(folder)


def streamed(array: np.ndarray, rows: int = 3) -> Streamed:
    def parts():
        for index in np.ndindex(array.shape[:-2]):
            for start in range(0, array.shape[-2], rows):
                where = (*index, slice(start, min(start + rows, array.shape[-2])))
                yield where, array[where]

    return Streamed(array.shape, array.dtype, parts)


def test_own_factors_are_stored_and_become_columns_with_their_gaps(tmp_path):
    unit = save(tmp_path, {**make_unit().arrays, **FACTORS})["openness"]
    frame = inputs_frame(unit)
    assert frame["factor_topic"].isna().tolist() == [False, False, True, False, False, False]
    assert frame["factor_topic"].dropna().tolist() == ["law", "art", "law", "art", "art"]
    assert frame["factor_year"].isna().tolist() == [False, True, False, False, False, False]
    assert frame["factor_harmful"].tolist() == [True, False, pd.NA, True, False, False]
    assert pairs_frame(unit)["factor_topic"].tolist() == ["law"] * 4
    assert all(check.ok for check in verify(tmp_path))


@pytest.mark.parametrize(
    "name", ["input_factor_", "input_factor_a/b", "factor_topic", "input_factory", "setting_factor_x"]
)
def test_only_the_families_of_the_schema_are_let_in(name):
    assert name not in BY_NAME
    with pytest.raises(CacheError, match="not part of the schema"):
        check_unit(
            UnitData({**make_unit().arrays, name: np.zeros(6)}, {**ATTRS, "type": "steerstats.unit", "version": 1}), "x"
        )


def test_an_array_written_part_by_part_is_the_same_array(tmp_path):
    arrays = dict(make_unit().arrays)
    whole = arrays["activation"]
    parts = {**arrays, "activation": streamed(whole)}
    assert content_hash(UnitData(parts, ATTRS)) == content_hash(UnitData(arrays, ATTRS))
    unit = save(tmp_path, parts)["openness"]
    np.testing.assert_array_equal(unit.read("activation"), whole)
    assert all(check.ok for check in verify(tmp_path))


@pytest.mark.parametrize("write", [streamed, np.asarray])
def test_a_large_array_is_stored_in_chunks_of_whole_rows(tmp_path, monkeypatch, write):
    monkeypatch.setattr(writer, "CHUNK_BYTES", 100)
    arrays = dict(make_unit(width=20).arrays)
    unit = save(tmp_path, {**arrays, "activation": write(arrays["activation"])})["openness"]
    with h5py.File(unit.path) as file:
        assert file["activation"].chunks == (1, 1, 1, 2, 20)


def test_a_bad_value_in_a_part_is_named_by_its_coordinates(tmp_path):
    arrays = dict(make_unit().arrays)
    arrays["activation"] = arrays["activation"].copy()
    arrays["activation"][2, 0, 1, 3, 4] = np.inf
    arrays["activation"] = streamed(arrays["activation"])
    with pytest.raises(
        CacheError, match="/activation is inf at setting_train=sys_neg, layer=2, answer=negative, pair=p3, hidden=4"
    ):
        save(tmp_path, arrays)


def test_several_wrong_answers_count_in_the_answer_mass_and_in_the_check_of_scores(tmp_path):
    rng = np.random.default_rng(0)
    arrays = dict(make_unit().arrays)
    logits = rng.normal(size=(5, 6, 3, 3, 6)).astype(np.float32)
    arrays |= {
        "answer": text(["positive", "negative", "negative_2"]),
        "answer_logit": logits,
        "propensity": logits[:, :, :, 0] - np.logaddexp(logits[:, :, :, 1], logits[:, :, :, 2]),
        "logsumexp": np.logaddexp.reduce(logits, axis=3) + np.float32(0.25),
        "input_negative_2": text(["(C)"] * 6),
    }
    del arrays["activation"]
    unit = save(tmp_path, arrays)["openness"]
    np.testing.assert_allclose(propensity_frame(unit)["answer_mass"], np.exp(-0.25), rtol=1e-5)
    assert all(check.ok for check in verify(tmp_path))


@pytest.mark.parametrize("k", [2, 9, 10, 19, 20, 100])
def test_a_question_has_any_number_of_wrong_answers(tmp_path, k):
    unit = save(tmp_path, dict(make_unit().arrays) | {f"input_negative_{k}": text(["(C)"] * 6)})["openness"]
    assert unit.read(f"input_negative_{k}").tolist() == ["(C)"] * 6


@pytest.mark.parametrize("k", ["0", "1", "02", "2b"])
def test_further_wrong_answers_are_counted_from_the_second(tmp_path, k):
    with pytest.raises(CacheError, match="is not part of the schema"):
        save(tmp_path, dict(make_unit().arrays) | {f"input_negative_{k}": text(["(C)"] * 6)})


def test_a_table_brings_factors_of_its_own(tmp_path):
    frame = pd.DataFrame(list(example_rows()))
    frame["factor_topic"] = np.where(frame["input"] == "q1", None, "law")
    frame["factor_size"] = frame["input"].str[1:].astype(float)
    frame["factor_seen"] = (frame["input"] == "q2").astype(object).where(frame["input"] != "q1", None)
    frame.to_csv(tmp_path / "t.csv", index=False)
    unit = CacheReader(import_table(tmp_path / "t.csv", tmp_path / "c", model="m"))["kindness"]
    assert unit.read("input_factor_topic").tolist() == ["law", "", "law", "law"]
    assert unit.read("input_factor_size").tolist() == [0, 1, 2, 3]
    assert unit.read("input_factor_seen").tolist() == [0, -1, 1, 0]
    frame.rename(columns={"factor_topic": "factor/topic"}).to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(
        InputError, match=r"'factor/topic' is not known; known are .*factor_NAME \(NAME of letters, digits, _, -"
    ):
        import_table(tmp_path / "bad.csv", tmp_path / "d", model="m")


def test_old_caches_have_none_of_this_and_stay_readable(tmp_path):
    unit = CacheReader(make_cache(tmp_path))["openness"]
    assert not [name for name in inputs_frame(unit) if name.startswith("factor_")]


def test_a_content_hash_sees_along_which_axis_numbers_lie():
    unit = make_unit()
    turned = {**unit.arrays, "propensity": unit.arrays["propensity"].reshape(-1, 1)}
    assert content_hash(UnitData(turned, unit.attrs)) != content_hash(unit)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: root.attrs.modify("spec_hash", "ef"), "the file belongs to another cache"),
        (lambda root: root["input"].__setitem__(1, root["input"][0]), "input"),
    ],
)
def test_a_unit_of_another_cache_and_one_whose_labels_repeat_are_not_read(change, said, tmp_path):
    cache = make_cache(tmp_path / "cache", ("openness",))
    (file,) = (cache / "units").glob("*.h5")
    with h5py.File(file, "r+") as root:
        change(root)
    with pytest.raises(CacheError, match=said):
        CacheReader(cache)["openness"].load()


def test_a_scale_cannot_stay_behind(tmp_path):
    with pytest.raises(InputError, match="leave_out names 'layer', which a unit needs"):
        pack(make_cache(tmp_path / "cache", ("openness",)), tmp_path / "packed.h5", leave_out=["layer"])


def test_content_hash_sees_numbers_and_labels_and_no_provenance():
    unit = make_unit()
    same = UnitData(dict(unit.arrays), {**unit.attrs, "provenance": "another day"})
    assert content_hash(unit) == content_hash(same)
    for name in ("dataset", "score", "spec_hash"):
        assert content_hash(UnitData(unit.arrays, {**unit.attrs, name: "other"})) != content_hash(unit), name
    for name in ("propensity", "input_text", "planned"):
        other = make_unit()
        flat = other.arrays[name].copy()
        flat[(0,) * flat.ndim] = "x" if flat.dtype == object else 7
        other.arrays[name] = flat
        assert content_hash(other) != content_hash(unit), name
    check_unit(UnitData(unit.arrays, {**unit.attrs, "type": "steerstats.unit", "version": 1}), "here")


def test_a_content_hash_tells_where_one_label_ends_and_the_next_begins():
    one, other = make_unit(), make_unit()
    one.arrays["input_text"][:2], other.arrays["input_text"][:2] = ["ab", "c"], ["a", "bc"]
    assert content_hash(one) != content_hash(other)


@pytest.mark.parametrize(
    ("name", "off", "what"),
    [
        ("propensity", 5e-4, "propensity = logit difference"),
        ("propensity", -5e-4, "propensity = logit difference"),
        ("logsumexp", -5e-4, "probabilities at most 1"),
    ],
)
def test_verify_holds_scores_and_probabilities_against_the_logits(tmp_path, name, off, what):
    unit = make_unit()
    right = {"propensity": unit.arrays[name][1, 2, 0, 3], "logsumexp": unit.arrays["answer_logit"][1, 2, 0, :, 3].max()}
    unit.arrays[name][1, 2, 0, 3] = right[name] + off
    save(tmp_path, unit.arrays)
    assert [check.what for check in verify(tmp_path) if not check.ok] == [what]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.ones((5, 6), dtype=np.int64), "/planned has type int64, it should be uint8"),
        (np.ones((5, 5), dtype=np.uint8), r"/planned has shape \(5, 5\), setting_eval x vector is \(5, 6\)"),
    ],
)
def test_a_file_that_breaks_the_contract_is_refused_when_it_is_opened(tmp_path, values, said):
    def change(root):
        del root["planned"]
        root.create_dataset("planned", data=values)

    edit(make_cache(tmp_path), change)
    with pytest.raises(CacheError, match=said):
        CacheReader(tmp_path)["openness"]


def test_a_manifest_too_large_to_be_one_is_not_read(tmp_path, monkeypatch):
    make_cache(tmp_path)
    monkeypatch.setattr(sidecar, "MAX_JSON_BYTES", 100)
    with pytest.raises(CacheError, match=r"manifest\.json is larger than 100 bytes; it is not read"):
        CacheReader(tmp_path)


def test_a_unit_of_a_packed_file_is_no_link_out_of_it(tmp_path):
    source = make_cache(tmp_path / "cache")
    other = pack(source, tmp_path / "other.h5")
    path = repacked(
        tmp_path / "linked.h5", source, lambda file: file.__setitem__("openness", h5py.ExternalLink(other, "/openness"))
    )
    with pytest.raises(CacheError, match=r"linked\.h5:/openness is a link that leaves the file"):
        CacheReader(path)


def test_a_packed_file_deflates_all_but_activations_and_keeps_no_width_that_nothing_has(tmp_path):
    unit = make_unit(n=40, width=200)
    source = save(tmp_path / "cache", unit.arrays).path
    with h5py.File(pack(source, tmp_path / "whole.h5")) as file:
        found = {name: file["openness"][name].compression for name in ("activation", "answer_logit", "propensity")}
    assert found == {"activation": None, "answer_logit": "gzip", "propensity": "gzip"}
    light = CacheReader(pack(source, tmp_path / "light.h5", leave_out="activation"))["openness"]
    assert "hidden" not in light
    assert "hidden" in CacheReader(tmp_path / "whole.h5")["openness"]


def test_cells_that_were_not_planned_may_be_nan_where_an_estimate_reads_them(tmp_path):
    unit = make_unit()
    unit.arrays["planned"][0, 1] = 0
    unit.arrays["input_projection"] = np.zeros_like(unit.arrays["propensity"][:, :, 0])
    for name in ("propensity", "answer_logit", "logsumexp", "input_projection"):
        unit.arrays[name][0, 1] = np.nan
    reader = save(tmp_path, unit.arrays)["openness"]
    assert np.isnan(read_finite(reader, "input_projection", setting_eval="base", vector="sys_pos")).all()
    assert np.isnan(read_finite(reader, "propensity", setting_eval="base", vector=["base", "sys_pos"])[1]).all()
    assert read_finite(reader, "answer_logit").shape == unit.arrays["answer_logit"].shape


def test_a_number_that_is_not_finite_is_named_by_the_labels_that_were_asked_for(tmp_path):
    unit = make_unit()
    reader = save(tmp_path, unit.arrays)["openness"]
    plain, labels = reader.read, {"setting_eval": "base", "vector": ["mean", "sys_neg"], "input": "i3"}

    def spoilt(name, **asked):
        found = plain(name, **asked)
        if name == "propensity":
            found[1, 2] = np.inf
        return found

    reader.read = spoilt
    place = "setting_eval=base, vector=sys_neg, multiplier=1.0, input=i3"
    with pytest.raises(CacheError, match=rf"/propensity is inf at {place}; it should be finite$"):
        read_finite(reader, "propensity", **labels)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=5), st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=60, deadline=None)
def test_chunks_are_whole_rows_of_at_most_a_mebibyte(shape, size):
    array = np.broadcast_to(np.zeros(1, dtype=f"V{size}"), shape)
    chunks = row_chunks(array)
    if chunks is None:
        assert array.nbytes <= CHUNK_BYTES
        return
    assert np.prod(chunks) * size <= CHUNK_BYTES
    split = [axis for axis in range(array.ndim) if chunks[axis] < shape[axis]]
    assert all(chunks[axis] == 1 for axis in range(split[-1]))
    assert all(chunks[axis] == shape[axis] for axis in range(split[-1] + 1, array.ndim))
